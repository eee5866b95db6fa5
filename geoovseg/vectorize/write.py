"""Polygons to a file of vectors: batch by batch, in one session, under its name only when it is complete."""

from __future__ import annotations

import os
import sqlite3
import warnings
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyogrio
from pyogrio.errors import DataSourceError

from geoovseg.errors import OutputError, UsageError, first_line
from geoovseg.outputs import writing
from geoovseg.styles import LegendEntry, vector_qml

DRIVERS = {".gpkg": "GPKG", ".fgb": "FlatGeobuf", ".geojsonl": "GeoJSONSeq", ".geojsons": "GeoJSONSeq"}
"""By the suffix of a file."""
LAYER = "classes"
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


def driver_of(path: Path) -> str:
    """The format of a file by its suffix. Raises UsageError."""
    if path.suffix.lower() not in DRIVERS:
        raise UsageError(f"the output {path} must end in {', '.join(DRIVERS)}")
    return DRIVERS[path.suffix.lower()]


def write_polygons(path: Path, batches: Iterable[pa.RecordBatch], *, crs: Any, legend: Sequence[LegendEntry]) -> None:
    """Write batches of COLUMNS to a file by its suffix; a GeoPackage opens coloured and named in QGIS.

    Raises OutputError.
    """
    driver, part = driver_of(path), path.with_name(f".{path.stem}.part{path.suffix}")
    try:
        with writing(path):
            part.unlink(missing_ok=True)
            _write(part, driver, batches, crs)
            if driver == "GPKG":
                _add_style(part, legend)
            part.replace(path)
    finally:
        part.unlink(missing_ok=True)


def _write(part: Path, driver: str, batches: Iterable[pa.RecordBatch], crs: Any) -> None:
    reader = pa.RecordBatchReader.from_batches(COLUMNS, iter(batches))
    try:
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", "'crs' was not provided")  # labels without one are warned of before
            pyogrio.write_arrow(
                reader,
                os.fspath(part),
                layer=LAYER if driver == "GPKG" else None,
                driver=driver,
                geometry_name="geom",
                geometry_type="Polygon",
                crs=crs.to_wkt() if crs else None,
            )
    except DataSourceError as error:
        raise OutputError(f"cannot write {part}: {first_line(error)}") from error


def _add_style(path: Path, legend: Sequence[LegendEntry]) -> None:
    """A default style in the table that QGIS looks for, registered so that other tools know the table."""
    with sqlite3.connect(path) as base:
        base.execute(
            "CREATE TABLE layer_styles (id INTEGER PRIMARY KEY AUTOINCREMENT NOT NULL, f_table_catalog TEXT(256), "
            "f_table_schema TEXT(256), f_table_name TEXT(256), f_geometry_column TEXT(256), styleName TEXT(30), "
            "styleQML TEXT, styleSLD TEXT, useAsDefault BOOLEAN, description TEXT, owner TEXT(30), ui TEXT(30), "
            "update_time DATETIME DEFAULT CURRENT_TIMESTAMP)"
        )
        base.execute(
            "INSERT INTO layer_styles (f_table_catalog, f_table_schema, f_table_name, f_geometry_column, styleName, "
            "styleQML, styleSLD, useAsDefault, description, owner) VALUES ('', '', ?, 'geom', ?, ?, '', 1, '', '')",
            (LAYER, LAYER, vector_qml(legend)),
        )
        base.execute(
            "INSERT INTO gpkg_contents (table_name, data_type, identifier, description, last_change, srs_id) "
            "VALUES ('layer_styles', 'attributes', 'layer_styles', '', strftime('%Y-%m-%dT%H:%M:%fZ', 'now'), 0)"
        )
    base.close()
