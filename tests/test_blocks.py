"""Blocks of windows: how they are laid, what is refused, and what the run says of them."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import open_clip
import pytest
import rasterio
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from windows import random_batch

from geoovseg import machine
from geoovseg.demo.files import write_scene
from geoovseg.errors import UsageError
from geoovseg.evaluation import evaluate
from geoovseg.labels.record import RUN_TAG
from geoovseg.methods.blocks import Blocks, Cut, lay_blocks
from geoovseg.models.vit import ClipVit
from geoovseg.run.worker import Worker
from geoovseg.segmenter import segment
from geoovseg.settings import Settings
from geoovseg.vocabulary import read_classes
from geoovseg.windows.in_flight import InFlight
from geoovseg.windows.memory import Load
from geoovseg.windows.plan import plan_tiles

CPU = torch.device("cpu")
GIVEN: dict[str, Any] = {"vocabulary": "demo", "model": "demo", "background": "none", "vfm": "demo"}


def _mean_colour(pixels: torch.Tensor) -> torch.Tensor:
    """Something to see: every patch of 8 x 8 says its mean colour."""
    return torch.nn.functional.avg_pool2d(pixels, 8)


@settings(max_examples=30, deadline=None)
@given(
    height=st.integers(1, 20), width=st.integers(1, 20), window=st.integers(1, 8), stride=st.integers(1, 8),
    count=st.integers(1, 3),
)  # fmt: skip
def test_what_windows_say_of_their_patches_is_put_where_these_are(
    height: int, width: int, window: int, stride: int, count: int
) -> None:
    """A thing that depends on the patch alone comes out as if the block had been seen whole, whatever the windows."""
    blocks = Blocks(
        side=160, step=80, window=8 * window, stride=8 * min(stride, window), patch=8, device=CPU, in_flight=InFlight(8)
    )
    batch = random_batch(count, 8 * height, 8 * width)
    values, known = blocks.mean(batch, _mean_colour)
    torch.testing.assert_close(values, _mean_colour(torch.from_numpy(batch.pixels)))
    assert known.all()


def test_windows_without_data_are_not_seen_and_patches_without_are_not_known() -> None:
    blocks = Blocks(side=64, step=32, window=32, stride=32, patch=8, device=CPU, in_flight=InFlight(8))
    batch = random_batch(1, 64, 64)
    batch.valid[:, :, :36] = False
    seen: list[int] = []

    def see(pixels: torch.Tensor) -> torch.Tensor:
        seen.append(len(pixels))
        return _mean_colour(pixels)

    values, known = blocks.mean(batch, see)
    assert seen == [8], "two windows, filled up to eight"
    assert (values[..., :4] == 0).all()
    assert known[0].tolist() == [[False] * 4 + [True] * 4] * 8


def test_windows_of_a_block_that_is_seen_alone_are_not_filled_up() -> None:
    blocks = Blocks(side=96, step=64, window=32, stride=32, patch=8, device=CPU, in_flight=InFlight(8))
    batch, seen = random_batch(1, 96, 96), list[int]()
    values, _ = blocks.mean(batch, lambda pixels: (seen.append(len(pixels)), _mean_colour(pixels))[1])
    assert (blocks.at_once, seen) == (1, [8, 1])
    torch.testing.assert_close(values, _mean_colour(torch.from_numpy(batch.pixels)))


def test_blocks_follow_the_tower_and_what_is_asked(tiny_clip: open_clip.CLIP) -> None:
    vit = ClipVit(tiny_clip.visual)  # 32 pixels, patch 8
    seven, one = (lay_blocks(Cut(), vit, windows=n) for n in (7, 1))
    assert (seven.window, seven.stride, seven.side, seven.step) == (64, 64, 448, 384)
    assert (one.window, one.side, one.step) == (64, 64, 48)
    assert (seven.at_once, one.at_once) == (1, 8)
    asked = lay_blocks(Cut(window=32, stride=16, block=96), vit, windows=7)
    assert (asked.window, asked.stride, asked.side, asked.step) == (32, 16, 96, 64)
    assert lay_blocks(Cut(window=64, block=72), vit, windows=7).step == 48, "hardly more than a window: by a quarter"


@pytest.mark.parametrize(
    ("cut", "message"),
    [
        (Cut(window=30), "--tile 30 is no multiple of the model's patch of 8 pixels; try 32"),
        (Cut(stride=12), "--stride 12 is no multiple"),
        (Cut(block=100), "--block 100 is no multiple"),
        (Cut(window=32, stride=40), "--stride 40 must not be larger than the tile of 32"),
        (Cut(window=64, block=32), "--block 32 must not be smaller than the tile of 64"),
    ],
)
def test_sizes_that_do_not_fit_are_refused(tiny_clip: open_clip.CLIP, cut: Cut, message: str) -> None:
    with pytest.raises(UsageError, match=message):
        lay_blocks(cut, ClipVit(tiny_clip.visual), windows=7)


@pytest.mark.parametrize(
    ("args", "code", "message"),
    [
        (
            ["-m", "segearth", "--vfm", "demo"],
            2,
            "segearth uses no vision model for --vfm; these do: proxyclip, coninfer",
        ),
        (["-m", "segearth", "--block", "448"], 2, "sees window by window, so leave --block aside"),
        (["-m", "coninfer"], 5, "geoovseg models fetch dinov3_vitl16_sat"),
        (["-m", "direct-mv"], 5, "geoovseg models fetch dinov2_vitb14_reg4"),
        (["-m", "coninfer", "--vfm", "dinov3_vitl"], 2, "did you mean dinov3_vitl16?"),
        (["-m", "coninfer", "--vfm", "dino_vitb16@no.safetensors"], 5, "no weights at no.safetensors, given by --vfm"),
        (["-m", "direct-op", "--vfm", "demo", "--upsample", "guided"], 2, "add --set jbu=false"),
        (["-m", "coninfer", "--vfm", "demo", "--set", "base=none"], 2, "is not segearth or kk or"),
        (["-m", "coninfer", "--vfm", "sd2"], 2, "has attention but no features, which coninfer needs"),
        (["-m", "direct-op", "--vfm", "demo", "--block", "4096"], 2, "too many patches of demo for attention"),
    ],
)
def test_what_a_method_cannot_use_is_refused(
    demo_scene: str, tmp_path: Path, geoovseg: Callable[..., Any], args: list[str], code: int, message: str
) -> None:
    common = ["--vocabulary", "demo", "--model", "demo", "-o", tmp_path / "l.tif"]
    found, _, err = geoovseg("segment", demo_scene, *common, *args)
    assert (found, message in err) == (code, True), err
    assert not (tmp_path / "l.tif").exists()


def test_the_run_record_tells_of_blocks_and_vision_model(demo_scene: str, tmp_path: Path) -> None:
    result = segment(demo_scene, **GIVEN, method="coninfer", settings={"base": "gem"}, output=tmp_path / "l.tif")
    with rasterio.open(result.labels) as src:
        record = json.loads(src.tags()[RUN_TAG])
    assert record["vfm"] == "demo"
    assert len(record["vfm_sha256"]) == 64
    assert record["tile"] == [280, 232]
    assert record["windows_of_blocks"] == [224, 224]
    assert record["settings"]["context"] == "group"
    assert "attn_lambda 0 instead of 0.6" in record["notes"][0]


def test_windows_in_flight_are_halved_inside_a_block(
    demo_scene: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = segment(demo_scene, **GIVEN, method="coninfer", tile=112, output=tmp_path / "whole.tif")
    embed = ClipVit.embed

    def small(self: ClipVit, pixels: torch.Tensor, *more: Any) -> Any:
        if len(pixels) > 4:
            raise torch.OutOfMemoryError("CUDA out of memory")
        return embed(self, pixels, *more)

    monkeypatch.setattr(ClipVit, "embed", small)
    with pytest.warns(UserWarning, match="cannot hold 8 windows; going on with 4"):
        found = segment(demo_scene, **GIVEN, method="coninfer", tile=112, output=tmp_path / "found.tif")
    with rasterio.open(whole.labels) as a, rasterio.open(found.labels) as b:
        np.testing.assert_array_equal(a.read(1), b.read(1))


@pytest.mark.parametrize(
    ("seed", "given", "least"),
    [
        pytest.param(1026, {"sample": 1, "temperature": 5, "attn_lambda": 0}, 0.9, marks=pytest.mark.trial),
        pytest.param(1009, {}, 0.8, marks=pytest.mark.trial),
    ],
)
def test_a_class_on_a_hundredth_of_a_scene_survives_the_scenes_mixture(
    tmp_path: Path, seed: int, given: dict[str, Any], least: float
) -> None:
    """Bare soil on 1.5 % or 0.6 %; at the defaults, and with a mixture that counts ten times more."""
    scene, truth = write_scene(tmp_path / "drawn", seed, 672, 672)
    settings = {"context": "scene", **given}
    result = segment(scene, **GIVEN, method="coninfer", settings=settings, output=tmp_path / "l.tif")
    found = evaluate(result.labels, truth).classes["bare soil"]
    assert 0.005 * 672 * 672 < found.pixels < 0.015 * 672 * 672
    assert found.iou is not None
    assert found.iou > least


@pytest.mark.parametrize(("method", "at_once"), [("coninfer", 2), ("direct-op", 5), ("segearth", 2)])
def test_memory_is_counted_for_what_is_at_pixels(demo_scene: str, method: str, at_once: int) -> None:
    """Classes, or all their words where a method brings its answer to pixels itself; and what it needs beside."""
    words = read_classes(["road=road+street+lane,water=water+lake"], None)
    given = Settings(method=method, model="demo", background="none", vfm=None if method == "segearth" else "demo")
    load = Worker(words, given).job(demo_scene, given).layout.load
    assert load.at_once == at_once
    assert (load.method > 0) is (method != "segearth")


def test_panels_are_not_narrower_than_a_block() -> None:
    plan = plan_tiles(3000, 20_000, tile=1568, stride=1344, patch=8)
    with pytest.warns(UserWarning, match="cannot be blended in 1 MB"):
        width = Load(plan, 8, 8, 1).panel_width(machine.memory(), 1)
    assert width == 1568
