"""The commands as users type them: exit codes, what is said where, and what is written."""

from __future__ import annotations

import json
import os
import re
import shlex
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import rasterio
from conftest import shared_file

from geoovseg.demo.files import write_scene
from geoovseg.methods import METHODS
from geoovseg.prompts import class_lists
from geoovseg.scene.scene import Scene

Run = Callable[..., tuple[int, str, str]]
DEMO = ("--model", "demo")
SEGMENT_KEYS = {
    "scene", "classes", "labels", "vectors", "confidence", "method", "model", "device", "precision", "batch_size",
    "windows",
    "skipped_windows", "failed_windows", "megapixels", "seconds", "peak_rss_mb",
}  # fmt: skip


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A drawn scene with its truth."""
    place = tmp_path_factory.mktemp("drawn")
    write_scene(place, 1005, 300, 260)
    return place


@pytest.fixture
def scene(folder: Path, tmp_path: Path) -> Path:
    path = tmp_path / "scene.tif"
    path.write_bytes((folder / "scene.tif").read_bytes())
    return path


def test_segment_prints_only_paths_on_stdout(geoovseg: Run, scene: Path) -> None:
    conf = scene.with_name("conf.tif")
    code, out, err = geoovseg("segment", scene, "-c", "building,road,water", *DEMO, "--confidence", conf)
    assert code == 0
    assert out.split() == [str(scene.with_name("scene_labels.tif")), str(conf)]
    assert err.count("20 of 20 windows") == 1
    assert "code 0 (background): " in err
    assert all(Path(p).exists() for p in out.split())


def test_segment_json_is_one_object_with_the_documented_keys(geoovseg: Run, scene: Path) -> None:
    code, out, err = geoovseg("segment", scene, "-c", "road", *DEMO, "--json", "--quiet")
    result = json.loads(out)
    assert code == 0
    assert out.count("\n") == 1
    assert set(result) >= SEGMENT_KEYS
    assert result["seconds"]["total"] > 0
    assert (result["windows"], result["failed_windows"], result["vectors"]) == (20, 0, None)
    assert err == ""


def test_bands_and_range_are_said_where_they_are_no_matter_of_course(
    geoovseg: Run, scene: Path, write_raster: Callable[..., str]
) -> None:
    said = "seen as red, green, blue"
    assert said not in geoovseg("segment", scene, "-c", "road", *DEMO)[2]
    data = np.arange(3 * 40 * 50, dtype=np.uint16).reshape(3, 40, 50)
    other = write_raster(data, "other.tif")
    code, out, err = geoovseg("segment", other, "-c", "road", *DEMO, "--bands", "3,2,1", "--json")
    assert code == 0
    assert "bands 3, 2, 1 seen as red, green, blue; 119.98 as black, 5879.02 as white" in err
    assert json.loads(out)["bands"] == [3, 2, 1]
    assert json.loads(out)["scale"] == pytest.approx([119.98, 5879.02])


def test_dry_run_writes_nothing(geoovseg: Run, scene: Path) -> None:
    code, out, _ = geoovseg("segment", scene, "-c", "road", *DEMO, "--dry-run", "--json")
    keys = {"windows", "batches", "parts", "panels", "memory_mb", "working_grid", "estimated_seconds"}
    assert code == 0
    assert set(json.loads(out)) >= keys
    assert [p.name for p in scene.parent.iterdir()] == ["scene.tif"]
    assert "20 windows in 3 batches" in geoovseg("segment", scene, "-c", "road", *DEMO, "--dry-run")[1]


def test_several_scenes_go_into_a_folder_and_the_first_failure_counts(geoovseg: Run, scene: Path) -> None:
    target, broken = scene.parent / "out", scene.with_name("broken.tif")
    broken.write_bytes(b"II*\0nothing")
    code, out, err = geoovseg("segment", broken, scene, "-c", "road", *DEMO, "-o", target, "--json")
    assert code == 4
    failed, done = map(json.loads, out.splitlines())
    assert (failed["scene"], done["labels"]) == (str(broken), str(target / "scene_labels.tif"))
    assert "cannot open" in err
    assert geoovseg("segment", broken, scene, "-c", "road", *DEMO, "-o", "x.tif")[0] == 2


def test_a_dry_run_refuses_what_the_run_would_refuse(geoovseg: Run, scene: Path) -> None:
    assert geoovseg("segment", scene, "-c", "road", *DEMO, "--dry-run", "-o", "/no/such/x.tif")[0] == 1
    other = scene.with_name("other.tif")
    other.write_bytes(scene.read_bytes())
    assert geoovseg("segment", scene, other, "-c", "road", *DEMO, "--dry-run", "-o", scene.parent / "new")[0] == 0
    assert not (scene.parent / "new").exists()
    scene.with_name("scene_labels.tif").touch()
    assert geoovseg("segment", scene, other, "-c", "road", *DEMO, "--dry-run", "-o", scene.parent / "new")[0] == 0


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        (["-c", "road"], 5, "geoovseg models fetch ViT-B-16/openai"),
        ([*DEMO], 2, "no classes given"),
        (["-c", "road,road", *DEMO], 2, "given twice"),
        (["-c", "road", *DEMO, "-m", "nothing"], 2, "no method named 'nothing'; choose from clip"),
        (["-c", "road", *DEMO, "--set", "scale"], 2, "write name=value"),
        (["-c", "road", *DEMO, "--bands", "r,g,b"], 2, "has no band 'r'"),
        (["-c", "road", *DEMO, "--no-such-option"], 2, "No such option"),
        (["-c", "road", *DEMO, "-o", "/no/such/folder/x.tif"], 1, "does not exist"),
        (["-c", "road", *DEMO, "--tile", "many"], 2, "Invalid value"),
    ],
)
def test_errors_have_their_code_one_message_and_no_traceback(
    geoovseg: Run, scene: Path, arguments: list[str], code: int, message: str
) -> None:
    found, out, err = geoovseg("segment", scene, *arguments)
    assert (found, out) == (code, "")
    assert message in err
    assert "Traceback" not in err
    assert [p.name for p in scene.parent.iterdir()] == ["scene.tif"]


def test_an_unreadable_scene_is_exit_4(geoovseg: Run, tmp_path: Path) -> None:
    assert geoovseg("segment", tmp_path / "none.tif", "-c", "road", *DEMO)[0] == 4
    corrupt = shared_file("rasters", "corrupt_jpeg_tile.tif")
    code, _, err = geoovseg("segment", corrupt, "-c", "road", *DEMO, "-o", tmp_path / "x.tif")
    assert code == 4
    assert "cannot read rows" in err
    assert list(tmp_path.iterdir()) == []


def test_interruption_is_exit_130_and_leaves_nothing(
    geoovseg: Run, scene: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupt(self: Scene, *window: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(Scene, "stored", interrupt)
    assert geoovseg("segment", scene, "-c", "road", *DEMO)[0] == 130
    assert [p.name for p in scene.parent.iterdir()] == ["scene.tif"]


def test_a_second_sigterm_is_exit_143_at_once_and_leaves_nothing(tmp_path: Path) -> None:
    """The part in hand would take minutes."""
    scene, _ = write_scene(tmp_path, 1, 1200, 1200)
    command = [sys.executable, "-m", "geoovseg", "segment", scene, "-c", "road", *DEMO, "--stride", "8"]
    process = subprocess.Popen(command, stderr=subprocess.PIPE, env={**os.environ, "OMP_NUM_THREADS": "1"}, text=True)
    parts = tmp_path / "scene_labels.tif.parts"
    while not parts.exists():
        assert process.poll() is None, process.communicate()
        time.sleep(0.1)
    process.send_signal(signal.SIGTERM)
    assert process.stderr is not None
    assert any("once more to stop at once" in line for line in process.stderr)  # reads up to that line
    process.send_signal(signal.SIGTERM)
    process.communicate(timeout=60)
    assert process.returncode == 143
    assert not [p for p in tmp_path.iterdir() if "labels" in p.name]


def test_segment_evaluate_preview_fit_together(geoovseg: Run, scene: Path, folder: Path) -> None:
    labels = scene.with_name("l.tif")
    geoovseg("segment", scene, "--vocabulary", "demo", *DEMO, "-o", labels, "--background", "none")
    code, out, _ = geoovseg("evaluate", labels, folder / "truth.tif", "--json")
    result = json.loads(out)
    assert code == 0
    assert set(result) >= {"miou", "accuracy", "classes", "confusion", "order"}
    assert result["miou"] > 0.6
    assert "mIoU" in geoovseg("evaluate", labels, folder / "truth.tif")[1]
    code, out, _ = geoovseg("preview", scene, labels, scene.with_name("p.png"))
    assert code == 0
    assert Path(out.strip()).stat().st_size > 1000


def _hinted(err: str) -> list[str]:
    (line,) = (line for line in err.splitlines() if line.startswith("see it: "))
    return shlex.split(line.removeprefix("see it: geoovseg "))


@pytest.mark.parametrize("more", [(), ("--bands", "3,2,green", "--scale", "10,200"), ("--gsd", "1.3")])
def test_the_hint_shows_the_labels_as_the_run_saw_the_scene(geoovseg: Run, scene: Path, more: tuple[str, ...]) -> None:
    labels = scene.with_name("my labels.tif")
    hint = _hinted(geoovseg("segment", scene, "-c", "road", *DEMO, "-o", labels, *more)[2])
    picture = str(labels.with_suffix(".png"))
    assert hint == ["preview", str(scene), str(labels), picture, *(more if "--bands" in more else ())]
    code, out, _ = geoovseg(*hint)
    assert (code, out.strip()) == (0, picture)


def test_the_picture_of_the_hint_is_never_the_scene(geoovseg: Run, scene: Path) -> None:
    picture = scene.with_name("a.png")
    with rasterio.open(scene) as src, rasterio.open(picture, "w", **{**src.profile, "driver": "PNG"}) as dst:
        dst.write(src.read())
    hint = _hinted(geoovseg("segment", picture, "-c", "road", *DEMO, "-o", scene.with_name("a.tif"))[2])
    assert hint[-1] == str(scene.with_name("a_preview.png"))


def test_the_box_of_a_scene_can_be_pasted_as_an_area(geoovseg: Run, scene: Path) -> None:
    given = ("segment", scene, "-c", "road", *DEMO, "--dry-run", "--aoi")
    code, _, err = geoovseg(*given, "1,2,3,4")
    box = re.search(r"which lies within (\S+);", err)
    assert code == 2
    assert box is not None
    assert box[1] == "480000,5459850,480130,5460000"
    assert geoovseg(*given, box[1])[0] == 0


def test_one_class_and_no_background_is_warned_of_once(geoovseg: Run, scene: Path) -> None:
    code, _, err = geoovseg("segment", scene, "-c", "road", *DEMO, "--background", "none")
    assert code == 0
    assert err.count("warning: road is the only class and --background is none") == 1


def test_one_class_of_a_drawn_scene_stays_small(geoovseg: Run, scene: Path) -> None:
    geoovseg("segment", scene, "-c", "building", *DEMO)
    with rasterio.open(scene.with_name("scene_labels.tif")) as src:
        labels = src.read(1)
    assert set(np.unique(labels)) <= {0, 1}
    assert (labels == 1).mean() < 0.5


def test_the_real_scene_is_segmented_with_a_warning(geoovseg: Run, tmp_path: Path) -> None:
    real = shared_file("labelled", "nb_bakerlake_1.tif")
    code, _, err = geoovseg("segment", real, "-c", "building,road,water", *DEMO, "-o", tmp_path / "x.tif")
    assert code == 0
    assert err.count("warning: the demo model was trained on drawn scenes only") == 1


def test_demo_makes_everything_and_says_where(geoovseg: Run, tmp_path: Path) -> None:
    code, out, _ = geoovseg("demo", tmp_path / "d", "--size", "300x260", "--json")
    result: dict[str, Any] = json.loads(out)
    assert code == 0
    assert set(result) >= {"scene", "truth", "labels", "vectors", "picture", "miou", "seconds"}
    assert all(Path(result[k]).exists() for k in ("scene", "truth", "labels", "picture"))
    assert Path(result["vectors"]).name == "scene_classes.gpkg"
    assert geoovseg("demo", tmp_path / "d", "--size", "huge")[0] == 2
    assert geoovseg("demo", tmp_path / "e", "--method", "none")[0] == 2
    assert not (tmp_path / "e").exists()


def test_demo_does_not_replace_other_files(geoovseg: Run, tmp_path: Path) -> None:
    (tmp_path / "scene.tif").write_text("precious")
    code, _, err = geoovseg("demo", tmp_path, "--size", "64x64")
    assert code == 1
    assert "choose another folder" in err
    assert (tmp_path / "scene.tif").read_text() == "precious"


def test_demo_does_not_replace_labels_of_somebody_else(geoovseg: Run, tmp_path: Path) -> None:
    (tmp_path / "scene_labels.tif").write_text("mine")
    assert geoovseg("demo", tmp_path, "--size", "64x64")[0] == 1
    assert [p.name for p in tmp_path.iterdir()] == ["scene_labels.tif"]


def test_a_full_standard_output_is_one_message(tmp_path: Path) -> None:
    with open("/dev/full", "w") as full:
        command = [sys.executable, "-m", "geoovseg", "methods"]
        done = subprocess.run(command, stdout=full, stderr=subprocess.PIPE, text=True, check=False)
    assert done.returncode == 1
    assert "cannot write to standard output" in done.stderr
    assert "Traceback" not in done.stderr


def test_demo_can_draw_only(geoovseg: Run, tmp_path: Path) -> None:
    code, out, _ = geoovseg("demo", tmp_path, "--scene-only", "--size", "200x100", "--json")
    assert code == 0
    assert json.loads(out)["labels"] is None
    with rasterio.open(tmp_path / "scene.tif") as src:
        assert src.shape == (100, 200)


def test_methods_are_listed_and_shown(geoovseg: Run) -> None:
    out = geoovseg("methods")[1]
    assert [line.split()[0] for line in out.splitlines()] == list(METHODS)
    assert "--set class_token_weight=-0.3" in geoovseg("methods", "segearth")[1]
    shown = [json.loads(line) for line in geoovseg("methods", "--json")[1].splitlines()]
    assert [s["name"] for s in shown] == list(METHODS)
    assert geoovseg("methods", "none")[0] == 2


def test_models_are_listed_and_shown(geoovseg: Run) -> None:
    listed = [json.loads(line) for line in geoovseg("models", "list", "--json")[1].splitlines()]
    assert {"demo", "ViT-B-16/openai"} <= {m["name"] for m in listed}
    assert next(m for m in listed if m["name"] == "demo")["here"]
    assert "MIT" in geoovseg("models", "show", "ViT-B-16/openai")[1]
    assert geoovseg("models", "show", "nothing")[0] == 2
    code, _, err = geoovseg("models", "fetch", "ViT-B-32/openai")
    assert code == 1
    assert "HF_HUB_OFFLINE forbids the network; unset it" in err
    assert geoovseg("models", "fetch", "demo")[0] == 0


def test_doctor_tells_what_is_here(geoovseg: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PROJ_LIB", "/somewhere")
    code, out, _ = geoovseg("doctor", "--json")
    found = json.loads(out)
    assert code == 0
    assert "torch" in found["packages"]
    assert any("PROJ_LIB" in p for p in found["problems"])
    assert "memory_gb" in geoovseg("doctor")[1]


def test_version_and_module_entry_point() -> None:
    text = subprocess.run([sys.executable, "-m", "geoovseg", "--version"], capture_output=True, text=True, check=True)
    assert text.stdout.startswith("geoovseg 0.")


def test_class_lists_are_listed(geoovseg: Run) -> None:
    code, out, err = geoovseg("vocabulary")
    assert (code, err) == (0, "")
    assert {line.split()[0] for line in out.splitlines()} == set(class_lists())
    code, out, _ = geoovseg("vocabulary", "--json")
    assert {"name": "loveda", "classes": 6, "about": "LoveDA, words as in SegEarth-OV."} in map(
        json.loads, out.splitlines()
    )


def test_a_class_list_is_shown_with_codes_words_and_colours(geoovseg: Run) -> None:
    code, out, _ = geoovseg("vocabulary", "loveda")
    assert code == 0
    assert "   0  background  background" in out.splitlines()
    assert "   1  #c0392b  building      building, roof, house" in out.splitlines()
    found = json.loads(geoovseg("vocabulary", "loveda", "--json")[1])
    assert found["classes"][1] == {"code": 2, "name": "road", "words": ["road"], "colour": "#7f8c8d"}
    assert geoovseg("vocabulary", "lovda")[0] == 2


def test_classes_a_model_cannot_tell_apart_are_named(geoovseg: Run) -> None:
    code, out, _ = geoovseg("vocabulary", "-c", "house,building,road", "--model", "demo")
    assert code == 0
    assert "1 of 3 pairs that demo can hardly tell apart (cosine 0.92 or more):" in out
    assert "house / building  (house - building)" in out
    found = json.loads(geoovseg("vocabulary", "demo", "--model", "demo", "--json")[1])
    assert found["close"] == []
    assert found["closest"]["cosine"] < 0.92
    assert geoovseg("vocabulary", "loveda", "--model", "ViT-B-16/openai")[0] == 5
    assert geoovseg("vocabulary", "--model", "demo")[0] == 2
