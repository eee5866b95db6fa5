"""From a label raster to one clean, styled coverage of polygons, at any size. Read this first.

Blocks are polygonised in parallel (stream.py, pieces.py), joined across their seams (seams.py), measured (measures.py)
and written as they are finished (write.py); what is held grows with the polygons that are still open.
"""

from __future__ import annotations

import json
import math
import os
import warnings
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from dataclasses import asdict, dataclass, field
from numbers import Real
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import shapely
from shapely.errors import ShapelyError

from geoovseg.errors import GeoOVSegWarning, OutputError, SceneError, UsageError, first_line
from geoovseg.files import as_path, behind_link, bench
from geoovseg.labels.names import is_one_of, writing
from geoovseg.labels.read import check_confidence
from geoovseg.rasters.open import opened, raster_env
from geoovseg.usage import Usage, peak_rss_mb
from geoovseg.vectors.measures import measure
from geoovseg.vectors.seams import Polygons, Seams
from geoovseg.vectors.small import without_small
from geoovseg.vectors.source import Source, inspect, split
from geoovseg.vectors.stream import blocks, joined_rows
from geoovseg.vectors.targets import LAYER, check_target
from geoovseg.vectors.write import COLUMNS, check_crs, write_polygons

BLOCK = 2048
"""Side of the blocks that are polygonised on their own, in pixels."""
BATCH = 5000
"""Polygons written together."""
MANY, CELL = 100_000, 2000
"""Corners from which a polygon is slow to draw, and the pixels of a split grid that helps."""


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
    invalid: int = 0
    """polygons that are not valid: every one that is written is checked"""
    given_away: int = 0
    """small regions that went to neighbours"""
    unnamed: tuple[int, ...] = ()
    """codes whose names neither the raster nor the caller said"""
    hint: str | None = None
    """what would make the polygons easier to use"""
    seconds: dict[str, float] = field(default_factory=dict)
    peak_rss_mb: float = 0.0

    def to_json(self) -> str:
        """One line of JSON."""
        return json.dumps(asdict(self), ensure_ascii=False)


def vectorize(
    labels: str | os.PathLike[str],
    output: str | os.PathLike[str],
    *,
    classes: Sequence[str] | str | None = None,
    names: dict[int, str] | None = None,
    confidence: str | None = None,
    min_area: float = 0.0,
    simplify: float = 0.0,
    split_grid: float | None = None,
    workers: int = 1,
    overwrite: bool = False,
    block: int = BLOCK,
) -> VectorResult:
    """Make polygons of a label raster: a coverage without gaps and overlaps, one polygon a connected region.

    Args:
        labels: a raster of class codes, ours or another.
        output: `.gpkg`, `.fgb`, `.parquet` (GeoParquet), `.geojson` or `.geojsonl` (always WGS 84). It opens in QGIS
            with its colours, which all but a GeoPackage have in a `.qml` file beside them.
        classes: names of the classes to keep, which need not have a pixel, each alone or several in a text with commas
            between; by default all but code 0.
        names: names by code, where the raster does not say.
        confidence: a raster of confidence on the same grid, made by `segment` or any band of 0..1; polygons get its
            mean.
        min_area: square metres; smaller regions, of whatever class, are given to the neighbour with the longest
            border, the smallest first, before classes are chosen and before `simplify`, which may make a polygon a
            little smaller again.
        simplify: metres by which corners may move; 0 keeps the pixels' own outlines. Shared borders stay shared,
            borders with what has no polygon stay as they are.
        split_grid: metres; polygons are cut along a grid of this width.
        workers: processes; 1 is this one alone, so that a plain call starts none, and 0 is one a core.
        overwrite: replace an existing file.
        block: pixels on a side of what is polygonised at a time; changes no polygon but, with `simplify`, near seams.

    Returns:
        The file, its polygons, areas by class.

    Raises:
        GeoOVSegError: one of its leaves, for everything a caller can cause.
    """
    watch, target = Usage(), as_path(output, "the output")
    with raster_env(), ExitStack() as stack:
        source = _opened(labels, target, classes, names, [confidence], overwrite)
        check_crs(target, source.crs)
        _check_numbers(simplify=simplify, min_area=min_area)
        _check_counts(workers=(workers, 0), block=(block, 1))
        _warn_of_units(source)
        cell, side = (None, block) if split_grid is None else split(source, split_grid, block)
        totals = _Totals(source)
        if min_area:
            with writing(target):
                scratch = stack.enter_context(bench(behind_link(target))) / "labels.tif"
            with watch.stage("small"):
                source, totals.given = stack.enter_context(without_small(source, min_area, scratch, workers))
        with watch.stage("polygons"), blocks(source.recipe(confidence, simplify), side, workers) as rows:
            finished = joined_rows(rows, Seams(cell=cell))
            polygons = totals.batches(finished, confidence)
            write_polygons(target, polygons, crs=source.crs, legend=source.legend, overwrite=overwrite)
    return totals.result(target, watch)


def _opened(
    labels: str | os.PathLike[str],
    target: Path,
    classes: Sequence[str] | str | None,
    names: dict[int, str] | None,
    others: Sequence[str | None],
    overwrite: bool,
) -> Source:
    """The labels, looked through, and the output found free. Raises SceneError, UsageError, OutputError."""
    check_target(target, overwrite)
    with opened(os.fspath(labels), f"{os.fspath(labels)} as a raster") as src:
        if is_one_of(target, (*src.files, *filter(None, others))):
            raise OutputError(f"the output {target} is read from; choose another name")
        for other in filter(None, others):
            _check_confidence(src, other)
        return inspect(src, os.fspath(labels), classes, names)


def _check_confidence(src: Any, confidence: str) -> None:
    """Refuse a raster of another grid, or that is no confidence. Raises SceneError, UsageError."""
    with opened(confidence, f"{confidence} as a raster") as other:
        if (other.shape, other.transform) != (src.shape, src.transform):
            raise UsageError(f"{confidence} lies on another grid than {src.name}; their pixels must be the same")
        check_confidence(other, confidence)


def _check_numbers(**metres: float) -> None:
    """Refuse settings that mean nothing. Raises UsageError."""
    for name, value in metres.items():
        if not (isinstance(value, Real) and value >= 0 and math.isfinite(value)):
            unit = "square metres" if name == "min_area" else "metres"
            raise UsageError(f"--{name.replace('_', '-')} {value} must be a number of {unit}, 0 or more")


def _check_counts(**counts: tuple[int, int]) -> None:
    """Refuse numbers of things that are not whole, or too few. Raises UsageError."""
    for name, (value, least) in counts.items():
        if not isinstance(value, int) or isinstance(value, bool) or value < least:
            raise UsageError(f"--{name} {value} must be a whole number of {least} or more")


def _warn_of_units(source: Source) -> None:
    """Say, where there are no metres on the ground, which numbers are in other units or missing."""
    if source.ellipsoid is None:
        lack = "no coordinate system" if source.crs is None else "a coordinate system without an ellipsoid"
        units = "--min-area, --simplify and --split-grid count in the raster's own units"
        message = f"{source.path} has {lack}: area_m2 and perimeter_m stay empty, and {units}"
        warnings.warn(message, GeoOVSegWarning, 3)


class _Totals:
    """Counts polygons while they pass."""

    def __init__(self, source: Source) -> None:
        self._source = source
        self._names = {entry.code: entry.name for entry in source.legend}
        self._areas: dict[str, float] = dict.fromkeys(self._names.values(), 0.0)
        self._polygons = self._largest = self._invalid = 0
        self.given = 0

    def batches(self, polygons: Iterator[Polygons], confidence: str | None) -> Iterator[pa.RecordBatch]:
        """Measured polygons as records, in the raster's coordinates."""
        for found in polygons:
            for first in range(0, len(found.codes), BATCH):
                rows = slice(first, first + BATCH)
                yield self._batch(found.codes[rows], found.geometries[rows], found.confidence[rows], confidence)

    def _batch(self, codes: Any, corners: Any, sure: Any, confidence: str | None) -> pa.RecordBatch:
        t = self._source.transform
        shape = np.array([[t.a, t.d], [t.b, t.e]])
        try:
            geometries = shapely.transform(corners, lambda xy: xy @ shape + (t.c, t.f))
            geometries = shapely.orient_polygons(geometries)
            self._invalid += int((~shapely.is_valid(geometries)).sum())
        except ShapelyError as error:  # pixels so small, or so far away, that corners fall together
            message = f"the place of {self._source.path} makes no polygons ({first_line(error)}); check its transform"
            raise SceneError(message) from error
        areas: Any = np.full(len(codes), np.nan)
        lengths: Any = areas
        if self._source.ellipsoid is not None:
            areas, lengths = measure(geometries, self._source.ellipsoid)
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

    def result(self, target: Path, watch: Usage) -> VectorResult:
        """What there is to say; warns of polygons that are not valid, which there should never be."""
        if self._invalid:
            message = f"{self._invalid} of {self._polygons} polygons in {target} are not valid; repair them in your GIS"
            warnings.warn(message, GeoOVSegWarning, 3)
        areas = {name: None if math.isnan(area) else round(area, 2) for name, area in self._areas.items()}
        return VectorResult(
            vectors=str(target),
            layer=LAYER,
            polygons=self._polygons,
            area_m2=areas,
            largest_vertices=self._largest,
            invalid=self._invalid,
            given_away=self.given,
            unnamed=self._source.unnamed,
            hint=self._hint(),
            seconds=watch.seconds(),
            peak_rss_mb=peak_rss_mb(),
        )

    def _hint(self) -> str | None:
        """What to do about a polygon that is too detailed to draw."""
        if self._largest < MANY:
            return None
        metres = float(f"{CELL * max(self._source.pixel):.1g}")
        return f"the largest polygon has {self._largest} corners; --split-grid {metres:g} would cut it for faster maps"
