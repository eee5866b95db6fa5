"""The whole way, on real files: same pixel, same answer, however the work is cut."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import rasterio
import rasterio.shutil
import torch
from conftest import TRANSFORM, shared_file

import geoovseg
from geoovseg.demo.scenes import CLASSES, render
from geoovseg.errors import GeoOVSegWarning, OutputError, SceneError, UsageError, WeightsMissingError
from geoovseg.labels.record import RUN_TAG
from geoovseg.methods.dense import DenseMethod
from geoovseg.ops.eight_bits import is_exact
from geoovseg.pipeline import SegmentResult
from geoovseg.run.estimate import dry_run
from geoovseg.scene.scene import DEMO_TAG, Scene
from geoovseg.segmenter import segment
from geoovseg.windows.batch import TileBatch
from geoovseg.windows.memory import CPU_BATCH

WriteRaster = Callable[..., str]
EIGHT = ",".join(CLASSES)


def _read(path: str | Path) -> np.ndarray:
    with rasterio.open(path) as src:
        return src.read(1)


def _run(scene: str, tmp_path: Path, name: str = "labels.tif", **changes: Any) -> SegmentResult:
    given = {"classes": EIGHT, "model": "demo", "background": "none", **changes}
    return segment(scene, output=tmp_path / name, **given)


@pytest.fixture(scope="module")
def wide() -> np.ndarray:
    """A scene of 130 x 1100: two rows of windows, three panels of 512."""
    return render(1001, 130, 1100)[0]


@pytest.fixture
def wide_scene(write_raster: WriteRaster, wide: np.ndarray) -> str:
    data = wide.copy()
    data[:, :, 224:504] = 0  # some windows, also where they are twice as wide
    return write_raster(data, nodata=0, tags={DEMO_TAG: "1001"})


WINDOWED = [name for name, card in geoovseg.METHODS.items() if not card.blocks and "clip" in card.towers]


@pytest.mark.parametrize(
    ("method", "changes"),
    [
        *(pytest.param(name, {"batch_size": 7, "max_memory": 1}, marks=pytest.mark.trial) for name in WINDOWED),
        ("segearth", {"batch_size": 1}),
        ("segearth", {"batch_size": 7}),
        ("segearth", {"max_memory": 1}),
    ],
    ids=lambda value: value if isinstance(value, str) else "-".join(value),
)
def test_labels_and_confidence_do_not_depend_on_batch_size_or_panels(
    wide_scene: str, tmp_path: Path, method: str, changes: dict[str, Any]
) -> None:
    """Of window methods on CLIP; those that see blocks, or SAM 3, have tests of their own in test_identity.py."""
    vfm = "demo" if geoovseg.METHODS[method].vfm else None

    def run(name: str, **how: Any) -> tuple[SegmentResult, np.ndarray, np.ndarray]:
        sure = str(tmp_path / f"{name}_confidence.tif")
        result = _run(wide_scene, tmp_path, f"{name}.tif", method=method, vfm=vfm, confidence=sure, **how)
        return result, _read(result.labels), _read(sure)

    first, labels, sure = run("first", batch_size=16)
    other, also_labels, also_sure = run("other", **changes)
    assert (first.panels, other.panels) == (1, 3 if "max_memory" in changes else 1)
    np.testing.assert_array_equal(also_labels, labels)
    np.testing.assert_array_equal(also_sure, sure)
    assert (other.windows, other.skipped_windows) == (first.windows, first.skipped_windows)
    assert first.skipped_windows > 0


def test_on_a_cpu_the_model_always_sees_eight_windows(
    wide_scene: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whatever the batch size: results of fewer windows may differ in the last bit."""
    seen: list[int] = []
    vectors = DenseMethod.vectors

    def count(self: DenseMethod, batch: TileBatch) -> torch.Tensor:
        seen.append(len(batch))
        return vectors(self, batch)

    monkeypatch.setattr(DenseMethod, "vectors", count)
    result = _run(wide_scene, tmp_path, batch_size=3)
    assert set(seen) == {CPU_BATCH}
    assert (result.windows - result.skipped_windows) % CPU_BATCH


def test_the_demo_scene_is_segmented_well(
    demo_scene: str, drawn: tuple[np.ndarray, np.ndarray], tmp_path: Path
) -> None:
    result = _run(demo_scene, tmp_path)
    assert (_read(result.labels) == drawn[1]).mean() > 0.85


def test_grid_of_the_output_is_the_inputs(demo_scene: str, tmp_path: Path) -> None:
    with rasterio.open(demo_scene) as src, rasterio.open(_run(demo_scene, tmp_path).labels) as dst:
        assert (dst.crs, dst.transform, dst.shape) == (src.crs, src.transform, src.shape)
        assert dst.transform == TRANSFORM


def test_pixels_without_data_come_out_as_nodata_and_empty_windows_are_skipped(
    write_raster: WriteRaster, tmp_path: Path
) -> None:
    data = render(1002, 120, 700)[0]
    hole = np.zeros((120, 700), bool)
    hole[:, 100:500] = True
    hole[5:9, 20:40] = True
    scene = write_raster(data, mask=np.where(hole, 0, 255).astype(np.uint8), tags={DEMO_TAG: "1002"})
    seen: list[tuple[int, int]] = []
    result = _run(scene, tmp_path, progress=lambda done, total: seen.append((done, total)))
    np.testing.assert_array_equal(_read(result.labels) == 255, hole)
    assert seen[-1] == (result.windows, result.windows)
    plan_windows = [c for c in (*range(0, 588, 56), 588) if c >= 100 and c + 112 <= 500]
    assert result.skipped_windows == 2 * len(plan_windows)
    with rasterio.open(result.labels) as src:
        assert json.loads(src.tags()[RUN_TAG])["skipped_windows"] == result.skipped_windows


def test_a_scene_without_any_data_is_all_nodata(write_raster: WriteRaster, tmp_path: Path) -> None:
    scene = write_raster(np.zeros((3, 60, 130), np.uint8), nodata=0, tags={DEMO_TAG: "0"})
    result = _run(scene, tmp_path)
    assert (_read(result.labels) == 255).all()
    assert result.skipped_windows == result.windows


@pytest.mark.parametrize("shape", [(1, 1), (4, 4), (51, 51), (7, 300), (300, 5), (112, 112), (113, 111)])
def test_scenes_smaller_than_a_tile_are_segmented_whole(
    write_raster: WriteRaster, tmp_path: Path, shape: tuple[int, int]
) -> None:
    scene = write_raster(render(1003, *shape)[0], tags={DEMO_TAG: "1003"})
    labels = _read(_run(scene, tmp_path).labels)
    assert labels.shape == shape
    assert ((labels >= 1) & (labels <= 8)).all()


def test_one_class_does_not_label_the_whole_scene(demo_scene: str, tmp_path: Path) -> None:
    result = _run(demo_scene, tmp_path, classes="road", background="auto")
    labels = _read(result.labels)
    assert set(np.unique(labels)) == {0, 1}
    assert 0.02 < (labels == 1).mean() < 0.5
    assert "road" not in result.background
    assert "water" in result.background


def test_counter_words_close_to_the_users_are_dropped_and_reported(demo_scene: str, tmp_path: Path) -> None:
    result = _run(demo_scene, tmp_path, classes="crop field", background="auto")
    assert "agriculture" in result.dropped_background
    assert "agriculture" not in result.background


def test_words_of_the_background_are_told_by_what_they_won(demo_scene: str, tmp_path: Path) -> None:
    """The same for a scene and for its features, up to what is seen twice at borders of parts."""
    found = _run(demo_scene, tmp_path, classes="road", background="water+building")
    assert set(found.background_won) <= {"water", "building"}
    assert sum(found.background_won.values()) == pytest.approx(1, abs=1e-3)
    whole = _read(_run(demo_scene, tmp_path, classes="road,water,building", background="none", overwrite=True).labels)
    share = (whole == 2).sum() / ((whole == 2) | (whole == 3)).sum()
    assert found.background_won["water"] == pytest.approx(share, abs=0.1)
    scored = _run(demo_scene, tmp_path, classes="road", background="water+building", method="resclip", overwrite=True)
    assert set(scored.background_won) <= {"water", "building"}
    by_class = {"method": "direct-op", "vfm": "demo", "overwrite": True}
    assert _run(demo_scene, tmp_path, classes="road", background="water+building", **by_class).background_won == {}
    assert _run(demo_scene, tmp_path, classes="road", background="water", overwrite=True).background_won == {}


def test_a_background_that_leaves_no_word_is_said(demo_scene: str, tmp_path: Path) -> None:
    words = "forest,vegetation,bareland,water,road,building,vehicle,agriculture,urban,grass,parking lot"
    every = ",".join(f"{name}={word}" for name, word in zip("abcdefghijk", words.split(","), strict=True))
    with pytest.warns(GeoOVSegWarning, match="every pixel gets a class"):
        assert _run(demo_scene, tmp_path, classes=every, background="auto").background == ()


def test_synonyms_go_to_their_class(demo_scene: str, tmp_path: Path) -> None:
    plain = _read(_run(demo_scene, tmp_path, "a.tif", classes="road,tree,grass").labels)
    merged = _read(_run(demo_scene, tmp_path, "b.tif", classes="paved=road,green=tree+grass").labels)
    agree = merged == np.where(plain == 1, 1, 2)  # not exactly: the best word is taken before blending
    assert agree.mean() > 0.99


def test_threshold_turns_unsure_pixels_into_background(demo_scene: str, tmp_path: Path) -> None:
    sure = str(tmp_path / "c.tif")
    plain = _read(_run(demo_scene, tmp_path, "a.tif", confidence=sure).labels)
    cut = _read(_run(demo_scene, tmp_path, "b.tif", threshold=0.9).labels)
    unsure = _read(sure) / 250 < 0.9
    edge = np.abs(_read(sure) / 250 - 0.9) < 0.003
    assert 0 < unsure.mean() < 1
    np.testing.assert_array_equal(np.where(unsure, 0, plain)[~edge], cut[~edge])


def test_guided_upsampling_differs_and_is_recorded(demo_scene: str, tmp_path: Path) -> None:
    """It is what is done where nothing is said."""
    plain = _read(_run(demo_scene, tmp_path, "a.tif", upsample="bilinear").labels)
    result = _run(demo_scene, tmp_path, "b.tif")
    assert 0 < (_read(result.labels) != plain).mean() < 0.2
    with rasterio.open(result.labels) as src:
        assert json.loads(src.tags()[RUN_TAG])["upsample"] == "guided"


def test_the_record_says_what_decided_the_labels(demo_scene: str, tmp_path: Path) -> None:
    result = _run(demo_scene, tmp_path, settings={"class_token_weight": "0"}, background="auto", classes="road=street")
    with rasterio.open(result.labels) as src:
        record = json.loads(src.tags()[RUN_TAG])
    assert record["settings"] == {"residual": False, "scale": 50.0, "class_token_weight": 0.0}
    assert record["classes"] == [["road", ["street"], "#7f8c8d"]]
    assert record["background"] == list(result.background)
    assert (record["method"], record["model"], record["precision"]) == ("segearth", "demo", "fp32")
    assert len(record["weights_sha256"]) == 64
    assert "torch" in record["versions"]
    assert "seconds" not in record


def test_progress_reaches_its_total(demo_scene: str, tmp_path: Path) -> None:
    seen: list[tuple[int, int]] = []
    result = _run(demo_scene, tmp_path, progress=lambda done, total: seen.append((done, total)))
    assert seen[-1] == (result.windows, result.windows)
    assert [done for done, _ in seen] == sorted(done for done, _ in seen)


def test_a_failing_run_leaves_nothing_but_the_scene(
    demo_scene: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(self: Scene, *window: object) -> None:
        raise SceneError("cannot read")

    before = {p.name for p in tmp_path.iterdir()}
    monkeypatch.setattr(Scene, "stored", fail)
    with pytest.raises(SceneError, match="cannot read"):
        _run(demo_scene, tmp_path)
    assert {p.name for p in tmp_path.iterdir()} == before


def test_what_a_vrt_is_made_of_is_never_replaced(demo_scene: str, tmp_path: Path) -> None:
    vrt = tmp_path / "mosaic.vrt"
    rasterio.shutil.copy(demo_scene, vrt, driver="VRT")
    before = Path(demo_scene).read_bytes()
    with pytest.raises(OutputError, match="is read from"):
        _run(str(vrt), tmp_path, Path(demo_scene).name, overwrite=True)
    assert Path(demo_scene).read_bytes() == before


def test_an_existing_output_is_kept_unless_overwritten(demo_scene: str, tmp_path: Path) -> None:
    first = _run(demo_scene, tmp_path)
    with pytest.raises(OutputError, match="--overwrite"):
        _run(demo_scene, tmp_path)
    assert _run(demo_scene, tmp_path, overwrite=True).labels == first.labels


def test_missing_weights_name_the_command_that_fetches_them(demo_scene: str, tmp_path: Path) -> None:
    with pytest.raises(WeightsMissingError, match="geoovseg models fetch ViT-B-32/openai"):
        _run(demo_scene, tmp_path, model="ViT-B-32/openai")


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"classes": None}, "no classes given; write for example -c building,road,water or --vocabulary loveda"),
        ({"vocabulary": "demo"}, "either with -c/--classes or with --vocabulary"),
        ({"upsample": "cubic"}, "--upsample cubic: choose from auto, bilinear, guided"),
        ({"threshold": 1.5}, "--threshold 1.5 must lie between 0 and 1"),
        ({"batch_size": 0}, "--batch-size 0 must be a positive number"),
        ({"tile": 0}, "--tile 0 must be a positive number"),
        ({"stride": 0}, "--stride 0 must be a positive number"),
        ({"max_memory": float("nan")}, "--max-memory nan must be a positive number"),
        ({"device": "meta"}, "--device meta: choose auto, cpu, cuda"),
        ({"tile": 100}, "--tile 100 is no multiple.*try --tile"),
        ({"device": "cuda:99"}, "--device cuda:99 cannot be used here"),
        ({"device": "toaster"}, "--device toaster"),
        ({"precision": "fp8"}, "--precision fp8: choose auto"),
        ({"speed": "faster"}, "--speed faster: choose fast or normal or fine"),
        ({"speed": "fast", "stride": 56}, "there is --stride 56, so leave --speed fast aside"),
        ({"speed": "fine", "method": "coninfer", "vfm": "demo"}, "--speed fine is for .*; coninfer sees blocks"),
        ({"model": "ViT-B-16/opnai"}, "did you mean ViT-B-16/openai"),
    ],
)
def test_wrong_arguments_are_refused(demo_scene: str, tmp_path: Path, changes: dict[str, Any], message: str) -> None:
    with pytest.raises(UsageError, match=message):
        _run(demo_scene, tmp_path, **changes)


def test_speed_says_how_far_windows_lie_apart(demo_scene: str, tmp_path: Path) -> None:
    for speed, stride in (("fast", 96), ("normal", 56), ("fine", 24)):  # of a tile of 112, in whole patches of 8
        made = _run(demo_scene, tmp_path, f"{speed}.tif", speed=speed)
        with rasterio.open(made.labels) as src:
            assert json.loads(src.tags()[RUN_TAG])["stride"] == stride


def test_the_demo_model_warns_on_real_scenes_and_unknown_words(tmp_path: Path) -> None:
    scene = str(shared_file("labelled", "nb_bakerlake_1.tif"))
    with pytest.warns(GeoOVSegWarning) as caught:
        result = _run(scene, tmp_path, classes="building,road,helipad", background="auto")
    text = "\n".join(str(w.message) for w in caught)
    assert "drawn scenes only" in text
    assert "never told of: helipad" in text
    with rasterio.open(scene) as src, rasterio.open(result.labels) as dst:
        assert (dst.crs, dst.transform, dst.shape) == (src.crs, src.transform, src.shape)


def test_dry_run_counts_without_reading(demo_scene: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    result = _run(demo_scene, tmp_path)
    monkeypatch.setattr(Scene, "_values", lambda *_: pytest.fail("pixels were read"))
    plan = dry_run(demo_scene, EIGHT, model="demo", background="none", output=tmp_path / "other.tif")
    with pytest.raises(OutputError, match="--overwrite"):
        dry_run(demo_scene, EIGHT, model="demo", output=result.labels)
    assert plan.windows == result.windows
    assert plan.batches == -(-result.windows // CPU_BATCH)
    assert plan.panels == 1
    assert plan.estimated_seconds > 0
    assert plan.working_grid["height"] == 280


def test_bfloat16_gives_nearly_the_same_labels(demo_scene: str, tmp_path: Path) -> None:
    full = _read(_run(demo_scene, tmp_path, "a.tif").labels)
    half = _read(_run(demo_scene, tmp_path, "b.tif", precision="bf16").labels)
    assert (full == half).mean() > 0.97


@pytest.mark.skipif(not is_exact(), reason="this CPU has no exact 8-bit products")
def test_eight_bits_give_nearly_the_same_labels(demo_scene: str, tmp_path: Path) -> None:
    result = _run(demo_scene, tmp_path, "b.tif", precision="int8")
    assert result.precision == "int8"
    assert (_read(_run(demo_scene, tmp_path, "a.tif").labels) == _read(result.labels)).mean() > 0.99


def test_a_budget_too_small_for_one_panel_is_said(demo_scene: str, tmp_path: Path) -> None:
    with pytest.warns(GeoOVSegWarning, match="cannot be blended in 1 MB"):
        _run(demo_scene, tmp_path, max_memory=1)


@pytest.mark.gpu
def test_cuda_gives_the_labels_of_the_cpu(demo_scene: str, tmp_path: Path) -> None:
    cpu = _read(_run(demo_scene, tmp_path, "a.tif", device="cpu").labels)
    gpu = _read(_run(demo_scene, tmp_path, "b.tif", device="cuda", precision="fp32").labels)
    assert (cpu == gpu).mean() >= 0.999
    torch.cuda.synchronize()


@pytest.mark.weights
def test_the_default_model_segments_a_real_scene(tmp_path: Path) -> None:
    scene = str(shared_file("labelled", "nb_bakerlake_1.tif"))
    try:
        result = segment(scene, "building=house+roof,road,water,tree", output=tmp_path / "l.tif")
    except WeightsMissingError as error:
        pytest.skip(str(error).splitlines()[0])
    assert len(np.unique(_read(result.labels))) > 2


def test_a_missing_coordinate_system_is_warned_of_once(write_raster: Callable[..., str], tmp_path: Path) -> None:
    scene = write_raster(np.full((3, 40, 40), 90, np.uint8), crs=None)
    with pytest.warns(GeoOVSegWarning, match="no coordinate system; the outputs will have none either") as told:
        segment(scene, "road", model="demo", output=tmp_path / "labels.tif")
    assert sum("no coordinate system" in str(one.message) for one in told) == 1
