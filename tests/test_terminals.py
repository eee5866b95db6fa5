"""Results on standard output, whatever its encoding, whoever reads it, and whether there is a home."""

from __future__ import annotations

import io
import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from geoovseg.cli.output import data
from geoovseg.errors import GeoOVSegError
from geoovseg.models import weights
from geoovseg.models.cards import MODELS

UNDECODABLE = b"sc\xe9ne.tif".decode("utf-8", "surrogateescape")
CLASSES = json.dumps({"道路": 1}, ensure_ascii=False)


@pytest.mark.parametrize(
    ("encoding", "text", "written"),
    [
        ("utf-8", UNDECODABLE, b"sc\xe9ne.tif\n"),
        ("utf-8", json.dumps({"scene": UNDECODABLE}, ensure_ascii=False), b'{"scene": "sc\\udce9ne.tif"}\n'),
        ("utf-8", CLASSES, CLASSES.encode() + b"\n"),
        ("latin-1", CLASSES, b'{"\\u9053\\u8def": 1}\n'),
        ("latin-1", "3  道路", b"3  \\u9053\\u8def\n"),
        ("latin-1", "é", b"\xe9\n"),
        ("ascii", "é", b"\\xe9\n"),
    ],
)
def test_any_result_can_be_told_in_any_encoding(
    monkeypatch: pytest.MonkeyPatch, encoding: str, text: str, written: bytes
) -> None:
    raw = io.BytesIO()
    monkeypatch.setattr(sys, "stdout", io.TextIOWrapper(raw, encoding, errors="strict", write_through=True))
    data(text)
    assert raw.getvalue() == written


def test_a_name_that_is_not_utf_8_fails_alone(geoovseg: Callable[..., Any], demo_scene: str, tmp_path: Path) -> None:
    (tmp_path / "in").mkdir()
    for name in (UNDECODABLE, "scene.tif"):
        (tmp_path / "in" / name).write_bytes(Path(demo_scene).read_bytes())
    code, out, err = geoovseg("segment", tmp_path / "in", "-c", "road", "--model", "demo", "--json")
    assert code == 4
    assert sorted("error" in json.loads(line) for line in out.splitlines()) == [False, True]
    assert "its name is not UTF-8; rename it" in err


@pytest.mark.parametrize("command", [["methods", "--json"], ["vocabulary"], ["models", "list", "--json"]])
def test_who_has_heard_enough_gets_no_error(command: list[str]) -> None:
    reads, writes = os.pipe()
    os.close(reads)
    with os.fdopen(writes, "wb") as pipe:
        run = [sys.executable, "-m", "geoovseg", *command]
        done = subprocess.run(run, stdout=pipe, stderr=subprocess.PIPE, text=True, check=False)
    assert (done.returncode, done.stderr) == (141, "")


def test_a_run_whose_reader_left_says_what_is_finished(demo_scene: str) -> None:
    reads, writes = os.pipe()
    os.close(reads)
    with os.fdopen(writes, "wb") as pipe:
        run = [sys.executable, "-m", "geoovseg", "segment", demo_scene, "-c", "road", "--model", "demo", "--quiet"]
        done = subprocess.run(run, stdout=pipe, stderr=subprocess.PIPE, text=True, check=False)
    assert done.returncode == 141
    assert f"finished: {demo_scene.removesuffix('.tif')}_labels.tif" in done.stderr


@pytest.fixture
def homeless(monkeypatch: pytest.MonkeyPatch) -> None:
    """No home: not in the environment, and not in the list of users."""

    def none() -> Path:
        raise RuntimeError("Could not determine home directory.")

    monkeypatch.setattr(Path, "home", none)
    for name in ("HOME", "GEOOVSEG_CACHE", "XDG_CACHE_HOME"):
        monkeypatch.delenv(name, raising=False)


@pytest.mark.usefixtures("homeless")
@pytest.mark.parametrize("command", [["doctor"], ["models", "list"], ["models", "verify"], ["models", "show", "demo"]])
def test_nobody_needs_a_home(geoovseg: Callable[..., Any], command: list[str]) -> None:
    assert geoovseg(*command)[0] == 0


@pytest.mark.usefixtures("homeless")
def test_weights_need_a_home_and_say_so(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", "~/.cache/huggingface/hub")
    with pytest.raises(GeoOVSegError, match="no home folder to keep weights in: set HF_HOME"):
        weights.fetch_weights(MODELS["ViT-B-16/openai"])
