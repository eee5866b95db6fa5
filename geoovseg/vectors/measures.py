"""Areas and perimeters of polygons on the ellipsoid."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
import shapely
from numpy.typing import NDArray

from geoovseg.rasters.ground import Ellipsoid, Floats

NEAR, WIDE, HIGH = 300.0, 0.005, 89.0
"""Metres of an edge, radians around a ring's first corner, and degrees of latitude up to which series are exact enough.

Beyond 70 degrees edges must be the shorter the larger the tangent of the latitude is. What is left out is less than
a billionth part there; of other polygons each edge is solved (Karney 2013), which leaves an area of a square metre no
more than some five digits.
"""
STEEP = 2.75
"""The tangent of 70 degrees, up to which an edge may be as long as `NEAR`."""


def measure(polygons: NDArray[Any], ellipsoid: Ellipsoid) -> tuple[Floats, Floats]:
    """Geodesic areas in square metres and perimeters in metres, holes taken off and walked around."""
    some = ~shapely.is_empty(polygons)
    areas, perimeters = np.zeros(len(polygons)), np.zeros(len(polygons))
    if some.any():
        areas[some], perimeters[some] = _measure(polygons[some], ellipsoid)
    return areas, perimeters


def _measure(polygons: NDArray[Any], ellipsoid: Ellipsoid) -> tuple[Floats, Floats]:
    """Of polygons that have corners, at least one."""
    _, corners, (ends, owners) = shapely.to_ragged_array(polygons)
    with np.errstate(invalid="ignore", over="ignore"):  # corners that are nowhere: not near, so measured again below
        rings = _rings(ellipsoid.degrees(corners), ends[:-1], ellipsoid)
    sign = np.full(len(ends) - 1, -1.0)
    sign[owners[:-1]] = 1  # the first ring of a polygon is around it, the others are holes
    areas = np.add.reduceat(sign * rings.areas, owners[:-1])
    perimeters = np.add.reduceat(rings.perimeters, owners[:-1])
    far = ~np.logical_and.reduceat(rings.near, owners[:-1])
    for n, polygon in zip(np.flatnonzero(far), shapely.transform(polygons[far], ellipsoid.degrees), strict=True):
        areas[n], perimeters[n] = _one(polygon, ellipsoid)
    return areas, perimeters


class _Rings(NamedTuple):
    areas: Floats
    perimeters: Floats
    near: NDArray[np.bool_]
    """whether the numbers are good"""


def _rings(degrees: Floats, starts: NDArray[Any], ellipsoid: Ellipsoid) -> _Rings:
    """Closed rings of short edges, one after the other; longitude and latitude (n, 2).

    In longitude x and the area y between a parallel and the ring's first one, per radian, areas are those of the plane.
    A geodesic is not straight there: an edge of length s at an angle t from east has the geodesic curvature
    k = tan(latitude) / N cos t (1 + 2 sin² t), and takes k s³ / 12 from the polygon on its left.
    """
    last = np.zeros(len(degrees), bool)
    last[[*(starts[1:] - 1), -1]] = True  # from there no edge begins
    first = np.repeat(starts, np.diff([*starts, len(degrees)]))
    x, latitude = np.radians(_shorter(degrees[:, 0] - degrees[first, 0])), np.radians(degrees[:, 1])
    rise = np.radians(degrees[:, 1] - degrees[first, 1])
    element = ellipsoid.element
    cells = element(latitude - rise) + 4 * element(latitude - rise / 2) + element(latitude)
    y = rise / 6 * cells  # Simpson's rule
    dx, up = np.diff(x, append=0), np.radians(np.diff(degrees[:, 1], append=0))
    middle = latitude + up / 2
    bent = 1 - ellipsoid.geod.es * np.sin(middle) ** 2
    east = ellipsoid.geod.a / np.sqrt(bent) * np.cos(middle) * dx
    north = ellipsoid.geod.a * (1 - ellipsoid.geod.es) / bent**1.5 * up
    lengths = np.hypot(east, north)
    curved = np.tan(middle) * np.sqrt(bent) / ellipsoid.geod.a * east * (lengths**2 + 2 * north**2) / 12
    plane = dx * (y + np.diff(y, append=0) / 2)
    good = (lengths * np.maximum(1, np.abs(np.tan(middle)) / STEEP) <= NEAR) | last
    good &= (np.abs(x) <= WIDE) & (np.abs(rise) <= WIDE) & (np.abs(degrees[:, 1]) <= HIGH)
    plane[last] = curved[last] = lengths[last] = 0
    areas = np.abs(np.add.reduceat(plane + curved, starts))
    return _Rings(areas, np.add.reduceat(lengths, starts), np.logical_and.reduceat(good, starts))


def _shorter(turn: Floats) -> Floats:
    """Differences of longitudes the short way round; those that are short are left exactly as they are."""
    return np.where(np.abs(turn) > 180, turn - np.copysign(360, turn), turn)


def _one(polygon: Any, ellipsoid: Ellipsoid) -> tuple[float, float]:
    """A polygon in degrees, edge by edge."""
    area, perimeter = _ring(polygon.exterior, ellipsoid)
    for hole in polygon.interiors:
        less, more = _ring(hole, ellipsoid)
        area, perimeter = area - less, perimeter + more
    return area, perimeter


def _ring(ring: Any, ellipsoid: Ellipsoid) -> tuple[float, float]:
    xy = shapely.get_coordinates(ring)
    area, perimeter = ellipsoid.geod.polygon_area_perimeter(xy[:, 0], xy[:, 1])
    return abs(area), perimeter
