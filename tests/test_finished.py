"""Going on: what is finished stays, what is missing is made, and a finished run is done."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from geoovseg import segment
from geoovseg.errors import GeoOVSegWarning, OutputError
from geoovseg.run.worker import Worker

WriteRaster = Callable[..., str]
Run = Callable[..., tuple[int, str, str]]
DEMO = ("-c", "building,road", "--model", "demo")


@pytest.fixture
def folder(write_raster: WriteRaster, tmp_path: Path) -> Path:
    """A folder of two scenes."""
    (tmp_path / "scenes").mkdir()
    for name in ("a", "b"):
        write_raster(np.random.default_rng(1).integers(1, 255, (3, 120, 130), dtype=np.uint8), f"scenes/{name}.tif")
    return tmp_path / "scenes"


@pytest.fixture
def computed(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Names of the scenes of which parts were computed."""
    names: list[str] = []
    compute = Worker.compute

    def watched(self: Worker, job: Any, parts: Any) -> Any:
        names.append(os.path.basename(job.scene))
        return compute(self, job, parts)

    monkeypatch.setattr(Worker, "compute", watched)
    return names


@pytest.mark.parametrize("option", ["--resume", "--skip-finished"])
def test_scenes_that_are_finished_are_done(geoovseg: Run, folder: Path, computed: list[str], option: str) -> None:
    assert geoovseg("segment", folder / "a.tif", *DEMO)[0] == 0
    code, out, err = geoovseg("segment", folder, *DEMO, option, "--json")
    assert code == 0, err
    assert "2 scenes: 2 done" in err
    assert f"{folder / 'a_labels.tif'} was finished before, with the same settings" in err
    assert computed == ["a.tif", "b.tif"]
    first, second = map(json.loads, out.splitlines())
    assert (first["was_there"], second["was_there"]) == (True, False)
    assert first["classes"] == second["classes"]
    assert first["windows"] == second["windows"]
    before = (folder / "a_labels.tif").stat()
    assert geoovseg("segment", folder, *DEMO, option)[0] == 0
    assert (folder / "a_labels.tif").stat() == before
    assert computed == ["a.tif", "b.tif"]


def test_polygons_that_are_missing_are_made_of_finished_labels(
    geoovseg: Run, folder: Path, computed: list[str], tmp_path: Path
) -> None:
    vectors = tmp_path / "a.gpkg"
    assert geoovseg("segment", folder / "a.tif", *DEMO)[0] == 0
    for _ in range(2):
        code, out, err = geoovseg("segment", folder / "a.tif", *DEMO, "--vectors", vectors, "--resume", "--json")
        assert code == 0, err
        assert json.loads(out)["vectors"] == str(vectors)
        assert vectors.exists()
    assert computed == ["a.tif"]


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"method": "naclip"}, 'method was "segearth" and is now "naclip"'),
        ({"classes": "building,water"}, "classes was"),
        ({"threshold": 0.5}, "threshold was null and is now 0.5"),
        ({"stride": 64}, "stride was"),
        ({"aoi": "480010,5459950,480040,5459990"}, "aoi was null and is now"),
        ({"gsd": 1.0}, "another grid than the scene"),
    ],
)
def test_labels_of_other_settings_are_no_finished_ones(folder: Path, change: dict[str, Any], reason: str) -> None:
    given = {"classes": "building,road", "model": "demo"}
    segment(folder / "a.tif", **given)
    with pytest.raises(OutputError, match="is not what this run would make: ") as told:
        segment(folder / "a.tif", **{**given, **change, "skip_finished": True})
    assert reason in str(told.value)
    made = segment(folder / "a.tif", **{**given, **change, "skip_finished": True, "overwrite": True})
    assert not made.was_there


def test_labels_older_than_their_scene_are_not_finished(folder: Path) -> None:
    labels = segment(folder / "a.tif", "road", model="demo").labels
    os.utime(labels, (1, 1))
    with pytest.raises(OutputError, match="the scene has changed since"):
        segment(folder / "a.tif", "road", model="demo", resume=True)


def test_a_confidence_raster_that_is_missing_is_not_passed_over(folder: Path, tmp_path: Path) -> None:
    segment(folder / "a.tif", "road", model="demo")
    with pytest.raises(OutputError, match="exists; add --overwrite"):
        segment(folder / "a.tif", "road", model="demo", confidence=tmp_path / "c.tif", skip_finished=True)


def test_a_finished_mosaic_is_done_and_its_missing_tiles_are_cut(
    geoovseg: Run, write_raster: WriteRaster, tmp_path: Path, computed: list[str]
) -> None:
    data = np.random.default_rng(1).integers(1, 255, (3, 64, 64), dtype=np.uint8)
    tile = write_raster(data, "a.tif")
    options = (*DEMO, "--mosaic", "--per-tile", tmp_path / "cut", "-o", tmp_path / "labels.tif")
    assert geoovseg("segment", tile, *options)[0] == 0
    (tmp_path / "cut" / "a_labels.tif").unlink()
    code, out, err = geoovseg("segment", tile, *options, "--resume")
    assert code == 0, err
    assert (tmp_path / "cut" / "a_labels.tif").exists()
    assert len(computed) == 1
    assert str(tmp_path / "cut" / "a_labels.tif") in out


def test_outputs_go_where_links_lead(geoovseg: Run, folder: Path, tmp_path: Path) -> None:
    disk = tmp_path / "disk"
    disk.mkdir()
    names = ("labels.tif", "confidence.tif", "classes.gpkg")
    for name in names:
        (tmp_path / name).symlink_to(disk / name)
    labels, confidence, vectors = (tmp_path / name for name in names)
    for _ in range(2):
        code, _, err = geoovseg(
            "segment", folder / "a.tif", *DEMO, "-o", labels, "--confidence", confidence, "--vectors", vectors,
            "--overwrite",
        )  # fmt: skip
        assert code == 0, err
    assert all((tmp_path / name).is_symlink() and (disk / name).is_file() for name in names)
    assert not list(tmp_path.glob("*.parts"))


def test_options_that_stand_alone_have_default_names(geoovseg: Run, folder: Path) -> None:
    code, out, err = geoovseg("segment", folder, *DEMO, "--confidence", "--vectors", "--json")
    assert code == 0, err
    for line, stem in zip(out.splitlines(), ("a", "b"), strict=True):
        said = json.loads(line)
        assert said["confidence"] == str(folder / f"{stem}_confidence.tif")
        assert said["vectors"] == str(folder / f"{stem}_classes.gpkg")
        assert Path(said["confidence"]).is_file()
        assert Path(said["vectors"]).is_file()


def test_folders_take_the_outputs_of_one_and_of_many(geoovseg: Run, folder: Path, tmp_path: Path) -> None:
    there = tmp_path / "there"
    options = (*DEMO, "--confidence", f"{there}/", "--vectors", f"{there}/", "-o", f"{tmp_path / 'labels'}/")
    for scene, stems in ((folder / "a.tif", "a"), (folder, "ab")):
        code, _, err = geoovseg("segment", scene, *options, "--overwrite")
        assert code == 0, err
        names = {path.name for path in there.iterdir() if path.suffix in (".tif", ".gpkg")}
        assert names == {f"{stem}_{end}" for stem in stems for end in ("confidence.tif", "classes.gpkg")}


@pytest.mark.parametrize("option", ["--confidence", "--vectors"])
def test_several_scenes_need_a_folder_for_their_outputs(geoovseg: Run, folder: Path, option: str) -> None:
    name = {"--confidence": "c.tif", "--vectors": "v.gpkg"}[option]
    code, _, err = geoovseg("segment", folder, *DEMO, option, folder / name)
    assert code == 2
    assert "with several scenes give a folder" in err


def test_a_disk_that_may_not_hold_a_run_is_told_before_it(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("geoovseg.run.checks.shutil.disk_usage", lambda place: SimpleNamespace(free=100))
    with pytest.warns(GeoOVSegWarning, match="may be needed on the disk of .*make room and use --resume"):
        segment(folder / "a.tif", "road", model="demo")
