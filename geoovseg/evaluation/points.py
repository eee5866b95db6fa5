"""Points of a random sample with the truth that somebody saw there, against the labels they were drawn from."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Mapping
from dataclasses import replace
from functools import partial
from typing import Any, NamedTuple

import numpy as np
from rasterio.windows import Window

from geoovseg.errors import UsageError, some
from geoovseg.evaluation.areas import AreaResult, estimate
from geoovseg.labels.areas import HECTARE
from geoovseg.labels.contents import classes_of
from geoovseg.labels.read import Reader, open_labels, raster_reader
from geoovseg.rasters.ground import areas_of, ellipsoid_of
from geoovseg.rasters.open import raster_env
from geoovseg.scene.shapes import Choice, brought_to, read_shapes

TRUTH, DRAWN = "truth", "class_name"
"""Columns of a sample: what is there, filled in by a person, and what the labels say there."""


class Mapped(NamedTuple):
    """How much of each class labels have."""

    areas: Mapping[str, float]
    unit: str


class Points(NamedTuple):
    """What the labels and a person say of points, pairwise, and how many have nothing to say."""

    pairs: Counter[tuple[str, str]]
    unlabelled: int
    outside: int


def evaluate_points(
    labels: str | os.PathLike[str],
    points: str | os.PathLike[str],
    *,
    field: str | None = None,
    layer: str | None = None,
) -> AreaResult:
    """Areas and accuracies of labels from a random sample of points, with 95 % intervals.

    Args:
        labels: the label raster that the sample was drawn from.
        points: a vector file of points, as `geoovseg sample` draws them, with their truth filled in.
        field: the column with the true class of each point, by name; default `truth`. Empty ones are left out.
        layer: the layer of the points; default the first.

    Raises:
        SceneError: a file cannot be read. UsageError: the points are none, or not of these labels, or too few.
    """
    with raster_env(), open_labels(labels) as src:
        read, where = raster_reader(src), os.fspath(points)
        mapped, names = _mapped(src)
        if not names:
            raise UsageError(f"{os.fspath(labels)} has no pixel with data")
        table = _on_grid(read_shapes(where, Choice(layer)), src, where)
        found = _points(table, _column(table, field, where), read, src, names, os.fspath(labels))
    order = [*mapped.areas, *sorted({true for _, true in found.pairs} - {*mapped.areas})]
    counts = np.array([[found.pairs[row, col] for col in order] for row in order], np.int64)
    areas = [mapped.areas.get(name, 0.0) for name in order]
    result = estimate(order, counts, areas, unit=mapped.unit)
    remarks = _remarks(result, mapped, len(table) - len(set(table.geometry.to_wkb())))
    return replace(result, unlabelled=found.unlabelled, outside=found.outside, remarks=remarks)


def _remarks(result: AreaResult, mapped: Mapped, twice: int) -> tuple[str, ...]:
    """What a person should know."""
    said, strange = [], [name for name in result.order if name not in mapped.areas]
    if twice:
        said.append(f"{twice} points lie where others do: if they are the same ones, intervals are too narrow")
    if strange:
        said.append(
            f"the labels have no class {some(strange)}, which the points know; its area is estimated all the same"
        )
    sure = [name for k, name in enumerate(result.order) if mapped.areas.get(name) and _is_sure(result.confusion[k])]
    if sure:
        said.append(f"all points in {some(sure)} agree, so that nothing of it widens an interval: more points may")
    return tuple(said)


def _is_sure(points: list[int]) -> bool:
    return sum(count > 0 for count in points) == 1


def _mapped(src: Any) -> tuple[Mapped, dict[int, str]]:
    """Areas of the classes of open labels, and their names by code."""
    ellipsoid = ellipsoid_of(src.crs)
    legend, counts = classes_of(src, None if ellipsoid is None else partial(areas_of, ellipsoid, src.transform))
    names = {entry.code: entry.name for entry in legend}
    areas: dict[str, float] = {}
    for code, name in names.items():
        own = counts.pixels[code] if ellipsoid is None else counts.area_m2[code] / HECTARE
        areas[name] = areas.get(name, 0.0) + own
    return Mapped(areas, "pixels" if ellipsoid is None else "ha"), names


def _column(table: Any, field: str | None, where: str) -> str:
    """The column of truth. Raises UsageError."""
    there = [name for name in table.columns if name != table.geometry.name]
    wanted = TRUTH if field is None else field
    if wanted not in there:
        raise UsageError(f"{where} has no column {wanted} with the true class of each point; it has {some(there, 20)}")
    return wanted


def _on_grid(table: Any, src: Any, where: str) -> Any:
    """Points in the coordinates of the labels. Raises UsageError."""
    wrong = sorted({str(kind) for kind in table.geom_type.dropna()} - {"Point"})
    if wrong or not len(table):
        raise UsageError(f"{where} must hold points, as `geoovseg sample` draws them; it has {some(wrong) or 'none'}")
    if src.crs is None or table.crs is None:
        return table
    return brought_to(table, src.crs, where)


def _points(table: Any, field: str, read: Reader, src: Any, names: Mapping[int, str], labels: str) -> Points:
    """Pairs of mapped and true class. Raises UsageError where the labels are not those that were drawn from."""
    called = _Names(names)
    pairs: Counter[tuple[str, str]] = Counter()
    unlabelled = outside = 0
    drawn = table[DRAWN] if DRAWN in table.columns and field != DRAWN else [None] * len(table)
    said = table[field].astype(object).where(table[field].notna(), None)
    for number, (point, true, was) in enumerate(zip(table.geometry, said, drawn, strict=True), start=1):
        code = _code(point, read, src)
        name = names.get(code, f"class {code}") if code >= 0 else "no data"
        if isinstance(was, str) and was != name:
            raise UsageError(
                f"point {number} was drawn in {was}, and {labels} has {name} there: areas need the labels that the "
                "sample was drawn from"
            )
        text = called.of(true)
        if code < 0:
            outside += 1
        elif text:
            pairs[name, text] += 1
        else:
            unlabelled += 1
    return Points(pairs, unlabelled, outside)


class _Names:
    """What a person may write for a class: its name, in any case where that is clear, or its code."""

    def __init__(self, names: Mapping[int, str]) -> None:
        self._by_code, self._exact = names, set(names.values())
        folds = Counter(name.casefold() for name in self._exact)
        self._folded = {name.casefold(): name for name in self._exact if folds[name.casefold()] == 1}

    def of(self, said: Any) -> str:
        """The class that is meant; another name as it is, nothing for nothing."""
        if isinstance(said, int | float | np.number) and float(said).is_integer():
            return self._by_code.get(int(said), str(int(said)))
        text = "" if said is None else str(said).strip()
        return text if text in self._exact else self._folded.get(text.casefold(), text)


def _code(point: Any, read: Reader, src: Any) -> int:
    """The code at a point, -1 where there is none. Raises SceneError for what cannot be read."""
    if point is None or point.is_empty:
        return -1
    col, row = (int(np.floor(v)) for v in ~src.transform @ (point.x, point.y))
    if not (0 <= row < src.height and 0 <= col < src.width):
        return -1
    return int(read(Window(col, row, 1, 1))[0, 0])
