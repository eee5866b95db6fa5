"""Groups of parts, given out to workers until all are there; taken over from the busiest, again where one dies."""

from __future__ import annotations

import warnings
from collections import Counter, deque
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import Future
from dataclasses import dataclass
from typing import Any, Protocol

from geoovseg.errors import GeoOVSegError, GeoOVSegWarning
from geoovseg.run.job import Job, Step
from geoovseg.settings import Stop
from geoovseg.windows.plan import Part

DEATHS = 2
"""Of workers in a row without a finished part, after which it is no accident."""


class LostError(Exception):
    """A worker died with what it had in hand."""


class Workers(Protocol):
    """Whom parts are given to, by their numbers."""

    workers: int

    def take(self) -> int | None:
        """A worker that is free and can be given work; none if there is none now."""

    def give_back(self, number: int) -> None:
        """It is free again."""

    def submit(self, number: int, what: str, *args: Any) -> Future[Any]:
        """Have a Member do something; its future raises LostError where the worker dies."""

    def done(self, futures: Iterable[Future[Any]]) -> list[Future[Any]]:
        """Those that are done, after a moment's wait for news if none is."""

    def bury(self, number: int) -> str:
        """Forget a worker that died; what it was called."""

    def held(self, number: int, peak_mb: float) -> None:
        """So much memory a worker has held."""


@dataclass
class Hand:
    """Neighbouring parts of a group that a worker has in hand, the first of them under way."""

    group: int
    parts: list[Part]
    worker: int = -1
    windows: int = 0
    """that were seen for them"""

    def halved(self) -> Hand:
        """What another worker takes over: the later half of what is not under way."""
        keep = (len(self.parts) + 1) // 2
        self.parts, taken = self.parts[:keep], self.parts[keep:]
        return Hand(self.group, taken)


class Round:
    """What is left of groups of parts, and in whose hands it is."""

    def __init__(self, workers: Workers, job: Job, groups: Sequence[Sequence[Part]]) -> None:
        self._workers, self._job = workers, job
        self._left = [set(parts) for parts in groups]
        self._waiting = deque(Hand(number, list(parts)) for number, parts in enumerate(groups))
        self._busy: dict[Future[Any], Hand] = {}
        self._windows: Counter[int] = Counter()
        self._deaths = 0

    def steps(self, stop: Stop) -> Iterator[tuple[int, Step]]:
        """Steps with the number of their group, as they come; asked to stop, it ends after the parts in hand.

        Raises GeoOVSegError when workers go on dying.
        """
        stopping = bool(self._waiting and stop())
        try:
            while self._busy or (self._waiting and not stopping):
                if not stopping:
                    self._give_out()
                for future in self._workers.done(self._busy):
                    hand = self._busy.pop(future)
                    if (step := self._step(hand, future)) is not None:
                        yield hand.group, self._taken_in(hand, step, stopping)
                stopping = stopping or bool(stop())
        finally:
            for hand in self._busy.values():
                self._workers.give_back(hand.worker)

    def _give_out(self) -> None:
        """Let every worker that is free begin something, if there is anything."""
        while (self._waiting or self._most()) and (worker := self._workers.take()) is not None:
            hand = self._waiting.popleft() if self._waiting else self._most().halved()  # type: ignore[union-attr]
            hand.worker, hand.windows = worker, 0
            self._busy[self._workers.submit(worker, "begin", self._job, hand.parts)] = hand

    def _most(self) -> Hand | None:
        """The hand with the most to give away; none where every one has only what is under way."""
        found = max(self._busy.values(), key=lambda hand: len(hand.parts), default=None)
        return found if found is not None and len(found.parts) > 1 else None

    def _step(self, hand: Hand, future: Future[Any]) -> Step | None:
        """What a worker answered; none if it died, and what it had in hand waits again."""
        try:
            step, said = future.result()
        except LostError as error:
            self._bury(hand, error)
            return None
        except BaseException:
            self._workers.give_back(hand.worker)
            raise
        repeat(said)
        self._workers.held(hand.worker, step.peak_mb)
        found: Step = step
        return found

    def _taken_in(self, hand: Hand, step: Step, stopping: bool) -> Step:
        """The step with what is new in it; its worker goes on, or is free."""
        left, whole = self._left[hand.group], {done.part for done in step.finished}
        new = whole & left  # the others were taken over, and are there
        left -= new
        hand.parts = [part for part in hand.parts if part not in whole]
        self._deaths = 0 if new else self._deaths
        self._windows[hand.group] += step.windows - hand.windows
        hand.windows = step.windows
        if step.ended or not hand.parts or (stopping and new):
            self._workers.give_back(hand.worker)
        else:
            self._busy[self._workers.submit(hand.worker, "go_on")] = hand
        finished = tuple(done for done in step.finished if done.part in new)
        return step._replace(windows=self._windows[hand.group], finished=finished, ended=not left)

    def _bury(self, hand: Hand, error: Exception) -> None:
        """Let what a worker had in hand wait again, and say that it died; or give up."""
        self._deaths += 1
        name = self._workers.bury(hand.worker)
        if self._deaths > DEATHS * self._workers.workers:
            raise GeoOVSegError(
                f"workers died {self._deaths} times without finishing a part; is there enough memory? Finished parts "
                "are kept for --resume"
            ) from error
        warnings.warn(f"{name} died; what it had in hand is computed again", GeoOVSegWarning, 4)
        hand.parts = [part for part in hand.parts if part in self._left[hand.group]]
        if hand.parts:
            self._waiting.appendleft(hand)


def repeat(said: Sequence[str]) -> None:
    """Warn here of what a worker warned of."""
    for text in said:
        warnings.warn(text, GeoOVSegWarning, 5)
