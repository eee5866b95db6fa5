"""Areas and perimeters of polygons on the ellipsoid."""

from __future__ import annotations

from typing import Any

import numpy as np
import shapely
from numpy.typing import NDArray

from geoovseg.rasters.ground import Ellipsoid, Floats


def measure(polygons: NDArray[Any], ellipsoid: Ellipsoid) -> tuple[Floats, Floats]:
    """Geodesic areas in square metres and perimeters in metres, holes taken off and walked around."""
    found = [_one(polygon, ellipsoid) for polygon in shapely.transform(polygons, ellipsoid.degrees)]
    areas, perimeters = zip(*found, strict=True) if found else ((), ())
    return np.array(areas, np.float64), np.array(perimeters, np.float64)


def _one(polygon: Any, ellipsoid: Ellipsoid) -> tuple[float, float]:
    area, perimeter = _ring(polygon.exterior, ellipsoid)
    for hole in polygon.interiors:
        less, more = _ring(hole, ellipsoid)
        area, perimeter = area - less, perimeter + more
    return area, perimeter


def _ring(ring: Any, ellipsoid: Ellipsoid) -> tuple[float, float]:
    xy = shapely.get_coordinates(ring)
    area, perimeter = ellipsoid.geod.polygon_area_perimeter(xy[:, 0], xy[:, 1])
    return abs(area), perimeter
