"""What a sparse file does not store, known without reading it: most of some scenes is not there."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import lru_cache
from typing import Any

from rasterio.windows import Window

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
