"""Workers keep nothing: a dead one's work is given out again, and none outlives the process that drives them."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import Future
from pathlib import Path
from typing import Any

import pytest

from geoovseg.errors import GeoOVSegError, GeoOVSegWarning, UsageError
from geoovseg.run.executors import pool, processes
from geoovseg.run.executors.pool import in_processes
from geoovseg.run.executors.processes import Processes, as_lost
from geoovseg.run.executors.round import LostError
from geoovseg.run.job import Step
from geoovseg.settings import Settings
from geoovseg.vocabulary import parse_classes
from geoovseg.windows.plan import Panel, Part

pytestmark = pytest.mark.skipif(not sys.platform.startswith("linux"), reason="looks at processes as Linux lists them")
GROUPS = [[Part(Panel(0, 512), 1024 * n, 512), Part(Panel(0, 512), 1024 * n + 512, 512)] for n in range(3)]


class FakeLane:
    """A worker that finishes one part a step, and dies when its plan says so."""

    deaths: list[int]
    """before which of all steps a worker dies"""
    count = 0
    where = "worker 1"

    def __init__(self, number: int, count: int, given: Any) -> None:
        self.parts: list[Part] = []

    def submit(self, what: str, *args: Any) -> Future[Any]:
        if what == "begin":
            self.parts = list(args[1])
        FakeLane.count += 1
        answer: Future[Any] = Future()
        if FakeLane.count in self.deaths:
            answer.set_exception(LostError("killed"))
        elif not self.parts:
            answer.set_result((Step(9, ended=True), []))
        else:
            done = type("Done", (), {"part": self.parts.pop(0)})()
            answer.set_result((Step(5, (done,)), ["the device is small"]))
        return answer

    def ready(self) -> bool:
        return True

    def close(self) -> None:
        pass


@pytest.fixture
def lanes(monkeypatch: pytest.MonkeyPatch) -> type[FakeLane]:
    monkeypatch.setattr(processes, "Process", FakeLane)
    FakeLane.count = 0
    return FakeLane


def _run(stop: Any = lambda: None) -> Iterator[tuple[int, Step]]:
    executor = Processes(parse_classes(["road"]), Settings(model="demo", workers=2))
    return executor.run(None, GROUPS, stop)  # type: ignore[arg-type]


def _parts(steps: Sequence[tuple[int, Step]]) -> list[Part]:
    return [done.part for _, step in steps for done in step.finished]


@pytest.mark.parametrize("deaths", [[], [1], [2], [3], [4, 5], [5], [6, 7], [1, 4, 7]])
def test_every_part_is_computed_once_whenever_workers_die(lanes: type[FakeLane], deaths: list[int]) -> None:
    lanes.deaths = deaths
    with pytest.warns(GeoOVSegWarning) as told:
        steps = list(_run())
    assert sorted(_parts(steps), key=lambda p: p.row_off) == [part for group in GROUPS for part in group]
    assert {number for number, step in steps if step.ended} == {0, 1, 2}
    assert sum("died" in str(one.message) for one in told) == len(deaths)
    assert any("the device is small" in str(one.message) for one in told), "a worker's warnings are heard"


def test_workers_that_die_again_and_again_are_an_error(lanes: type[FakeLane]) -> None:
    lanes.deaths = list(range(1, 100))
    with pytest.warns(GeoOVSegWarning), pytest.raises(GeoOVSegError, match="workers died 5 times without finishing"):
        list(_run())


def test_asked_to_stop_every_worker_finishes_the_part_in_hand(lanes: type[FakeLane]) -> None:
    lanes.deaths = []
    asked = iter([None, None, *[signal.SIGTERM] * 100])
    steps = list(_run(lambda: next(asked)))
    assert 2 <= len(_parts(steps)) < 6
    assert list(_run(lambda: signal.SIGTERM)) == []


def _double(number: int) -> int:
    return 2 * number


def _die(number: int) -> int:
    os.kill(os.getpid(), signal.SIGKILL)
    return number


def test_results_come_in_the_order_of_items() -> None:
    with in_processes(_double, list(range(9)), 2) as found:
        assert list(found) == [2 * n for n in range(9)]


def test_one_worker_is_this_process() -> None:
    with in_processes(lambda number: os.getpid(), [1, 2], 1) as found:
        assert set(found) == {os.getpid()}


def test_a_process_that_dies_is_one_message() -> None:
    with (
        pytest.raises(GeoOVSegError, match="a process died before it was done"),
        in_processes(_die, [1, 2], 2) as found,
    ):
        list(found)


def test_a_daemon_is_told_that_it_cannot_have_children(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pool, "current_process", lambda: type("P", (), {"daemon": True}))
    with pytest.raises(UsageError, match="use workers=1 in it"), in_processes(_double, [1, 2], 2):
        pass


def _children(pid: int) -> list[int]:
    return [int(child) for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]


def _alive(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().split()[2] != "Z"
    except OSError:
        return False


def test_workers_end_with_a_driver_that_is_killed(demo_scene: str, tmp_path: Path) -> None:
    command = [sys.executable, "-m", "geoovseg", "segment", demo_scene, "-c", "road,water", "--model", "demo"]
    with (tmp_path / "err").open("w") as err:
        driver = subprocess.Popen([*command, "--workers", "2", "-o", str(tmp_path / "labels.tif")], stderr=err)
    children: list[int] = []
    for _ in range(1200):
        children = _children(driver.pid)
        if len(children) >= 2:  # workers, and Python's own tracker
            break
        time.sleep(0.05)
    assert len(children) >= 2
    time.sleep(1)
    assert driver.poll() is None
    children = _children(driver.pid)
    driver.kill()
    driver.wait()
    deadline = time.monotonic() + 5  # a second on a quiet machine
    while any(map(_alive, children)) and time.monotonic() < deadline:
        time.sleep(0.02)
    assert not [pid for pid in children if _alive(pid)]
    assert "Traceback" not in (tmp_path / "err").read_text()


def test_who_is_done_takes_over_half_of_what_another_has_not_begun(lanes: type[FakeLane]) -> None:
    """One group of nine parts: five stay, and of four the other has all."""
    lanes.deaths = []
    parts = [Part(Panel(0, 512), 512 * n, 512) for n in range(9)]
    executor = Processes(parse_classes(["road"]), Settings(model="demo", workers=2))
    with pytest.warns(GeoOVSegWarning):
        steps = list(executor.run(None, [parts], lambda: None))  # type: ignore[arg-type]
    assert sorted(_parts(steps), key=lambda p: p.row_off) == parts
    assert len(executor._lanes) == 2
    assert [step.ended for _, step in steps] == [False] * (len(steps) - 1) + [True]


def test_what_is_cancelled_when_workers_end_is_no_error(caplog: pytest.LogCaptureFixture) -> None:
    """Nobody waits for it any more; concurrent.futures would log what goes wrong in a callback."""
    waiting: Future[Any] = Future()
    found = as_lost(waiting, ValueError)
    waiting.cancel()
    assert not caplog.records
    assert not found.done()
