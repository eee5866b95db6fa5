"""From cells to pixels, over the whole scene: rows of cells come in, rows of pixels go out."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor

from geoovseg.features.ask import CellRows, Words
from geoovseg.windows.plan import AT_ONCE, Cells, Panel, Span, TilePlan


@dataclass(frozen=True)
class PixelRows:
    """Rows of pixels that are final."""

    row_off: int
    count: int
    scores: Tensor | None
    """(C, rows, columns) of classes; none where no window was anywhere near"""


class Between(NamedTuple):
    """Where pixels of a line lie between the centres of cells, in whole numbers: the same wherever a line begins."""

    lower: Tensor
    upper: Tensor
    weight: Tensor
    """of the upper one"""


def between(span: Span, side: int, count: int, device: torch.device | str) -> Between:
    """For pixels of a line, the two of `count` cells around them; beyond the outermost centres there is one."""
    twice = 2 * torch.arange(*span, device=device) + 1 - side
    lower = twice.div(2 * side, rounding_mode="floor")
    weight = (twice - lower * 2 * side).float() / (2 * side)
    return Between(lower.clamp(0, count - 1), (lower + 1).clamp(0, count - 1), weight)


class Across:
    """From cells of a panel to its columns of pixels: all those between two centres at once, without a gather."""

    def __init__(self, span: Span, cells: Cells, count: int, device: torch.device | str) -> None:
        side = cells.side
        first, last = ((2 * at + 1 - side) // (2 * side) for at in (span[0], span[1] - 1))
        self._cells = torch.arange(first, last + 2, device=device).clamp(0, count - 1) - cells.panel.col_off
        begin = first * side + side // 2  # the first pixel behind the first centre
        self._weight = between((begin, begin + side), side, count, device).weight
        self._columns = slice(span[0] - begin, span[1] - begin)

    def __call__(self, rows: Tensor) -> Tensor:
        """Values (C, h, w) of pixels by those of cells (C, h, cells)."""
        around = rows[..., self._cells]
        left, right = around[..., :-1, None], around[..., 1:, None]
        return (left * (1 - self._weight) + right * self._weight).flatten(-2)[..., self._columns]

    def everywhere(self, known: Tensor) -> Tensor:
        """Where both cells around a pixel are known (h, w), of rows of cells."""
        around = known[..., self._cells]
        both = (around[..., :-1] & around[..., 1:])[..., None].expand(*around.shape[:-1], -1, len(self._weight))
        return both.flatten(-2)[..., self._columns]


class Pixels:
    """Class scores at the pixels of a panel's rows: bilinear between cells, asked when their features are final.

    Cells that no window was on do not count: their neighbours' scores reach as far as pixels have data.
    """

    def __init__(self, plan: TilePlan, cells: Cells, panel: Panel, span: Span, words: Words) -> None:
        self.cells, self.span, self.words = cells, span, words
        whole, device = plan.in_cells(cells.side), words.text.device
        self._height, self._left = whole.height, cells.panel.col_off
        self._across = Across((panel.col_off, panel.col_off + panel.width), cells, whole.width, device)
        self._step = max(1, AT_ONCE // (words.channels * panel.width))
        self._row = span[0]
        self._last: tuple[Tensor, Tensor] | None = None

    def add(self, rows: CellRows) -> Iterator[PixelRows]:
        """Take rows of cells, top to bottom without a gap; yield the rows of pixels that lie between them."""
        if rows.features is not None:
            known = (rows.features != 0).any(0)
            yield from self._between(rows.row_off, self.words.class_scores(rows.features, self._left), known)
            return
        if self._last is not None:
            nothing, nowhere = (torch.zeros_like(last) for last in self._last)
            yield from self._between(rows.row_off, nothing, nowhere)
            self._last = None
        if (end := self._ready(rows.row_off + rows.count)) > self._row:
            yield PixelRows(self._row, end - self._row, None)
            self._row = end

    def _ready(self, end: int) -> int:
        """The first row of pixels that cannot be made when the rows of cells above `end` are there."""
        side = self.cells.side
        return self.span[1] if end >= self.cells.span[1] else min(self.span[1], side * (end - 1) + side // 2)

    def _between(self, first: int, scores: Tensor, known: Tensor) -> Iterator[PixelRows]:
        """Rows of pixels down to the last of some rows of cells."""
        above = self._last or (torch.zeros_like(scores[:, :1]), torch.zeros_like(known[:1]))
        scores, known = torch.cat([above[0], scores], 1), torch.cat([above[1], known])
        self._last = scores[:, -1:], known[-1:]
        end = self._ready(first - 1 + len(known))
        for row in range(self._row, end, self._step):
            span = row, min(row + self._step, end)
            rows = between(span, self.cells.side, self._height, scores.device)
            lower, upper = (place - (first - 1) for place in rows[:2])
            yield PixelRows(row, span[1] - row, self._interpolated(scores, known, lower, upper, rows.weight))
        self._row = max(self._row, end)

    def _interpolated(self, scores: Tensor, known: Tensor, lower: Tensor, upper: Tensor, weight: Tensor) -> Tensor:
        """Scores (C, h, w) of pixels between rows of cells; where not all four cells are known, of the others."""
        found = self._mixed(scores, lower, upper, weight)
        if known[int(lower[0]) : int(upper[-1]) + 1].all():
            return found
        shares = self._mixed(known[None].float(), lower, upper, weight)
        everywhere = self._across.everywhere(known[lower] & known[upper])
        return torch.where(everywhere, found, found / shares.clamp_min(torch.finfo(shares.dtype).tiny))

    def _mixed(self, values: Tensor, lower: Tensor, upper: Tensor, weight: Tensor) -> Tensor:
        """Values (C, h, w) between cells; plain products and sums, so that a pixel depends on nothing around it."""
        down = weight[:, None]
        return self._across(values[:, lower] * (1 - down) + values[:, upper] * down)
