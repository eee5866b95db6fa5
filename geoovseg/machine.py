"""What this process may use of the machine: cores, memory, GPUs; and whose it is. Nothing here loads torch."""

from __future__ import annotations

import atexit
import gc
import os
import re
import sys
from contextlib import suppress
from glob import glob
from pathlib import Path

from geoovseg.errors import UsageError

CGROUP = Path("/sys/fs/cgroup")
"""Where Linux tells the limits of a container or a job."""
UNKNOWN = 8 * 2**30
"""Bytes of memory taken for granted where a system does not say."""


def cores() -> int:
    """Processor cores for this process: those it may run on, within the quota of its container."""
    try:
        count = len(os.sched_getaffinity(0))
    except AttributeError:  # not on macOS and Windows
        count = os.cpu_count() or 1
    return max(1, min(count, int(_quota() or count)))


def memory() -> int:
    """Bytes of memory for this process: the machine's, within the limit of its container."""
    limits = (_number(CGROUP / name) for name in ("memory.max", "memory/memory.limit_in_bytes"))
    return min([_physical(), *filter(None, limits)])


def gpus() -> list[str]:
    """CUDA devices of this job, as CUDA_VISIBLE_DEVICES names them; without that all there are."""
    named = os.environ.get("CUDA_VISIBLE_DEVICES")
    if named is None:
        found = (re.search(r"nvidia(\d+)$", path) for path in glob("/dev/nvidia[0-9]*"))
        return sorted((match[1] for match in found if match), key=int)
    devices = [device.strip() for device in named.split(",")]
    end = next((n for n, device in enumerate(devices) if device in ("", "-1")), len(devices))  # as CUDA reads it
    return devices[:end]


SELDOM = (50_000, 10, 10)
"""How many objects more make Python look for unreachable ones, in a process of our own; 700 as it is."""
_OURS: list[bool] = []
"""Not empty in a process that runs nobody else's code."""


def make_ours() -> None:
    """Say that this process runs nobody else's code from now on; it begins and ends sooner then.

    Most of what keeps Python's collector busy are modules: while they load it looks through them again and again, and
    once more in the end, when nothing of it matters.
    """
    if is_ours():
        return
    _OURS.append(True)
    gc.set_threshold(*SELDOM)
    atexit.register(_leave)


def _leave() -> None:
    """Let the collector rest, unless there is a library that would call what is left over a leak, on standard error."""
    if "triton" not in sys.modules:
        gc.freeze()


def is_ours() -> bool:
    """Whether this process runs nobody else's code: a command, or a worker that it started."""
    return bool(_OURS)


_THREADED: list[int] = []
"""The process in which libraries started threads."""


def start_threads() -> None:
    """Say that libraries start threads of their own in this process, which keep waiting for work.

    Raises UsageError in a process that was forked after that: it would wait for threads that it does not have.
    """
    if not _THREADED:
        _THREADED.append(os.getpid())
    if _THREADED[0] != os.getpid():
        raise UsageError(
            "this process was forked from one in which geoovseg had worked, and would hang; start it afresh, in Python "
            "by multiprocessing.get_context('spawn')"
        )


def _physical() -> int:
    """Bytes of memory of the machine."""
    with suppress(AttributeError, ValueError, OSError):
        return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    return _windows_memory() or UNKNOWN


def _windows_memory() -> int | None:
    """What Windows says: GlobalMemoryStatusEx, of which the total is the second number of 64 bits."""
    import ctypes

    if not hasattr(ctypes, "windll"):
        return None
    status = (ctypes.c_ulonglong * 8)()
    ctypes.cast(status, ctypes.POINTER(ctypes.c_ulong))[0] = ctypes.sizeof(status)
    return int(status[1]) if ctypes.windll.kernel32.GlobalMemoryStatusEx(ctypes.byref(status)) else None


def _quota() -> float | None:
    """Cores that a container may keep busy, if it is limited (cgroup 2, then 1)."""
    with suppress(OSError, ValueError):
        quota, period = (CGROUP / "cpu.max").read_text().split()
        return None if quota == "max" else int(quota) / int(period)
    quota_us, period_us = (_number(CGROUP / "cpu" / f"cpu.cfs_{name}_us") for name in ("quota", "period"))
    return quota_us / period_us if quota_us and period_us else None


def _number(path: Path) -> int | None:
    """A limit in a file; None for `max`, for the huge number that stands for it, and where there is no file."""
    with suppress(OSError, ValueError):
        found = int(path.read_text())
        return found if 0 < found < 2**60 else None
    return None
