"""A raster as square tiles in its own grid, of half the resolution from level to level; integers only.

The raster lies in the middle of a world four times as wide, so that a map can be moved beyond it on every side.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

SIDE = 256
"""Pixels on a side of a tile."""


AROUND = 2
"""Levels of the world above the one whose tile is all of the raster, which is tile (1, 1) of level AROUND there."""


class Square(NamedTuple):
    """The pixels of a raster that a tile shows; it may reach beyond the raster."""

    row: int
    col: int
    step: int
    """pixels of the raster on a side of a pixel of the tile"""


@dataclass(frozen=True)
class Pyramid:
    """The tiles of a raster's world: level AROUND has one with all of it, the last level has its own pixels."""

    height: int
    width: int

    @property
    def levels(self) -> int:
        """The last level."""
        return AROUND + (-(-max(self.height, self.width, 1) // SIDE) - 1).bit_length()

    @property
    def offset(self) -> int:
        """Pixels of the world above the raster, and left of it."""
        return SIDE << (self.levels - AROUND)

    def square(self, level: int, x: int, y: int) -> Square | None:
        """What a tile of the world shows; none for one that is not there, or beyond the raster."""
        if not AROUND <= level <= self.levels:
            return None
        step = 1 << (self.levels - level)
        found = Square(y * SIDE * step - self.offset, x * SIDE * step - self.offset, step)
        return found if 0 <= found.row < self.height and 0 <= found.col < self.width else None

    def inside(self, square: Square) -> tuple[int, int]:
        """Rows and columns of a tile that lie on the raster, a part of a pixel counting as one."""
        rows, cols = (
            -(-min(SIDE * square.step, length - first) // square.step)
            for first, length in ((square.row, self.height), (square.col, self.width))
        )
        return rows, cols
