"""Ground truth on the grid of labels: rasters of any grid, or vectors, read window by window."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import geopandas
import numpy as np
import pyogrio
from numpy.typing import NDArray
from pyogrio.errors import DataLayerError, DataSourceError
from pyproj.exceptions import ProjError
from rasterio.enums import ColorInterp, Resampling
from rasterio.features import rasterize
from rasterio.vrt import WarpedVRT
from rasterio.windows import Window
from rasterio.windows import transform as window_transform
from shapely.errors import ShapelyError

from geoovseg.errors import SceneError, UsageError, first_line, some
from geoovseg.labels.read import Reader, category_names, check_unscaled, open_labels, raster_reader
from geoovseg.rasters.open import GDAL_ERRORS

_VECTORS = (".gpkg", ".geojson", ".json", ".geojsonl", ".geojsons", ".shp", ".fgb", ".parquet")
_FIELD = "class_name"
"""The column of class names in polygons that `geoovseg vectorize` made."""


@dataclass(frozen=True)
class Truth:
    """Ground truth on the grid of labels."""

    read: Reader
    names: dict[int, str]
    by_code: bool
    """codes are the file's own, and can be named by --map"""

    def name(self, code: int) -> str:
        """The name of a code, or the code itself as text."""
        return self.names.get(code, str(code))


@contextmanager
def open_truth(src: Any, truth: str | os.PathLike[str], field: str | None) -> Iterator[Truth]:
    """Ground truth on the grid of the labels `src`; vectors by the names in their column `field` or `class_name`.

    Raises SceneError for what cannot be read, UsageError for what cannot be brought to the grid.
    """
    if Path(truth).suffix.lower() in _VECTORS:
        yield _vector_truth(src, Path(truth), field)
        return
    with open_labels(truth) as dst, ExitStack() as stack:
        check_unscaled(dst)
        grid = {"crs": src.crs, "transform": src.transform, "height": src.height, "width": src.width}
        same = all(getattr(dst, key) == value for key, value in grid.items())
        read = dst if same else stack.enter_context(_resampled(dst, grid))
        yield Truth(raster_reader(read), category_names(dst), by_code=True)


@contextmanager
def _resampled(src: Any, grid: dict[str, Any]) -> Iterator[Any]:
    """A raster brought to another grid, nearest; beyond its extent there is no data."""
    if src.crs is None or grid["crs"] is None:
        raise UsageError(f"{src.name} lies on another grid than the labels, and one has no coordinate system")
    has_mask = src.nodata is not None or ColorInterp.alpha in src.colorinterp
    outside = {} if has_mask else {"add_alpha": True}
    try:
        vrt = WarpedVRT(src, resampling=Resampling.nearest, **grid, **outside)
    except GDAL_ERRORS as error:
        raise UsageError(f"{src.name} cannot be brought to the grid of the labels: {first_line(error)}") from error
    with vrt:
        yield vrt


def _text(value: object) -> str:
    """A class name; whole numbers without a point, whatever type the file gives them."""
    return str(int(value)) if isinstance(value, float) and value.is_integer() else str(value)


def _read_shapes(path: Path) -> Any:
    """A table of shapes. Raises SceneError."""
    try:
        table = geopandas.read_parquet(path) if path.suffix.lower() == ".parquet" else _read_layer(path)
    except (DataSourceError, DataLayerError, ShapelyError, ValueError, OSError) as error:
        raise SceneError(f"cannot read {path}: {first_line(error)}") from error
    if not isinstance(table, geopandas.GeoDataFrame):
        raise SceneError(f"{path} holds no shapes")
    return table


def _read_layer(path: Path) -> Any:
    """The only layer with shapes: tables beside it, such as QGIS's styles, are not meant; of several the first."""
    layers = [name for name, shapes in pyogrio.list_layers(path) if shapes is not None]
    return geopandas.read_file(path, **({"layer": layers[0]} if len(layers) == 1 else {}))


def _names_column(path: Path, columns: Sequence[str], field: str | None) -> str:
    """The column of class names: `field`, by default that of our own polygons. Raises UsageError."""
    if field is None and _FIELD in columns:
        return _FIELD
    there = f"the columns {some(columns, 20)}" if columns else "no columns"
    if field is None:
        raise UsageError(f"{path} needs --field, the column of class names; it has {there}")
    if field not in columns:
        raise UsageError(f"--field {field}: {path} has {there}; choose the one of class names")
    return field


def _vector_truth(src: Any, path: Path, field: str | None) -> Truth:
    table = _read_shapes(path)
    field = _names_column(path, [c for c in table.columns if c != table.geometry.name], field)
    if src.crs is not None and table.crs is not None:
        try:
            table = table.to_crs(src.crs)
        except ProjError as error:
            raise UsageError(f"{path} cannot be brought to the grid of the labels: {first_line(error)}") from error
    table = table[table[field].notna() & table.geometry.notna() & ~table.geometry.is_empty]
    values = [_text(value) for value in table[field]]
    codes = {name: code for code, name in enumerate(sorted(set(values)), start=1)}
    shapes = [(shape, codes[value]) for shape, value in zip(table.geometry, values, strict=True)]

    def read(window: Window) -> NDArray[np.int64]:
        size = (int(window.height), int(window.width))
        if not shapes:
            return np.full(size, -1, np.int64)
        place = window_transform(window, src.transform)
        return rasterize(shapes, size, fill=-1, transform=place, dtype="int32").astype(np.int64)

    return Truth(read, {code: name for name, code in codes.items()}, by_code=False)
