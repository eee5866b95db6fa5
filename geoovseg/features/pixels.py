"""From cells to pixels, over the whole scene: rows of cells come in, rows of pixels go out."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F

from geoovseg.features.ask import CellRows, Words
from geoovseg.features.best import Corners, best_of
from geoovseg.features.fields import FieldRows, Fields, Gap, Guided, Plain
from geoovseg.features.picture import Picture, Read
from geoovseg.ops.guided import FIELDS, RADIUS, at_pixels
from geoovseg.ops.upsample import mixed
from geoovseg.trace import stretch
from geoovseg.windows.plan import AT_ONCE, Cells, Panel, Span, TilePlan, cell_before
from geoovseg.windows.resample import between


@dataclass(frozen=True)
class PixelRows:
    """Rows of pixels that are final; without scores and best ones where no window was anywhere near."""

    row_off: int
    count: int
    scores: Tensor | None = None
    """(C, rows, columns) of classes"""
    best: Tensor | None = None
    """(rows, columns) the class with the best score, where no more is asked"""


@dataclass(frozen=True)
class Asked:
    """What is asked of features."""

    words: Words
    best: bool = False
    """whether only the best class matters, not how sure it is"""
    read: Read | None = None
    """reads the scene, where scores are to follow its colours"""
    voting: bool = False
    """whether regions of pixels are to vote"""

    @property
    def reach(self) -> int:
        """Cells beyond those around a pixel that it depends on."""
        return 0 if self.read is None else RADIUS

    def of(self, plan: TilePlan, side: int, panel: Panel, span: Span) -> tuple[Cells, Pixels]:
        """The cells that pixels of a panel's rows need, and what makes pixels of them."""
        inner = plan.cells(side, panel, span)
        if self.read is None:
            return inner, Pixels(plan, inner, panel, span, self, Plain(self.words, inner))
        around, device = plan.cells(side, panel, span, self.reach), self.words.text.device
        picture = Picture(self.read, (plan.height, plan.width), around, panel, device)
        return around, Pixels(plan, inner, panel, span, self, Guided(self.words, picture, around, inner))


class Across:
    """From cells of a panel to its columns of pixels: all those between two centres at once, without a gather."""

    def __init__(self, span: Span, cells: Cells, count: int, device: torch.device | str) -> None:
        side = cells.side
        first, last = (cell_before(at, side) for at in (span[0], span[1] - 1))
        self.cells = torch.arange(first, last + 2, device=device).clamp(0, count - 1) - cells.panel.col_off
        begin = first * side + side // 2  # the first pixel behind the first centre
        self.weight = between((begin, begin + side), side, count, device).weight
        self.columns = slice(span[0] - begin, span[1] - begin)

    def __call__(self, rows: Tensor) -> Tensor:
        """Values (..., h, w) of pixels by those of cells (..., h, cells)."""
        around = rows[..., self.cells]
        return mixed(around[..., :-1, None], around[..., 1:, None], self.weight).flatten(-2)[..., self.columns]

    def everywhere(self, known: Tensor) -> Tensor:
        """Where both cells around a pixel are known (h, w), of rows of cells."""
        around = known[..., self.cells]
        both = (around[..., :-1] & around[..., 1:])[..., None].expand(*around.shape[:-1], -1, len(self.weight))
        return both.flatten(-2)[..., self.columns]

    def padded(self, values: Tensor, above: int, below: int) -> Tensor:
        """Pixels (..., h, w) with what is missing for whole squares between centres, as zeros."""
        right = (len(self.cells) - 1) * len(self.weight) - self.columns.stop
        return F.pad(values, (self.columns.start, right, above, below))


class Pixels:
    """Class scores at the pixels of a panel's rows, or only the best class: between cells, when their rows are final.

    Interpolation is bilinear, of scores or of a model of them. Cells that no window was on do not count: their
    neighbours' reach as far as pixels have data.
    """

    def __init__(self, plan: TilePlan, cells: Cells, panel: Panel, span: Span, asked: Asked, fields: Fields) -> None:
        self.cells, self.span, self._fields, self._best = cells, span, fields, asked.best
        whole, device = plan.in_cells(cells.side), asked.words.text.device
        self._height = whole.height
        self._across = Across((panel.col_off, panel.col_off + panel.width), cells, whole.width, device)
        many = asked.words.channels * (1 if fields.picture is None else FIELDS)
        if asked.best:  # squares between cells, else rows of pixels
            self._step = max(1, AT_ONCE // max(panel.width * cells.side, many * len(self._across.cells)))
        else:
            self._step = max(1, AT_ONCE // (many * panel.width))
        self._row = span[0]
        self._last: FieldRows | None = None

    def add(self, rows: CellRows) -> Iterator[PixelRows]:
        """Take rows of cells, top to bottom without a gap; yield the rows of pixels that lie between them."""
        for found in self._fields.add(rows):
            yield from self._taken(found)

    def _taken(self, rows: FieldRows | Gap) -> Iterator[PixelRows]:
        if isinstance(rows, FieldRows):
            yield from self._between(rows)
            return
        if self._last is not None:
            yield from self._between(self._last.empty(rows.row_off))
            self._last = None
        if (end := self._ready(rows.row_off + rows.count)) > self._row:
            yield PixelRows(self._row, end - self._row)
            self._row = end

    def _ready(self, end: int) -> int:
        """The first row of pixels that cannot be made when the rows of cells above `end` are there."""
        side = self.cells.side
        return self.span[1] if end >= self.cells.span[1] else min(self.span[1], side * (end - 1) + side // 2)

    def _between(self, rows: FieldRows) -> Iterator[PixelRows]:
        """Rows of pixels down to the last of some rows of cells."""
        rows = rows.below(self._last or rows.empty(rows.row_off - 1))
        self._last = rows.last
        end = self._ready(rows.end)
        while self._row < end:
            last = min(end, self._row + self._step)
            if self._best:  # whole squares between cells
                square = (self._row - self.cells.side // 2) // self.cells.side
                last = min(end, (square + self._step) * self.cells.side + self.cells.side // 2)
            with stretch("upsample"):
                found = (self._best_of if self._best else self._all)(rows, (self._row, last))
            yield found
            self._row = last

    def _best_of(self, rows: FieldRows, span: Span) -> PixelRows:
        """The best class at the pixels of some rows between those of cells."""
        side, around = self.cells.side, self._across.cells
        first, last = ((row - side // 2) // side for row in (span[0], span[1] - 1))
        above = span[0] - first * side - side // 2
        below = (last - first + 1) * side - above - (span[1] - span[0])
        place = torch.arange(first, last + 2, device=around.device).clamp(0, self._height - 1) - rows.row_off
        corners = Corners(rows.fields[:, :, place][..., around], rows.known[place][:, around], self._across.weight)
        own = self._own(rows, span)
        best = best_of(corners, None if own is None else self._across.padded(own, above, below))
        return PixelRows(span[0], span[1] - span[0], best=best[above : len(best) - below, self._across.columns])

    def _all(self, rows: FieldRows, span: Span) -> PixelRows:
        """Scores of all classes at the pixels of some rows between those of cells."""
        fields, own = self._interpolated(rows, rows.fields, rows.known, span), self._own(rows, span)
        return PixelRows(span[0], span[1] - span[0], fields[0] if own is None else at_pixels(fields, own))

    def _own(self, rows: FieldRows, span: Span) -> Tensor | None:
        """How colours of pixels (3, h, w) differ from those of cells, if that matters."""
        if self._fields.picture is None or rows.colours is None:
            return None
        return self._fields.picture.rows(span) - self._interpolated(rows, *rows.colours, span)

    def _interpolated(self, rows: FieldRows, values: Tensor, known: Tensor, span: Span) -> Tensor:
        """Values (..., h, w) of pixels between rows of cells; where not all four cells are known, of the others."""
        lower, upper, weight = between(span, self.cells.side, self._height, values.device)
        lower, upper = lower - rows.row_off, upper - rows.row_off
        found = self._mixed(values, lower, upper, weight)
        if known[int(lower[0]) : int(upper[-1]) + 1].all():
            return found
        shares = self._mixed(known.to(values.dtype), lower, upper, weight)
        everywhere = self._across.everywhere(known[lower] & known[upper])
        return torch.where(everywhere, found, found / shares.clamp_min(torch.finfo(shares.dtype).tiny))

    def _mixed(self, values: Tensor, lower: Tensor, upper: Tensor, weight: Tensor) -> Tensor:
        """Values (..., h, w) between cells; plain products and sums, so that a pixel depends on nothing around it."""
        return self._across(mixed(values[..., lower, :], values[..., upper, :], weight[:, None]))
