"""Worker processes on this machine, each with loaded models of its own. Nothing here loads torch."""

from __future__ import annotations

from concurrent.futures import Future
from concurrent.futures.process import BrokenProcessPool
from typing import Any

from geoovseg import machine
from geoovseg.run.executors.crew import Crew
from geoovseg.run.executors.member import Member
from geoovseg.run.executors.pool import end_now, fresh_pool, submit
from geoovseg.run.executors.round import LostError
from geoovseg.settings import Settings
from geoovseg.vocabulary import Vocabulary


class Processes(Crew):
    """Several workers, one a GPU of this job, or sharing the cores; each holds its own loaded models."""

    def __init__(self, words: Vocabulary, settings: Settings) -> None:
        super().__init__()
        self.workers = settings.workers
        self._given = (words, settings)

    def _begun(self, number: int) -> Process:
        return Process(number, self.workers, self._given)


class Process:
    """One worker process, with its share of the cores, or its GPU."""

    def __init__(self, number: int, count: int, given: tuple[Vocabulary, Settings]) -> None:
        gpus = machine.gpus()
        own = {"OMP_NUM_THREADS": str(max(1, machine.cores() // count))}
        if gpus and given[1].device in ("auto", "cuda"):
            own["CUDA_VISIBLE_DEVICES"] = gpus[number % len(gpus)]
        self.where = f"worker {number + 1}"
        self._pool = fresh_pool(1, own)
        self._given = given
        self._loaded = False

    def ready(self) -> bool:
        """At once: what is asked waits in its queue."""
        return True

    def submit(self, what: str, *args: Any) -> Future[Any]:
        """Let the worker do something, after it has been told what models to load."""
        if not self._loaded:
            submit(self._pool, _do, "load", *self._given)
            self._loaded = True
        return as_lost(submit(self._pool, _do, what, *args), BrokenProcessPool)

    def close(self) -> None:
        """End the process at once."""
        end_now(self._pool)


def as_lost(future: Future[Any], *died: type[Exception]) -> Future[Any]:
    """The same future, for which a worker's death is a LostError."""
    found: Future[Any] = Future()

    def tell(done: Future[Any]) -> None:
        if done.cancelled():  # the workers were ended, and nobody waits for it
            return
        error = done.exception()
        if error is None:
            found.set_result(done.result())
        else:
            found.set_exception(LostError(str(error)) if isinstance(error, died) else error)

    future.add_done_callback(tell)
    return found


MEMBER = Member()
"""What this process holds, if it is a worker."""


def _do(what: str, *args: Any) -> Any:
    return getattr(MEMBER, what)(*args)
