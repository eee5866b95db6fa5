"""Kept features, a chunk at a time and in two resolutions, so that a view of any size costs about the same."""

from __future__ import annotations

from collections import OrderedDict
from functools import lru_cache
from threading import Lock

import numpy as np
from numpy.typing import NDArray

from geoovseg.features.store import SIDE, FeatureStore
from geoovseg.windows.plan import Panel

FINE_BYTES = 256e6
"""That chunks in full resolution may take."""
COARSE_BYTES = 256e6
"""That all chunks in the coarse resolution may take together."""
MASKS = 64
"""Masks of tiles that are kept."""
Chunk = tuple[int, int]
"""(row, column) of a chunk."""


class Kept:
    """Chunks of features, the last ones in full, and of all that were ever read every `step`-th cell."""

    def __init__(self, store: FeatureStore) -> None:
        self.store, self.step = store, _step(store)
        self._fine: OrderedDict[Chunk, NDArray[np.float16]] = OrderedDict()
        self._coarse: dict[Chunk, NDArray[np.float16]] = {}
        self._lock = Lock()
        self._masks = lru_cache(MASKS)(self._mask)
        self._pixels: dict[tuple[Chunk, int], NDArray[np.int32]] = {}

    @property
    def chunks(self) -> tuple[int, int]:
        """Rows and columns of chunks."""
        about = self.store.about
        return -(-about.rows // SIDE), -(-about.columns // SIDE)

    def get(self, chunk: Chunk, step: int) -> NDArray[np.float16]:
        """Vectors (rows, columns, D) of every `step`-th cell of a chunk. Raises SceneError for a damaged one."""
        with self._lock:
            if step > 1 and chunk in self._coarse:
                return self._coarse[chunk]
            if chunk in self._fine:
                self._fine.move_to_end(chunk)
                return self._fine[chunk][::step, ::step]
        found = self._read(chunk)
        with self._lock:
            self._coarse[chunk] = np.ascontiguousarray(found[:: self.step, :: self.step])
            self._fine[chunk] = found
            while sum(each.nbytes for each in self._fine.values()) > FINE_BYTES and len(self._fine) > 1:
                self._fine.popitem(last=False)
        return found[::step, ::step]

    def valid(self, row: int, col: int, rows: int, cols: int, step: int) -> NDArray[np.bool_]:
        """Whether every `step`-th pixel has data (rows, cols), at the scene's end its last. Raises SceneError.

        The last masks are kept.
        """
        return self._masks(row, col, rows, cols, step)

    def pixels(self, chunk: Chunk, step: int) -> NDArray[np.int32]:
        """How many pixels with data every `step`-th cell of a chunk stands for (rows, columns). Raises SceneError."""
        with self._lock:
            if (chunk, step) in self._pixels:
                return self._pixels[chunk, step]
        about = self.store.about
        wide, side = SIDE * about.cell, step * about.cell
        row, col = chunk[0] * wide, chunk[1] * wide
        panel = Panel(col, min(wide, about.width - col))
        found = self.store.valid((row, min(row + wide, about.height)), panel).astype(np.int32)
        for axis in (0, 1):
            found = np.add.reduceat(found, np.arange(0, found.shape[axis], side), axis)
        with self._lock:
            self._pixels[chunk, step] = found
        return found

    def _read(self, chunk: Chunk) -> NDArray[np.float16]:
        about, (row, col) = self.store.about, (chunk[0] * SIDE, chunk[1] * SIDE)
        rows = (row, min(row + SIDE, about.rows))
        panel = Panel(col, min(SIDE, about.columns - col))
        return np.concatenate([found for _, found in self.store.rows(rows, panel)])

    def _mask(self, row: int, col: int, rows: int, cols: int, step: int) -> NDArray[np.bool_]:
        about = self.store.about
        height, width = min(rows * step, about.height - row), min(cols * step, about.width - col)
        found = self.store.valid((row, row + height), Panel(col, width))
        down, right = (
            np.minimum(np.arange(count) * step + step // 2, length - 1)
            for count, length in ((rows, height), (cols, width))
        )
        return np.ascontiguousarray(found[np.ix_(down, right)])


def _step(store: FeatureStore) -> int:
    """Every how many cells are kept of all chunks: a power of two, at most as many as a chunk has."""
    about, step = store.about, 2
    while 2 * about.rows * about.columns * about.depth / step**2 > COARSE_BYTES and step < SIDE:
        step *= 2
    return step
