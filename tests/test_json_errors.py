"""With --json every command tells an error as one object on standard output, and the text on standard error."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

Run = Callable[..., tuple[int, str, str]]
WRONG = [
    ("segment", "none.tif", "-c", "road", "--model", "demo"),
    ("segment", "none.tif", "-c", "road", "--model", "demo", "--dry-run"),
    ("segment", "none.tif"),
    ("segment", "none.tif", "-c", "road", "--tile", "many"),
    ("segment", "none.tif", "-c", "road", "--no-such-option"),
    ("segment", "a/", "b.tif", "-c", "road", "--mosaic"),
    ("merge", "none.parts"),
    ("vectorize", "none.tif", "out.gpkg"),
    ("vectorize", "none.tif"),
    ("evaluate", "none.tif", "none.tif"),
    ("preview", "none.tif", "none.tif", "out.png"),
    ("info", "none.tif"),
    ("demo", "x", "--size", "much"),
    ("methods", "nobody"),
    ("vocabulary", "nobody"),
    ("models", "show", "nobody"),
    ("models", "fetch", "nobody"),
    ("models", "verify", "nobody"),
    ("models", "compose", "nobody", "-o", "x.safetensors"),
    ("doctor", "too", "much"),
    ("no-such-command",),
]


@pytest.mark.parametrize("arguments", WRONG, ids=" ".join)
def test_an_error_of_any_command_is_one_object(
    geoovseg: Run, arguments: tuple[str, ...], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    plain, nothing, text = geoovseg(*arguments)
    code, out, err = geoovseg(*arguments, "--json")
    said = json.loads(out)
    assert nothing == ""
    assert code == plain == said["exit_code"] != 0
    assert err == text
    assert said["error"].splitlines()[0] in err


def test_an_error_of_the_only_scene_names_it_once(geoovseg: Run, tmp_path: Path) -> None:
    code, out, _ = geoovseg("segment", tmp_path / "n.tif", "-c", "road", "--model", "demo", "--json")
    assert json.loads(out)["scene"] == str(tmp_path / "n.tif")
    assert code == json.loads(out)["exit_code"] == 4


def test_what_is_no_users_error_is_an_object_and_a_traceback(geoovseg: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*_: object, **__: object) -> None:
        raise ZeroDivisionError("of something")

    monkeypatch.setattr("geoovseg.labels.preview.preview", broken)
    with pytest.raises(ZeroDivisionError):
        geoovseg("preview", "a.tif", "b.tif", "c.png", "--json")


@pytest.mark.skipif(os.name == "nt", reason="no such signals")
@pytest.mark.parametrize(("number", "code"), [(signal.SIGTERM, 143), (signal.SIGINT, 130)])
def test_a_command_that_is_stopped_says_so(tmp_path: Path, number: int, code: int) -> None:
    """While it waits for what nobody writes."""
    script = (
        "import os, sys; sys.argv = ['geoovseg', 'preview', 'a', 'b', 'c.png', '--json']\n"
        "from geoovseg.cli import main\n"
        "import geoovseg.labels.preview as p\n"
        f"p.preview = lambda *a, **k: (os.kill(os.getpid(), {int(number)}), __import__('time').sleep(30))\n"
        "main()"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, cwd=tmp_path)
    assert (done.returncode, json.loads(done.stdout)["exit_code"]) == (code, code)
    assert "unfinished files were removed" in done.stderr


def test_results_before_an_error_stay_objects_of_their_own(
    geoovseg: Run, write_raster: Callable[..., str], tmp_path: Path
) -> None:
    good = write_raster(np.ones((3, 8, 8), np.uint8), "good.tif")
    code, out, _ = geoovseg(
        "segment", good, tmp_path / "bad.tif", "-c", "road,water", "--model", "demo", "--json", "-o", tmp_path / "out"
    )
    first, second = map(json.loads, out.splitlines())
    assert code == 4
    assert first["labels"].endswith("good_labels.tif")
    assert set(second) == {"scene", "error", "exit_code"}
