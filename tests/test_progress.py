"""What a run tells a person: before it, meanwhile, and of what it found."""

from __future__ import annotations

import io
import json
import sys
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pyproj
import pytest
from affine import Affine
from rasterio.crs import CRS

from geoovseg.cli import progress
from geoovseg.cli.output import BARS, talk
from geoovseg.cli.remarks import found
from geoovseg.labels.areas import Piece, hectares
from geoovseg.rasters.ground import RasterGrid

Run = Callable[..., tuple[int, str, str]]


class Terminal(io.StringIO):
    """Standard error of a terminal."""

    def isatty(self) -> bool:
        return True


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> SimpleNamespace:
    """A clock that a test moves."""
    now = SimpleNamespace(time=100.0)
    monkeypatch.setattr(progress, "time", SimpleNamespace(monotonic=lambda: now.time))
    return now


def test_lines_end_with_the_time_it_took(clock: SimpleNamespace, capsys: pytest.CaptureFixture[str]) -> None:
    update = progress.lines("window")
    for done, time in ((1, 101.0), (50, 111.0), (100, 120.0)):
        clock.time = time
        update(done, 100)
    assert capsys.readouterr().err.splitlines() == [
        "50 of 100 windows, 4.5 windows/s, 11 s left",
        "100 of 100 windows, 5.0 windows/s, in 20 s",
    ]


def test_of_several_scenes_it_is_told_how_far_all_are(
    clock: SimpleNamespace, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for name, size in (("a.tif", 100), ("b.tif", 300)):
        (tmp_path / name).write_bytes(bytes(size))
    scenes = [str(tmp_path / name) for name in ("a.tif", "b.tif")]
    told = progress.Progress(scenes, quiet=False)
    for scene, time in zip(scenes, (120.0, 180.0), strict=True):
        with told.of(scene) as update:
            clock.time = time
            update(4, 4)
    said = capsys.readouterr().err.splitlines()
    assert said[0].endswith("; all scenes 25%, 60 s left")
    assert "all scenes" not in said[1]


def test_the_bar_of_several_scenes_is_one_and_names_the_scene(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    terminal = Terminal()
    monkeypatch.setattr(sys, "stderr", terminal)
    told = progress.Progress(["a.tif", "b.tif"], quiet=False)
    for scene in ("a.tif", "b.tif"):
        with told.of(scene) as update:
            update(1, 2)
            talk(f"said of {scene}")
            update(2, 2)
    told.close()
    assert "1/2 a.tif" in terminal.getvalue()
    assert "2/2 b.tif" in terminal.getvalue()
    assert "100%" in terminal.getvalue()
    assert "said of a.tif\n" in terminal.getvalue()
    assert not BARS


def test_the_bar_of_one_scene_has_its_name(monkeypatch: pytest.MonkeyPatch) -> None:
    terminal = Terminal()
    monkeypatch.setattr(sys, "stderr", terminal)
    with progress.Progress(["in/scene.tif?sig=SECRET"], quiet=False).of("in/scene.tif?sig=SECRET") as update:
        update(3, 3)
    assert "scene.tif" in terminal.getvalue()
    assert "3/3" in terminal.getvalue()
    assert not BARS


def test_a_run_says_what_it_is_about_and_what_it_found(geoovseg: Run, demo_scene: str) -> None:
    options = ("-c", "building=house+roof,road,nothing like it", "--model", "demo")
    code, _, err = geoovseg("segment", demo_scene, *options)
    assert code == 0
    assert (
        "looking for 1 building (house, roof), 2 road, 3 nothing like it; segearth with demo on cpu, 16 windows" in err
    )
    assert "nothing found of: nothing like it" in err
    assert " ha\n" in err
    assert "done in " in err
    assert "looking for" not in geoovseg("segment", demo_scene, *options, "--quiet", "--overwrite")[2]


def test_found_classes_are_listed_by_their_size() -> None:
    classes = {
        "background": {"code": 0, "pixels": 0, "hectares": 0.0},
        "road": {"code": 1, "pixels": 250, "hectares": 0.25},
        "water": {"code": 2, "pixels": 750, "hectares": 0.75},
        "tree": {"code": 3, "pixels": 0, "hectares": 0.0},
    }
    result: Any = SimpleNamespace(classes=classes, was_there=False, seconds={"total": 3.2})
    assert [" ".join(line.split()) for line in found(result)] == [
        "water 750 px 75.0% 0.75 ha", "road 250 px 25.0% 0.25 ha", "nothing found of: tree", "done in 3 s",
    ]  # fmt: skip


def test_hectares_are_those_of_the_ellipsoid() -> None:
    """A degree by a degree at 60 degrees north, against pyproj's own area of that polygon."""
    grid = RasterGrid(height=1000, width=1000, crs=CRS.from_epsg(4326), transform=Affine(1e-3, 0, 10, 0, -1e-3, 61))
    pieces = [Piece(row + 50, 500, {1: 100_000}) for row in range(0, 1000, 100)]
    area = abs(pyproj.Geod(ellps="WGS84").polygon_area_perimeter([10, 11, 11, 10], [60, 60, 61, 61])[0])
    found_area = hectares(grid, pieces)
    assert found_area is not None
    assert found_area[1] == pytest.approx(area / 1e4, rel=2e-4)


def test_without_a_place_there_are_no_hectares() -> None:
    grid = RasterGrid(height=10, width=10, crs=None, transform=Affine.identity())
    assert hectares(grid, [Piece(5, 5, {1: 100})]) is None


def test_progress_is_told_as_objects_where_a_program_asks(geoovseg: Any, demo_scene: str, tmp_path: Path) -> None:
    code, out, err = geoovseg(
        "segment",
        demo_scene,
        "-c",
        "road",
        "--model",
        "demo",
        "-o",
        str(tmp_path / "l.tif"),
        "--progress",
        "json",
        "--json",
    )
    assert code == 0, err
    told = [json.loads(line) for line in err.splitlines() if line.startswith('{"progress"')]
    assert told[-1]["progress"] == 1.0
    assert told[-1]["done"] == told[-1]["total"]
    assert [each["progress"] for each in told] == sorted(each["progress"] for each in told)
    assert {each["unit"] for each in told} == {"window"}
    json.loads(out)
    code, _, err = geoovseg("segment", demo_scene, "-c", "road", "--model", "demo", "--progress", "dots")
    assert (code, "choose auto or json" in err) == (2, True)
