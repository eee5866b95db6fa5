"""Rasters that tests write, and blocks of them that they break."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import rasterio
from rasterio.transform import from_origin

TRANSFORM = from_origin(480_000, 5_460_000, 0.5, 0.5)


def written(path: Path, data: np.ndarray, *, tags: dict[str, str] | None = None, **profile: Any) -> str:
    """Write an array (bands, h, w) as a GeoTIFF and return its name; keywords go to rasterio, `tags` to the file."""
    mask = profile.pop("mask", None)
    colorinterp = profile.pop("colorinterp", None)
    defaults = {"driver": "GTiff", "crs": "EPSG:32632", "transform": TRANSFORM}
    size = {"count": data.shape[0], "height": data.shape[1], "width": data.shape[2], "dtype": data.dtype}
    with rasterio.open(path, "w", **{**defaults, **size, **profile}) as dst:
        if colorinterp is not None:
            dst.colorinterp = colorinterp
        dst.write(data)
        if tags:
            dst.update_tags(**tags)
        if mask is not None:
            dst.write_mask(mask)
    return str(path)


def break_block(path: Path | str, col: int, row: int) -> None:
    """Overwrite a block of a tiled and compressed GeoTIFF, which then cannot be read."""
    with rasterio.open(path) as src:
        place, size = (
            int(src.get_tag_item(f"BLOCK_{name}_{col}_{row}", "TIFF", bidx=1)) for name in ("OFFSET", "SIZE")
        )
    with Path(path).open("r+b") as file:
        file.seek(place)
        file.write(b"\xff" * size)
