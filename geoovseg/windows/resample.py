"""From one grid to another over the same ground: rows of scores of the grid models saw become rows of the scene's."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import torch
from numpy.typing import NDArray
from rasterio.windows import Window
from torch import Tensor

from geoovseg.windows.blend import Rows
from geoovseg.windows.plan import AT_ONCE, Native, Panel, Span

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
        self._native, self._panel, self._span, self._mask, self._device = native, panel, span, mask, device
        inner, self._inner = native.around(panel, span)
        (_, width), (_, wide) = native.seen, native.shape
        self._across = between((panel.col_off, panel.col_off + panel.width), wide, width, device, each=width)
        self._left = inner.col_off
        self._row = span[0]
        self._last: Rows | None = None

    def add(self, rows: Rows) -> Iterator[Rows]:
        """Take rows of what models saw, top to bottom without a gap; yield those that can be made."""
        if rows.scores is not None:
            yield from self._between(rows)
            return
        done = 0
        if self._last is not None:  # the first are still what others lie beside
            done = min(len(rows.valid), -(-self._native.seen[0] // self._native.shape[0]) + 2)
            yield from self._between(_empty(self._last, rows.row_off, done))
            self._last = self._last if done == len(rows.valid) else None
        if self._last is None and (end := self._ready(rows.row_off + len(rows.valid))) > self._row:
            nowhere = rows.valid.new_zeros(1, 1).expand(end - self._row, self._panel.width)
            yield Rows(self._row, None, nowhere)
            self._row = end

    def _ready(self, end: int) -> int:
        """The first row that cannot be made when those above `end` of what models saw are there."""
        (seen, _), (height, _) = self._native.seen, self._native.shape
        last = -(-((2 * end - 1) * height - seen) // (2 * seen))
        last = min(last, end * height // seen)  # what begins in the rows is among those above `end`
        return self._span[1] if end >= self._inner[1] else max(self._row, min(self._span[1], last))

    def _between(self, rows: Rows) -> Iterator[Rows]:
        """Rows down to the last that lies between these and those before."""
        first = min(rows.row_off - 1, self._lower(self._row))
        held = _below(self._last or _empty(rows, first, rows.row_off - first), rows)
        assert held.scores is not None
        step = max(1, AT_ONCE // (len(held.scores) * self._panel.width))
        end, known = self._ready(rows.row_off + len(rows.valid)), held.scores.any(0)
        if self._row < end:
            across, shares = self._between_columns(held.scores), None
            if not known.all():
                shares = self._between_columns(known.to(across.dtype))
            for first in range(self._row, end, step):
                yield self._made(across, shares, known, held, (first, min(end, first + step)))
        self._row = end
        self._last = _from(held, min(max(self._lower(end) - held.row_off, 0), len(held.valid) - 1))

    def _lower(self, row: int) -> int:
        """The first of the two that a row lies between."""
        (seen, _), (height, _) = self._native.seen, self._native.shape
        return ((2 * row + 1) * seen - height) // (2 * height)

    def _made(self, across: Tensor, shares: Tensor | None, known: Tensor, held: Rows, span: Span) -> Rows:
        """Rows of pixels between rows of scores (C, h, w), of which `shares` (h, w) are of what any window was on."""
        (seen, _), (height, _) = self._native.seen, self._native.shape
        down = between(span, height, seen, across.device, each=seen)
        down = Between(down.lower - held.row_off, down.upper - held.row_off, down.weight)
        scores = _between_rows(across, down)
        if shares is not None:
            own = _between_rows(shares, down)
            scores = scores / torch.where(own > 0, own, 1)
        valid = self._nearest(known, down)
        if valid.any():
            window = Window(self._panel.col_off, span[0], self._panel.width, span[1] - span[0])
            valid &= torch.from_numpy(self._mask(window)).to(valid.device)
        return Rows(span[0], scores, valid, voted=held.voted)

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


def _empty(like: Rows, row_off: int, count: int = 1) -> Rows:
    """Rows that no window was on."""
    assert like.scores is not None
    (many, _, width), valid = like.scores.shape, like.valid.new_zeros(count, like.valid.shape[1])
    return Rows(row_off, like.scores.new_zeros(many, count, width), valid, voted=like.voted)


def _below(above: Rows, rows: Rows) -> Rows:
    """Rows and those right above them."""
    assert above.scores is not None
    assert rows.scores is not None
    scores, valid = torch.cat([above.scores, rows.scores], 1), torch.cat([above.valid, rows.valid])
    return Rows(above.row_off, scores, valid, voted=rows.voted)


def _from(rows: Rows, number: int) -> Rows:
    """The last of some rows."""
    assert rows.scores is not None
    return Rows(rows.row_off + number, rows.scores[:, number:], rows.valid[number:], voted=rows.voted)
