"""Several workers with loaded models, wherever they are: work is given out, and again where one dies."""

from __future__ import annotations

import threading
import warnings
from collections import Counter, deque
from collections.abc import Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Future
from dataclasses import dataclass
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


@dataclass
class Hand:
    """Neighbouring parts of a group that a worker has in hand, the first of them under way."""

    group: int
    parts: list[Part]
    lane: int = -1
    windows: int = 0
    """that were seen for them"""

    def with_lane(self, lane: int) -> Hand:
        """The same in a worker's hand, from the beginning."""
        self.lane, self.windows = lane, 0
        return self

    def halved(self) -> Hand:
        """What another worker takes over: the later half of what is not under way."""
        keep = (len(self.parts) + 1) // 2
        self.parts, taken = self.parts[:keep], self.parts[keep:]
        return Hand(self.group, taken)


def _most(busy: Mapping[Future[Any], Hand]) -> Hand | None:
    """The hand with the most to give away; none where every one has only what is under way."""
    found = max(busy.values(), key=lambda hand: len(hand.parts), default=None)
    return found if found is not None and len(found.parts) > 1 else None


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

        A worker that has nothing to do takes over half of what another one has not begun. Raises GeoOVSegError when
        workers go on dying.
        """
        left = {number: set(parts) for number, parts in enumerate(groups)}
        waiting = deque(Hand(number, list(parts)) for number, parts in enumerate(groups))
        busy: dict[Future[Any], Hand] = {}
        seen: Counter[int] = Counter()
        deaths, stopping = 0, bool(waiting and stop())
        try:
            while busy or (waiting and not stopping):
                while not stopping and (waiting or _most(busy)) and (lane := self._take()) is not None:
                    hand = waiting.popleft() if waiting else _most(busy).halved()  # type: ignore[union-attr]
                    busy[self._submit(lane, "begin", job, hand.parts)] = hand.with_lane(lane)
                for future in self._done(busy):
                    hand = busy.pop(future)
                    try:
                        step, said = future.result()
                    except LostError as error:
                        deaths += 1
                        self._bury(hand.lane, deaths, error)
                        hand.parts = [part for part in hand.parts if part in left[hand.group]]
                        if hand.parts:
                            waiting.appendleft(hand)
                        continue
                    except BaseException:
                        self._give_back(hand.lane)
                        raise
                    _repeat(said)
                    self._peaks[hand.lane] = max(step.peak_mb, self._peaks.get(hand.lane, 0))
                    whole = {done.part for done in step.finished}
                    gone = whole & left[hand.group]  # the others were taken over, and are there
                    hand.parts = [part for part in hand.parts if part not in whole]
                    left[hand.group] -= gone
                    deaths = 0 if gone else deaths
                    seen[hand.group] += step.windows - hand.windows
                    hand.windows = step.windows
                    if step.ended or not hand.parts or (stopping and gone):
                        self._give_back(hand.lane)
                    else:
                        busy[self._submit(hand.lane, "go_on")] = hand
                    kept = tuple(done for done in step.finished if done.part in gone)
                    ended = not left[hand.group]
                    yield hand.group, step._replace(windows=seen[hand.group], finished=kept, ended=ended)
                stopping = stopping or bool(stop())
        finally:
            for hand in busy.values():
                self._give_back(hand.lane)

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
