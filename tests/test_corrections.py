"""Edited polygons put back into labels."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import geopandas
import numpy as np
import pytest
import rasterio
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from rasterio.features import rasterize
from shapely import box

from geoovseg import segment, vectorize
from geoovseg.demo.files import write_scene
from geoovseg.errors import OutputError, SceneError, UsageError
from geoovseg.vectors.corrections import apply

CLASSES = "building,road,water"


@pytest.fixture(scope="module")
def labels(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("corrections")
    write_scene(folder, 5, 300, 400)
    with rasterio.open(folder / "scene.tif", "r+") as dst:  # a corner without data
        mask = np.full((300, 400), 255, np.uint8)
        mask[:40, :50] = 0
        dst.write_mask(mask)
    segment(folder / "scene.tif", CLASSES, model="demo", output=folder / "labels.tif", upsample="bilinear")
    return folder / "labels.tif"


def _codes(path: Any) -> np.ndarray:
    with rasterio.open(path) as src:
        return src.read(1)


def _square(labels: Path, col: float, row: float, side: float) -> Any:
    with rasterio.open(labels) as src:
        x, y = src.transform * (col, row)
        a, b = src.transform * (col + side, row + side)
    return box(x, b, a, y)


def _edits(labels: Path, path: Path, shapes: list[tuple[Any, Any]], crs: Any = None, field: str = "class_name") -> Path:
    with rasterio.open(labels) as src:
        table = geopandas.GeoDataFrame(
            {field: [name for _, name in shapes]}, geometry=[s for s, _ in shapes], crs=src.crs
        )
    (table if crs is None else table.to_crs(crs)).to_file(path, driver="GPKG")
    return path


def test_polygons_of_labels_put_back_change_nothing(labels: Path, tmp_path: Path) -> None:
    vectorize(labels, tmp_path / "classes.gpkg")
    found = apply(labels, tmp_path / "classes.gpkg", tmp_path / "again.tif")
    assert found.changed == 0
    assert (_codes(tmp_path / "again.tif") == _codes(labels)).all()


@pytest.mark.parametrize("crs", [None, "EPSG:4326"])
def test_pixels_in_a_polygon_take_its_class(labels: Path, tmp_path: Path, crs: str | None) -> None:
    edits = _edits(labels, tmp_path / "e.gpkg", [(_square(labels, 100, 100, 60), "Water")], crs)
    found = apply(labels, edits, tmp_path / "out.tif")
    before, after = _codes(labels), _codes(tmp_path / "out.tif")
    expected = before.copy()
    expected[100:160, 100:160] = 3
    assert (after == expected).mean() > (0.9999 if crs is None else 0.998)
    assert found.changed == (before != after).sum()
    assert found.classes == {
        name: int((after == code).sum()) for code, name in enumerate(("background", "building", "road", "water"))
    }


@settings(max_examples=8, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.lists(st.tuples(st.floats(0, 380), st.floats(0, 280), st.floats(2, 120), st.sampled_from(CLASSES.split(","))),
                min_size=1, max_size=5))  # fmt: skip
def test_later_polygons_lie_over_earlier_ones(labels: Path, tmp_path: Path, drawn: list[tuple[Any, ...]]) -> None:
    """As GDAL burns them one after the other; no data stays."""
    shapes = [(_square(labels, col, row, side), name) for col, row, side, name in drawn]
    edits = _edits(labels, tmp_path / "e.gpkg", shapes)
    apply(labels, edits, tmp_path / "out.tif", overwrite=True)
    before = _codes(labels)
    with rasterio.open(labels) as src:
        codes = [(shape, 1 + CLASSES.split(",").index(name)) for shape, name in shapes]
        burnt = rasterize(codes, before.shape, fill=254, transform=src.transform, dtype="uint8")
    expected = np.where((burnt == 254) | (before == 255), before, burnt)
    np.testing.assert_array_equal(_codes(tmp_path / "out.tif"), expected)


def test_a_name_that_labels_lack_becomes_a_class(labels: Path, tmp_path: Path, geoovseg: Any) -> None:
    shapes = [(_square(labels, 200, 50, 30), "glass house"), (_square(labels, 10, 200, 20), "background")]
    found = apply(labels, _edits(labels, tmp_path / "e.gpkg", shapes), tmp_path / "out.tif")
    assert found.added == ("glass house",)
    assert found.classes["glass house"] == 900
    _, out, _ = geoovseg("info", str(tmp_path / "out.tif"), "--json")
    said = json.loads(out)
    assert list(said["classes"])[-1] == "glass house"
    with rasterio.open(tmp_path / "out.tif") as src:
        assert 4 in src.colormap(1)
        record = json.loads(src.tags()["GEOOVSEG_RUN"])
        assert src.overviews(1) == []
    (edit,) = record["edits"]
    assert (edit["file"], edit["polygons"], len(edit["sha256"])) == ("e.gpkg", 2, 64)
    assert (_codes(tmp_path / "out.tif")[200:220, 10:30] == 0).all()
    assert (tmp_path / "out.qml").read_text().count("glass house")


def test_what_lies_in_no_polygon_can_be_a_class(labels: Path, tmp_path: Path) -> None:
    edits = _edits(labels, tmp_path / "e.gpkg", [(_square(labels, 100, 100, 60), "water")])
    apply(labels, edits, tmp_path / "out.tif", outside="background")
    after, before = _codes(tmp_path / "out.tif"), _codes(labels)
    assert (after == 3).sum() == 3600
    assert ((after == 255) == (before == 255)).all()
    assert set(np.unique(after)) == {0, 3, 255}


def test_polygons_without_a_class_are_left_out_and_counted(labels: Path, tmp_path: Path, geoovseg: Any) -> None:
    shapes = [(_square(labels, 100, 100, 60), "water"), (_square(labels, 0, 0, 400), None)]
    edits = _edits(labels, tmp_path / "e.gpkg", shapes)
    code, out, err = geoovseg("apply", str(labels), str(edits), "-o", str(tmp_path / "out.tif"))
    assert (code, out.strip()) == (0, str(tmp_path / "out.tif"))
    assert "1 polygons have no class in class_name and were left out" in err
    code, out, _ = geoovseg("apply", str(labels), str(edits), "-o", str(tmp_path / "out.tif"), "--overwrite", "--json")
    assert (code, json.loads(out)["without_class"]) == (0, 1)


def test_what_cannot_be_applied_is_refused(labels: Path, tmp_path: Path) -> None:
    edits = _edits(labels, tmp_path / "e.gpkg", [(_square(labels, 100, 100, 60), "water")], field="kind")
    with pytest.raises(UsageError, match="--field class_name: .* has the columns kind"):
        apply(labels, edits, tmp_path / "out.tif")
    with pytest.raises(OutputError):
        apply(labels, edits, labels, field="kind")
    with pytest.raises(SceneError, match="has no run record"):
        apply(labels.with_name("truth.tif"), edits, tmp_path / "out.tif", field="kind")
    nothing = _edits(labels, tmp_path / "n.gpkg", [(_square(labels, 100, 100, 60), None), (box(0, 0, 1, 1), " ")])
    with pytest.raises(UsageError, match="has no shape with a class"):
        apply(labels, nothing, tmp_path / "out.tif")
    assert not (tmp_path / "out.tif").exists()


def test_polygons_that_are_all_somewhere_else_are_refused(labels: Path, tmp_path: Path) -> None:
    edits = _edits(labels, tmp_path / "e.gpkg", [(_square(labels, 5000, 10, 20), "road")])
    with pytest.raises(UsageError, match="none of the 1 polygons of .* is on "):
        apply(labels, edits, tmp_path / "c.tif")
    assert not (tmp_path / "c.tif").exists()
    both = [(_square(labels, 5000, 10, 20), "road"), (_square(labels, 10, 10, 20), "road")]
    assert apply(labels, _edits(labels, tmp_path / "f.gpkg", both), tmp_path / "c.tif").polygons == 2
