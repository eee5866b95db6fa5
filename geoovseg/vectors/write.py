"""Polygons to a file of vectors: batch by batch, in one session, under its name only when it is complete."""

from __future__ import annotations

import json
import math
import os
import sqlite3
import warnings
from collections.abc import Iterable, Iterator, Sequence
from contextlib import closing, nullcontext
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyogrio
import pyproj
import shapely
from pyarrow.parquet import ParquetWriter
from pyogrio.errors import CRSError, DataLayerError, DataSourceError, FeatureError, GeometryError
from pyproj.exceptions import ProjError

from geoovseg.errors import GeoOVSegWarning, OutputError, UsageError, first_line, hushed
from geoovseg.files import LARGEST_SIDE, RASTERS, behind_link, bench, to_disk, write_whole
from geoovseg.labels.names import writing
from geoovseg.labels.styles import LegendEntry, vector_qml
from geoovseg.rasters.ground import wkt_of
from geoovseg.vectors.complete import check_complete
from geoovseg.vectors.targets import DRIVERS, LAYER, WGS84, driver_of

_OUTWARD = "counterclockwise"
"""Way round of exterior rings."""
COLUMNS = pa.schema(
    [
        ("class_id", pa.int32()),
        ("class_name", pa.string()),
        ("area_m2", pa.float64()),
        ("perimeter_m", pa.float64()),
        ("confidence", pa.float32()),
        ("geom", pa.binary()),
    ]
)


def check_crs(path: Path, crs: Any) -> None:
    """Refuse a format that cannot hold a coordinate system (rasterio CRS or none). Raises UsageError."""
    if driver_of(path) not in WGS84:
        return
    if crs is None:
        raise UsageError(f"{path} would be WGS 84, but the labels have no coordinate system; choose .gpkg")
    try:
        pyproj.Transformer.from_crs(crs, "EPSG:4326")
    except ProjError as error:
        reason = f"{path} would be WGS 84, to which the labels' coordinate system does not lead"
        raise UsageError(f"{reason} ({first_line(error)}); choose .gpkg") from error


FAILURES = (
    DataSourceError, DataLayerError, GeometryError, FeatureError, CRSError, pa.ArrowException, sqlite3.Error,
)  # fmt: skip
"""What the libraries that write polygons raise."""


def write_polygons(
    path: Path,
    batches: Iterable[pa.RecordBatch],
    *,
    crs: Any,
    legend: Sequence[LegendEntry],
    overwrite: bool = False,
) -> None:
    """Write batches of COLUMNS to a file by its suffix; it opens coloured and named in QGIS.

    A GeoPackage has its style inside, others beside them. `overwrite` is whether a style that is there may be replaced.

    Raises OutputError.
    """
    driver, path = driver_of(path), behind_link(path)
    write = _write_parquet if driver == "Parquet" else partial(_write, driver)
    if driver in WGS84 and pyproj.CRS.from_user_input(crs).is_geographic:
        batches = map(_wrapped, batches)  # GDAL does it for all other coordinates
    with writing(path), bench(path) as work:
        part, held = work / path.name, _Held(batches)
        try:
            try:
                write(part, held, crs)
            finally:
                held.check()
            check_complete(part, LAYER, held.rows)
            if driver == "GPKG":
                add_style(part, LAYER, vector_qml(legend))
        except FAILURES as error:
            raise OutputError(f"cannot write {path}: {first_line(error)}; is the disk full?") from error
        if driver != "GPKG":
            write_style(path, vector_qml(legend), overwrite=overwrite)
        to_disk(part)
        os.replace(part, path)


def write_style(path: Path, text: str, *, overwrite: bool) -> None:
    """Write a style beside a file of polygons, but not in the place of another file's. Warns where it is left out."""
    style = path.with_suffix(".qml")
    there = _start_of(style) if style.is_file() else None
    if there == text:
        return
    of_rasters, of_polygons = (_others(path, suffixes) for suffixes in (RASTERS, DRIVERS))
    others = of_rasters or (of_polygons if there is not None else [])
    if others or (there is not None and ("<rasterrenderer" in there or not overwrite)):
        reason = f"QGIS would use {style} for {others[0]}, too" if others else f"{style} is there already"
        message = f"{path} has no style of its own: {reason}; give it another name for its colours"
        warnings.warn(message, GeoOVSegWarning, 4)
    else:
        write_whole(style, text)


def _start_of(style: Path) -> str:
    """What a style begins with, in which one of rasters says that it is one; of those we write all."""
    with style.open("rb") as file:
        return file.read(LARGEST_SIDE).decode(errors="replace")


def _others(path: Path, suffixes: Iterable[str]) -> list[Path]:
    """Other files of the same name but the suffix that QGIS may look for a style for; GeoPackages have one inside."""
    names = (path.with_suffix(suffix) for suffix in suffixes if suffix not in (".gpkg", path.suffix.lower()))
    return [name for name in names if name.exists()]


class _Held:
    """Batches whose error comes out as it is: what a writer that pulls them would make of it tells nothing."""

    def __init__(self, batches: Iterable[pa.RecordBatch]) -> None:
        self._batches = batches
        self._error: BaseException | None = None
        self.rows = 0

    def __iter__(self) -> Iterator[pa.RecordBatch]:
        try:
            for batch in self._batches:
                self.rows += batch.num_rows
                yield batch
        except GeneratorExit:  # the writer gave up, for a reason that it tells
            raise
        except BaseException as error:  # an interrupt too
            self._error = error
            raise

    def check(self) -> None:
        """Raise what went wrong while batches were made."""
        if self._error is not None:
            raise self._error


def _write(driver: str, part: Path, batches: Iterable[pa.RecordBatch], crs: Any) -> None:
    reader = pa.RecordBatchReader.from_batches(COLUMNS, iter(batches))
    # labels without a coordinate system are warned of before
    with hushed(UserWarning, "'crs' was not provided") if crs is None else nullcontext():
        pyogrio.write_arrow(
            reader,
            os.fspath(part),
            layer=LAYER if driver == "GPKG" else None,
            driver=driver,
            geometry_name="geom",
            geometry_type="Polygon",
            crs=wkt_of(crs),
            **({"RFC7946": "YES"} if driver == "GeoJSON" else {}),
        )


def _wrapped(batch: pa.RecordBatch) -> pa.RecordBatch:
    """Polygons in degrees cut where they cross the antimeridian (RFC 7946, 3.1.9)."""
    polygons = shapely.from_wkb(batch["geom"].to_numpy(zero_copy_only=False))
    west, _, east, _ = shapely.bounds(polygons).T
    for n in np.flatnonzero((west < -180) | (east > 180)):
        turns = [turn for turn in (-360, 0, 360) if west[n] - turn < 180 and east[n] - turn > -180]
        moved = [shapely.transform(polygons[n], lambda xy, turn=turn: xy - (turn, 0)) for turn in turns]
        polygons[n] = shapely.union_all([shapely.intersection(part, shapely.box(-180, -90, 180, 90)) for part in moved])
    column = batch.schema.get_field_index("geom")
    return batch.set_column(column, "geom", pa.array(shapely.to_wkb(shapely.orient_polygons(polygons)), pa.binary()))


def _write_parquet(part: Path, batches: Iterable[pa.RecordBatch], crs: Any) -> None:
    """GeoParquet 1.1: WKB, the bounds of every polygon in a column, so that readers can skip groups of rows."""
    bounds = pa.struct([(name, pa.float64()) for name in ("xmin", "ymin", "xmax", "ymax")])
    whole = np.full(4, np.nan)
    with ParquetWriter(part, COLUMNS.append(pa.field("bbox", bounds)), compression="zstd") as writer:
        for batch in batches:
            boxes = shapely.bounds(shapely.from_wkb(batch["geom"].to_numpy(zero_copy_only=False)))
            lows, highs = np.fmin(whole[:2], boxes[:, :2].min(0)), np.fmax(whole[2:], boxes[:, 2:].max(0))
            whole = np.concatenate([lows, highs])
            column = pa.StructArray.from_arrays([pa.array(side) for side in boxes.T], fields=list(bounds))
            writer.write_batch(pa.record_batch([*batch.columns, column], names=[*COLUMNS.names, "bbox"]))
        writer.add_key_value_metadata({"geo": json.dumps(_geo(crs, whole.tolist()))})


def _geo(crs: Any, bounds: list[float]) -> dict[str, Any]:
    """The metadata of GeoParquet 1.1."""
    covering = {side: ["bbox", side] for side in ("xmin", "ymin", "xmax", "ymax")}
    column: dict[str, Any] = {"encoding": "WKB", "geometry_types": ["Polygon"], "covering": {"bbox": covering}}
    column["crs"] = pyproj.CRS.from_user_input(crs).to_json_dict() if crs else None
    if not any(map(math.isnan, bounds)):
        column["bbox"] = bounds
    return {"version": "1.1.0", "primary_column": "geom", "columns": {"geom": column | {"orientation": _OUTWARD}}}


def add_style(path: Path, layer: str, style: str) -> None:
    """A default style in the table that QGIS looks for, registered so that other tools know the table."""
    with closing(sqlite3.connect(path)) as connection, connection as base:
        base.execute(
            "CREATE TABLE layer_styles (id INTEGER PRIMARY KEY AUTOINCREMENT NOT NULL, f_table_catalog TEXT(256), "
            "f_table_schema TEXT(256), f_table_name TEXT(256), f_geometry_column TEXT(256), styleName TEXT(30), "
            "styleQML TEXT, styleSLD TEXT, useAsDefault BOOLEAN, description TEXT, owner TEXT(30), ui TEXT(30), "
            "update_time DATETIME DEFAULT (strftime('%Y-%m-%dT%H:%M:%fZ', 'now')))"
        )
        base.execute(
            "INSERT INTO layer_styles (f_table_catalog, f_table_schema, f_table_name, f_geometry_column, styleName, "
            "styleQML, styleSLD, useAsDefault, description, owner) VALUES ('', '', ?, 'geom', ?, ?, '', 1, '', '')",
            (layer, layer, style),
        )
        base.execute(
            "INSERT INTO gpkg_contents (table_name, data_type, identifier, description, last_change, srs_id) "
            "VALUES ('layer_styles', 'attributes', 'layer_styles', '', strftime('%Y-%m-%dT%H:%M:%fZ', 'now'), 0)"
        )
