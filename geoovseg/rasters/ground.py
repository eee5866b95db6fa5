"""Where pixels lie on the ground: sizes and areas in metres, whatever the coordinates are in."""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import lru_cache
from threading import get_ident
from typing import Any, NamedTuple

import numpy as np
import pyproj
from affine import Affine
from numpy.typing import NDArray
from pyproj.exceptions import ProjError
from rasterio.crs import CRS
from rasterio.errors import CRSError
from rasterio.windows import Window

from geoovseg.errors import SceneError, first_line

Floats = NDArray[np.float64]
_CROSS = ((0, 0), (0.5, 0), (-0.5, 0), (0, 0.5), (0, -0.5))
"""The middle of a pixel and those of its sides, from its middle."""


class Box(NamedTuple):
    """Some rows and columns of a raster, whole."""

    row_off: int
    col_off: int
    height: int
    width: int

    def shared(self, row_off: int, col_off: int, height: int, width: int) -> Box | None:
        """What other rows and columns have in common with these, if anything."""
        top, left = max(self.row_off, row_off), max(self.col_off, col_off)
        bottom = min(self.row_off + self.height, row_off + height)
        right = min(self.col_off + self.width, col_off + width)
        return Box(top, left, bottom - top, right - left) if top < bottom and left < right else None


@dataclass(frozen=True, kw_only=True)
class RasterGrid:
    """The raster grid outputs lie on: exactly the scene's."""

    height: int
    width: int
    crs: CRS | None
    transform: Affine

    def window(self, box: Box) -> RasterGrid:
        """The grid of some of its pixels."""
        place = self.transform @ Affine.translation(box.col_off, box.row_off)
        return RasterGrid(height=box.height, width=box.width, crs=self.crs, transform=place)


@dataclass(frozen=True)
class Ellipsoid:
    """How coordinates of a raster lie on the body it shows."""

    geod: pyproj.Geod
    to_degrees: pyproj.Transformer | None
    """to angles; none where they are angles already"""
    unit: float = 1.0
    """of these angles, in degrees: 0.9 where they are grads, as in older French systems"""

    def distance(self, one: tuple[float, float], other: tuple[float, float]) -> float:
        """Metres between two points of the raster's coordinates."""
        (x, y), (u, v) = self.degrees(np.array([one, other]))
        return float(self.geod.inv(x, y, u, v)[2])

    def degrees(self, xy: Floats) -> Floats:
        """Longitude and latitude (n, 2) of points. Raises SceneError where PROJ cannot tell."""
        columns = xy.T if len(xy) > 1 else xy.T.tolist()  # pyproj takes an array of one for a number, and numpy warns
        try:
            found = xy if self.to_degrees is None else np.stack(self.to_degrees.transform(*columns), axis=1)
        except ProjError as error:
            raise SceneError(f"areas cannot be had in this coordinate system: {first_line(error)}") from error
        return found if self.unit == 1 else found * self.unit

    def pixel_areas(self, transform: Any, cols: Floats, rows: Floats) -> Floats:
        """Geodesic areas in square metres of pixels of a raster, given by where their middles are.

        The element of area of the ellipsoid times what a pixel spans in radians.
        """
        ends = [self.degrees(np.stack(transform @ (cols + x, rows + y), axis=-1).reshape(-1, 2)) for x, y in _CROSS]
        middle, right, left, down, up = (end.reshape(*cols.shape, 2) for end in ends)
        (a, b), (c, d) = (np.moveaxis(_turned(one - other), -1, 0) for one, other in ((right, left), (down, up)))
        return np.asarray(np.abs(a * d - b * c) * self.element(np.radians(middle[..., 1])))

    def element(self, latitude: Floats) -> Floats:
        """Square metres of a radian by a radian at a latitude, in radians: M N cos(latitude)."""
        bent = 1 - self.geod.es * np.sin(latitude) ** 2
        return np.asarray(self.geod.a**2 * (1 - self.geod.es) / bent**2 * np.cos(latitude))


def areas_of(ellipsoid: Ellipsoid | None, transform: Any, window: Window) -> Floats:
    """Areas (h, w) of the pixels of a window, the same from whatever window they are asked for.

    Square metres on an ellipsoid, else square units of the raster.
    """
    if ellipsoid is None:
        t = transform
        return np.full((window.height, window.width), abs(t.a * t.e - t.b * t.d))
    high, wide = (1, 64) if ellipsoid.to_degrees is None else (16, 64)  # cells of equal pixels
    rows = np.arange(window.row_off, window.row_off + window.height) // high
    cols = np.arange(window.col_off, window.col_off + window.width) // wide
    lattice = np.meshgrid(np.arange(cols[0], cols[-1] + 1), np.arange(rows[0], rows[-1] + 1))
    areas = ellipsoid.pixel_areas(transform, (lattice[0] + 0.5) * wide, (lattice[1] + 0.5) * high)
    return areas[np.ix_(rows - rows[0], cols - cols[0])]


def _turned(degrees: Floats) -> Floats:
    """Differences in longitude and latitude in radians, the short way round."""
    return np.radians((degrees + 180) % 360 - 180)


def wkt_of(crs: CRS | None) -> str | None:
    """A coordinate system as text, WKT 2 (ISO 19162:2019), which says all of it; None for none."""
    return None if crs is None else str(crs.to_wkt(version="WKT2_2019"))


def is_older_form(old: object, new: object) -> bool:
    """Whether a text says the coordinate system of another one as older versions wrote it, in WKT 1."""
    if not (isinstance(old, str) and isinstance(new, str)) or old.partition("[")[0].endswith("CRS"):
        return False
    try:
        return bool(CRS.from_wkt(old) == CRS.from_wkt(new))
    except CRSError:
        return False


def ellipsoid_of(crs: Any) -> Ellipsoid | None:
    """The ellipsoid of a raster's coordinate system (rasterio CRS); None where it has none, as a plan of a site.

    Raises SceneError where it cannot be understood.
    """
    return None if crs is None else _ellipsoid_of(crs, get_ident())


@lru_cache(maxsize=64)
def _ellipsoid_of(crs: Any, thread: int) -> Ellipsoid | None:
    """That of one system, of which many rasters are, for a thread; these do not share what PROJ computes with."""
    try:
        found = pyproj.CRS.from_user_input(crs)
        geod, base = found.get_geod(), found.geodetic_crs
        if geod is None or base is None:
            return None
        angles = None if found.is_geographic else pyproj.Transformer.from_crs(found, base, always_xy=True)
        return Ellipsoid(geod, angles, _unit(base))
    except (ProjError, ZeroDivisionError) as error:
        raise SceneError(f"areas cannot be had in this coordinate system: {first_line(error)}") from error


def _unit(base: pyproj.CRS) -> float:
    """Degrees in an angle of a coordinate system."""
    unit = math.degrees(base.axis_info[0].unit_conversion_factor) if base.axis_info else 1.0
    return 1.0 if math.isclose(unit, 1.0) else unit


def pixel_size(transform: Any, shape: tuple[int, int], ellipsoid: Ellipsoid | None) -> tuple[float, float]:
    """Width and height of the pixel in the middle of a raster (height, width): metres on an ellipsoid, else its units.

    Not finite where the middle lies nowhere on the ground, as at the edge of a view of the whole earth.
    """
    height, width = shape
    here = transform @ (width / 2, height / 2)
    ends = [transform @ (width / 2 + 1, height / 2), transform @ (width / 2, height / 2 + 1)]
    wide, high = (math.dist(here, end) if ellipsoid is None else ellipsoid.distance(here, end) for end in ends)
    return wide, high
