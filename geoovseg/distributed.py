"""Several processes on one machine that share a run's parts: one for every GPU, or sharing the CPU's cores."""

from __future__ import annotations

import multiprocessing
import os
import signal
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from multiprocessing.connection import Connection, wait
from types import TracebackType
from typing import Any

import torch

from geoovseg.errors import GeoOVSegError, GeoOVSegWarning, InterruptedRunError
from geoovseg.labels.names import output_names
from geoovseg.labels.parts import remove_store
from geoovseg.models.cards import model_card
from geoovseg.models.weights import find_weights
from geoovseg.pipeline import SegmentResult, segment
from geoovseg.run.compute import Progress, Stop
from geoovseg.run.state import open_finished
from geoovseg.scene.scene import open_scene
from geoovseg.settings import check_settings, check_shares, settings_of
from geoovseg.signals import Stop as StopOnSignal
from geoovseg.usage import Stopwatch

LOOK = 0.2
"""Seconds between looks at the workers."""


def segment_with(
    scene: str | os.PathLike[str],
    *args: Any,
    workers: int,
    shard: tuple[int, int] | None = None,
    overwrite: bool = False,
    resume: bool = False,
    progress: Progress | None = None,
    stop: Stop = lambda: None,
    **arguments: Any,
) -> SegmentResult:
    """`segment` by `workers` processes, with its arguments and the same labels.

    What a dying worker had in hand is taken over by another. Called from a script, that needs the usual
    `if __name__ == "__main__":`, since workers import it.

    Raises what `segment` raises, and GeoOVSegError when all workers died.
    """
    check_shares(shard, workers)
    given = settings_of(arguments)
    check_settings(given)
    watch = Stopwatch()
    names = (arguments.get(key) for key in ("output", "confidence", "work_dir"))
    outputs = output_names(os.fspath(scene), *names)
    with open_scene(scene, **given.view) as src:  # before anything is removed
        outputs.check(src.files, overwrite=overwrite, resume=resume)
    find_weights(model_card(given.model))
    if outputs.parts.exists() and not resume:
        remove_store(outputs.parts)
    common = {**arguments, "overwrite": overwrite, "crew": workers}
    with watch.stage("segment"), Crew(scene, args, common, workers) as crew:
        results = crew.work(progress or (lambda done, total: None), stop)
    first = min(results, key=lambda result: result.parts_kept)
    with open_finished(outputs.parts, overwrite=overwrite) as run, watch.stage("assemble"):
        totals, legend = run.totals(), run.legend()
        run.commit()
    return replace(
        first,
        parts_dir=None,
        windows=totals["windows"],
        skipped_windows=totals["skipped"],
        failed_windows=totals["failed"],
        outside_windows=totals["outside"],
        classes={entry.name: {"code": entry.code, "pixels": entry.pixels} for entry in legend},
        seconds=watch.seconds(),
        peak_rss_mb=round(sum(result.peak_rss_mb for result in results), 1),
    )


class Crew:
    """The workers of a run; leaving ends those that are still there."""

    def __init__(
        self, scene: str | os.PathLike[str], args: tuple[Any, ...], arguments: dict[str, Any], count: int
    ) -> None:
        self.results: list[SegmentResult] = []
        self.errors: list[GeoOVSegError] = []
        self._told = False
        self._windows: dict[Connection, int] = {}
        context = multiprocessing.get_context("spawn")
        threads = max(1, len(os.sched_getaffinity(0)) // count)
        self._workers: dict[Connection, Any] = {}
        for number in range(count):
            here, there = context.Pipe(duplex=False)
            given = (os.fspath(scene), args, arguments, threads, there)
            process = context.Process(target=_work, args=given, name=f"geoovseg-worker-{number + 1}")
            with _environment(number, threads):
                process.start()
            there.close()
            self._workers[here] = process

    def __enter__(self) -> Crew:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        for process in self._workers.values():
            process.kill()
            process.join()

    def work(self, progress: Progress, stop: Stop) -> list[SegmentResult]:
        """Wait until the parts are finished. Raises what a worker raised, or GeoOVSegError when all died."""
        while self._workers:
            if not self._told and (stop() or self.errors):
                self._told = True
                for process in self._workers.values():
                    process.terminate()  # which lets the part in hand be finished
            for connection in wait(list(self._workers), LOOK):
                self._receive(connection, progress)  # type: ignore[arg-type]
        if self.results:
            return self.results
        if signal_to_stop := stop():
            hint = next((str(error) for error in self.errors), "stopped before the first part")
            raise InterruptedRunError(hint, signal_to_stop)
        raise self.errors[0]

    def _receive(self, connection: Connection, progress: Progress) -> None:
        try:
            found = connection.recv()
        except EOFError:  # it is gone: after a result, an error, or by dying
            process = self._workers.pop(connection)
            process.join()
            if process.exitcode and not (self._told and process.exitcode == -signal.SIGTERM):
                self._died(process)
            return
        if isinstance(found, tuple):
            self._windows[connection] = found[0]
            progress(sum(self._windows.values()), max(found[1], sum(self._windows.values())))
        elif isinstance(found, SegmentResult):
            self.results.append(found)
        elif isinstance(found, Warning):
            warnings.warn(found, stacklevel=4)
        else:
            self.errors.append(found)

    def _died(self, process: Any) -> None:
        message = f"{process.name} died (exit code {process.exitcode})"
        if self._workers:
            warnings.warn(f"{message}; the others take over its parts", GeoOVSegWarning, 5)
        elif not self.results:
            self.errors.append(GeoOVSegError(f"{message}, the last one; finished parts are kept for --resume"))


@contextmanager
def _environment(number: int, threads: int) -> Iterator[None]:
    """What a process finds when it starts: its share of the cores, and its GPU, before torch is imported."""
    own = {"OMP_NUM_THREADS": str(threads)}
    if gpus := torch.cuda.device_count():
        own["CUDA_VISIBLE_DEVICES"] = str(number % gpus)
    before = {key: os.environ.get(key) for key in own}
    os.environ.update(own)
    try:
        yield
    finally:
        for key, value in before.items():
            if value is None:
                del os.environ[key]
            else:
                os.environ[key] = value


def _work(scene: str, args: tuple[Any, ...], arguments: dict[str, Any], threads: int, pipe: Connection) -> None:
    """A worker's life: progress, warnings, and a result or an error go through the pipe."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # from the terminal it goes to all; the first process decides
    torch.set_num_threads(threads)
    with warnings.catch_warnings(record=True) as told, StopOnSignal() as stop:
        signal.signal(signal.SIGINT, signal.SIG_IGN)
        try:
            result = segment(scene, *args, **arguments, progress=lambda *n: pipe.send(n), stop=stop)
            for warning in told:
                if isinstance(warning.message, GeoOVSegWarning):
                    pipe.send(warning.message)
            pipe.send(result)
        except GeoOVSegError as error:
            pipe.send(error)
