"""What a worker holds, wherever it runs: models that are loaded once, and the group of parts in hand."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from contextlib import suppress
from typing import TYPE_CHECKING, Any

from geoovseg.run.executors.pool import warned
from geoovseg.run.job import Job, Step
from geoovseg.settings import Settings
from geoovseg.usage import peak_rss_mb
from geoovseg.vocabulary import Vocabulary
from geoovseg.windows.plan import Part

if TYPE_CHECKING:
    from geoovseg.run.worker import Worker

LOOK = 0.2
"""Seconds that a worker computes before it tells how far it is."""


class Member:
    """A worker that is told what to do; with each answer go the warnings for the user."""

    def __init__(self) -> None:
        self._worker: Worker | None = None
        self._steps: Iterator[Step] = iter(())

    def load(self, words: Vocabulary, settings: Settings) -> None:
        """Be the worker of some models, which are loaded when they are first needed."""
        from geoovseg.run.worker import Worker

        self._worker = Worker(words, settings)

    def warm(self) -> None:
        """Load the models now, while others have something to do."""
        assert self._worker is not None  # `load` came first
        _ = self._worker.predictor

    def answer(self, name: str, *args: Any) -> tuple[Any, list[str]]:
        """What the worker answers."""
        return getattr(self._worker, name)(*args), warned()

    def begin(self, job: Job, parts: Sequence[Part]) -> tuple[Step, list[str]]:
        """The first step with a group of parts."""
        assert self._worker is not None  # `load` came first
        with suppress(AttributeError):
            self._steps.close()  # type: ignore[attr-defined]  # what another run left unfinished
        self._steps = self._worker.compute(job, parts)
        return self.go_on()

    def go_on(self) -> tuple[Step, list[str]]:
        """The next step: up to a finished part, or for a moment."""
        end = time.monotonic() + LOOK
        for step in self._steps:
            if step.finished or step.ended or time.monotonic() > end:
                return step._replace(peak_mb=peak_rss_mb()), warned()
        raise RuntimeError("there is nothing to go on with")
