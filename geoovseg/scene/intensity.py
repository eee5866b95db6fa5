"""From stored numbers to light between 0 and 1: one scaling for a whole scene, never one for each window."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from functools import lru_cache
from itertools import pairwise
from typing import Any

import numpy as np
from numpy.typing import NDArray
from rasterio.enums import ColorInterp
from rasterio.windows import Window

from geoovseg import numerals
from geoovseg.errors import SceneError, UsageError
from geoovseg.rasters.vrt import bits_of, is_negative, palette_of

SCALES = ("auto", "dtype")
PERCENTILES = (2.0, 98.0)
LOOKS, SIDE = 16, 64
"""A scene's sample: so many windows along each axis, and their side in pixels."""
ENOUGH = 1000
"""Pixels with data below which the sample is no sample, and the whole scene is looked at."""
STEP = 1024
"""Side of the windows in which that is done."""
SEED = 0
Range = tuple[float, float]
Triple = tuple[float, float, float]
Read = Callable[[Window], tuple[NDArray[Any], NDArray[np.bool_]]]
"""Values (3, h, w) of a window, tags applied, and where it has data (h, w)."""


def read_scale(text: str) -> str | Range:
    """`auto`, `dtype`, or `MIN,MAX` as numbers. Raises UsageError."""
    if text in SCALES:
        return text
    try:
        low, high = map(numerals.number, text.split(","))
    except ValueError as error:
        raise UsageError(f"--scale {text}: write auto, dtype, or MIN,MAX, as in 0,3000") from error
    if not (math.isfinite(low) and math.isfinite(high) and low < high):
        raise UsageError(f"--scale {text}: two numbers are needed, the smaller one first")
    return low, high


@dataclass(frozen=True, kw_only=True)
class Intensity:
    """How the pixels of three bands become light."""

    limits: Range | None
    """values that become 0 and 1; none until the scene was sampled"""
    scales: tuple[float, float, float] = (1.0, 1.0, 1.0)
    """what stored numbers are multiplied with first, by their tags, and what is added then"""
    offsets: tuple[float, float, float] = (0.0, 0.0, 0.0)
    palette: NDArray[np.uint8] | None = None
    """(n + 1, 4) red, green, blue, alpha of n numbers that stand for colours, and of all others"""
    negative: bool = False
    """whether the smallest number is white"""
    always: bool = True
    """whether every number is light, unless a mask says otherwise"""

    def values(self, stored: NDArray[Any]) -> tuple[NDArray[Any], NDArray[np.bool_] | bool]:
        """Values (3, h, w) of stored numbers, and where they are any (h, w), or true for everywhere."""
        if self.palette is not None:
            last = len(self.palette) - 1
            number = stored[0].astype(np.intp)  # numpy 2.5 keeps the pixels' type, in which `last` may have no room
            colours = self.palette[np.where((number >= 0) & (number < last), number, last)]
            return np.moveaxis(colours[..., :3], -1, 0), colours[..., 3] > 0
        if self.scales != (1.0, 1.0, 1.0) or self.offsets != (0.0, 0.0, 0.0):
            by, plus = (np.asarray(tags)[:, None, None] for tags in (self.scales, self.offsets))
            stored = stored * by + plus
        if np.issubdtype(stored.dtype, np.floating):
            return stored, np.isfinite(stored).all(axis=0)
        return stored, True

    @property
    def ends(self) -> Range | None:
        """The values that are black and white."""
        return self.limits[::-1] if self.limits is not None and self.negative else self.limits

    def is_light(self, values: Any) -> bool:
        """Whether values are bytes that need no more than to be divided by 255."""
        return values.dtype == np.uint8 and self.limits == (0, 255) and not self.negative

    def scaled(self, values: Any) -> NDArray[np.float32]:
        """Intensity (3, h, w) between 0 and 1 of values."""
        if self.limits is None:
            raise RuntimeError("the scene was not sampled")
        seen = self._between(values, *self.limits)
        return 1 - seen if self.negative else seen

    @staticmethod
    def _between(values: Any, low: float, high: float) -> NDArray[np.float32]:
        """0 up to `low`, 1 from `high` on."""
        if low == 0 and values.dtype.itemsize <= 2:  # exact, as everybody divides 8-bit pixels by 255
            seen: NDArray[np.float32] = np.divide(values, np.float32(high), dtype=np.float32)
            inside = values.dtype.kind == "u" and np.iinfo(values.dtype).max <= high
            return seen if inside else seen.clip(0, 1, out=seen)
        wide = np.dtype(np.float64 if values.dtype.itemsize > 2 else np.float32)
        with np.errstate(invalid="ignore", over="ignore"):
            scaled = (values.astype(wide) - wide.type(low)) / wide.type(high - low)
        return np.nan_to_num(np.clip(scaled, 0, 1).astype(np.float32), nan=0.0)

    def measured(self, read: Read, shape: tuple[int, int], block: tuple[int, int] = (1, 1)) -> Intensity:
        """With limits: if it has none, the 2nd and 98th percentile of a sample of the scene, stored in such blocks."""
        return self if self.limits is not None else replace(self, limits=_percentiles(read, shape, block))


def intensity_of(src: Any, bands: tuple[int, int, int], scale: str, name: str) -> Intensity:
    """How an open raster's bands are to be seen. Raises SceneError, UsageError."""
    asked = read_scale(scale)
    odd = [src.dtypes[band - 1] for band in bands if src.dtypes[band - 1].startswith("complex")]
    if odd:
        raise SceneError(
            f"{name} has complex pixels ({odd[0]}), which cannot be seen as an image; convert them to amplitudes first"
        )
    if any(src.colorinterp[band - 1] == ColorInterp.palette for band in bands):
        return Intensity(limits=(0, 255), palette=_palette(src, bands, name), always=False)
    negative = is_negative(src)
    if asked == "dtype" or (asked == "auto" and all(src.dtypes[band - 1] == "uint8" for band in bands)):
        return Intensity(limits=_whole(src, bands, name), negative=negative)
    scales, offsets = _tags(src, bands, name)
    always = all(np.issubdtype(np.dtype(src.dtypes[band - 1]), np.integer) for band in bands)
    limits = None if isinstance(asked, str) else asked
    return Intensity(limits=limits, scales=scales, offsets=offsets, negative=negative, always=always)


def _tags(src: Any, bands: tuple[int, int, int], name: str) -> tuple[Triple, Triple]:
    """Scales and offsets of bands. Raises SceneError for what is no number."""
    first, second, third = (band - 1 for band in bands)
    scales, offsets = ((tags[first], tags[second], tags[third]) for tags in (src.scales, src.offsets))
    if not all(map(math.isfinite, (*scales, *offsets))):
        raise SceneError(
            f"{name} says that its numbers are to be scaled by {scales} and {offsets} added; correct these tags, as "
            "with gdal_edit.py -scale 1 -offset 0"
        )
    return scales, offsets


def _whole(src: Any, bands: tuple[int, int, int], name: str) -> Range:
    """The range of a pixel type, or of the bits that a file says it uses."""
    if len(kinds := {src.dtypes[band - 1] for band in bands}) > 1:
        raise UsageError(f"--scale dtype: the bands of {name} are {' and '.join(sorted(kinds))}; write --scale MIN,MAX")
    kind = np.dtype(src.dtypes[bands[0] - 1])
    if not np.issubdtype(kind, np.integer):
        raise UsageError(f"--scale dtype: {name} has {kind} pixels, which have no range; write --scale MIN,MAX")
    bits = bits_of(src, bands[0]) or ""
    if bits.isdigit() and kind.kind == "u" and int(bits) < 8 * kind.itemsize:
        return 0.0, float(2 ** int(bits) - 1)
    return float(np.iinfo(kind).min), float(np.iinfo(kind).max)


def _palette(src: Any, bands: tuple[int, int, int], name: str) -> NDArray[np.uint8]:
    """Colours by number, in the end nothing for all other numbers. Raises SceneError where there is no such table."""
    band = next(band for band in bands if src.colorinterp[band - 1] == ColorInterp.palette)
    what = f"band {band} of {name} stands for colours of a palette"
    if len(set(bands)) > 1:
        raise SceneError(f"{what}, so it is seen alone: --bands {band},{band},{band}")
    if not np.issubdtype(np.dtype(src.dtypes[band - 1]), np.integer):
        raise SceneError(f"{what}, but has {src.dtypes[band - 1]} pixels, which number no colours")
    table = palette_of(src, band, name)
    colours = np.zeros((max(table) + 2, 4), np.uint8)
    for code, colour in table.items():
        colours[code] = np.clip(colour, 0, 255)
    return colours


def _percentiles(read: Read, shape: tuple[int, int], block: tuple[int, int]) -> Range:
    """Percentiles over three bands together; of everything where a sample finds too little."""
    tall = block[0] > SIDE and block[1] >= shape[1]
    found = _gathered(_by_rows(read, shape[1]) if tall else read, _looks(shape))
    if sum(map(len, found)) < 3 * ENOUGH:
        found = _gathered(read, _everywhere(shape), enough=3 * ENOUGH)
    if not any(map(len, found)):
        return 0.0, 1.0  # no pixel has data, so none will be shown
    low, high = np.percentile(np.concatenate(found), PERCENTILES).tolist()
    return (low, high) if low < high else (low, low + 1.0)


def _by_rows(read: Read, width: int) -> Read:
    """Read windows beside each other at once: of tall strips all would be decoded for each."""

    @lru_cache(maxsize=1)
    def rows(row_off: int, height: int) -> tuple[NDArray[Any], NDArray[np.bool_]]:
        return read(Window(0, row_off, width, height))

    def part(window: Window) -> tuple[NDArray[Any], NDArray[np.bool_]]:
        values, valid = rows(window.row_off, window.height)
        cols = slice(window.col_off, window.col_off + window.width)
        return values[..., cols], valid[:, cols]

    return part


def _gathered(read: Read, windows: Iterator[Window], enough: float = math.inf) -> list[NDArray[Any]]:
    """Values with data of windows, until they are enough."""
    found: list[NDArray[Any]] = []
    count = 0
    for window in windows:
        values, valid = read(window)
        if valid.any():
            numbers = values[:, valid].ravel().astype(np.float64)
            found.append(numbers[~np.isnan(numbers)])
            count += len(found[-1])
        if count >= enough:
            break
    return found


def _looks(shape: tuple[int, int]) -> Iterator[Window]:
    """Windows anywhere in the cells of a grid over the scene, row by row; all of it where it is small."""
    height, width = shape
    if height * width <= (LOOKS * SIDE) ** 2:
        yield from _everywhere(shape)
        return
    random = np.random.default_rng(SEED)
    size = min(SIDE, height), min(SIDE, width)
    rows, cols = (np.linspace(0, side - part, LOOKS + 1) for side, part in zip(shape, size, strict=True))
    for row, below in pairwise(rows):
        top = int(random.uniform(row, below))
        for col, right in pairwise(cols):
            yield Window(int(random.uniform(col, right)), top, size[1], size[0])


def _everywhere(shape: tuple[int, int]) -> Iterator[Window]:
    height, width = shape
    for row in range(0, height, STEP):
        for col in range(0, width, STEP):
            yield Window(col, row, min(STEP, width - col), min(STEP, height - row))
