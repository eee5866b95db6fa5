"""A random sample of a map's pixels, for somebody to look at: what `evaluate --points` estimates areas from."""

from __future__ import annotations

import json
import os
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import geopandas
import numpy as np
import shapely
from numpy.typing import NDArray
from rasterio.windows import Window

from geoovseg.errors import OutputError, SceneError, UsageError, did_you_mean, some
from geoovseg.evaluation.areas import allocation
from geoovseg.evaluation.points import DRAWN, TRUTH
from geoovseg.files import as_path
from geoovseg.labels.contents import chunks, classes_of, read_codes
from geoovseg.labels.names import is_one_of
from geoovseg.labels.read import open_labels
from geoovseg.labels.styles import LegendEntry, sample_qml
from geoovseg.rasters.ground import wkt_of
from geoovseg.rasters.open import raster_env
from geoovseg.settings.choice import one_of
from geoovseg.vectors.tables import table_driver, write_table
from geoovseg.vectors.targets import check_target

WAYS = ("neyman", "proportional", "equal", "none")
"""How points are shared among classes; none is a simple random sample, whatever the classes."""
LAYER = "sample"
EXPECTED = 0.8
"""User's accuracy of a class of which nothing is expected."""
LEAST = 50
"""Points of each class, if there are enough of them (Olofsson et al. 2014, sec. 5.1.2: 50 to 100 for rare classes)."""
Picks = Mapping[int, NDArray[np.int64]]
"""By code: which of its pixels are drawn, by their rank in the order of reading, sorted."""


@dataclass(frozen=True, kw_only=True)
class SampleResult:
    """What was drawn; `to_json` is what `geoovseg sample --json` prints."""

    sample: str
    points: dict[str, int]
    """by class"""
    pixels: dict[str, int]
    """of the labels, by class"""
    seed: int

    def to_json(self) -> str:
        """One line of JSON."""
        return json.dumps(asdict(self), ensure_ascii=False)


def sample(
    labels: str | os.PathLike[str],
    output: str | os.PathLike[str],
    *,
    n: int,
    by: str = "neyman",
    expected: Mapping[str, float] | None = None,
    least: int = LEAST,
    seed: int = 0,
    overwrite: bool = False,
) -> SampleResult:
    """Draw pixels of a label raster at random, class by class, as points with an empty column `truth` to fill in.

    Args:
        labels: a label raster; pixels without data are never drawn, code 0 is a class as others.
        output: a vector file by its suffix; a GeoPackage opens in QGIS with colours and a list of classes to choose
            the truth from.
        n: how many points.
        by: `neyman` shares them by area times how much being right varies, `proportional` by area, `equal` alike;
            `none` draws from all pixels alike.
        expected: user's accuracies (0..1) by class that `neyman` goes by; 0.8 where nothing is said.
        least: points of each class at least, where n allows it.
        seed: the same seed draws the same points of the same labels.
        overwrite: replace an existing file.

    Raises:
        SceneError: the labels cannot be read. UsageError, OutputError: choices that cannot be, files in the way.
    """
    target = as_path(output, "the output")
    _check(target, labels, n, by, least, seed, overwrite)
    with raster_env(), open_labels(labels) as src:
        legend, _ = classes_of(src)
        rng = np.random.default_rng(seed)
        found = _drawn(src, _picks(legend, n, by, _expected(expected or {}, legend), least, rng))
        table = _table(src, found, legend, rng)
    write_table(target, table, LAYER, sample_qml(legend, TRUTH), overwrite=overwrite)
    drawn = Counter(table[DRAWN])
    return SampleResult(
        sample=os.fspath(output),
        points={entry.name: drawn[entry.name] for entry in legend},
        pixels={entry.name: entry.pixels for entry in legend},
        seed=seed,
    )


def _check(
    target: Path, labels: str | os.PathLike[str], n: int, by: str, least: int, seed: int, overwrite: bool
) -> None:
    """Refuse what cannot be drawn or written. Raises UsageError, OutputError."""
    one_of(*WAYS)("--by", by)
    for option, value, lowest in (("-n", n, 1), ("--least", least, 0), ("--seed", seed, 0)):
        if not isinstance(value, int) or value < lowest:
            raise UsageError(f"{option} {value} must be a whole number of at least {lowest}")
    if table_driver(target) == "CSV":
        raise UsageError(f"{target}: points need a file of shapes, such as .gpkg")
    check_target(target, overwrite)
    if is_one_of(target, [os.fspath(labels)]):
        raise OutputError(f"{target} is what is sampled; choose another name")


def _expected(given: Mapping[str, float], legend: Sequence[LegendEntry]) -> dict[str, float]:
    """An accuracy for each class. Raises UsageError."""
    names = [entry.name for entry in legend]
    for name, value in given.items():
        if name not in names:
            hint = did_you_mean(name, names)
            raise UsageError(f"--expect {name}: the labels have no such class{hint}; they have {some(names)}")
        if not (isinstance(value, int | float) and 0 <= value <= 1):
            raise UsageError(f"--expect {name}={value}: an accuracy is a share of 0 to 1")
    return {name: float(given.get(name, EXPECTED)) for name in names}


def _picks(
    legend: Sequence[LegendEntry], n: int, by: str, expected: Mapping[str, float], least: int, rng: np.random.Generator
) -> Picks:
    """Which pixels of each class are drawn. Raises UsageError."""
    if not legend:
        raise UsageError("the labels have no pixel with data: there is nothing to draw from")
    pixels = {entry.code: entry.pixels for entry in legend}
    if by == "none":
        ends, total = np.cumsum(list(pixels.values())), sum(pixels.values())
        of = np.searchsorted(ends, rng.choice(total, min(n, total), replace=False), side="right")
        sizes = dict(zip(pixels, np.bincount(of, minlength=len(pixels)).tolist(), strict=True))
    else:
        sizes = allocation(pixels, n, by, {entry.code: expected[entry.name] for entry in legend}, least)
    return {code: np.sort(rng.choice(pixels[code], size, replace=False)) for code, size in sizes.items()}


def _drawn(src: Any, picks: Picks) -> Iterator[tuple[int, NDArray[np.int64], NDArray[np.int64]]]:
    """Codes with rows and columns of what is drawn, as it is found. Raises SceneError."""
    seen: Counter[int] = Counter()
    for window in chunks(src):
        codes = np.ma.filled(read_codes(src, window).astype(np.int64), -1).ravel()
        for code in np.unique(codes).tolist():
            if code in picks:
                places = np.flatnonzero(codes == code)
                yield _in_window(window, places, picks[code] - seen[code], code)
                seen[code] += len(places)


def _in_window(
    window: Window, places: NDArray[np.int64], ranks: NDArray[np.int64], code: int
) -> tuple[int, NDArray[np.int64], NDArray[np.int64]]:
    chosen = places[ranks[(ranks >= 0) & (ranks < len(places))]]
    return code, window.row_off + chosen // window.width, window.col_off + chosen % window.width


def _table(src: Any, found: Any, legend: Sequence[LegendEntry], rng: np.random.Generator) -> Any:
    """Points in a random order, so that whoever stops early has a sample all the same. Raises SceneError."""
    drawn = list(found)
    codes = np.concatenate([np.full(len(rows), code) for code, rows, _ in drawn])
    rows, cols = (np.concatenate([each[k] for each in drawn]) for k in (1, 2))
    x, y = src.transform @ (cols + 0.5, rows + 0.5)
    if not (np.isfinite(x).all() and np.isfinite(y).all()):
        raise SceneError(f"{src.name} has a place that is no number")
    order = rng.permutation(len(codes))
    names = {entry.code: entry.name for entry in legend}
    columns = {
        "id": np.arange(1, len(codes) + 1),
        "class_id": codes[order],
        DRAWN: [names[code] for code in codes[order].tolist()],
        TRUTH: np.full(len(codes), "", object),
        "note": np.full(len(codes), "", object),
    }
    return geopandas.GeoDataFrame(columns, geometry=shapely.points(x[order], y[order]), crs=wkt_of(src.crs))
