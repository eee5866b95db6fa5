"""A raster of region ids beside a scene, brought to the scene's grid."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np
import rasterio
import rasterio.warp
from numpy.typing import NDArray
from rasterio.enums import Resampling
from rasterio.vrt import WarpedVRT
from rasterio.windows import Window

from geoovseg.errors import SceneError, UsageError, first_line
from geoovseg.rasters.open import GDAL_ERRORS, opened

LARGEST = 2**31 - 1


@dataclass(frozen=True)
class RegionFile:
    """An open raster of regions on the grid of a scene."""

    src: Any
    path: str
    files: tuple[str, ...]
    """on disk: itself, its side files, and what a VRT is made of"""

    def read(self, window: Window) -> NDArray[np.int32]:
        """Region ids (h, w) of a window inside the scene; 0 where there is none.

        Raises SceneError for what cannot be read, UsageError for numbers that are no ids.
        """
        try:
            ids = self.src.read(1, window=window, masked=True).filled(0).astype(np.int64)
        except GDAL_ERRORS as error:
            raise SceneError(f"cannot read the regions of {self.path}: {first_line(error)}") from error
        if ids.size and not 0 <= ids.min() <= ids.max() <= LARGEST:
            found = f"region ids from {ids.min()} to {ids.max()}"
            raise UsageError(f"--regions {self.path} has {found}; they run from 0, for no region, to {LARGEST}")
        return ids.astype(np.int32)


@contextmanager
def open_regions(path: str | os.PathLike[str], scene: Any) -> Iterator[RegionFile]:
    """Open a raster of whole numbers, one for each region, on the grid of an open scene (rasterio dataset).

    On another grid the nearest pixel counts. Raises SceneError for what cannot be opened, has no whole numbers, or lies
    nowhere on the scene.
    """
    name = os.fspath(path)
    with opened(name, f"the regions {name!r}") as src:
        if not src.count or not np.issubdtype(np.dtype(src.dtypes[0]), np.integer):
            kind = src.dtypes[0] if src.count else "no"
            raise SceneError(f"{name} has {kind} pixels; regions are whole numbers, 0 where there is none")
        if src.shape == scene.shape and src.transform == scene.transform and src.crs == scene.crs:
            yield RegionFile(src, name, (name, *src.files))
            return
        if src.crs is None or scene.crs is None:
            raise SceneError(f"{name} has another grid than the scene, and one of them has no coordinate system")
        with _on_grid(src, scene, name) as warped:
            yield RegionFile(warped, name, (name, *src.files))


@contextmanager
def _on_grid(src: Any, scene: Any, name: str) -> Iterator[Any]:
    """The regions resampled by the nearest pixel."""
    try:
        west, south, east, north = rasterio.warp.transform_bounds(src.crs, scene.crs, *_upright(src.bounds))
        left, bottom, right, top = _upright(scene.bounds)
        grid = {"crs": scene.crs, "transform": scene.transform, "height": scene.height, "width": scene.width}
        warped = WarpedVRT(src, resampling=Resampling.nearest, **grid)
    except GDAL_ERRORS as error:
        raise SceneError(f"{name} cannot be brought to the scene's grid: {first_line(error)}") from error
    with warped:
        if west >= right or east <= left or south >= top or north <= bottom:
            raise SceneError(f"{name} lies nowhere on the scene")
        yield warped


def _upright(bounds: Any) -> tuple[float, float, float, float]:
    """(west, south, east, north) of a raster whichever way it lies."""
    return (
        min(bounds.left, bounds.right), min(bounds.bottom, bounds.top),
        max(bounds.left, bounds.right), max(bounds.bottom, bounds.top),
    )  # fmt: skip
