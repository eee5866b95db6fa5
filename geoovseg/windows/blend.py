"""The blend: overlapping windows of scores become rows of one picture, in a strip that never grows with the scene."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Protocol

import torch
from rasterio.windows import Window
from torch import Tensor

from geoovseg.windows.plan import AT_ONCE, Panel, Span, TilePlan


def taper(length: int, device: torch.device | str = "cpu") -> Tensor:
    """Weights of a window along one axis: a tent from 1 / length at the ends to 1 in the middle, never zero.

    Positive ends matter: the scene's outermost pixels are seen by one window only, at its end.
    """
    at = (torch.arange(length, device=device, dtype=torch.float32) + 0.5) / length
    return 1 - (2 * at - 1).abs()


def sum_dtype(plan: TilePlan) -> torch.dtype:
    """float32, or float64; see `TilePlan.sum_bytes`."""
    return torch.float32 if plan.sum_bytes == 4 else torch.float64


@dataclass(frozen=True)
class Rows:
    """Finished rows of a panel: no later window touches them."""

    row_off: int
    scores: Tensor | None
    """(C, rows, columns) weighted means, zero where no window was; none if that is everywhere"""
    valid: Tensor
    """(rows, columns) true where the scene has data"""
    best: Tensor | None = None
    """(rows, columns) the channel with the best score, where only that was asked, or regions voted for it"""
    regions: Tensor | None = None
    """(rows, columns) the regions of pixels, where these are to vote; 0 for none"""
    voted: bool = False
    """whether they did: scores are then shares (C, rows, columns), or the largest of them (1, rows, columns)"""


class Blend(Protocol):
    """What makes finished rows of windows that come row by row."""

    def add(
        self, windows: Sequence[Window], found: Tensor, valid: Tensor, regions: Tensor | None = None
    ) -> Iterator[Rows]:
        """Blend what was found (B, C, h, w) in, with data where `valid` (B, H, W); yield rows that are final.

        Of `regions` (B, H, W) every pixel has those of the window in whose core it is.
        """

    def finish(self) -> Iterator[Rows]:
        """Yield all remaining rows."""


class ScoreBlend:
    """Weighted mean of overlapping score windows over a panel, or a span of its rows, given row by row of windows.

    Holds (C + 1) x tile height x panel width sums on the scores' device and gives rows away as soon as they are
    final. Windows must come row by row, as `TilePlan.windows` lists them; some may be missing. Sums per pixel are
    taken in the order of the windows, so they do not depend on panels, spans or batches.
    """

    def __init__(
        self,
        plan: TilePlan,
        panel: Panel,
        channels: int,
        device: torch.device | str,
        span: Span | None = None,
    ) -> None:
        self.plan, self.panel = plan, panel
        self.span = span or (0, plan.height)
        shape = (min(plan.tile[0], plan.height), panel.width)
        self._sum = torch.zeros(channels + 1, *shape, device=device, dtype=sum_dtype(plan))
        self._valid = torch.zeros(shape, dtype=torch.bool, device=device)
        self._taper = taper(plan.tile[0], device)[:, None] * taper(plan.tile[1], device)[None, :]
        self._top = self._end = plan.rows(self.span)[0]  # rows from `_end` on have no sums yet

    def add(
        self, windows: Sequence[Window], scores: Tensor, valid: Tensor, regions: Tensor | None = None
    ) -> Iterator[Rows]:
        """Blend class scores (B, C, H, W) in; yield the rows that became final before they touched them."""
        for window, score, known in zip(windows, scores, valid, strict=True):
            yield from self._advance(window.row_off)
            self._add(window, score, known)

    def finish(self) -> Iterator[Rows]:
        """Yield all remaining rows, down to the span's last."""
        yield from self._advance(self.span[1])

    def _add(self, window: Window, score: Tensor, known: Tensor) -> None:
        first = max(window.col_off, self.panel.col_off)
        last = min(window.col_off + window.width, self.panel.col_off + self.panel.width)
        src = slice(first - window.col_off, last - window.col_off)
        dst = slice(first - self.panel.col_off, last - self.panel.col_off)
        rows = slice(0, min(window.height, self._valid.shape[0]))
        self._end = window.row_off + window.height
        weight = self._taper[rows, src]
        self._sum[:-1, rows, dst] += score[:, rows, src] * weight
        self._sum[-1, rows, dst] += weight
        self._valid[rows, dst] |= known[rows, src]

    def _advance(self, row: int) -> Iterator[Rows]:
        """Give away the rows above `row`, a few at a time, and move the strip so that it starts there."""
        while self._top < row:
            if self._end <= self._top:
                yield from self._without(max(self._top, self.span[0]), min(row, self.span[1]))
                self._top = row
                return
            count = min(row - self._top, self._valid.shape[0])
            start, end = (min(max(at - self._top, 0), count) for at in self.span)
            for first in range(start, end, step := max(1, AT_ONCE // self._sum[:, 0].numel())):
                rows = slice(first, min(first + step, end))
                weight = self._sum[-1, rows]
                mean = (self._sum[:-1, rows] / torch.where(weight > 0, weight, 1)).float()
                yield Rows(self._top + first, mean, self._valid[rows].clone())
            self._scroll(count)
            self._top += count

    def _without(self, first: int, end: int) -> Iterator[Rows]:
        """Rows that no window touched."""
        width, nowhere = self._valid.shape[1], self._valid.new_zeros(1, 1)
        for row in range(first, end, step := max(1, AT_ONCE // width)):
            yield Rows(row, None, nowhere.expand(min(step, end - row), width))

    def _scroll(self, count: int) -> None:
        """Move the strip down by `count` rows, a channel at a time to stay within its memory."""
        for channel in (*self._sum, self._valid):
            channel[: len(channel) - count] = channel[count:].clone()
            channel[len(channel) - count :] = 0
