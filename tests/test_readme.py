"""What the README and the pages of docs/ say is so: every command in them runs, every link leads somewhere."""

from __future__ import annotations

import importlib
import os
import re
import shlex
import subprocess
import sys
from collections.abc import Callable, Iterator
from importlib.metadata import version
from pathlib import Path

import geopandas
import numpy as np
import pytest
import rasterio
import shapely
from rasterio.transform import from_origin

from geoovseg.demo.files import write_scene
from geoovseg.methods import METHODS, card
from geoovseg.models.cards import model_card

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text()
PAGES = (ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").glob("*.md")))
SHELL = re.compile(r"```sh\n(.*?)```", re.DOTALL)
WITH_COMMANDS = [page for page in PAGES if SHELL.search(page.read_text()) and page.name != "CONTRIBUTING.md"]
NOT_RUN = ("make ", "pip ")
"""Starts of lines that are no commands of ours: they set up an environment, or run everything."""
Run = Callable[..., tuple[int, str, str]]


def _lines(page: Path) -> list[str]:
    """The commands of a page, in order."""
    lines = [line for block in SHELL.findall(page.read_text()) for line in block.splitlines()]
    return [line for line in lines if not line.startswith(NOT_RUN)]


def _without_weights(arguments: list[str]) -> list[str] | None:
    """The same command on what is in the package instead of downloaded weights; None for a download, which is checked.

    Everything else in the command stays, so that a wrong option or a missing file fails.
    """
    if arguments[:2] == ["models", "fetch"]:
        for name in arguments[2 : arguments.index("--bundle") if "--bundle" in arguments else None]:
            assert any(_known(name, kind) for kind in ("clip", "vfm", "sam", "upsampler")), name
        return None
    if "--size" in arguments:
        arguments = _given(arguments, "--size", "168x112")  # the same, smaller
    if arguments[0] == "segment":
        needs = card(arguments[arguments.index("-m") + 1]).needs if "-m" in arguments else ()
        arguments = _given(arguments, "--model", "demo")
        arguments = _given(arguments, "--vfm", "demo") if "vfm" in needs else arguments
        return _given(arguments, "--regions", "felzenszwalb") if "regions" in needs else arguments
    return _given(arguments, "--model", "demo") if "--model" in arguments else arguments


def _given(arguments: list[str], option: str, value: str) -> list[str]:
    """The arguments with an option at a value, whether it was there or not."""
    if option not in arguments:
        return [*arguments, option, value]
    place = arguments.index(option) + 1
    return [*arguments[:place], value, *arguments[place + 1 :]]


def _known(name: str, kind: str) -> bool:
    try:
        return model_card(name, kind).name == name
    except ValueError:
        return False


def _write_tile(path: Path, place: int) -> None:
    """One of two neighbouring images."""
    path.parent.mkdir(parents=True, exist_ok=True)
    profile = {"driver": "GTiff", "height": 64, "width": 64, "count": 3, "dtype": "uint8", "crs": "EPSG:32632"}
    with rasterio.open(path, "w", transform=from_origin(480_000 + 32 * place, 5_460_000, 0.5, 0.5), **profile) as dst:
        dst.write(np.full((3, 64, 64), 90, np.uint8))


@pytest.fixture
def workplace(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with the files that the pages take for granted."""
    monkeypatch.chdir(tmp_path)
    write_scene(tmp_path, 1006, 112, 112)
    write_scene(tmp_path / "demo", 1006, 112, 168)
    for name in ("west", "east", "tiles/0_0", "tiles/0_1", "archive/one", "archive/more/two"):
        _write_tile(Path(f"{name}.tif"), int(name in ("east", "tiles/0_1")))
    Path("classes.txt").write_text("road\nwater\n")
    with rasterio.open("demo/scene.tif") as src:
        marked = [shapely.Point(*(src.transform * (9, 9))), shapely.Point(*(src.transform * (99, 30)))]
        geopandas.GeoDataFrame(geometry=marked, crs=src.crs).to_file("places.gpkg")
    return tmp_path


@pytest.fixture
def shell(workplace: Path) -> Callable[[str], subprocess.CompletedProcess[str]]:
    """Runs a line in bash, with a `geoovseg` on the path that is this checkout's."""
    command = workplace / "bin" / "geoovseg"
    command.parent.mkdir()
    command.write_text(f'#!/bin/sh\nexec {shlex.quote(sys.executable)} -m geoovseg "$@"\n')
    command.chmod(0o755)
    path, modules = os.environ["PATH"], os.environ.get("PYTHONPATH", "")
    found = {"PATH": f"{command.parent}{os.pathsep}{path}", "PYTHONPATH": f"{ROOT}{os.pathsep}{modules}"}

    def run(line: str) -> subprocess.CompletedProcess[str]:
        strict = f"set -euo pipefail; {line}"
        return subprocess.run(
            ["bash", "-c", strict], env={**os.environ, **found}, capture_output=True, text=True, check=False
        )

    return run


@pytest.mark.parametrize("page", WITH_COMMANDS, ids=lambda page: page.stem)
def test_every_command_of_a_page_runs_in_order(
    page: Path, geoovseg: Run, shell: Callable[[str], subprocess.CompletedProcess[str]]
) -> None:
    for line in _lines(page):
        if " | " in line:
            done = shell(" | ".join(_stages(line)))
            assert done.returncode == 0, f"{line}: {done.stderr}"
            continue
        program, *arguments = shlex.split(line)
        assert program == "geoovseg", f"not a command of ours, and so not tried: {line}"
        instead = _without_weights(arguments)
        if instead is not None:
            code, _, err = geoovseg(*instead)
            assert code == 0, f"{line}, run as {shlex.join(instead)}: {err}"


def _stages(line: str) -> Iterator[str]:
    """The commands of a pipeline, ours without downloaded weights."""
    for stage in line.split(" | "):
        program, *arguments = shlex.split(stage)
        instead = _without_weights(arguments) if program == "geoovseg" else None
        yield stage if instead is None else shlex.join([program, *instead])


def test_the_pages_have_many_commands_and_a_pipeline() -> None:
    lines = [line for page in WITH_COMMANDS for line in _lines(page)]
    assert len(lines) > 50
    assert any(re.match(r"find .* \| geoovseg segment - ", line) for line in lines)
    assert {"README", "classes", "images", "large-runs", "polygons", "offline"} <= {page.stem for page in WITH_COMMANDS}


def test_commands_are_tried_with_everything_but_their_weights() -> None:
    def tried(line: str) -> str | None:
        instead = _without_weights(shlex.split(line))
        return None if instead is None else shlex.join(instead)

    assert tried("segment a.tif -c road --tile 64") == "segment a.tif -c road --tile 64 --model demo"
    assert tried("segment a.tif --model ViT-L-14/openai -c road") == "segment a.tif --model demo -c road"
    assert tried("segment a.tif -c road -m corrclip --vfm clip") == (
        "segment a.tif -c road -m corrclip --vfm demo --model demo --regions felzenszwalb"
    )
    assert tried("evaluate a.tif b.tif") == "evaluate a.tif b.tif"
    assert tried("models fetch ViT-B-16/openai sam_vit_b --bundle there") is None
    with pytest.raises(AssertionError, match="ViT-B-17"):
        tried("models fetch ViT-B-17")


MADE = {"README.md": "python.tif", "docs/python.md": "python.tif", "docs/features.md": "asked.tif"}
"""What the Python of a page writes last."""


@pytest.mark.parametrize("name", MADE)
def test_the_python_of_a_page_runs(name: str, workplace: Path) -> None:
    blocks = re.findall(r"```python\n(.*?)```", (ROOT / name).read_text(), flags=re.DOTALL)
    assert blocks
    for block in blocks:
        exec(compile(block, name, "exec"), {})
    assert (workplace / "demo" / MADE[name]).exists()


def test_the_method_of_another_package_works(geoovseg: Run, workplace: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    text = (ROOT / "CONTRIBUTING.md").read_text()
    for name, code in re.findall(r"```python\n# (mypackage/\w+\.py)\n(.*?)```", text, flags=re.DOTALL):
        (workplace / name).parent.mkdir(exist_ok=True)
        (workplace / name).write_text(code)
    monkeypatch.syspath_prepend(workplace)
    (name, module, attribute) = re.findall(r'^(\w+) = "([\w.]+):(\w+)"$', text, flags=re.MULTILINE)[0]
    monkeypatch.setitem(METHODS, name, getattr(importlib.import_module(module), attribute))
    code, _, err = geoovseg("segment", "scene.tif", "-c", "road", "--model", "demo", "-m", name, "--set", "sharpness=2")
    assert code == 0, err
    assert Path("scene_labels.tif").exists()


def test_the_quick_start_is_two_make_targets() -> None:
    first = re.search(r"## Quick start.*?```sh\n(.*?)```", README, flags=re.DOTALL)
    assert first is not None
    assert first[1].split("\n")[:-1] == ["make demo", "make test"]
    makefile = (ROOT / "Makefile").read_text()
    for target in ("help", "venv", "demo", "test", "check", "docs", "bench"):
        assert re.search(rf"^{target}:", makefile, flags=re.MULTILINE)


def test_the_readme_stays_short() -> None:
    assert len(README.split()) <= 1300


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_links_lead_somewhere(page: Path) -> None:
    for link in re.findall(r"\]\(([^)\s]+)\)", page.read_text()):
        if "://" in link:
            continue
        name, _, heading = link.partition("#")
        target = page.parent / name if name else page
        assert target.exists(), link
        assert not heading or heading in _headings(target), link


def _headings(page: Path) -> set[str]:
    """What headings are called in links, as GitHub does it."""
    titles = re.findall(r"^#+ (.*)$", page.read_text(), flags=re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", title.lower()).replace(" ", "-") for title in titles}


def test_every_page_is_in_the_index() -> None:
    index = (ROOT / "docs" / "README.md").read_text()
    for page in (ROOT / "docs").glob("*.md"):
        assert page.name == "README.md" or f"]({page.name})" in index, page.name


def test_generated_parts_are_up_to_date() -> None:
    pinned = re.findall(r"^typer==(.+)$", (ROOT / "constraints.txt").read_text(), flags=re.MULTILINE)
    if version("typer") not in pinned:
        pytest.skip(f"docs/cli.md is what typer {pinned[0]} writes")
    done = subprocess.run(
        [sys.executable, ROOT / "docs" / "generate.py", "--check"], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr


def test_listed_exit_codes_are_those_of_the_errors() -> None:
    from geoovseg import errors

    page = (ROOT / "docs" / "scripts.md").read_text()
    listed = {int(code) for row in re.findall(r"^\| ([\d, ]+) \|", page, re.MULTILINE) for code in row.split(",")}
    codes = {e.exit_code for e in vars(errors).values() if isinstance(e, type) and hasattr(e, "exit_code")}
    assert codes | {0, 3, 130, 143} == listed
