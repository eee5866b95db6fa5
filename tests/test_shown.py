"""What reaches a terminal, or a program: nothing in names can command the one or puzzle the other."""

from __future__ import annotations

import io
import json
import sqlite3
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import numpy as np
import pytest

from geoovseg.cli.output import data, machine_readable, talk
from geoovseg.errors import GeoOVSegWarning, SceneError, UsageError, printable
from geoovseg.labels.styles import LegendEntry, label_aux_xml, label_qml, vector_qml
from geoovseg.vectors.vectorize import vectorize

EVIL = "a\x1b]0;owned\x07\x1b[31m\nb\r\x9bc\x7f\u202ed\u2028e"
SAFE = r"a\x1b]0;owned\x07\x1b[31m\nb\r\x9bc\x7f\u202ed\u2028e"
CODES = {*map(chr, (*range(32), *range(127, 160))), "\u2028", "\u202e"}
linux = pytest.mark.skipif(sys.platform == "win32", reason="such names cannot be there")


class _Terminal(io.TextIOWrapper):
    def isatty(self) -> bool:
        return True


kinds = pytest.mark.parametrize("kind", [io.TextIOWrapper, _Terminal])


@kinds
def test_lines_for_people_stay_lines_without_codes(
    kind: type[io.TextIOWrapper], monkeypatch: pytest.MonkeyPatch
) -> None:
    raw = io.BytesIO()
    monkeypatch.setattr(sys, "stdout", kind(raw, "utf-8", write_through=True, newline="\n"))
    data("one", f"two {EVIL}", "道路 é")
    assert raw.getvalue().decode() == f"one\ntwo {SAFE}\n道路 é\n"


@kinds
def test_names_of_files_are_as_they_are_for_programs_and_shown_on_terminals(
    kind: type[io.TextIOWrapper], monkeypatch: pytest.MonkeyPatch
) -> None:
    raw = io.BytesIO()
    monkeypatch.setattr(sys, "stdout", kind(raw, "utf-8", write_through=True, newline="\n"))
    data(EVIL, "b\udce9", names=True)
    assert raw.getvalue() == (f"{SAFE if kind is _Terminal else EVIL}\nb".encode() + b"\xe9\n")


@pytest.mark.parametrize("encoding", ["utf-8", "utf8", "latin-1", "ascii", "cp1252"])
def test_json_is_valid_utf_8_on_one_line_that_means_the_same(encoding: str, monkeypatch: pytest.MonkeyPatch) -> None:
    raw = io.BytesIO()
    said = {"scene": f"{EVIL}\x85\udce9", "名": "é😀"}
    monkeypatch.setattr(sys, "stdout", io.TextIOWrapper(raw, encoding, errors="surrogateescape", newline="\n"))
    data(json.dumps(said, ensure_ascii=False))
    text = raw.getvalue().decode("utf-8")
    assert json.loads(text) == said
    assert not CODES & set(text.removesuffix("\n"))
    assert ("😀" in text) == (encoding in ("utf-8", "utf8"))


def test_json_has_no_numbers_that_are_none() -> None:
    text = json.dumps({"nodata": float("nan"), "most": [float("-inf"), 1.5], "name": "NaN"})
    assert json.loads(machine_readable(text), parse_constant=pytest.fail) == {
        "nodata": None, "most": [None, 1.5], "name": "NaN",
    }  # fmt: skip


def test_talk_errors_and_warnings_are_shown_without_codes(capsys: pytest.CaptureFixture[str]) -> None:
    talk(f"{EVIL}\udce9")
    assert capsys.readouterr().err == f"{SAFE}\\udce9\n"
    assert str(SceneError(f"cannot open {EVIL}")) == f"cannot open {SAFE}"
    assert str(GeoOVSegWarning(EVIL)) == printable(printable(EVIL)) == SAFE


@linux
@pytest.mark.parametrize(
    "command",
    [
        ["segment", EVIL, "-c", "road", "--model", "demo"],
        ["vectorize", EVIL, "out.gpkg"],
        ["info", EVIL],
        ["preview", EVIL, EVIL, "p.png"],
        ["evaluate", EVIL, EVIL],
        ["merge", EVIL],
        ["segment", "x.tif", "-c", f"@{EVIL}"],
        ["segment", "x.tif", "-c", EVIL],
        ["segment", "x.tif", "-c", "road", f"--{EVIL}"],
        ["segment", "x.tif", "-c", "road", "--tile", EVIL],
        ["segment", "x.tif", "-c", "road", "--model", EVIL],
        [EVIL],
        ["models", "show", EVIL],
        ["vocabulary", EVIL],
    ],
    ids=lambda command: command[0][:9],
)
@pytest.mark.parametrize("as_json", [False, True])
def test_no_error_carries_codes_to_the_terminal(
    geoovseg: Callable[..., Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, command: list[str], as_json: bool
) -> None:
    monkeypatch.chdir(tmp_path)
    code, out, err = geoovseg(*command, *(["--json"] if as_json else []))
    assert code != 0
    assert not CODES & set((out + err).replace("\n", ""))
    assert not any(line.startswith("b") for line in err.splitlines()), "a newline of a name is written out"
    if as_json:
        assert "error" in json.loads(out)


@linux
@pytest.mark.parametrize("as_json", [False, True])
def test_results_of_odd_names_can_be_read(
    geoovseg: Callable[..., Any], write_raster: Callable[..., str], tmp_path: Path, as_json: bool
) -> None:
    labels = write_raster(np.ones((1, 8, 8), np.uint8), f"{EVIL}.tif")
    more = ["--json"] if as_json else []
    code, out, err = geoovseg("info", labels, *more)
    assert code == 0
    assert not CODES & set((out + err).replace("\n", ""))
    assert not as_json or json.loads(out)["file"] == labels
    code, out, _ = geoovseg("vectorize", labels, tmp_path / "v\x1b[1m.gpkg", *more)
    assert code == 0
    assert (json.loads(out)["vectors"] if as_json else out.removesuffix("\n")) == str(tmp_path / "v\x1b[1m.gpkg")


@pytest.mark.parametrize("name", ["a\x1b[31m", "a\nb", "\x00", "\x9b", "\udce9", "\u202e"])
def test_names_of_codes_that_cannot_be_printed_are_refused(
    geoovseg: Callable[..., Any], write_raster: Callable[..., str], tmp_path: Path, name: str
) -> None:
    labels = write_raster(np.ones((1, 8, 8), np.uint8))
    with pytest.raises(UsageError, match="of the code 1 has characters that cannot be printed"):
        vectorize(labels, str(tmp_path / "a.gpkg"), names={1: name})
    code, _, err = geoovseg("vectorize", labels, tmp_path / "a.gpkg", "--names", f"1={name}")
    assert code == 2
    assert "cannot be printed" in err
    assert not (tmp_path / "a.gpkg").exists()


def test_names_that_a_raster_says_with_codes_are_written_out_and_its_style_is_xml(
    geoovseg: Callable[..., Any], write_raster: Callable[..., str], tmp_path: Path
) -> None:
    said = {"version": 2, "classes": [["a\x1b[31mb\x9b", ["a"], "#112233"]], "background": [], "threshold": None}
    labels = write_raster(np.ones((1, 8, 8), np.uint8), tags={"GEOOVSEG_RUN": json.dumps(said)})
    assert geoovseg("vectorize", labels, tmp_path / "a.gpkg")[0] == 0
    with sqlite3.connect(tmp_path / "a.gpkg") as base:
        ((style,),) = base.execute("SELECT styleQML FROM layer_styles")
        names = [name for (name,) in base.execute("SELECT class_name FROM classes")]
    base.close()
    assert names == [r"a\x1b[31mb\x9b"]
    assert [item.get("label") for item in ElementTree.fromstring(style).iter("category")] == names
    _, out, _ = geoovseg("info", labels)
    assert names[0] in out


@pytest.mark.parametrize("make", [label_aux_xml, label_qml, vector_qml])
def test_styles_and_side_files_are_xml_whatever_a_class_is_called(make: Callable[..., str]) -> None:
    text = make([LegendEntry(1, "a\x00\x1b\x0b\udce9\uffffb", "#112233")])
    ElementTree.fromstring(text.encode())
    assert "a\ufffd\ufffd\ufffd\ufffd\ufffdb" in text
