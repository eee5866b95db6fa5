"""Files of polygons: their formats by suffix, and whether one can be written. Nothing heavy is loaded here."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from pathlib import Path

from geoovseg.errors import OutputError, UsageError
from geoovseg.files import StrPath, behind_link, placed
from geoovseg.labels.folders import stem_of

DRIVERS = {
    ".gpkg": "GPKG",
    ".fgb": "FlatGeobuf",
    ".parquet": "Parquet",
    ".geojson": "GeoJSON",
    ".geojsonl": "GeoJSONSeq",
    ".geojsons": "GeoJSONSeq",
}
"""By the suffix of a file."""
LAYER = "classes"
"""Of polygons in a GeoPackage."""
WGS84 = ("GeoJSON", "GeoJSONSeq")
"""Formats that are always in WGS 84 (RFC 7946)."""


def driver_of(path: Path) -> str:
    """The format of a file by its suffix. Raises UsageError."""
    if path.suffix.lower() not in DRIVERS:
        raise UsageError(f"the output {path} must end in {', '.join(DRIVERS)}")
    return DRIVERS[path.suffix.lower()]


def vector_names(labels: Sequence[str], folder: str) -> list[Path]:
    """`<stem>_classes.gpkg` in a folder for every label raster. Raises UsageError where two would have one name."""
    names = {path: Path(folder, f"{stem_of(path)}_classes.gpkg") for path in labels}
    by_name = {name: path for path, name in names.items()}
    for path, name in names.items():
        if by_name[name] != path:
            raise UsageError(f"{path} and {by_name[name]} would have the same output, {name}; run them one by one")
    return [names[path] for path in labels]


def target_of(given: StrPath, labels: StrPath) -> Path:
    """The file for the polygons of labels: a file, or a folder for `<stem>_classes.gpkg`, or `beside` them."""
    return placed(given, Path(labels), f"{stem_of(os.fspath(labels))}_classes.gpkg")


def check_made_of(polygons: Path, labels: Path) -> None:
    """Refuse polygons that cannot be those of finished labels: older ones, and what is none. Raises OutputError."""
    from geoovseg.vectors.complete import has_classes  # slow to import, and needed only here

    if polygons.stat().st_mtime < labels.stat().st_mtime or not has_classes(polygons):
        raise OutputError(f"{polygons} is there, but was not made of {labels}; add --overwrite to replace it")


def check_target(target: Path, overwrite: bool, driver: Callable[[Path], str] = driver_of) -> None:
    """Refuse a file for polygons, or of another `driver`'s, that cannot be written. Raises UsageError, OutputError."""
    driver(target)
    if target.exists() and not overwrite:
        raise OutputError(f"{target} exists; add --overwrite to replace it")
    if target.is_dir():
        raise OutputError(f"{target} is a folder; choose another name")
    folder = behind_link(target).parent
    if not folder.is_dir():
        raise OutputError(f"the folder {folder} does not exist; create it or choose another name")
