"""Processes of their own on this machine, for anything that is to run side by side.

They are started fresh (spawn), without the caller's main module, so that a plain script may use them; they open rasters
by the caller's settings, and end when this process does, however that ends. Nothing here loads torch.
"""

from __future__ import annotations

import os
import signal
import sys
import threading
import types
import warnings
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from multiprocessing import current_process, get_context, parent_process, resource_tracker
from typing import Any, ClassVar, TypeVar

from geoovseg import machine
from geoovseg.errors import GeoOVSegError, GeoOVSegWarning, UsageError
from geoovseg.network import is_offline
from geoovseg.rasters.open import adopt, gdal_settings

Item = TypeVar("Item")
Done = TypeVar("Done")


@contextmanager
def in_processes(work: Callable[[Item], Done], items: Sequence[Item], workers: int) -> Iterator[Iterator[Done]]:
    """What `work` makes of items, in their order, by so many processes; `workers` 0 is one a core, 1 none but this.

    Threads would not do for GDAL's polygons: the first two that polygonise at once can wait for each other for ever.
    """
    count = min(workers or machine.cores(), len(items))
    if count <= 1:
        yield map(work, items)
        return
    share = {"OMP_NUM_THREADS": str(max(1, machine.cores() // count))}
    pool = fresh_pool(count, share | ({"GEOOVSEG_OFFLINE": "1"} if is_offline() else {}))
    try:
        yield _ahead(pool, work, items, 2 * count)
    finally:
        end_now(pool)


def _ahead(pool: ProcessPoolExecutor, work: Callable[[Item], Done], items: Sequence[Item], most: int) -> Iterator[Done]:
    """Results in order, at most so many of them ahead of what is taken. Raises GeoOVSegError when a process dies."""
    waiting = deque(submit(pool, work, item) for item in items[:most])
    for number in range(len(items)):
        try:
            done = waiting.popleft().result()
            if number + most < len(items):
                waiting.append(submit(pool, work, items[number + most]))
        except BrokenProcessPool as error:
            raise GeoOVSegError("a process died before it was done; is there enough memory?") from error
        yield done


def fresh_pool(count: int, environment: Mapping[str, str]) -> ProcessPoolExecutor:
    """Fresh processes that leave signals to this one and end with it. Raises UsageError where there can be none."""
    if current_process().daemon:
        raise UsageError("a process of a multiprocessing pool cannot start others: use workers=1 in it")
    _start_tracker()
    return ProcessPoolExecutor(count, get_context("spawn"), _begin_life, (dict(environment),))


def _start_tracker() -> None:
    """Start the process that multiprocessing clears up by, so that it says nothing when this one is killed."""
    before = os.environ.get("PYTHONWARNINGS")
    os.environ["PYTHONWARNINGS"] = ",".join(filter(None, (before, "ignore:resource_tracker")))
    try:
        resource_tracker.ensure_running()
    finally:
        if before is None:
            del os.environ["PYTHONWARNINGS"]
        else:
            os.environ["PYTHONWARNINGS"] = before


def end_now(pool: ProcessPoolExecutor) -> None:
    """End processes at once."""
    for process in list((pool._processes or {}).values()):
        process.kill()
    pool.shutdown(wait=True, cancel_futures=True)


@contextmanager
def _starting() -> Iterator[None]:
    """Processes that start in here know nothing of the caller's main module, and never hear Ctrl-C.

    They inherit which signals are blocked; here these wait until the block ends.
    """
    main = sys.modules["__main__"]
    before = signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGINT]) if hasattr(signal, "pthread_sigmask") else None
    sys.modules["__main__"] = types.ModuleType("__main__")
    try:
        yield
    finally:
        sys.modules["__main__"] = main
        if before is not None:
            signal.pthread_sigmask(signal.SIG_SETMASK, before)


def _begin_life(environment: Mapping[str, str]) -> None:
    """What a process does first: take its share of the machine, before torch is imported, and watch its parent."""
    os.environ.update(environment)
    machine.make_ours()
    hear_warnings()
    for name in ("SIGINT", "SIGTERM", "SIGHUP"):  # a terminal or a batch system sends them to all; the driver decides
        if hasattr(signal, name):
            signal.signal(getattr(signal, name), signal.SIG_IGN)
    parent = parent_process()
    if parent is not None:
        threading.Thread(target=_end_with, args=(parent,), daemon=True).start()


def hear_warnings() -> None:
    """Keep warnings for the user, for whoever asks what was warned of."""
    warnings.simplefilter("always", GeoOVSegWarning)
    warnings.showwarning = _hear


def _end_with(parent: Any) -> None:
    parent.join()
    os._exit(1)


def submit(pool: ProcessPoolExecutor, work: Callable[..., Done], *args: Any) -> Future[Done]:
    """Let a process do something, with the settings of GDAL that the caller has."""
    with _starting():
        return pool.submit(_by_settings, gdal_settings(), work, *args)


def _by_settings(given: Mapping[str, Any], work: Callable[..., Done], *args: Any) -> Done:
    adopt(given)
    return work(*args)


class _Heard:
    """Warnings for the user in this process."""

    texts: ClassVar[list[str]] = []


def _hear(message: Warning | str, category: type[Warning], *args: Any, **kwargs: Any) -> None:
    """Keep a warning for the user, to be repeated where somebody hears it."""
    if issubclass(category, GeoOVSegWarning):
        _Heard.texts.append(str(message))


def warned() -> list[str]:
    """What was warned of since the last time."""
    found, _Heard.texts = _Heard.texts, []
    return found
