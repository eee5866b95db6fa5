"""Methods of other installed packages join by an entry point, and a broken one keeps nobody from the rest."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from geoovseg.errors import GeoOVSegWarning
from geoovseg.methods import cards

CARDS = """
from geoovseg import MethodCard
from geoovseg.methods.fields import Field, scale

VALUES = MethodCard(
    title="Value-value attention", paper="ours", about="Patches attend to patches with like values.", unit="cosine",
    fields=(Field("sharpness", 1.0, "factor on the attention (ours)", above=0), scale(50, "ours")),
    build="others.method:build",
)
NO_CARD = "a text"
"""
METHOD = """
from torch.nn.functional import scaled_dot_product_attention
from geoovseg.methods.builder import builder
from geoovseg.methods.dense import DenseMethod
from geoovseg.methods.last_block import LastBlock
from geoovseg.ops.attention import anywhere

def make(clip, text, *, sharpness, scale):
    mix = lambda q, k, v: scaled_dot_product_attention(sharpness * v, v, v)
    return DenseMethod(LastBlock(clip, anywhere(mix), residual=False), text, scale=scale)

build = builder("values", make)
"""


@pytest.fixture
def installed(tmp_path: Path) -> Path:
    """A folder of packages with one that brings methods."""
    (tmp_path / "others").mkdir()
    for name, text in (("__init__", ""), ("cards", CARDS), ("method", METHOD)):
        (tmp_path / "others" / f"{name}.py").write_text(text)
    info = tmp_path / "others-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: others\nVersion: 1.0\n")
    points = ("values = others.cards:VALUES", "gone = others.nowhere:CARD", "text = others.cards:NO_CARD")
    (info / "entry_points.txt").write_text("\n".join(["[geoovseg.methods]", *points, "clip = others.cards:VALUES"]))
    return tmp_path


def test_methods_of_other_packages_are_listed_and_run(installed: Path, demo_scene: str, tmp_path: Path) -> None:
    code = "import sys; sys.path.insert(0, sys.argv.pop(1)); from geoovseg.cli import main; main()"

    def run(*arguments: str) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, "-c", code, str(installed), *arguments]
        return subprocess.run(command, capture_output=True, text=True, check=False)

    listed = run("methods")
    assert listed.returncode == 0, listed.stderr
    assert "Value-value attention" in listed.stdout
    assert "warning: the method gone of others.nowhere:CARD cannot be used" in listed.stderr
    labels = tmp_path / "labels.tif"
    done = run("segment", demo_scene, "-c", "road,water", "--model", "demo", "-m", "values", "-o", str(labels))
    assert done.returncode == 0, done.stderr
    assert labels.exists()
    wrong = run("segment", demo_scene, "-c", "road", "--model", "demo", "-m", "values", "--set", "sharpness=0")
    assert wrong.returncode == 2
    assert "sharpness=0 is not a number above 0" in wrong.stderr


def test_what_cannot_be_used_is_left_out_with_the_reason(installed: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(installed))
    with pytest.warns(GeoOVSegWarning) as told:
        found = cards.others()
    assert list(found) == ["values"]
    said = [str(one.message) for one in told]
    assert [name for name in ("gone", "text", "clip") if any(f"the method {name} of" in text for text in said)] == [
        "gone", "text", "clip",
    ]  # fmt: skip
    assert any("geoovseg has a method of that name" in text for text in said)
