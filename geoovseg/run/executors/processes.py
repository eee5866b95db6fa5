"""Worker processes on this machine, each with loaded models of its own. Nothing here loads torch."""

from __future__ import annotations

import time
import warnings
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, wait
from concurrent.futures.process import BrokenProcessPool
from contextlib import suppress
from typing import TYPE_CHECKING, Any, TypeVar

from geoovseg import machine
from geoovseg.errors import GeoOVSegError, GeoOVSegWarning, InterruptedRunError
from geoovseg.run.executors.pool import end_now, fresh_pool, submit, warned
from geoovseg.run.job import Job, Step
from geoovseg.settings import Settings, Stop
from geoovseg.usage import peak_rss_mb
from geoovseg.vocabulary import Vocabulary
from geoovseg.windows.plan import Part

if TYPE_CHECKING:
    from geoovseg.run.worker import Worker

Item = TypeVar("Item")
Done = TypeVar("Done")
LOOK = 0.2
"""Seconds between looks at whether to stop, and that a worker computes before it tells how far it is."""
DEATHS = 2
"""Of workers in a row without a finished part, after which it is no accident."""


class Processes:
    """Several workers, one a GPU of this job, or sharing the cores; each holds its own loaded models."""

    def __init__(self, words: Vocabulary, settings: Settings) -> None:
        self.workers = settings.workers
        self._given = (words, settings)
        self._lanes: dict[int, Lane] = {}
        self._peaks: dict[int, float] = {}

    @property
    def peak_mb(self) -> float:
        """The most memory that the workers have held, together."""
        return round(sum(self._peaks.values()), 1)

    def job(self, scene: str, settings: Settings, stop: Stop, *, features: bool = False) -> Job:
        """What there is to do with a scene."""
        found: Job = self._ask("features_job" if features else "job", scene, settings, stop=stop)
        return found

    def prepare(self, job: Job, stop: Stop) -> bytes:
        """What the method learns from the scene."""
        found: bytes = self._ask("prepare", job, stop=stop)
        return found

    def _ask(self, name: str, *args: Any, stop: Stop) -> Any:
        """One worker's answer. Raises InterruptedRunError when asked to stop meanwhile."""
        answer = self._lane(0).submit(_answer, name, args)
        while not wait([answer], LOOK).done:
            if number := stop():
                self.close()
                raise InterruptedRunError("stopped before the first part; nothing is lost", number)
        try:
            found, said = answer.result()
        except BrokenProcessPool as error:
            self.close()
            raise GeoOVSegError("a worker died while it loaded the models; is there enough memory?") from error
        _repeat(said)
        return found

    def _lane(self, number: int) -> Lane:
        if number not in self._lanes:
            self._lanes[number] = Lane(number, self.workers, self._given)
        return self._lanes[number]

    def run(self, job: Job, groups: Sequence[Sequence[Part]], stop: Stop) -> Iterator[tuple[int, Step]]:
        """Compute groups of parts; what a worker that died had in hand is given out again.

        Raises GeoOVSegError when workers go on dying.
        """
        waiting = deque(enumerate(groups))
        busy: dict[Future[Any], tuple[int, int, Sequence[Part]]] = {}
        deaths, stopping = 0, bool(waiting and stop())
        while busy or (waiting and not stopping):
            for number in range(self.workers):
                if waiting and not stopping and number not in (lane for lane, _, _ in busy.values()):
                    group, parts = waiting.popleft()
                    busy[self._lane(number).submit(_begin, job, parts)] = (number, group, parts)
            for future in wait(busy, LOOK, FIRST_COMPLETED).done:
                number, group, parts = busy.pop(future)
                try:
                    step, said = future.result()
                except BrokenProcessPool as error:
                    deaths += 1
                    self._bury(number, deaths, error)
                    if parts:
                        waiting.appendleft((group, parts))
                    else:  # it had only not said that it was done
                        yield group, Step(0, ended=True)
                    continue
                _repeat(said)
                self._peaks[number] = max(step.peak_mb, self._peaks.get(number, 0))
                yield group, step
                gone = {done.part for done in step.finished}
                parts = [part for part in parts if part not in gone]
                deaths = 0 if gone else deaths
                if not step.ended and not (stopping and gone):
                    busy[self._lane(number).submit(_go_on)] = (number, group, parts)
            stopping = stopping or bool(stop())

    def _bury(self, number: int, deaths: int, error: Exception) -> None:
        """Say that a worker died, or give up."""
        self._lanes.pop(number).close()
        if deaths > DEATHS * self.workers:
            raise GeoOVSegError(
                f"workers died {deaths} times without finishing a part; is there enough memory? Finished parts are "
                "kept for --resume"
            ) from error
        warnings.warn(f"worker {number + 1} died; what it had in hand is computed again", GeoOVSegWarning, 4)

    def close(self) -> None:
        """End the workers at once: what they have in hand is not needed."""
        for lane in self._lanes.values():
            lane.close()
        self._lanes.clear()


class Lane:
    """One worker process, with its share of the cores, or its GPU."""

    def __init__(self, number: int, count: int, given: tuple[Vocabulary, Settings]) -> None:
        gpus = machine.gpus()
        own = {"OMP_NUM_THREADS": str(max(1, machine.cores() // count))}
        if gpus and given[1].device in ("auto", "cuda"):
            own["CUDA_VISIBLE_DEVICES"] = gpus[number % len(gpus)]
        self._pool = fresh_pool(1, own)
        self._given = given
        self._loaded = False

    def submit(self, work: Callable[..., Any], *args: Any) -> Future[Any]:
        """Let the worker do something, after it has been told what models to load."""
        if not self._loaded:
            submit(self._pool, _load, *self._given)
            self._loaded = True
        return submit(self._pool, work, *args)

    def close(self) -> None:
        """End the process at once."""
        end_now(self._pool)


class _Here:
    """What a worker process holds."""

    worker: Worker | None = None
    steps: Iterator[Step] = iter(())


def _load(words: Vocabulary, settings: Settings) -> None:
    """Be the worker of some models, which are loaded when they are first needed."""
    from geoovseg.run.worker import Worker

    _Here.worker = Worker(words, settings)


def _answer(name: str, args: tuple[Any, ...]) -> tuple[Any, list[str]]:
    """What the worker answers, and what it warns of."""
    found = getattr(_Here.worker, name)(*args)
    return found, warned()


def _begin(job: Job, parts: Sequence[Part]) -> tuple[Step, list[str]]:
    """The first step with a group of parts."""
    assert _Here.worker is not None  # `_load` came first
    with suppress(AttributeError):
        _Here.steps.close()  # type: ignore[attr-defined]  # what another run left unfinished
    _Here.steps = _Here.worker.compute(job, parts)
    return _go_on()


def _go_on() -> tuple[Step, list[str]]:
    """The next step: up to a finished part, or for a moment."""
    end = time.monotonic() + LOOK
    for step in _Here.steps:
        if step.finished or step.ended or time.monotonic() > end:
            return step._replace(peak_mb=peak_rss_mb()), warned()
    raise RuntimeError("there is nothing to go on with")


def _repeat(said: Sequence[str]) -> None:
    for text in said:
        warnings.warn(text, GeoOVSegWarning, 5)
