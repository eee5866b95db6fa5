"""Where region maps come from: Segment Anything, a file, or colours alone."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from geoovseg.models.masks import Kept, Masks, MaskSet, digest
from geoovseg.models.sam import Sam, as_image
from geoovseg.ops.regions import painted
from geoovseg.windows.batch import TileBatch

TILES_KEPT = 64
"""Maps kept, for tiles that neighbouring blocks share."""
LEAST = 100
"""Pixels of the smallest region by colours, where a method asks for none in particular."""
SMOOTH = 0.8
"""Standard deviation of the blur before colours are compared, in pixels (Felzenszwalb and Huttenlocher 2004)."""


class Regions(Protocol):
    """What gives every pixel of a block the number of its region."""

    def __call__(self, batch: TileBatch, sets: Sequence[MaskSet], tile: int = 0) -> NDArray[np.int32]:
        """Region ids (B, len(sets), H, W) of blocks, 0 where there is none; seen in squares of `tile`, if given."""


def region_maps(regions: Regions, batch: TileBatch, sets: Sequence[MaskSet], tile: int = 0) -> NDArray[np.int32]:
    """Region ids (B, len(sets), H, W) from any source; pixels without data belong to none."""
    return np.where(batch.valid[:, None], regions(batch, sets, tile), 0).astype(np.int32)


def finding(regions: Regions, sets: Sequence[MaskSet]) -> Callable[[TileBatch], None]:
    """Finding the regions of a batch and nothing else, to be timed."""

    def find(batch: TileBatch) -> None:
        regions(batch, sets)

    return find


def given(batch: TileBatch, sets: Sequence[MaskSet], tile: int = 0) -> NDArray[np.int32]:
    """Regions that were read with the scene, the same for every set."""
    assert batch.regions is not None  # the scene was opened with a file of them
    return np.repeat(batch.regions[:, None], len(sets), axis=1)


def by_colour(batch: TileBatch, sets: Sequence[MaskSet], tile: int = 0) -> NDArray[np.int32]:
    """Regions of like colour (Felzenszwalb), as large as the sets want them at least; not cut into tiles."""
    least = [max(LEAST, wanted.area) for wanted in sets]
    maps = [{size: _coloured(image, size) for size in set(least)} for image in batch.pixels]
    return np.stack([[found[size] for size in least] for found in maps])


def _coloured(image: NDArray[np.float32], least: int) -> NDArray[np.int32]:
    from skimage.segmentation import felzenszwalb  # slow to import, and needed only here

    found = felzenszwalb(image, scale=least, sigma=SMOOTH, min_size=least, channel_axis=0)
    return (found + 1).astype(np.int32)


class SamRegions:
    """Regions that Segment Anything finds on its own."""

    def __init__(self, sam: Sam) -> None:
        self._masks = Masks(sam)
        self._kept: Kept[NDArray[np.int32]] = Kept(TILES_KEPT)

    def __call__(self, batch: TileBatch, sets: Sequence[MaskSet], tile: int = 0) -> NDArray[np.int32]:
        """Masks painted over each other. Regions end at the borders of tiles and are numbered apart."""
        height, width = batch.stored.shape[2:]
        maps = np.zeros((len(batch), len(sets), height, width), np.int32)
        for n, pixels in enumerate(batch.pixels):
            image = as_image(pixels)
            for row in range(0, height, tile or height):
                for col in range(0, width, tile or width):
                    box = (slice(row, row + (tile or height)), slice(col, col + (tile or width)))
                    if batch.valid[n][box].any():
                        self._paint(maps[n], box, image, sets)
        return maps

    def _paint(
        self, maps: NDArray[np.int32], box: tuple[slice, slice], image: NDArray[np.uint8], sets: Sequence[MaskSet]
    ) -> None:
        """Put the regions of a tile into the maps (len(sets), H, W), numbered from what is there already."""
        cut = np.ascontiguousarray(image[box])
        if cut.shape == image.shape:  # whole blocks do not come again
            found = self._seen(cut, sets)
        else:
            found = self._kept.get(digest(cut) + repr(sets).encode(), lambda: self._seen(cut, sets))
        for ids, new in zip(maps, found, strict=True):
            ids[box] = np.where(new > 0, new + ids.max(), 0)

    def _seen(self, image: NDArray[np.uint8], sets: Sequence[MaskSet]) -> NDArray[np.int32]:
        return np.stack([painted(self._masks.find(image, wanted), image.shape[:2]) for wanted in sets])
