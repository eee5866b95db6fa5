"""What a label raster is, whatever its pixels: grid, classes, pixel type, and what its format cannot hold."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, replace
from pathlib import Path

import rasterio

from geoovseg.labels.areas import Piece
from geoovseg.labels.styles import LegendEntry
from geoovseg.rasters.ground import RasterGrid, wkt_of
from geoovseg.rasters.open import plain_open

BACKGROUND_COLOUR = "#eeeeee"
"""Pale, for software that ignores the style, in which code 0 is transparent."""


def label_dtype(classes: int) -> tuple[str, int]:
    """Pixel type and nodata code of a label raster: uint8 and 255, above 254 classes uint16 and 65535."""
    return ("uint8", 255) if classes <= 254 else ("uint16", 65535)


@dataclass(frozen=True)
class LabelProfile:
    """What the outputs are, whatever their pixels: enough to put parts together without the scene."""

    grid: RasterGrid
    classes: tuple[tuple[str, str], ...]
    """(name, colour) of codes 1..N"""
    background: bool = False
    """whether code 0 has a score of its own"""

    @property
    def channels(self) -> tuple[str, ...]:
        """Names of what has a score, the background first if it has one."""
        names = tuple(name for name, _ in self.classes)
        return ("background", *names) if self.background else names

    @property
    def first_band(self) -> int:
        """The band of scores that the first class has."""
        return 2 if self.background else 1

    @property
    def dtype(self) -> str:
        """Pixel type of the labels."""
        return label_dtype(len(self.classes))[0]

    @property
    def nodata(self) -> int:
        """Code of pixels without data."""
        return label_dtype(len(self.classes))[1]

    @property
    def legend(self) -> list[LegendEntry]:
        """Codes, names and colours, the background first."""
        return [LegendEntry(n, *c) for n, c in enumerate([("background", BACKGROUND_COLOUR), *self.classes])]


def legend_with(profile: LabelProfile, pieces: Iterable[Piece]) -> list[LegendEntry]:
    """Codes, names, colours and how many pixels of some pieces have them."""
    totals: Counter[int] = Counter()
    for piece in pieces:
        totals.update(piece.counts)
    return [replace(entry, pixels=totals[entry.code]) for entry in profile.legend]


def crs_for_side_file(raster: Path, grid: RasterGrid) -> str | None:
    """The coordinate system of a grid where a raster on it, being a GeoTIFF, could not hold it; else None."""
    if grid.crs is None:
        return None
    with rasterio.Env(GDAL_PAM_ENABLED="NO"), plain_open(raster) as src:  # GDAL's side file is not kept
        held = src.crs == grid.crs
    return None if held else wkt_of(grid.crs)
