"""Several workers with loaded models, wherever they are: work is given out, and again where one dies."""

from __future__ import annotations

import threading
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import Future
from typing import Any, Protocol

from geoovseg.errors import GeoOVSegError, InterruptedRunError
from geoovseg.files import is_store
from geoovseg.run.executors.member import LOOK
from geoovseg.run.executors.round import LostError, Round, repeat
from geoovseg.run.job import Job, Step
from geoovseg.settings import Settings, Stop
from geoovseg.windows.plan import Part


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
            while answer is None or not self.done([answer]):
                if signal := stop():
                    self.close()
                    raise InterruptedRunError("stopped before the first part; nothing is lost", signal)
                if answer is None and (number := self.take()) is not None:
                    answer = self.submit(number, "answer", name, *args)
                elif answer is None:
                    self.done([])
            found, said = answer.result()
        except LostError as error:
            self.close()
            raise GeoOVSegError("a worker died while it loaded the models; is there enough memory?") from error
        finally:
            if number is not None:
                self.give_back(number)
        repeat(said)
        return found

    def take(self) -> int | None:
        """A worker that is free and can be given work, for whoever asks; none if there is none now."""
        with self._news:
            for number in range(self.workers):
                if number not in self._taken and self._lane(number).ready():
                    self._taken.add(number)
                    return number
        return None

    def give_back(self, number: int) -> None:
        """It is free again."""
        with self._news:
            self._taken.discard(number)
            self._news.notify_all()

    def _lane(self, number: int) -> Lane:
        if self._closed:
            raise GeoOVSegError("the workers have been ended")
        if number not in self._lanes:
            self._lanes[number] = self._begun(number)
        return self._lanes[number]

    def submit(self, number: int, what: str, *args: Any) -> Future[Any]:
        """Have a worker do something."""
        with self._news:
            found = self._lane(number).submit(what, *args)
        found.add_done_callback(lambda done: self._tell())
        return found

    def _tell(self) -> None:
        with self._news:
            self._news.notify_all()

    def done(self, futures: Iterable[Future[Any]]) -> list[Future[Any]]:
        """Those that are done, after a moment's wait for news if none is."""
        with self._news:
            if not any(future.done() for future in futures):
                self._news.wait(LOOK)
            return [future for future in futures if future.done()]

    def run(self, job: Job, groups: Sequence[Sequence[Part]], stop: Stop) -> Iterator[tuple[int, Step]]:
        """Compute groups of parts; what a worker that died had in hand is given out again.

        A worker that has nothing to do takes over half of what another one has not begun. Raises GeoOVSegError when
        workers go on dying.
        """
        return Round(self, job, groups).steps(stop)

    def held(self, number: int, peak_mb: float) -> None:
        """So much memory a worker has held."""
        self._peaks[number] = max(peak_mb, self._peaks.get(number, 0))

    def bury(self, number: int) -> str:
        """Forget a worker that died; what it was called."""
        with self._news:
            lane = self._lanes.pop(number)
            self.give_back(number)
        lane.close()
        return lane.where

    def close(self) -> None:
        """End the workers at once: what they have in hand is not needed."""
        with self._news:
            self._closed, lanes = True, [*self._lanes.values()]
            self._lanes.clear()
        for lane in lanes:
            lane.close()
