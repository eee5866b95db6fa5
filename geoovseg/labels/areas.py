"""How much ground classes cover, by the pixels of a raster's pieces."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping
from typing import NamedTuple

import numpy as np

from geoovseg.errors import SceneError
from geoovseg.rasters.ground import RasterGrid, ellipsoid_of

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
    try:
        ellipsoid = ellipsoid_of(grid.crs)
    except SceneError:
        return None
    some = list(pieces)
    if ellipsoid is None or not some:
        return None
    cols, rows = (np.array([getattr(piece, side) for piece in some], np.float64) for side in ("col", "row"))
    with np.errstate(invalid="ignore"):  # beyond the edge of a view of the earth; told by the result
        sizes = ellipsoid.pixel_areas(grid.transform, cols, rows)
    if not np.isfinite(sizes).all():
        return None
    totals: defaultdict[int, float] = defaultdict(float)
    for piece, size in zip(some, sizes.tolist(), strict=True):
        for code, pixels in piece.counts.items():
            totals[code] += pixels * size / HECTARE
    return {code: round(area, 4) for code, area in totals.items()}
