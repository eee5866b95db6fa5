"""Runs on SAM 3, by command and from Python: threshold instead of counter-words, windows, what is refused."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import rasterio
from test_benchmark import _miniature, _small
from tiny_sam3 import small_sam3

from geoovseg import Segmenter
from geoovseg.errors import ModelError, UsageError
from geoovseg.evaluation.datasets import read_data_set
from geoovseg.labels.record import RunRecord
from geoovseg.models.cards import model_card
from geoovseg.models.compose import compose
from geoovseg.run.checks import check_settings
from geoovseg.run.estimate import dry_run, estimate_features
from geoovseg.run.layout import TileBytes
from geoovseg.run.timings import TileTime, keep_timings, known_timings
from geoovseg.settings import Settings
from geoovseg.vocabulary import parse_classes

Run = Callable[..., tuple[int, str, str]]


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> str:
    folder = tmp_path_factory.mktemp("sam3")
    small_sam3().save_pretrained(folder)
    return f"sam3@{folder / 'model.safetensors'}"


def test_a_method_has_choices_of_its_own_and_a_user_others() -> None:
    own = Settings(method="segearth-ov3")
    assert (own.model, own.templates, own.threshold, own.background) == ("sam3", "bare", 0.3, "auto")
    assert [card.name for card in own.weights] == ["sam3"]
    other = Settings(method="segearth-ov3", model="sam3@x", threshold=0.0, templates="plain")
    assert (other.model, other.templates, other.threshold) == ("sam3@x", "plain", 0.0)
    released = Settings(method="segearth-ov3", as_published=True)
    assert (released.tile, released.threshold, released.settings) == (512, 0.1, {"confidence_threshold": 0.1})
    assert Settings(method="clip").threshold is None


def test_a_scene_is_labelled_by_the_best_class_that_is_sure_enough(
    model: str, demo_scene: str, tmp_path: Path, geoovseg: Run
) -> None:
    said = ["segment", demo_scene, "-m", "segearth-ov3", "--model", model, "-c", "tree=wood+forest,water,road"]
    said += ["--threshold", "0.55", "--confidence", "--vectors", "-o", tmp_path / "l.tif"]
    code, out, err = geoovseg(*said, "--json")
    assert code == 0, err
    result = json.loads(out)
    given = {"method": "segearth-ov3", "model": model, "threshold": 0.55}
    with rasterio.open(demo_scene) as src, rasterio.open(result["labels"]) as dst:
        pixels, labels = src.read(), dst.read(1)
    with Segmenter("tree=wood+forest,water,road", **given) as segmenter:
        scores = segmenter.scores(pixels)
    expected = np.where(scores.max(0) < 0.55, 0, scores.argmax(0) + 1)
    np.testing.assert_array_equal(labels, expected)
    assert len(np.unique(labels)) >= 3
    assert result["background"] == []
    with rasterio.open(result["confidence"]) as src:
        np.testing.assert_allclose(src.read(1) / 250, scores.max(0), atol=0.0021)
    assert Path(result["vectors"]).exists()


def test_what_decides_without_being_said_is_told(model: str, demo_scene: str, tmp_path: Path, geoovseg: Run) -> None:
    code, _, err = geoovseg(
        "segment", demo_scene, "-m", "proc-sam3", "--model", model, "-c", "road", "-o", tmp_path / "l.tif"
    )
    assert code == 0
    assert "a confidence below 0.1 is code 0 (--threshold)" in err
    assert "only class" not in err
    with rasterio.open(tmp_path / "l.tif") as src:
        assert RunRecord.of(src).threshold == 0.1


@pytest.mark.parametrize(
    ("classes", "given", "background"),
    [
        ("road,water", {}, ()),
        ("road,background", {}, ("background",)),
        ("road,water", {"background": "grass+field"}, ("grass", "field")),
    ],
)
def test_words_of_the_background_are_asked_if_there_are_some(
    model: str, classes: str, given: dict[str, Any], background: tuple[str, ...]
) -> None:
    with Segmenter(classes, method="segearth-ov3", model=model, **given) as segmenter:
        assert segmenter._worker.predictor.vocabulary.background == background


@pytest.mark.parametrize(("tile", "step"), [(None, 84), (112, 84), (60, 45), (300, 225)])
def test_windows_are_stretched_to_the_models_and_overlap_by_a_quarter(model: str, tile: int | None, step: int) -> None:
    with Segmenter("road", method="segearth-ov3", model=model, tile=tile) as segmenter:
        needs = segmenter._worker.predictor.facts.needs
        assert (needs.tile, needs.stride, needs.patch, needs.micro_batch) == (tile or 112, step, 1, 1)
        scores = segmenter.scores(np.random.default_rng(0).integers(0, 255, (3, 130, 90), np.uint8))
    assert scores.shape == (1, 130, 90)
    assert (scores > 0).all()


@pytest.mark.parametrize(
    ("given", "message"),
    [
        (
            {"method": "segearth", "model": "sam3"},
            "-m segearth cannot read; these methods can: segearth-ov3",
        ),
        ({"method": "proc-sam3", "model": "demo"}, "leave --model aside for sam3"),
        ({"method": "segearth-ov3", "upsample": "guided"}, "has scores at pixels already"),
        ({"method": "segearth-ov3", "vfm": "dino_vitb8"}, "uses no vision model"),
    ],
)
def test_what_does_not_fit_is_refused(given: dict[str, Any], message: str) -> None:
    with pytest.raises(UsageError, match=message):
        check_settings(Settings(**given))


def test_sam3_is_no_segment_anything_to_look_into() -> None:
    with pytest.raises(ModelError, match=r"sam3 is a model to ask words \(--model sam3\).*choose sam_vit_b"):
        model_card("sam3", "sam")


def test_a_model_that_is_no_clip_is_not_averaged(model: str, tmp_path: Path) -> None:
    with pytest.raises(ModelError, match="is no model of open_clip"):
        compose([model, model], tmp_path / "x.safetensors", parse_classes(["a,b"]))


def test_features_are_not_kept_and_it_is_said_why(model: str, demo_scene: str, tmp_path: Path, geoovseg: Run) -> None:
    why = "no features to keep: what SAM 3 sees takes 110 MB a window"
    code, _, err = geoovseg("encode", demo_scene, "-m", "segearth-ov3", "-o", tmp_path / "f.zarr")
    assert (code, why in err) == (2, True), err
    code, _, err = geoovseg("segment", demo_scene, "-m", "segearth-ov3", "--model", model, "-c", "road", "--features")
    assert (code, why in err) == (2, True), err
    with pytest.raises(UsageError, match=why):
        estimate_features(demo_scene, Settings(method="proc-sam3"))


def test_an_estimate_follows_the_number_of_words(model: str, demo_scene: str) -> None:
    taken = TileTime(TileBytes(1.0, 2.0), 8.0, 100.0, 4)
    assert taken.asked(4, 0.0) == taken
    assert taken.asked(14, 0.1).seconds == pytest.approx(8.0 / 1.4 * 2.4)
    given = {"method": "segearth-ov3", "model": model}
    dry_run(demo_scene, "road,water", **given)
    settings = Settings(**given)
    known = known_timings(settings)
    assert known is not None
    slow = {size: tile._replace(seconds=100.0) for size, tile in known.tiles.items()}
    keep_timings(settings, replace(known, tiles=slow))  # long enough that rounding is nothing
    few = dry_run(demo_scene, "road,water", **given).estimated_seconds
    more = dry_run(demo_scene, "a,b,c,d,e,f,g,h,i,j,k,l,m,n,o,p,q,r,s,t,u,v", **given).estimated_seconds
    assert more == pytest.approx(few * (1 + 0.09 * 22) / (1 + 0.09 * 2), rel=0.001)


@pytest.mark.filterwarnings("ignore::rasterio.errors.NotGeoreferencedWarning")
def test_a_data_set_is_run_as_the_releases_do_and_as_the_tool_does(model: str, tmp_path: Path, geoovseg: Run) -> None:
    """Potsdam has no class named background: what is unsure is clutter there, and nothing is for the tool."""
    file = _small("potsdam", tmp_path)
    _miniature(read_data_set(str(file)), tmp_path)
    said = ["benchmark", file, "--images", tmp_path / "img", "--truth", tmp_path / "ann", "-o", tmp_path / "out"]
    said += ["-m", "segearth-ov3,proc-sam3", "--model", model]
    for protocol in ("paper", "tool"):
        code, _, err = geoovseg(*said, "--protocol", protocol)
        assert code == 0, err
    table = (tmp_path / "out" / "potsdam.md").read_text()
    assert "57.8" in table
    assert "58.8" in table
    lines = [line for path in (tmp_path / "out").glob("*.jsonl") for line in path.read_text().splitlines()]
    heads = [json.loads(line) for line in lines if "data_set" in line]
    paper = {head["method"]: head["release"] for head in heads if head["protocol"] == "paper"}
    assert paper["segearth-ov3"]["settings"] == {"confidence_threshold": 0.2}
    assert paper["proc-sam3"]["threshold"] == 0.1
    assert [head["words"][0] for head in heads if head["protocol"] == "paper"] == [["road"]] * 2
    assert [head["windows"][2] for head in heads if head["protocol"] == "tool"] == [0.0] * 2
