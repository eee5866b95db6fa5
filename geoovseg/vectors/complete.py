"""Whether a file of polygons is all there: a disk that filled up may have been noticed by nobody."""

from __future__ import annotations

import os
import sqlite3
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

import pyarrow as pa
import pyogrio
from pyarrow import parquet
from pyogrio.errors import DataLayerError, DataSourceError, FeatureError

from geoovseg.errors import OutputError, first_line
from geoovseg.vectors.targets import LAYER

TAIL = 64
"""Bytes at the end of a text that are looked at."""
AT_ONCE = 1 << 24
"""Bytes of a text that are read together."""
_ERRORS = (sqlite3.Error, pa.ArrowException, DataSourceError, DataLayerError, FeatureError, ValueError, OSError)
"""What reading a damaged file raises."""


def check_complete(path: Path, layer: str, rows: int) -> None:
    """Refuse a file that was written and lacks some of so many polygons, or its index. Raises OutputError."""
    try:
        found = _COUNTS[path.suffix.lower()](path, layer)
    except _ERRORS as error:
        raise OutputError(f"{path.name} was not written whole ({first_line(error)}); is the disk full?") from error
    if found != rows:
        raise OutputError(f"{path.name} was not written whole: {found} of {rows} polygons; is the disk full?")


def _of_geopackage(path: Path, layer: str) -> int:
    """Polygons, or those in the spatial index if these are fewer."""
    with closing(sqlite3.connect(path)) as base:
        tables = (layer, f"rtree_{layer}_geom")
        return min(int(base.execute(f'SELECT count(*) FROM "{table}"').fetchone()[0]) for table in tables)


def _of_flatgeobuf(path: Path, layer: str) -> int:
    """Polygons that the header states, if the last of them can be read."""
    stated = int(pyogrio.read_info(path, force_feature_count=True)["features"])
    return len(pyogrio.read_dataframe(path, skip_features=max(0, stated - 1))) - 1 + stated if stated else 0


def _of_parquet(path: Path, layer: str) -> int:
    return int(parquet.read_metadata(path).num_rows)


def _of_lines(path: Path, layer: str) -> int:
    """Lines that end as objects do."""
    if os.path.getsize(path) and not _tail(path).endswith(b"}\n"):
        raise ValueError("it breaks off")
    with path.open("rb") as file:
        return sum(text.count(b"\n") for text in iter(lambda: file.read(AT_ONCE), b""))


def _of_geojson(path: Path, layer: str) -> int:
    if not _tail(path).rstrip().endswith(b"}"):
        raise ValueError("it breaks off")
    return int(pyogrio.read_info(path, force_feature_count=True)["features"])


def _tail(path: Path) -> bytes:
    with path.open("rb") as file:
        file.seek(max(0, os.path.getsize(path) - TAIL))
        return file.read()


_COUNTS: dict[str, Callable[[Path, str], int]] = {
    ".gpkg": _of_geopackage,
    ".fgb": _of_flatgeobuf,
    ".parquet": _of_parquet,
    ".geojson": _of_geojson,
    ".geojsonl": _of_lines,
    ".geojsons": _of_lines,
}


def has_classes(path: Path) -> bool:
    """Whether a file holds polygons with classes, as ours do."""
    try:
        if path.suffix.lower() == ".parquet":
            return "class_id" in parquet.read_schema(path).names
        layer = {"layer": LAYER} if path.suffix.lower() == ".gpkg" else {}
        return "class_id" in pyogrio.read_info(path, **layer)["fields"]
    except _ERRORS:
        return False
