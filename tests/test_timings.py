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

from geoovseg import machine
from geoovseg.demo.scenes import render
from geoovseg.models import upsamplers
from geoovseg.models.cards import MODELS
from geoovseg.ops import upsample
from geoovseg.run import rehearsal, timings
from geoovseg.run.estimate import dry_run
from geoovseg.run.layout import Needs, TileBytes
from geoovseg.run.timings import PACKAGED, TileTime, Timings, keep_timings, known_timings
from geoovseg.run.worker import Worker
from geoovseg.scene.scene import DEMO_TAG
from geoovseg.segmenter import segment
from geoovseg.settings import UPSAMPLERS, Settings
from geoovseg.usage import duration
from geoovseg.vocabulary import read_classes
from geoovseg.windows.blend import ScoreBlend
from geoovseg.windows.plan import Panel, plan_tiles

ODD = Settings(model="demo", tile=64, device="cpu")
"""Sizes that no figures were packaged for."""
GIVEN: dict[str, Any] = {"classes": "road,water", "model": "demo", "tile": 64, "device": "cpu"}
NEEDS = Needs(
    tile=64,
    stride=32,
    patch=8,
    least=0,
    micro_batch=8,
    by_word=False,
    memory=10**10,
    cell=8,
    depth=96,
    reach=0,
)  # fmt: skip


@pytest.fixture(autouse=True)
def _nothing_known(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GEOOVSEG_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(machine, "gpus", list)


def _at(seconds: float, process_mb: float = 500.0, size: tuple[int, int] = (64, 64), words: int = 4) -> Timings:
    return Timings(needs=NEEDS, tiles={size: TileTime(TileBytes(10.0, 2.0), seconds, process_mb, words)})


def test_timings_are_read_as_it_was_kept() -> None:
    keep_timings(ODD, _at(0.125))
    assert known_timings(ODD) == _at(0.125)


def test_sizes_add_up_the_newest_time_counts_and_the_least_memory() -> None:
    keep_timings(ODD, _at(0.5, 700))
    keep_timings(ODD, _at(0.25, 600, (40, 64)))
    keep_timings(ODD, _at(0.125, 900))
    found = known_timings(ODD)
    assert found is not None
    assert {size: taken.seconds for size, taken in found.tiles.items()} == {(64, 64): 0.125, (40, 64): 0.25}
    assert {taken.process_mb for taken in found.tiles.values()} == {600, 700}


def test_a_time_counts_for_about_as_many_words() -> None:
    found = _at(0.5, words=10)
    assert [found.of((64, 64), words) is not None for words in (1, 10, 50, 51, 800)] == [True, True, True, False, False]
    keep_timings(ODD, _at(0.5, 700, words=800))
    assert keep_timings(ODD, _at(0.25, 900)).tiles[64, 64] == _at(0.25, 900).tiles[64, 64]


@pytest.mark.parametrize(
    ("name", "value"), [("tile", "64 px"), ("patch", 0), ("stride", None), ("memory", float("nan")), ("tile", 1e400)]
)
def test_needs_that_cannot_be_count_as_none(name: str, value: object, tmp_path: Path) -> None:
    keep_timings(ODD, _at(0.125))
    (kept,) = (tmp_path / "cache" / "pace").iterdir()
    said = json.loads(kept.read_text())
    said["needs"][name] = value
    kept.write_text(json.dumps(said))
    assert known_timings(ODD) is None


@pytest.mark.parametrize("at", range(7))
@pytest.mark.parametrize("value", [float("inf"), float("nan"), "x", None])
def test_a_tile_that_cannot_be_counts_as_none(at: int, value: object, tmp_path: Path) -> None:
    keep_timings(ODD, _at(0.125))
    (kept,) = (tmp_path / "cache" / "pace").iterdir()
    said = json.loads(kept.read_text())
    said["tiles"][0][at] = value
    kept.write_text(json.dumps(said))
    assert known_timings(ODD) is None


@pytest.mark.parametrize(
    "changes", [{"tile": 56}, {"precision": "bf16"}, {"method": "gem"}, {"settings": {"scale": 3}}]
)
def test_other_settings_have_timings_of_their_own(changes: dict[str, Any]) -> None:
    keep_timings(ODD, _at(0.125))
    assert known_timings(replace(ODD, **changes)) is None
    assert known_timings(replace(ODD, threshold=0.5, gsd=2.0, max_memory=900)) is not None


@pytest.mark.parametrize(
    "damage", [b"", b"{", b"[]", b"\xff\xfe", b'{"needs": {}, "process_mb": 1, "tiles": []}', b"null"]
)
def test_damaged_timings_count_as_none(damage: bytes, tmp_path: Path) -> None:
    keep_timings(ODD, _at(0.125))
    (kept,) = (tmp_path / "cache" / "pace").iterdir()
    kept.write_bytes(damage)
    assert known_timings(ODD) is None
    assert keep_timings(ODD, _at(0.5)) == known_timings(ODD) == _at(0.5)


def test_a_cache_that_cannot_be_written_is_no_error(tmp_path: Path) -> None:
    (tmp_path / "cache").write_text("a file, not a folder")
    assert keep_timings(ODD, _at(0.5)) == _at(0.5)
    assert known_timings(ODD) is None


def test_the_second_dry_run_takes_the_first_ones_word(demo_scene: str, monkeypatch: pytest.MonkeyPatch) -> None:
    first = dry_run(demo_scene, **GIVEN)
    monkeypatch.setattr(rehearsal, "rehearse", lambda *_: pytest.fail("the model was loaded again"))
    assert dry_run(demo_scene, **GIVEN) == first
    more = dry_run(demo_scene, **{**GIVEN, "classes": "road,water,grass"})
    assert more.memory_mb >= first.memory_mb
    assert more.estimated_seconds == first.estimated_seconds


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (0, "1 s"), (45.4, "45 s"), (89, "89 s"), (700, "12 min"), (5399, "90 min"), (5400, "1.5 h"), (7200, "2 h"),
        (12_600, "3.5 h"), (35_990, "10 h"), (129_000, "36 h"), (151_530, "1.8 days"), (172_800, "2 days"),
        (9e6, "104 days"),
    ],
)  # fmt: skip
def test_times_are_said_as_people_say_them(seconds: float, text: str) -> None:
    assert duration(seconds) == text


def test_an_estimate_counts_one_and_many(demo_scene: str, tmp_path: Path) -> None:
    plan = dry_run(demo_scene, output=tmp_path / "x.tif", **GIVEN)
    assert (plan.scene, plan.labels) == (demo_scene, str(tmp_path / "x.tif"))
    assert replace(plan, windows=2, batches=2, panels=2, memory_mb=7, estimated_seconds=9000).to_text() == (
        "230 x 280 pixels, 2 windows in 2 batches, 2 panels, about 7 MB and 2.5 h"
    )
    assert ", 1 window in 1 batch, 1 panel, about " in replace(plan, windows=1, batches=1).to_text()


def test_a_run_says_how_long_the_next_one_takes(demo_scene: str, tmp_path: Path) -> None:
    result = segment(demo_scene, output=tmp_path / "labels.tif", **GIVEN)
    plan = dry_run(demo_scene, output=tmp_path / "other.tif", **GIVEN)
    assert result.windows >= 32
    assert plan.estimated_seconds == pytest.approx(result.seconds["segment"], abs=0.06)
    assert plan.windows == result.windows


def test_a_dry_run_takes_background_words_of_the_users(demo_scene: str) -> None:
    """Where nothing is known yet, and where something is."""
    for _ in range(2):
        assert dry_run(demo_scene, background="forest+grass", **GIVEN).background == ("forest", "grass")


def test_a_run_that_skips_most_windows_says_nothing_of_the_next(
    write_raster: Callable[..., str], tmp_path: Path
) -> None:
    data = np.zeros((3, 900, 900), np.uint8)
    data[:, :200, :200] = render(1001, 200, 200)[0]
    scene = write_raster(data, nodata=0, tags={DEMO_TAG: "1001"})
    segment(scene, output=tmp_path / "labels.tif", **GIVEN)
    assert known_timings(ODD) is None


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
    packaged = known_timings(settings)
    layout = Worker(read_classes("road,water", None), settings).job(scene, settings).layout
    assert packaged is not None
    assert packaged.needs == layout.needs
    assert packaged.needs.memory == machine.memory()
    assert {tile: taken.method for tile, taken in packaged.tiles.items()} == {layout.plan.tile: layout.tile_bytes}
    assert all(100 < taken.process_mb < 3000 for taken in packaged.tiles.values())


def test_packaged_times_are_scaled_by_how_fast_this_machine_multiplies(monkeypatch: pytest.MonkeyPatch) -> None:
    said = json.loads(PACKAGED.read_text())
    monkeypatch.setattr(timings, "product_seconds", lambda: 3 * said["product_seconds"])
    found = known_timings(Settings(model="demo"))
    assert found is not None
    assert found.tiles[112, 112].seconds == pytest.approx(3 * said["methods"]["segearth"]["tiles"][0][4])


def test_nothing_packaged_is_used_beside_a_gpu_or_with_other_settings(monkeypatch: pytest.MonkeyPatch) -> None:
    assert known_timings(Settings(model="demo", device="auto")) is not None
    assert known_timings(Settings(model="demo", device="cuda")) is None
    assert known_timings(Settings(model="demo", tile=224)) is None
    assert known_timings(Settings(model="demo", settings={"scale": 9})) is None
    monkeypatch.setattr(machine, "gpus", lambda: ["/dev/nvidia0"])
    assert known_timings(Settings(model="demo", device="auto")) is None


def test_a_dry_run_of_what_is_known_loads_no_torch(demo_scene: str) -> None:
    code = (
        f"import sys; sys.argv = ['geoovseg', 'segment', {demo_scene!r}, '-c', 'road', '--model', 'demo', "
        "'--device', 'cpu', '--dry-run']\n"
        "from geoovseg import machine\n"
        "machine.gpus = list\n"
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
    blend = ScoreBlend(plan, Panel(0, 300), 5, "cpu")
    held = [value for value in vars(blend).values() if torch.is_tensor(value)]
    taper = 4 * 64 * 64
    assert sum(tensor.nbytes for tensor in held) == plan.strip_bytes(5, 300) + taper


def test_names_of_upsamplers_are_those_there_are() -> None:
    assert set(UPSAMPLERS) == set(upsample.UPSAMPLERS)
    assert {name for name, card in MODELS.items() if card.kind == "upsampler"} == set(upsamplers.STEPS)
