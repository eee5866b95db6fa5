"""Samples, areas with intervals, and areas by zones."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import geopandas
import numpy as np
import pytest
import rasterio
import shapely
from hypothesis import given, settings
from hypothesis import strategies as st
from rasterio.features import rasterize
from rasterio.transform import Affine, from_origin

from geoovseg import evaluate_points, sample, stats
from geoovseg.errors import OutputError, SceneError, UsageError
from geoovseg.evaluation.areas import allocation, estimate

OLOFSSON = np.array([[66, 0, 5, 4], [0, 55, 8, 12], [1, 0, 153, 11], [2, 1, 9, 313]])
"""Table 8 of Olofsson et al. 2014: deforestation, forest gain, stable forest, stable non-forest."""
PIXELS = (200_000, 150_000, 3_200_000, 6_450_000)
NAMES = ("deforestation", "forest gain", "stable forest", "stable non-forest")
HECTARES = [pixels * 30 * 30 / 10_000 for pixels in PIXELS]


def test_the_worked_example_of_olofsson_comes_out_to_the_printed_digits() -> None:
    found = estimate(NAMES, OLOFSSON, HECTARES, unit="ha")
    areas = [(round(c.area.value), round(c.area.margin)) for c in found.classes.values()]
    assert areas == [(21_158, 6_158), (11_686, 3_756), (285_770, 15_510), (581_386, 16_282)]
    users = [(round(u.value, 2), round(u.margin, 2)) for c in found.classes.values() if (u := c.users_accuracy)]
    assert users == [(0.88, 0.07), (0.73, 0.10), (0.93, 0.04), (0.96, 0.02)]
    producers = [(round(p.value, 2), round(p.margin, 2)) for c in found.classes.values() if (p := c.producers_accuracy)]
    # printed are 0.23 and 0.01 for the second and the last, which do not follow from the paper's own eq. 7
    assert producers == [(0.75, 0.21), (0.85, 0.25), (0.93, 0.03), (0.96, 0.02)]
    assert (round(found.accuracy.value, 2), round(found.accuracy.margin, 2)) == (0.95, 0.02)


def test_a_class_that_the_map_has_not_gets_an_area() -> None:
    counts = np.array([[40, 10], [0, 0]])
    found = estimate(("field", "pond"), counts, [100.0, 0.0], unit="ha").classes["pond"]
    assert (found.mapped, found.area.value, found.points) == (0.0, pytest.approx(20.0), 0)
    assert found.users_accuracy is None
    assert found.producers_accuracy is not None
    assert found.producers_accuracy.value == 0


def test_too_few_points_of_a_class_are_refused() -> None:
    with pytest.raises(UsageError, match=r"too few points with a truth in pond \(1\)"):
        estimate(("field", "pond"), np.array([[40, 1], [0, 1]]), [100.0, 2.0], unit="ha")


@given(
    pixels=st.lists(st.integers(1, 10_000), min_size=1, max_size=8),
    n=st.integers(1, 3000),
    way=st.sampled_from(["neyman", "proportional", "equal"]),
    least=st.integers(0, 100),
    expected=st.lists(st.sampled_from([0.0, 0.5, 0.8, 1.0]), min_size=8, max_size=8),
)
@settings(max_examples=150, deadline=None)
def test_points_are_shared_out_whole_and_never_more_than_there_are_pixels(
    pixels: list[int], n: int, way: str, least: int, expected: list[float]
) -> None:
    classes = {str(k): count for k, count in enumerate(pixels)}
    found = allocation(classes, n, way, dict(zip(classes, expected, strict=False)), least)
    assert sum(found.values()) == min(n, sum(pixels))
    assert all(0 <= found[name] <= count for name, count in classes.items())
    floor = min(least, n // (2 * len(pixels)))
    assert all(found[name] >= min(floor, count) for name, count in classes.items())


def test_points_follow_areas_and_expected_errors() -> None:
    pixels = {"a": 600_000, "b": 400_000}
    assert allocation(pixels, 100, "equal", {}, 0) == {"a": 50, "b": 50}
    assert allocation(pixels, 100, "proportional", {}, 0) == {"a": 60, "b": 40}
    # 0.6 sqrt(.9 .1) : 0.4 sqrt(.5 .5) = 0.18 : 0.20
    assert allocation(pixels, 38, "neyman", {"a": 0.9, "b": 0.5}, 0) == {"a": 18, "b": 20}
    assert allocation({"a": 990_000, "b": 10_000}, 200, "proportional", {}, 50) == {"a": 150, "b": 50}


def _labels(
    path: Path, codes: np.ndarray, crs: str | None, transform: Affine, names: Any = ("background", "field", "pond")
) -> Path:
    profile = {"driver": "GTiff", "height": codes.shape[0], "width": codes.shape[1], "count": 1, "dtype": "uint8"}
    with rasterio.open(path, "w", **profile, crs=crs, transform=transform, nodata=255, tiled=True) as dst:
        dst.write(codes.astype(np.uint8), 1)
        dst.update_tags(1)
    listed = "".join(f"<Category>{name}</Category>" for name in names)
    text = f'<PAMDataset><PAMRasterBand band="1"><CategoryNames>{listed}</CategoryNames></PAMRasterBand></PAMDataset>'
    Path(f"{path}.aux.xml").write_text(text)
    return path


UTM = ("EPSG:32632", from_origin(500_000, 5_000_000, 10, 10))


@pytest.fixture
def labels(tmp_path: Path) -> Path:
    """1200 x 1100 pixels of 10 m, more than a block: background, a field, a pond, and no data."""
    codes = np.zeros((1200, 1100), np.uint8)
    codes[:, 300:], codes[200:420, 900:1090], codes[:40] = 1, 2, 255
    return _labels(tmp_path / "labels.tif", codes, *UTM)


def _codes(labels: Path, table: Any) -> list[int]:
    with rasterio.open(labels) as src:
        return [int(value[0]) for value in src.sample([(p.x, p.y) for p in table.geometry])]


@pytest.mark.parametrize("by", ["neyman", "proportional", "equal", "none"])
def test_points_of_a_sample_lie_in_their_class_each_in_a_pixel_of_its_own(
    labels: Path, tmp_path: Path, by: str
) -> None:
    result = sample(labels, tmp_path / "s.gpkg", n=200, by=by, seed=3)
    table = geopandas.read_file(tmp_path / "s.gpkg", layer="sample")
    assert len(table) == 200 == sum(result.points.values())
    assert len(set(zip(table.geometry.x, table.geometry.y, strict=True))) == 200
    assert _codes(labels, table) == table.class_id.tolist()
    assert set(table.class_name) <= {"background", "field", "pond"}
    assert not table.truth.any()
    assert table.crs == "EPSG:32632"


def test_the_same_seed_draws_the_same_points(labels: Path, tmp_path: Path) -> None:
    for name, seed in (("a", 1), ("b", 1), ("c", 2)):
        sample(labels, tmp_path / f"{name}.fgb", n=60, seed=seed)
    a, b, c = (geopandas.read_file(tmp_path / f"{name}.fgb").sort_values("id").geometry.to_wkb() for name in "abc")
    assert a.tolist() == b.tolist() != c.tolist()


def test_every_pixel_is_drawn_alike(tmp_path: Path) -> None:
    codes = np.ones((8, 9), np.uint8)
    path = _labels(tmp_path / "l.tif", codes, *UTM)
    drawn = np.zeros(codes.shape)
    for seed in range(40):
        sample(path, tmp_path / "s.gpkg", n=18, seed=seed, overwrite=True)
        table = geopandas.read_file(tmp_path / "s.gpkg", layer="sample")
        cols, rows = ~UTM[1] @ (table.geometry.x.to_numpy(), table.geometry.y.to_numpy())
        drawn[rows.astype(int), cols.astype(int)] += 1
    assert drawn.sum() == 40 * 18
    chi2 = ((drawn - 10) ** 2 / (10 * 0.75)).sum()  # of 71 degrees of freedom: 40 to 110 in all but 1 of 1000
    assert 40 < chi2 < 110


def test_a_sample_with_its_truth_gives_the_true_areas(labels: Path, tmp_path: Path) -> None:
    """A map of which a tenth of the field is pond in truth: 95 % intervals hold the true area nearly always."""
    with rasterio.open(labels) as src:
        mapped = src.read(1)
    truth = np.where((mapped == 1) & (np.random.default_rng(0).random(mapped.shape) < 0.1), 2, mapped)
    area = (truth == 2).sum() / 100
    held = 0
    for seed in range(20):
        sample(labels, tmp_path / "s.gpkg", n=300, seed=seed, overwrite=True)
        table = geopandas.read_file(tmp_path / "s.gpkg", layer="sample")
        cols, rows = ~UTM[1] @ (table.geometry.x.to_numpy(), table.geometry.y.to_numpy())
        table["truth"] = np.array(["background", "field", "pond"])[truth[rows.astype(int), cols.astype(int)]]
        table.to_file(tmp_path / "t.fgb")
        pond = evaluate_points(labels, tmp_path / "t.fgb").classes["pond"]
        held += abs(pond.area.value - area) < pond.area.margin * 1.003  # areas on the ellipsoid are a little others
    assert held >= 16


def _filled(labels: Path, folder: Path, **changed: Any) -> Path:
    sample(labels, folder / "s.gpkg", n=90, by="equal", overwrite=True)
    table = geopandas.read_file(folder / "s.gpkg", layer="sample")
    table["truth"] = table.class_name
    for name, value in changed.items():
        table.loc[table.index[:5], name] = value
    table.to_file(folder / "filled.gpkg", driver="GPKG")
    return folder / "filled.gpkg"


def test_points_without_a_truth_are_counted_and_left_out(labels: Path, tmp_path: Path) -> None:
    found = evaluate_points(labels, _filled(labels, tmp_path, truth=" "))
    assert (found.points, found.unlabelled) == (85, 5)


def test_labels_other_than_those_that_were_drawn_from_are_refused(labels: Path, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="point 1 was drawn in swamp"):
        evaluate_points(labels, _filled(labels, tmp_path, class_name="swamp"))


def test_names_of_truth_may_be_in_any_case_and_in_other_coordinates(labels: Path, tmp_path: Path) -> None:
    path = _filled(labels, tmp_path)
    table = geopandas.read_file(path)
    table["truth"] = table.truth.str.upper()
    table.to_crs(4326).to_file(tmp_path / "degrees.geojson", driver="GeoJSON", COORDINATE_PRECISION=12)
    found = evaluate_points(labels, tmp_path / "degrees.geojson")
    assert (found.accuracy.value, found.points, found.order) == (1.0, 90, ["background", "field", "pond"])


def test_truth_may_be_a_code_and_empty_in_any_way(labels: Path, tmp_path: Path) -> None:
    path = _filled(labels, tmp_path)
    table = geopandas.read_file(path)
    table["truth"] = table.class_id.astype("Int64")
    table.loc[table.index[:3], "truth"] = None
    table.to_parquet(tmp_path / "codes.parquet")
    found = evaluate_points(labels, tmp_path / "codes.parquet")
    assert (found.accuracy.value, found.points, found.unlabelled) == (1.0, 87, 3)


def test_names_that_differ_in_case_are_classes_of_their_own(tmp_path: Path) -> None:
    codes = np.repeat([[1, 2]], 30, 0).repeat(15, 1)
    path = _labels(tmp_path / "l.tif", codes, *UTM, names=("none", "Tree", "tree"))
    assert evaluate_points(path, _filled(path, tmp_path)).accuracy.value == 1
    geopandas.GeoDataFrame({"n": [1]}, geometry=[_whole(path)], crs=UTM[0]).to_file(tmp_path / "z.gpkg")
    stats(path, tmp_path / "z.gpkg", tmp_path / "o.gpkg")
    found = geopandas.read_file(tmp_path / "o.gpkg")
    assert found["Tree (1)_ha"][0] == pytest.approx(found["tree (2)_ha"][0], rel=1e-3)


def _whole(path: Path) -> Any:
    with rasterio.open(path) as src:
        return shapely.box(*src.bounds)


def test_points_that_are_the_same_and_labels_that_lost_theirs_are_told(labels: Path, tmp_path: Path) -> None:
    path = _filled(labels, tmp_path)
    table = geopandas.read_file(path)
    geopandas.GeoDataFrame(np.repeat(table.to_numpy(), 2, 0), columns=table.columns, crs=table.crs).to_file(path)
    assert "90 points lie where others do" in evaluate_points(labels, path).remarks[0]
    codes = np.full((1200, 1100), 255)
    codes[600:] = 1
    with pytest.raises(UsageError, match="was drawn in .*, and .* has no data there"):
        evaluate_points(_labels(tmp_path / "other.tif", codes, *UTM), path)


def test_codes_below_0_and_labels_without_data_are_refused(tmp_path: Path, labels: Path) -> None:
    path = tmp_path / "negative.tif"
    profile = {"driver": "GTiff", "height": 4, "width": 4, "count": 1, "dtype": "int16", "crs": UTM[0]}
    with rasterio.open(path, "w", **profile, transform=UTM[1]) as dst:
        dst.write(np.full((1, 4, 4), -1, np.int16))
    geopandas.GeoDataFrame({"n": [1]}, geometry=[_whole(path)], crs=UTM[0]).to_file(tmp_path / "z.gpkg")
    for run in (
        lambda: sample(path, tmp_path / "n.gpkg", n=3),
        lambda: stats(path, tmp_path / "z.gpkg", tmp_path / "n.csv"),
        lambda: evaluate_points(path, _filled(labels, tmp_path)),
    ):
        with pytest.raises(SceneError, match="has the code -1; classes are coded 0 and up"):
            run()
    empty = _labels(tmp_path / "empty.tif", np.full((4, 4), 255), *UTM)
    with pytest.raises(UsageError, match="has no pixel with data"):
        evaluate_points(empty, _filled(labels, tmp_path))


def test_the_commands_tell_what_the_functions_do(geoovseg: Any, labels: Path, tmp_path: Path) -> None:
    code, out, err = geoovseg("sample", str(labels), str(tmp_path / "s.gpkg"), "-n", "90", "--expect", "pond=.6")
    assert (code, out.strip()) == (0, str(tmp_path / "s.gpkg"))
    assert "points in pond" in err
    code, out, err = geoovseg("evaluate", str(labels), "--points", str(_filled(labels, tmp_path)), "--json")
    assert code == 0, err
    assert json.loads(out)["classes"]["pond"]["area"]["value"] == pytest.approx(418, rel=0.002)
    code, out, err = geoovseg("evaluate", str(labels), "--points", str(tmp_path / "s.gpkg"))
    assert (code, "too few points with a truth" in err) == (2, True)
    code, _, err = geoovseg("evaluate", str(labels))
    assert (code, "give LABELS and TRUTH" in err) == (2, True)
    code, _, err = geoovseg("evaluate", str(labels), "--points", "x.gpkg", "--map", "a=b")
    assert (code, "--map is for TRUTH" in err) == (2, True)


@pytest.mark.parametrize(
    ("more", "message"),
    [
        ({"n": 0}, "-n 0 must be"),
        ({"n": 5, "by": "size"}, "--by size"),
        ({"n": 5, "expected": {"ponds": 0.5}}, r"no such class \(did you mean pond\?\)"),
        ({"n": 5, "expected": {"pond": 2}}, "an accuracy is a share"),
    ],
)
def test_what_cannot_be_drawn_is_refused(labels: Path, tmp_path: Path, more: dict[str, Any], message: str) -> None:
    with pytest.raises(UsageError, match=message):
        sample(labels, tmp_path / "s.gpkg", **more)
    with pytest.raises(UsageError, match="points need a file of shapes"):
        sample(labels, tmp_path / "s.csv", n=5)


def test_a_sample_opens_in_qgis_with_colours_and_a_list_of_classes(labels: Path, tmp_path: Path) -> None:
    import sqlite3

    sample(labels, tmp_path / "s.gpkg", n=50)
    with sqlite3.connect(tmp_path / "s.gpkg") as base:
        (style,) = base.execute("SELECT styleQML FROM layer_styles WHERE f_table_name = 'sample'").fetchone()
        (geometry,) = base.execute("SELECT f_geometry_column FROM layer_styles").fetchone()
        assert (geometry,) in base.execute("SELECT column_name FROM gpkg_geometry_columns").fetchall()
    assert '<editWidget type="ValueMap">' in style
    assert '<Option name="pond" value="pond" type="QString" />' in style
    assert 'attr="class_id"' in style


PLACES = {
    "metres": UTM,
    "degrees": ("EPSG:4326", from_origin(8, 47, 0.0002, 0.0001)),
    "turned": ("EPSG:3035", from_origin(4_000_000, 3_000_000, 8, 8) @ Affine.rotation(20)),
}


def _finely(codes: np.ndarray, transform: Affine, zone: Any, crs: str, by: int = 25) -> dict[int, float]:
    """Square metres of each code in a zone: pixels cut into 25 x 25, each as large as one in an equal-area grid."""
    small = np.repeat(np.repeat(codes, by, 0), by, 1)
    inside = rasterize([zone], small.shape, transform=transform @ Affine.scale(1 / by))
    corners = [transform @ corner for corner in ((20, 20), (21, 20), (21, 21), (20, 21))]
    pixel = geopandas.GeoSeries([shapely.Polygon(corners)], crs=crs).to_crs("EPSG:3035").area.iloc[0]
    return {int(code): float(((small == code) & (inside == 1)).sum()) * pixel / by**2 for code in np.unique(codes)}


@pytest.mark.parametrize("place", PLACES)
def test_areas_of_zones_equal_those_of_a_fine_grid(tmp_path: Path, place: str) -> None:
    crs, transform = PLACES[place]
    codes = np.random.default_rng(1).choice([0, 1, 2, 255], (40, 44), p=[0.2, 0.4, 0.3, 0.1]).repeat(1, 0)
    path = _labels(tmp_path / "l.tif", codes, crs, transform)
    corners = [[(2.3, 3.1), (30.7, 5.2), (20.2, 33.8)], [(10.5, 10.5), (60, 10.5), (60, 60), (10.5, 60)]]
    zones = [shapely.Polygon([transform @ corner for corner in each]) for each in corners]
    table = geopandas.GeoDataFrame({"name": ["a", "b"], "pond_ha": [1, 2]}, geometry=zones, crs=crs)
    table.to_file(tmp_path / "z.gpkg")
    result = stats(path, tmp_path / "z.gpkg", tmp_path / "o.gpkg")
    found = geopandas.read_file(tmp_path / "o.gpkg")
    assert found.pond_ha_of_zone.tolist() == [1, 2]
    for n, zone in enumerate(zones):
        expected = _finely(codes, transform, zone, crs)
        total = sum(area for code, area in expected.items() if code != 255)
        for code, name in ((0, "background"), (1, "field"), (2, "pond"), (255, "nodata")):
            assert found[f"{name}_ha"][n] * 1e4 == pytest.approx(expected[code], rel=0.01)
            if code != 255:
                assert found[f"{name}_share"][n] == pytest.approx(expected[code] / total, abs=0.003)
    assert result.total["pond"] == pytest.approx(found.pond_ha.sum(), abs=1e-5)


def test_zones_over_all_of_a_map_have_its_areas_whatever_the_blocks(
    labels: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    west, south, east, north = rasterio.open(labels).bounds
    halves = [shapely.box(west, south, 505_003, north), shapely.box(505_003, south, east, north)]
    geopandas.GeoDataFrame({"n": [1, 2]}, geometry=halves, crs=UTM[0]).to_crs(4326).to_file(tmp_path / "z.gpkg")
    one = stats(labels, tmp_path / "z.gpkg", tmp_path / "one.csv").total
    monkeypatch.setattr("geoovseg.vectors.zones.BLOCK", 100)
    other = stats(labels, tmp_path / "z.gpkg", tmp_path / "other.csv").total
    assert one == pytest.approx(other, rel=1e-6)
    assert one["pond"] == pytest.approx(418, rel=0.002)
    assert sum(one.values()) == pytest.approx(1160 * 1100 / 100, rel=0.002)


def test_zones_without_a_pixel_are_told(geoovseg: Any, labels: Path, tmp_path: Path) -> None:
    far = [shapely.box(0, 0, 1, 1), shapely.box(504_000, 4_992_000, 505_000, 4_993_000)]
    geopandas.GeoDataFrame({"n": [1, 2]}, geometry=far, crs=UTM[0]).to_file(tmp_path / "z.gpkg")
    code, out, err = geoovseg("stats", str(labels), str(tmp_path / "z.gpkg"), str(tmp_path / "o.geojson"), "--json")
    assert code == 0, err
    assert (json.loads(out)["empty"], json.loads(out)["count"]) == (1, 2)
    found = geopandas.read_file(tmp_path / "o.geojson")
    assert np.isnan(found.field_share[0])
    assert found.field_ha[1] == pytest.approx(100, rel=0.002)
    assert found.crs == "EPSG:4326"


@pytest.mark.filterwarnings("ignore:'crs' was not provided")
def test_labels_that_lie_nowhere_are_counted_in_pixels(tmp_path: Path) -> None:
    path = _labels(tmp_path / "l.tif", np.ones((20, 20), np.uint8), None, from_origin(0, 20, 1, 1))
    geopandas.GeoDataFrame({"n": [1]}, geometry=[shapely.box(0, 0, 2.5, 4)]).to_file(tmp_path / "z.gpkg")
    result = stats(path, tmp_path / "z.gpkg", tmp_path / "o.csv")
    assert (result.unit, result.total) == ("pixels", {"field": 10.0})


def test_zones_must_be_polygons_and_outputs_free(labels: Path, tmp_path: Path) -> None:
    geopandas.GeoDataFrame({"n": [1]}, geometry=[shapely.Point(0, 0)], crs=UTM[0]).to_file(tmp_path / "p.gpkg")
    with pytest.raises(UsageError, match="must hold polygons; it has Point"):
        stats(labels, tmp_path / "p.gpkg", tmp_path / "o.csv")
    (tmp_path / "o.csv").write_text("mine")
    with pytest.raises(OutputError, match="exists; add --overwrite"):
        stats(labels, tmp_path / "p.gpkg", tmp_path / "o.csv")
    assert (tmp_path / "o.csv").read_text() == "mine"


def test_zones_that_cross_or_repeat_themselves_count_once_and_are_told(
    geoovseg: Any, labels: Path, tmp_path: Path
) -> None:
    """A bow-tie has its two triangles; a polygon twice in one zone is there once."""
    x, y = 504_000, 4_992_000
    bow = shapely.Polygon([(x, y), (x + 1000, y + 1000), (x + 1000, y), (x, y + 1000)])
    twice = shapely.MultiPolygon([shapely.box(x, y, x + 1000, y + 1000)] * 2)
    spike = shapely.Polygon(
        [(x, y), (x + 1000, y), (x + 1000, y + 1000), (x + 2000, y + 1000), (x + 1000, y + 1000), (x, y + 1000)]
    )
    flat = shapely.Polygon([(x, y), (x + 1000, y), (x, y)])
    zones = [bow, twice, spike, flat]
    geopandas.GeoDataFrame({"n": [1, 2, 3, 4]}, geometry=zones, crs=UTM[0]).to_file(tmp_path / "z.gpkg")
    code, _, err = geoovseg("stats", str(labels), str(tmp_path / "z.gpkg"), str(tmp_path / "o.gpkg"))
    assert (code, "4 of 4 zones are no valid polygons" in err) == (0, True)
    found = geopandas.read_file(tmp_path / "o.gpkg").field_ha.tolist()
    assert found == pytest.approx([50, 100, 100, 0], rel=0.003)


def test_zones_as_large_as_the_earth_are_measured_where_the_labels_are(labels: Path, tmp_path: Path) -> None:
    worlds = [shapely.box(-180, -90, 180, 90), shapely.box(-81, -80, 99, 84), shapely.box(-180, -60, 180, 60)]
    geopandas.GeoDataFrame({"n": [1, 2, 3]}, geometry=worlds, crs=4326).to_file(tmp_path / "z.gpkg")
    stats(labels, tmp_path / "z.gpkg", tmp_path / "o.gpkg")
    found = geopandas.read_file(tmp_path / "o.gpkg")
    assert found.pond_ha.tolist() == pytest.approx([418] * 3, rel=0.002)
    assert found.labelled_ha.tolist() == pytest.approx([1160 * 1100 / 100] * 3, rel=0.002)


def test_classes_may_be_called_as_our_own_columns(tmp_path: Path) -> None:
    codes = np.repeat([[0, 1, 2]], 30, 0).repeat(10, 1)
    path = _labels(tmp_path / "l.tif", codes, *UTM, names=("labelled", "nodata", "x"))
    table = geopandas.GeoDataFrame({"x_ha": [7], "x_ha_of_zone": [8]}, geometry=[_whole(path)], crs=UTM[0])
    table.to_file(tmp_path / "z.gpkg")
    stats(path, tmp_path / "z.gpkg", tmp_path / "o.gpkg")
    found = geopandas.read_file(tmp_path / "o.gpkg")
    for name in ("labelled_ha", "nodata_ha", "x_ha"):
        assert found[name][0] == pytest.approx(3, rel=0.002)
    assert found["labelled_ha_all"][0] == pytest.approx(9, rel=0.002)
    assert (found["nodata_ha_all"][0], found["x_ha_of_zone"][0], found["x_ha_of_zone_all"][0]) == (0, 8, 7)
