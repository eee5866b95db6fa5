"""From one grid to another over the same ground: rows of scores of the grid models saw become rows of the scene's."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import torch
from numpy.typing import NDArray
from rasterio.windows import Window
from torch import Tensor

from geoovseg.windows.blend import Rows
from geoovseg.windows.plan import AT_ONCE, Native, Panel, Span, cell_before

Mask = Callable[[Window], NDArray[Any]]
"""Where pixels of a window inside the scene have data (h, w)."""


class Between(NamedTuple):
    """Where pixels of a line lie between the centres of cells, in whole numbers: the same wherever a line begins."""

    lower: Tensor
    upper: Tensor
    weight: Tensor
    """of the upper one"""


def between(span: Span, side: int, count: int, device: torch.device | str, each: int = 1) -> Between:
    """For pixels of a line, the two of `count` cells around them; beyond the outermost centres there is one.

    `each` cells are as long as `side` pixels.
    """
    place = (2 * torch.arange(*span, device=device) + 1) * each - side
    lower = place.div(2 * side, rounding_mode="floor")
    weight = (place - lower * 2 * side).float() / (2 * side)
    return Between(lower.clamp(0, count - 1), (lower + 1).clamp(0, count - 1), weight)


class Resampled:
    """Rows of a panel on the scene's grid, interpolated between scores (bilinear) of the grid that models saw.

    Pixels that no window was on do not count. A pixel has data where the scene says so, and a window was on the one of
    those that models saw in which its centre lies.
    """

    def __init__(self, native: Native, panel: Panel, span: Span, mask: Mask, device: torch.device | str) -> None:
        self._native, self._panel, self._span, self._mask = native, panel, span, mask
        inner, self._inner = native.around(panel, span)
        (_, width), (_, wide) = native.seen, native.shape
        self._across = between((panel.col_off, panel.col_off + panel.width), wide, width, device, each=width)
        self._left = inner.col_off
        self._row = span[0]
        self._held: Tensor | None = None  # scores (C, h, w) from row `_top` on that the next rows may lie between
        self._top, self._voted = 0, False

    def add(self, rows: Rows) -> Iterator[Rows]:
        """Take rows of what models saw, top to bottom without a gap; yield those that can be made."""
        if rows.scores is not None:
            self._voted = rows.voted
            yield from self._between(rows.row_off, rows.scores)
            return
        count, done = len(rows.valid), 0
        if self._held is not None:  # the first are still what others lie beside
            done = min(count, -(-self._native.seen[0] // self._native.shape[0]) + 2)
            yield from self._between(rows.row_off, _empty(self._held, done))
            self._held = self._held if done == count else None
        if self._held is None and (end := self._ready(rows.row_off + count)) > self._row:
            nowhere = rows.valid.new_zeros(1, 1).expand(end - self._row, self._panel.width)
            yield Rows(self._row, None, nowhere)
            self._row = end

    def _ready(self, end: int) -> int:
        """The first row that cannot be made when those above `end` of what models saw are there."""
        (seen, _), (height, _) = self._native.seen, self._native.shape
        last = -(-((2 * end - 1) * height - seen) // (2 * seen))
        last = min(last, end * height // seen)  # what begins in the rows is among those above `end`
        return self._span[1] if end >= self._inner[1] else max(self._row, min(self._span[1], last))

    def _between(self, row_off: int, scores: Tensor) -> Iterator[Rows]:
        """Rows down to the last that lies between these scores (C, h, w) and those before."""
        if self._held is None:
            self._top = min(row_off - 1, self._lower(self._row))
            self._held = _empty(scores, row_off - self._top)
        held = torch.cat([self._held, scores], 1)
        step = max(1, AT_ONCE // (len(held) * self._panel.width))
        end, known = self._ready(row_off + scores.shape[1]), held.any(0)
        if self._row < end:
            across, shares = self._between_columns(held), None
            if not known.all():
                shares = self._between_columns(known.to(across.dtype))
            for first in range(self._row, end, step):
                yield self._made(across, shares, known, (first, min(end, first + step)))
        self._row = end
        past = min(max(self._lower(end) - self._top, 0), held.shape[1] - 1)
        self._top, self._held = self._top + past, held[:, past:]

    def _lower(self, row: int) -> int:
        """The first of the two that a row lies between."""
        return cell_before(row, self._native.shape[0], self._native.seen[0])

    def _made(self, across: Tensor, shares: Tensor | None, known: Tensor, span: Span) -> Rows:
        """Rows of pixels between rows of scores (C, h, w), of which `shares` (h, w) are of what any window was on."""
        (seen, _), (height, _) = self._native.seen, self._native.shape
        down = between(span, height, seen, across.device, each=seen)
        down = Between(down.lower - self._top, down.upper - self._top, down.weight)
        scores = _between_rows(across, down)
        if shares is not None:
            own = _between_rows(shares, down)
            scores = scores / torch.where(own > 0, own, 1)
        valid = self._nearest(known, down)
        if valid.any():
            window = Window(self._panel.col_off, span[0], self._panel.width, span[1] - span[0])
            valid &= torch.from_numpy(self._mask(window)).to(valid.device)
        return Rows(span[0], scores, valid, voted=self._voted)

    def _between_columns(self, values: Tensor) -> Tensor:
        """Values (..., h, w) of the panel's columns; of equal ones exactly these."""
        lower, upper = (side - self._left for side in self._across[:2])
        return torch.lerp(values.index_select(-1, lower), values.index_select(-1, upper), self._across.weight)

    def _nearest(self, known: Tensor, down: Between) -> Tensor:
        """Of what is known beside a pixel, that in which its centre lies (h, w)."""
        row = torch.where(down.weight < 0.5, down.lower, down.upper)
        column = torch.where(self._across.weight < 0.5, self._across.lower, self._across.upper) - self._left
        return known[row][:, column]


def _between_rows(values: Tensor, down: Between) -> Tensor:
    """Values (..., h, w) between rows of others; of equal ones exactly these."""
    lower, upper = (values.index_select(-2, side) for side in down[:2])
    return torch.lerp(lower, upper, down.weight[:, None])


def _empty(like: Tensor, count: int) -> Tensor:
    """So many rows like others (C, h, w) that no window was on."""
    return like.new_zeros(len(like), count, like.shape[2])
