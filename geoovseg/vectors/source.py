"""The label raster that polygons are made of: its grid, the classes in it, what a pixel measures."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from rasterio.windows import Window

from geoovseg.errors import SceneError, UsageError, some
from geoovseg.labels.categories import category_names, split_names
from geoovseg.labels.contents import count, legend_of
from geoovseg.labels.read import check_codes
from geoovseg.labels.styles import LegendEntry
from geoovseg.rasters.ground import Ellipsoid, areas_of, ellipsoid_of, pixel_size
from geoovseg.vectors.pieces import Recipe

FARTHEST = 1e9
"""Metres of a split grid at most."""
LARGEST = 2**31 - 1
"""Of the codes a column of whole numbers can hold."""


@dataclass(frozen=True, kw_only=True)
class Source:
    """A label raster: its grid, and the classes that become polygons."""

    path: str
    shape: tuple[int, int]
    transform: Any
    crs: Any
    legend: tuple[LegendEntry, ...]
    unnamed: tuple[int, ...] = ()
    """those of the legend whose names the raster does not say"""
    ellipsoid: Ellipsoid | None

    def recipe(self, confidence: str | None, tolerance: float) -> Recipe:
        """What the blocks are made of; a tolerance in metres. Raises UsageError where a pixel has no size in metres."""
        if tolerance and not all(map(math.isfinite, self.pixel)):
            raise UsageError(
                f"--simplify {tolerance:g}: {self.path} does not say how large its pixels are on the ground"
            )
        return Recipe(
            labels=self.path,
            size=self.shape[::-1],
            confidence=confidence,
            codes=tuple(entry.code for entry in self.legend),
            tolerance=tolerance,
            pixel=self.pixel,
        )

    @property
    def pixel(self) -> tuple[float, float]:
        """Width and height of a pixel in the middle, in metres if the raster lies on an ellipsoid."""
        return pixel_size(self.transform, self.shape, self.ellipsoid)

    @property
    def pixel_area(self) -> float:
        """Area of a pixel in the middle, in square metres, without an ellipsoid in square units of the raster."""
        return float(self.pixel_areas(Window(self.shape[1] // 2, self.shape[0] // 2, 1, 1))[0, 0])

    def pixel_areas(self, window: Window) -> NDArray[np.float64]:
        """Areas (h, w) of the pixels of a window, the same from whatever window they are asked for."""
        return areas_of(self.ellipsoid, self.transform, window)


def inspect(src: Any, path: str, classes: Sequence[str] | str | None, names: dict[int, str] | None) -> Source:
    """The classes of an open raster and its grid. Raises SceneError, UsageError."""
    if not src.count or not np.issubdtype(np.dtype(src.dtypes[0]), np.integer):
        raise SceneError(f"{path} has {src.dtypes[0] if src.count else 'no'} pixels; labels are whole numbers")
    check_codes(src)
    if wrong := [code for code in names or {} if not isinstance(code, int)]:
        raise UsageError(f"names of {wrong[0]!r}: codes are whole numbers, as in {{3: 'road'}}")
    for code, name in (names or {}).items():
        if not (isinstance(name, str) and name.isprintable()):
            raise UsageError(f"the name {name!r} of the code {code} has characters that cannot be printed")
    known = {**category_names(src), **(names or {})}
    legend = _legend(src, known)
    if classes is None:
        legend = [entry for entry in legend if entry.code != 0]
    else:
        there = known | {entry.code: entry.name for entry in legend}
        wanted = split_names(classes, there.values())
        _check_classes(wanted, there, path)
        legend = [entry for entry in legend if entry.name in wanted]
    return Source(
        path=path,
        shape=(src.height, src.width),
        transform=src.transform,
        crs=src.crs,
        legend=tuple(legend),
        unnamed=tuple(entry.code for entry in legend if entry.code not in known),
        ellipsoid=ellipsoid_of(src.crs),
    )


def _check_classes(classes: Sequence[str], known: dict[int, str], path: str) -> None:
    """Refuse names of no class; one that the raster names need not have a pixel. Raises UsageError."""
    unknown = [name for name in classes if name not in known.values()]
    if unknown:
        there = some((known[code] for code in sorted(known)), 20) or "none"
        raise UsageError(f"{path} has no class {unknown[0]!r}; it has {there}")


def _legend(src: Any, known: dict[int, str]) -> list[LegendEntry]:
    """Names and colours of the codes a raster has, but nodata."""
    counts = count(src)
    if any(abs(code) > LARGEST for code in counts.pixels):
        raise SceneError(f"{src.name} has the code {max(counts.pixels, key=abs)}; codes go to {LARGEST}")
    return [entry for entry in legend_of(src, counts, known) if entry.pixels]


def split(source: Source, metres: float, block: int) -> tuple[tuple[int, int], int]:
    """A split grid in pixels, and the side of blocks whose seams include its lines.

    Its cells may be a few pixels off, so that blocks fit. Raises UsageError.
    """
    width, height = source.pixel
    if not max(width, height) <= metres <= FARTHEST:
        raise UsageError(f"--split-grid {metres:g} is less than a pixel, or no number of metres on the earth")
    if round(metres / width) != round(metres / height):
        raise UsageError("--split-grid needs square pixels")
    blocks_a_cell = -(-round(metres / width) // block)
    side = round(metres / width / blocks_a_cell)
    return (side * blocks_a_cell, side * blocks_a_cell), side
