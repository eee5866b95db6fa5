"""Where a raster has data: nodata values, masks and transparency of the bands that are seen."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import numpy as np
from numpy.typing import NDArray
from rasterio.enums import MaskFlags
from rasterio.windows import Window

from geoovseg.rasters.vrt import alpha_of

How = Mapping[str, Any]
"""Window, shape and resampling of a read."""


@dataclass(frozen=True, kw_only=True)
class Validity:
    """What says of an open raster where it has data: a pixel lacks it if all its bands do, or if it is transparent."""

    src: Any
    masks: tuple[int, ...]
    """bands whose masks say so; none where all pixels have some"""
    alpha: int | None
    """the alpha band, where it is not among these masks"""
    bands: tuple[int, ...] | None
    """the bands, where some may lack data where others have it"""

    @property
    def everywhere(self) -> bool:
        """Whether no mask can say that a pixel lacks data."""
        return not self.masks and self.alpha is None

    def read(self, how: How, shape: tuple[int, int]) -> NDArray[np.bool_]:
        """Where pixels (h, w) have data. Raises what GDAL raises."""
        known = self._known(self.masks, how).any(axis=0) if self.masks else np.ones(shape, bool)
        return np.asarray(known if self.alpha is None else known & (self.src.read(self.alpha, **how) > 0))

    def of_each(self, how: How) -> NDArray[np.bool_] | bool:
        """Where each band has data (3, h, w); true where that is wherever the pixel has."""
        if self.bands is None:
            return True
        return self._known(self.bands, how)

    def _known(self, bands: Sequence[int], how: How) -> NDArray[np.bool_]:
        """Where bands have data (n, h, w), by their masks; rasterio warns of these beside alpha and a nodata value."""
        many = for_bands(how, len(bands))
        if self.alpha is None or self.src.nodata is None:
            return np.asarray(self.src.read_masks(list(bands), **many) > 0)
        found = (self.src.nodatavals[band - 1] for band in bands)
        pairs = zip(self.src.read(list(bands), **many), found, strict=True)
        return np.stack([np.ones(values.shape, bool) if none is None else values != none for values, none in pairs])


def validity_of(src: Any, bands: Sequence[int]) -> Validity:
    """What says where the seen bands of an open raster have data."""
    flags = {band: src.mask_flag_enums[band - 1] for band in sorted(set(bands))}
    alpha, whole = alpha_of(src), any(MaskFlags.per_dataset in kinds for kinds in flags.values())
    by_alpha = any(MaskFlags.alpha in kinds for kinds in flags.values())
    masks = tuple(flags)
    if any(MaskFlags.all_valid in kinds for kinds in flags.values()) or (by_alpha and alpha is None):
        masks = ()
    own = not whole and len(flags) > 1 and any(MaskFlags.all_valid not in kinds for kinds in flags.values())
    return Validity(
        src=src,
        masks=masks[:1] if whole else masks,
        alpha=None if by_alpha else alpha,
        bands=tuple(bands) if own else None,
    )


def for_bands(how: How, count: int) -> dict[str, Any]:
    """How to read so many bands at once."""
    return {**how, "out_shape": (count, *how["out_shape"])} if "out_shape" in how else dict(how)


REMEMBERED = 1 << 14
"""Blocks, more than a row of windows touches."""
Lacks = Callable[[Window], bool]


def lacking(src: Any, bands: Sequence[int]) -> Lacks | None:
    """A test whether an open raster stores nothing of a window in some bands; none for files that do not say so.

    Only where missing blocks are no data: in GeoTIFFs with a nodata value.
    """
    if src.driver != "GTiff" or src.nodata is None:
        return None
    height, width = src.block_shapes[0]

    @lru_cache(maxsize=REMEMBERED)
    def stored(row: int, col: int) -> bool:
        return any(src.get_tag_item(f"BLOCK_OFFSET_{col}_{row}", "TIFF", band) for band in set(bands))

    def lacks(window: Window) -> bool:
        last = window.row_off + window.height - 1, window.col_off + window.width - 1
        rows = range(window.row_off // height, last[0] // height + 1)
        cols = range(window.col_off // width, last[1] // width + 1)
        return not any(stored(row, col) for row in rows for col in cols)

    return lacks


def at_size(lacks: Lacks, shape: tuple[int, int], size: tuple[int, int]) -> Lacks:
    """The same test of a raster of `shape` (height, width) for windows of it as if it had another size."""
    down, right = (whole / part for whole, part in zip(shape, size, strict=True))

    def there(window: Window) -> bool:
        first, left = max(0, int(window.row_off * down) - 1), max(0, int(window.col_off * right) - 1)
        end = min(shape[0], int((window.row_off + window.height) * down) + 2)
        last = min(shape[1], int((window.col_off + window.width) * right) + 2)
        return lacks(Window(left, first, last - left, end - first))

    return there
