"""Many scenes: what is listed, names of their own, and one that fails beside those that do not."""

from __future__ import annotations

import io
import json
import os
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from geoovseg.cli.scenes import listed
from geoovseg.demo.files import write_scene
from geoovseg.errors import UsageError
from geoovseg.names import label_names

Run = Callable[..., tuple[int, str, str]]
OPTIONS = ("-c", "road", "--model", "demo", "--background", "none")


@pytest.fixture
def small(tmp_path: Path) -> Callable[[str], Path]:
    """Write a small drawn scene under a name."""

    def small(name: str) -> Path:
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        write_scene(tmp_path / "drawn", 1005, 64, 64)
        path.write_bytes((tmp_path / "drawn" / "scene.tif").read_bytes())
        return path

    return small


def _touch(folder: Path, *names: str) -> list[str]:
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).touch()
    return [str(folder / name) for name in names]


def test_a_folder_stands_for_its_rasters_by_name_without_what_we_wrote(tmp_path: Path) -> None:
    wanted = _touch(tmp_path, "a.tif", "b.JP2", "c.vrt", "d.tiff", "e.png", "f.img", "g.jpg")
    _touch(tmp_path, "a_labels.tif", "a_confidence.tif", "m_labels.tif.mosaic.vrt", ".hidden.tif", "x.txt", "sub/z.tif")
    (tmp_path / "folder.tif").mkdir()
    assert listed([str(tmp_path)]) == wanted


def test_a_folder_without_rasters_is_refused_and_names_it(geoovseg: Run, tmp_path: Path) -> None:
    _touch(tmp_path, "a_labels.tif")
    code, _, err = geoovseg("segment", tmp_path, *OPTIONS)
    assert code == 2
    assert f"the folder {tmp_path} has no raster" in err


def test_a_dash_reads_paths_of_scenes_from_standard_input(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sys.stdin", io.StringIO("b.tif\n\n  \nwith space.tif \r\na.tif"))
    assert listed(["first.tif", "-"]) == ["first.tif", "b.tif", "with space.tif ", "a.tif"]
    monkeypatch.setattr("sys.stdin", io.StringIO("\n"))
    with pytest.raises(UsageError, match="from standard input, one a line; there was none"):
        listed(["-"])


def test_a_scene_that_is_named_twice_is_there_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    _touch(tmp_path, "a.tif", "b.tif")
    monkeypatch.chdir(tmp_path)
    assert listed(["b.tif", ".", "a.tif"]) == ["b.tif", "./a.tif"]


def _names(scenes: list[str], folder: str | None = None) -> list[str]:
    return [os.fspath(name) for name in label_names(scenes, folder)]


@pytest.mark.parametrize(
    ("scenes", "names"),
    [
        (["a/x.tif", "b/y.tif"], ["x", "y"]),
        (["a/x.tif", "b/x.tif", "c/y.tif"], ["a_x", "b_x", "y"]),
        (["a/k/x.tif", "b/k/x.tif", "c/x.tif"], ["a_k_x", "b_k_x", "c_x"]),
        (["a/x.tif", "a/x.jp2", "b/x.tif"], ["x_tif", "x_jp2", "b_x"]),
        (["a/x.tif", "b/x.tif", "c/a_x.tif"], ["HERE_a_x", "b_x", "c_a_x"]),
        (["https://h/a/x.tif?s=1", "https://h/b/x.tif?s=2"], ["a_x", "b_x"]),
    ],
)
def test_equal_stems_in_one_folder_get_names_of_their_own(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, scenes: list[str], names: list[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    expected = [os.path.join("out", f"{name}_labels.tif").replace("HERE", tmp_path.name) for name in names]
    found = _names(scenes, "out")
    assert found == expected
    assert _names(scenes[::-1], "out") == expected[::-1]
    assert len(set(found)) == len(scenes)


def test_labels_beside_scenes_clash_only_where_suffixes_differ(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    scenes = _touch(Path(), "a/x.tif", "b/x.tif", "b/x.jp2")
    assert _names(scenes) == ["a/x_labels.tif", "b/x_tif_labels.tif", "b/x_jp2_labels.tif"]


def test_labels_that_would_replace_a_scene_yet_to_be_read_are_refused(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"x_labels\.tif, which is one of the scenes"):
        label_names(_touch(tmp_path, "x.tif", "x_labels.tif"))


def test_one_scene_that_fails_leaves_the_others_and_the_summary_names_it(
    geoovseg: Run, small: Callable[[str], Path], tmp_path: Path
) -> None:
    scenes = [small("a/scene.tif"), small("b/scene.tif")]
    bad = tmp_path / "a" / "bad.tif"
    bad.write_bytes(b"II*\0nothing")
    code, out, err = geoovseg(
        "segment", tmp_path / "a", scenes[1], *OPTIONS, "-o", tmp_path / "out", "--json", "--quiet"
    )
    failed, *done = map(json.loads, out.splitlines())
    assert code == failed["exit_code"] == 4
    assert (failed["scene"], "cannot open" in failed["error"]) == (str(bad), True)
    assert [each["labels"] for each in done] == [str(tmp_path / "out" / f"{n}_scene_labels.tif") for n in "ab"]
    assert f"3 scenes: 2 done, 1 failed: {bad}\n" in err


def test_the_summary_is_quiet_when_all_is_well(geoovseg: Run, small: Callable[[str], Path]) -> None:
    scenes = [small("a.tif"), small("b.tif")]
    _, _, err = geoovseg("segment", *scenes, *OPTIONS)
    assert err.endswith("2 scenes: 2 done\n")
    assert f"scene 2 of 2: {scenes[1]}\n" in err
    code, out, err = geoovseg("segment", scenes[0].parent, *OPTIONS, "--quiet", "--overwrite")
    assert (code, err) == (0, "")
    assert out.split() == [str(path.with_name(f"{path.stem}_labels.tif")) for path in scenes]


def test_one_scene_that_fails_is_said_as_json_too(geoovseg: Run, tmp_path: Path) -> None:
    code, out, err = geoovseg("segment", tmp_path / "no.tif", *OPTIONS, "--json")
    said = json.loads(out)
    assert (said["scene"], said["exit_code"], code) == (str(tmp_path / "no.tif"), 4, 4)
    assert said["error"] in err
    assert err.count("error") == 1


def test_one_raster_in_a_folder_still_has_a_folder_for_its_labels(
    geoovseg: Run, small: Callable[[str], Path], tmp_path: Path
) -> None:
    folder = small("in/a.tif").parent
    assert geoovseg("segment", folder, *OPTIONS, "-o", tmp_path / "x.tif")[0] == 2
    code, out, _ = geoovseg("segment", folder, *OPTIONS, "-o", tmp_path / "new")
    assert (code, out.strip()) == (0, str(tmp_path / "new" / "a_labels.tif"))


def test_nothing_is_computed_when_the_names_cannot_be_settled(
    geoovseg: Run, small: Callable[[str], Path], tmp_path: Path
) -> None:
    scene = small("a.tif")
    before = set(tmp_path.rglob("*"))
    for options in (
        ["--confidence", "c.tif"],
        ["--vectors", "v.gpkg"],
        ["-o", tmp_path / "x.tif"],
        ["-o", scene / "under"],
    ):
        assert geoovseg("segment", scene, tmp_path / "b.tif", *OPTIONS, *options)[0] == 2
    assert set(tmp_path.rglob("*")) == before


def test_scenes_with_unreadable_windows_are_counted_apart(
    geoovseg: Run, small: Callable[[str], Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    from geoovseg.errors import SceneError
    from geoovseg.scene import Scene

    scenes, read = [small("a.tif"), small("b.tif")], Scene.read

    def cut_short(self: Scene, *args: object) -> tuple[np.ndarray, np.ndarray]:
        if self.path == str(scenes[1]):
            raise SceneError("cut short")
        return read(self, *args)  # type: ignore[arg-type]

    monkeypatch.setattr(Scene, "read", cut_short)
    code, _, err = geoovseg("segment", *scenes, *OPTIONS, "--on-error", "skip", "--quiet")
    assert code == 3
    assert f"2 scenes: 1 done, 1 with unreadable windows: {scenes[1]}\n" in err
