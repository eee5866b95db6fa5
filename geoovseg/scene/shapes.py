"""Shapes and tables in files of any kind, here, in an archive or on the network: areas of interest, and truth."""

from __future__ import annotations

import os
import tempfile
import urllib.request
import warnings
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path, PurePosixPath
from typing import Any

import geopandas
import pyogrio
from pyogrio.errors import CRSError, DataLayerError, DataSourceError
from pyproj.exceptions import ProjError
from rasterio._path import _parse_path, _vsi_path

from geoovseg.errors import GeoOVSegError, GeoOVSegWarning, SceneError, UsageError, did_you_mean, first_line, some
from geoovseg.files import LARGEST_SIDE, bytes_of, check_plain, within
from geoovseg.network import FORBIDDEN, Seal, is_offline, is_remote, sealed
from geoovseg.rasters.elsewhere import check_reachable
from geoovseg.rasters.http import unopened

VECTORS = (
    ".gpkg",
    ".geojson",
    ".json",
    ".geojsonl",
    ".geojsons",
    ".shp",
    ".fgb",
    ".parquet",
    ".geoparquet",
    ".kml",
    ".gml",
)
"""Suffixes of files that hold shapes."""
WHOLE = (".geojson", ".json", ".kml", ".gml", ".parquet", ".geoparquet")
"""Suffixes of files that are in memory as a whole when a shape is read."""
LARGEST_WHOLE = 1 << 30
"""Bytes of such a file."""
MOST_SHAPES = 2_000_000
"""That are read of a file; those that a condition leaves out do not count."""
_PATIENCE = 60
"""Seconds for a server to answer."""


@dataclass(frozen=True)
class Choice:
    """Which shapes of a file are meant, and the options that say so."""

    layer: str | None = None
    where: str | None = None
    layer_option: str = "--layer"
    where_option: str = "--where"


def suffix_of(name: str) -> str:
    """The suffix of a file's name, lower case, also where that is an address with a query."""
    return PurePosixPath(name.split("?")[0] if "://" in name else name).suffix.lower()


def is_elsewhere(name: str) -> bool:
    """Whether a name is an address, or leads into an archive."""
    return "://" in name or name.startswith("/vsi")


def read_shapes(name: str, choice: Choice) -> Any:
    """A table of shapes (GeoDataFrame): of a file with several layers the one that is chosen.

    Without a choice it is the first one, and a warning names the others. Raises SceneError for what cannot be read, and
    UsageError for a layer there is none of, or a condition that cannot be understood.
    """
    check_reachable(name, pixels=False)
    try:
        check_plain(name, LARGEST_WHOLE if suffix_of(name) in WHOLE else None)
        with pyogrio_env():
            table = (
                _read_parquet(name, choice) if suffix_of(name) in (".parquet", ".geoparquet") else _read(name, choice)
            )
    except GeoOVSegError:
        raise
    except Exception as error:  # pyogrio's and pyarrow's errors have no base of their own
        raise SceneError(f"cannot read {name}: {unopened(first_line(error))}") from error
    if not isinstance(table, geopandas.GeoDataFrame):
        raise SceneError(f"{name} holds no shapes")
    return table


def named_shapes(name: str, crs: Any, field: str, layer: str | None) -> list[tuple[Any, str]]:
    """Shapes, in coordinates `crs` where both are known, each with its text in a column, empty where there is none.

    Raises SceneError, UsageError for a column that is not there.
    """
    table = read_shapes(name, Choice(layer))
    if field not in table.columns:
        columns = some([str(c) for c in table.columns if c != table.geometry.name], 20)
        raise UsageError(f"--field {field}: {name} has the columns {columns}; choose the one of class names")
    if crs is not None and table.crs is not None:
        table = brought_to(table, crs, name)
    pairs = zip(table.geometry, table[field], strict=True)
    there = ((shape, said) for shape, said in pairs if shape is not None and not shape.is_empty)
    return [(shape, said.strip() if isinstance(said, str) else "") for shape, said in there]


def brought_to(shapes: Any, crs: Any, name: str) -> Any:
    """Shapes of a file in the coordinates of labels. Raises UsageError where nothing leads there."""
    try:
        return shapes.to_crs(crs)
    except ProjError as error:
        raise UsageError(f"{name} cannot be brought to the grid of the labels: {first_line(error)}") from error


def read_table(name: str) -> Any:
    """A table without shapes, such as a .dbf; none where there is no such file."""
    if (is_offline() and is_remote(name)) or not (os.path.exists(name) or is_elsewhere(name)):
        return None
    try:
        check_plain(name, LARGEST_SIDE)
        with pyogrio_env():
            return pyogrio.read_dataframe(_address(name), read_geometry=False)
    except (DataSourceError, DataLayerError, CRSError):
        return None
    except OSError as error:
        raise SceneError(f"cannot read {name}: {first_line(error)}") from error


def _put(key: str, value: str | None) -> None:
    pyogrio.set_gdal_config_options({key: value})


_SEAL = Seal(FORBIDDEN, pyogrio.get_gdal_config_option, _put)


@contextmanager
def pyogrio_env() -> Iterator[None]:
    """Offline, pyogrio's own GDAL opens no connection in here, also for what a local file names."""
    if not is_offline():
        yield
        return
    with _SEAL, sealed():
        yield


def _address(name: str) -> str:
    """What GDAL is to open."""
    return _vsi_path(_parse_path(name)) if is_elsewhere(name) else name


def _read(name: str, choice: Choice) -> Any:
    """Shapes of what GDAL can read. A server that gives only whole files is asked for the whole."""
    address = _address(name)
    try:
        layers = pyogrio.list_layers(address)
    except DataSourceError:
        if not address.startswith("/vsicurl/http"):
            raise
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder, PurePosixPath(address.split("?")[0]).name)
            path.write_bytes(_content(address))
            return _layer(str(path), name, choice)
    return _layer(address, name, choice, layers)


def _layer(source: Any, name: str, choice: Choice, layers: Any = None) -> Any:
    found = pyogrio.list_layers(source) if layers is None else layers
    layer = _chosen([str(each) for each, shapes in found if shapes is not None], name, choice)
    try:
        table = pyogrio.read_dataframe(source, layer=layer, where=choice.where, max_features=MOST_SHAPES + 1)
    except Exception as error:  # of several kinds, by the format
        if choice.where is None:
            raise
        raise UsageError(f"{choice.where_option} {choice.where}: {first_line(error)}") from error
    if len(table) > MOST_SHAPES:
        raise SceneError(f"{name} holds more than {MOST_SHAPES} shapes, the most that are read; use fewer")
    return table


def _chosen(layers: list[str], name: str, choice: Choice) -> str | None:
    """The layer to read; tables without shapes, such as QGIS's styles, are none. Raises UsageError."""
    if choice.layer is not None:
        if choice.layer not in layers:
            hint = did_you_mean(choice.layer, layers)
            there = ", ".join(layers) or "none with shapes"
            raise UsageError(f"{choice.layer_option} {choice.layer}: no such layer in {name}{hint}; it has {there}")
        return choice.layer
    if len(layers) > 1:
        message = f"{name} has the layers {', '.join(layers)}; {layers[0]} is used: choose by {choice.layer_option}"
        warnings.warn(message, GeoOVSegWarning, 6)
    return layers[0] if layers else None


def _read_parquet(name: str, choice: Choice) -> Any:
    """Shapes of GeoParquet, which GDAL need not be able to read. Raises UsageError."""
    if choice.layer is not None:
        raise UsageError(f"{choice.layer_option} {choice.layer}: {name} is GeoParquet, which has no layers")
    address = _address(name)
    fetched = is_elsewhere(name) and address.startswith(("/vsicurl/", "/vsizip/"))
    table = geopandas.read_parquet(BytesIO(_content(address)) if fetched else _uri(address))
    return table if choice.where is None else _filtered(table, choice)


def _uri(address: str) -> str:
    """What pyarrow is to open, for a file that it can reach by itself."""
    for start, scheme in (("/vsis3/", "s3://"), ("/vsigs/", "gs://")):
        if address.startswith(start):
            return scheme + address.removeprefix(start)
    return address


def _filtered(table: Any, choice: Choice) -> Any:
    """The rows for which a condition holds, as GDAL understands it."""
    plain = [
        c for c in table.columns if c == table.geometry.name or not table[c].map(lambda v: isinstance(v, dict)).any()
    ]
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "shapes.gpkg")
        pyogrio.write_dataframe(table[plain], path)
        return _layer(path, path.name, choice)


def _content(address: str) -> bytes:
    """All of a file on a server or in an archive, by the address that GDAL has for it."""
    if address.startswith("/vsicurl/"):
        check_reachable(address, pixels=False)
        with urllib.request.build_opener().open(address.removeprefix("/vsicurl/"), timeout=_PATIENCE) as answer:
            return within(answer, LARGEST_WHOLE)
    if address.startswith("/vsizip/"):
        archive, _, inside = address.removeprefix("/vsizip/").replace("{", "").replace("}", "").partition(".zip/")
        whole = f"/{archive}.zip" if archive.startswith("vsi") else f"{archive}.zip"
        with zipfile.ZipFile(BytesIO(_content(whole))) as files, files.open(inside) as file:
            return within(file, LARGEST_WHOLE)
    return bytes_of(Path(address), LARGEST_WHOLE)
