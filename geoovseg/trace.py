"""Where time goes: stretches of a run by thread, as a trace that Chrome and Perfetto show, and as a table."""

from __future__ import annotations

import json
import os
import threading
import time
from collections import defaultdict
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from contextvars import ContextVar
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

Item = TypeVar("Item")


class Stretch(NamedTuple):
    """Something that took time."""

    name: str
    thread: str
    begin: float
    """seconds since the trace began; less than 0 for what was before"""
    seconds: float
    own: float
    """of these, those in no stretch within it"""


class Trace:
    """Stretches of this process, while it is the one that is told of them (`tracing`)."""

    def __init__(self) -> None:
        self.stretches: list[Stretch] = []
        self._began = time.perf_counter()
        self._open = threading.local()
        if age := _age():
            self.stretches.append(Stretch("start", threading.current_thread().name, -age, age, age))

    @contextmanager
    def stretch(self, name: str) -> Iterator[None]:
        """Tell of the time of a block."""
        within = self._open.__dict__.setdefault("within", [0.0])
        within.append(0.0)
        begin = time.perf_counter()
        try:
            yield
        finally:
            seconds, inner = time.perf_counter() - begin, within.pop()
            within[-1] += seconds
            thread = threading.current_thread().name
            self.stretches.append(Stretch(name, thread, begin - self._began, seconds, seconds - inner))

    def seconds(self) -> dict[str, dict[str, float]]:
        """By thread and name, the longest first: seconds that are in no stretch within."""
        found: dict[str, dict[str, float]] = defaultdict(lambda: defaultdict(float))
        for each in self.stretches:
            found[each.thread][each.name] += each.own
        return {thread: dict(sorted(names.items(), key=lambda of: -of[1])) for thread, names in found.items()}

    def to_json(self) -> str:
        """In the format of Chrome's traces: open it in chrome://tracing or ui.perfetto.dev."""
        process, events = os.getpid(), list[dict[str, Any]]()
        number = {thread: n for n, thread in enumerate(dict.fromkeys(each.thread for each in self.stretches))}
        for thread, n in number.items():
            events.append({"name": "thread_name", "ph": "M", "pid": process, "tid": n, "args": {"name": thread}})
        for name, thread, begin, seconds, _ in self.stretches:
            times = {"ts": round(begin * 1e6, 1), "dur": round(seconds * 1e6, 1)}
            events.append({"name": name, "ph": "X", "pid": process, "tid": number[thread], **times})
        return json.dumps({"traceEvents": events, "displayTimeUnit": "ms", "seconds": self.seconds()})


_TOLD: ContextVar[Trace | None] = ContextVar("trace", default=None)


@contextmanager
def tracing() -> Iterator[Trace]:
    """In here, and in threads that are begun in here with its context, a trace is told where time goes."""
    trace = Trace()
    token = _TOLD.set(trace)
    try:
        yield trace
    finally:
        _TOLD.reset(token)


@contextmanager
def stretch(name: str) -> Iterator[None]:
    """Tell the trace, if there is one, of the time of a block."""
    trace = _TOLD.get()
    if trace is None:
        yield
        return
    with trace.stretch(name):
        yield


def until_each(name: str, items: Iterable[Item]) -> Iterator[Item]:
    """The items of a stream; the time until each is told."""
    stream = iter(items)
    while True:
        with stretch(name):
            try:
                item = next(stream)
            except StopIteration:
                return
        yield item


def _age() -> float:
    """Seconds since this process began, where Linux tells; else 0."""
    with suppress(OSError, ValueError, IndexError):
        begun = int(Path("/proc/self/stat").read_text().rpartition(")")[2].split()[19]) / os.sysconf("SC_CLK_TCK")
        return max(0.0, float(Path("/proc/uptime").read_text().split()[0]) - begun)
    return 0.0
