"""Windows of random pixels, and a watch on how large tensors become."""

from __future__ import annotations

import numpy as np
import torch
from rasterio.windows import Window
from torch.utils._python_dispatch import TorchDispatchMode

from geoovseg.windows.batch import TileBatch


def random_batch(count: int, height: int, width: int, seed: int = 7) -> TileBatch:
    """Windows side by side, all of them valid."""
    pixels = np.random.default_rng(seed).random((count, 3, height, width), dtype=np.float32)
    windows = tuple(Window(n * width, 0, width, height) for n in range(count))
    return TileBatch(windows=windows, stored=pixels, valid=np.ones((count, height, width), bool))


class Largest(TorchDispatchMode):
    """The number of values of the largest tensor that anything makes."""

    largest = 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        found = func(*args, **(kwargs or {}))
        for value in found if isinstance(found, tuple | list) else (found,):
            if isinstance(value, torch.Tensor):
                self.largest = max(self.largest, value.numel())
        return found
