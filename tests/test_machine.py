"""What this process may use of the machine, on systems that say it in different ways or not at all."""

from __future__ import annotations

import mmap
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from geoovseg import machine
from geoovseg.usage import Usage, peak_rss_mb

Limits = Callable[..., None]
HIDDEN = """
import os, sys
sys.modules["fcntl"] = sys.modules["resource"] = None
for name in ("sched_getaffinity", "sysconf", "O_NOFOLLOW"):
    if hasattr(os, name):
        delattr(os, name)
sys.argv = ["geoovseg", *sys.argv[1:]]
from geoovseg.cli import main
main()
"""


@pytest.fixture
def limits(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Limits:
    """Write files of control groups."""
    monkeypatch.setattr(machine, "CGROUP", tmp_path)

    def write(files: dict[str, str]) -> None:
        for name, text in files.items():
            (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
            (tmp_path / name).write_text(text)

    return write


def test_cores_are_those_of_the_affinity(limits: Limits, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "sched_getaffinity", lambda pid: set(range(6)), raising=False)
    assert machine.cores() == 6
    monkeypatch.delattr(os, "sched_getaffinity")
    monkeypatch.setattr(os, "cpu_count", lambda: 3)
    assert machine.cores() == 3


@pytest.mark.parametrize(
    ("quota", "cores"), [("200000 100000", 2), ("150000 100000", 1), ("50000 100000", 1), ("max 100000", 8)]
)
def test_a_quota_of_a_container_limits_cores(
    limits: Limits, monkeypatch: pytest.MonkeyPatch, quota: str, cores: int
) -> None:
    monkeypatch.setattr(os, "sched_getaffinity", lambda pid: set(range(8)), raising=False)
    limits({"cpu.max": quota})
    assert machine.cores() == cores


def test_an_old_quota_limits_cores_too(limits: Limits, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "sched_getaffinity", lambda pid: set(range(8)), raising=False)
    limits({"cpu/cpu.cfs_quota_us": "300000", "cpu/cpu.cfs_period_us": "100000"})
    assert machine.cores() == 3
    limits({"cpu/cpu.cfs_quota_us": "-1"})
    assert machine.cores() == 8


def test_memory_is_the_containers(limits: Limits) -> None:
    whole = machine.memory()
    limits({"memory.max": str(10**9)})
    assert machine.memory() == min(whole, 10**9)
    limits({"memory.max": "max\n"})
    assert machine.memory() == whole
    limits({"memory.max": "max", "memory/memory.limit_in_bytes": str(2**63 - 4096)})
    assert machine.memory() == whole


@pytest.mark.parametrize(
    ("named", "gpus"),
    [("4,5", ["4", "5"]), ("", []), ("-1", []), ("2,-1,3", ["2"]), ("GPU-8f3a, GPU-11c2", ["GPU-8f3a", "GPU-11c2"])],
)
def test_gpus_are_those_of_this_job(monkeypatch: pytest.MonkeyPatch, named: str, gpus: list[str]) -> None:
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", named)
    assert machine.gpus() == gpus


def test_without_a_word_all_gpus_are_this_jobs(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    monkeypatch.setattr(machine, "glob", lambda pattern: ["/dev/nvidia10", "/dev/nvidia2", "/dev/nvidia0"])
    assert machine.gpus() == ["0", "2", "10"]


def test_workers_get_the_gpus_of_the_job(monkeypatch: pytest.MonkeyPatch) -> None:
    from geoovseg.run.executors import processes
    from geoovseg.settings import Settings
    from geoovseg.vocabulary import parse_classes

    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "4,5")
    given, seen = (parse_classes(["road"]), Settings(model="demo")), []
    monkeypatch.setattr(processes, "fresh_pool", lambda count, own: seen.append(own["CUDA_VISIBLE_DEVICES"]))
    for number in range(3):
        processes.Process(number, 3, given)
    assert seen == ["4", "5", "4"]


@pytest.mark.skipif(not Path("/proc/self/clear_refs").exists(), reason="only Linux counts anew")
def test_peak_memory_is_that_since_a_run_began() -> None:
    with mmap.mmap(-1, 300 * 2**20) as big:  # which is given back to the system for certain
        for at in range(0, len(big), mmap.PAGESIZE):
            big[at] = 1
        high = peak_rss_mb()
    Usage()
    assert peak_rss_mb() < high - 250


@pytest.mark.parametrize("arguments", [["--help"], ["segment", "--help"], ["methods"]])
def test_the_command_line_needs_no_module_of_unix(arguments: list[str]) -> None:
    done = subprocess.run([sys.executable, "-c", HIDDEN, *arguments], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def test_a_plain_run_needs_no_module_of_unix(demo_scene: str, tmp_path: Path) -> None:
    arguments = ["segment", demo_scene, "-c", "road,water", "--model", "demo", "-o", str(tmp_path / "labels.tif")]
    code = f"import torch\n{HIDDEN}"  # which has builds of its own for other systems
    done = subprocess.run([sys.executable, "-c", code, *arguments], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "labels.tif").exists()


def test_a_command_that_ends_has_nothing_to_say() -> None:
    code = "import sys, types, geoovseg.machine as m; m.make_ours(); sys.modules['triton'] = types.ModuleType('triton')"
    code += "; import atexit, gc; m._leave(); print(gc.get_freeze_count()); del sys.modules['triton']; m._leave(); "
    code += "print(gc.get_freeze_count() > 0)"
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert (found.stdout.split(), found.stderr) == (["0", "True"], "")
