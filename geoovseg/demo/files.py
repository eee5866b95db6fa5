"""Demo scenes as files: a GeoTIFF with a demo tag, and its ground truth with class names and colours."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import numpy as np
import rasterio
from rasterio.errors import RasterioError
from rasterio.transform import from_origin
from rasterio.windows import Window

from geoovseg.demo.scenes import CLASSES, COLOURS, GSD, render
from geoovseg.errors import OutputError
from geoovseg.files import bench
from geoovseg.labels.styles import LegendEntry, label_aux_xml, label_qml
from geoovseg.rasters.open import raster_env
from geoovseg.scene.scene import DEMO_TAG
from geoovseg.windows.plan import BLOCK

CRS = "EPSG:32632"
ORIGIN = (480_000.0, 5_460_000.0)
"""Easting and northing of the upper left corner; the place means nothing."""
FILES = ("scene.tif", "truth.tif", "scene_labels.tif", "demo.png")
"""What a demo folder holds."""


def write_scene(folder: str | os.PathLike[str], seed: int, height: int, width: int) -> tuple[str, str]:
    """Draw the scene `seed` into `folder` as scene.tif and truth.tif, block by block; returns both names.

    Codes 1 to 8 of the truth are CLASSES in order. An earlier demo is replaced when the new one is whole. Raises
    OutputError where files of these names are no demo, and where nothing can be written.
    """
    place = Path(folder)
    scene, truth = place / "scene.tif", place / "truth.tif"
    targets = (truth.with_suffix(".qml"), truth.with_name("truth.tif.aux.xml"), truth, scene)
    try:
        place.mkdir(parents=True, exist_ok=True)
        _check_ours(place)
        with bench(scene) as work:
            parts = [work / path.name for path in targets]
            counts = _draw(parts[3], parts[2], seed, height, width)
            legend = [LegendEntry(0, "", "#000000")]
            legend += [LegendEntry(n, c, COLOURS[n - 1], int(counts[n])) for n, c in enumerate(CLASSES, start=1)]
            parts[0].write_text(label_qml(legend[1:]), encoding="utf-8")
            parts[1].write_text(label_aux_xml(legend), encoding="utf-8")
            for part, path in zip(parts, targets, strict=True):
                os.replace(part, path)
    except OutputError:
        raise
    except (OSError, RasterioError) as error:
        raise OutputError(f"cannot write a scene into {place}: {error}") from error
    return str(scene), str(truth)


def _check_ours(place: Path) -> None:
    """Refuse to replace files that are not of an earlier demo."""
    there = [place / name for name in FILES if (place / name).exists()]
    if not there:
        return
    try:
        with rasterio.open(place / "scene.tif") as src:
            ours = DEMO_TAG in src.tags()
    except RasterioError:
        ours = False
    if not ours:
        raise OutputError(f"{there[0]} is not of an earlier demo; choose another folder")


def _draw(scene: Path, truth: Path, seed: int, height: int, width: int) -> Any:
    profile = {
        "driver": "GTiff", "height": height, "width": width, "dtype": "uint8", "crs": CRS, "compress": "deflate",
        "transform": from_origin(*ORIGIN, GSD, GSD), "bigtiff": "IF_SAFER", "tiled": True, "blockxsize": BLOCK,
        "blockysize": BLOCK,
    }  # fmt: skip
    counts = np.zeros(256, np.int64)
    with (
        raster_env(),
        rasterio.open(scene, "w", count=3, photometric="rgb", interleave="pixel", predictor=2, **profile) as picture,
        rasterio.open(truth, "w", count=1, nodata=255, **profile) as codes,
    ):
        picture.update_tags(**{DEMO_TAG: str(seed)})
        codes.write_colormap(1, {n: _rgba(c) for n, c in enumerate(COLOURS, start=1)})
        for row in range(0, height, BLOCK):
            for col in range(0, width, BLOCK):
                window = Window(col, row, min(BLOCK, width - col), min(BLOCK, height - row))
                pixels, label = render(seed, window.height, window.width, row_off=row, col_off=col)
                picture.write(pixels, window=window)
                codes.write(label, 1, window=window)
                counts += np.bincount(label.ravel(), minlength=256)
    return counts


def _rgba(colour: str) -> tuple[int, int, int, int]:
    return int(colour[1:3], 16), int(colour[3:5], 16), int(colour[5:7], 16), 255
