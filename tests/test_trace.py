"""Where time goes: stretches add up, threads are told apart, and the command writes them."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Callable, Iterator
from contextvars import copy_context
from pathlib import Path
from typing import Any

import pytest

from geoovseg.demo.files import write_scene
from geoovseg.trace import stretch, tracing, until_each

Run = Callable[..., tuple[int, str, str]]


@pytest.fixture(scope="module")
def scene(tmp_path_factory: pytest.TempPathFactory) -> str:
    return write_scene(tmp_path_factory.mktemp("trace"), 5, 200, 300)[0]


def test_time_within_counts_once() -> None:
    with tracing() as trace, stretch("outer"):
        time.sleep(0.02)
        with stretch("inner"):
            time.sleep(0.03)
    inner, outer = trace.stretches[-2:]
    assert (inner.name, outer.name) == ("inner", "outer")
    assert inner.own == inner.seconds >= 0.03
    assert outer.own == pytest.approx(outer.seconds - inner.seconds)
    assert outer.begin <= inner.begin
    assert outer.seconds >= inner.seconds


def test_without_a_trace_nothing_is_told_and_errors_pass() -> None:
    with pytest.raises(ValueError, match="x"), stretch("a"):
        raise ValueError("x")
    with tracing() as trace, pytest.raises(ValueError, match="y"), stretch("a"):
        raise ValueError("y")
    assert [each.name for each in trace.stretches if each.name != "start"] == ["a"]
    with stretch("later"):
        pass
    assert trace.stretches[-1].name == "a"


def test_a_stream_is_told_up_to_each_item_and_not_what_is_done_with_it() -> None:
    def stream() -> Iterator[int]:
        for n in range(3):
            time.sleep(0.01)
            yield n

    with tracing() as trace:
        found = [(n, time.sleep(0.05)) for n in until_each("next", stream())]
    told = [each.seconds for each in trace.stretches if each.name == "next"]
    assert [n for n, _ in found] == [0, 1, 2]
    assert len(told) == 4  # the last finds the end
    assert all(seconds < 0.05 for seconds in told)


def test_threads_are_told_apart() -> None:
    def work() -> None:
        with stretch("read"):
            time.sleep(0.01)

    with tracing() as trace, stretch("wait"):
        thread = threading.Thread(target=copy_context().run, args=(work,), name="reader")
        thread.start()
        thread.join()
    found = trace.seconds()
    assert list(found["reader"]) == ["read"]
    assert found[threading.current_thread().name]["wait"] >= 0.01  # of another thread nothing is within


@pytest.mark.parametrize("command", ["segment", "encode"])
def test_a_command_writes_where_its_time_went(command: str, scene: str, tmp_path: Path, geoovseg: Run) -> None:
    words = ["-c", "road,water"] if command == "segment" else []
    output = tmp_path / ("l.tif" if words else "f.zarr")
    given = [command, scene, *words, "--model", "demo", "-o", str(output), "--profile", str(tmp_path / "t.json")]
    code, _, err = geoovseg(*given)
    assert code == 0, err
    assert "time went to: " in err
    said: dict[str, Any] = json.loads((tmp_path / "t.json").read_text())
    threads = {each["tid"]: each["args"]["name"] for each in said["traceEvents"] if each["ph"] == "M"}
    names = {(threads[each["tid"]], each["name"]) for each in said["traceEvents"] if each["ph"] == "X"}
    main = threading.current_thread().name
    expected = {"load", "wait", "model", "blend", "write", "assemble", "keep"}
    expected |= {"words", "upsample", "decide"} if words else set()
    assert {(main, name) for name in expected} <= names
    assert {("geoovseg-reader", "read"), ("geoovseg-reader", "ahead")} <= names
    stages = [each["dur"] / 1e6 for each in said["traceEvents"] if each["name"] in ("load", command, "assemble")]
    own = {name: seconds for name, seconds in said["seconds"][main].items() if name not in ("start", "import")}
    assert sum(own.values()) == pytest.approx(sum(stages), rel=0.01)  # nothing counts twice, nothing is lost


def test_a_profile_of_several_processes_or_over_a_file_is_refused(scene: str, tmp_path: Path, geoovseg: Run) -> None:
    (tmp_path / "t.json").write_text("mine")
    given = ["segment", scene, "-c", "road", "--model", "demo", "-o", str(tmp_path / "l.tif"), "--profile"]
    code, _, err = geoovseg(*given, str(tmp_path / "t.json"))
    assert code == 1
    assert "exists already" in err
    code, _, err = geoovseg(*given, str(tmp_path / "u.json"), "--workers", "2")
    assert code == 2
    assert "leave --workers and --ray away" in err
    assert [path.name for path in tmp_path.iterdir()] == ["t.json"]
