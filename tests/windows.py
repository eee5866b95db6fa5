"""Windows of random pixels."""

from __future__ import annotations

import numpy as np
from rasterio.windows import Window

from geoovseg.scene import TileBatch


def random_batch(count: int, height: int, width: int, seed: int = 7) -> TileBatch:
    """Windows side by side, all of them valid."""
    pixels = np.random.default_rng(seed).random((count, 3, height, width), dtype=np.float32)
    windows = tuple(Window(n * width, 0, width, height) for n in range(count))
    return TileBatch(windows=windows, pixels=pixels, valid=np.ones((count, height, width), bool))
