"""Block methods: a block of windows is one context, put together on its grid of patches."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, ClassVar, NamedTuple

import numpy as np
import torch
from rasterio.windows import Window
from torch import Tensor
from torch.nn import functional as F

from geoovseg.budget import CPU_BATCH, InFlight
from geoovseg.errors import UsageError
from geoovseg.models.vit import ClipVit
from geoovseg.scene import TileBatch
from geoovseg.tiling import origins


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

    def mean(self, batch: TileBatch, see: Callable[[Tensor], Tensor]) -> OnGrid:
        """What `see` says of windows (b, 3, H, W) on their patches (b, C, h, w), averaged where windows overlap.

        Windows without data are not seen. On the CPU they are seen eight at a time, the last ones repeated: results
        then do not depend on what shares a batch.
        """
        height, width = batch.pixels.shape[2:]
        grid = (height // self.patch, width // self.patch)
        places = list(self._places(batch))
        count = torch.zeros(len(batch), 1, *grid, device=self.device)
        total: Tensor | None = None
        for first in range(0, len(places), self._batch):
            group = places[first : first + self._batch]
            found = self._see(batch, group, see)
            if total is None:
                total = found.new_zeros(len(batch), found.shape[1], *grid)
            for (n, rows, cols), one in zip(group, found, strict=False):
                box = (n, ..., self._patches(rows), self._patches(cols))
                total[box] += one
                count[box] += 1
        assert total is not None  # a tile without data is never handed over
        known = F.adaptive_max_pool2d(torch.from_numpy(batch.valid).float(), grid).to(self.device)
        return OnGrid(total / count.clamp_min(1), (known > 0) & (count[:, 0] > 0))

    def _places(self, batch: TileBatch) -> Iterator[tuple[int, slice, slice]]:
        """Windows with data: the block's number, rows and columns."""
        height, width = batch.pixels.shape[2:]
        for n in range(len(batch)):
            for row in origins(height, self.window, self.stride):
                for col in origins(width, self.window, self.stride):
                    rows, cols = slice(row, min(row + self.window, height)), slice(col, min(col + self.window, width))
                    if batch.valid[n, rows, cols].any():
                        yield n, rows, cols

    def _see(self, batch: TileBatch, group: list[tuple[int, slice, slice]], see: Callable[[Tensor], Tensor]) -> Tensor:
        filled = [group[n % len(group)] for n in range(CPU_BATCH)] if self.device.type == "cpu" else group
        pixels = torch.from_numpy(np.stack([batch.pixels[n, :, rows, cols] for n, rows, cols in filled]))
        return self.in_flight.run(lambda index: see(pixels[index].to(self.device)), len(filled))

    def _patches(self, pixels: slice) -> slice:
        return slice(pixels.start // self.patch, pixels.stop // self.patch)


def lay_blocks(cut: Cut | None, clip: ClipVit, *, windows: int) -> Blocks:
    """Blocks of windows twice as wide as the tower was trained on (448 for 224), by default `windows` on a side.

    Blocks overlap by one window, or by a quarter if they are less than two. Raises UsageError for what does not fit.
    """
    cut, patch = cut or Cut(), clip.patch
    window = cut.window or 2 * clip.native_grid[0] * patch
    stride = cut.stride or window
    side = cut.block or max(window, windows * window)
    for name, value in (("tile", window), ("stride", stride), ("block", side)):
        if value % patch or value < patch:
            near = max(patch, round(value / patch) * patch)
            raise UsageError(f"--{name} {value} is no multiple of the model's patch of {patch} pixels; try {near}")
    if stride > window:
        raise UsageError(f"--stride {stride} must not be larger than the tile of {window} pixels")
    if side < window:
        raise UsageError(f"--block {side} must not be smaller than the tile of {window} pixels")
    step = side - window if side >= 2 * window else max(patch, side * 3 // 4 // patch * patch)
    return Blocks(
        side=side,
        step=step,
        window=window,
        stride=stride,
        patch=patch,
        device=clip.device,
        in_flight=cut.in_flight,
    )


class BlockMethod:
    """What block methods have in common."""

    clip: ClipVit
    blocks: Blocks
    unit: ClassVar[Any]
    scale: ClassVar[float] = 1.0
    notes: tuple[str, ...] = ()

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

    def nbytes(self, tile: tuple[int, int]) -> float:
        """Pixels and mask of the tiles that are read ahead, waiting and seen."""
        return 3 * self.blocks.at_once * (3 * 4 + 1) * tile[0] * tile[1]

    def prepare(self, read: Callable[[Window], TileBatch], shape: tuple[int, int]) -> dict[str, Tensor]:
        """Nothing: every block is seen on its own."""
        return {}

    def use(self, prepared: Mapping[str, Tensor]) -> None:
        """Nothing to take."""
