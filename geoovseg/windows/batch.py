"""Windows of a scene as methods see them, many at a time."""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from rasterio.windows import Window

FILL = np.asarray((0.48145466, 0.4578275, 0.40821073), np.float32)[:, None, None]
"""What models see where there is no data: CLIP's mean colour, which is zero after normalisation."""


@dataclass(frozen=True, kw_only=True)
class TileBatch:
    """Windows of a scene, as methods see them."""

    windows: tuple[Window, ...]
    """on the working grid"""
    pixels: NDArray[np.float32]
    """(B, 3, H, W) RGB in 0..1; CLIP's mean colour where not valid"""
    valid: NDArray[np.bool_]
    """(B, H, W) true where the scene has data"""
    regions: NDArray[np.int32] | None = None
    """(B, H, W) region ids, for methods that use regions"""
    native_valid: NDArray[np.bool_] | None = None
    """(B, h, w) true where the scene has data, in its own pixels, where models see others"""

    @property
    def known(self) -> NDArray[np.bool_]:
        """(B, h, w) true where the scene has data, in its own pixels."""
        return self.valid if self.native_valid is None else self.native_valid

    def __len__(self) -> int:
        return len(self.windows)

    def take(self, index: NDArray[np.intp]) -> TileBatch:
        """The windows at these positions, in this order."""
        if len(index) == len(self) and (index == np.arange(len(self))).all():
            return self
        return TileBatch(
            windows=tuple(self.windows[i] for i in index),
            pixels=self.pixels[index],
            valid=self.valid[index],
            regions=None if self.regions is None else self.regions[index],
            native_valid=None if self.native_valid is None else self.native_valid[index],
        )


def join(batches: Sequence[TileBatch]) -> TileBatch:
    """Batches of windows of one size as one."""
    if len(batches) == 1:
        return batches[0]
    regions = [b.regions for b in batches if b.regions is not None]
    native_valid = [b.native_valid for b in batches if b.native_valid is not None]
    return TileBatch(
        windows=tuple(w for b in batches for w in b.windows),
        pixels=np.concatenate([b.pixels for b in batches]),
        valid=np.concatenate([b.valid for b in batches]),
        regions=None if not regions else np.concatenate(regions),
        native_valid=None if not native_valid else np.concatenate(native_valid),
    )


def in_batches(batches: Iterable[TileBatch], size: int) -> Iterator[TileBatch]:
    """`size` batches at a time as one, the last one of fewer."""
    stream = iter(batches)
    while group := list(itertools.islice(stream, size)):
        yield join(group)


def filled(
    data: NDArray[np.float32], mask: NDArray[np.bool_], inside: Window, shape: tuple[int, int]
) -> tuple[NDArray[np.float32], NDArray[np.bool_]]:
    """Continue (3, h, w) pixels to `shape` by reflection to the right and below, where they are not valid."""
    if mask.shape == shape == (inside.height, inside.width) and mask.all():
        return data, mask
    pad = [(0, shape[0] - mask.shape[0]), (0, shape[1] - mask.shape[1])]
    known = mask.copy()
    if any(after for _, after in pad):
        data, known = np.pad(data, [(0, 0), *pad], mode="reflect"), np.pad(mask, pad, mode="reflect")
    tile = np.where(known, data, FILL)
    known[inside.height :], known[:, inside.width :] = False, False
    return tile, known


def in_rows(windows: Sequence[Window]) -> list[list[Window]]:
    """Split windows into runs of one row, left to right, so that a run is one read."""
    runs: list[list[Window]] = []
    for window in windows:
        last = runs[-1][-1] if runs else None
        if last is not None and window.row_off == last.row_off and 0 < window.col_off - last.col_off <= last.width:
            runs[-1].append(window)
        else:
            runs.append([window])
    return runs


def union(run: Sequence[Window]) -> Window:
    """The window over neighbours of one row."""
    first, last = run[0], run[-1]
    return Window(first.col_off, first.row_off, last.col_off + last.width - first.col_off, first.height)
