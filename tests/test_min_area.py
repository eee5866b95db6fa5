"""Small regions go to the neighbour with the longest border, the smallest first, whatever the blocks."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyogrio
import pyproj
import pytest
import rasterio
import shapely
from conftest import TRANSFORM
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from rasterio.transform import Affine, from_origin
from rasterio.windows import Window
from scipy.ndimage import label

from geoovseg.errors import OutputError, SceneError, UsageError
from geoovseg.vectors.pieces import NOTHING, read_window
from geoovseg.vectors.small import without_small
from geoovseg.vectors.source import inspect
from geoovseg.vectors.vectorize import vectorize

NO_DATA = 255


def _write(path: Path, codes: np.ndarray, **profile: Any) -> str:
    size = {"height": codes.shape[0], "width": codes.shape[1], "count": 1, "dtype": codes.dtype}
    common = {"driver": "GTiff", "crs": None, "transform": from_origin(7, 50, 1, 1), "nodata": NO_DATA}
    with rasterio.open(path, "w", **{**common, **size, **profile}) as dst:
        dst.write(codes, 1)
    return str(path)


def _source(path: str) -> Any:
    with rasterio.open(path) as src:
        return inspect(src, path, None, None)


def _without(path: str, least: float, side: int, tmp_path: Path) -> tuple[np.ndarray, int]:
    with without_small(_source(path), least, tmp_path / "less.tif", 1, side) as (source, count):
        whole = Window(0, 0, *source.shape[::-1])
        codes = read_window(source.path, whole)
    return np.where(codes == NOTHING, NO_DATA, codes), count


def _regions(codes: np.ndarray) -> list[np.ndarray]:
    """Masks of the connected regions."""
    found = []
    for code in np.unique(codes[codes != NO_DATA]):
        places, count = label(codes == code)
        found += [places == n for n in range(1, count + 1)]
    return found


def _one_by_one(codes: np.ndarray, least: float) -> np.ndarray:
    """The rule written out, without graphs, for rasters in which small regions do not touch each other."""
    result = codes.copy()
    for region in _regions(codes):
        if region.sum() < least:
            lengths: dict[int, dict[int, int]] = {}
            others = {n: other for n, other in enumerate(_regions(codes)) if not (other & region).any()}
            for n, other in others.items():
                edges = (region[1:] & other[:-1]).sum() + (region[:-1] & other[1:]).sum()
                edges += (region[:, 1:] & other[:, :-1]).sum() + (region[:, :-1] & other[:, 1:]).sum()
                if edges:
                    lengths[n] = {int(edges): int(codes[other][0])}
            if lengths:
                best = max(lengths.values(), key=lambda e: (*e.keys(), *(-c for c in e.values())))
                result[region] = next(iter(best.values()))
    return result


def _noise(seed: int) -> np.ndarray:
    rng = np.random.default_rng(seed)
    height, width, classes = rng.integers(3, 25), rng.integers(3, 25), rng.integers(2, 5)
    side = int(rng.choice([1, 3, 7]))
    squares = rng.integers(0, classes, (height // side + 1, width // side + 1))
    codes = np.kron(squares, np.ones((side, side), int))[:height, :width].astype(np.uint8)
    codes[rng.random(codes.shape) < rng.choice([0, 0.1, 0.4])] = rng.integers(0, classes)
    codes[rng.random(codes.shape) < rng.choice([0, 0.1])] = NO_DATA
    return codes


@given(st.integers(0, 2**32 - 1), st.sampled_from([2, 5, 11, 20]), st.sampled_from([2, 5, 12, 60]))
@settings(max_examples=30, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_blocks_give_away_what_the_whole_raster_does(tmp_path: Path, seed: int, side: int, least: int) -> None:
    codes = _noise(seed)
    path = _write(tmp_path / "labels.tif", codes)
    whole, count = _without(path, least, 1000, tmp_path)
    found, again = _without(path, least, side, tmp_path)
    np.testing.assert_array_equal(found, whole)
    assert again == count
    np.testing.assert_array_equal(whole == NO_DATA, codes == NO_DATA)
    for region in _regions(codes):
        if region.sum() >= least:
            assert (whole[region] == codes[region]).all()
    for region in _regions(whole):
        around = np.zeros_like(region)
        around[1:] |= region[:-1]
        around[:-1] |= region[1:]
        around[:, 1:] |= region[:, :-1]
        around[:, :-1] |= region[:, 1:]
        assert region.sum() >= least or (whole[around & ~region] == NO_DATA).all()
    assert [p.name for p in tmp_path.iterdir()] == ["labels.tif"]


@given(st.integers(0, 2**32 - 1), st.sampled_from([4, 9, 50]))
@settings(max_examples=30, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_a_speck_goes_where_its_border_is_longest(tmp_path: Path, seed: int, side: int) -> None:
    rng = np.random.default_rng(seed)
    codes = np.kron(rng.integers(1, 4, (4, 4)), np.ones((8, 8), int)).astype(np.uint8)
    for _ in range(6):  # specks of up to 3 pixels that touch no other speck
        row, col, wide = rng.integers(1, 31), rng.integers(1, 28), rng.integers(1, 4)
        if not (codes[row - 1 : row + 2, col - 1 : col + wide + 1] >= 4).any():
            codes[row, col : col + wide] = 4
    found, _ = _without(_write(tmp_path / "labels.tif", codes), 4, side, tmp_path)
    np.testing.assert_array_equal(found, _one_by_one(codes, 4))


def test_the_smallest_goes_first() -> None:
    """A pixel in a patch of four: alone, the patch would go to the left; with the pixel it is large enough."""
    from geoovseg.vectors.neighbours import Regions, given_away

    chain = Regions(
        codes=np.array([1, 2, 3]),
        areas=np.array([90, 4, 1]),
        firsts=np.array([0, 1, 2]),
        pairs=np.array([[0, 1], [1, 2]]),
        borders=np.array([6, 3]),
    )
    assert given_away(chain, 5).tolist() == [1, 2, 2]
    assert given_away(chain, 6).tolist() == [1, 1, 1]


def test_two_small_ones_of_a_code_that_come_to_touch_are_one() -> None:
    from geoovseg.vectors.neighbours import Regions, given_away

    bridge = Regions(
        codes=np.array([1, 2, 2, 3]),
        areas=np.array([90, 4, 4, 1]),
        firsts=np.arange(4),
        pairs=np.array([[0, 1], [0, 2], [1, 3], [2, 3]]),
        borders=np.array([9, 9, 2, 1]),
    )
    assert given_away(bridge, 9).tolist() == [1, 2, 2, 2]
    assert given_away(bridge, 10).tolist() == [1, 1, 1, 1]


@pytest.mark.parametrize(
    ("crs", "transform"),
    [
        ("EPSG:32632", TRANSFORM),
        ("EPSG:32632", TRANSFORM @ Affine.rotation(30)),
        ("EPSG:4326", from_origin(9.0, 49.0, 1e-5, 2e-5)),
        ("EPSG:4326", from_origin(-180.0, 70.0, 0.05, 0.05)),
        ("EPSG:3857", from_origin(1_000_000, 6_275_000, 3, 3)),
        ("EPSG:2225", from_origin(6_000_000, 2_000_000, 1, 1)),
    ],
    ids=["metres", "rotated", "degrees", "coarse-degrees", "web-mercator", "feet"],
)
def test_pixels_weigh_what_they_measure_on_the_ground(tmp_path: Path, crs: str, transform: Any) -> None:
    path = _write(tmp_path / "labels.tif", np.ones((100, 150), np.uint8), crs=crs, transform=transform)
    source = _source(path)
    corners = [transform * corner for corner in ((70, 30), (70, 80), (140, 80), (140, 30))]
    dense = shapely.segmentize(shapely.Polygon(corners), transform.a)
    lonlat = pyproj.Transformer.from_crs(crs, pyproj.CRS(crs).geodetic_crs, always_xy=True)
    there = shapely.transform(dense, lambda xy: np.stack(lonlat.transform(*xy.T), 1))
    area = abs(pyproj.CRS(crs).get_geod().geometry_area_perimeter(there)[0])
    assert source.pixel_areas(Window(70, 30, 70, 50)).sum() == pytest.approx(area, rel=1e-4)
    some = source.pixel_areas(Window(90, 41, 20, 20))
    np.testing.assert_array_equal(some, source.pixel_areas(Window(0, 0, 150, 100))[41:61, 90:110])


def test_polygons_have_no_holes_where_small_ones_were(write_raster: Callable[..., str], tmp_path: Path) -> None:
    codes = np.zeros((60, 80), np.uint8)
    codes[10:40, 10:60], codes[20:23, 20:23], codes[30:36, 30:36], codes[2, 2] = 1, 0, 2, 2
    path = write_raster(codes[None], "labels.tif", nodata=NO_DATA)  # pixels of half a metre
    result = vectorize(path, tmp_path / "out.gpkg", min_area=5, workers=2)
    found = pyogrio.read_dataframe(tmp_path / "out.gpkg", layer="classes")
    assert sorted(zip(found.class_id, map(len, found.geometry.apply(lambda p: p.interiors)), strict=True)) == [
        (1, 1),
        (2, 0),
    ]
    assert result.given_away == 2
    assert sorted(p.name for p in tmp_path.iterdir()) == ["labels.tif", "out.gpkg"]


def test_help_says_that_areas_count_before_corners_move(geoovseg: Callable[..., Any]) -> None:
    _, out, _ = geoovseg("vectorize", "--help")
    assert "the neighbour with the longest border, before --simplify." in " ".join(out.split())


@pytest.mark.parametrize("value", [-1.0, float("nan"), float("inf")])
def test_an_area_that_is_none_is_refused(write_raster: Callable[..., str], tmp_path: Path, value: float) -> None:
    path = write_raster(np.ones((1, 9, 9), np.uint8), "labels.tif")
    with pytest.raises(UsageError, match="must be a number of square metres"):
        vectorize(path, tmp_path / "out.gpkg", min_area=value)


def test_a_damaged_raster_is_one_error(write_raster: Callable[..., str], tmp_path: Path) -> None:
    path = write_raster(np.ones((1, 600, 600), np.uint8), "labels.tif")
    source = _source(path)
    Path(path).write_bytes(Path(path).read_bytes()[:3000])
    with pytest.raises((SceneError, OutputError), match="cannot"), without_small(source, 5, tmp_path / "l.tif", 1):
        pass
