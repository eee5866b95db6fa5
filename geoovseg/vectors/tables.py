"""Small tables of shapes, of samples and of zones, to files of any format; whole or not at all."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

from pyproj.exceptions import ProjError

from geoovseg.errors import OutputError, UsageError, first_line, hushed
from geoovseg.files import behind_link, bench, to_disk
from geoovseg.labels.names import writing
from geoovseg.vectors.targets import DRIVERS, WGS84, driver_of
from geoovseg.vectors.write import FAILURES, add_style, write_style


def write_table(path: Path, table: Any, layer: str, style: str | None = None, *, overwrite: bool = False) -> None:
    """Write a table of shapes (GeoDataFrame) by a file's suffix, with a QGIS style inside a GeoPackage or beside.

    `.csv` takes the columns without the shapes. Raises UsageError for another suffix, OutputError.
    """
    driver, path = table_driver(path), behind_link(path)
    with writing(path), bench(path) as work:
        part = work / path.name
        try:
            _write(driver, part, table, layer)
            if style and driver == "GPKG":
                add_style(part, layer, style)
        except FAILURES as error:
            raise OutputError(f"cannot write {path}: {first_line(error)}; is the disk full?") from error
        if style and driver not in ("GPKG", "CSV"):
            write_style(path, style, overwrite=overwrite)
        to_disk(part)
        os.replace(part, path)


def table_driver(path: Path) -> str:
    """The format of a table's file by its suffix. Raises UsageError."""
    if path.suffix.lower() == ".csv":
        return "CSV"
    if path.suffix.lower() not in DRIVERS:
        raise UsageError(f"the output {path} must end in {', '.join(DRIVERS)} or .csv")
    return driver_of(path)


def _write(driver: str, part: Path, table: Any, layer: str) -> None:
    if driver == "CSV":
        table.drop(columns=table.geometry.name).to_csv(part, index=False)
    elif driver == "Parquet":
        table.to_parquet(part, compression="zstd")
    else:
        table = _in_wgs84(table, part) if driver in WGS84 else table
        with hushed(UserWarning, "'crs' was not provided"):  # of labels that lie nowhere
            table.to_file(part, driver=driver, layer=layer if driver == "GPKG" else None, engine="pyogrio", index=False)


def _in_wgs84(table: Any, part: Path) -> Any:
    """As GeoJSON has to be. Raises UsageError."""
    if table.crs is None:
        raise UsageError(f"{part.name} would be WGS 84, but there is no coordinate system; choose .gpkg")
    try:
        return table.to_crs(4326)
    except ProjError as error:
        raise UsageError(f"{part.name} would be WGS 84, to which nothing leads: {first_line(error)}") from error
