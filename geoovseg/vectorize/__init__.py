"""From a label raster to one clean, styled coverage of polygons, at any size. Read this first.

Blocks are polygonised in parallel (stream.py, pieces.py), joined across their seams (seams.py), measured (measures.py)
and written as they are finished (write.py); what is held grows with the polygons that are still open.
"""

from __future__ import annotations

import json
import math
import os
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import shapely

from geoovseg.errors import OutputError, SceneError, UsageError
from geoovseg.outputs import is_one_of
from geoovseg.record import Stopwatch, peak_rss_mb
from geoovseg.styles import LegendEntry
from geoovseg.truth import category_names, open_labels
from geoovseg.vectorize.measures import Ellipsoid, ellipsoid_of
from geoovseg.vectorize.pieces import Task
from geoovseg.vectorize.seams import Polygons, Seams
from geoovseg.vectorize.stream import blocks, joined_rows
from geoovseg.vectorize.write import COLUMNS, LAYER, driver_of, write_polygons

BLOCK = 2048
"""Side of the blocks that are polygonised on their own, in pixels."""
BATCH = 5000
"""Polygons written together."""
COLOURS = ("#c0392b", "#7f8c8d", "#2e86de", "#1e6b2f", "#9acd5a", "#f1c40f", "#b5835a", "#8e44ad", "#16a085", "#e67e22")
"""For rasters without a palette."""


@dataclass(frozen=True, kw_only=True)
class VectorResult:
    """What was written; `to_json` is what `geoovseg vectorize --json` prints."""

    vectors: str
    layer: str
    polygons: int
    area_m2: dict[str, float | None]
    """by class name; none where the raster lies on no ellipsoid"""
    largest_vertices: int
    """corners of the most detailed polygon"""
    seconds: dict[str, float] = field(default_factory=dict)
    peak_rss_mb: float = 0.0

    def to_json(self) -> str:
        """One line of JSON."""
        return json.dumps(asdict(self), ensure_ascii=False)


@dataclass(frozen=True, kw_only=True)
class Source:
    """An open label raster: its grid, and the classes that become polygons."""

    path: str
    shape: tuple[int, int]
    transform: Any
    crs: Any
    legend: tuple[LegendEntry, ...]
    ellipsoid: Ellipsoid | None

    def task(self, confidence: str | None, tolerance: float) -> Task:
        """What the blocks are made of; a tolerance in metres."""
        return Task(
            labels=self.path,
            confidence=confidence,
            codes=tuple(entry.code for entry in self.legend),
            tolerance=tolerance,
            pixel=self.pixel,
        )

    @property
    def pixel(self) -> tuple[float, float]:
        """Width and height of a pixel in the middle, in metres if the raster lies on an ellipsoid."""
        t, (height, width) = self.transform, self.shape
        x, y = t * (width / 2, height / 2)
        if self.ellipsoid is None:
            return math.hypot(t.a, t.d), math.hypot(t.b, t.e)
        ends = [t * (width / 2 + 1, height / 2), t * (width / 2, height / 2 + 1)]
        return tuple(self.ellipsoid.distance((x, y), end) for end in ends)  # type: ignore[return-value]


def vectorize(
    labels: str | os.PathLike[str],
    output: str | os.PathLike[str],
    *,
    classes: Sequence[str] | None = None,
    names: dict[int, str] | None = None,
    confidence: str | None = None,
    simplify: float = 0.0,
    split_grid: float | None = None,
    workers: int = 0,
    overwrite: bool = False,
    block: int = BLOCK,
) -> VectorResult:
    """Make polygons of a label raster: a coverage without gaps and overlaps, one polygon a connected region.

    Args:
        labels: a raster of class codes, ours or another.
        output: `.gpkg` (styled for QGIS), `.fgb`, or `.geojsonl`.
        classes: names of the classes to keep; by default all but code 0.
        names: names by code, where the raster does not say.
        confidence: a raster of confidence on the same grid; polygons get its mean.
        simplify: metres by which corners may move; 0 keeps the pixels' own outlines. Shared borders stay shared,
            borders with what has no polygon stay as they are.
        split_grid: metres; polygons are cut along a grid of this width.
        workers: processes; 0 for one a core.
        overwrite: replace an existing file.
        block: pixels on a side of what is polygonised at a time; changes no polygon but, with `simplify`, near seams.

    Returns:
        The file, its polygons, areas by class.

    Raises:
        GeoOVSegError: one of its leaves, for everything a caller can cause.
    """
    watch, target = Stopwatch(), Path(output)
    with open_labels(labels) as src:
        source = _inspect(src, os.fspath(labels), classes, names)
        files = src.files
    _check(target, (*files, *filter(None, [confidence])), overwrite, simplify)
    cell, side = (None, block) if split_grid is None else _split(source, split_grid, block)
    totals = _Totals(source)
    with watch.stage("polygons"), blocks(source.task(confidence, simplify), source.shape, side, workers) as rows:
        finished = joined_rows(rows, Seams(cell=cell))
        write_polygons(target, totals.batches(finished, confidence), crs=source.crs, legend=source.legend)
    return totals.result(target, watch)


def _check(target: Path, sources: Sequence[str], overwrite: bool, simplify: float) -> None:
    """Refuse outputs that would destroy something, and settings that mean nothing."""
    if is_one_of(target, sources):
        raise OutputError(f"the output {target} is read from; choose another name")
    check_target(target, overwrite)
    if not (simplify >= 0 and math.isfinite(simplify)):
        raise UsageError(f"--simplify {simplify} must be a number of metres, 0 or more")


def check_target(target: Path, overwrite: bool) -> None:
    """Refuse a file for polygons that cannot be written. Raises UsageError, OutputError."""
    driver_of(target)
    if target.exists() and not overwrite:
        raise OutputError(f"{target} exists; use --overwrite to replace it")
    if not target.parent.is_dir():
        raise OutputError(f"the folder {target.parent} does not exist; create it or choose another name")


def _inspect(src: Any, path: str, classes: Sequence[str] | None, names: dict[int, str] | None) -> Source:
    """The classes of an open raster and its grid. Raises SceneError, UsageError."""
    if not src.count or not np.issubdtype(np.dtype(src.dtypes[0]), np.integer):
        raise SceneError(f"{path} has {src.dtypes[0] if src.count else 'no'} pixels; labels are whole numbers")
    known = {**category_names(src), **(names or {})}
    legend = _legend(src, known)
    if classes is not None:
        unknown = [name for name in classes if name not in {entry.name for entry in legend}]
        if unknown:
            there = ", ".join(entry.name for entry in legend)
            raise UsageError(f"{path} has no class {unknown[0]!r}; it has {there}")
        legend = [entry for entry in legend if entry.name in classes]
    else:
        legend = [entry for entry in legend if entry.code != 0]
    return Source(
        path=path,
        shape=(src.height, src.width),
        transform=src.transform,
        crs=src.crs,
        legend=tuple(legend),
        ellipsoid=ellipsoid_of(src.crs),
    )


def _legend(src: Any, known: dict[int, str]) -> list[LegendEntry]:
    """Names and colours of the codes a raster has, but nodata."""
    counts: Counter[int] = Counter()
    for _, window in src.block_windows(1):
        codes, pixels = np.unique(src.read(1, window=window), return_counts=True)
        counts.update(dict(zip(codes.tolist(), pixels.tolist(), strict=True)))
    palette = src.colormap(1) if src.colorinterp[0].name == "palette" else {}
    found = []
    for number, code in enumerate(sorted(c for c in counts if c != src.nodata)):
        rgb = palette.get(code)
        colour = "#{:02x}{:02x}{:02x}".format(*rgb[:3]) if rgb else COLOURS[number % len(COLOURS)]
        found.append(LegendEntry(code, known.get(code, f"class {code}"), colour, counts[code]))
    return found


def _split(source: Source, metres: float, block: int) -> tuple[tuple[int, int], int]:
    """A split grid in pixels, and the side of blocks whose seams include its lines.

    Its cells may be a few pixels off, so that blocks fit. Raises UsageError.
    """
    width, height = source.pixel
    if not metres >= max(width, height) or not math.isfinite(metres):
        raise UsageError(f"--split-grid {metres:g} is less than a pixel, or no number of metres")
    if round(metres / width) != round(metres / height):
        raise UsageError("--split-grid needs square pixels")
    blocks_a_cell = -(-round(metres / width) // block)
    side = round(metres / width / blocks_a_cell)
    return (side * blocks_a_cell, side * blocks_a_cell), side


class _Totals:
    """Counts polygons while they pass."""

    def __init__(self, source: Source) -> None:
        self._source = source
        self._names = {entry.code: entry.name for entry in source.legend}
        self._areas: dict[str, float] = dict.fromkeys(self._names.values(), 0.0)
        self._polygons = self._largest = 0

    def batches(self, polygons: Iterator[Polygons], confidence: str | None) -> Iterator[pa.RecordBatch]:
        """Measured polygons as records, in the raster's coordinates."""
        for found in polygons:
            for first in range(0, len(found.codes), BATCH):
                rows = slice(first, first + BATCH)
                yield self._batch(found.codes[rows], found.geometries[rows], found.confidence[rows], confidence)

    def _batch(self, codes: Any, corners: Any, sure: Any, confidence: str | None) -> pa.RecordBatch:
        t = self._source.transform
        shape = np.array([[t.a, t.d], [t.b, t.e]])
        geometries = shapely.transform(corners, lambda xy: xy @ shape + (t.c, t.f))
        geometries = shapely.orient_polygons(geometries)
        areas: Any = np.full(len(codes), np.nan)
        lengths: Any = areas
        if self._source.ellipsoid is not None:
            areas, lengths = self._source.ellipsoid.measure(geometries)
        names = [self._names[code] for code in codes.tolist()]
        for name, area in zip(names, areas.tolist(), strict=True):
            self._areas[name] += area
        self._polygons += len(codes)
        self._largest = max(self._largest, int(shapely.get_num_coordinates(geometries).max(initial=0)))
        columns = [
            pa.array(codes.astype(np.int32)),
            pa.array(names, pa.string()),
            pa.array(areas, from_pandas=True),
            pa.array(lengths, from_pandas=True),
            pa.array(np.full(len(codes), np.nan) if confidence is None else sure, pa.float32(), from_pandas=True),
            pa.array(shapely.to_wkb(geometries), pa.binary()),
        ]
        return pa.record_batch(columns, schema=COLUMNS)

    def result(self, target: Path, watch: Stopwatch) -> VectorResult:
        """What there is to say."""
        areas = {name: None if math.isnan(area) else round(area, 2) for name, area in self._areas.items()}
        return VectorResult(
            vectors=str(target),
            layer=LAYER,
            polygons=self._polygons,
            area_m2=areas,
            largest_vertices=self._largest,
            seconds=watch.seconds(),
            peak_rss_mb=peak_rss_mb(),
        )
