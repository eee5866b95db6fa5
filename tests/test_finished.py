"""Going on: what is finished stays, what is missing is made, and a finished run is done."""

from __future__ import annotations

import json
import os
import zipfile
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


def test_labels_in_eight_bits_are_no_others(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("geoovseg.ops.eight_bits.is_exact", lambda: True)
    monkeypatch.setattr("geoovseg.models.precision.packed", lambda model, eight: model)
    given: dict[str, Any] = {"classes": "building,road", "model": "demo", "resume": True}
    segment(str(folder / "a.tif"), precision="int8", **given)
    assert segment(str(folder / "a.tif"), precision="int8", **given).was_there
    with pytest.raises(OutputError, match='precision was "int8" and is now "float"'):
        segment(str(folder / "a.tif"), precision="fp32", **given)


def test_a_confidence_raster_that_is_missing_is_not_passed_over(folder: Path, tmp_path: Path) -> None:
    segment(folder / "a.tif", "road", model="demo")
    with pytest.raises(OutputError, match="exists, and .*c.tif does not; add --overwrite"):
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


@pytest.mark.parametrize("option", ["resume", "skip_finished"])
def test_labels_of_another_image_are_not_finished(folder: Path, write_raster: WriteRaster, option: str) -> None:
    """Also where that image is older than the labels, and has the same name and grid."""
    labels = segment(folder / "a.tif", "road", model="demo").labels
    other = np.random.default_rng(2).integers(1, 255, (3, 120, 130), dtype=np.uint8)
    write_raster(other, "scenes/a.tif")
    os.utime(folder / "a.tif", (1, 1))
    with pytest.raises(OutputError, match="it is of another image, or this one has changed since"):
        segment(folder / "a.tif", "road", model="demo", output=labels, **{option: True})


def test_an_image_in_an_archive_that_was_replaced_is_another_one(folder: Path) -> None:
    archive = folder / "z.zip"
    for stem in ("a", "b"):
        (folder / "scene.tif").write_bytes((folder / f"{stem}.tif").read_bytes() + stem.encode())
        with zipfile.ZipFile(archive, "w") as file:
            file.write(folder / "scene.tif", "scene.tif")
        if stem == "b":
            os.utime(archive, (1, 1))
            break
        segment(f"/vsizip/{archive}/scene.tif", "road", model="demo", output=folder / "z.tif")
    with pytest.raises(OutputError, match="another image"):
        segment(f"/vsizip/{archive}/scene.tif", "road", model="demo", output=folder / "z.tif", skip_finished=True)


def test_overviews_that_a_viewer_makes_change_no_image(folder: Path) -> None:
    segment(folder / "a.tif", "road", model="demo")
    (folder / "a.tif.ovr").write_bytes((folder / "b.tif").read_bytes())
    assert segment(folder / "a.tif", "road", model="demo", skip_finished=True).was_there


def test_what_cannot_be_read_is_not_finished(folder: Path) -> None:
    labels = Path(segment(folder / "a.tif", "road", model="demo").labels)
    labels.write_text("junk")
    with pytest.raises(OutputError, match="add --overwrite to replace it"):
        segment(folder / "a.tif", "road", model="demo", skip_finished=True)
    assert not segment(folder / "a.tif", "road", model="demo", skip_finished=True, overwrite=True).was_there


def test_a_raster_that_is_no_confidence_is_not_taken_for_it(folder: Path, tmp_path: Path) -> None:
    segment(folder / "a.tif", "road", model="demo")
    (tmp_path / "c.tif").write_bytes((folder / "b.tif").read_bytes())
    with pytest.raises(OutputError, match="c.tif is an image that geoovseg did not make"):
        segment(folder / "a.tif", "road", model="demo", confidence=tmp_path / "c.tif", skip_finished=True)


def test_polygons_of_older_labels_and_other_files_are_not_finished_ones(folder: Path, tmp_path: Path) -> None:
    vectors = tmp_path / "v.gpkg"
    given: dict[str, Any] = {"classes": "road", "model": "demo", "vectors": vectors}
    segment(folder / "a.tif", **given)
    os.utime(vectors, (1, 1))
    with pytest.raises(OutputError, match="was not made of"):
        segment(folder / "a.tif", **given, skip_finished=True)
    vectors.write_text("hello")
    with pytest.raises(OutputError, match="was not made of"):
        segment(folder / "a.tif", **given, skip_finished=True)
    assert segment(folder / "a.tif", **given, skip_finished=True, overwrite=True).vectors == str(vectors)


def test_an_image_is_never_replaced_by_an_output(geoovseg: Run, folder: Path) -> None:
    """`--confidence a.tif b.tif` takes the first image for a name."""
    before = (folder / "a.tif").read_bytes()
    code, _, err = geoovseg("segment", "--confidence", folder / "a.tif", folder / "b.tif", *DEMO, "--overwrite")
    assert code == 1
    assert "is an image that geoovseg did not make" in err
    assert (folder / "a.tif").read_bytes() == before


def test_a_link_to_itself_leads_nowhere_and_is_replaced(folder: Path) -> None:
    (folder / "self.tif").symlink_to("self.tif")
    assert Path(segment(folder / "a.tif", "road", model="demo", output=folder / "self.tif").labels).is_file()


def test_a_dry_run_makes_no_folder_for_polygons(geoovseg: Run, folder: Path, tmp_path: Path) -> None:
    code, _, err = geoovseg("segment", folder / "a.tif", *DEMO, "--vectors", f"{tmp_path / 'new'}/", "--dry-run")
    assert code == 0, err
    assert not (tmp_path / "new").exists()
