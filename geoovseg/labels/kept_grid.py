"""A scene's place on the ground, kept with the parts of its run for whoever puts them together."""

from __future__ import annotations

import os

import rasterio

from geoovseg.labels.parts import PartStore
from geoovseg.labels.profile import crs_for_side_file
from geoovseg.labels.styles import crs_aux_xml
from geoovseg.rasters.ground import RasterGrid
from geoovseg.rasters.open import placeless

FILE = "grid.tif"
"""One pixel with the scene's coordinate system and transform, exactly as GDAL keeps them."""


def keep_grid(store: PartStore, grid: RasterGrid) -> None:
    """Keep a grid, unless it was kept before."""
    if not (store.folder / FILE).exists():
        _write(store, grid)


def kept_grid(store: PartStore, shape: tuple[int, int]) -> RasterGrid:
    """The grid that was kept, of so many rows and columns."""
    with placeless(), rasterio.open(store.folder / FILE) as src:
        return RasterGrid(height=shape[0], width=shape[1], crs=src.crs, transform=src.transform)


def _write(store: PartStore, grid: RasterGrid) -> None:
    part = store.folder / f"{FILE}.{os.getpid()}.tmp"
    profile = {"driver": "GTiff", "height": 1, "width": 1, "count": 1, "dtype": "uint8"}
    with placeless():
        rasterio.open(part, "w", crs=grid.crs, transform=grid.transform, **profile).close()
        if (wkt := crs_for_side_file(part, grid)) is not None:
            part.with_name(f"{part.name}.aux.xml").write_text(crs_aux_xml(wkt), encoding="utf-8")
    for end in (".aux.xml", ""):
        side = part.with_name(part.name + end)
        if side.exists():
            side.replace(store.folder / f"{FILE}{end}")
