"""Where windows lie: integer geometry on one global grid anchored at the scene's corner. No pixels here."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from rasterio.windows import Window

from geoovseg.errors import UsageError

BLOCK = 512
"""Side of the output's TIFF blocks; panels and bands are cut at multiples of it."""


def origins(length: int, tile: int, stride: int) -> tuple[int, ...]:
    """First pixels of the windows along one axis; the last window is pulled back inside."""
    if length <= tile:
        return (0,)
    steps = -(-(length - tile) // stride)
    return tuple(min(n * stride, length - tile) for n in range(steps + 1))


@dataclass(frozen=True)
class Panel:
    """A range of columns of the output, computed on its own."""

    col_off: int
    width: int


@dataclass(frozen=True, kw_only=True)
class TilePlan:
    """ONE window grid for a scene, whatever part of it is computed; `plan_tiles` makes it."""

    height: int
    width: int
    tile: tuple[int, int]
    """(rows, columns) of every window; smaller than asked where the scene is smaller"""
    stride: int

    @property
    def row_offs(self) -> tuple[int, ...]:
        """First rows of the window rows."""
        return origins(self.height, self.tile[0], self.stride)

    @property
    def col_offs(self) -> tuple[int, ...]:
        """First columns of the window columns."""
        return origins(self.width, self.tile[1], self.stride)

    def panels(self, max_width: int) -> tuple[Panel, ...]:
        """Cut the columns into ranges of at most `max_width`, whole blocks each (at least one)."""
        step = max(BLOCK, max_width // BLOCK * BLOCK)
        return tuple(Panel(c, min(step, self.width - c)) for c in range(0, self.width, step))

    def columns(self, panel: Panel) -> tuple[int, ...]:
        """First columns of the windows that touch a panel."""
        end = panel.col_off + panel.width
        return tuple(c for c in self.col_offs if c < end and c + self.tile[1] > panel.col_off)

    def windows(self, panel: Panel) -> Iterator[Window]:
        """Windows that touch a panel, row by row."""
        cols = self.columns(panel)
        for row in self.row_offs:
            for col in cols:
                yield Window(col_off=col, row_off=row, width=self.tile[1], height=self.tile[0])

    def count(self, panel: Panel) -> int:
        """Number of windows that touch a panel."""
        return len(self.row_offs) * len(self.columns(panel))


def plan_tiles(height: int, width: int, *, tile: int, stride: int, patch: int) -> TilePlan:
    """Lay the window grid: `tile` is an upper bound, in a smaller scene the scene's side rounded up to the patch.

    Raises UsageError unless tile is a multiple of patch and 1 <= stride <= tile.
    """
    if tile < patch or tile % patch:
        near = max(patch, round(tile / patch) * patch)
        raise UsageError(f"--tile {tile} is no multiple of the model's patch of {patch} pixels; try --tile {near}")
    if not 1 <= stride <= tile:
        raise UsageError(f"--stride {stride} must lie between 1 and the tile of {tile} pixels")
    rows, cols = (min(tile, -(-side // patch) * patch) for side in (height, width))
    return TilePlan(height=height, width=width, tile=(rows, cols), stride=stride)
