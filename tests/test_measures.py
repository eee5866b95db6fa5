"""Areas and perimeters on the ellipsoid, against geodesics solved edge by edge and the ellipsoid's element of area."""

from __future__ import annotations

from typing import Any

import numpy as np
import pyproj
import pytest
import shapely
from affine import Affine
from rasterio.crs import CRS

from geoovseg.rasters.ground import Ellipsoid, ellipsoid_of
from geoovseg.vectors.measures import measure

DEGREES = Ellipsoid(pyproj.Geod(ellps="WGS84"), None)


def _solved(polygons: Any) -> np.ndarray:
    """Areas and perimeters (n, 2) by PROJ's geodesics."""
    return np.array([DEGREES.geod.geometry_area_perimeter(p) for p in shapely.orient_polygons(polygons)])


def _stars(size: float, *, high: float = 84) -> Any:
    """Polygons of a few corners all over the world, `size` degrees of latitude across."""
    rng = np.random.default_rng(0)
    found = []
    for _ in range(200):
        turn, far = np.sort(rng.uniform(0, 2 * np.pi, 7)), size / 2 * rng.uniform(0.3, 1, 7)
        west, north = rng.uniform(-180, 180), rng.uniform(-high, high)
        found.append(
            shapely.polygons(
                np.stack([west + far * np.cos(turn) / np.cos(np.radians(north)), north + far * np.sin(turn)], axis=1)
            )
        )
    return np.array(found)


@pytest.mark.parametrize("size", [0.002, 0.004, 0.02, 3.0])
def test_areas_and_perimeters_are_those_of_geodesics(size: float) -> None:
    areas, perimeters = measure(_stars(size), DEGREES)
    solved = _solved(_stars(size))
    np.testing.assert_allclose(perimeters, np.abs(solved[:, 1]), rtol=1e-9)
    np.testing.assert_allclose(areas, np.abs(solved[:, 0]), rtol=1e-9, atol=1e-3)  # as exact as PROJ is at such sizes


@pytest.mark.parametrize(("pixel", "tolerance"), [(0.05, 2e-7), (0.3, 4e-8), (5.0, 2e-9)])
def test_the_area_of_a_pixel_is_the_ellipsoids_element(pixel: float, tolerance: float) -> None:
    ellipsoid = ellipsoid_of(CRS.from_epsg(32632))
    assert ellipsoid is not None
    place = Affine(pixel, 0, 480_000, 0, -pixel, 5_460_000)
    cols, rows = np.random.default_rng(1).integers(0, 30_000, (2, 100)).astype(float)
    x, y = place @ (cols, rows)
    areas, _ = measure(shapely.box(x, y - pixel, x + pixel, y), ellipsoid)
    np.testing.assert_allclose(areas, ellipsoid.pixel_areas(place, cols + 0.5, rows + 0.5), rtol=tolerance)


def test_holes_are_taken_off_and_walked_around() -> None:
    ring, hole = shapely.box(10, 60, 10.003, 60.002), shapely.box(10.001, 60.0005, 10.002, 60.001)
    (whole, without), (around, inside) = measure(np.array([ring, hole]), DEGREES)
    area, perimeter = measure(np.array([shapely.difference(ring, hole), ring]), DEGREES)
    assert area[0] == pytest.approx(whole - without, rel=1e-12)
    assert perimeter[0] == pytest.approx(around + inside, rel=1e-12)
    assert (area[1], perimeter[1]) == (whole, around)


@pytest.mark.parametrize(
    "box", [(10, 60, 11, 61), (179.999, -17, 180.001, -16.999), (-180.001, 5, -179.999, 5.001), (0, 89.9, 30, 89.99)]
)
def test_large_ones_and_those_at_the_antimeridian_and_the_poles_are_the_same(box: tuple[float, ...]) -> None:
    polygon = np.array([shapely.box(*box)])
    areas, perimeters = measure(polygon, DEGREES)
    assert np.stack([areas, perimeters], axis=1) == pytest.approx(np.abs(_solved(polygon)), rel=1e-8)


@pytest.mark.parametrize("order", [[0], [0, 1], [1, 0], [1, 0, 2], [0, 0, 1]])
def test_empty_polygons_have_no_area(order: list[int]) -> None:
    kinds = np.array([shapely.Polygon(), shapely.box(10, 60, 10.003, 60.002), shapely.box(10, 6, 10.001, 6.002)])
    areas, perimeters = measure(kinds[order], DEGREES)
    each = [measure(kinds[[n]], DEGREES) for n in order]
    assert (areas.tolist(), perimeters.tolist()) == ([a[0] for a, _ in each], [p[0] for _, p in each])
    assert [area > 0 for area in areas] == [n > 0 for n in order]


def test_small_pixels_far_in_the_north_have_their_area() -> None:
    ellipsoid = ellipsoid_of(CRS.from_epsg(32633))
    assert ellipsoid is not None
    place = Affine(0.01, 0, 500_000, 0, -0.01, 8_660_000)  # 78 degrees
    area, _ = measure(np.array([shapely.box(500_000, 8_659_999.99, 500_000.01, 8_660_000)]), ellipsoid)
    assert area[0] == pytest.approx(float(ellipsoid.pixel_areas(place, np.array([0.5]), np.array([0.5]))[0]), rel=2e-6)


def test_of_no_polygons_there_are_no_measures() -> None:
    assert [len(found) for found in measure(np.empty(0, object), DEGREES)] == [0, 0]
