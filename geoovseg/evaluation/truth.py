"""Ground truth on the grid of labels: rasters of any grid, or vectors, read window by window."""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray
from rasterio.enums import ColorInterp, Resampling
from rasterio.features import rasterize
from rasterio.vrt import WarpedVRT
from rasterio.windows import Window
from rasterio.windows import transform as window_transform

from geoovseg.errors import SceneError, UsageError, first_line, some
from geoovseg.evaluation.colours import (
    NOTHING,
    colour_bands,
    colour_code,
    colour_reader,
    colour_text,
    need_colours,
    palette_of,
    read_colours,
)
from geoovseg.labels.read import Reader, category_names, check_unscaled, open_labels, raster_reader
from geoovseg.rasters.open import GDAL_ERRORS
from geoovseg.scene.shapes import VECTORS, Choice, brought_to, read_shapes, suffix_of

FIELD = "class_name"
"""The column of class names in polygons that `geoovseg vectorize` made."""


@dataclass(frozen=True, kw_only=True)
class How:
    """How ground truth is to be read."""

    field: str | None = None
    """column of class names in a vector file"""
    layer: str | None = None
    """of a vector file"""
    nodata: str | float | None = None
    """none keeps what the file says; "none" is none at all, else a code or colour in its place"""
    colours: str | None = None
    """table of colours, by name or file"""
    mapped: bool = False
    """some classes are named by --map"""


@dataclass(frozen=True, kw_only=True)
class Truth:
    """Ground truth on the grid of labels."""

    read: Reader
    names: dict[int, str]
    find: Callable[[str], list[int]] = lambda said: []
    """codes that a text in --map means, where it is none of the names"""
    text: Callable[[int], str] = str
    """what to call a code without a name"""
    nodata: int | None = None
    """the code that the file itself says is no data"""
    spoken: dict[int, str] = field(default_factory=dict)
    """names of codes that are not compared, since they are no data"""

    def name(self, code: int) -> str:
        """The name of a code, or the code itself as text."""
        return self.names.get(code, self.text(code))

    def codes(self, said: str) -> list[int]:
        """The codes of a class, by its name or as the file has them."""
        return [code for code, name in self.names.items() if name == said] or self.find(said)


@contextmanager
def open_truth(src: Any, truth: str | os.PathLike[str], how: How) -> Iterator[Truth]:
    """Ground truth on the grid of the labels `src`; vectors by the names in their column `field` or `class_name`.

    Raises SceneError for what cannot be read, UsageError for what cannot be brought to the grid.
    """
    name = os.fspath(truth)
    if suffix_of(name) in VECTORS:
        yield _vector_truth(src, name, how)
        return
    with ExitStack() as stack:
        try:
            dst = stack.enter_context(open_labels(name))
        except SceneError as error:
            yield _other_vectors(src, name, how, error)
            return
        check_unscaled(dst)
        grid = {"crs": src.crs, "transform": src.transform, "height": src.height, "width": src.width}
        same = all(getattr(dst, key) == value for key, value in grid.items())
        read = dst if same else stack.enter_context(_resampled(dst, grid, own_nodata=how.nodata is None))
        yield _raster_truth(dst, read, how)


def _other_vectors(src: Any, name: str, how: How, error: SceneError) -> Truth:
    """Truth in a file that is no raster, of whatever suffix. Raises what the raster's opening did."""
    try:
        return _vector_truth(src, name, how)
    except SceneError:
        raise error from None


@contextmanager
def _resampled(src: Any, grid: dict[str, Any], *, own_nodata: bool) -> Iterator[Any]:
    """A raster brought to another grid, nearest; beyond its extent there is no data."""
    if src.crs is None or grid["crs"] is None:
        raise UsageError(f"{src.name} lies on another grid than the labels, and one has no coordinate system")
    has_mask = (own_nodata and src.nodata is not None) or ColorInterp.alpha in src.colorinterp
    more: dict[str, Any] = {} if has_mask else {"add_alpha": True}
    if not own_nodata:
        more |= {"src_nodata": None, "nodata": None}
    try:
        vrt = WarpedVRT(src, resampling=Resampling.nearest, **grid, **more)
    except GDAL_ERRORS as error:
        raise UsageError(f"{src.name} cannot be brought to the grid of the labels: {first_line(error)}") from error
    with vrt:
        yield vrt


def _raster_truth(dst: Any, read: Any, how: How) -> Truth:
    """Truth in an open raster `dst`, of which `read` is on the grid of the labels. Raises SceneError, UsageError."""
    bands, table = colour_bands(dst), {} if how.colours is None else read_colours(how.colours)
    own = how.nodata is None
    if bands:
        if not (table or how.mapped):
            raise need_colours(dst.name)
        reader, names, palette = colour_reader(read, bands, own_nodata=own), table, None
    else:
        palette = palette_of(dst)
        if table and not palette:
            raise UsageError(f"--colours {how.colours}: {dst.name} has codes and no palette of colours")
        coloured = {code: table[colour] for code, colour in palette.items() if colour in table}
        reader, names = raster_reader(read, own_nodata=own), {**category_names(dst), **coloured}
    gone = {code for code, name in names.items() if table and name == NOTHING} | _unsaid(how.nodata, palette)
    declared = _declared(dst, bands) if own else None
    out = gone | ({declared} if declared is not None else set())
    return Truth(
        read=_without(reader, sorted(gone)),
        names={code: name for code, name in names.items() if code not in out},
        find=lambda said: _find(said, palette),
        text=colour_text if bands else str,
        nodata=declared,
        spoken={code: name for code, name in names.items() if code in out and name != NOTHING},
    )


def _declared(dst: Any, bands: Sequence[int]) -> int | None:
    """The code, or the colour as one number, that a file itself says is no data."""
    if dst.nodata is None or not float(dst.nodata).is_integer():
        return None
    value = int(dst.nodata)
    return (value << 16) + (value << 8) + value if bands else value


def _unsaid(nodata: str | float | None, palette: dict[int, int] | None) -> set[int]:
    """The codes that --truth-nodata says are no data. Raises UsageError."""
    if nodata is None or nodata == "none":
        return set()
    said = str(nodata)
    if (found := _find(said.removesuffix(".0"), palette)) or colour_code(said) is not None:
        return set(found)
    raise UsageError(f"--truth-nodata {nodata}: write none, a code as in 255, or a colour as in '#000000'")


def _find(said: str, palette: dict[int, int] | None) -> list[int]:
    """Codes that a number or a colour stands for; without a palette (`None`) colours are the codes."""
    if (colour := colour_code(said)) is not None:
        return [colour] if palette is None else [code for code, has in palette.items() if has == colour]
    return [int(said)] if palette is not None and re.fullmatch(r"[0-9]+", said) else []


def _without(read: Reader, codes: Sequence[int]) -> Reader:
    """Read codes, with some of them as no data."""
    if not codes:
        return read

    def those(window: Window) -> NDArray[np.int64]:
        found = read(window)
        return np.where(np.isin(found, codes), -1, found)

    return those


def _text(value: object) -> str:
    """A class name; whole numbers without a point, whatever type the file gives them."""
    return str(int(value)) if isinstance(value, float) and value.is_integer() else str(value)


def _names_column(name: str, columns: Sequence[str], field: str | None) -> str:
    """The column of class names: `field`, by default that of our own polygons. Raises UsageError."""
    if field is None and FIELD in columns:
        return FIELD
    there = f"the columns {some(columns, 20)}" if columns else "no columns"
    if field is None:
        raise UsageError(f"{name} needs --field, the column of class names; it has {there}")
    if field not in columns:
        raise UsageError(f"--field {field}: {name} has {there}; choose the one of class names")
    return field


def _vector_truth(src: Any, name: str, how: How) -> Truth:
    if how.colours is not None:
        raise UsageError(f"--colours {how.colours}: {name} holds shapes, which have names in a column and no colours")
    if how.nodata is not None:
        raise UsageError(f"--truth-nodata {how.nodata}: {name} holds shapes; where there are none is for --outside")
    table = read_shapes(name, Choice(how.layer))
    field = _names_column(name, [c for c in table.columns if c != table.geometry.name], how.field)
    if src.crs is not None and table.crs is not None:
        table = brought_to(table, src.crs, name)
    table = table[table[field].notna() & table.geometry.notna() & ~table.geometry.is_empty]
    values = [_text(value) for value in table[field]]
    codes = {name: code for code, name in enumerate(sorted(set(values)), start=1)}
    shapes = [(shape, codes[value]) for shape, value in zip(table.geometry, values, strict=True)]

    def read(window: Window) -> NDArray[np.int64]:
        size = (int(window.height), int(window.width))
        if not shapes:
            return np.full(size, -1, np.int64)
        place = window_transform(window, src.transform)
        return rasterize(shapes, size, fill=-1, transform=place, dtype="int32").astype(np.int64)

    return Truth(read=read, names={code: name for name, code in codes.items()})
