"""`--profile`: where the time of a command went."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from geoovseg.cli.output import talk
from geoovseg.errors import OutputError, UsageError, first_line
from geoovseg.files import as_path, write_whole
from geoovseg.settings import Settings
from geoovseg.trace import Trace, tracing

SHOWN = 8
"""Names that are told one by one."""


@contextmanager
def profiled(file: str | None, settings: Settings, *, quiet: bool) -> Iterator[None]:
    """Write where the time of a block went into a file, also where it failed. Raises UsageError, OutputError."""
    if file is None:
        yield
        return
    target = as_path(file, "--profile")
    if settings.workers != 1 or settings.ray is not None:
        raise UsageError("--profile looks into one process: leave --workers and --ray away")
    if target.exists() and not settings.overwrite:
        raise OutputError(f"{target} exists already; add --overwrite to replace it")
    with tracing() as trace:
        try:
            yield
        finally:
            _write(trace, target)
            talk(f"{_told(trace)}; {target}", quiet=quiet)


def _write(trace: Trace, target: Path) -> None:
    try:
        write_whole(target, trace.to_json())
    except OSError as error:
        raise OutputError(f"cannot write {target}: {first_line(error)}") from error


def _told(trace: Trace) -> str:
    """Seconds of the thread that everything waits for."""
    seconds = trace.seconds().get(threading.current_thread().name, {})
    shown = [f"{name} {each:.1f} s" for name, each in list(seconds.items())[:SHOWN] if each >= 0.05]
    return f"time went to: {', '.join(shown)}"
