"""Areas and perimeters of polygons on the ellipsoid, whatever the coordinates are in."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import pyproj
import shapely
from numpy.typing import NDArray
from pyproj.exceptions import ProjError

from geoovseg.errors import SceneError, first_line

Floats = NDArray[np.float64]
_CROSS = ((0, 0), (0.5, 0), (-0.5, 0), (0, 0.5), (0, -0.5))
"""The middle of a pixel and those of its sides, from its middle."""


@dataclass(frozen=True)
class Ellipsoid:
    """How coordinates of a raster lie on the body it shows."""

    geod: pyproj.Geod
    to_degrees: pyproj.Transformer | None
    """none where they are degrees already"""

    def distance(self, one: tuple[float, float], other: tuple[float, float]) -> float:
        """Metres between two points of the raster's coordinates."""
        (x, y), (u, v) = self._degrees(np.array([one, other]))
        return float(self.geod.inv(x, y, u, v)[2])

    def _degrees(self, xy: Floats) -> Floats:
        """Longitude and latitude (n, 2) of points."""
        return xy if self.to_degrees is None else np.stack(self.to_degrees.transform(*xy.T), axis=1)

    def pixel_areas(self, transform: Any, cols: Floats, rows: Floats) -> Floats:
        """Geodesic areas in square metres of pixels of a raster, given by where their middles are.

        The element of area of the ellipsoid, M N cos(latitude), times what a pixel spans in degrees.
        """
        ends = [self._degrees(np.stack(transform * (cols + x, rows + y), axis=-1).reshape(-1, 2)) for x, y in _CROSS]
        middle, right, left, down, up = (end.reshape(*cols.shape, 2) for end in ends)
        (a, b), (c, d) = (np.moveaxis(_turned(one - other), -1, 0) for one, other in ((right, left), (down, up)))
        latitude = np.radians(middle[..., 1])
        bent = 1 - self.geod.es * np.sin(latitude) ** 2
        element = self.geod.a**2 * (1 - self.geod.es) / bent**2 * np.cos(latitude)
        return np.asarray(np.abs(a * d - b * c) * element)

    def measure(self, polygons: NDArray[Any]) -> tuple[Floats, Floats]:
        """Geodesic areas in square metres and perimeters in metres, holes taken off and walked around."""
        found = [self._one(polygon) for polygon in shapely.transform(polygons, self._degrees)]
        areas, perimeters = zip(*found, strict=True) if found else ((), ())
        return np.array(areas, np.float64), np.array(perimeters, np.float64)

    def _one(self, polygon: Any) -> tuple[float, float]:
        area, perimeter = self._ring(polygon.exterior)
        for hole in polygon.interiors:
            less, more = self._ring(hole)
            area, perimeter = area - less, perimeter + more
        return area, perimeter

    def _ring(self, ring: Any) -> tuple[float, float]:
        xy = shapely.get_coordinates(ring)
        area, perimeter = self.geod.polygon_area_perimeter(xy[:, 0], xy[:, 1])
        return abs(area), perimeter


def _turned(degrees: Floats) -> Floats:
    """Differences in longitude and latitude in radians, the short way round."""
    return np.radians((degrees + 180) % 360 - 180)


def ellipsoid_of(crs: Any) -> Ellipsoid | None:
    """The ellipsoid of a raster's coordinate system (rasterio CRS); None where it has none, as a plan of a site.

    Raises SceneError where it cannot be understood.
    """
    if crs is None:
        return None
    try:
        found = pyproj.CRS.from_user_input(crs)
        geod, base = found.get_geod(), found.geodetic_crs
        if geod is None or base is None:
            return None
        if found.is_geographic:
            return Ellipsoid(geod, None)
        return Ellipsoid(geod, pyproj.Transformer.from_crs(found, base, always_xy=True))
    except ProjError as error:
        raise SceneError(f"areas cannot be had in this coordinate system: {first_line(error)}") from error
