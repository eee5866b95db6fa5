"""Damaged files: whatever bytes are wrong, a file is segmented onto its own grid or refused in one message.

Each is tried in a process of its own with limits (fuzz.py); GEOOVSEG_FUZZ is how many of them, 200 by default, which
are the first of the 2,000 that `make fuzz` tries.
"""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path

import fuzz
import pytest

COUNT = int(os.environ.get("GEOOVSEG_FUZZ", "200"))
HELPERS = 2
SCRIPT = Path(fuzz.__file__)
MEMORY_DISK = Path("/dev/shm")
pytestmark = pytest.mark.skipif(not sys.platform.startswith("linux"), reason="limits of processes are those of Linux")


@pytest.fixture(scope="module")
def folder() -> Iterator[Path]:
    """A folder in memory where there is one: a run writes and removes many small files."""
    path = Path(tempfile.mkdtemp(dir=MEMORY_DISK if os.access(MEMORY_DISK, os.W_OK) else None))
    yield path
    shutil.rmtree(path)


@pytest.fixture(scope="module")
def outcomes(folder: Path) -> list[fuzz.Outcome]:
    """What became of every changed file."""
    alone = {"OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1", "GEOOVSEG_CACHE": str(folder / "cache")}
    helpers = {n: _helper(folder, n, {**os.environ, **alone}) for n in range(HELPERS)}
    codes = [helper.wait() for helper in helpers.values()]
    assert not any(codes), "\n".join((folder / f"{n}.err").read_text() for n in helpers)
    return [json.loads(line) for n in helpers for line in (folder / f"{n}.out").read_text().splitlines()]


def _helper(folder: Path, number: int, env: dict[str, str]) -> subprocess.Popen[bytes]:
    command = [sys.executable, SCRIPT, folder / str(number), str(number), str(COUNT), str(HELPERS)]
    with (folder / f"{number}.out").open("wb") as out, (folder / f"{number}.err").open("wb") as err:
        return subprocess.Popen(command, env=env, stdout=out, stderr=err)


def test_a_damaged_file_is_segmented_on_its_grid_or_refused(outcomes: list[fuzz.Outcome]) -> None:
    failed = [o for o in outcomes if o["outcome"] == "failed"]
    again = f"again: KEEP=1 {sys.executable} {SCRIPT} FOLDER NUMBER NUMBER+1 1"
    assert not failed, "\n".join(
        [again, *(f"number {o['number']}, {o['seconds']} s ({o['cpu']} s CPU): {o['why']}" for o in failed)]
    )


def test_every_number_has_an_outcome_and_each_outcome_is_frequent(outcomes: list[fuzz.Outcome]) -> None:
    """Files that are all refused at once would say nothing of what comes after opening."""
    counts = Counter(o["outcome"] for o in outcomes)
    assert sorted(o["number"] for o in outcomes) == list(range(COUNT))
    assert min(counts["segmented"], counts["refused"]) > COUNT / 10, counts
    assert counts["too large"] <= COUNT / 50, counts


def test_a_number_always_makes_the_same_file(folder: Path) -> None:
    seed = fuzz.seeds(folder / "same")[0]
    assert fuzz.changed(seed, 7) == fuzz.changed(seed, 7) != fuzz.changed(seed, 8)


def _wait(path: Path, labels: Path) -> fuzz.Outcome:
    time.sleep(2 * fuzz.SECONDS)
    raise AssertionError("the watch did not end it")


def _work(path: Path, labels: Path) -> fuzz.Outcome:
    while True:
        pass


def _crash(path: Path, labels: Path) -> fuzz.Outcome:
    os.kill(os.getpid(), signal.SIGKILL)
    return {}


def _swell(path: Path, labels: Path) -> fuzz.Outcome:
    bytearray(2 * fuzz.MEMORY)
    return {}


@pytest.mark.parametrize(
    ("attempt", "why"), [(_wait, "SIGALRM"), (_work, "SIGXCPU"), (_crash, "SIGKILL"), (_swell, "MemoryError")]
)
def test_what_hangs_or_crashes_or_swells_is_a_failure(
    attempt: Callable[[Path, Path], fuzz.Outcome], why: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(fuzz, "attempt", attempt)
    monkeypatch.setattr(fuzz, "CPU_SECONDS", 1)
    monkeypatch.setattr(fuzz, "SECONDS", 3 if attempt is _wait else fuzz.SECONDS)  # a busy machine is no reason
    (outcome,) = fuzz.run(fuzz.seeds(tmp_path / "sound")[:1], tmp_path, range(1))
    assert outcome["outcome"] == "failed"
    assert why in outcome["why"]
