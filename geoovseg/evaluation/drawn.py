"""Truth of a data set that is drawn: polygons by class, or lines that are so wide, on the grid of an image."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray
from rasterio.errors import NotGeoreferencedWarning
from rasterio.features import rasterize

from geoovseg.errors import UsageError, hushed, some
from geoovseg.evaluation.datasets import DataSet
from geoovseg.rasters.open import opened
from geoovseg.scene.shapes import Choice, brought_to, read_shapes


def from_shapes(data: DataSet, image: str, truth: str) -> NDArray[np.uint8]:
    """Classes (H, W) by index on the pixels of an image; where nothing is drawn the first class, as later ones over it.

    Shapes are of the class that their `column` names, or all of the second class. Those of `buffer` metres are
    made that much wider on every side, in units of the image where it has no coordinate system. Raises SceneError,
    UsageError for names that are no classes.
    """
    with hushed(NotGeoreferencedWarning), opened(image, f"{image} as an image") as src:
        size, transform, crs = (src.height, src.width), src.transform, src.crs
    table = read_shapes(truth, Choice())
    if data.column and len(table) and data.column not in table.columns:
        raise UsageError(f"{truth} has no column {data.column}; it has {some(map(str, table.columns), 20)}")
    table = _on_image(table[_are_something(table, data.column)], crs, truth)
    if not len(table):
        return np.zeros(size, np.uint8)
    codes = [_code(data, truth, value) for value in table[data.column]] if data.column else [1] * len(table)
    drawn = list(zip(_wider(table, data.buffer, truth) if data.buffer else table.geometry, codes, strict=True))
    found: NDArray[np.uint8] = rasterize(drawn, size, fill=0, transform=transform, dtype="uint8")
    return found


def _code(data: DataSet, truth: str, value: object) -> int:
    """The index of a class by its name in any case. Raises UsageError."""
    index = data.index_of(str(value))
    if index is None:
        raise UsageError(f"{truth} has shapes of {value!r}; {data.title} has {some(data.labels, 20)}")
    return index


def _are_something(table: Any, column: str) -> Any:
    """Which rows have a shape, and a name where these are asked for."""
    there = ~(table.geometry.isna() | table.geometry.is_empty)
    return there & table[column].notna() if column and len(table) else there


def _on_image(table: Any, crs: Any, truth: str) -> Any:
    """Shapes in the coordinates of an image; those that do not say theirs are in these already. Raises SceneError."""
    if crs is None:  # GDAL says degrees of any GeoJSON
        return table.set_crs(None, allow_override=True)
    return table.set_crs(crs.to_wkt()) if table.crs is None else brought_to(table, crs, truth)


def _wider(table: Any, metres: float, truth: str) -> Any:
    """Geometry that reaches so many metres further, measured on the ground where it lies. Raises UsageError."""
    shapes = table.geometry
    if shapes.crs is None:
        return shapes.buffer(metres)
    try:
        flat = shapes.estimate_utm_crs()
    except (RuntimeError, ValueError) as error:
        raise UsageError(f"{truth} lies nowhere on the ground, so it is not made wider by metres: {error}") from error
    return shapes.to_crs(flat).buffer(metres).to_crs(shapes.crs)
