"""Class names: those that a raster carries, in whatever way GDAL lets it say them, and how users write them down."""

from __future__ import annotations

import os
import re
import warnings
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any, NamedTuple
from xml.etree import ElementTree
from xml.etree.ElementTree import Element

import rasterio.shutil
from rasterio.io import MemoryFile

from geoovseg.errors import GeoOVSegWarning, SceneError, UsageError, hushed, printable, some
from geoovseg.labels.record import RunRecord
from geoovseg.network import is_remote
from geoovseg.rasters.open import GDAL_ERRORS, opened
from geoovseg.rasters.vrt import source_name

DEPTH = 5
"""Of VRTs that are made of VRTs, as far as names are looked for."""
FAR = 32
"""Of the rasters a VRT is made of on servers, as many are asked for names."""
_BESIDE = (".aux.xml", ".ovr", ".msk", ".dbf")
"""Ends of the names of files that are listed with a raster, and are none."""
_TEXT, _WHOLE = 2, 0
"""GDAL's types of columns in an attribute table."""
_GENERIC, _NAME, _LOWEST, _HIGHEST, _VALUE = 0, 2, 3, 4, 5
"""GDAL's usages of them."""
_CODES = ("value", "code", "class_value", "classvalue", "class_id", "classid", "gridcode", "pixel", "id")
_NAMES = ("class_name", "class_names", "classname", "class", "name", "label", "category", "land cover class")
"""What such columns are called where their usage is not said, lower case; the first that is there counts."""
MOST = 65536
"""Codes that one row of a table may stand for."""


class Column(NamedTuple):
    """A column of an attribute table."""

    name: str
    kind: int
    usage: int


def category_names(src: Any) -> dict[int, str]:
    """Class names by code of an open raster: from its run record, else in any way that GDAL and ArcGIS know.

    These are category names, a raster attribute table (also `.vat.dbf`), and flags as netCDF has them. A VRT that says
    nothing has the names of what it is made of. Codes for terminals in a name are written out. Raises SceneError for a
    damaged record or side file.
    """
    return {code: printable(name) for code, name in _names(src, DEPTH).items()}


def _names(src: Any, depth: int) -> dict[int, str]:
    if (record := RunRecord.of(src)) is not None:
        return record.names
    _check_side_file(src)
    band = _described(src).find("VRTRasterBand")
    said = {} if band is None else {**_flags(src), **_attributes(band), **_categories(band)}
    return said or _vat(src) or (_of_sources(src, depth - 1) if src.driver == "VRT" and depth else {})


def _check_side_file(src: Any) -> None:
    """Refuse a side file that GDAL would pass over because it is damaged. Raises SceneError."""
    side = Path(src.name + ".aux.xml")  # of a size that was looked at when the raster was opened
    if not side.is_file():
        return
    try:
        ElementTree.parse(side)
    except ElementTree.ParseError as error:
        raise SceneError(f"cannot read the class names in {side}: {error}") from error


def _described(src: Any) -> Element:
    """All that GDAL knows of an open raster, whatever its format, as a VRT; rasterio itself does not tell names."""
    try:
        with MemoryFile(ext=".vrt") as file:
            rasterio.shutil.copy(src, file.name, driver="VRT", strict=False)
            return ElementTree.fromstring(file.read())
    except (*GDAL_ERRORS, ElementTree.ParseError):  # nothing can be said of it in a VRT
        return Element("VRTDataset")


def _categories(band: Element) -> dict[int, str]:
    """Names that are said in the order of the codes."""
    found = band.findall("CategoryNames/Category")
    return {code: item.text for code, item in enumerate(found) if item.text}


def _attributes(band: Element) -> dict[int, str]:
    """Names in a raster attribute table."""
    table = band.find("GDALRasterAttributeTable")
    if table is None:
        return {}
    columns = [Column(_said(c, "Name"), int(_said(c, "Type", "2")), int(_said(c, "Usage", "0"))) for c in table]
    columns = columns[: len(table.findall("FieldDefn"))]
    rows = [[(cell.text or "").strip() for cell in row.findall("F")] for row in table.findall("Row")]
    first, step = table.get("Row0Min"), table.get("BinSize")
    return _named_rows(columns, rows, None if first is None or step is None else (float(first), float(step)))


def _said(item: Element, tag: str, default: str = "") -> str:
    return item.findtext(tag) or default


def _named_rows(
    columns: Sequence[Column], rows: Sequence[Sequence[str]], bins: tuple[float, float] | None = None
) -> dict[int, str]:
    """Names by code in the rows of a table; `bins` are first code and step where rows stand for codes by their order.

    No names where it cannot be told which column holds them, or the codes.
    """
    name = _find(columns, _TEXT, (_NAME,), _NAMES)
    low = _find(columns, _WHOLE, (_VALUE, _LOWEST), _CODES, alone=bins is None)
    high = next((n for n, column in enumerate(columns) if column.usage == _HIGHEST), low)
    if name is None or (low is None and not (bins and bins[1] == 1)):
        return {}
    found: dict[int, str] = {}
    for number, row in enumerate(rows):
        first, last = (bins[0] + number,) * 2 if low is None and bins else (row[low or 0], row[high or 0])
        if row[name]:
            found |= dict.fromkeys(_codes(first, last), row[name])
    return found


def _codes(first: str | float, last: str | float) -> Iterator[int]:
    """The whole numbers that a row stands for; none where its cells are empty or hold other things."""
    try:
        low, high = float(first), float(last)
    except ValueError:
        return
    if low.is_integer() and high.is_integer() and high - low < MOST:
        yield from range(int(low), int(high) + 1)


def _find(
    columns: Sequence[Column], kind: int, usages: Sequence[int], names: Sequence[str], *, alone: bool = False
) -> int | None:
    """The number of a column: by its usage, else by its name, else of texts the first, and `alone` the only one."""
    said = [n for n, c in enumerate(columns) if c.usage in usages]
    free = [n for n, c in enumerate(columns) if c.kind == kind and c.usage == _GENERIC]
    called = [n for wanted in names for n, c in enumerate(columns) if c.name.casefold() == wanted and n in free]
    alike = [n for n in free if any(wanted in columns[n].name.casefold() for wanted in ("name", "class", "label"))]
    rest = [*alike, *free] if kind == _TEXT else free if alone and len(free) == 1 else []
    return next(iter([*said, *called, *rest]), None)


def _flags(src: Any) -> dict[int, str]:
    """Names by the convention of netCDF for climate and forecast data."""
    tags = src.tags(1) if src.count else {}
    codes = [int(code) for code in re.findall(r"-?\d+", tags.get("flag_values", ""))]
    names = tags.get("flag_meanings", "").split()
    return dict(zip(codes, names, strict=True)) if len(codes) == len(names) else {}


def _vat(src: Any) -> dict[int, str]:
    """Names in the table that ArcGIS writes beside a raster."""
    from geoovseg.scene.shapes import read_table  # slow to import, and needed only here

    name = source_name(src)
    for path in (f"{name}.vat.dbf", f"{os.path.splitext(name)[0]}.vat.dbf"):
        if (table := read_table(path)) is not None:
            kinds = [_WHOLE if kind.kind in "iuf" else _TEXT for kind in table.dtypes]
            columns = [Column(str(c), k, _GENERIC) for c, k in zip(table.columns, kinds, strict=True)]
            counted = ("count", "red", "green", "blue")
            columns = [c._replace(usage=1) if c.name.casefold() in counted else c for c in columns]
            return _named_rows(columns, [["" if v is None else str(v) for v in row] for row in table.to_numpy()])
    return {}


def _of_sources(src: Any, depth: int) -> dict[int, str]:
    """The names of what a VRT is made of; warns where these name a code differently, which then has none."""
    names: dict[int, str] = {}
    torn: set[int] = set()
    paths = [path for path in src.files[1:] if not path.lower().endswith(_BESIDE) and path != src.name]
    near, far = ([path for path in paths if is_remote(path) is remote] for remote in (False, True))
    for path in (*near, *far[:FAR]):
        for code, name in _of_file(path, depth).items():
            if names.setdefault(code, name) != name:
                torn.add(code)
    if torn:
        message = (
            f"{src.name} is made of rasters that name the codes {some(sorted(torn))} differently: these "
            "have no name here"
        )
        warnings.warn(message, GeoOVSegWarning, 4)
    return {code: name for code, name in names.items() if code not in torn}


def _of_file(path: str, depth: int) -> dict[int, str]:
    """Names that a raster carries; none if it cannot be opened, which reading it will tell."""
    try:
        with ExitStack() as stack:
            with hushed(GeoOVSegWarning):  # where it is read from has been told of the whole
                src = stack.enter_context(opened(path, path))
            return _names(src, depth)
    except SceneError:
        return {}


def split_names(texts: Sequence[str] | str, known: Collection[str]) -> list[str]:
    """Class names that users wrote, one or several in a text with commas between, where names have commas too.

    At every place the longest known name counts; what is none comes out as it stands between two commas.
    """
    by_plain = {_plain(name): name for name in known}
    found = []
    for text in [texts] if isinstance(texts, str) else texts:
        parts = text.split(",")
        while parts:
            heads = [_plain(",".join(parts[:count])) for count in range(len(parts), 0, -1)]
            head = next((head for head in heads if head in by_plain), heads[-1])
            found.append(by_plain.get(head, head))
            parts = parts[len(parts) - heads.index(head) :]
    return found


def _plain(name: str) -> str:
    """A name with one space behind each comma."""
    return ", ".join(part.strip() for part in name.split(","))


def split_pairs(
    texts: Sequence[str], option: str, form: str, left: Callable[[str], bool], right: Callable[[str], bool]
) -> Mapping[str, str]:
    """`a=b` that users wrote, one or several in a text with commas between; names may have commas inside, or `=`.

    At every place the longest pair of names counts that `left` and `right` know; where there is none, what ends at the
    comma behind the next `=`. Raises UsageError, which names the option and the form it wants.
    """
    pairs: dict[str, str] = {}
    for text in texts:
        parts = text.split(",")
        while parts:
            count, name, target = _pair(parts, left, right)
            if not count:
                raise UsageError(f"{option} {','.join(parts).strip()}: write {form}")
            pairs[name] = target
            parts = parts[count:]
    return pairs


def _pair(parts: Sequence[str], left: Callable[[str], bool], right: Callable[[str], bool]) -> tuple[int, str, str]:
    """How many parts the first pair takes, 0 for none, and the pair."""
    heads = {count: ",".join(parts[:count]) for count in range(len(parts), 0, -1)}
    for count, head in heads.items():
        for match in re.finditer("=", head):
            name, target = _plain(head[: match.start()]), _plain(head[match.end() :])
            if left(name) and right(target):
                return count, name, target
    count = next((count for count in reversed(heads) if "=" in heads[count]), 0)
    name, _, target = heads.get(count, "").partition("=")
    return count, _plain(name), _plain(target)
