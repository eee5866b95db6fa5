"""Computing in this process."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from geoovseg.run.job import Job, Step
from geoovseg.run.worker import Worker
from geoovseg.settings import Settings, Stop
from geoovseg.vocabulary import Vocabulary
from geoovseg.windows.plan import Part


class Here:
    """One worker, which is this process."""

    workers = 1
    peak_mb = 0.0

    def __init__(self, words: Vocabulary, settings: Settings) -> None:
        self.worker = Worker(words, settings)

    def job(self, scene: str, settings: Settings, stop: Stop, *, features: bool = False) -> Job:
        """What there is to do with a scene."""
        return self.worker.job(scene, settings, stop, features=features)

    def prepare(self, job: Job, stop: Stop) -> bytes:
        """What the method learns from the scene."""
        return self.worker.prepare(job, stop)

    def run(self, job: Job, groups: Sequence[Sequence[Part]], stop: Stop) -> Iterator[tuple[int, Step]]:
        """Group by group; asked to stop, no part is begun any more."""
        if groups and stop():
            return
        left = sum(map(len, groups))
        for number, parts in enumerate(groups):
            for step in self.worker.compute(job, parts):
                yield number, step
                left -= len(step.finished)
                if step.finished and left and stop():
                    return

    def close(self) -> None:
        """Nothing to end."""
