"""Offsets of classes, learned from polygons and read by `segment`; refused where they do not help."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import geopandas
import numpy as np
import pytest
import rasterio
from scipy.special import log_softmax

from geoovseg import encode, segment, vectorize
from geoovseg.demo.files import write_scene
from geoovseg.errors import OutputError, UsageError, VocabularyError
from geoovseg.evaluation.tune import NoGainError, learned, mean_iou, tune
from geoovseg.vocabulary import read_vocabulary

CLASSES = ["building", "road", "water", "tree", "grass"]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Features of a drawn scene, and its true polygons."""
    found = tmp_path_factory.mktemp("tune")
    write_scene(found, 5, 400, 500)
    encode(found / "scene.tif", model="demo")
    vectorize(found / "truth.tif", found / "all.gpkg", min_area=60)
    table = geopandas.read_file(found / "all.gpkg", layer="classes")
    table[table.class_name.isin(CLASSES)].to_file(found / "edits.gpkg", driver="GPKG")
    return found


def _confused(folder: Path) -> list[str]:
    """Words by which grass is called tree as often as not: what belongs to one class stands for another too."""
    return ["building", "road", "water", "tree=tree+cropland", "grass=bare soil"]


def test_offsets_that_help_are_kept_and_make_labels_better(folder: Path, tmp_path: Path) -> None:
    classes = _confused(folder)
    store = folder / "scene_features.zarr"
    found = tune(store, folder / "edits.gpkg", classes, tmp_path / "tuned.txt", background="none")
    assert found.after > found.before
    assert found.interval[0] > 0
    assert found.interval[0] <= found.gain <= found.interval[1]
    words = read_vocabulary(str(tmp_path / "tuned.txt"))
    assert words.names == ("building", "road", "water", "tree", "grass")
    np.testing.assert_allclose(words.offsets, list(found.offsets.values()), atol=1e-6)
    given: dict[str, Any] = {"background": "none", "upsample": "bilinear"}
    segment(store, classes, output=tmp_path / "plain.tif", **given)
    segment(store, vocabulary=tmp_path / "tuned.txt", output=tmp_path / "tuned.tif", **given)
    with rasterio.open(folder / "truth.tif") as src:
        truth = src.read(1)
    with rasterio.open(tmp_path / "plain.tif") as plain, rasterio.open(tmp_path / "tuned.tif") as better:
        record = json.loads(better.tags()["GEOOVSEG_RUN"])
        before, after = plain.read(1), better.read(1)
    known = (truth >= 1) & (truth <= 5)
    assert mean_iou(truth[known].astype(int), after[known].astype(int)) > mean_iou(
        truth[known].astype(int), before[known].astype(int)
    )
    np.testing.assert_allclose(record["offsets"], words.offsets)


def test_without_a_gain_nothing_is_written(folder: Path, tmp_path: Path, geoovseg: Any) -> None:
    """Words that are right already."""
    store, edits = str(folder / "scene_features.zarr"), str(folder / "edits.gpkg")
    command = ["tune", store, edits, "-c", ",".join(CLASSES), "--background", "none", "-o", str(tmp_path / "t.txt")]
    code, _, err = geoovseg(*command)
    assert code == 1
    assert "no gain: the mean IoU of held-out polygons is" in err
    assert not (tmp_path / "t.txt").exists()
    with pytest.raises(NoGainError):
        tune(store, edits, CLASSES, tmp_path / "t.txt", background="none")


def test_what_is_learned_makes_the_loss_least() -> None:
    rng = np.random.default_rng(3)
    truth, polygon = rng.integers(0, 3, 90), np.arange(90) // 3
    truth = truth[polygon * 3]
    scores = 0.02 * rng.standard_normal((90, 4)) + 0.02 * (truth[:, None] == np.arange(4)) + [0.03, 0, 0, 0]

    def loss(offsets: np.ndarray) -> float:
        logs = log_softmax(50 * (scores + offsets), axis=1)[np.arange(90), truth]
        each = [
            -logs[truth == k][polygon[truth == k] == p].mean() for k in range(3) for p in np.unique(polygon[truth == k])
        ]
        sizes = [len(np.unique(polygon[truth == k])) for k in range(3)]
        mean = sum(value / size for value, size in zip(each, np.repeat(sizes, sizes), strict=True)) / 3
        return float(mean)

    found = learned(scores, truth, polygon, 50)
    assert found.mean() == pytest.approx(0, abs=1e-9)
    assert found[0] < min(found[1:3])
    assert loss(found) < loss(np.zeros(4))


def test_a_class_without_polygons_that_swallows_the_others_is_lowered() -> None:
    truth, polygon = np.repeat([1, 2], 60), np.arange(120) // 3
    rng = np.random.default_rng(0)
    scores = 0.05 * np.eye(3)[truth] + 0.005 * rng.standard_normal((120, 3)) + [0.1, 0, 0]
    assert (scores.argmax(1) == 0).all()
    assert ((scores + learned(scores, truth, polygon, 50)).argmax(1) == truth).mean() > 0.95


def test_offsets_shift_classes_of_images_and_of_features_alike(folder: Path, tmp_path: Path) -> None:
    (tmp_path / "w.txt").write_text("road: road [+0.05] #112233\nwater: water\ntree: tree [-0.02]\n")
    given: dict[str, Any] = {"vocabulary": tmp_path / "w.txt", "background": "none"}
    segment(folder / "scene_features.zarr", output=tmp_path / "a.tif", **given)
    segment(folder / "scene.tif", output=tmp_path / "b.tif", model="demo", **given)
    segment(folder / "scene.tif", "road,water,tree", output=tmp_path / "c.tif", model="demo", background="none")
    codes = [rasterio.open(tmp_path / f"{name}.tif").read(1) for name in "abc"]
    assert (codes[0] == codes[1]).all()
    assert (codes[0] == 1).sum() > (codes[2] == 1).sum()
    segment(folder / "scene.tif", output=tmp_path / "d.tif", model="demo", upsample="bilinear", method="gem", **given)
    with pytest.raises(UsageError, match="offsets of classes are for cosines"):
        segment(
            folder / "scene.tif", output=tmp_path / "e.tif", model="demo", method="direct-mv", vfm="demo", **given
        )  # fmt: skip


def test_an_offset_is_read_from_a_line_and_nothing_else_is(tmp_path: Path) -> None:
    (tmp_path / "w.txt").write_text("background: sea, sky [-0.01]\na: x, y [+0.25] #aabbcc\nb [0.5]\nc\n")
    words = read_vocabulary(str(tmp_path / "w.txt"))
    assert words.offsets == (-0.01, 0.25, 0.0, 0.0)
    assert words.background == ("sea", "sky")
    assert words.classes[0].words == ("x", "y")
    assert words.classes[1].words == ("b [0.5]",)  # an offset has a sign


def test_what_cannot_be_learned_from_is_refused(folder: Path, tmp_path: Path) -> None:
    store, table = folder / "scene_features.zarr", geopandas.read_file(folder / "edits.gpkg")
    table.iloc[:5].to_file(tmp_path / "few.gpkg", driver="GPKG")
    with pytest.raises(
        UsageError, match="has 5 polygons of .* classes where features are kept, and it takes at least 10 of 2"
    ):
        tune(store, tmp_path / "few.gpkg", CLASSES, tmp_path / "t.txt")
    with pytest.raises(UsageError, match="road is no class|and road are no class|road"):
        tune(store, folder / "edits.gpkg", ["glacier", "desert"], tmp_path / "t.txt")
    with pytest.raises(UsageError, match="--field kind"):
        tune(store, folder / "edits.gpkg", CLASSES, tmp_path / "t.txt", field="kind")
    (tmp_path / "t.txt").write_text("mine")
    with pytest.raises(OutputError, match="exists already"):
        tune(store, folder / "edits.gpkg", CLASSES, tmp_path / "t.txt")


def test_places_and_words_are_written_as_they_were_given(folder: Path, tmp_path: Path) -> None:
    table = geopandas.read_file(folder / "edits.gpkg")
    marks = table[table.class_name == "grass"].copy()
    marks.geometry = marks.geometry.representative_point()
    marks.to_file(tmp_path / "grass.gpkg", driver="GPKG")
    classes = ["building", "road", "water", "tree=tree+cropland", f"grass=bare soil+@{tmp_path / 'grass.gpkg'}"]
    (tmp_path / "out").mkdir()
    target = tmp_path / "out" / "tuned.txt"
    found = tune(folder / "scene_features.zarr", folder / "edits.gpkg", classes, target, background="none")
    assert "grass: bare soil, @../grass.gpkg [" in target.read_text()
    assert read_vocabulary(str(target)).names == tuple(found.offsets)
    segment(folder / "scene_features.zarr", vocabulary=target, output=tmp_path / "a.tif", background="none")


def test_names_that_no_class_file_holds_are_refused_before_learning(folder: Path, tmp_path: Path) -> None:
    for classes in ({"a:b": "building", "road": "road"}, {"building": "a+b", "road": "road"}):
        with pytest.raises((UsageError, VocabularyError)):
            tune(folder / "scene_features.zarr", folder / "edits.gpkg", classes, tmp_path / "t.txt")


def test_polygons_of_other_names_are_told(folder: Path, tmp_path: Path) -> None:
    table = geopandas.read_file(folder / "edits.gpkg")
    table.loc[table.class_name == "water", "class_name"] = "WATER "
    table.loc[table.class_name == "building", "class_name"] = "hut"
    table.to_file(tmp_path / "e.gpkg", driver="GPKG")
    store = folder / "scene_features.zarr"
    found = tune(store, tmp_path / "e.gpkg", _confused(folder), tmp_path / "t.txt", background="none")
    assert found.left_out == ["hut"]
