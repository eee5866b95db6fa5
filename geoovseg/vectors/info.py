"""What a file holds that geoovseg wrote, or anybody's like it: labels, confidence or polygons."""

from __future__ import annotations

import json
import os
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import PurePath
from typing import Any

import numpy as np
import pyarrow as pa
import pyogrio
import pyproj
import shapely
from pyarrow.parquet import ParquetFile
from pyogrio.errors import DataLayerError, DataSourceError, GeometryError
from pyproj.exceptions import ProjError
from rasterio._err import CPLE_BaseError
from rasterio.crs import CRS
from shapely.errors import ShapelyError

from geoovseg.errors import SceneError, UsageError, first_line, some
from geoovseg.files import check_plain
from geoovseg.labels.areas import HECTARE
from geoovseg.labels.info import Info, crs_name, raster_info
from geoovseg.network import public
from geoovseg.rasters.elsewhere import check_reachable
from geoovseg.rasters.ground import ellipsoid_of, wkt_of
from geoovseg.rasters.http import unopened
from geoovseg.rasters.open import opened, raster_env
from geoovseg.scene.shapes import pyogrio_env
from geoovseg.vectors.measures import measure
from geoovseg.vectors.targets import DRIVERS, WGS84

BATCH = 5000
"""Polygons read together."""
SUFFIXES = (*DRIVERS, ".json", ".shp")
"""Of files that are read as polygons first."""
CLOSE = 1e-3
"""Share by which stored areas may differ from measured ones: coordinates are rounded, in GeoJSON to a centimetre."""
READING = (DataSourceError, DataLayerError, GeometryError, ShapelyError, pa.ArrowException, ProjError, OSError)
"""What goes wrong in files of shapes."""
OURS = ("class_name", "class_id")
"""Columns of classes, the first that is there is taken."""


def info(file: str | os.PathLike[str], *, layer: str | None = None, field: str | None = None) -> Info:
    """What a raster of labels or confidence, or a file of polygons, holds: run record, grid, classes with their areas.

    Pixels are counted and polygons measured, a few blocks or polygons at a time, so that figures are right after edits;
    where a table in the file says something else, `differs` has both. `layer` is one of several in a file of polygons,
    by default `classes` or the first with shapes; `field` its column of classes, by default class_name or class_id.

    Raises SceneError for what cannot be read or holds something else, UsageError for a layer or column that is not
    there.
    """
    name = os.fspath(file)
    try:
        check_plain(name)
    except OSError as error:
        raise SceneError(f"cannot open {name}: {first_line(error)}") from error
    with raster_env(), pyogrio_env():
        if _suffix(name) in SUFFIXES or layer is not None or field is not None:
            return _of_polygons(name, layer, field)
        with ExitStack() as stack:
            try:
                src = stack.enter_context(opened(name, name))
            except SceneError as error:
                return _or_polygons(name, error)
            try:
                return raster_info(src, name)
            except CPLE_BaseError as error:
                raise SceneError(f"the georeferencing of {name} cannot be understood: {first_line(error)}") from error


def _suffix(name: str) -> str:
    return PurePath(name.partition("?")[0]).suffix.lower()


def _or_polygons(name: str, error: SceneError) -> Info:
    """What is no raster as polygons; where it is neither, the error is that of the raster."""
    try:
        return _of_polygons(name, None, None)
    except SceneError:
        raise error from None


@dataclass(frozen=True, kw_only=True)
class _Table:
    """A file of shapes: its coordinate system (rasterio CRS), its columns, and batches of those that are asked for."""

    crs: Any
    layer: str | None
    columns: tuple[str, ...]
    batches: Any
    """of a sequence of columns: pairs of record batches and their geometries"""


def _of_polygons(name: str, layer: str | None, field: str | None) -> Info:
    """Polygons, counted and measured by class."""
    check_reachable(name, pixels=False)
    try:
        table = _parquet(name) if _suffix(name) == ".parquet" else _by_gdal(name, layer)
        chosen = _field(name, table.columns, field)
        found = _Sums(table.crs, name)
        wanted = [c for c in dict.fromkeys((chosen, *OURS, "area_m2")) if c is not None and c in table.columns]
        for batch, shapes in table.batches(wanted):
            found.add(batch, shapes, chosen)
    except SceneError:
        raise
    except READING as error:
        raise SceneError(f"cannot read {name}: {unopened(first_line(error))}") from error
    return Info(
        file=public(name),
        kind="polygons",
        crs=wkt_of(table.crs),
        crs_name=crs_name(table.crs),
        run=None,
        layer=table.layer,
        columns=table.columns,
        classes=found.classes,
        hectares=found.hectares,
        differs=found.differs,
    )


def _field(name: str, columns: Sequence[str], field: str | None) -> str | None:
    """The column of classes; None where there is none of ours. Raises UsageError."""
    if field is not None and field not in columns:
        raise UsageError(f"--field {field}: {name} has the columns {some(columns, 20) or '(none)'}")
    return field or next((column for column in OURS if column in columns), None)


def _by_gdal(name: str, layer: str | None) -> _Table:
    """A layer of a file that GDAL reads. Raises UsageError for one that is not there."""
    layers = [text for text, shapes in pyogrio.list_layers(name) if shapes is not None]
    if not layers:
        raise SceneError(f"{name} holds no shapes")
    if layer is not None and layer not in layers:
        raise UsageError(f"--layer {layer}: {name} has {some(layers, 20)}")
    chosen = layer or ("classes" if "classes" in layers else layers[0])
    about = pyogrio.read_info(name, layer=chosen)

    def batches(columns: Sequence[str]) -> Iterator[tuple[Any, Any]]:
        given = {"layer": chosen, "columns": list(columns), "batch_size": BATCH, "use_pyarrow": True}
        with pyogrio.open_arrow(name, **given) as (meta, reader):
            for batch in reader:
                yield batch, batch[meta["geometry_name"] or "wkb_geometry"]

    crs = None if about["crs"] is None else CRS.from_user_input(about["crs"])
    return _Table(crs=crs, layer=chosen, columns=tuple(map(str, about["fields"])), batches=batches)


def _parquet(name: str) -> _Table:
    """A GeoParquet file. Raises SceneError for one that is none."""
    file = ParquetFile(name)
    try:
        geo = json.loads((file.metadata.metadata or {})[b"geo"])
        shapes, about = geo["primary_column"], geo["columns"][geo["primary_column"]]
        said = about.get("crs", "OGC:CRS84")  # what counts where nothing is said
        encoding = about["encoding"]
    except (ValueError, LookupError, TypeError, AttributeError, RecursionError) as error:
        raise SceneError(f"{name} holds no shapes: it has no metadata of GeoParquet") from error
    if encoding != "WKB":
        raise SceneError(f"{name} has shapes in the encoding {encoding}; only WKB is read")

    def batches(columns: Sequence[str]) -> Iterator[tuple[Any, Any]]:
        for batch in file.iter_batches(BATCH, columns=[*columns, shapes]):
            yield batch, batch[shapes]

    crs = None if said is None else CRS.from_user_input(pyproj.CRS.from_user_input(said).to_wkt())
    names = tuple(column for column in file.schema_arrow.names if column != shapes)
    return _Table(crs=crs, layer=None, columns=names, batches=batches)


class _Sums:
    """Polygons and their areas by class."""

    def __init__(self, crs: Any, name: str) -> None:
        self._name, self._ellipsoid = name, ellipsoid_of(crs)
        self._polygons: Counter[str] = Counter()
        self._codes: dict[str, int] = {}
        self._areas: Any = Counter()  # of fractions
        self._stored: Any = Counter()
        self._close = 10 * CLOSE if DRIVERS.get(_suffix(name)) in WGS84 else CLOSE

    def add(self, batch: Any, shapes: Any, field: str | None) -> None:
        """Count and measure a batch."""
        names = ["all"] * len(batch) if field is None else [_text(value) for value in batch[field].to_pylist()]
        self._polygons.update(names)
        if "class_id" in batch.schema.names:
            self._codes.update(dict(zip(names, batch["class_id"].to_pylist(), strict=True)))
        if self._ellipsoid is None:
            return
        with np.errstate(invalid="ignore", over="ignore"):  # of corners that are no numbers
            whole = shapely.from_wkb(shapes.to_numpy(zero_copy_only=False))
        parts, owners = shapely.get_parts(whole, return_index=True)
        flat = shapely.get_type_id(parts) == shapely.GeometryType.POLYGON
        areas = np.bincount(owners[flat], measure(parts[flat], self._ellipsoid)[0], len(whole))
        if not np.isfinite(areas).all():
            of = names[int(np.argmin(np.isfinite(areas)))]
            raise SceneError(f"a polygon of {of} in {self._name} has a corner that is nowhere; mend or delete it")
        stored = batch["area_m2"].to_pylist() if "area_m2" in batch.schema.names else [None] * len(names)
        for key, area, said in zip(names, areas.tolist(), stored, strict=True):
            self._areas[key] += area
            self._stored[key] += area if said is None else said

    @property
    def hectares(self) -> float | None:
        """Of all polygons, where there is an ellipsoid."""
        return None if self._ellipsoid is None else sum(self._areas.values()) / HECTARE

    @property
    def classes(self) -> dict[str, dict[str, Any]]:
        """Figures by class, in the order of codes."""
        total = sum(self._areas.values())
        return {
            key: {
                "code": self._codes.get(key),
                "polygons": self._polygons[key],
                "share": self._areas[key] / total if total else None,
                "hectares": None if self._ellipsoid is None else self._areas[key] / HECTARE,
            }
            for key in sorted(self._polygons, key=lambda key: (self._codes.get(key) or 0, key))
        }

    @property
    def differs(self) -> dict[str, dict[str, float]]:
        """Classes whose stored areas are others than those of their shapes."""
        return {
            key: {"stored": self._stored[key], "counted": area}
            for key, area in self._areas.items()
            if abs(self._stored[key] - area) > self._close * max(area, self._stored[key])
        }


def _text(value: object) -> str:
    """A class as text; whole numbers without a point, whatever type the file gives them."""
    return str(int(value)) if isinstance(value, float) and value.is_integer() else str(value)
