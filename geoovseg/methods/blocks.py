"""Block methods: a block of windows is one context, put together on its grid of patches."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from rasterio.windows import Window
from torch import Tensor
from torch.nn import functional as F

from geoovseg.errors import UsageError
from geoovseg.methods import Cost, Trial
from geoovseg.models.vit import ClipVit
from geoovseg.ops.pixels import on_device
from geoovseg.windows.batch import TileBatch
from geoovseg.windows.in_flight import InFlight
from geoovseg.windows.memory import CPU_BATCH
from geoovseg.windows.plan import origins


@dataclass(frozen=True)
class Cut:
    """What was asked of blocks and their windows, in pixels; None leaves it to the method."""

    window: int | None = None
    stride: int | None = None
    block: int | None = None
    in_flight: InFlight = field(default_factory=lambda: InFlight(CPU_BATCH))


class OnGrid(NamedTuple):
    """What the windows of blocks said, on the blocks' grids of patches."""

    values: Tensor
    """(B, C, h, w) mean over windows; 0 where none was"""
    known: Tensor
    """(B, h, w) true for patches with data"""


@dataclass(frozen=True, kw_only=True)
class Blocks:
    """How blocks lie in a scene and windows in a block; all in pixels, multiples of the patch."""

    side: int
    step: int
    """between blocks"""
    window: int
    stride: int
    """between the windows of a block"""
    patch: int
    device: torch.device
    in_flight: InFlight

    @property
    def at_once(self) -> int:
        """Blocks to hand over together: enough to fill a batch with their windows."""
        return max(1, self._batch // len(origins(self.side, self.window, self.stride)) ** 2)

    @property
    def _batch(self) -> int:
        """Windows that are seen together."""
        return CPU_BATCH if self.device.type == "cpu" else self.in_flight.planned

    def mean(self, batch: TileBatch, see: Callable[..., Tensor], planes: NDArray[np.int32] | None = None) -> OnGrid:
        """What `see` says of windows (b, 3, H, W) on a grid of theirs (b, C, h, w), averaged where windows overlap.

        The grid is that of patches, or finer. Windows without data are not seen. `see` is also given what lies on the
        same pixels of `planes` (B, n, H, W), if there are any.
        """
        places = list(self._places(batch))
        count = total = None
        for numbers, found in self.each(len(places), lambda index: see(*self._cut(batch, planes, places, index))):
            if total is None or count is None:
                cell = (places[0][1].stop - places[0][1].start) // found.shape[2]  # pixels on a side of a value
                grid = (batch.stored.shape[2] // cell, batch.stored.shape[3] // cell)
                total = found.new_zeros(len(batch), found.shape[1], *grid)
                count = found.new_zeros(len(batch), 1, *grid)
            for number, one in zip(numbers, found, strict=True):
                n, rows, cols = places[number]
                box = (n, ..., _coarser(rows, cell), _coarser(cols, cell))
                total[box] += one
                count[box] += 1
        assert total is not None  # a tile without data is never handed over
        assert count is not None
        known = F.adaptive_max_pool2d(torch.from_numpy(batch.valid).float(), grid).to(self.device)
        return OnGrid(total / count.clamp_min(1), (known > 0) & (count[:, 0] > 0))

    def each(
        self, windows: int, see: Callable[[NDArray[np.intp]], Tensor]
    ) -> Iterator[tuple[NDArray[np.intp], Tensor]]:
        """What `see` says of windows by their numbers, a batch at a time, with those numbers.

        On the CPU windows are seen eight at a time. Where windows of several blocks share a batch, the last ones are
        repeated: results then do not depend on what shares it. Of one block always the same do.
        """
        repeat = self.device.type == "cpu" and self.at_once > 1
        for first in range(0, windows, self._batch):
            numbers = np.arange(first, min(first + self._batch, windows))
            filled = np.resize(numbers, CPU_BATCH) if repeat else numbers
            found = self.in_flight.run(lambda index, filled=filled: see(filled[index]), len(filled))  # type: ignore[misc]
            yield numbers, found[: len(numbers)]

    def _cut(
        self,
        batch: TileBatch,
        planes: NDArray[np.int32] | None,
        places: Sequence[tuple[int, slice, slice]],
        index: NDArray[np.intp],
    ) -> tuple[Tensor, ...]:
        """Pixels of windows by their numbers, and what lies on them of the planes."""
        boxes = [(n, slice(None), rows, cols) for n, rows, cols in (places[i] for i in index)]
        sources = (batch.stored,) if planes is None else (batch.stored, planes)
        return tuple(on_device(np.stack([source[box] for box in boxes]), self.device) for source in sources)

    def _places(self, batch: TileBatch) -> Iterator[tuple[int, slice, slice]]:
        """Windows with data: the block's number, rows and columns."""
        height, width = batch.stored.shape[2:]
        for n in range(len(batch)):
            for row in origins(height, self.window, self.stride):
                for col in origins(width, self.window, self.stride):
                    rows, cols = slice(row, min(row + self.window, height)), slice(col, min(col + self.window, width))
                    if batch.valid[n, rows, cols].any():
                        yield n, rows, cols


def _coarser(pixels: slice, cell: int) -> slice:
    return slice(pixels.start // cell, pixels.stop // cell)


def lay_blocks(
    cut: Cut | None, clip: ClipVit, *, windows: int, side: float = 2, step: float = 1, at_pixels: bool = False
) -> Blocks:
    """Blocks of windows `side` times as wide as the tower was trained on, by default `windows` on a side.

    Windows are `step` of their side apart. Blocks overlap by one window, or by a quarter if they are less than two.
    Where windows are put together `at_pixels`, they may lie anywhere. Raises UsageError for what does not fit.
    """
    cut, patch = cut or Cut(), clip.patch
    window = cut.window or round(side * clip.native_grid[0]) * patch
    stride = cut.stride or max(1, round(step * window / patch)) * patch
    whole = cut.block or max(window, windows * window)
    _check(window, stride, whole, patch, patch if not at_pixels else 1)
    between = whole - window if whole >= 2 * window else max(patch, whole * 3 // 4 // patch * patch)
    return Blocks(
        side=whole,
        step=between,
        window=window,
        stride=stride,
        patch=patch,
        device=clip.device,
        in_flight=cut.in_flight,
    )


def _check(window: int, stride: int, side: int, patch: int, unit: int) -> None:
    """Refuse sizes that are no whole patches, and those that leave gaps. Raises UsageError."""
    for name, value, whole in (("tile", window, patch), ("stride", stride, unit), ("block", side, patch)):
        if value % whole or value < whole:
            near = max(whole, round(value / whole) * whole)
            raise UsageError(f"--{name} {value} is no multiple of the model's patch of {whole} pixels; try {near}")
    if stride > window:
        raise UsageError(f"--stride {stride} must not be larger than the tile of {window} pixels")
    if side < window:
        raise UsageError(f"--block {side} must not be smaller than the tile of {window} pixels")


class BlockMethod:
    """What block methods have in common."""

    clip: ClipVit
    blocks: Blocks
    unit: ClassVar[Any]
    scale: ClassVar[float] = 1.0
    cell: ClassVar[int] = 0
    depth: ClassVar[int] = 0
    notes: tuple[str, ...] = ()

    @property
    def windows(self) -> tuple[int, int]:
        """(side, step) of the windows in a block."""
        return self.blocks.window, self.blocks.stride

    @property
    def at_pixels(self) -> bool:
        """Whether scores are at pixels already."""
        return False

    @property
    def tile(self) -> int:
        """The side of a block."""
        return self.blocks.side

    @property
    def stride(self) -> int:
        """The step between blocks."""
        return self.blocks.step

    @property
    def patch(self) -> int:
        """What the tile must be a multiple of."""
        return self.clip.patch

    @property
    def at_once(self) -> int | None:
        """Blocks to hand over together."""
        return self.blocks.at_once

    def cost(self, tile: tuple[int, int]) -> Cost:
        """Pixels and mask of the tiles that are read ahead, waiting and seen; one window stands for all in time."""
        height, width = (min(side, self.blocks.window) for side in tile)
        return Cost(
            3 * self.blocks.at_once * (3 * 4 + 1) * tile[0] * tile[1],
            0.0,
            (Trial((height, width), CPU_BATCH, self._windows_in(tile), self.scores),),
        )

    def scores(self, batch: TileBatch) -> Tensor:
        """Scores of blocks (B, Q, h, w)."""
        raise NotImplementedError

    def vectors(self, batch: TileBatch) -> Tensor:
        """None: these methods give scores."""
        raise NotImplementedError

    def _windows_in(self, tile: tuple[int, int]) -> int:
        rows, cols = (len(origins(side, self.blocks.window, self.blocks.stride)) for side in tile)
        return rows * cols

    def prepare(self, read: Callable[[Window], TileBatch], shape: tuple[int, int]) -> dict[str, Tensor]:
        """Nothing: every block is seen on its own."""
        return {}

    def use(self, prepared: Mapping[str, Tensor]) -> None:
        """Nothing to take."""
