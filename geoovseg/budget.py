"""How much memory a run takes: how wide a panel may be, and how many windows go through a model together."""

from __future__ import annotations

import os
import warnings
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from geoovseg.errors import GeoOVSegWarning
from geoovseg.mosaic import AT_ONCE, ScoreMosaic
from geoovseg.tiling import BAND, BLOCK, TilePlan


@dataclass(frozen=True)
class Load:
    """What decides the memory of a run besides its model."""

    plan: TilePlan
    channels: int
    """of the blend: classes and background"""
    at_once: int
    """of a batch at pixel resolution: the words, where they are not merged before"""
    batch: int
    beside: float = 0.0
    """bytes that the method itself needs for a tile"""

    def nbytes(self, width: int) -> float:
        """Memory of a panel of `width` columns.

        The strip, one channel while it scrolls and bands of finished rows grow with the width; scores of a batch at
        pixel resolution and finished rows while they are decided do not.
        """
        tile = self.plan.tile
        columns = ScoreMosaic.nbytes(self.plan, self.channels, width)
        columns += (4 * min(tile[0], self.plan.height) + 2 * BAND) * width
        return columns + 3 * 4 * self.at_once * self.batch * tile[0] * tile[1] + 4 * 4 * AT_ONCE + self.beside

    def panel_width(self, device: torch.device, max_memory: float | None) -> int:
        """Columns of a panel that keep the blend within its budget: `max_memory` MB, or a quarter of the device's.

        A panel is not narrower than a tile, of which it would compute most again. Warns when that does not fit.
        """
        plan = self.plan
        budget = max_memory * 1e6 if max_memory is not None else _memory(device) / 4
        fixed = self.nbytes(0)
        width = int((budget - fixed) / (self.nbytes(1) - fixed))
        narrowest = max(BLOCK, plan.tile[1])
        if width < narrowest and plan.width > max(0, width):
            least = self.nbytes(min(narrowest, plan.width)) / 1e6
            message = (
                f"{len(plan.col_offs)} columns of windows cannot be blended in {budget / 1e6:.0f} MB; using "
                f"{least:.0f} MB"
            )
            warnings.warn(message, GeoOVSegWarning, 5)
        return max(width, narrowest)


CPU_BATCH = 8
"""On a CPU the towers always see exactly this many windows, which makes results independent of what shares a batch."""


@dataclass
class InFlight:
    """How many windows go through the towers together: halved whenever the device's memory does not hold them."""

    planned: int
    count: int = 0

    def __post_init__(self) -> None:
        self.count = self.count or self.planned

    @property
    def halved(self) -> bool:
        """Whether fewer windows than planned went through together."""
        return self.count < self.planned

    def run(self, scores: Callable[[NDArray[np.int64]], Tensor], windows: int) -> Tensor:
        """Scores of windows by their numbers, in pieces of `count`.

        Raises torch's error when not even one window fits.
        """
        found: list[Tensor] = []
        done = 0
        while done < windows:
            piece = np.arange(done, min(done + self.count, windows))
            try:
                found.append(scores(piece))
            except torch.OutOfMemoryError:
                if len(piece) == 1:
                    raise
                self.count = len(piece) // 2
                torch.cuda.empty_cache()
                message = f"the device cannot hold {len(piece)} windows; going on with {self.count} at a time"
                warnings.warn(message, GeoOVSegWarning, 4)
            else:
                done += len(piece)
        return torch.cat(found) if len(found) > 1 else found[0]


def _memory(device: torch.device) -> int:
    if device.type == "cuda":
        return int(torch.cuda.mem_get_info(device)[1])
    return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
