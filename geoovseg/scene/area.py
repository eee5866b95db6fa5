"""The area of interest: which windows are needed, and which pixels are labelled in the end."""

from __future__ import annotations

import hashlib
import math
import os
import warnings
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import compress, islice
from typing import Any

import numpy as np
import pyproj
import shapely
from affine import Affine
from numpy.typing import NDArray
from pyproj.exceptions import CRSError as ProjError
from rasterio.crs import CRS
from rasterio.errors import RasterioError
from rasterio.features import geometry_mask
from rasterio.warp import transform_bounds
from rasterio.windows import Window
from shapely.errors import ShapelyError

from geoovseg import numerals
from geoovseg.errors import GeoOVSegWarning, SceneError, UsageError, first_line
from geoovseg.rasters.ground import Box

AT_ONCE = 1000
"""Windows that are compared with an area together."""
VERTICES = 100
"""Points put along each side of a box that is brought to another system, in which sides may be curved."""
FARTHEST = 1e15
"""Of all coordinates: no system of this world has such numbers, and shapes of larger ones cannot be cut."""


@dataclass(frozen=True)
class Area:
    """A polygon on a scene's grid, in its coordinate system. Nothing but windows and labels ever sees it."""

    polygon: Any
    transform: Affine

    @property
    def digest(self) -> str:
        """What identifies it, for the journal of a run."""
        return hashlib.sha256(shapely.to_wkb(self.polygon)).hexdigest()[:16]

    def box(self, shape: tuple[int, int]) -> Box:
        """The pixels around it in a scene (height, width)."""
        corners = shapely.transform(self.polygon, lambda xy: np.stack(~self.transform @ xy.T, axis=1))
        left, top, right, bottom = corners.bounds
        col, row = max(0, math.floor(left)), max(0, math.floor(top))
        return Box(row, col, min(shape[0], math.ceil(bottom)) - row, min(shape[1], math.ceil(right)) - col)

    def touched(self, windows: Iterable[Window], margin: int = 0) -> Iterator[Window]:
        """Those of many windows that may hold a pixel of the area, or come as near to one, asked some at a time."""
        stream = iter(windows)
        while some := list(islice(stream, AT_ONCE)):
            around = [_outline(self.transform, _grown(window, margin)) for window in some]
            yield from compress(some, shapely.intersects(self.polygon, around))

    def mask(self, row_off: int, col_off: int, shape: tuple[int, int]) -> NDArray[np.bool_]:
        """True for the pixels whose centres lie inside."""
        window = Window(col_off, row_off, shape[1], shape[0])
        outline = _outline(self.transform, window)
        if not self.polygon.intersects(outline):
            return np.zeros(shape, bool)
        if self.polygon.contains(outline):
            return np.ones(shape, bool)
        there = self.transform * Affine.translation(col_off, row_off)
        return geometry_mask([self.polygon], shape, there, invert=True)


def read_area(
    text: str,
    crs_text: str | None,
    *,
    layer: str | None = None,
    where: str | None = None,
    crs: CRS | None,
    transform: Affine,
    shape: tuple[int, int],
) -> Area:
    """`--aoi`: a polygon file in any coordinate system, or W,S,E,N in `--aoi-crs`, by default the scene's.

    Of a file, `layer` is read, and of that the shapes for which `where` holds.

    Raises UsageError for what cannot be read, has no polygons, or does not meet the scene.
    """
    found = _read(text, crs_text, layer, where)
    scene = _outline(transform, Window(0, 0, shape[1], shape[0]))
    corners = np.abs(shapely.get_coordinates(found.geometry))
    if not (corners < FARTHEST).all():
        lack = "beyond all maps" if np.isfinite(corners).all() else "that are no numbers"
        raise UsageError(f"--aoi {text} has corners {lack}; repair it in your GIS")
    if crs is None and found.crs is not None:
        message = f"the scene has no coordinate system: the numbers of --aoi {text} are taken for its own"
        warnings.warn(message, GeoOVSegWarning, 5)
    if crs is not None and found.crs is not None:
        found = _to_scene(found, crs, scene.bounds, text)
    try:
        shapes = [shapely.make_valid(shape) for shape in found.geometry if shape is not None]
    except ShapelyError as error:
        raise UsageError(f"--aoi {text} cannot be understood: {first_line(error)}; repair it in your GIS") from error
    polygons = [shape for shape in shapes if shape.area > 0]
    if not polygons:
        raise UsageError(f"--aoi {text} has no polygons{'' if where is None else f' with --aoi-where {where}'}")
    polygon = shapely.union_all(polygons)
    shapely.prepare(polygon)
    if not polygon.intersection(scene).area > 0:
        raise UsageError(
            f"--aoi {text} does not meet the scene, which lies within {_bounds(scene.bounds)}; is --aoi-crs right? "
            f"The area lies within {_bounds(polygon.bounds)}"
        )
    return Area(polygon, transform)


def _read(text: str, crs_text: str | None, layer: str | None, where: str | None) -> Any:
    """A table of shapes with their coordinate system, if it is known."""
    import geopandas  # slow to import, and needed only for areas

    from geoovseg.scene.shapes import is_elsewhere

    is_file = os.path.exists(text) or is_elsewhere(text)
    try:
        if is_file:
            found = _of_file(text, layer, where)
            return found if crs_text is None else found.set_crs(crs_text, allow_override=True)
        return geopandas.GeoDataFrame(geometry=[_box(text, layer, where)], crs=crs_text)
    except ProjError as error:
        raise UsageError(f"--aoi-crs {crs_text} is no coordinate system: {first_line(error)}") from error


def _of_file(text: str, layer: str | None, where: str | None) -> Any:
    """The shapes of a file."""
    from geoovseg.scene.shapes import Choice, read_shapes

    try:
        return read_shapes(text, Choice(layer, where, "--aoi-layer", "--aoi-where"))
    except SceneError as error:
        raise UsageError(f"--aoi {text}: {error}") from error


def _box(text: str, layer: str | None, where: str | None) -> Any:
    """W,S,E,N as a polygon."""
    try:
        west, south, east, north = map(numerals.number, text.split(","))
    except ValueError as error:
        raise UsageError(f"--aoi {text}: no such file, and no W,S,E,N either") from error
    if layer is not None or where is not None:
        raise UsageError(f"--aoi-layer and --aoi-where choose shapes of a file, and --aoi {text} is none")
    if not (west < east and south < north and all(map(math.isfinite, (west, south, east, north)))):
        raise UsageError(f"--aoi {text}: W,S,E,N must have W below E and S below N")
    return shapely.box(west, south, east, north)


def _near(found: Any, crs: CRS, bounds: tuple[float, ...]) -> Any:
    """What of an area lies near a scene, with points along its sides, which may be curved in the scene's system.

    Far from where a system is meant for, as at the poles, points cannot be brought to it.
    """
    there = CRS.from_user_input(found.crs.to_wkt())
    try:
        west, south, east, north = transform_bounds(crs, there, *bounds)
    except RasterioError:
        return found
    margin = max(east - west, north - south)
    if not 0 < margin < math.inf:  # across the antimeridian
        return found
    near = found.set_geometry(found.geometry.make_valid()).clip(
        shapely.box(west - margin, south - margin, east + margin, north + margin)
    )
    return near.set_geometry(near.geometry.segmentize(3 * margin / VERTICES)) if len(near) else found


def _to_scene(found: Any, crs: CRS, bounds: tuple[float, ...], text: str) -> Any:
    try:
        if found.crs == pyproj.CRS(crs.to_wkt()):
            return found
        return _near(found, crs, bounds).to_crs(crs.to_wkt())
    except Exception as error:  # pyproj's, of many kinds
        raise UsageError(f"--aoi {text} cannot be brought to the scene's system: {first_line(error)}") from error


def _grown(window: Window, margin: int) -> Window:
    """A window with so many pixels more on each side."""
    left, top, width, height = window.flatten()
    return Window(left - margin, top - margin, width + 2 * margin, height + 2 * margin)


def _outline(transform: Affine, window: Window) -> Any:
    """A window as a polygon on the ground."""
    left, top = window.col_off, window.row_off
    right, bottom = left + window.width, top + window.height
    return shapely.Polygon(
        [transform * corner for corner in ((left, top), (right, top), (right, bottom), (left, bottom))]
    )


def _bounds(bounds: tuple[float, ...]) -> str:
    """As `--aoi` takes them."""
    return ",".join(f"{value:.12g}" for value in bounds)
