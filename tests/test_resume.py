"""Nothing is lost and nothing changes by how the work is cut: parts, resuming, shards, workers, areas, damage."""

from __future__ import annotations

import errno
import json
import os
import resource
import signal
import subprocess
import sys
import time
import warnings
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import geopandas
import kills
import numpy as np
import pytest
import rasterio
import rasterio.shutil
import shapely
import torch
from filelock import FileLock
from kills import GIVEN
from rasterio.features import geometry_mask
from rasterio.windows import Window

from geoovseg.demo.scenes import render
from geoovseg.errors import (
    GeoOVSegError,
    GeoOVSegWarning,
    InterruptedRunError,
    OutputError,
    ResumeError,
    SceneError,
    UsageError,
)
from geoovseg.labels.parts import PartStore
from geoovseg.methods.dense import DenseMethod
from geoovseg.pipeline import SegmentResult, merge
from geoovseg.run import predictor
from geoovseg.scene.scene import DEMO_TAG, Scene
from geoovseg.segmenter import encode, segment
from geoovseg.settings import Settings
from geoovseg.windows.batch import TileBatch
from geoovseg.windows.in_flight import InFlight
from geoovseg.windows.plan import BLOCK

HEIGHT, WIDTH, PARTS = 4 * BLOCK - 100, 130, 4
FIRST = 2
"""The batch of windows with which the first part is finished."""
Run = Callable[..., tuple[int, str, str]]


@pytest.fixture(scope="module")
def tall(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A narrow scene of four parts."""
    path = tmp_path_factory.mktemp("tall") / "scene.tif"
    pixels = np.concatenate([render(1000 + n, 512, WIDTH)[0] for n in range(4)], axis=1)[:, :HEIGHT]
    profile = {"driver": "GTiff", "height": HEIGHT, "width": WIDTH, "count": 3, "dtype": "uint8"}
    place = rasterio.transform.from_origin(480_000, 5_460_000, 0.5, 0.5)
    with rasterio.open(path, "w", crs="EPSG:32632", transform=place, **profile) as dst:
        dst.write(pixels)
        dst.update_tags(**{DEMO_TAG: "1000"})
    return path


@pytest.fixture(scope="module")
def undisturbed(tall: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[np.ndarray, np.ndarray]:
    """Labels and confidence of a run that nothing happened to."""
    folder = tmp_path_factory.mktemp("whole")
    _run(tall, folder)
    return _read(folder / "labels.tif"), _read(folder / "sure.tif")


def _run(scene: Path, folder: Path, **changes: Any) -> SegmentResult:
    outputs = {"output": folder / "labels.tif", "confidence": str(folder / "sure.tif")}
    return segment(scene, **{**GIVEN, **outputs, **changes})


def _read(path: Path) -> np.ndarray:
    with rasterio.open(path) as src:
        return src.read(1)


def _same(folder: Path, expected: tuple[np.ndarray, np.ndarray]) -> None:
    np.testing.assert_array_equal(_read(folder / "labels.tif"), expected[0])
    np.testing.assert_array_equal(_read(folder / "sure.tif"), expected[1])
    assert not [p for p in folder.iterdir() if ".parts" in p.name or p.name.endswith(".tmp")]


def _stop_after(count: int) -> Callable[[], int | None]:
    """Ask to stop when this many parts have been finished."""
    asked = iter([None] * count + [signal.SIGTERM] * 100)
    return lambda: next(asked)


def _stop_at_a_part(folder: Path) -> Callable[[], int | None]:
    """Ask to stop as soon as a part is finished."""
    return lambda: signal.SIGTERM if list((folder / "labels.tif.parts").glob("part_*.json")) else None


@pytest.mark.parametrize("count", [1, 2, 3])
def test_a_stopped_run_goes_on_where_it_was(
    tall: Path, undisturbed: tuple[np.ndarray, np.ndarray], tmp_path: Path, count: int
) -> None:
    with pytest.raises(InterruptedRunError, match=f"stopped with {count} of 4 parts finished; --resume") as caught:
        _run(tall, tmp_path, stop=_stop_after(count))
    assert caught.value.exit_code == 143
    assert not (tmp_path / "labels.tif").exists()
    with pytest.raises(OutputError, match="--resume goes on with it, --overwrite removes it"):
        _run(tall, tmp_path)
    result = _run(tall, tmp_path, resume=True)
    assert (result.parts, result.parts_kept) == (PARTS, count)
    assert result.redone_windows == 2
    _same(tmp_path, undisturbed)


def test_counts_of_a_resumed_run_are_those_of_an_undisturbed_one(tall: Path, tmp_path: Path) -> None:
    whole = _run(tall, tmp_path)
    (tmp_path / "again").mkdir()
    with pytest.raises(InterruptedRunError):
        _run(tall, tmp_path / "again", stop=_stop_after(2))
    again = _run(tall, tmp_path / "again", resume=True)
    for name in ("windows", "skipped_windows", "failed_windows", "classes", "megapixels"):
        assert getattr(again, name) == getattr(whole, name)
    tags = [rasterio.open(f / "labels.tif").tags()["GEOOVSEG_RUN"] for f in (tmp_path, tmp_path / "again")]
    assert tags[0] == tags[1]


def test_a_run_stopped_before_its_first_part_leaves_nothing(tall: Path, tmp_path: Path) -> None:
    with pytest.raises(InterruptedRunError, match="0 of 4 parts finished; nothing is left behind"):
        _run(tall, tmp_path, stop=_stop_after(0))
    assert list(tmp_path.iterdir()) == []


def test_resuming_what_was_never_begun_begins_it(
    tall: Path, undisturbed: tuple[np.ndarray, np.ndarray], tmp_path: Path
) -> None:
    assert _run(tall, tmp_path, resume=True).parts_kept == 0
    _same(tmp_path, undisturbed)


def test_settings_that_are_refused_cost_no_finished_parts(tall: Path, tmp_path: Path) -> None:
    _run(tall, tmp_path, shard=(1, 2))
    parts = sorted((tmp_path / "labels.tif.parts").iterdir())
    with pytest.raises(UsageError, match="--threshold 7"):
        segment(tall, workers=2, overwrite=True, output=tmp_path / "labels.tif", **GIVEN, threshold=7)
    assert sorted((tmp_path / "labels.tif.parts").iterdir()) == parts


def test_settings_that_are_none_are_the_default() -> None:
    given = {"settings": None, "bands": None, "method": "gem", "workers": None}
    assert Settings(**given) == Settings(method="gem")


def test_overwrite_begins_again(tall: Path, tmp_path: Path) -> None:
    with pytest.raises(InterruptedRunError):
        _run(tall, tmp_path, stop=_stop_after(2))
    assert _run(tall, tmp_path, overwrite=True, vocabulary="loveda").parts_kept == 0


CHANGES = {
    "a word": ({"vocabulary": None, "classes": "building,road"}, "record classes"),
    "a setting": ({"settings": {"class_token_weight": 0}}, "record settings class_token_weight was -0.3 and is now 0"),
    "the method": ({"method": "clearclip"}, "record method was \"segearth\" and is now \"clearclip\""),
    "the windows": ({"stride": 56}, "record stride was 112 and is now 56"),
    "the area": ({"aoi": "480000,5459000,480020,5459999"}, "aoi was null"),
    "the confidence": ({"confidence": None}, "outputs confidence was"),
    "the upsampling": ({"upsample": "bilinear"}, "record upsample was \"guided\" and is now \"bilinear\""),
    "the templates": ({"templates": "plain"}, "record templates was"),
}  # fmt: skip


@pytest.mark.parametrize("what", CHANGES)
def test_resuming_with_something_changed_is_refused_with_the_reason(tall: Path, tmp_path: Path, what: str) -> None:
    with pytest.raises(InterruptedRunError):
        _run(tall, tmp_path, stop=_stop_after(1))
    changes, message = CHANGES[what]
    with pytest.raises(ResumeError, match=message) as caught:
        _run(tall, tmp_path, resume=True, **changes)
    assert caught.value.exit_code == 2
    assert len(list((tmp_path / "labels.tif.parts").glob("part_*.json"))) == 1


def test_a_changed_scene_is_refused(tall: Path, tmp_path: Path) -> None:
    scene = tmp_path / "scene.tif"
    scene.write_bytes(tall.read_bytes())
    with pytest.raises(InterruptedRunError):
        _run(scene, tmp_path, stop=_stop_after(1))
    os.utime(scene, ns=(1, 1))
    with pytest.raises(ResumeError, match=r"scene files scene.tif was \["):
        _run(scene, tmp_path, resume=True)
    scene.write_bytes(tall.read_bytes() + b"x")
    with pytest.raises(ResumeError, match="scene files scene.tif"):
        _run(scene, tmp_path, resume=True)


def test_changed_weights_are_refused(tall: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(InterruptedRunError):
        _run(tall, tmp_path, stop=_stop_after(1))
    loaded = predictor.load_clip
    monkeypatch.setattr(predictor, "load_clip", lambda *a: replace(loaded(*a), sha256="other"))
    with pytest.raises(ResumeError, match='record weights_sha256 was ".*" and is now "other"'):
        _run(tall, tmp_path, resume=True)


def test_two_processes_do_not_work_on_one_run(tall: Path, tmp_path: Path) -> None:
    with pytest.raises(InterruptedRunError):
        _run(tall, tmp_path, stop=_stop_after(1))
    with PartStore(tmp_path / "labels.tif.parts").locked():
        with pytest.raises(OutputError, match="another process is working in"):
            _run(tall, tmp_path, resume=True)


@pytest.mark.parametrize("count", [1, 2, 5])
def test_shards_put_together_are_the_undisturbed_run(
    tall: Path, undisturbed: tuple[np.ndarray, np.ndarray], tmp_path: Path, count: int
) -> None:
    for number in range(count, 0, -1):
        result = _run(tall, tmp_path, shard=(number, count))
        assert result.parts_dir == str(tmp_path / "labels.tif.parts")
        assert not (tmp_path / "labels.tif").exists()
    assert merge(result.parts_dir).labels == str(tmp_path / "labels.tif")
    _same(tmp_path, undisturbed)
    with rasterio.open(tmp_path / "labels.tif") as dst, rasterio.open(tall) as src:
        assert (dst.crs, dst.transform, dst.shape) == (src.crs, src.transform, src.shape)


def test_merging_says_what_is_missing(tall: Path, tmp_path: Path) -> None:
    parts = _run(tall, tmp_path, shard=(1, 2)).parts_dir
    with pytest.raises(OutputError, match="2 of 4 parts are missing .* the first part_0001024_0000000"):
        merge(parts)
    with pytest.raises(OutputError, match="holds no run"):
        merge(tmp_path)
    again = _run(tall, tmp_path, shard=(1, 2))
    assert again.parts_kept == 2


def test_a_scene_of_nothing_but_one_part_gives_other_shards_nothing(tall: Path, tmp_path: Path) -> None:
    assert [_run(tall, tmp_path, shard=(n, 5)).parts for n in range(1, 6)] == [0, 1, 1, 1, 1]


def test_panels_do_not_change_resumed_pixels(tmp_path: Path) -> None:
    """A wide scene, stopped in two panels and resumed with a budget for one: the parts keep their panels."""
    scene = tmp_path / "wide.tif"
    profile = {"driver": "GTiff", "height": 600, "width": 700, "count": 3, "dtype": "uint8", "crs": "EPSG:32632"}
    with rasterio.open(scene, "w", transform=rasterio.transform.from_origin(100, 100, 1, 1), **profile) as dst:
        dst.write(render(1007, 600, 700)[0])
        dst.update_tags(**{DEMO_TAG: "1007"})
    (tmp_path / "whole").mkdir()
    _run(scene, tmp_path / "whole")
    with pytest.raises(InterruptedRunError, match="[12] of 4 parts"):
        _run(scene, tmp_path, stop=_stop_after(1), max_memory=1)
    assert _run(scene, tmp_path, resume=True).panels == 2
    np.testing.assert_array_equal(_read(tmp_path / "labels.tif"), _read(tmp_path / "whole" / "labels.tif"))


COMMAND = ["--vocabulary", "demo", "--model", "demo", "--background", "none", "--stride", "112"]


def _command(scene: Path, folder: Path, *more: str) -> list[str]:
    """The command that `_run` is."""
    outputs = ["-o", str(folder / "labels.tif"), "--confidence", str(folder / "sure.tif")]
    return ["segment", str(scene), *COMMAND, *outputs, *more]


@pytest.mark.trial
def test_ten_kills_at_moments_of_the_work_lose_and_change_nothing(
    tall: Path, undisturbed: tuple[np.ndarray, np.ndarray], tmp_path: Path, geoovseg: Run
) -> None:
    """Which moments, kills.py says; what was finished before each is kept, and after all the command ends the run."""
    done = subprocess.run([sys.executable, kills.__file__, tall, tmp_path], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    found = [json.loads(line) for line in done.stdout.splitlines()]
    assert [one["code"] for one in found] == [-signal.SIGKILL] * 10, done.stderr
    assert [one["finished"] for one in found] == [0, 0, 0, 0, 1, 1, 3, 3, 4, 4]
    assert not (tmp_path / "labels.tif").exists()
    code, out, err = geoovseg(*_command(tall, tmp_path), "--resume", "--json")
    assert code == 0, err
    assert json.loads(out)["parts_kept"] == 4
    assert "4 of 4 parts were finished before" in err
    _same(tmp_path, undisturbed)


def _signals(monkeypatch: pytest.MonkeyPatch, number: int, at: Sequence[int]) -> list[int]:
    """A signal comes while the model sees each of some batches; the list tells how many it saw."""
    vectors, seen = predictor.Predictor.vectors, []

    def signalled(self: predictor.Predictor, batch: TileBatch) -> torch.Tensor:
        seen.append(len(batch))
        if len(seen) in at:
            signal.raise_signal(number)
        return vectors(self, batch)

    monkeypatch.setattr(predictor.Predictor, "vectors", signalled)
    return seen


SIGNALS = pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])


@SIGNALS
def test_a_signal_lets_the_part_in_hand_be_finished(
    tall: Path, tmp_path: Path, geoovseg: Run, monkeypatch: pytest.MonkeyPatch, number: int
) -> None:
    seen = _signals(monkeypatch, number, [1])
    code, _, err = geoovseg(*_command(tall, tmp_path))
    assert code == 128 + number, err
    assert "stopping when the part in hand is finished; once more to stop at once" in err
    assert "stopped with 1 of 4 parts finished; --resume goes on" in err
    assert len(seen) == FIRST
    assert not (tmp_path / "labels.tif").exists()
    assert len(list((tmp_path / "labels.tif.parts").glob("part_*.json"))) == 1


@SIGNALS
def test_a_second_signal_ends_the_run_at_once(
    tall: Path, tmp_path: Path, geoovseg: Run, monkeypatch: pytest.MonkeyPatch, number: int
) -> None:
    """In the batch that would finish the part in hand, of which nothing stays."""
    seen = _signals(monkeypatch, number, [1, FIRST])
    code, _, err = geoovseg(*_command(tall, tmp_path))
    assert code == 128 + number, err
    assert "once more to stop at once" in err
    assert "parts finished" not in err
    assert len(seen) == FIRST
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("workers", [2])
def test_workers_make_the_labels_of_one(
    tall: Path, undisturbed: tuple[np.ndarray, np.ndarray], tmp_path: Path, workers: int
) -> None:
    outputs = {"output": tmp_path / "labels.tif", "confidence": str(tmp_path / "sure.tif")}
    result = segment(tall, workers=workers, **GIVEN, **outputs)
    assert (result.parts, result.windows) == (PARTS, 2 * -(-(HEIGHT - 112) // 112 + 1 - 1) + 2)
    assert result.peak_rss_mb > 2 * 300  # of all processes together
    _same(tmp_path, undisturbed)


@pytest.mark.trial
def test_the_parts_of_a_dying_worker_are_taken_over(
    tall: Path, undisturbed: tuple[np.ndarray, np.ndarray], tmp_path: Path
) -> None:
    """One of two is killed as soon as a part is there."""
    parts, seen = tmp_path / "labels.tif.parts", []

    def kill_one(done: int, total: int) -> None:
        children = [int(p) for p in Path(f"/proc/{os.getpid()}/task/{os.getpid()}/children").read_text().split()]
        workers = [pid for pid in children if b"multiprocessing.spawn" in Path(f"/proc/{pid}/cmdline").read_bytes()]
        if not seen and len(workers) == 2 and list(parts.glob("part_*.json")):
            seen.append(workers[0])
            os.kill(workers[0], signal.SIGKILL)

    outputs = {"output": tmp_path / "labels.tif", "confidence": str(tmp_path / "sure.tif")}
    with pytest.warns(UserWarning, match="worker [12] died; what it had in hand is computed again"):
        segment(tall, workers=2, progress=kill_one, **GIVEN, **outputs)
    _same(tmp_path, undisturbed)


def test_an_error_of_a_worker_is_the_runs(tmp_path: Path, tall: Path) -> None:
    with pytest.raises(GeoOVSegError, match="no model named"):
        segment(tall, workers=2, **{**GIVEN, "model": "nothing", "output": tmp_path / "l.tif"})
    with pytest.raises(UsageError, match="use one of them"):
        segment(tall, workers=2, shard=(1, 2), **GIVEN, output=tmp_path / "l.tif")
    assert list(tmp_path.iterdir()) == []


SHAPE = shapely.Polygon([(480_010, 5_459_900), (480_060, 5_459_800), (480_040, 5_459_300), (480_005, 5_459_600)])


@pytest.mark.parametrize("form", ["file", "other system", "box", "box in degrees"])
def test_inside_the_area_labels_are_those_of_the_whole_run_and_outside_there_is_no_data(
    tall: Path, undisturbed: tuple[np.ndarray, np.ndarray], tmp_path: Path, form: str
) -> None:
    frame = geopandas.GeoDataFrame(geometry=[SHAPE if "box" not in form else shapely.box(*SHAPE.bounds)], crs=32632)
    given: dict[str, Any] = {"aoi": ",".join(map(str, SHAPE.bounds))}
    if "box" not in form:
        given = {"aoi": str(tmp_path / "area.gpkg")}
        (frame if form == "file" else frame.to_crs(4326)).to_file(given["aoi"])
    if form == "box in degrees":
        frame = geopandas.GeoDataFrame(geometry=[shapely.box(*frame.to_crs(4326).total_bounds)], crs=4326)
        given = {"aoi": ",".join(map(str, frame.total_bounds)), "aoi_crs": "EPSG:4326"}
        frame = frame.to_crs(32632)
    result = _run(tall, tmp_path, **given)
    with rasterio.open(tall) as src:
        inside = geometry_mask(frame.geometry, src.shape, src.transform, invert=True)
    labels, sure = _read(tmp_path / "labels.tif"), _read(tmp_path / "sure.tif")
    differing = (labels != np.where(inside, undisturbed[0], 255)) | (sure != np.where(inside, undisturbed[1], 255))
    assert differing.sum() <= (0 if form in ("file", "box") else 3)  # centres on an edge that went there and back
    assert 0 < result.outside_windows < result.windows


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"aoi": "nowhere.gpkg"}, "no such file, and no W,S,E,N either"),
        ({"aoi": "1,2,3,4"}, "does not meet the scene, which lies within 480000"),
        ({"aoi": "3,2,1,4"}, "must have W below E"),
        ({"aoi": "8,49,9,50", "aoi_crs": "EPSG:nothing"}, "--aoi-crs EPSG:nothing is no coordinate system"),
    ],
)
def test_areas_that_cannot_be_used_are_refused(tall: Path, tmp_path: Path, given: dict[str, str], message: str) -> None:
    with pytest.raises(UsageError, match=message):
        _run(tall, tmp_path, **given)
    assert list(tmp_path.iterdir()) == []


@pytest.fixture
def damaged(monkeypatch: pytest.MonkeyPatch) -> list[Window]:
    """Rows 1300 to 1320 of the scene cannot be read; the list tells what was tried."""
    tried: list[Window] = []
    read = Scene.stored

    def fail(self: Scene, window: Window, *shape: object) -> object:
        if window.row_off < 1320 and window.row_off + window.height > 1300:
            tried.append(window)
            raise SceneError("cannot read rows: damaged")
        return read(self, window, *shape)

    monkeypatch.setattr(Scene, "stored", fail)
    monkeypatch.setattr("geoovseg.scene.renewed.RETRY_AFTER", 0)
    return tried


def test_a_window_that_cannot_be_read_stops_the_run_and_parts_are_kept(
    tall: Path, tmp_path: Path, damaged: list[Window]
) -> None:
    with pytest.raises(SceneError, match="damaged"):
        _run(tall, tmp_path)
    assert len(damaged) == 2  # once with its neighbours, once alone
    assert [p.name for p in (tmp_path / "labels.tif.parts").glob("part_*.json")] == ["part_0000000_0000000.json"]


def test_windows_that_cannot_be_read_can_be_skipped_and_are_counted(
    tall: Path, undisturbed: tuple[np.ndarray, np.ndarray], tmp_path: Path, damaged: list[Window]
) -> None:
    result = _run(tall, tmp_path, on_error="skip")
    rows = [r for r in range(0, HEIGHT - 112, 112) if r < 1320 and r + 112 > 1300]
    assert result.failed_windows == 2 * len(rows)
    labels = _read(tmp_path / "labels.tif")
    lost = np.zeros(HEIGHT, bool)
    lost[rows[0] : rows[-1] + 112] = True
    assert (labels[lost] == 255).all()
    lost[rows[0] - 4 : rows[-1] + 112 + 4] = True  # as far as pixels draw from cells that were not seen
    np.testing.assert_array_equal(labels[~lost], undisturbed[0][~lost])
    (tmp_path / "shards").mkdir()
    for n in (1, 2, 3):
        result = _run(tall, tmp_path / "shards", on_error="skip", shard=(n, 3))
    assert merge(result.parts_dir).failed_windows == 2 * len(rows)
    np.testing.assert_array_equal(_read(tmp_path / "shards" / "labels.tif"), labels)


@pytest.mark.parametrize(
    ("stored", "block"),
    [({"tiled": True, "blockxsize": 64, "blockysize": 64}, "1_18"), ({"tiled": False, "blockysize": 1}, "0_1010")],
    ids=["tiles", "strips"],
)
def test_kept_features_lack_what_could_not_be_read_as_the_scene_does(
    tall: Path, tmp_path: Path, stored: dict[str, Any], block: str
) -> None:
    """Also the colours that guided looks at, however many rows are asked for at once."""
    scene = tmp_path / "scene.tif"
    rasterio.shutil.copy(tall, scene, driver="GTiff", compress="deflate", **stored)
    with rasterio.open(scene) as src:
        begin, length = (int(src.get_tag_item(f"BLOCK_{what}_{block}", "TIFF", bidx=1)) for what in ("OFFSET", "SIZE"))
    with scene.open("r+b") as file:
        file.seek(begin)
        file.write(bytes(length))
    direct = _run(scene, tmp_path, on_error="skip")
    kept = encode(scene, output=tmp_path / "x.zarr", on_error="skip", model="demo", stride=112)
    asked: dict[str, Any] = {"vocabulary": "demo", "background": "none", "on_error": "skip"}
    with pytest.warns(GeoOVSegWarning, match="there labels do not follow its colours"):
        found = segment(kept.features, output=tmp_path / "asked.tif", **asked)
    np.testing.assert_array_equal(_read(tmp_path / "asked.tif"), _read(tmp_path / "labels.tif"))
    assert found.failed_windows == kept.failed_windows == direct.failed_windows > 0
    with pytest.warns(GeoOVSegWarning):
        again = segment(scene, output=tmp_path / "b.tif", features=kept.features, **GIVEN, on_error="skip")
    with warnings.catch_warnings(action="ignore"):  # one of them is told
        shards = [segment(kept.features, output=tmp_path / "s.tif", shard=(n, 2), **asked) for n in (1, 2)]
    assert again.failed_windows == merge(shards[0].parts_dir).failed_windows == kept.failed_windows
    np.testing.assert_array_equal(_read(tmp_path / "s.tif"), _read(tmp_path / "labels.tif"))


def test_a_window_that_can_be_read_the_second_time_is(
    tall: Path, undisturbed: tuple[np.ndarray, np.ndarray], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    read, failed = Scene.stored, []

    def fail(self: Scene, window: Window, *shape: object) -> object:
        if window.row_off == 560 and not failed:
            failed.append(window)
            raise SceneError("the network blinked")
        return read(self, window, *shape)

    monkeypatch.setattr(Scene, "stored", fail)
    monkeypatch.setattr("geoovseg.scene.renewed.RETRY_AFTER", 0)
    assert _run(tall, tmp_path).failed_windows == 0
    assert failed
    _same(tmp_path, undisturbed)


def test_on_a_full_disk_nothing_is_lost(
    tall: Path, undisturbed: tuple[np.ndarray, np.ndarray], tmp_path: Path, geoovseg: Run
) -> None:
    """A small disk of its own where one can be mounted."""
    disk = tmp_path / "disk"
    disk.mkdir()
    if subprocess.run(["mount", "-t", "tmpfs", "-o", "size=1500k", "tmpfs", disk], capture_output=True).returncode:
        pytest.skip("mounting a small disk needs rights this process does not have")
    try:
        (disk / "ballast").write_bytes(b"x" * 1_400_000)
        code, _, err = geoovseg(*_command(tall, disk))
        assert code == 1, err
        assert "cannot write" in err
        assert "Traceback" not in err
        assert not (disk / "labels.tif").exists()
        (disk / "ballast").unlink()
        code, _, err = geoovseg(*_command(tall, disk), "--resume", "--json")
        assert code == 0, err
        _same(disk, undisturbed)
    finally:
        subprocess.run(["umount", "-l", disk], check=True)


def test_a_quota_that_is_used_up_is_one_message_and_keeps_parts(
    tall: Path, undisturbed: tuple[np.ndarray, np.ndarray], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """No file may grow beyond a limit, which the third part does: the system refuses the write."""
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    write, written = PartStore.write, []

    def limited(self: PartStore, name: str, content: bytes) -> None:
        written.append(name)
        full = sum("_labels" in n for n in written) > 2
        resource.setrlimit(resource.RLIMIT_FSIZE, (100 if full else limits[0], limits[1]))
        try:
            write(self, name, content)
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, limits)

    with monkeypatch.context() as patch:
        patch.setattr(PartStore, "write", limited)
        with pytest.raises(OutputError, match="cannot write .*labels.tif: File too large; check free space"):
            _run(tall, tmp_path)
    assert not (tmp_path / "labels.tif").exists()
    assert _run(tall, tmp_path, resume=True).parts_kept == 2
    _same(tmp_path, undisturbed)


def test_parts_can_lie_elsewhere(tall: Path, undisturbed: tuple[np.ndarray, np.ndarray], tmp_path: Path) -> None:
    work = tmp_path / "work"
    with pytest.raises(OutputError, match="no folder that can be written to"):
        _run(tall, tmp_path, work_dir=str(work))
    work.mkdir()
    with pytest.raises(InterruptedRunError):
        _run(tall, tmp_path, work_dir=str(work), stop=_stop_after(1))
    assert [p.name for p in tmp_path.iterdir()] == ["work"]
    _run(tall, tmp_path, work_dir=str(work), resume=True)
    assert list(work.iterdir()) == []
    _same(tmp_path, undisturbed)


def test_windows_in_flight_are_halved_until_they_fit() -> None:
    windows = torch.arange(7.0)
    sizes: list[int] = []

    def scores(piece: np.ndarray) -> torch.Tensor:
        sizes.append(len(piece))
        if len(piece) > 2:
            raise torch.OutOfMemoryError("CUDA out of memory")
        return windows[piece]

    flight = InFlight(16)
    with pytest.warns(UserWarning, match="cannot hold 7 windows; going on with 3"):
        found = flight.run(scores, 7)
    assert torch.equal(found, windows)
    assert (flight.count, flight.planned, flight.halved) == (1, 16, True)
    assert sizes[-7:] == [1] * 7


def test_a_window_that_does_not_fit_alone_is_an_error() -> None:
    def scores(piece: np.ndarray) -> torch.Tensor:
        raise torch.OutOfMemoryError("CUDA out of memory")

    with pytest.raises(torch.OutOfMemoryError):
        InFlight(4).run(scores, 1)


def test_what_a_method_prepares_is_computed_once_and_used_by_all(
    tall: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """By the run that begins, by the one that resumes, and by shards."""
    made: list[float] = []
    used: list[float] = []

    def prepare(self: DenseMethod, read: Callable[[Window], TileBatch], shape: object) -> dict[str, torch.Tensor]:
        made.append(float(read(Window(0, 0, 112, 112)).pixels.mean()) + len(made))
        return {"mean": torch.tensor([made[-1]])}

    monkeypatch.setattr(DenseMethod, "prepare", prepare)
    monkeypatch.setattr(DenseMethod, "use", lambda self, prepared: used.append(float(prepared["mean"])))
    with pytest.raises(InterruptedRunError):
        _run(tall, tmp_path, stop=_stop_at_a_part(tmp_path))
    _run(tall, tmp_path, resume=True)
    assert len(made) == 1
    assert used == pytest.approx([made[0]] * 2)
    for number in (1, 2):
        _run(tall, tmp_path, shard=(number, 2), overwrite=True)
    assert len(made) == 2
    assert used[2:] == pytest.approx([made[1]] * 2)


@pytest.mark.parametrize("name", ["part_0000512_0000000_labels.tif", "part_0000512_0000000.json"])
def test_a_damaged_part_is_missing_and_computed_again(
    tall: Path, undisturbed: tuple[np.ndarray, np.ndarray], tmp_path: Path, name: str
) -> None:
    parts = Path(str(_run(tall, tmp_path, shard=(1, 1)).parts_dir))
    (parts / name).write_bytes((parts / name).read_bytes()[:50])
    with pytest.raises(OutputError, match="1 of 4 parts are missing .* the first part_0000512_0000000"):
        merge(parts)
    assert _run(tall, tmp_path, resume=True).parts_kept == 3
    _same(tmp_path, undisturbed)


@pytest.mark.parametrize("name", ["run.json", "panels.json", "grid.tif"])
def test_a_damaged_folder_of_parts_is_one_message(tall: Path, tmp_path: Path, name: str) -> None:
    parts = Path(str(_run(tall, tmp_path, shard=(1, 4)).parts_dir))
    (parts / name).write_text("{")
    with pytest.raises(OutputError, match="holds no run|is damaged"):
        merge(parts)


def test_parts_can_be_moved_before_they_are_merged(
    tall: Path, undisturbed: tuple[np.ndarray, np.ndarray], tmp_path: Path
) -> None:
    parts = Path(str(_run(tall, tmp_path, shard=(1, 1), confidence=None).parts_dir))
    (tmp_path / "elsewhere").mkdir()
    moved = parts.rename(tmp_path / "elsewhere" / "x.parts")
    assert merge(moved).labels == str(tmp_path / "elsewhere" / "labels.tif")
    np.testing.assert_array_equal(_read(tmp_path / "elsewhere" / "labels.tif"), undisturbed[0])


def test_merging_from_inside_the_folder_keeps_what_it_makes(
    tall: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    parts = Path(str(_run(tall, tmp_path, shard=(1, 1)).parts_dir))
    monkeypatch.chdir(parts)
    assert merge(".").labels == str(tmp_path / "labels.tif")
    assert (tmp_path / "labels.tif").exists()


def test_a_refused_resume_does_not_remove_the_parts_of_the_process_at_work(tall: Path, tmp_path: Path) -> None:
    parts = Path(str(_run(tall, tmp_path, shard=(1, 5)).parts_dir))  # a share without parts: none is finished
    with PartStore(parts).locked():
        with pytest.raises(OutputError, match="another process"):
            _run(tall, tmp_path, resume=True)
        assert (parts / "run.json").exists()


def test_changed_sentences_of_one_name_are_refused(tall: Path, tmp_path: Path) -> None:
    mine = tmp_path / "mine.txt"
    mine.write_text("a photo of a {}.\n")
    with pytest.raises(InterruptedRunError):
        _run(tall, tmp_path, templates=str(mine), stop=_stop_after(1))
    mine.write_text("a picture of a {}.\n")
    with pytest.raises(ResumeError, match="record templates_sha256 was"):
        _run(tall, tmp_path, templates=str(mine), resume=True)


@pytest.mark.trial
def test_a_shard_at_work_keeps_its_parts_from_everyone_but_other_shards(tall: Path, tmp_path: Path) -> None:
    parts = Path(str(_run(tall, tmp_path, shard=(1, 4)).parts_dir))
    outputs = {"output": tmp_path / "labels.tif", "confidence": str(tmp_path / "sure.tif")}
    with PartStore(parts).locked(shared=True):
        for others in (
            lambda: _run(tall, tmp_path, overwrite=True),
            lambda: _run(tall, tmp_path, resume=True),
            lambda: segment(tall, workers=2, overwrite=True, **GIVEN, **outputs),
            lambda: merge(parts),
        ):
            with pytest.raises(OutputError, match="another process is working in"):
                others()
        assert _run(tall, tmp_path, shard=(2, 4)).parts == 1
    assert len(list(parts.glob("part_*.json"))) == 2


def test_a_lock_of_a_folder_that_was_replaced_is_none(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    store = PartStore(tmp_path / "x.parts")
    store.folder.mkdir()

    acquire = FileLock.acquire

    def replace_folder(self: FileLock) -> Any:
        found = acquire(self)
        monkeypatch.setattr(FileLock, "acquire", acquire)
        store.remove()
        store.folder.mkdir()
        return found

    monkeypatch.setattr(FileLock, "acquire", replace_folder)
    with pytest.raises(OutputError, match="another process"), store.locked():
        pass


def test_like_named_scenes_share_a_work_dir(
    tall: Path, undisturbed: tuple[np.ndarray, np.ndarray], tmp_path: Path
) -> None:
    for name in ("work", "a", "b"):
        (tmp_path / name).mkdir()
    work = str(tmp_path / "work")
    with pytest.raises(InterruptedRunError):
        _run(tall, tmp_path / "a", work_dir=work, stop=_stop_after(1))
    _run(tall, tmp_path / "b", work_dir=work)
    _same(tmp_path / "b", undisturbed)
    assert _run(tall, tmp_path / "a", work_dir=work, resume=True).parts_kept == 1
    _same(tmp_path / "a", undisturbed)


def test_parts_in_a_work_dir_are_merged_to_where_they_belong(
    tall: Path, undisturbed: tuple[np.ndarray, np.ndarray], tmp_path: Path
) -> None:
    (tmp_path / "work").mkdir()
    parts = _run(tall, tmp_path, shard=(1, 1), work_dir=str(tmp_path / "work")).parts_dir
    with pytest.raises(OutputError, match="which is not beside its parts; say so with -o"):
        merge(str(parts))
    assert merge(str(parts), output=tmp_path / "labels.tif").labels == str(tmp_path / "labels.tif")
    _same(tmp_path, undisturbed)


def _json(path: Path, change: Callable[[Any], Any]) -> None:
    path.write_text(json.dumps(change(json.loads(path.read_text()))))


@pytest.fixture
def shared(tall: Path, tmp_path: Path) -> Path:
    """The folder of parts of a run that only `merge` is missing of."""
    return Path(str(_run(tall, tmp_path, shard=(1, 1)).parts_dir))


def test_parts_in_each_others_place_are_no_parts(shared: Path) -> None:
    first, second = sorted(shared.glob("part_*.json"))[:2]
    for one in shared.glob(f"{first.stem}*"):
        other = one.with_name(one.name.replace(first.stem, second.stem))
        one.rename(shared / "passing")
        other.rename(one)
        (shared / "passing").rename(other)
    with pytest.raises(OutputError, match="2 of 4 parts are missing"):
        merge(shared)


@pytest.mark.parametrize(
    ("name", "change"),
    [
        ("part_0000000_0000000.json", lambda said: {**said, "counts": {"1": "many"}}),
        ("part_0000000_0000000.json", lambda said: {**said, "counts": [1, 2]}),
        ("part_0000000_0000000.json", lambda said: {**said, "windows": None}),
        ("part_0000000_0000000.json", lambda said: {**said, "sha256": {}}),
        ("part_0000000_0000000.json", lambda said: 3),
        ("panels.json", lambda said: {}),
        ("panels.json", lambda said: []),
        ("panels.json", lambda said: [[0, 64]]),
        ("panels.json", lambda said: [[0, "wide"]]),
        ("run.json", lambda said: 3),
        ("run.json", lambda said: {**said, "outputs": 3}),
        ("run.json", lambda said: {**said, "scene": {}}),
        ("run.json", lambda said: {**said, "box": "all"}),
        ("run.json", lambda said: {**said, "scene": {**said["scene"], "transform": [1.0, 0, 0, 0, 1, 0]}}),
        ("run.json", lambda said: {**said, "scene": {**said["scene"], "crs": None}}),
    ],
)
def test_what_a_folder_of_parts_cannot_say_is_an_error(shared: Path, name: str, change: Callable[[Any], Any]) -> None:
    _json(shared / name, change)
    with pytest.raises(OutputError):
        merge(shared)
    assert not (shared.parent / "labels.tif").exists()


@pytest.mark.parametrize("name", ["run.json", "panels.json", "part_0000000_0000000.json"])
def test_text_without_end_in_a_folder_of_parts_is_an_error(shared: Path, name: str) -> None:
    (shared / name).write_text("[" * 100_000)
    with pytest.raises(OutputError):
        merge(shared)


def test_parts_without_their_place_are_not_merged(shared: Path) -> None:
    """As of a file of the grid in which one bit makes the place unreadable."""
    profile = {"driver": "GTiff", "height": 1, "width": 1, "count": 1, "dtype": "uint8", "crs": "EPSG:32632"}
    with rasterio.open(shared / "grid.tif", "w", transform=rasterio.Affine(1, 0, 5, 0, -1, 5), **profile) as dst:
        dst.write(np.ones((1, 1, 1), np.uint8))
    with pytest.raises(OutputError, match="its grid lies elsewhere than its journal says"):
        merge(shared)


def test_outputs_of_a_run_that_was_killed_while_they_got_their_names_are_its_own(
    tall: Path, undisturbed: tuple[np.ndarray, np.ndarray], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The first file has its name, then nothing goes on, not even what puts things back; a foreign file is one."""

    def once(ready: Sequence[tuple[Path, Path]], stale: object, place: Path) -> None:
        os.replace(*ready[0])
        raise KeyboardInterrupt

    monkeypatch.setattr("geoovseg.labels.write.swap", once)
    with pytest.raises(KeyboardInterrupt):
        _run(tall, tmp_path)
    monkeypatch.undo()
    (named,) = (path for path in tmp_path.iterdir() if path.is_file())
    assert _run(tall, tmp_path, resume=True).parts_kept == 4
    _same(tmp_path, undisturbed)
    assert not (tmp_path / "labels.tif.parts").exists()
    with pytest.raises(OutputError, match="exists; add --overwrite"):
        named.write_text("another's")
        (tmp_path / "labels.tif").unlink()
        _run(tall, tmp_path, resume=True)


def test_parts_that_a_killed_run_left_beside_its_finished_labels_go(tall: Path, tmp_path: Path) -> None:
    _run(tall, tmp_path)
    for left in (".labels.tif.0123456789ab.tmp", ".labels.tif.parts.0123456789ab.tmp"):
        (tmp_path / left).mkdir()
        (tmp_path / left / "half").touch()
    assert _run(tall, tmp_path, resume=True).was_there
    assert not [path for path in tmp_path.iterdir() if path.is_dir()]


def test_a_damaged_part_is_computed_again(tall: Path, shared: Path, undisturbed: tuple[np.ndarray, np.ndarray]) -> None:
    part = next(shared.glob("part_*_labels.tif"))
    content = bytearray(part.read_bytes())
    content[len(content) // 2] ^= 1
    part.write_bytes(content)
    with pytest.raises(OutputError, match="1 of 4 parts are missing"):
        merge(shared)
    _run(tall, shared.parent, shard=(1, 1))
    merge(shared)
    _same(shared.parent, undisturbed)


@pytest.mark.parametrize("outside", ["../evil.tif", "/elsewhere/evil.tif", "deeper/evil.tif"])
@pytest.mark.parametrize("key", ["labels", "path", "confidence"])
def test_a_run_is_merged_beside_its_parts_or_where_it_is_said(shared: Path, key: str, outside: str) -> None:
    (shared.parent / "deeper").mkdir()
    _json(shared / "run.json", lambda said: {**said, "outputs": {**said["outputs"], key: outside}})
    with pytest.raises(OutputError, match="not beside its parts; say so with"):
        merge(shared)


def test_only_a_folder_of_parts_is_removed(tall: Path, tmp_path: Path) -> None:
    foreign = tmp_path / "labels.tif.parts"
    foreign.mkdir()
    (foreign / "run.json").write_text('{"my": "notes"}')
    (foreign / "photo.jpg").write_text("precious")
    with pytest.raises(OutputError, match="is no folder of parts, so --overwrite does not remove it"):
        _run(tall, tmp_path, overwrite=True)
    assert (foreign / "photo.jpg").read_text() == "precious"


def test_a_link_is_no_folder_of_parts(tall: Path, tmp_path: Path) -> None:
    (tmp_path / "other").mkdir()
    (tmp_path / "labels.tif.parts").symlink_to(tmp_path / "other")
    with pytest.raises(OutputError, match="is a link, and parts need a folder of their own"):
        _run(tall, tmp_path, overwrite=True)


def test_all_of_a_run_can_be_moved_before_it_is_merged(
    tall: Path, undisturbed: tuple[np.ndarray, np.ndarray], tmp_path: Path
) -> None:
    (tmp_path / "here").mkdir()
    _run(tall, tmp_path / "here", shard=(1, 2))
    (tmp_path / "here").rename(tmp_path / "there")
    _run(tall, tmp_path / "there", shard=(2, 2))
    merge(tmp_path / "there" / "labels.tif.parts")
    _same(tmp_path / "there", undisturbed)


@SIGNALS
def test_a_signal_while_workers_start_is_no_death(tall: Path, tmp_path: Path, number: int) -> None:
    command = [sys.executable, "-m", "geoovseg", *_command(tall, tmp_path, "--workers", "2")]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    children = Path(f"/proc/{process.pid}/task/{process.pid}/children")
    while not any(b"spawn" in Path(f"/proc/{pid}/cmdline").read_bytes() for pid in children.read_text().split()):
        assert process.poll() is None, "it ended before its workers started"
        time.sleep(0.01)
    process.send_signal(number)
    _, err = process.communicate()
    assert process.returncode == 128 + number, err
    assert "died" not in err
    assert "Traceback" not in err


@pytest.mark.parametrize("reason", [errno.ENOSPC, errno.EIO])
def test_what_cannot_be_linked_for_want_of_space_has_no_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, reason: int
) -> None:
    def fail(*names: Path) -> None:
        raise OSError(reason, os.strerror(reason))

    monkeypatch.setattr(os, "link", fail)
    with pytest.raises(OSError, match=os.strerror(reason)):
        PartStore(tmp_path).write_once("panels.json", b"[]")
    assert list(tmp_path.iterdir()) == []


def test_a_file_system_without_links_still_gets_its_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*names: Path) -> None:
        raise OSError(errno.EPERM, "no links here")

    monkeypatch.setattr(os, "link", fail)
    assert PartStore(tmp_path).write_once("panels.json", b"[]") == b"[]"
    assert [p.name for p in tmp_path.iterdir()] == ["panels.json"]


def test_a_full_disk_while_a_method_prepares_is_one_message(
    tall: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    once = PartStore.write_once

    def full(self: PartStore, name: str, content: bytes) -> bytes:
        if name == "prepared.safetensors":
            raise OSError(errno.ENOSPC, "No space left on device")
        return once(self, name, content)

    monkeypatch.setattr(PartStore, "write_once", full)
    with pytest.raises(OutputError, match="cannot write .*labels.tif: .*No space left"):
        _run(tall, tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_a_shortened_preparation_is_damage(tall: Path, tmp_path: Path) -> None:
    with pytest.raises(InterruptedRunError):
        _run(tall, tmp_path, stop=_stop_after(1))
    (tmp_path / "labels.tif.parts" / "prepared.safetensors").write_bytes(b"\x08")
    with pytest.raises(OutputError, match="is damaged: .*; remove that folder and compute the run again"):
        _run(tall, tmp_path, resume=True)


@pytest.mark.trial
def test_windows_that_fit_the_model_but_not_the_upsampling_are_halved(
    tall: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    upsample = predictor.UPSAMPLERS["guided"]
    _run(tall, tmp_path, method="resclip")
    expected = _read(tmp_path / "labels.tif"), _read(tmp_path / "sure.tif")

    def small(scores: torch.Tensor, pixels: torch.Tensor) -> torch.Tensor:
        if len(scores) > 2:
            raise torch.OutOfMemoryError("CUDA out of memory")
        return upsample(scores, pixels)

    monkeypatch.setitem(predictor.UPSAMPLERS, "guided", small)
    with pytest.warns(UserWarning, match="cannot hold 8 windows; going on with 4"):
        _run(tall, tmp_path, method="resclip", overwrite=True)
    _same(tmp_path, expected)


def test_the_windows_of_shards_add_up_to_those_of_the_run(tall: Path, tmp_path: Path) -> None:
    (tmp_path / "whole").mkdir()
    whole = _run(tall, tmp_path / "whole")
    shards = [_run(tall, tmp_path, shard=(n, 3)) for n in (1, 2, 3)]
    assert sum(shard.windows for shard in shards) == whole.windows
    for name, entry in whole.classes.items():
        assert sum(shard.classes[name]["pixels"] for shard in shards) == entry["pixels"]


def test_a_stopped_shard_says_that_its_folder_stays(tall: Path, tmp_path: Path) -> None:
    with pytest.raises(InterruptedRunError, match="stopped with 0 of 2 parts finished; the same command goes on"):
        _run(tall, tmp_path, shard=(1, 2), stop=lambda: signal.SIGTERM)
    assert (tmp_path / "labels.tif.parts").is_dir()


@pytest.mark.parametrize(
    ("args", "message"),
    [
        (["--shard", "3/2"], "--shard 3/2: the first number runs from 1 to the second"),
        (["--on-error", "ignore"], "--on-error ignore: choose stop or skip"),
        (["--shard", "1/2", "--workers", "2"], "use one of them"),
    ],
)
def test_a_dry_run_refuses_what_the_run_would(
    tall: Path, tmp_path: Path, geoovseg: Run, args: list[str], message: str
) -> None:
    for more in ([], ["--dry-run"]):
        code, _, err = geoovseg(*_command(tall, tmp_path, *args, *more))
        assert (code, message in err) == (2, True), err
    assert list(tmp_path.iterdir()) == []


def test_a_dry_run_of_a_shard_is_possible_beside_the_parts_of_another(
    tall: Path, tmp_path: Path, geoovseg: Run
) -> None:
    _run(tall, tmp_path, shard=(1, 2))
    code, out, err = geoovseg(*_command(tall, tmp_path, "--shard", "2/2", "--dry-run"))
    assert code == 0, err
    assert "windows in" in out


@pytest.mark.parametrize("given", [{}, {"aoi": "480000,5459900,480060,5460000"}])
def test_progress_counts_the_windows_that_are_needed(tall: Path, tmp_path: Path, given: dict[str, str]) -> None:
    told: list[tuple[int, int]] = []
    result = _run(tall, tmp_path, progress=lambda *counts: told.append(counts), **given)
    needed = result.windows - result.outside_windows
    assert 0 < needed <= result.windows
    assert {total for _, total in told} == {needed}
    assert [done for done, _ in told] == sorted(done for done, _ in told)
    assert told[-1] == (needed, needed)


@pytest.mark.parametrize("box", ["-180,-90,180,90", "-170,-80,170,84"])
def test_a_box_around_the_world_is_everywhere(
    tall: Path, undisturbed: tuple[np.ndarray, np.ndarray], tmp_path: Path, box: str
) -> None:
    _run(tall, tmp_path, aoi=box, aoi_crs="EPSG:4326")
    _same(tmp_path, undisturbed)


def test_an_area_that_only_touches_the_scene_is_refused(tall: Path, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="does not meet the scene"):
        _run(tall, tmp_path, aoi="479000,5459000,480000,5460000")


def test_an_area_smaller_than_a_pixel_is_told(tall: Path, tmp_path: Path, geoovseg: Run) -> None:
    code, _, err = geoovseg(*_command(tall, tmp_path, "--aoi", "480000.01,5459999.6,480000.02,5459999.7"))
    assert code == 0, err
    assert "no pixel has a label" in err


def test_an_areas_system_on_a_scene_without_one_is_told(tall: Path, tmp_path: Path) -> None:
    bare = tmp_path / "bare.tif"
    with rasterio.open(tall) as src:
        profile = {**src.profile, "crs": None}
        with rasterio.open(bare, "w", **profile) as dst:
            dst.write(src.read())
    with pytest.warns(UserWarning, match="no coordinate system: the numbers of --aoi .* are taken for its own"):
        _run(bare, tmp_path, aoi="480000,5459900,480060,5460000", aoi_crs="EPSG:32632")
