"""Windows of a scene as methods see them, many at a time."""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

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
    stored: NDArray[np.float32] | NDArray[np.uint8]
    """(B, 3, H, W) RGB in 0..1, CLIP's mean colour where not valid; or bytes that are 255 times that, all valid"""
    valid: NDArray[np.bool_]
    """(B, H, W) true where the scene has data"""
    regions: NDArray[np.int32] | None = None
    """(B, H, W) region ids, for methods that use regions"""

    @cached_property
    def pixels(self) -> NDArray[np.float32]:
        """(B, 3, H, W) RGB in 0..1; CLIP's mean colour where not valid."""
        return as_light(self.stored)

    def __len__(self) -> int:
        return len(self.windows)

    def take(self, index: NDArray[np.intp]) -> TileBatch:
        """The windows at these positions, in this order."""
        if len(index) == len(self) and (index == np.arange(len(self))).all():
            return self
        return TileBatch(
            windows=tuple(self.windows[i] for i in index),
            stored=self.stored[index],
            valid=self.valid[index],
            regions=None if self.regions is None else self.regions[index],
        )


def as_light(stored: NDArray[Any]) -> NDArray[np.float32]:
    """RGB in 0..1 of pixels that are that, or bytes; exact, as everybody divides them."""
    return stored if stored.dtype != np.uint8 else np.divide(stored, np.float32(255), dtype=np.float32)


def alike(stored: Sequence[NDArray[Any]]) -> list[NDArray[Any]]:
    """Pixels of several windows in one form: as bytes where all of them are."""
    return list(stored) if all(one.dtype == np.uint8 for one in stored) else [as_light(one) for one in stored]


def join(batches: Sequence[TileBatch]) -> TileBatch:
    """Batches of windows of one size as one."""
    if len(batches) == 1:
        return batches[0]
    regions = [b.regions for b in batches if b.regions is not None]
    return TileBatch(
        windows=tuple(w for b in batches for w in b.windows),
        stored=np.concatenate(alike([b.stored for b in batches])),
        valid=np.concatenate([b.valid for b in batches]),
        regions=None if not regions else np.concatenate(regions),
    )


def in_batches(batches: Iterable[TileBatch], size: int) -> Iterator[TileBatch]:
    """`size` batches at a time as one, the last one of fewer."""
    stream = iter(batches)
    while group := list(itertools.islice(stream, size)):
        yield join(group)


def filled(
    data: NDArray[Any], mask: NDArray[np.bool_], inside: Window, shape: tuple[int, int]
) -> tuple[NDArray[Any], NDArray[np.bool_]]:
    """Continue (3, h, w) pixels to `shape` by reflection to the right and below, where they are not valid.

    Bytes stay bytes where all of them are valid.
    """
    if mask.shape == shape == (inside.height, inside.width) and mask.all():
        return data, mask
    pad = [(0, shape[0] - mask.shape[0]), (0, shape[1] - mask.shape[1])]
    known = mask.copy()
    if any(after for _, after in pad):
        data, known = np.pad(data, [(0, 0), *pad], mode="reflect"), np.pad(mask, pad, mode="reflect")
    tile = np.where(known, as_light(data), FILL)
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
