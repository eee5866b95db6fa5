"""What a raster of class codes holds: its classes, counted from the pixels, and what its attribute table says."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any
from xml.etree import ElementTree

import numpy as np
import rasterio.shutil
from numpy.typing import NDArray
from rasterio.enums import MaskFlags
from rasterio.errors import NotGeoreferencedWarning
from rasterio.io import MemoryFile
from rasterio.windows import Window

from geoovseg.errors import SceneError, first_line, hushed
from geoovseg.labels.read import check_codes, names_in
from geoovseg.labels.styles import LegendEntry
from geoovseg.rasters.open import GDAL_ERRORS

AT_ONCE = 2**22
"""Pixels that are counted together."""
COLOURS = ("#c0392b", "#7f8c8d", "#2e86de", "#1e6b2f", "#9acd5a", "#f1c40f", "#b5835a", "#8e44ad", "#16a085", "#e67e22")
"""For rasters without a palette."""
_VALUE, _COUNT = "5", "1"
"""GDAL's usages of columns of an attribute table."""
Areas = Callable[[Window], NDArray[np.float64]]
"""Square metres of the pixels of a window."""


@dataclass(frozen=True, kw_only=True)
class Counts:
    """How often each code of a raster occurs."""

    pixels: Mapping[int, int]
    """by code"""
    area_m2: Mapping[int, float]
    """by code, empty where it was not asked for"""
    nodata: int
    """pixels without data"""

    def share(self, code: int) -> float:
        """What part of the pixels with data has a code."""
        return self.pixels.get(code, 0) / max(1, sum(self.pixels.values()))


def count(src: Any, areas: Areas | None = None) -> Counts:
    """Count the codes of an open raster, a few blocks at a time. Raises SceneError."""
    pixels, nodata = Counter[int](), 0
    measured: Any = Counter()  # of fractions
    if _is_plain(src):
        return _count_plain(src, areas)
    for window in chunks(src):
        found = read_codes(src, window)
        valid = ~np.ma.getmaskarray(found)
        codes, places = _distinct(found.data[valid])
        pixels.update(dict(zip(codes.tolist(), np.bincount(places, minlength=len(codes)).tolist(), strict=True)))
        nodata += valid.size - int(valid.sum())
        if areas is not None:
            sums = np.bincount(places, areas(window)[valid], minlength=len(codes))
            measured.update(dict(zip(codes.tolist(), sums.tolist(), strict=True)))
    return Counts(pixels=pixels, area_m2=measured, nodata=nodata)


def classes_of(src: Any, areas: Areas | None = None) -> tuple[list[LegendEntry], Counts]:
    """The classes with pixels of an open raster of codes, and how often each occurs.

    Raises SceneError for what holds no codes, and for codes below 0, which elsewhere stand for no data.
    """
    check_codes(src)
    counts = count(src, areas)
    if (least := min(counts.pixels, default=0)) < 0:
        raise SceneError(f"{src.name} has the code {least}; classes are coded 0 and up: recode it")
    return [entry for entry in legend_of(src, counts, names_in(src, counts.pixels)) if entry.pixels], counts


def _is_plain(src: Any) -> bool:
    """Whether codes of one byte and a nodata value say all of an open raster, as of ours."""
    flags = set(src.mask_flag_enums[0])
    return bool(src.dtypes[0] == "uint8" and flags <= {MaskFlags.nodata, MaskFlags.all_valid})


def _count_plain(src: Any, areas: Areas | None) -> Counts:
    """The same without masks, several times faster. Raises SceneError."""
    totals, measured = np.zeros(256, np.int64), np.zeros(256)
    for window in chunks(src):
        codes = read_stored(src, window, masked=False).ravel()
        totals += np.bincount(codes, minlength=256)
        if areas is not None:
            measured += np.bincount(codes, areas(window).ravel(), 256)
    found = {code: pixels for code, pixels in enumerate(totals.tolist()) if pixels}
    nodata = 0 if src.nodata is None else found.pop(src.nodata, 0)
    return Counts(pixels=found, area_m2={code: float(measured[code]) for code in found if areas}, nodata=nodata)


def _distinct(codes: NDArray[Any]) -> tuple[NDArray[Any], NDArray[Any]]:
    """The codes that occur, sorted, and for every pixel the place of its code among them."""
    if codes.dtype != np.uint8:
        return np.unique(codes, return_inverse=True)
    there = np.flatnonzero(np.bincount(codes, minlength=256))  # many times faster than sorting
    places = np.zeros(256, np.intp)
    places[there] = np.arange(len(there))
    return there, places[codes]


def read_codes(src: Any, window: Window, shape: tuple[int, int] | None = None) -> Any:
    """Codes of a window, masked where there is no data, in other rows and columns if asked: nearest.

    Raises SceneError for what cannot be read, or holds fractions.
    """
    found = read_stored(src, window, shape)
    if found.dtype.kind != "f":
        return found
    found = np.ma.masked_invalid(found)
    if (found != np.rint(found)).any():
        raise SceneError(f"{src.name} holds fractions, not class codes")
    return np.ma.array(found.filled(0).astype(np.int64), mask=np.ma.getmaskarray(found))


def read_stored(src: Any, window: Window, shape: tuple[int, int] | None = None, *, masked: bool = True) -> Any:
    """Numbers of a window as they are stored, masked where there is no data. Raises SceneError."""
    try:
        return src.read(1, window=window, masked=masked, **({} if shape is None else {"out_shape": shape}))
    except GDAL_ERRORS as error:
        raise SceneError(f"cannot read {src.name}: {first_line(error.__cause__ or error)}") from error


def chunks(src: Any) -> Iterator[Window]:
    """Windows that tile an open raster, along its blocks and of a few million pixels each."""
    rows, cols = src.block_shapes[0]
    wide = min(src.width, cols * max(1, AT_ONCE // (rows * cols)))
    high = rows * max(1, AT_ONCE // (rows * wide))
    for row in range(0, src.height, high):
        for col in range(0, src.width, wide):
            yield Window(col, row, min(wide, src.width - col), min(high, src.height - row))


def legend_of(src: Any, counts: Counts, names: Mapping[int, str]) -> list[LegendEntry]:
    """The codes that an open raster has or names, but no data, with names, colours and pixels."""
    palette, found = palette_of(src), []
    codes = {code for code in (*counts.pixels, *names) if code != src.nodata}
    for number, code in enumerate(sorted(codes)):
        rgb = palette.get(code)
        colour = "#{:02x}{:02x}{:02x}".format(*rgb[:3]) if rgb else COLOURS[number % len(COLOURS)]
        found.append(LegendEntry(code, names.get(code, f"class {code}"), colour, counts.pixels.get(code, 0)))
    return found


def named(legend: Iterable[LegendEntry]) -> dict[str, LegendEntry]:
    """Entries by their names; where two have one name, the code tells them apart."""
    entries = list(legend)
    names = Counter(entry.name for entry in entries)
    return {entry.name if names[entry.name] == 1 else f"{entry.name} ({entry.code})": entry for entry in entries}


def palette_of(src: Any) -> dict[int, tuple[int, int, int, int]]:
    """Colours by code; none where an open raster has no palette."""
    try:
        return dict(src.colormap(1)) if src.colorinterp[0].name == "palette" else {}
    except ValueError:
        return {}


def stored_counts(src: Any) -> dict[int, int]:
    """Pixels by code as the attribute table of an open raster says, wherever it keeps that; empty where it has none."""
    with hushed(NotGeoreferencedWarning), MemoryFile(ext=".vrt") as file:  # a VRT says all that GDAL knows, as text
        try:
            rasterio.shutil.copy(src, file.name, driver="VRT")
            table = ElementTree.fromstring(file.read()).find("VRTRasterBand/GDALRasterAttributeTable")
        except (*GDAL_ERRORS, ElementTree.ParseError):
            return {}
    if table is None:
        return {}
    usages = [column.findtext("Usage") for column in table.iterfind("FieldDefn")]
    if not {_VALUE, _COUNT} <= set(usages):
        return {}
    rows = [[cell.text or "0" for cell in row] for row in table.iterfind("Row")]
    value, counted = usages.index(_VALUE), usages.index(_COUNT)
    return {int(float(row[value])): int(float(row[counted])) for row in rows}
