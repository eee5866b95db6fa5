"""How right labels are: a confusion matrix against ground truth, streamed, and what follows from it."""

from __future__ import annotations

import json
import os
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
from rasterio.enums import Resampling
from rasterio.errors import RasterioError
from rasterio.features import rasterize
from rasterio.vrt import WarpedVRT
from rasterio.windows import Window
from rasterio.windows import transform as window_transform

from geoovseg.errors import SceneError, UsageError
from geoovseg.record import RUN_TAG
from geoovseg.scene import raster_env

BLOCK = 1024
_BACKGROUND = "background"
_VECTORS = (".gpkg", ".geojson", ".json", ".shp", ".fgb", ".parquet")
Reader = Callable[[Window], NDArray[Any]]
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
        read_truth, truth_names = stack.enter_context(_truth(src, truth, field))
        pairs = _match(names, truth_names, mapping or {}, str(truth))
        counts = _count(src, read_truth, names, truth_names)
    return _result(counts, names, truth_names, pairs)


def category_names(src: Any) -> dict[int, str]:
    """Class names by code of an open raster: from its run record, else from the GDAL side file beside it."""
    record = src.tags().get(RUN_TAG)
    if record:
        run = json.loads(record)
        first = {0: _BACKGROUND} if run["background"] or run["threshold"] is not None else {}
        return first | {n: str(c[0]) for n, c in enumerate(run["classes"], start=1)}
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
    except (RasterioError, OSError) as error:
        raise SceneError(f"cannot open {os.fspath(path)} as a raster: {error}") from error
    with src:
        yield src


@contextmanager
def _truth(src: Any, truth: str | os.PathLike[str], field: str | None) -> Iterator[tuple[Reader, dict[int, str]]]:
    if Path(truth).suffix.lower() in _VECTORS:
        yield _vector_truth(src, Path(truth), field)
        return
    with _open(truth) as dst:
        names = category_names(dst)
        grid = {"crs": src.crs, "transform": src.transform, "height": src.height, "width": src.width}
        same = all(getattr(dst, key) == value for key, value in grid.items())
        if not same and (src.crs is None or dst.crs is None):
            raise UsageError(f"{truth} lies on another grid than the labels, and one of them has no coordinate system")
        with ExitStack() as stack:
            read = dst if same else stack.enter_context(WarpedVRT(dst, resampling=Resampling.nearest, **grid))
            yield _raster_reader(read, dst.nodata), names


def _raster_reader(src: Any, nodata: float | None) -> Reader:
    def read(window: Window) -> NDArray[Any]:
        try:
            codes = src.read(1, window=window).astype(np.int64)
            valid = src.dataset_mask(window=window) > 0
        except (RasterioError, OSError) as error:
            raise SceneError(f"cannot read {src.name}: {error}") from error
        return np.where(valid & (codes != nodata) if nodata is not None else valid, codes, -1)

    return read


def _vector_truth(src: Any, path: Path, field: str | None) -> tuple[Reader, dict[int, str]]:
    try:
        table = geopandas.read_file(path)
    except (DataSourceError, DataLayerError, OSError) as error:
        raise SceneError(f"cannot read {path}: {error}") from error
    columns = [c for c in table.columns if c != table.geometry.name]
    if field not in columns:
        raise UsageError(f"--field {field}: {path} has the columns {', '.join(columns)}; choose the one of class names")
    if src.crs is not None and table.crs is not None:
        table = table.to_crs(src.crs)
    names = sorted({str(v) for v in table[field].dropna()})
    codes = {name: code for code, name in enumerate(names, start=1)}
    shapes = [(g, codes[str(v)]) for g, v in zip(table.geometry, table[field], strict=True) if g and v is not None]

    def read(window: Window) -> NDArray[Any]:
        place = window_transform(window, src.transform)
        size = (int(window.height), int(window.width))
        return rasterize(shapes, size, fill=-1, transform=place, dtype="int32").astype(np.int64)

    return read, dict(enumerate(names, start=1))


def _match(
    labels: Mapping[int, str], truth: Mapping[int, str], mapping: Mapping[str, str], source: str
) -> dict[str, str]:
    """Truth names to label names, for the classes to compare."""
    by_fold = {name.casefold(): name for name in labels.values()}
    unknown = [v for v in mapping.values() if v.casefold() not in by_fold]
    if unknown:
        raise UsageError(f"--map ...={unknown[0]}: the labels have {', '.join(labels.values())}")
    known = {**{str(code): str(code) for code in range(256)}, **{n: n for n in truth.values()}}
    missing = [k for k in mapping if k not in known]
    if missing:
        raise UsageError(f"--map {missing[0]}=...: the truth has {', '.join(truth.values()) or 'codes, no names'}")
    wanted = {name: mapping.get(name, mapping.get(str(code), name)) for code, name in truth.items()}
    wanted |= {k: v for k, v in mapping.items() if not truth}
    pairs = {name: by_fold[target.casefold()] for name, target in wanted.items() if target.casefold() in by_fold}
    if not pairs:
        seen = ", ".join(truth.values()) or "no class names"
        raise UsageError(
            f"no class of {source} ({seen}) has the name of one of the labels ({', '.join(labels.values())}); say "
            "which is which with --map truth=label, for example --map 3=road"
        )
    return pairs


def _count(src: Any, read_truth: Reader, labels: Mapping[int, str], truth: Mapping[int, str]) -> NDArray[np.int64]:
    """Joint counts (truth code + 1, label code + 1), 0 for unknown; codes above 65535 are refused by numpy's memory."""
    read_labels = _raster_reader(src, src.nodata)
    size_t = max([255, *truth]) + 2
    size_l = max(labels) + 2
    counts = np.zeros(size_t * size_l, np.int64)
    for row in range(0, src.height, BLOCK):
        for col in range(0, src.width, BLOCK):
            window = Window(col, row, min(BLOCK, src.width - col), min(BLOCK, src.height - row))
            t = np.clip(read_truth(window) + 1, 0, size_t - 1)
            given = read_labels(window) + 1
            given = np.where(given < size_l, given, 0)
            counts += np.bincount((t * size_l + given).ravel(), minlength=len(counts))
    return counts.reshape(size_t, size_l)


def _result(
    counts: NDArray[np.int64], labels: Mapping[int, str], truth: Mapping[int, str], pairs: Mapping[str, str]
) -> EvaluationResult:
    order = [name for name in labels.values() if name in pairs.values()]
    name_of = {code: truth.get(code, str(code)) for code in range(counts.shape[0] - 1)}
    confusion = np.zeros((len(order), len(order) + 1), np.int64)
    nodata = int(counts[0].sum() + counts[1:, 0].sum())
    ignored = {"nodata": nodata} if nodata else {}
    for code, name in name_of.items():
        row = counts[code + 1, 1:]
        if name not in pairs:
            if row.sum():
                ignored[name] = int(row.sum())
            continue
        at = order.index(pairs[name])
        for label, count in enumerate(row):
            to = order.index(labels[label]) if labels.get(label) in order else len(order)
            confusion[at, to] += int(count)
    scores = {name: _class_score(confusion, n) for n, name in enumerate(order)}
    seen = [s.iou for s in scores.values() if s.iou is not None]
    total = int(confusion.sum())
    if not total:
        raise UsageError("no pixel has both a label and a truth class in common: nothing to compare")
    return EvaluationResult(
        miou=float(np.mean(seen)),
        accuracy=float(np.trace(confusion[:, :-1]) / total),
        classes=scores,
        confusion=confusion.tolist(),
        order=order,
        ignored=ignored,
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
