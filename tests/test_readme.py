"""What the README says is so."""

from __future__ import annotations

import re
import shlex
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import rasterio
from rasterio.transform import from_origin

from geoovseg.demo.files import write_scene

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text()
Run = Callable[..., tuple[int, str, str]]


def _commands() -> list[list[str]]:
    blocks = re.findall(r"```sh\n(.*?)```", README, flags=re.DOTALL)
    lines = [line for block in blocks for line in block.splitlines() if line.startswith("geoovseg ")]
    return [shlex.split(line)[1:] for line in lines]


def _write_half(path: Path, half: int) -> None:
    """One of two neighbouring images."""
    path.parent.mkdir(exist_ok=True)
    profile = {"driver": "GTiff", "height": 64, "width": 64, "count": 3, "dtype": "uint8", "crs": "EPSG:32632"}
    with rasterio.open(path, "w", transform=from_origin(480_000 + 32 * half, 5_460_000, 0.5, 0.5), **profile) as dst:
        dst.write(np.full((3, 64, 64), 90, np.uint8))


def test_every_command_of_the_readme_runs_in_order(
    geoovseg: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Those without the demo model end with exit 5 where its weights are missing, and not before."""
    monkeypatch.chdir(tmp_path)
    write_scene(tmp_path, 1006, 130, 120)
    for name in ("west", "east", "tiles/0_0", "tiles/0_1"):
        _write_half(Path(f"{name}.tif"), int(name in ("east", "tiles/0_1")))
    Path("classes.txt").write_text("road\nwater\n")
    assert len(_commands()) > 15
    for arguments in _commands():
        if "--size" in arguments:
            arguments[arguments.index("--size") + 1] = "250x200"  # the same, smaller
        code, _, err = geoovseg(*arguments)
        needs_weights = arguments[0] == "segment" and "demo" not in arguments
        fetches = arguments[:2] == ["models", "fetch"]
        allowed = {0, 5} if needs_weights else {0, 1} if fetches else {0}
        assert code in allowed, f"{arguments}: {err}"


def test_the_python_of_the_readme_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    write_scene(tmp_path / "demo", 1006, 200, 200)
    (code,) = re.findall(r"```python\n(.*?)```", README, flags=re.DOTALL)
    exec(compile(code, "README.md", "exec"), {})
    assert (tmp_path / "demo" / "python.tif").exists()


def test_the_quick_start_is_two_make_targets() -> None:
    first = re.search(r"## Quick start.*?```sh\n(.*?)```", README, flags=re.DOTALL)
    assert first is not None
    assert first[1].split("\n")[:-1] == ["make demo", "make test"]
    makefile = (ROOT / "Makefile").read_text()
    for target in ("help", "venv", "demo", "test", "check", "docs", "bench"):
        assert re.search(rf"^{target}:", makefile, flags=re.MULTILINE)


@pytest.mark.parametrize("name", ["README.md", "CONTRIBUTING.md", "docs/benchmarks.md"])
def test_links_lead_somewhere(name: str) -> None:
    path = ROOT / name
    for link in re.findall(r"\]\(([^)#:]+)\)", path.read_text()):
        assert (path.parent / link).exists(), link


def test_generated_parts_are_up_to_date() -> None:
    done = subprocess.run(
        [sys.executable, ROOT / "docs" / "generate.py", "--check"], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr


def test_exit_codes_of_the_readme_are_those_of_the_errors() -> None:
    from geoovseg import errors

    listed = {int(code) for row in re.findall(r"^\| ([\d, ]+) \|", README, re.MULTILINE) for code in row.split(",")}
    codes = {e.exit_code for e in vars(errors).values() if isinstance(e, type) and hasattr(e, "exit_code")}
    assert codes | {0, 3, 130, 143} == listed
