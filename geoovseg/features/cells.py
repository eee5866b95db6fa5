"""Windows of features become rows of cells, and these rows of pixels, in strips that never grow with the scene."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import partial

import torch
from rasterio.windows import Window
from torch import Tensor

from geoovseg.features.ask import CellRows
from geoovseg.features.pixels import Asked, PixelRows
from geoovseg.windows.blend import Rows, ScoreBlend
from geoovseg.windows.plan import Cells, Panel, Span, TilePlan


class CellBlend:
    """Taper-weighted means over windows of their features, a vector a cell, given row by row of windows.

    Holds (D + 1) x window height x panel width numbers, in cells. Sums per cell are taken in the order of the windows,
    so they depend on no panel, span or batch; what is given is rounded to float16, whether it is kept or not.
    """

    def __init__(self, plan: TilePlan, cells: Cells, depth: int, device: torch.device | str) -> None:
        self._side = cells.side
        self._blend = ScoreBlend(plan.in_cells(cells.side), cells.panel, depth, device, cells.span)

    def add(self, window: Window, vectors: Tensor) -> Iterator[CellRows]:
        """Blend features (D, h, w) of a window in; yield the rows that became final before it touched them."""
        place = Window(*(int(length) // self._side for length in window.flatten()))
        seen = torch.ones(vectors.shape[1:], dtype=torch.bool, device=vectors.device)
        yield from map(_rounded, self._blend.add([place], vectors[None], seen[None]))

    def finish(self) -> Iterator[CellRows]:
        """Yield all remaining rows."""
        yield from map(_rounded, self._blend.finish())


def _rounded(rows: Rows) -> CellRows:
    """Finished features as they are kept."""
    return CellRows(rows.row_off, len(rows.valid), None if rows.scores is None else rows.scores.half())


class PixelStrip:
    """What is known of pixels, as where they have data, in a strip of the rows that were not taken yet."""

    def __init__(
        self, plan: TilePlan, cells: Cells, panel: Panel, device: torch.device | str, awaited: int = 0,
        kind: torch.dtype = torch.bool,
    ) -> None:  # fmt: skip
        self._panel, self._top, self._taken = panel, cells.pixels[1][0], 0
        rows = plan.tile[0] + (3 + awaited) * cells.side
        self._known = torch.zeros(rows, panel.width, dtype=kind, device=device)

    def add(self, window: Window, known: Tensor) -> None:
        """Note what is known of a window (H, W), beside what is already: bits are joined."""
        self._scroll()
        left, right = self._panel.col_off, self._panel.col_off + self._panel.width
        first, last = max(window.col_off, left), min(window.col_off + window.width, right)
        top = max(window.row_off, self._top)
        if first < last:
            here = known[top - window.row_off :, first - window.col_off : last - window.col_off]
            row = top - self._top
            self._known[row : row + len(here), first - left : last - left] |= here

    def take(self, rows: PixelRows) -> Tensor:
        """What is known of rows of pixels that no later window touches; what lies above is forgotten."""
        first, end = rows.row_off - self._top, rows.row_off + rows.count - self._top
        self._taken = end
        if rows.scores is None and rows.best is None:
            return self._known.new_zeros(1, 1).expand(rows.count, self._panel.width)
        return self._known[first:end].clone()

    def _scroll(self) -> None:
        """Forget the rows that were taken."""
        if self._taken:
            kept = self._known[self._taken :].clone()
            self._known[: len(kept)] = kept
            self._known[len(kept) :] = 0
            self._top, self._taken = self._top + self._taken, 0


class FeatureBlend:
    """A blend of features on cells, asked some words: windows in, rows of class scores at pixels out."""

    def __init__(self, plan: TilePlan, side: int, panel: Panel, span: Span, asked: Asked) -> None:
        text = asked.words.text
        cells, self._pixels = asked.of(plan, side, panel, span)
        self._cells = CellBlend(plan, cells, text.shape[1], text.device)
        strip = partial(PixelStrip, plan, cells, panel, text.device, 2 * asked.reach)
        self._plan, self._valid, self._regions = plan, strip(), strip(torch.int32) if asked.voting else None

    def add(
        self, windows: Sequence[Window], found: Tensor, valid: Tensor, regions: Tensor | None = None
    ) -> Iterator[Rows]:
        """Blend features (B, D, h, w) in; yield the rows that became final before they touched them."""
        for number, window in enumerate(windows):
            for cells in self._cells.add(window, found[number]):
                yield from self._asked(cells)
            self._valid.add(window, valid[number])
            if self._regions is not None and regions is not None:
                self._regions.add(*of_core(self._plan, window, regions[number]))

    def finish(self) -> Iterator[Rows]:
        """Yield all remaining rows, down to the span's last."""
        for cells in self._cells.finish():
            yield from self._asked(cells)

    def _asked(self, cells: CellRows) -> Iterator[Rows]:
        for rows in self._pixels.add(cells):
            regions = None if self._regions is None else self._regions.take(rows)
            yield Rows(rows.row_off, rows.scores, self._valid.take(rows), rows.best, regions)


def of_core(plan: TilePlan, window: Window, known: Tensor) -> tuple[Window, Tensor]:
    """The core of a window, and what is known of it of what is known of the window (H, W)."""
    core = plan.core(window)
    top, left = core.row_off - window.row_off, core.col_off - window.col_off
    return core, known[top : top + core.height, left : left + core.width]
