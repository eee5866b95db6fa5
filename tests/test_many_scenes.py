"""Many scenes: what is listed, names of their own, and one that fails beside those that do not."""

from __future__ import annotations

import io
import json
import os
import shlex
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import rasterio
from PIL import Image
from PIL.PngImagePlugin import PngInfo

from geoovseg.cli.listing import listed
from geoovseg.demo.files import write_scene
from geoovseg.errors import UsageError
from geoovseg.labels.names import label_names
from geoovseg.labels.record import RUN_TAG

Run = Callable[..., tuple[int, str, str]]
OPTIONS = ("-c", "road,water", "--model", "demo", "--background", "none")


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
    wanted = _touch(tmp_path, "a.tif", "b.JP2", "c.vrt", "d.tiff", "e.png", "f.img", "g.jpg", "h.JPEG")
    _touch(tmp_path, "a_labels.tif", "a_confidence.tif", "m_labels.tif.mosaic.vrt", ".hidden.tif", "x.txt", "sub/z.tif")
    (tmp_path / "folder.tif").mkdir()
    assert listed([str(tmp_path)]) == wanted


def _write_ours(folder: Path) -> None:
    """What only its inside tells to be ours."""
    profile = {"driver": "GTiff", "height": 4, "width": 4, "count": 1, "dtype": "uint8", "crs": "EPSG:32632"}
    with rasterio.open(folder / "sure.TIF", "w", transform=rasterio.Affine.scale(2), **profile) as dst:
        dst.update_tags(**{RUN_TAG: "{}"})
    said = PngInfo()
    said.add_text(RUN_TAG, "{}")
    Image.new("RGB", (4, 4)).save(folder / "picture.png", pnginfo=said)


def test_rasters_in_a_folder_that_say_we_wrote_them_are_left_out(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    wanted = _touch(tmp_path, "a.png", "broken.tif")
    _touch(tmp_path, "a_labels.tif", "a_labels.png")
    _write_ours(tmp_path)
    assert listed([str(tmp_path)]) == wanted
    said = capsys.readouterr().err
    assert said == f"{tmp_path}: left out 4 rasters that geoovseg wrote; name a file itself to take it\n"
    assert listed([str(tmp_path)], quiet=True) == wanted
    assert listed([str(tmp_path / "sure.TIF")]) == [str(tmp_path / "sure.TIF")]
    assert capsys.readouterr().err == ""


def test_a_second_run_of_a_folder_takes_the_same_scenes(geoovseg: Run, small: Callable[[str], Path]) -> None:
    folder = small("in/a.tif").parent
    given = ("segment", folder / "a.tif", *OPTIONS, "-o", folder / "labels.tif", "--confidence", folder / "sure.tif")
    assert geoovseg(*given)[0] == 0
    code, out, err = geoovseg("segment", folder, *OPTIONS, "-o", folder.parent)
    assert (code, out.split()) == (0, [str(folder.parent / "a_labels.tif")])
    assert "left out 2 rasters" in err


def test_a_folder_of_folders_is_refused_with_how_to_search_them(tmp_path: Path) -> None:
    outer = tmp_path / "of two"
    _touch(outer, "x.txt", "north/a.tif")
    with pytest.raises(UsageError, match="its subfolders are not searched: find") as caught:
        listed([f"{outer}/"])
    assert f"find {shlex.quote(str(outer))} -name '*.tif' | geoovseg segment - ..." in str(caught.value)


def test_a_number_that_is_no_file_was_meant_for_an_option(
    geoovseg: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (scene,) = _touch(tmp_path, "scene.tif")
    code, out, err = geoovseg("segment", scene, *OPTIONS, "--bands", "3", "2", "1")
    assert (code, out) == (2, "")
    assert "there is no scene named 2; if it belongs to an option" in err
    assert "--bands 3,2,1" in err
    _touch(tmp_path, "2")
    assert listed(["2"]) == ["2"]


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


def test_paths_that_end_in_nul_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sys.stdin", io.StringIO("a.tif\0b.tif\0"))
    with pytest.raises(UsageError, match="find -print, not -print0"):
        listed(["-"])


class _Piped:
    """Standard input with these bytes."""

    def __init__(self, content: bytes) -> None:
        self.buffer = io.BytesIO(content)


@pytest.mark.parametrize("form", ["utf-8-sig", "utf-16", "utf-16-le", "utf-16-be"])
def test_a_list_may_come_from_any_system(monkeypatch: pytest.MonkeyPatch, form: str) -> None:
    monkeypatch.setattr("sys.stdin", _Piped("b.tif\r\nwith space.tif\r\n".encode(form)))
    assert listed(["-"]) == ["b.tif", "with space.tif"]
    more = [f"Gelände/{n}.tif" for n in range(1000)]
    monkeypatch.setattr("sys.stdin", _Piped("\n".join(["a.tif", *more]).encode(form if form[-1] == "g" else "utf-16")))
    assert listed(["-"]) == ["a.tif", *more]


def test_names_in_no_encoding_are_kept_for_their_turn(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sys.stdin", _Piped(b"Gel\xe4nde.tif\nb.tif\n"))
    assert [os.fsencode(name) for name in listed(["-"])] == [b"Gel\xe4nde.tif", b"b.tif"]


@pytest.mark.parametrize(
    "start", [b"II*\0\x08\0\0\0", b"MM\0*\0\0\0\x08", b"\x89PNG\r\n\x1a\n\0\0", b"\xff\xd8\xff\xe0\0\x10JFIF\0"]
)
def test_the_content_of_a_file_is_no_list_and_gets_the_right_advice(
    monkeypatch: pytest.MonkeyPatch, start: bytes
) -> None:
    monkeypatch.setattr("sys.stdin", _Piped(start + bytes(range(256)) * 64))
    with pytest.raises(
        UsageError, match=r"reads a list of names .* content of a file.*geoovseg segment scene.tif"
    ) as caught:
        listed(["-"])
    assert "find" not in str(caught.value)


def test_a_reader_that_has_gone_ends_the_batch_and_is_no_fault_of_the_scenes(
    geoovseg: Run, small: Callable[[str], Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    first, second = small("a.tif"), small("b.tif")

    def closed(text: str) -> None:
        raise BrokenPipeError(32, "Broken pipe")

    monkeypatch.setattr("geoovseg.cli.output.typer.echo", lambda text, err=False: None if err else closed(text))
    code, _, _ = geoovseg("segment", first, second, *OPTIONS, "-o", first.parent / "out")
    assert code == 141
    assert [path.name for path in (first.parent / "out").glob("*.tif")] == ["a_labels.tif"]


@pytest.mark.parametrize("deeper", ["", "/new"])
def test_a_dry_run_refuses_a_file_where_a_folder_is_to_be(
    geoovseg: Run, small: Callable[[str], Path], deeper: str
) -> None:
    first, second = small("a.tif"), small("b.tif")
    file = first.with_name("file.txt")
    file.write_text("")
    for more in ((), ("--dry-run",)):
        code, _, err = geoovseg("segment", first, second, *OPTIONS, "-o", f"{file}{deeper}", *more)
        assert (code, "cannot make this folder" in err) == (2, True)


def test_a_dry_run_names_labels_in_folders_that_are_yet_to_be_made(geoovseg: Run, small: Callable[[str], Path]) -> None:
    first, second = small("a.tif"), small("a_labels_of.tif")
    folder = first.parent / "new" / "deeper"
    code, out, err = geoovseg("segment", first, second, *OPTIONS, "-o", folder, "--dry-run", "--json")
    assert code == 0, err
    assert json.loads(out.splitlines()[0])["labels"] == str(folder / "a_labels.tif")
    assert not folder.parent.exists()


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
    from geoovseg.scene.scene import Scene

    scenes, read = [small("a.tif"), small("b.tif")], Scene.stored

    def cut_short(self: Scene, *args: object) -> tuple[np.ndarray, np.ndarray]:
        if self.path == str(scenes[1]):
            raise SceneError("cut short")
        return read(self, *args)  # type: ignore[arg-type]

    monkeypatch.setattr(Scene, "stored", cut_short)
    code, _, err = geoovseg("segment", *scenes, *OPTIONS, "--on-error", "skip", "--quiet")
    assert code == 3
    assert f"2 scenes: 1 done, 1 with unreadable windows: {scenes[1]}\n" in err


def test_dry_runs_of_several_scenes_name_them_and_say_how_long_all_take(
    geoovseg: Run, small: Callable[[str], Path], tmp_path: Path
) -> None:
    scenes = [small("in/a.tif"), small("in/b.tif")]
    bad, options = tmp_path / "in" / "c.tif", (*OPTIONS, "--dry-run", "-o", tmp_path / "out")
    bad.write_bytes(b"II*\0nothing")
    code, out, err = geoovseg("segment", tmp_path / "in", *options)
    assert code == 4
    for line, scene in zip(out.splitlines(), scenes, strict=True):
        assert line.startswith(f"{scene}: 64 x 64 pixels, 1 window in 1 batch, 1 panel, about ")
    assert "3 scenes: 2 can be done in about 1 s, 1 failed: " in err
    said = [json.loads(line) for line in geoovseg("segment", *scenes, *options, "--json", "--quiet")[1].splitlines()]
    assert [each["scene"] for each in said] == [str(scene) for scene in scenes]


def test_the_summary_of_dry_runs_is_quiet_when_asked(geoovseg: Run, small: Callable[[str], Path]) -> None:
    scenes, options = [small("a.tif"), small("b.tif")], (*OPTIONS, "--dry-run")
    assert "2 scenes: 2 can be done in about " in geoovseg("segment", *scenes, *options)[2]
    assert geoovseg("segment", *scenes, *options, "--quiet")[2] == ""


def test_a_dry_run_of_a_scene_alone_has_no_name_and_no_summary(geoovseg: Run, small: Callable[[str], Path]) -> None:
    scene = small("a.tif")
    code, out, err = geoovseg("segment", scene, *OPTIONS, "--dry-run")
    assert (code, err) == (0, "")
    assert out.startswith("64 x 64 pixels, 1 window in 1 batch")
    said = json.loads(geoovseg("segment", scene, *OPTIONS, "--dry-run", "--json")[1])
    assert (said["scene"], said["labels"]) == (str(scene), str(scene.with_name("a_labels.tif")))


@pytest.mark.parametrize("options", [("--shard", "1/2"), ("--workers", "2"), ("--resume",)])
def test_a_dry_run_of_a_share_says_that_it_is_of_the_whole(
    geoovseg: Run, small: Callable[[str], Path], options: tuple[str, ...]
) -> None:
    given = ("segment", small("a.tif"), *OPTIONS, "--dry-run")
    whole, (code, out, err) = geoovseg(*given), geoovseg(*given, *options)
    assert (code, out) == (0, whole[1])
    assert "figures of the whole run in one process" in err
