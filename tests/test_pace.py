"""What methods took is kept between runs, so that a dry run need not load a model."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from geoovseg import pace, rehearsal
from geoovseg.budget import machine_memory
from geoovseg.demo.scenes import render
from geoovseg.estimate import dry_run
from geoovseg.job import prepare_job
from geoovseg.layout import Beside, Needs
from geoovseg.models import upsamplers
from geoovseg.models.cards import MODELS
from geoovseg.mosaic import ScoreMosaic
from geoovseg.ops import upsample
from geoovseg.pace import PACKAGED, Pace, Taken, keep_pace, known_pace
from geoovseg.pipeline import segment
from geoovseg.scene import DEMO_TAG, open_scene
from geoovseg.settings import UPSAMPLERS, Settings
from geoovseg.tiling import Panel, plan_tiles
from geoovseg.vocabulary import read_classes

ODD = Settings(model="demo", tile=64, device="cpu")
"""Sizes that no figures were packaged for."""
GIVEN: dict[str, Any] = {"classes": "road,water", "model": "demo", "tile": 64, "device": "cpu"}
NEEDS = Needs(tile=64, stride=32, patch=8, least=0, micro_batch=8, by_word=False, memory=10**10, bf16_pays=False)


@pytest.fixture(autouse=True)
def _nothing_known(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GEOOVSEG_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(pace, "gpus", list)


def _at(seconds: float, process_mb: float = 500.0, tile: tuple[int, int] = (64, 64)) -> Pace:
    return Pace(needs=NEEDS, process_mb=process_mb, tiles={tile: Taken(Beside(10.0, 2.0), seconds)})


def test_a_pace_is_read_as_it_was_kept() -> None:
    keep_pace(ODD, _at(0.125))
    assert known_pace(ODD) == _at(0.125)


def test_sizes_add_up_the_newest_time_counts_and_the_least_memory() -> None:
    keep_pace(ODD, _at(0.5, 700))
    keep_pace(ODD, _at(0.25, 600, (40, 64)))
    keep_pace(ODD, _at(0.125, 900))
    found = known_pace(ODD)
    assert found is not None
    assert {tile: taken.seconds for tile, taken in found.tiles.items()} == {(64, 64): 0.125, (40, 64): 0.25}
    assert found.process_mb == 600


@pytest.mark.parametrize(
    "changes", [{"tile": 56}, {"precision": "bf16"}, {"method": "gem"}, {"settings": {"scale": 3}}]
)
def test_other_settings_have_a_pace_of_their_own(changes: dict[str, Any]) -> None:
    keep_pace(ODD, _at(0.125))
    assert known_pace(replace(ODD, **changes)) is None
    assert known_pace(replace(ODD, threshold=0.5, gsd=2.0, max_memory=900)) is not None


@pytest.mark.parametrize(
    "damage", [b"", b"{", b"[]", b"\xff\xfe", b'{"needs": {}, "process_mb": 1, "tiles": []}', b"null"]
)
def test_a_damaged_pace_counts_as_none(damage: bytes, tmp_path: Path) -> None:
    keep_pace(ODD, _at(0.125))
    (kept,) = (tmp_path / "cache" / "pace").iterdir()
    kept.write_bytes(damage)
    assert known_pace(ODD) is None
    assert keep_pace(ODD, _at(0.5)) == known_pace(ODD) == _at(0.5)


def test_a_cache_that_cannot_be_written_is_no_error(tmp_path: Path) -> None:
    (tmp_path / "cache").write_text("a file, not a folder")
    assert keep_pace(ODD, _at(0.5)) == _at(0.5)
    assert known_pace(ODD) is None


def test_the_second_dry_run_takes_the_first_ones_word(demo_scene: str, monkeypatch: pytest.MonkeyPatch) -> None:
    first = dry_run(demo_scene, **GIVEN)
    monkeypatch.setattr(rehearsal, "rehearse", lambda *_: pytest.fail("the model was loaded again"))
    assert dry_run(demo_scene, **GIVEN) == first
    more = dry_run(demo_scene, **{**GIVEN, "classes": "road,water,grass"})
    assert more.memory_mb > first.memory_mb
    assert more.estimated_seconds == first.estimated_seconds


def test_a_run_says_how_long_the_next_one_takes(demo_scene: str, tmp_path: Path) -> None:
    result = segment(demo_scene, output=tmp_path / "labels.tif", **GIVEN)
    plan = dry_run(demo_scene, output=tmp_path / "other.tif", **GIVEN)
    assert result.windows >= 32
    assert plan.estimated_seconds == pytest.approx(result.seconds["segment"], abs=0.06)
    assert plan.windows == result.windows


def test_a_dry_run_of_another_size_is_rehearsed(
    demo_scene: str, write_raster: Callable[..., str], monkeypatch: pytest.MonkeyPatch
) -> None:
    dry_run(demo_scene, **GIVEN)
    tried: list[int] = []
    rehearse = rehearsal.rehearse
    monkeypatch.setattr(rehearsal, "rehearse", lambda *given: tried.append(1) or rehearse(*given))
    low = write_raster(render(1001, 40, 300)[0], "low.tif", tags={DEMO_TAG: "1001"})
    dry_run(low, **GIVEN)
    dry_run(low, **GIVEN)
    dry_run(demo_scene, **GIVEN)
    assert tried == [1]


@pytest.mark.parametrize("name", json.loads(PACKAGED.read_text())["methods"])
def test_what_was_packaged_is_what_the_method_asks_for(name: str, write_raster: Callable[..., str]) -> None:
    """Figures of time may age; windows and memory must not."""
    scene = write_raster(np.zeros((3, 130, 130), np.uint8), tags={DEMO_TAG: "1"})
    settings = Settings(method=name, model="demo", device="cpu")
    packaged = known_pace(settings)
    with open_scene(scene) as src:
        job = prepare_job(src, read_classes("road,water", None), settings)
    assert packaged is not None
    assert packaged.needs == job.needs
    assert packaged.needs.memory == machine_memory()
    assert {tile: taken.beside for tile, taken in packaged.tiles.items()} == {
        tile: taken.beside for tile, taken in job.pace(1.0, 1.0).tiles.items()
    }
    assert 100 < packaged.process_mb < 3000


def test_packaged_times_are_scaled_by_how_fast_this_machine_multiplies(monkeypatch: pytest.MonkeyPatch) -> None:
    said = json.loads(PACKAGED.read_text())
    monkeypatch.setattr(pace, "product_seconds", lambda: 3 * said["product_seconds"])
    found = known_pace(Settings(model="demo"))
    assert found is not None
    assert found.tiles[112, 112].seconds == pytest.approx(3 * said["methods"]["segearth"]["tiles"][0][-1])


def test_nothing_packaged_is_used_beside_a_gpu_or_with_other_settings(monkeypatch: pytest.MonkeyPatch) -> None:
    assert known_pace(Settings(model="demo", device="auto")) is not None
    assert known_pace(Settings(model="demo", device="cuda")) is None
    assert known_pace(Settings(model="demo", tile=224)) is None
    assert known_pace(Settings(model="demo", settings={"scale": 9})) is None
    monkeypatch.setattr(pace, "gpus", lambda: ["/dev/nvidia0"])
    assert known_pace(Settings(model="demo", device="auto")) is None


def test_a_dry_run_of_what_is_known_loads_no_torch(demo_scene: str) -> None:
    code = (
        f"import sys; sys.argv = ['geoovseg', 'segment', {demo_scene!r}, '-c', 'road', '--model', 'demo', "
        "'--device', 'cpu', '--dry-run']\n"
        "from geoovseg import pace\n"
        "pace.gpus = list\n"
        "from geoovseg.cli import main\n"
        "try: main()\n"
        "except SystemExit as stop: assert not stop.code\n"
        "heavy = {'torch', 'open_clip', 'timm', 'geopandas'} & set(sys.modules)\n"
        "assert not heavy, heavy"
    )
    done = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True)
    assert "16 windows in 2 batches" in done.stdout


@pytest.mark.parametrize("stride", [16, 8])
def test_the_strip_takes_what_was_planned(stride: int) -> None:
    plan = plan_tiles(200, 300, tile=64, stride=stride, patch=8)
    mosaic = ScoreMosaic(plan, Panel(0, 300), 5, "cpu")
    held = [value for value in vars(mosaic).values() if torch.is_tensor(value)]
    taper = 4 * 64 * 64
    assert sum(tensor.nbytes for tensor in held) == plan.strip_bytes(5, 300) + taper


def test_names_of_upsamplers_are_those_there_are() -> None:
    assert set(UPSAMPLERS) == set(upsample.UPSAMPLERS)
    assert {name for name, card in MODELS.items() if card.kind == "upsampler"} == set(upsamplers.STEPS)
