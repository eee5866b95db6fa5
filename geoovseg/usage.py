"""What a run used: time by stage, memory, and the versions of what it ran on."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from contextvars import ContextVar
from functools import cache
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from geoovseg.trace import stretch

_PROCESS = Path("/proc/self")


@cache
def package_version(name: str) -> str:
    """The installed version of a package, or `not installed`."""
    try:
        return version(name)
    except PackageNotFoundError:
        return "not installed"


TELL: ContextVar[Callable[[str], None]] = ContextVar("tell", default=lambda text: None)
"""Who is told of what takes long before it begins, wherever that is; nobody by default."""


class Usage:
    """Seconds by stage with `total` since it was made, and the most memory held since then."""

    def __init__(self) -> None:
        self._start = time.perf_counter()
        self._stages: dict[str, float] = {}
        _forget_peak()

    @contextmanager
    def stage(self, name: str) -> Iterator[None]:
        """Add the time of a block to a stage."""
        start = time.perf_counter()
        try:
            with stretch(name):
                yield
        finally:
            self._stages[name] = self._stages.get(name, 0.0) + time.perf_counter() - start

    def seconds(self) -> dict[str, float]:
        """All stages and `total`, rounded to milliseconds."""
        return {k: round(v, 3) for k, v in {**self._stages, "total": time.perf_counter() - self._start}.items()}


def duration(seconds: float) -> str:
    """A time for a person, rounded: `45 s`, `12 min`, `3.5 h`, `2 days`."""
    if seconds < 90:
        return f"{max(1, round(seconds))} s"
    if seconds < 90 * 60:
        return f"{seconds / 60:.0f} min"
    hours = seconds / 3600
    return f"{_rounded(hours)} h" if hours < 36 else f"{_rounded(hours / 24)} days"


def _rounded(number: float) -> str:
    return f"{number:.2g}" if number < 9.95 else f"{number:.0f}"


def peak_rss_mb() -> float:
    """The most memory in MB that this process has held since a `Usage` began, where Linux tells; else ever.

    0 where a system tells neither.
    """
    with suppress(OSError, StopIteration, ValueError):
        lines = (_PROCESS / "status").read_text().splitlines()
        return round(int(next(line for line in lines if line.startswith("VmHWM")).split()[1]) / 1024, 1)
    with suppress(ImportError):
        import resource  # not on Windows

        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        return round(peak / (1e6 if sys.platform == "darwin" else 1024), 1)
    return 0.0


def _forget_peak() -> None:
    """Let Linux count the most memory held from now on."""
    with suppress(OSError):
        (_PROCESS / "clear_refs").write_text("5")


@contextmanager
def told(say: Callable[[str], None]) -> Iterator[None]:
    """In here, somebody is told of what takes long."""
    token = TELL.set(say)
    try:
        yield
    finally:
        TELL.reset(token)
