"""How many windows go through a model together, and what its device holds."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from geoovseg import machine
from geoovseg.errors import GeoOVSegWarning


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


def device_memory(device: torch.device) -> int:
    """Bytes of memory of the device that the blend is on."""
    return int(torch.cuda.mem_get_info(device)[1]) if device.type == "cuda" else machine.memory()
