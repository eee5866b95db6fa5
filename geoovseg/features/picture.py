"""The picture that features were made of, in a strip beside them: colours of cells, and of their pixels."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import torch
from numpy.typing import NDArray
from rasterio.windows import Window
from torch import Tensor
from torch.nn import functional as F

from geoovseg.ops.guided import colours_of, reach_of, smoothed
from geoovseg.windows.plan import Cells, Panel, Span

Read = Callable[[Window], tuple[NDArray[Any], NDArray[Any]]]
"""Pixels (3, h, w) in 0..1 of a window inside the scene, and which have data (h, w)."""


class Colours(NamedTuple):
    """Rows of cells of a panel."""

    mean: Tensor
    """(3, rows, columns)"""
    seen: Tensor
    """(rows, columns) where any pixel has data"""


class Picture:
    """Smoothed pixels of a panel, read once, top to bottom; no more of them are held than rows of cells are awaited."""

    def __init__(
        self, read: Read, shape: tuple[int, int], cells: Cells, panel: Panel, device: torch.device | str
    ) -> None:
        self._read, self._shape, self._side, self._device = read, shape, cells.side, device
        self._first, self._columns = cells.panel.col_off * cells.side, cells.panel.width
        self._width = min(self._columns * cells.side, shape[1] - self._first)
        self._here = slice(panel.col_off - self._first, panel.col_off - self._first + panel.width)
        self._strip, self._top = torch.zeros(3, 0, panel.width, device=device), 0

    def colours(self, first: int, count: int) -> Colours:
        """Mean colours of the next rows of cells, whose pixels are kept for `rows`."""
        top, end = (min(row * self._side, self._shape[0]) for row in (first, first + count))
        picture, valid = self._smoothed(top, end)
        below, beside = (count * self._side - (end - top)), self._columns * self._side - self._width
        mean, seen = colours_of(_padded(picture, below, beside), _padded(valid, below, beside), self._side)
        kept = self._strip if self._top + self._strip.shape[1] == top else self._strip[:, :0]
        self._top = top - kept.shape[1]
        self._strip = torch.cat([kept, picture[..., self._here]], 1)
        return Colours(mean, seen)

    def _smoothed(self, top: int, end: int) -> tuple[Tensor, Tensor]:
        """Smoothed pixels (3, h, w) of rows, and which of the cells' columns have data (h, w)."""
        if top == end:
            nothing = torch.zeros(3, 0, self._width, device=self._device)
            return nothing, nothing[0].bool()
        reach, (height, width) = reach_of(self._side), self._shape
        first, last = max(0, top - reach), min(height, end + reach)
        left, right = max(0, self._first - reach), min(width, self._first + self._width + reach)
        pixels, valid = map(torch.from_numpy, self._read(Window(left, first, right - left, last - first)))
        rows, columns = slice(top - first, end - first), slice(self._first - left, self._first - left + self._width)
        known = valid.to(self._device)
        picture = smoothed(pixels.to(self._device), known, self._side)
        return picture[:, rows, columns], known[rows, columns]

    def rows(self, span: Span) -> Tensor:
        """Smoothed pixels (3, h, w) of rows of the panel, zero where none were read; what lies above is forgotten."""
        if (missing := self._top - span[0]) > 0:
            self._strip = torch.cat([self._strip.new_zeros(3, missing, self._strip.shape[2]), self._strip], 1)
        self._strip, self._top = self._strip[:, max(0, -missing) :], span[0]
        found = self._strip[:, : span[1] - span[0]]
        return _padded(found, span[1] - span[0] - found.shape[1], 0)


def _padded(values: Tensor, below: int, beside: int) -> Tensor:
    """With so many more rows and columns, of nothing."""
    return F.pad(values, (0, beside, 0, below)) if below or beside else values
