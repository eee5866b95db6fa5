"""Marked places: points, lines and polygons that show by example what is looked for, as cells of a grid."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
from affine import Affine
from rasterio.crs import CRS
from rasterio.features import rasterize
from rasterio.windows import Window

from geoovseg.errors import UsageError, first_line

AT_ONCE = 1 << 22
"""Cells of a shape that are looked at together."""
Cell = tuple[int, int]
"""(row, column)"""


def marked_in(name: str, crs: CRS | None, transform: Affine, shape: tuple[int, int]) -> list[Cell]:
    """Cells (rows, columns) of a grid that the shapes of a file mark; see `marked_by`.

    Raises SceneError for what cannot be read, UsageError where nothing lies on the grid.
    """
    import pyproj  # slow to import, and needed only for places

    from geoovseg.scene.shapes import Choice, read_shapes

    table = read_shapes(name, Choice(layer_option="a file of one layer", where_option="a file of these shapes"))
    if crs is not None and table.crs is not None:
        try:
            table = table.to_crs(pyproj.CRS(crs.to_wkt()))
        except Exception as error:  # pyproj's, of many kinds
            raise UsageError(f"{name} cannot be brought to the scene's system: {first_line(error)}") from error
    return marked_by(list(table.geometry), name, transform, shape)


def marked_by(shapes: Sequence[Any], name: str, transform: Affine, shape: tuple[int, int]) -> list[Cell]:
    """Cells of a grid that shapes, or points (x, y), mark: that around a point, those whose centres a polygon holds.

    A line marks what it touches, and so does a polygon that holds no centre. Raises UsageError where none is marked.
    """
    import shapely

    found: set[Cell] = set()
    listed = np.empty(len(shapes), dtype=object)
    listed[:] = [shapely.Point(each) if isinstance(each, tuple | list) else each for each in shapes]
    for each in shapely.get_parts(listed):
        if each is not None and not each.is_empty:
            found.update(_cells(each, transform, shape))
    if not found:
        raise UsageError(f"{name} marks no place within the scene; is it in the same coordinate system?")
    return sorted(found)


def _cells(each: Any, transform: Affine, shape: tuple[int, int]) -> Iterator[Cell]:
    """The cells of one shape."""
    window = _around(each, transform, shape)
    inside = list(_drawn(each, transform, window, touched=not each.area))
    yield from inside or _drawn(each, transform, window, touched=True)


def _around(each: Any, transform: Affine, shape: tuple[int, int]) -> Window:
    """The part of the grid that a shape may meet."""
    import shapely

    corners = shapely.transform(each, lambda xy: np.stack(~transform @ xy.T, axis=1))
    left, top, right, bottom = corners.bounds
    first = max(0, int(np.floor(top))), max(0, int(np.floor(left)))
    last = min(shape[0], int(np.floor(bottom)) + 1), min(shape[1], int(np.floor(right)) + 1)
    return Window(first[1], first[0], max(0, last[1] - first[1]), max(0, last[0] - first[0]))


def _drawn(each: Any, transform: Affine, window: Window, *, touched: bool) -> Iterator[Cell]:
    """Cells that a shape covers, some rows at a time."""
    if not (window.width and window.height):
        return
    step = max(1, AT_ONCE // window.width)
    for row in range(window.row_off, window.row_off + window.height, step):
        size = min(step, window.row_off + window.height - row), window.width
        there = transform @ Affine.translation(window.col_off, row)
        for down, right in np.argwhere(rasterize([each], size, transform=there, all_touched=touched)):
            yield row + int(down), window.col_off + int(right)
