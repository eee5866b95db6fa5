"""Several workers with loaded models, wherever they are: work is given out, and again where one dies."""

from __future__ import annotations

import warnings
from collections import deque
from collections.abc import Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, wait
from typing import Any, Protocol

from geoovseg.errors import GeoOVSegError, GeoOVSegWarning, InterruptedRunError
from geoovseg.run.executors.member import LOOK
from geoovseg.run.job import Job, Step
from geoovseg.settings import Settings, Stop
from geoovseg.windows.plan import Part

DEATHS = 2
"""Of workers in a row without a finished part, after which it is no accident."""


class LostError(Exception):
    """A worker died with what it had in hand."""


class Lane(Protocol):
    """A worker, and the way to it; it does one thing after the other."""

    @property
    def where(self) -> str:
        """What it is called when it dies."""

    def ready(self) -> bool:
        """Whether it can be given work. Raises GeoOVSegError where it never will."""

    def submit(self, what: str, *args: Any) -> Future[Any]:
        """Have a Member do something; its future raises LostError where the worker dies."""

    def close(self) -> None:
        """End the worker at once."""


class Crew:
    """Workers by number, begun when they are first needed."""

    workers: int

    def __init__(self) -> None:
        self._lanes: dict[int, Lane] = {}
        self._peaks: dict[int, float] = {}

    def _begun(self, number: int) -> Lane:
        """A new worker."""
        raise NotImplementedError

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
        lane, answer = self._lane(0), None
        while answer is None or not wait([answer], LOOK).done:
            if number := stop():
                self.close()
                raise InterruptedRunError("stopped before the first part; nothing is lost", number)
            if answer is None and lane.ready():
                answer = lane.submit("answer", name, *args)
        try:
            found, said = answer.result()
        except LostError as error:
            self.close()
            raise GeoOVSegError("a worker died while it loaded the models; is there enough memory?") from error
        _repeat(said)
        return found

    def _lane(self, number: int) -> Lane:
        if number not in self._lanes:
            self._lanes[number] = self._begun(number)
        return self._lanes[number]

    def run(self, job: Job, groups: Sequence[Sequence[Part]], stop: Stop) -> Iterator[tuple[int, Step]]:
        """Compute groups of parts; what a worker that died had in hand is given out again.

        Raises GeoOVSegError when workers go on dying.
        """
        waiting = deque(enumerate(groups))
        busy: dict[Future[Any], tuple[int, int, Sequence[Part]]] = {}
        deaths, stopping = 0, bool(waiting and stop())
        while busy or (waiting and not stopping):
            taken = {lane for lane, _, _ in busy.values()}
            for number in (n for n in range(self.workers) if n not in taken):
                if waiting and not stopping and self._lane(number).ready():
                    group, parts = waiting.popleft()
                    busy[self._lane(number).submit("begin", job, parts)] = (number, group, parts)
            for future in wait(busy, LOOK, FIRST_COMPLETED).done if busy else self._idle():
                number, group, parts = busy.pop(future)
                try:
                    step, said = future.result()
                except LostError as error:
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
                    busy[self._lane(number).submit("go_on")] = (number, group, parts)
            stopping = stopping or bool(stop())

    def _idle(self) -> tuple[Future[Any], ...]:
        """Wait a moment for a worker to begin."""
        wait([Future()], LOOK)
        return ()

    def _bury(self, number: int, deaths: int, error: Exception) -> None:
        """Say that a worker died, or give up."""
        where = self._lanes[number].where
        self._lanes.pop(number).close()
        if deaths > DEATHS * self.workers:
            raise GeoOVSegError(
                f"workers died {deaths} times without finishing a part; is there enough memory? Finished parts are "
                "kept for --resume"
            ) from error
        warnings.warn(f"{where} died; what it had in hand is computed again", GeoOVSegWarning, 4)

    def close(self) -> None:
        """End the workers at once: what they have in hand is not needed."""
        for lane in self._lanes.values():
            lane.close()
        self._lanes.clear()


def _repeat(said: Sequence[str]) -> None:
    for text in said:
        warnings.warn(text, GeoOVSegWarning, 5)
