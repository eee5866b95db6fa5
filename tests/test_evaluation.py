"""Figures against numbers worked out by hand and with numpy."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import geopandas
import numpy as np
import pytest
import rasterio
from conftest import TRANSFORM, shared_file
from rasterio.transform import from_origin
from shapely.geometry import box

from geoovseg.errors import SceneError, UsageError
from geoovseg.evaluation import evaluate
from geoovseg.labels.record import RUN_TAG
from geoovseg.labels.styles import LegendEntry, label_aux_xml
from geoovseg.vectors.vectorize import vectorize

WriteRaster = Callable[..., str]


def _tags(names: list[str], background: bool = False) -> dict[str, str]:
    record = {"classes": [[n, [n], "#000000"] for n in names], "threshold": None, "background": ["x"] * background}
    return {RUN_TAG: json.dumps(record)}


@pytest.fixture
def labels(write_raster: WriteRaster) -> str:
    codes = np.array([[1, 1, 2, 2], [1, 2, 2, 255]], np.uint8)[None]
    return write_raster(codes, "labels.tif", nodata=255, tags=_tags(["road", "water"]))


@pytest.fixture
def truth(write_raster: WriteRaster) -> Callable[..., str]:
    """Truth with names in the side file, in another order: 1 water, 2 road, 3 cloud."""

    def write(codes: list[list[int]], **profile: object) -> str:
        path = write_raster(np.array(codes, np.uint8)[None], "truth.tif", **profile)
        legend = [LegendEntry(n, name, "#000000") for n, name in enumerate(["", "water", "road", "cloud"])]
        Path(path + ".aux.xml").write_text(label_aux_xml(legend))
        return path

    return write


def test_classes_are_matched_by_name_whatever_their_codes(labels: str, truth: Callable[..., str]) -> None:
    result = evaluate(labels, truth([[2, 2, 1, 2], [2, 1, 1, 1]]))
    assert result.order == ["road", "water"]
    assert result.confusion == [[3, 1, 0], [0, 3, 0]]
    assert result.ignored == {"nodata": 1}
    road, water = result.classes["road"], result.classes["water"]
    assert (road.iou, road.precision, road.recall, road.pixels) == (3 / 4, 1.0, 3 / 4, 4)
    assert (water.iou, water.precision, water.recall) == (3 / 4, 3 / 4, 1.0)
    assert road.f1 == pytest.approx(2 * 1 * 0.75 / 1.75)
    assert result.miou == 3 / 4
    assert result.accuracy == 6 / 7


def test_truth_of_other_classes_and_without_data_is_ignored_and_counted(labels: str, truth: Callable[..., str]) -> None:
    result = evaluate(labels, truth([[2, 3, 3, 0], [2, 1, 9, 1]], nodata=0))
    assert result.ignored == {"nodata": 2, "cloud": 2, "9": 1}
    assert result.confusion == [[2, 0, 0], [0, 1, 0]]


def test_background_counts_only_if_both_have_it(write_raster: WriteRaster) -> None:
    codes = np.array([[0, 0, 1, 1]], np.uint8)[None]
    labels = write_raster(codes, "l.tif", tags=_tags(["road"], background=True))
    plain = write_raster(np.array([[1, 1, 1, 1]], np.uint8)[None], "a.tif", tags=_tags(["road"]))
    both = write_raster(np.array([[0, 1, 1, 1]], np.uint8)[None], "b.tif", tags=_tags(["road"], background=True))
    assert evaluate(labels, plain).confusion == [[2, 2]]
    assert evaluate(labels, both).confusion == [[1, 0, 0], [1, 2, 0]]


def test_map_names_codes_and_classes(labels: str, write_raster: WriteRaster) -> None:
    path = write_raster(np.array([[7, 7, 4, 4], [7, 4, 4, 4]], np.uint8)[None], "bare.tif")
    result = evaluate(labels, path, mapping={"7": "road", "4": "water"})
    assert result.miou == 1.0
    with pytest.raises(UsageError, match=r"no class of .*bare.tif \(no class names\).*--map"):
        evaluate(labels, path)
    with pytest.raises(UsageError, match="--map ...=lake: the labels have road, water"):
        evaluate(labels, path, mapping={"7": "lake"})


def test_two_truth_classes_can_be_one_of_the_labels(labels: str, truth: Callable[..., str]) -> None:
    result = evaluate(labels, truth([[2, 3, 1, 1], [3, 1, 1, 1]]), mapping={"cloud": "road"})
    assert result.confusion == [[3, 0, 0], [0, 4, 0]]


def test_truth_on_another_grid_is_resampled_nearest(labels: str, truth: Callable[..., str]) -> None:
    coarse = truth([[2, 1]], transform=from_origin(TRANSFORM.c, TRANSFORM.f, 1, 1))
    assert evaluate(labels, coarse).confusion == [[3, 1, 0], [0, 3, 0]]


def test_vectors_are_rasterised_by_field(labels: str, tmp_path: Path) -> None:
    left, right = TRANSFORM.c, TRANSFORM.c + 1
    shapes = [box(left, TRANSFORM.f - 1, right, TRANSFORM.f), box(right, TRANSFORM.f - 1, right + 1, TRANSFORM.f)]
    table = geopandas.GeoDataFrame({"kind": ["road", "water"], "geometry": shapes}, crs="EPSG:32632")
    path = tmp_path / "truth.gpkg"
    table.to_crs("EPSG:4326").to_file(path)
    assert evaluate(labels, path, field="kind").confusion == [[3, 1, 0], [0, 3, 0]]
    with pytest.raises(UsageError, match="--field type: .* has the columns kind"):
        evaluate(labels, path, field="type")


@pytest.fixture
def shapes(tmp_path: Path) -> Callable[..., Path]:
    """Two squares, of road and water, with their names in a column."""

    def write(column: str, name: str = "truth.fgb") -> Path:
        left, top = TRANSFORM.c, TRANSFORM.f
        squares = [box(left, top - 1, left + 1, top), box(left + 1, top - 1, left + 2, top)]
        table = geopandas.GeoDataFrame({column: ["road", "water"], "geometry": squares}, crs="EPSG:32632")
        table.to_file(tmp_path / name)
        return tmp_path / name

    return write


@pytest.mark.parametrize("suffix", [".gpkg", ".fgb", ".parquet", ".geojson", ".geojsonl"])
def test_polygons_of_ours_need_no_field(labels: str, tmp_path: Path, suffix: str) -> None:
    path = tmp_path / f"truth{suffix}"
    vectorize(labels, path, workers=1)
    result = evaluate(labels, path)
    assert result.miou == 1.0
    assert result.confusion == [[3, 0, 0], [0, 4, 0]]


def test_without_a_column_of_ours_the_field_must_be_said(labels: str, shapes: Callable[..., Path]) -> None:
    path = shapes("kind")
    with pytest.raises(
        UsageError, match=r"truth.fgb needs --field, the column of class names; it has the columns kind"
    ):
        evaluate(labels, path)
    assert evaluate(labels, path, field="kind").miou == evaluate(labels, shapes("class_name", "ours.fgb")).miou


def test_measures_and_images_are_not_compared(labels: str, write_raster: WriteRaster) -> None:
    tags = _tags(["road", "water"])
    sure, image = (write_raster(np.ones((n, 2, 4), np.uint8), f"{n}.tif", tags=tags) for n in (1, 3))
    with rasterio.open(sure, "r+") as dst:
        dst.scales = (1 / 250,)
    for pair in ((sure, labels), (labels, sure)):
        with pytest.raises(SceneError, match="has the scale 0.004: its pixels are measures"):
            evaluate(*pair)
    with pytest.raises(SceneError, match="has 3 bands"):
        evaluate(image, labels)


def test_figures_equal_numpys_on_random_labels(write_raster: WriteRaster) -> None:
    rng = np.random.default_rng(1)
    given, true = rng.integers(1, 5, (2, 1, 1300, 40)).astype(np.uint8)
    names = ["a", "b", "c", "d"]
    result = evaluate(write_raster(given, "l.tif", tags=_tags(names)), write_raster(true, "t.tif", tags=_tags(names)))
    for code, name in enumerate(names, start=1):
        union = ((given == code) | (true == code)).sum()
        assert result.classes[name].iou == ((given == code) & (true == code)).sum() / union
    assert result.accuracy == (given == true).mean()


def test_what_cannot_be_compared_is_refused(labels: str, write_raster: WriteRaster, tmp_path: Path) -> None:
    plain = write_raster(np.ones((1, 2, 4), np.uint8), "plain.tif")
    with pytest.raises(UsageError, match="has no class names"):
        evaluate(plain, labels)
    with pytest.raises(SceneError, match="cannot open"):
        evaluate(tmp_path / "none.tif", labels)
    (tmp_path / "broken.gpkg").write_text("nothing")
    with pytest.raises(SceneError, match="cannot read"):
        evaluate(labels, tmp_path / "broken.gpkg", field="kind")


def test_real_polygons_can_be_the_truth(tmp_path: Path) -> None:
    image, polygons = (shared_file("labelled", f"nb_bakerlake_{n}") for n in ("1_label.tif", "labels.gpkg"))
    with rasterio.open(image) as src:
        profile, codes = src.profile, src.read(1)
    names = ["Vegetation", "Hydro", "Road", "Building"]
    path = tmp_path / "labels.tif"
    with rasterio.open(path, "w", **{**profile, "nodata": 255, "driver": "GTiff"}) as dst:
        dst.write(np.where(codes == 0, 255, codes).astype(np.uint8), 1)
        dst.update_tags(**_tags(names))
    result = evaluate(path, polygons, field="Niveau_2")
    assert result.accuracy > 0.97
    assert set(result.order) == set(names)


def test_codes_of_vectors_cannot_be_mapped_only_their_values(labels: str, tmp_path: Path) -> None:
    left = TRANSFORM.c
    shapes = [box(left, TRANSFORM.f - 1, left + 1, TRANSFORM.f), box(left + 1, TRANSFORM.f - 1, left + 2, TRANSFORM.f)]
    table = geopandas.GeoDataFrame({"code": [9, 2], "geometry": shapes}, crs="EPSG:32632")
    table.to_file(tmp_path / "t.gpkg")
    result = evaluate(labels, tmp_path / "t.gpkg", field="code", mapping={"9": "road"})
    assert result.confusion == [[3, 1]]
    assert result.ignored == {"2": 3, "nodata": 1}
    with pytest.raises(UsageError, match="--map 1=...: the truth has 2, 9"):
        evaluate(labels, tmp_path / "t.gpkg", field="code", mapping={"1": "road"})


def test_shapes_without_a_class_are_left_out(labels: str, tmp_path: Path) -> None:
    shapes = [box(TRANSFORM.c, TRANSFORM.f - 1, TRANSFORM.c + 1, TRANSFORM.f), box(0, 0, 1, 1)]
    table = geopandas.GeoDataFrame({"kind": ["road", None], "geometry": shapes}, crs="EPSG:32632")
    table.to_file(tmp_path / "t.gpkg")
    assert evaluate(labels, tmp_path / "t.gpkg", field="kind").confusion == [[3, 1]]


def test_beyond_the_extent_of_the_truth_there_is_no_data(write_raster: WriteRaster) -> None:
    labels = write_raster(np.ones((1, 8, 8), np.uint8), "l.tif", tags=_tags(["road"], background=True))
    truth = write_raster(np.ones((1, 4, 4), np.uint8), "t.tif", tags=_tags(["road"], background=True))
    result = evaluate(labels, truth)
    assert result.classes["road"].iou == 1.0
    assert result.ignored == {"nodata": 48}


def test_truth_codes_may_have_two_bytes(labels: str, write_raster: WriteRaster) -> None:
    codes = np.array([[311, 311, 512, 512], [311, 512, 512, 65000]], np.uint16)[None]
    result = evaluate(labels, write_raster(codes, "t.tif"), mapping={"311": "road", "512": "water"})
    assert result.miou == 1.0


def test_codes_without_a_name_can_be_mapped_beside_named_ones(labels: str, truth: Callable[..., str]) -> None:
    path = truth([[2, 2, 7, 7], [2, 7, 7, 7]])
    assert evaluate(labels, path).ignored["7"] == 4
    assert evaluate(labels, path, mapping={"7": "water"}).miou == 1.0


def test_truth_that_cannot_be_brought_to_the_grid_is_refused(labels: str, write_raster: WriteRaster) -> None:
    local = 'LOCAL_CS["drawing",UNIT["metre",1]]'
    path = write_raster(np.ones((1, 3, 3), np.uint8), "t.tif", crs=local, tags=_tags(["road"]))
    with pytest.raises(UsageError, match="cannot be brought to the grid"):
        evaluate(labels, path)


def test_a_damaged_run_record_is_refused(labels: str, write_raster: WriteRaster) -> None:
    broken = write_raster(np.ones((1, 2, 4), np.uint8), "b.tif", tags={RUN_TAG: "{"})
    with pytest.raises(SceneError, match="run record in .* is damaged"):
        evaluate(broken, labels)


def test_a_star_takes_every_truth_class_the_labels_do_not_have(
    write_raster: WriteRaster, truth: Callable[..., str]
) -> None:
    labels = write_raster(np.array([[0, 1, 1, 0]], np.uint8)[None], "l.tif", tags=_tags(["road"], background=True))
    path = truth([[1, 2, 3, 3]])
    assert evaluate(labels, path).confusion == [[1, 0]]
    result = evaluate(labels, path, mapping={"*": "background"})
    assert result.order == ["background", "road"]
    assert result.confusion == [[2, 1, 0], [0, 1, 0]]


def test_float_truth_counts_whole_codes_only(labels: str, write_raster: WriteRaster) -> None:
    codes = np.array([[1, 1, np.nan, 2], [1, 2, 2, 2]], np.float32)[None]
    result = evaluate(labels, write_raster(codes, "t.tif", tags=_tags(["road", "water"])))
    assert result.ignored == {"nodata": 2}
    assert result.miou == 1.0
    with pytest.raises(SceneError, match="holds fractions"):
        evaluate(labels, write_raster(codes + 0.5, "f.tif", tags=_tags(["road", "water"])))


@pytest.mark.filterwarnings("ignore")
def test_broken_shapes_are_refused(labels: str, tmp_path: Path) -> None:
    line = {"type": "Polygon", "coordinates": [[[0, 0], [1, 1]]]}
    features = [{"type": "Feature", "properties": {"c": "road"}, "geometry": line}]
    (tmp_path / "t.geojson").write_text(json.dumps({"type": "FeatureCollection", "features": features}))
    with pytest.raises(SceneError, match="cannot read"):
        evaluate(labels, tmp_path / "t.geojson", field="c")


@pytest.mark.parametrize("command", ["vectorize", "evaluate", "info", "preview"])
def test_a_coordinate_system_that_cannot_be_understood_is_told(
    geoovseg: Callable[..., tuple[int, str, str]], command: str, tmp_path: Path
) -> None:
    path = shared_file("rasters", "unsupported_srs.tif")
    others = {
        "vectorize": [tmp_path / "out.gpkg"],
        "evaluate": [path],
        "info": [],
        "preview": [path, tmp_path / "p.png"],
    }
    code, _, err = geoovseg(command, path, *others[command])
    assert (code, "cannot be understood" in err) == (4, True)
