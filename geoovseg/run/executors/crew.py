"""Several workers with loaded models, wherever they are: work is given out, and again where one dies."""

from __future__ import annotations

import threading
import warnings
from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import Future
from typing import Any, Protocol

from geoovseg.errors import GeoOVSegError, GeoOVSegWarning, InterruptedRunError
from geoovseg.files import is_store
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
    """Workers by number, begun when they are first needed; several scenes may give them work at once, from threads."""

    workers: int

    def __init__(self) -> None:
        self._lanes: dict[int, Lane] = {}
        self._peaks: dict[int, float] = {}
        self._taken: set[int] = set()
        self._news = threading.Condition(threading.RLock())
        """of answers, and of workers that are free again"""
        self._closed = self._awake = False

    def _begun(self, number: int) -> Lane:
        """A new worker."""
        raise NotImplementedError

    @property
    def peak_mb(self) -> float:
        """The most memory that the workers have held, together."""
        return round(sum(self._peaks.values()), 1)

    def job(self, scene: str, settings: Settings, stop: Stop, *, features: bool = False) -> Job:
        """What there is to do with a scene; meanwhile all workers but the one that says so load their models."""
        if not is_store(scene):
            self._wake()
        found: Job = self._ask("features_job" if features else "job", scene, settings, stop=stop)
        return found

    def _wake(self) -> None:
        """Begin all workers, once."""
        with self._news:
            for number in range(self.workers) if not self._awake else ():
                if number not in self._lanes and (lane := self._lane(number)) and number:
                    lane.submit("warm")
            self._awake = True

    def prepare(self, job: Job, stop: Stop) -> bytes:
        """What the method learns from the scene."""
        found: bytes = self._ask("prepare", job, stop=stop)
        return found

    def _ask(self, name: str, *args: Any, stop: Stop) -> Any:
        """One worker's answer. Raises InterruptedRunError when asked to stop meanwhile."""
        number: int | None = None
        answer: Future[Any] | None = None
        try:
            while answer is None or not self._done([answer]):
                if signal := stop():
                    self.close()
                    raise InterruptedRunError("stopped before the first part; nothing is lost", signal)
                if answer is None and (number := self._take()) is not None:
                    answer = self._submit(number, "answer", name, *args)
                elif answer is None:
                    self._done([])
            found, said = answer.result()
        except LostError as error:
            self.close()
            raise GeoOVSegError("a worker died while it loaded the models; is there enough memory?") from error
        finally:
            self._give_back(number)
        _repeat(said)
        return found

    def _take(self) -> int | None:
        """A worker that is free and can be given work, for whoever asks; none if there is none now."""
        with self._news:
            for number in range(self.workers):
                if number not in self._taken and self._lane(number).ready():
                    self._taken.add(number)
                    return number
        return None

    def _give_back(self, number: int | None) -> None:
        with self._news:
            self._taken.discard(-1 if number is None else number)
            self._news.notify_all()

    def _lane(self, number: int) -> Lane:
        if self._closed:
            raise GeoOVSegError("the workers have been ended")
        if number not in self._lanes:
            self._lanes[number] = self._begun(number)
        return self._lanes[number]

    def _submit(self, number: int, what: str, *args: Any) -> Future[Any]:
        with self._news:
            found = self._lane(number).submit(what, *args)
        found.add_done_callback(lambda done: self._give_back(None))
        return found

    def _done(self, futures: Iterable[Future[Any]]) -> list[Future[Any]]:
        """Those that are done, after a moment's wait for news if none is."""
        with self._news:
            if not any(future.done() for future in futures):
                self._news.wait(LOOK)
            return [future for future in futures if future.done()]

    def run(self, job: Job, groups: Sequence[Sequence[Part]], stop: Stop) -> Iterator[tuple[int, Step]]:
        """Compute groups of parts; what a worker that died had in hand is given out again.

        Raises GeoOVSegError when workers go on dying.
        """
        waiting = deque(enumerate(groups))
        busy: dict[Future[Any], tuple[int, int, Sequence[Part]]] = {}
        deaths, stopping = 0, bool(waiting and stop())
        try:
            while busy or (waiting and not stopping):
                while waiting and not stopping and (number := self._take()) is not None:
                    group, parts = waiting.popleft()
                    busy[self._submit(number, "begin", job, parts)] = (number, group, parts)
                for future in self._done(busy):
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
                    except BaseException:
                        self._give_back(number)
                        raise
                    _repeat(said)
                    self._peaks[number] = max(step.peak_mb, self._peaks.get(number, 0))
                    gone = {done.part for done in step.finished}
                    parts = [part for part in parts if part not in gone]
                    deaths = 0 if gone else deaths
                    if step.ended or (stopping and gone):
                        self._give_back(number)
                    else:
                        busy[self._submit(number, "go_on")] = (number, group, parts)
                    yield group, step
                stopping = stopping or bool(stop())
        finally:
            for number, _, _ in busy.values():
                self._give_back(number)

    def _bury(self, number: int, deaths: int, error: Exception) -> None:
        """Say that a worker died, or give up."""
        with self._news:
            lane = self._lanes.pop(number)
            self._give_back(number)
        lane.close()
        if deaths > DEATHS * self.workers:
            raise GeoOVSegError(
                f"workers died {deaths} times without finishing a part; is there enough memory? Finished parts are "
                "kept for --resume"
            ) from error
        warnings.warn(f"{lane.where} died; what it had in hand is computed again", GeoOVSegWarning, 4)

    def close(self) -> None:
        """End the workers at once: what they have in hand is not needed."""
        with self._news:
            self._closed, lanes = True, [*self._lanes.values()]
            self._lanes.clear()
        for lane in lanes:
            lane.close()


def _repeat(said: Sequence[str]) -> None:
    for text in said:
        warnings.warn(text, GeoOVSegWarning, 5)
