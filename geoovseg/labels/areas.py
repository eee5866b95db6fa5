"""How much ground classes cover, by the pixels of a raster's pieces."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from typing import NamedTuple

import numpy as np

from geoovseg.errors import SceneError
from geoovseg.rasters.ground import Floats, RasterGrid, ellipsoid_of

HECTARE = 10_000.0
"""Square metres."""


class Piece(NamedTuple):
    """Some rows and columns of a label raster, by their middle, and how many pixels of each code they have."""

    row: float
    col: float
    counts: Mapping[int, int]


def hectares(grid: RasterGrid, pieces: Iterable[Piece]) -> dict[int, float] | None:
    """Hectares of each code on the ellipsoid, a pixel in the middle of a piece standing for the others.

    None where the raster says nothing of where it lies.
    """
    some = list(pieces)
    sizes = _pixel_areas(grid, some)
    if sizes is None or not np.isfinite(sizes).all():
        return None
    totals: defaultdict[int, float] = defaultdict(float)
    for piece, size in zip(some, sizes.tolist(), strict=True):
        for code, pixels in piece.counts.items():
            totals[code] += pixels * size / HECTARE
    return {code: round(area, 4) for code, area in totals.items()}


def _pixel_areas(grid: RasterGrid, pieces: Sequence[Piece]) -> Floats | None:
    """Square metres of the pixel in the middle of each piece, if they can be told."""
    cols, rows = (np.array([getattr(piece, side) for piece in pieces], np.float64) for side in ("col", "row"))
    try:
        ellipsoid = ellipsoid_of(grid.crs)
        if ellipsoid is None or not pieces:
            return None
        with np.errstate(all="ignore"):  # beyond the edge of a view of the earth; told by the result
            return ellipsoid.pixel_areas(grid.transform, cols, rows)
    except SceneError:
        return None
