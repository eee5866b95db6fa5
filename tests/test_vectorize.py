"""Polygons: those of the whole raster whatever the blocks, a valid coverage, measured, named, coloured."""

from __future__ import annotations

import json
import os
import sqlite3
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import geopandas
import numpy as np
import pyogrio
import pyproj
import pytest
import rasterio
import shapely
from affine import Affine
from conftest import TRANSFORM
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from pyarrow import parquet
from rasterio.features import rasterize, shapes
from rasterio.transform import from_origin
from scipy.ndimage import gaussian_filter

from geoovseg.errors import GeoOVSegWarning, OutputError, SceneError, UsageError
from geoovseg.vectors.pieces import Recipe, block_windows, cut_pieces, whole_proportions
from geoovseg.vectors.seams import Groups, Seams
from geoovseg.vectors.vectorize import vectorize

Write = Callable[..., str]


def _write(path: Path, codes: np.ndarray, **profile: Any) -> str:
    size = {"height": codes.shape[0], "width": codes.shape[1], "count": 1, "dtype": codes.dtype}
    given_profile = {"driver": "GTiff", "crs": "EPSG:32632", "transform": TRANSFORM, **size, **profile}
    with rasterio.open(path, "w", **given_profile) as dst:
        dst.write(codes, 1)
    return str(path)


def _polygons(path: str, shape: tuple[int, int], codes: tuple[int, ...], block: int, tolerance: float = 0) -> Any:
    """Codes and polygons in corners of pixels."""
    task = Recipe(labels=path, size=shape[::-1], confidence=None, codes=codes, tolerance=tolerance, pixel=(1, 1))
    seams, found = Seams(), []
    for row in block_windows(*shape, block):
        found += list(seams.row([cut_pieces(task, window) for window in row], row[0].row_off))
    found += list(seams.end())
    return np.concatenate([f.codes for f in found]), np.concatenate([f.geometries for f in found])


def _labels(seed: int) -> np.ndarray:
    """Random labels: noise, or larger squares with noise on their borders."""
    rng = np.random.default_rng(seed)
    height, width, classes = rng.integers(5, 60), rng.integers(5, 60), rng.integers(2, 5)
    side = int(rng.choice([1, 4, 9]))
    squares = rng.integers(0, classes, (height // side + 1, width // side + 1))
    codes = np.kron(squares, np.ones((side, side), int))[:height, :width]
    noise = rng.random(codes.shape) < 0.05
    codes[noise] = rng.integers(0, classes, int(noise.sum()))
    return codes.astype(np.uint8)


@given(st.integers(0, 2**32 - 1), st.sampled_from([3, 7, 16, 64]), st.booleans())
@settings(max_examples=12, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_blocks_give_the_polygons_of_the_whole_raster(tmp_path: Path, seed: int, block: int, background: bool) -> None:
    codes = _labels(seed)
    wanted = tuple(range(0 if background else 1, 5))
    path = _write(tmp_path / "labels.tif", codes)
    expected = [
        (int(code), shapely.geometry.shape(shape))
        for shape, code in shapes(codes, mask=np.isin(codes, wanted), connectivity=4)
    ]
    if not expected:
        return
    found, polygons = _polygons(path, codes.shape, wanted, block)

    def known(pairs: Any) -> set[tuple[int, bytes]]:
        return {(int(c), shapely.normalize(shapely.simplify(p, 0)).wkb) for c, p in pairs}

    assert len(found) == len(expected)
    assert known(zip(found, polygons, strict=True)) == known(expected)
    assert shapely.is_valid(polygons).all()
    assert shapely.coverage_is_valid(polygons)
    once = _polygons(path, codes.shape, wanted, 1000)[1]
    assert shapely.get_num_coordinates(polygons).sum() == shapely.get_num_coordinates(once).sum()
    cleaned = shapely.coverage_clean([p for _, p in expected])
    assert shapely.get_num_coordinates(once).sum() <= shapely.get_num_coordinates(np.array(cleaned)).sum()


@given(st.integers(0, 2**32 - 1), st.sampled_from([7, 16, 64]), st.sampled_from([1.5, 3.0, 8.0]))
@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_a_simplified_coverage_has_no_gaps_and_no_overlaps(
    tmp_path: Path, seed: int, block: int, tolerance: float
) -> None:
    codes = _labels(seed)
    wanted = tuple(range(5))
    path = _write(tmp_path / "labels.tif", codes)
    _, polygons = _polygons(path, codes.shape, wanted, block, tolerance)
    assert shapely.coverage_is_valid(polygons)
    assert shapely.area(polygons).sum() == codes.size
    assert shapely.area(shapely.union_all(polygons)) == pytest.approx(codes.size)


PLACES = {
    "metres": (TRANSFORM, "EPSG:32632"),
    "odd metres": (Affine(0.3, 0, 480_000.1, 0, -0.3, 5_460_000.7), "EPSG:32632"),
    "oblong": (Affine(0.3, 0, 480_000.1, 0, -0.7, 5_460_000.7), "EPSG:32632"),
    "degrees": (Affine(5e-6, 0, 8.1, 0, -5e-6, 50.3), "EPSG:4326"),
    "turned": (TRANSFORM @ Affine.rotation(17), "EPSG:32632"),
}
RUNS = int(os.environ.get("GEOOVSEG_RUNS", "1"))
"""Seeds a place, each with two sizes of blocks."""


def _smooth_field(seed: int, side: int, classes: int = 5) -> np.ndarray:
    """Labels with many small regions whose borders are as a model's."""
    rng = np.random.default_rng(seed)
    noise = [gaussian_filter(rng.standard_normal((side, side)), 2 + seed // 3 % 3) for _ in range(classes)]
    return (np.argmax(noise, axis=0) + 1).astype(np.uint8)


@pytest.mark.parametrize("seed", range(2, 2 + RUNS))
@pytest.mark.parametrize("block", [130, 2048])
@pytest.mark.parametrize("place", PLACES)
def test_simplified_polygons_are_valid(tmp_path: Path, place: str, block: int, seed: int) -> None:
    transform, crs = PLACES[place]
    path = _write(tmp_path / "labels.tif", _smooth_field(seed, 400), crs=crs, transform=transform)
    metres = (5.0, 2.0, 1.0)[seed % 3]
    made = vectorize(path, tmp_path / "out.gpkg", simplify=metres, block=block)
    found = np.array(_read(tmp_path / "out.gpkg").geometry.values)
    assert shapely.is_valid(found).all()
    assert shapely.coverage_is_valid(found)
    assert made.invalid == 0


@pytest.mark.parametrize(("pixel", "numbers"), [((0.49995, 0.49996), (1, 1)), ((0.3, 0.7), (3, 7)), ((30, 1), (30, 1))])
def test_proportions_of_pixels_are_whole_numbers(pixel: tuple[float, float], numbers: tuple[int, int]) -> None:
    found, unit = whole_proportions(pixel)
    assert tuple(found) == numbers
    assert found * unit == pytest.approx(np.array(pixel), rel=0.01)


def test_polygons_that_are_not_valid_are_told(labels: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shapely, "is_valid", lambda found: np.zeros(len(found), bool))
    with pytest.warns(GeoOVSegWarning, match="3 of 3 polygons in .* are not valid"):
        assert vectorize(labels, tmp_path / "out.fgb").invalid == 3


def test_numbers_that_were_joined_share_the_smallest() -> None:
    groups = Groups()
    for pair in ((5, 3), (9, 5), (7, 8), (8, 3)):
        groups.join(*pair)
    assert {groups.root(n) for n in (3, 5, 7, 8, 9)} == {3}
    assert groups.root(4) == 4


@pytest.fixture
def labels(write_raster: Write) -> str:
    """Two classes, one of them in two places, and background."""
    codes = np.zeros((60, 80), np.uint8)
    codes[10:40, 10:30], codes[20:30, 15:20], codes[10:40, 30:60], codes[50:55, 70:75] = 1, 0, 2, 2
    return write_raster(codes[None], "labels.tif", nodata=255)


def _read(path: Path) -> Any:
    return pyogrio.read_dataframe(path, layer="classes")


def test_polygons_have_codes_names_areas_and_give_back_the_raster(labels: str, tmp_path: Path) -> None:
    result = vectorize(labels, tmp_path / "out.gpkg", names={1: "road"}, block=32, workers=1)
    found = _read(tmp_path / "out.gpkg")
    assert sorted(zip(found.class_id, found.class_name, strict=True)) == [(1, "road"), (2, "class 2"), (2, "class 2")]
    with rasterio.open(labels) as src:
        codes = src.read(1)
        shown = list(zip(found.geometry, found.class_id, strict=True))
        again = rasterize(shown, out_shape=src.shape, transform=src.transform)
        assert found.crs == src.crs
    np.testing.assert_array_equal(again, codes)
    assert result.polygons == 3
    assert set(result.area_m2) == {"road", "class 2"}
    for row in found.itertuples():
        area, length = _on_the_ground(row.geometry, "EPSG:32632")
        assert row.area_m2 == pytest.approx(area, rel=1e-9, abs=1e-6)  # PROJ rounds small areas; see test_measures
        assert row.perimeter_m == pytest.approx(length, rel=1e-9)


def _on_the_ground(polygon: Any, crs: str) -> tuple[float, float]:
    """Area, and length of all rings."""
    geod = pyproj.CRS(crs).get_geod()
    lonlat = pyproj.Transformer.from_crs(crs, pyproj.CRS(crs).geodetic_crs, always_xy=True)
    there = shapely.transform(polygon, lambda xy: np.stack(lonlat.transform(*xy.T), 1))
    area, _ = geod.geometry_area_perimeter(shapely.geometry.polygon.orient(there))
    return area, sum(geod.geometry_length(ring) for ring in (there.exterior, *there.interiors))


@pytest.mark.parametrize(
    ("crs", "transform", "near"),
    [
        ("EPSG:4326", from_origin(9.0, 49.0, 1e-5, 1e-5), 488),
        ("EPSG:3857", from_origin(1_000_000, 6_275_000, 1, 1), 259),
        ("EPSG:2225", from_origin(6_000_000, 2_000_000, 1, 1), 56),
        ("EPSG:4326", from_origin(179.9999, 0.0, 1e-5, 1e-5), 743),
    ],
    ids=["degrees", "web-mercator", "feet", "antimeridian"],
)
def test_areas_are_square_metres_on_the_ground(
    write_raster: Write, tmp_path: Path, crs: str, transform: Any, near: float
) -> None:
    path = write_raster(np.ones((1, 20, 30), np.uint8), "labels.tif", crs=crs, transform=transform)
    result = vectorize(path, tmp_path / "out.gpkg", workers=1)
    area, _ = _on_the_ground(_read(tmp_path / "out.gpkg").geometry[0], crs)
    assert result.area_m2["class 1"] == pytest.approx(area, rel=1e-4)
    assert area == pytest.approx(near, rel=0.02)


def test_a_place_in_which_no_polygon_can_be_is_told(write_raster: Write, tmp_path: Path) -> None:
    codes = np.arange(16, dtype=np.uint8).reshape(1, 4, 4) % 3 + 1
    path = write_raster(codes, "labels.tif", crs=None, transform=rasterio.Affine(np.nan, 0, np.nan, 0, -1, 1))
    with pytest.raises(SceneError, match="makes no polygons .*; check its transform"):
        vectorize(path, tmp_path / "out.gpkg")


def test_without_a_coordinate_system_there_are_no_areas(write_raster: Write, tmp_path: Path) -> None:
    path = write_raster(np.ones((1, 20, 30), np.uint8), "labels.tif", crs=None)
    with pytest.warns(GeoOVSegWarning, match="no coordinate system: area_m2 and perimeter_m stay empty") as said:
        assert vectorize(path, tmp_path / "out.gpkg", workers=1).area_m2 == {"class 1": None}
    assert len(said) == 1
    assert "--min-area, --simplify and --split-grid count in the raster's own units" in str(said[0].message)
    assert _read(tmp_path / "out.gpkg").area_m2.isna().all()


def test_a_place_on_the_ground_brings_no_warning(labels: str, tmp_path: Path) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error", GeoOVSegWarning)
        vectorize(labels, tmp_path / "out.gpkg", workers=1)


def test_a_geopackage_opens_coloured_and_named(labels: str, tmp_path: Path) -> None:
    vectorize(labels, tmp_path / "out.gpkg", names={1: "road"}, workers=1)
    with sqlite3.connect(tmp_path / "out.gpkg") as base:
        (name, column, qml, default), *others = base.execute(
            "SELECT f_table_name, f_geometry_column, styleQML, useAsDefault FROM layer_styles"
        )
        kinds = dict(base.execute("SELECT table_name, data_type FROM gpkg_contents"))
        index = base.execute("SELECT count(*) FROM gpkg_extensions WHERE extension_name = 'gpkg_rtree_index'")
        assert index.fetchone() == (1,)
    base.close()
    assert not others
    assert (name, column, default) == ("classes", "geom", 1)
    assert 'attr="class_id"' in qml
    assert 'label="road"' in qml
    assert kinds == {"classes": "features", "layer_styles": "attributes"}


@pytest.mark.parametrize("suffix", [".fgb", ".geojson", ".geojsonl"])
def test_other_formats_go_by_their_suffix(labels: str, tmp_path: Path, suffix: str) -> None:
    vectorize(labels, tmp_path / f"out{suffix}", workers=1)
    found = pyogrio.read_dataframe(tmp_path / f"out{suffix}")
    assert len(found) == 3
    if suffix != ".fgb":
        assert found.crs == "EPSG:4326"
        assert found.total_bounds[0] == pytest.approx(8.727, abs=0.01)


def test_confidence_is_the_mean_over_a_polygon(labels: str, write_raster: Write, tmp_path: Path) -> None:
    with rasterio.open(labels) as src:
        sure = np.where(src.read(1) == 1, 200, 100).astype(np.uint8)
    path = write_raster(sure[None], "sure.tif", nodata=255)
    with rasterio.open(path, "r+") as dst:
        dst.scales = (1 / 250,)
    vectorize(labels, tmp_path / "out.gpkg", confidence=path, block=16, workers=1)
    found = _read(tmp_path / "out.gpkg")
    for code, mean in zip(found.class_id, found.confidence, strict=True):
        assert mean == pytest.approx(0.8 if code == 1 else 0.4)


def test_processes_do_not_change_polygons(labels: str, tmp_path: Path) -> None:
    for count in (1, 2):
        vectorize(labels, tmp_path / f"{count}.gpkg", block=32, workers=count)
    one, two = (_read(tmp_path / f"{count}.gpkg") for count in (1, 2))
    assert one.equals(two)


def test_a_split_grid_cuts_polygons(labels: str, tmp_path: Path) -> None:
    vectorize(labels, tmp_path / "out.gpkg", split_grid=10, workers=1)
    found = _read(tmp_path / "out.gpkg")
    bounds = found.geometry.bounds
    assert ((bounds.maxx - bounds.minx) <= 10.01).all()
    assert ((bounds.maxy - bounds.miny) <= 10.01).all()
    whole = vectorize(labels, tmp_path / "whole.gpkg", workers=1)
    assert found.area_m2.sum() == pytest.approx(sum(a for a in whole.area_m2.values() if a), rel=1e-4)


def test_a_split_grid_wider_than_blocks_cuts_all_the_same(labels: str, tmp_path: Path) -> None:
    """Cells of 25 pixels in blocks of at most 16: two of 12 make a cell of 24."""
    vectorize(labels, tmp_path / "out.gpkg", split_grid=12.5, block=16, workers=1)
    bounds = _read(tmp_path / "out.gpkg").geometry.bounds
    assert ((bounds.maxx - bounds.minx) <= 12.5).all()
    assert ((bounds.maxy - bounds.miny) <= 12.5).all()
    edges = set(bounds.maxx)
    assert {480_012, 480_024, 480_036} <= edges
    assert not {480_006, 480_018} & edges


def test_classes_are_picked_by_name(labels: str, tmp_path: Path) -> None:
    result = vectorize(labels, tmp_path / "out.gpkg", classes=["class 2"], workers=1)
    assert list(result.area_m2) == ["class 2"]
    assert set(_read(tmp_path / "out.gpkg").class_id) == {2}


def test_labels_of_ours_keep_names_and_colours(geoovseg: Callable[..., Any], demo_scene: str, tmp_path: Path) -> None:
    labels = str(tmp_path / "labels.tif")
    common = ["--model", "demo", "-c", "building,road,water", "-o", labels]
    assert geoovseg("segment", demo_scene, *common)[0] == 0
    code, out, err = geoovseg("vectorize", labels, tmp_path / "out.gpkg", "--simplify", "1", "--json")
    assert code == 0, err
    said = json.loads(out)
    assert said["layer"] == "classes"
    found = _read(tmp_path / "out.gpkg")
    assert len(found) == said["polygons"]
    assert set(found.class_name) <= {"building", "road", "water"}
    assert shapely.coverage_is_valid(np.array(found.geometry.values))
    code, _, err = geoovseg("vectorize", labels, tmp_path / "out.gpkg")
    assert code != 0
    assert "exists; add --overwrite to replace it" in err


@pytest.mark.parametrize(
    ("change", "error", "message"),
    [
        ({"output": "out.shp"}, UsageError, "must end in .gpkg, .fgb"),
        ({"output": "nowhere/out.gpkg"}, OutputError, "does not exist"),
        ({"classes": ["rod"]}, UsageError, "has no class 'rod'; it has class 0, class 1, class 2"),
        ({"simplify": -1.0}, UsageError, "must be a number of metres"),
        ({"simplify": float("nan")}, UsageError, "must be a number of metres"),
        ({"split_grid": 0.1}, UsageError, "less than a pixel"),
        ({"split_grid": float("nan")}, UsageError, "no number of metres"),
        ({"split_grid": float("inf")}, UsageError, "no number of metres"),
    ],
)
def test_what_cannot_be_done_is_refused(
    labels: str, tmp_path: Path, change: dict[str, Any], error: type[Exception], message: str
) -> None:
    arguments = {"output": "out.gpkg", "workers": 1, **change}
    arguments["output"] = tmp_path / arguments["output"]
    with pytest.raises(error, match=message):
        vectorize(labels, **arguments)
    assert [p.name for p in tmp_path.iterdir()] == ["labels.tif"]


def test_rasters_that_are_no_labels_are_refused(write_raster: Write, tmp_path: Path) -> None:
    path = write_raster(np.zeros((1, 9, 9), np.float32), "float.tif")
    with pytest.raises(SceneError, match="float32 pixels; labels are whole numbers"):
        vectorize(path, tmp_path / "out.gpkg", workers=1)


def test_labels_without_classes_give_an_empty_layer(write_raster: Write, tmp_path: Path) -> None:
    path = write_raster(np.zeros((1, 9, 9), np.uint8), "empty.tif")
    assert vectorize(path, tmp_path / "out.gpkg", workers=1).polygons == 0
    assert len(_read(tmp_path / "out.gpkg")) == 0


def test_segment_makes_polygons_when_asked(geoovseg: Callable[..., Any], demo_scene: str, tmp_path: Path) -> None:
    common = ["segment", demo_scene, "--model", "demo", "-c", "road,water", "-o", tmp_path / "labels.tif"]
    sure = ["--confidence", tmp_path / "sure.tif"]
    code, out, err = geoovseg(*common, *sure, "--vectors", tmp_path / "out.gpkg", "--json", "--quiet")
    assert code == 0, err
    said = json.loads(out)
    assert said["vectors"] == str(tmp_path / "out.gpkg")
    found = _read(tmp_path / "out.gpkg")
    assert len(found) > 0
    assert found.confidence.between(0, 1).all()
    for more, message in (
        (["--overwrite", "--shard", "1/2"], "after `geoovseg merge`"),
        ([], "exists; add --overwrite to replace it"),
        (["--overwrite", demo_scene], "with several scenes, or a folder of them, the output is a folder"),
    ):
        code, _, err = geoovseg(*common, "--vectors", tmp_path / "out.gpkg", *more)
        assert code != 0
        assert message in err


def test_geoparquet_has_its_metadata(labels: str, tmp_path: Path) -> None:
    vectorize(labels, tmp_path / "out.parquet", workers=1)
    vectorize(labels, tmp_path / "out.gpkg", workers=1)
    found, same = geopandas.read_parquet(tmp_path / "out.parquet"), _read(tmp_path / "out.gpkg")
    assert found.crs == same.crs
    assert found.geometry.geom_equals(same.geometry).all()
    assert list(found.class_name) == list(same.class_name)
    geo = json.loads(parquet.read_metadata(tmp_path / "out.parquet").metadata[b"geo"])
    assert (geo["version"], geo["primary_column"]) == ("1.1.0", "geom")
    assert geo["columns"]["geom"]["geometry_types"] == ["Polygon"]
    assert geo["columns"]["geom"]["bbox"] == found.total_bounds.tolist()
    some = geopandas.read_parquet(tmp_path / "out.parquet", bbox=tuple(found.geometry[0].bounds))
    assert 0 < len(some) < len(found)


@pytest.mark.parametrize(
    ("crs", "transform"),
    [("EPSG:4326", from_origin(179.9999, 0, 1e-5, 1e-5)), ("EPSG:3832", from_origin(3_339_570, 100, 1, 1))],
    ids=["degrees", "metres"],
)
@pytest.mark.parametrize("suffix", [".geojson", ".geojsonl"])
def test_geojson_is_cut_at_the_antimeridian(
    write_raster: Write, tmp_path: Path, crs: str, transform: Any, suffix: str
) -> None:
    path = write_raster(np.ones((1, 20, 30), np.uint8), "labels.tif", crs=crs, transform=transform)
    vectorize(path, tmp_path / f"out{suffix}", workers=1)
    said = json.loads((tmp_path / f"out{suffix}").read_text())
    shape = (said["features"][0] if suffix == ".geojson" else said)["geometry"]
    assert shape["type"] == "MultiPolygon"
    west, _, east, _ = shapely.geometry.shape(shape).bounds
    assert (west, east) == (-180, 180)
    assert shapely.geometry.shape(shape).area == pytest.approx(
        30 * 20 * (1e-10 if crs == "EPSG:4326" else 8.07e-11), rel=0.01
    )


def test_geojson_needs_a_place_on_earth(write_raster: Write, tmp_path: Path) -> None:
    for crs, message in ((None, "no coordinate system"), ("IAU_2015:30100", "does not lead")):
        path = write_raster(np.ones((1, 20, 30), np.uint8), "labels.tif", crs=crs)
        for suffix in (".geojson", ".geojsonl"):
            with pytest.raises(UsageError, match=message):
                vectorize(path, tmp_path / f"out{suffix}", workers=1)


def test_areas_on_the_moon_are_the_moons(write_raster: Write, tmp_path: Path) -> None:
    place = from_origin(0, 0, 0.1, 0.1)
    path = write_raster(np.ones((1, 10, 10), np.uint8), "labels.tif", crs="IAU_2015:30100", transform=place)
    area = vectorize(path, tmp_path / "out.gpkg", workers=1).area_m2["class 1"]
    radius = 1_737_400
    assert area == pytest.approx(radius**2 * np.sin(np.pi / 180) * np.pi / 180, rel=1e-4)


def test_names_come_from_a_table_of_categories(write_raster: Write, tmp_path: Path) -> None:
    path = write_raster(np.arange(4, dtype=np.uint8).reshape(1, 2, 2), "labels.tif")
    Path(path + ".aux.xml").write_text(
        '<PAMDataset><PAMRasterBand band="1"><CategoryNames><Category>other</Category><Category>road</Category>'
        "<Category></Category><Category>water</Category></CategoryNames></PAMRasterBand></PAMDataset>"
    )
    assert set(vectorize(path, tmp_path / "out.gpkg", workers=1).area_m2) == {"road", "class 2", "water"}
    only = vectorize(path, tmp_path / "all.gpkg", workers=1, classes=["other", "water"])
    assert set(only.area_m2) == {"other", "water"}


def test_what_is_masked_has_no_polygon(write_raster: Write, tmp_path: Path) -> None:
    path = write_raster(np.ones((1, 20, 30), np.uint8), "labels.tif")
    with rasterio.Env(GDAL_TIFF_INTERNAL_MASK=True), rasterio.open(path, "r+") as dst:
        mask = np.full((20, 30), 255, np.uint8)
        mask[:, 20:] = 0
        dst.write_mask(mask)
    vectorize(path, tmp_path / "out.gpkg", workers=1)
    (polygon,) = _read(tmp_path / "out.gpkg").geometry
    assert polygon.area == pytest.approx(20 * 20 * TRANSFORM.a**2)


def test_negative_codes_are_classes_too(write_raster: Write, tmp_path: Path) -> None:
    codes = np.array([[[-1, -1], [3, -7]]], np.int16)
    vectorize(write_raster(codes, "labels.tif"), tmp_path / "out.gpkg", workers=1)
    assert sorted(_read(tmp_path / "out.gpkg").class_id) == [-7, -1, 3]


def test_codes_beyond_a_column_are_refused(write_raster: Write, tmp_path: Path) -> None:
    path = write_raster(np.full((1, 2, 2), 2**31, np.uint32), "labels.tif")
    with pytest.raises(SceneError, match="has the code 2147483648; codes go to"):
        vectorize(path, tmp_path / "out.gpkg", workers=1)


@pytest.mark.parametrize("suffix", [".gpkg", ".parquet", ".geojsonl"])
@pytest.mark.parametrize("error", [SceneError("cannot read labels.tif: broken"), KeyboardInterrupt()])
def test_what_fails_while_polygons_are_made_is_told_as_it_is(
    labels: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, suffix: str, error: BaseException
) -> None:
    def fail(*args: Any) -> Any:
        raise error

    monkeypatch.setattr(Seams, "end", fail)
    with pytest.raises(type(error)) as caught:
        vectorize(labels, tmp_path / f"out{suffix}", workers=1)
    assert caught.value is error
    assert [p.name for p in tmp_path.iterdir()] == ["labels.tif"]


def test_a_raster_cut_short_is_one_error(labels: str, tmp_path: Path, geoovseg: Callable[..., Any]) -> None:
    codes = np.random.default_rng(0).integers(0, 5, (600, 600), np.uint8)
    path = _write(tmp_path / "long.tif", codes)
    Path(path).write_bytes(Path(path).read_bytes()[:200_000])
    code, out, err = geoovseg("vectorize", path, tmp_path / "out.gpkg", "--workers", "2")
    assert (code, out) == (4, "")
    assert "cannot read" in err
    assert not (tmp_path / "out.gpkg").exists()


def test_a_confidence_raster_of_another_grid_is_refused(labels: str, write_raster: Write, tmp_path: Path) -> None:
    other = write_raster(np.ones((1, 9, 9), np.uint8), "sure.tif")
    with pytest.raises(UsageError, match=r"sure.tif lies on another grid"):
        vectorize(labels, tmp_path / "out.gpkg", confidence=other, workers=1)


def test_polygons_too_detailed_to_draw_bring_a_hint(
    labels: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, geoovseg: Callable[..., Any]
) -> None:
    monkeypatch.setattr("geoovseg.vectors.vectorize.MANY", 10)
    code, out, err = geoovseg("vectorize", labels, tmp_path / "out.gpkg", "--workers", "1", "--json")
    assert code == 0
    assert "--split-grid 1000 would cut it" in err
    assert "--split-grid 1000" in json.loads(out)["hint"]


@pytest.mark.parametrize(("block", "workers"), [(64, 2), (500, 1), (2048, 1)])
def test_unsimplified_polygons_give_back_labels_of_many_blocks(tmp_path: Path, block: int, workers: int) -> None:
    rng = np.random.default_rng(3)
    codes = np.kron(rng.integers(0, 4, (28, 33)), np.ones((20, 20), int)).astype(np.uint8)
    codes[rng.random(codes.shape) < 0.002] = 3
    path = _write(tmp_path / "labels.tif", codes)
    vectorize(path, tmp_path / "out.gpkg", block=block, workers=workers)
    found = _read(tmp_path / "out.gpkg")
    shown = list(zip(found.geometry, found.class_id, strict=True))
    np.testing.assert_array_equal(rasterize(shown, out_shape=codes.shape, transform=TRANSFORM), codes)
    assert len(found) == sum(1 for _ in shapes(codes, mask=codes > 0, connectivity=4))


@pytest.mark.parametrize("block", [64, 100, 2048])
@pytest.mark.parametrize("tolerance", [0.0, 2.0])
def test_blocks_of_demo_labels_make_one_valid_coverage(
    drawn: tuple[np.ndarray, np.ndarray], tmp_path: Path, block: int, tolerance: float
) -> None:
    codes = drawn[1]
    path = _write(tmp_path / "labels.tif", codes)
    wanted = tuple(np.unique(codes).tolist())
    found, polygons = _polygons(path, codes.shape, wanted, block, tolerance)
    once, whole = _polygons(path, codes.shape, wanted, 5000, tolerance)
    assert sorted(found.tolist()) == sorted(once.tolist())
    assert shapely.coverage_is_valid(polygons)
    assert shapely.area(polygons).sum() == shapely.area(shapely.union_all(polygons)) == codes.size
    if not tolerance:
        areas = [
            sorted(zip(c.tolist(), shapely.area(p).tolist(), strict=True))
            for c, p in ((found, polygons), (once, whole))
        ]
        assert areas[0] == areas[1]
