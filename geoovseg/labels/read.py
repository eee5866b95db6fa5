"""Rasters of class codes, whoever made them: what they are not, and codes window by window."""

from __future__ import annotations

import os
from collections.abc import Callable, Container
from contextlib import AbstractContextManager
from typing import Any

import numpy as np
from numpy.typing import NDArray
from rasterio.enums import ColorInterp
from rasterio.windows import Window

from geoovseg.errors import SceneError, UsageError, first_line
from geoovseg.labels.areas import Piece
from geoovseg.labels.categories import category_names as category_names
from geoovseg.labels.profile import LabelProfile
from geoovseg.rasters.open import GDAL_ERRORS, opened
from geoovseg.windows.plan import BLOCK

Reader = Callable[[Window], NDArray[np.int64]]
"""Codes of a window of the labels' grid; -1 where unknown."""


def names_in(src: Any, codes: Container[int]) -> dict[int, str]:
    """Class names by code of an open raster; code 0, where it is among its `codes`, has one in any case."""
    return ({0: "background"} if 0 in codes else {}) | category_names(src)


def check_codes(src: Any) -> None:
    """Refuse an open raster that clearly holds no class codes: an image, or measures such as confidence.

    A band of transparency may be there too. Raises SceneError.
    """
    if opaque_bands(src) > 1:
        raise SceneError(
            f"{src.name} has {src.count} bands, as images have; labels have one, and `geoovseg segment` makes them"
        )
    check_unscaled(src)


def opaque_bands(src: Any) -> int:
    """How many bands of an open raster hold more than transparency."""
    return sum(kind != ColorInterp.alpha for kind in src.colorinterp)


def check_unscaled(src: Any) -> None:
    """Refuse an open raster whose pixels are measures, not class codes. Raises SceneError."""
    for name, tags, plain in (("scale", src.scales, 1), ("offset", src.offsets, 0)):
        if tags and tags[0] != plain:
            raise SceneError(
                f"{src.name} has the {name} {tags[0]:g}: its pixels are measures such as confidence, not class codes; "
                "give the raster of labels (`geoovseg vectorize` takes one of confidence as --confidence)"
            )


def check_confidence(src: Any, path: str) -> None:
    """Refuse an open raster that holds no confidence, such as labels, by what it says of itself. Raises UsageError."""
    if opaque_bands(src) != 1:
        reason = f"{src.count or 'no'} bands"
    elif np.issubdtype(np.dtype(src.dtypes[0]), np.integer) and (src.scales[0], src.offsets[0]) == (1, 0):
        reason = "whole numbers without a scale, as labels have"
    else:
        return
    wanted = "give what `geoovseg segment --confidence` wrote, or a band of 0..1"
    raise UsageError(f"--confidence {path} has {reason}; {wanted}")


def open_labels(path: str | os.PathLike[str]) -> AbstractContextManager[Any]:
    """Open a raster of codes. Raises SceneError."""
    return opened(os.fspath(path), f"{os.fspath(path)} as a raster")


def raster_reader(src: Any, *, own_nodata: bool = True) -> Reader:
    """Read codes of windows of an open raster; its nodata value is a code as others without `own_nodata`.

    Raises SceneError.
    """

    def read(window: Window) -> NDArray[np.int64]:
        try:
            data = src.read(1, window=window)
            valid = where_valid(src, window, own_nodata=own_nodata) & np.isfinite(data)
        except GDAL_ERRORS as error:
            raise SceneError(f"cannot read {src.name}: {first_line(error.__cause__ or error)}") from error
        codes = np.where(valid, data, 0).astype(np.int64)
        if (codes[valid] != data[valid]).any():
            raise SceneError(f"{src.name} holds fractions, not class codes")
        return np.where(valid & (codes != src.nodata) if own_nodata and src.nodata is not None else valid, codes, -1)

    return read


def counted(src: Any, window: Window, profile: LabelProfile) -> list[Piece]:
    """How many pixels of a window have each code, a few rows at a time."""
    found, middle = [], window.col_off + window.width / 2
    for row in range(window.row_off, window.row_off + window.height, BLOCK):
        rows = min(BLOCK, window.row_off + window.height - row)
        try:
            codes = src.read(1, window=Window(window.col_off, row, window.width, rows))
        except GDAL_ERRORS as error:
            raise SceneError(f"cannot read {src.name}: {first_line(error.__cause__ or error)}") from error
        counts = np.bincount(codes.ravel(), minlength=profile.nodata + 1)
        found.append(Piece(row + rows / 2, middle, {int(code): int(counts[code]) for code in np.flatnonzero(counts)}))
    return found


def where_valid(src: Any, window: Window, *, own_nodata: bool) -> NDArray[np.bool_]:
    """Where a window of an open raster has data; without `own_nodata` only a mask or transparency say where not."""
    alphas = [band for band, kind in enumerate(src.colorinterp, start=1) if kind == ColorInterp.alpha]
    if own_nodata or src.nodata is None:
        return np.asarray(src.dataset_mask(window=window) > 0)
    if alphas:
        return np.asarray(src.read(alphas[0], window=window) > 0)
    return np.ones((window.height, window.width), bool)
