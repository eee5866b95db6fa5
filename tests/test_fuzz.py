"""Damaged files: whatever bytes are wrong, a file is segmented onto its own grid or refused in one message.

Scenes are tried in a process each, with limits (fuzz.py), all else in one after the other (fuzz_readers.py).
GEOOVSEG_FUZZ is how many of each; without it 60 scenes, the first of the 2,000 that `make fuzz` tries, and no others.
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
import fuzz_readers
import pytest

COUNT = int(os.environ.get("GEOOVSEG_FUZZ", "60"))
HELPERS = 2
MEMORY_DISK = Path("/dev/shm")
pytestmark = pytest.mark.skipif(not sys.platform.startswith("linux"), reason="limits of processes are those of Linux")


@pytest.fixture(scope="module")
def folder() -> Iterator[Path]:
    """A folder in memory where there is one: a run writes and removes many small files."""
    path = Path(tempfile.mkdtemp(dir=MEMORY_DISK if os.access(MEMORY_DISK, os.W_OK) else None))
    yield path
    shutil.rmtree(path)


def _outcomes(script: str, folder: Path, count: int) -> list[fuzz.Outcome]:
    """What became of files that helpers tried side by side."""
    alone = {"OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1", "GEOOVSEG_OFFLINE": "1"}
    folder.mkdir()
    env = {**os.environ, **alone, "GEOOVSEG_CACHE": str(folder / "cache")}
    helpers = [_helper(script, folder, n, count, env) for n in range(HELPERS)]
    codes = [helper.wait() for helper in helpers]
    assert not any(codes), "\n".join(path.read_text() for path in folder.glob("*.err"))
    return [json.loads(line) for n in range(HELPERS) for line in (folder / f"{n}.out").read_text().splitlines()]


def _helper(script: str, folder: Path, number: int, count: int, env: dict[str, str]) -> subprocess.Popen[bytes]:
    command = [sys.executable, script, folder / str(number), str(number), str(count), str(HELPERS)]
    with (folder / f"{number}.out").open("wb") as out, (folder / f"{number}.err").open("wb") as err:
        return subprocess.Popen(command, env=env, stdout=out, stderr=err)


@pytest.fixture(scope="module")
def outcomes(folder: Path) -> list[fuzz.Outcome]:
    """What became of every changed scene."""
    return _outcomes(fuzz.__file__, folder / "scenes", COUNT)


@pytest.fixture(scope="module")
def others(folder: Path) -> list[fuzz.Outcome]:
    """What became of all other changed files."""
    return _outcomes(fuzz_readers.__file__, folder / "others", COUNT)


def _none_failed(script: str, found: list[fuzz.Outcome]) -> None:
    failed = [one for one in found if one["outcome"] == "failed"]
    again = f"again: KEEP=1 {sys.executable} {script} FOLDER NUMBER NUMBER+1 1 [READER]"
    assert not failed, "\n".join([again, *map(str, failed)])


def test_a_damaged_file_is_segmented_on_its_grid_or_refused(outcomes: list[fuzz.Outcome]) -> None:
    _none_failed(fuzz.__file__, outcomes)


@pytest.mark.skipif("GEOOVSEG_FUZZ" not in os.environ, reason="takes minutes: make fuzz")
@pytest.mark.parametrize("reader", fuzz_readers.READERS)
def test_a_damaged_file_is_read_as_it_should_be_or_refused(others: list[fuzz.Outcome], reader: str) -> None:
    found = [one for one in others if one["reader"] == reader]
    _none_failed(fuzz_readers.__file__, found)
    assert sorted(one["number"] for one in found) == list(range(COUNT))
    assert sum(one["outcome"] == "too large" for one in found) <= COUNT / 50


def test_a_reader_that_crashes_fails_and_the_others_are_tried(tmp_path: Path) -> None:
    def make(folder: Path, number: int) -> Path:
        (folder / "a.txt").write_text(str(number))
        return folder / "a.txt"

    def crash(path: Path, output: Path) -> fuzz.Outcome:
        return _crash(path, output) if path.read_text() in ("2", "3") else fuzz_readers.READ

    found = list(fuzz_readers.run(make, tmp_path, range(5), crash))
    assert [(one["number"], one["outcome"]) for one in found] == [
        (0, "segmented"), (1, "segmented"), (2, "failed"), (3, "failed"), (4, "segmented"),
    ]  # fmt: skip
    assert found[2]["why"] == "SIGKILL"


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
    monkeypatch.setattr(fuzz, "CPU_SECONDS", 1)
    monkeypatch.setattr(fuzz, "SECONDS", 3 if attempt is _wait else fuzz.SECONDS)  # a busy machine is no reason
    (outcome,) = fuzz.run(fuzz.scenes(fuzz.seeds(tmp_path / "sound")[:1]), tmp_path, range(1), attempt)
    assert outcome["outcome"] == "failed"
    assert why in outcome["why"]
