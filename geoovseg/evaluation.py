"""How right labels are: a confusion matrix against ground truth, streamed, and what follows from it."""

from __future__ import annotations

import json
import os
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import geopandas
import numpy as np
import rasterio
from numpy.typing import NDArray
from pyogrio.errors import DataLayerError, DataSourceError
from rasterio._err import CPLE_BaseError
from rasterio.enums import Resampling
from rasterio.errors import RasterioError
from rasterio.features import rasterize
from rasterio.vrt import WarpedVRT
from rasterio.windows import Window
from rasterio.windows import transform as window_transform

from geoovseg.errors import SceneError, UsageError, first_line
from geoovseg.record import RUN_TAG
from geoovseg.scene import raster_env

BLOCK = 1024
_SHIFT = 1 << 24
"""Label codes stay below this."""
_BACKGROUND = "background"
_VECTORS = (".gpkg", ".geojson", ".json", ".shp", ".fgb", ".parquet")
Reader = Callable[[Window], NDArray[np.int64]]
"""Codes of a window of the labels' grid; negative where unknown."""


@dataclass(frozen=True, kw_only=True)
class ClassScore:
    """One class's figures; None where the class occurs neither in truth nor in labels."""

    iou: float | None
    precision: float | None
    recall: float | None
    f1: float | None
    pixels: int
    """of the truth"""


@dataclass(frozen=True, kw_only=True)
class EvaluationResult:
    """Figures of a comparison; `to_json` is what `geoovseg evaluate --json` prints."""

    miou: float
    """mean IoU over the classes that occur in truth or labels"""
    accuracy: float
    """share of compared pixels that are right"""
    classes: dict[str, ClassScore]
    confusion: list[list[int]]
    """rows truth, columns labels, in `order`; the last column counts pixels with code 0 or a class not compared"""
    order: list[str]
    ignored: dict[str, int]
    """truth pixels not compared, by reason or class name"""

    def to_json(self) -> str:
        """One line of JSON."""
        return json.dumps(asdict(self), ensure_ascii=False)


@dataclass(frozen=True)
class _Truth:
    """Ground truth on the labels' grid."""

    read: Reader
    names: dict[int, str]
    by_code: bool
    """codes are the file's own, and can be named by --map"""

    def name(self, code: int) -> str:
        return self.names.get(code, str(code))


def evaluate(
    labels: str | os.PathLike[str],
    truth: str | os.PathLike[str],
    *,
    mapping: Mapping[str, str] | None = None,
    field: str | None = None,
) -> EvaluationResult:
    """Compare a label raster with ground truth, class by class.

    Classes are matched by name, whatever their codes. Truth pixels without data, and of classes the labels do not
    have, are ignored and counted; the background counts only if both have it. A truth raster on another grid is
    resampled (nearest); vectors are rasterised by `field`.

    Args:
        labels: a label raster made by `segment`, or any with category names.
        truth: a raster of class codes with category names (or codes named through `mapping`), or a vector file.
        mapping: names of truth classes (or codes) to names of label classes.
        field: the column of a vector file that holds class names.

    Raises:
        SceneError: a file cannot be read. UsageError: names or fields do not match.
    """
    with ExitStack() as stack:
        stack.enter_context(raster_env())
        src = stack.enter_context(_open(labels))
        names = category_names(src)
        if not names:
            raise UsageError(f"{labels} has no class names; it must come from `geoovseg segment` or carry categories")
        theirs = stack.enter_context(_truth(src, truth, field))
        pairs = _match(names, theirs, mapping or {}, str(truth))
        counts = _count(src, theirs.read)
    return _result(counts, names, theirs, pairs)


def category_names(src: Any) -> dict[int, str]:
    """Class names by code of an open raster: from its run record, else from the GDAL side file beside it."""
    record = src.tags().get(RUN_TAG)
    if record:
        try:
            run = json.loads(record)
            first = {0: _BACKGROUND} if run["background"] or run["threshold"] is not None else {}
            return first | {n: str(c[0]) for n, c in enumerate(run["classes"], start=1)}
        except (ValueError, LookupError, TypeError) as error:
            raise SceneError(f"the run record in {src.name} is damaged: {first_line(error)}") from error
    side = Path(src.name + ".aux.xml")
    if not side.is_file():
        return {}
    try:
        found = ElementTree.parse(side).getroot().findall(".//CategoryNames/Category")
    except ElementTree.ParseError as error:
        raise SceneError(f"cannot read the class names in {side}: {error}") from error
    return {code: item.text for code, item in enumerate(found) if item.text}


@contextmanager
def _open(path: str | os.PathLike[str]) -> Iterator[Any]:
    try:
        src = rasterio.open(path)
    except (RasterioError, CPLE_BaseError, OSError, UnicodeError) as error:
        raise SceneError(f"cannot open {os.fspath(path)} as a raster: {first_line(error)}") from error
    with src:
        yield src


@contextmanager
def _truth(src: Any, truth: str | os.PathLike[str], field: str | None) -> Iterator[_Truth]:
    if Path(truth).suffix.lower() in _VECTORS:
        yield _vector_truth(src, Path(truth), field)
        return
    with _open(truth) as dst, ExitStack() as stack:
        grid = {"crs": src.crs, "transform": src.transform, "height": src.height, "width": src.width}
        same = all(getattr(dst, key) == value for key, value in grid.items())
        read = dst if same else stack.enter_context(_resampled(dst, grid))
        yield _Truth(_raster_reader(read), category_names(dst), by_code=True)


@contextmanager
def _resampled(src: Any, grid: dict[str, Any]) -> Iterator[Any]:
    """A raster brought to another grid, nearest; beyond its extent there is no data."""
    if src.crs is None or grid["crs"] is None:
        raise UsageError(f"{src.name} lies on another grid than the labels, and one has no coordinate system")
    outside = {"add_alpha": True} if src.nodata is None else {}
    try:
        vrt = WarpedVRT(src, resampling=Resampling.nearest, **grid, **outside)
    except (RasterioError, CPLE_BaseError) as error:
        raise UsageError(f"{src.name} cannot be brought to the grid of the labels: {first_line(error)}") from error
    with vrt:
        yield vrt


def _raster_reader(src: Any) -> Reader:
    def read(window: Window) -> NDArray[np.int64]:
        try:
            codes = src.read(1, window=window).astype(np.int64)
            valid = src.dataset_mask(window=window) > 0
        except (RasterioError, CPLE_BaseError, OSError) as error:
            raise SceneError(f"cannot read {src.name}: {first_line(error)}") from error
        return np.where(valid if src.nodata is None else valid & (codes != src.nodata), codes, -1)

    return read


def _vector_truth(src: Any, path: Path, field: str | None) -> _Truth:
    try:
        table = geopandas.read_file(path)
    except (DataSourceError, DataLayerError, OSError) as error:
        raise SceneError(f"cannot read {path}: {first_line(error)}") from error
    if not isinstance(table, geopandas.GeoDataFrame):
        raise SceneError(f"{path} holds no shapes")
    columns = [c for c in table.columns if c != table.geometry.name]
    if field not in columns:
        raise UsageError(f"--field {field}: {path} has the columns {', '.join(columns)}; choose the one of class names")
    if src.crs is not None and table.crs is not None:
        table = table.to_crs(src.crs)
    table = table[table[field].notna() & table.geometry.notna() & ~table.geometry.is_empty]
    values = [str(value) for value in table[field]]
    codes = {name: code for code, name in enumerate(sorted(set(values)), start=1)}
    shapes = [(shape, codes[value]) for shape, value in zip(table.geometry, values, strict=True)]

    def read(window: Window) -> NDArray[np.int64]:
        size = (int(window.height), int(window.width))
        if not shapes:
            return np.full(size, -1, np.int64)
        place = window_transform(window, src.transform)
        return rasterize(shapes, size, fill=-1, transform=place, dtype="int32").astype(np.int64)

    return _Truth(read, {code: name for name, code in codes.items()}, by_code=False)


def _match(labels: Mapping[int, str], truth: _Truth, mapping: Mapping[str, str], source: str) -> dict[str, str]:
    """Truth names (or codes, as text) to label names, for the classes to compare."""
    by_fold = {name.casefold(): name for name in labels.values()}
    unknown = [v for v in mapping.values() if v.casefold() not in by_fold]
    if unknown:
        raise UsageError(f"--map ...={unknown[0]}: the labels have {', '.join(labels.values())}")
    listed = ", ".join(truth.names.values())
    missing = [k for k in mapping if k not in truth.names.values() and not (truth.by_code and k.isdecimal())]
    if missing:
        raise UsageError(f"--map {missing[0]}=...: the truth has {listed or 'codes, no names'}")
    wanted = {name: name for name in truth.names.values()}
    for given, target in mapping.items():
        name = given if given in wanted or not truth.by_code else truth.name(int(given))
        wanted[name] = target
    pairs = {name: by_fold[target.casefold()] for name, target in wanted.items() if target.casefold() in by_fold}
    if not pairs:
        raise UsageError(
            f"no class of {source} ({listed or 'no class names'}) has the name of one of the labels "
            f"({', '.join(labels.values())}); say which is which with --map truth=label, for example --map 3=road"
        )
    return pairs


def _count(src: Any, read_truth: Reader) -> Counter[tuple[int, int]]:
    """Pixels of every pair of truth and label code, -1 for no data; any codes, one block at a time."""
    read_labels = _raster_reader(src)
    counts: Counter[tuple[int, int]] = Counter()
    for row in range(0, src.height, BLOCK):
        for col in range(0, src.width, BLOCK):
            window = Window(col, row, min(BLOCK, src.width - col), min(BLOCK, src.height - row))
            true, given = read_truth(window), read_labels(window)
            pairs, pixels = np.unique(true * _SHIFT + given, return_counts=True)
            for pair, count in zip(pairs.tolist(), pixels.tolist(), strict=True):
                code = (pair + 1) // _SHIFT  # given is at least -1
                counts[code, pair - code * _SHIFT] += count
    return counts


def _result(
    counts: Counter[tuple[int, int]], labels: Mapping[int, str], truth: _Truth, pairs: Mapping[str, str]
) -> EvaluationResult:
    order = [name for name in labels.values() if name in pairs.values()]
    confusion = np.zeros((len(order), len(order) + 1), np.int64)
    ignored: Counter[str] = Counter()
    for (true, given), pixels in counts.items():
        name = truth.name(true)
        if true < 0 or given < 0:
            ignored["nodata"] += pixels
        elif name not in pairs:
            ignored[name] += pixels
        else:
            label = labels.get(given)
            confusion[order.index(pairs[name]), order.index(label) if label in order else -1] += pixels
    total = int(confusion.sum())
    if not total:
        raise UsageError("no pixel has both a label and a truth class in common: nothing to compare")
    scores = {name: _class_score(confusion, n) for n, name in enumerate(order)}
    return EvaluationResult(
        miou=float(np.mean([s.iou for s in scores.values() if s.iou is not None])),
        accuracy=float(np.trace(confusion[:, :-1]) / total),
        classes=scores,
        confusion=confusion.tolist(),
        order=order,
        ignored=dict(ignored),
    )


def _class_score(confusion: NDArray[np.int64], n: int) -> ClassScore:
    hit, true, given = int(confusion[n, n]), int(confusion[n].sum()), int(confusion[:, n].sum())
    return ClassScore(
        iou=_share(hit, true + given - hit),
        precision=_share(hit, given),
        recall=_share(hit, true),
        f1=_share(2 * hit, true + given),
        pixels=true,
    )


def _share(part: int, whole: int) -> float | None:
    return part / whole if whole else None
