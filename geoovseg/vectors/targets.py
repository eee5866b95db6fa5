"""Files of polygons: their formats by suffix, and whether one can be written. Nothing heavy is loaded here."""

from __future__ import annotations

from pathlib import Path

from geoovseg.errors import OutputError, UsageError

DRIVERS = {
    ".gpkg": "GPKG",
    ".fgb": "FlatGeobuf",
    ".parquet": "Parquet",
    ".geojson": "GeoJSON",
    ".geojsonl": "GeoJSONSeq",
    ".geojsons": "GeoJSONSeq",
}
"""By the suffix of a file."""
WGS84 = ("GeoJSON", "GeoJSONSeq")
"""Formats that are always in WGS 84 (RFC 7946)."""


def driver_of(path: Path) -> str:
    """The format of a file by its suffix. Raises UsageError."""
    if path.suffix.lower() not in DRIVERS:
        raise UsageError(f"the output {path} must end in {', '.join(DRIVERS)}")
    return DRIVERS[path.suffix.lower()]


def check_target(target: Path, overwrite: bool) -> None:
    """Refuse a file for polygons that cannot be written. Raises UsageError, OutputError."""
    driver_of(target)
    if target.exists() and not overwrite:
        raise OutputError(f"{target} exists; add --overwrite to replace it")
    if target.is_dir():
        raise OutputError(f"{target} is a folder; choose another name")
    if not target.parent.is_dir():
        raise OutputError(f"the folder {target.parent} does not exist; create it or choose another name")
