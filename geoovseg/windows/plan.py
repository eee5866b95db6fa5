"""Where windows lie: integer geometry on one global grid anchored at the scene's corner. No pixels here."""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import pairwise
from typing import NamedTuple

from rasterio.windows import Window

from geoovseg.errors import UsageError

BLOCK = 512
"""Side of the output's TIFF blocks; panels and parts are cut at multiples of it."""
BAND = 128
"""Rows that are written together: one row of blocks of a part's file."""
AT_ONCE = 1 << 19
"""Scores of finished rows handled together, which bounds what is made of them."""
REACH = 2
"""Cells on every side of one from which it is learned how scores follow colours."""
Span = tuple[int, int]
"""First row, and the first row below."""


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


@dataclass(frozen=True)
class Part:
    """A band of rows of a panel: the unit of resuming and of sharing out. Whole TIFF blocks, but at the scene's end."""

    panel: Panel
    row_off: int
    height: int

    @property
    def end(self) -> int:
        """The first row below it."""
        return self.row_off + self.height

    @property
    def place(self) -> tuple[Panel, Span]:
        """Its columns, and its rows."""
        return self.panel, (self.row_off, self.end)

    @property
    def name(self) -> str:
        """What its files are called."""
        return f"part_{self.row_off:07d}_{self.panel.col_off:07d}"

    def owns(self, window: Window) -> bool:
        """Whether a window is counted here: where it begins."""
        cols = self.panel.col_off <= window.col_off < self.panel.col_off + self.panel.width
        return cols and self.row_off <= window.row_off < self.end


def panels_of(width: int, most: int, block: int = BLOCK) -> tuple[Panel, ...]:
    """Cut columns into ranges of at most so many, whole blocks each (at least one)."""
    step = max(block, most // block * block)
    return tuple(Panel(c, min(step, width - c)) for c in range(0, width, step))


def parts_of(height: int, panels: Iterable[Panel], block: int = BLOCK) -> tuple[Part, ...]:
    """All parts of panels, a row of blocks each, panel by panel from the top."""
    tops = range(0, height, block)
    return tuple(Part(panel, top, min(block, height - top)) for panel in panels for top in tops)


def runs(parts: Iterable[Part]) -> list[tuple[Part, ...]]:
    """Group parts that follow each other in one panel: they are computed in one go."""
    found: list[list[Part]] = []
    for part in parts:
        if found and found[-1][-1].panel == part.panel and found[-1][-1].end == part.row_off:
            found[-1].append(part)
        else:
            found.append([part])
    return [tuple(run) for run in found]


def share(parts: Sequence[Part], number: int, count: int) -> tuple[Part, ...]:
    """Part of the parts: the `number`-th (from 1) of `count` shares of neighbours, alike in size."""
    if not 1 <= number <= count:
        raise UsageError(f"--shard {number}/{count}: I must be from 1 to N")
    first, end = ((n * len(parts)) // count for n in (number - 1, number))
    return tuple(parts[first:end])


class Cells(NamedTuple):
    """The cells, squares of pixels, that pixels draw from which are interpolated between the centres of cells."""

    side: int
    """of a cell, in pixels"""
    panel: Panel
    """columns of cells"""
    span: Span
    """rows of cells"""

    @property
    def pixels(self) -> tuple[Panel, Span]:
        """What they cover, which may go beyond the scene's end."""
        first, end = self.span
        panel = Panel(self.panel.col_off * self.side, self.panel.width * self.side)
        return panel, (first * self.side, end * self.side)


@dataclass(frozen=True, kw_only=True)
class TilePlan:
    """ONE window grid for a scene, whatever part of it is computed; `plan_tiles` makes it."""

    height: int
    width: int
    tile: tuple[int, int]
    """(rows, columns) of every window; smaller than asked where the scene is smaller"""
    stride: int
    unit: int = 1
    """what windows begin and end at multiples of; the scene's sides are rounded up to it"""

    @cached_property
    def row_offs(self) -> tuple[int, ...]:
        """First rows of the window rows."""
        return origins(_up(self.height, self.unit), self.tile[0], self.stride)

    @cached_property
    def col_offs(self) -> tuple[int, ...]:
        """First columns of the window columns."""
        return origins(_up(self.width, self.unit), self.tile[1], self.stride)

    @cached_property
    def row_edges(self) -> tuple[int, ...]:
        """Where the cores of window rows begin and end."""
        return edges(self.row_offs, self.tile[0], self.height)

    @cached_property
    def col_edges(self) -> tuple[int, ...]:
        """Where the cores of window columns begin and end."""
        return edges(self.col_offs, self.tile[1], self.width)

    def core(self, window: Window) -> Window:
        """The pixels of the scene whose middle is nearer to that of a window than to that of any other."""
        row, col = bisect_left(self.row_offs, window.row_off), bisect_left(self.col_offs, window.col_off)
        (first, end), (left, right) = self.row_edges[row : row + 2], self.col_edges[col : col + 2]
        return Window(left, first, right - left, end - first)

    def whole_cores(self, panel: Panel, span: Span) -> tuple[Panel, Span]:
        """The cores of windows that a panel's rows lie in."""
        first, end = _outward(span, self.row_edges)
        left, right = _outward((panel.col_off, panel.col_off + panel.width), self.col_edges)
        return Panel(left, right - left), (first, end)

    def in_cells(self, side: int) -> TilePlan:
        """The same windows counted in cells, of a side that the unit is a multiple of."""
        return TilePlan(
            height=_up(self.height, self.unit) // side,
            width=_up(self.width, self.unit) // side,
            tile=(self.tile[0] // side, self.tile[1] // side),
            stride=self.stride // side,
        )

    def cells(self, side: int, panel: Panel, span: Span, reach: int = 0) -> Cells:
        """The cells that pixels of a panel's rows draw from: those whose centres are around theirs, and some beyond."""
        whole = self.in_cells(side)
        left, right = drawn_from((panel.col_off, panel.col_off + panel.width), side, whole.width, reach)
        return Cells(side, Panel(left, right - left), drawn_from(span, side, whole.height, reach))

    @property
    def sum_bytes(self) -> int:
        """Of a sum over windows: 4; where a pixel lies in very many, 8, so that a constant stays constant to 1e-6."""
        return 4 if 4 * self.stride >= max(self.tile) else 8

    def strip_bytes(self, channels: int, width: int) -> int:
        """Of the strip that a panel of `width` columns is blended in: sums, their weights, and where there is data."""
        return min(self.tile[0], self.height) * width * (self.sum_bytes * (channels + 1) + 1)

    def columns(self, panel: Panel) -> tuple[int, ...]:
        """First columns of the windows that touch a panel."""
        end = panel.col_off + panel.width
        return tuple(c for c in self.col_offs if c < end and c + self.tile[1] > panel.col_off)

    def rows(self, span: Span | None = None) -> tuple[int, ...]:
        """First rows of the windows that touch a span of rows; of all windows if none is given."""
        first, end = span or (0, self.height)
        return tuple(r for r in self.row_offs if r < end and r + self.tile[0] > first)

    def windows(self, panel: Panel, span: Span | None = None) -> Iterator[Window]:
        """Windows that touch a panel, or only a span of its rows, row by row."""
        cols = self.columns(panel)
        for row in self.rows(span):
            for col in cols:
                yield Window(col_off=col, row_off=row, width=self.tile[1], height=self.tile[0])

    def count(self, panel: Panel, span: Span | None = None) -> int:
        """Number of windows that touch a panel, or a span of its rows."""
        return len(self.rows(span)) * len(self.columns(panel))

    def owned(self, part: Part) -> int:
        """Number of windows that are counted in a part: those that begin in it."""
        rows = sum(part.row_off <= row < part.end for row in self.row_offs)
        first, end = part.panel.col_off, part.panel.col_off + part.panel.width
        return rows * sum(first <= col < end for col in self.col_offs)


def edges(offs: Sequence[int], tile: int, length: int) -> tuple[int, ...]:
    """The middles of what neighbouring windows share, between the ends of a line."""
    return (0, *((one + other + tile) // 2 for one, other in pairwise(offs)), length)


def _outward(span: Span, edges: Sequence[int]) -> Span:
    """A span of pixels that has none, grown to edges."""
    return edges[bisect_right(edges, span[0]) - 1], edges[bisect_left(edges, span[1])]


def _up(length: int, unit: int) -> int:
    return -(-length // unit) * unit


def cell_before(pixel: int, side: int, each: int = 1) -> int:
    """The first of the two cells between whose centres that of a pixel lies; `each` are as long as `side` pixels."""
    return ((2 * pixel + 1) * each - side) // (2 * side)


def drawn_from(pixels: Span, side: int, count: int, reach: int = 0, each: int = 1) -> Span:
    """The first of `count` cells that some pixels of a line draw from, and the first behind the last.

    `each` cells are as long as `side` pixels.
    """
    first, end = (cell_before(at, side, each) for at in (pixels[0], pixels[1] - 1))
    return max(0, first - reach), min(count, end + 2 + reach)


class Native(NamedTuple):
    """The scene's own grid, on which outputs are to lie, beside the one that models see, over the same ground."""

    shape: tuple[int, int]
    """(height, width) of the scene"""
    seen: tuple[int, int]
    """and of what models see of it"""

    def around(self, panel: Panel, span: Span) -> tuple[Panel, Span]:
        """What pixels of a panel's rows draw from, of those that models see, and those that begin there."""
        (height, width), (rows, columns) = self.shape, self.seen
        left, right = drawn_from((panel.col_off, panel.col_off + panel.width), width, columns, each=columns)
        first, end = drawn_from(span, height, rows, each=rows)
        begun = self.begun_in(Part(panel, span[0], span[1] - span[0]))
        left, right = min(left, begun.panel.col_off), max(right, begun.panel.col_off + begun.panel.width)
        return Panel(left, right - left), (min(first, begun.row_off), max(end, begun.end))

    def begin(self, row: int, column: int) -> tuple[int, int]:
        """The scene's pixel in which one that models see begins."""
        (height, width), (rows, columns) = self.shape, self.seen
        return row * height // rows, column * width // columns

    def begun_in(self, part: Part) -> Part:
        """The pixels that models see whose upper left corners lie in a part."""
        (height, width), (rows, columns) = self.shape, self.seen
        first, end = (-(-at * rows // height) for at in (part.row_off, part.end))
        left, right = (-(-at * columns // width) for at in (part.panel.col_off, part.panel.col_off + part.panel.width))
        return Part(Panel(left, right - left), first, end - first)


def plan_tiles(height: int, width: int, *, tile: int, stride: int, patch: int, aligned: bool = False) -> TilePlan:
    """Lay the window grid: `tile` is an upper bound, in a smaller scene the scene's side rounded up to the patch.

    With `aligned`, windows begin and end at whole patches. Raises UsageError unless tile is a multiple of patch and
    1 <= stride <= tile, and for a stride that is no multiple of patch where windows are aligned.
    """
    if tile < patch or tile % patch:
        near = max(patch, round(tile / patch) * patch)
        raise UsageError(f"--tile {tile} is no multiple of the model's patch of {patch} pixels; try --tile {near}")
    if not 1 <= stride <= tile:
        raise UsageError(f"--stride {stride} must lie between 1 and the tile of {tile} pixels")
    if aligned and stride % patch:
        multiples = " or ".join(str(n * patch) for n in (stride // patch, stride // patch + 1) if 0 < n * patch <= tile)
        said = f"--stride {stride} is no multiple of the model's patch of {patch} pixels"
        raise UsageError(f"{said}; try --stride {multiples}")
    rows, cols = (min(tile, _up(side, patch)) for side in (height, width))
    return TilePlan(height=height, width=width, tile=(rows, cols), stride=stride, unit=patch if aligned else 1)
