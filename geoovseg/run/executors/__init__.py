"""Where parts are computed: in this process, or by several. Nothing here loads torch.

An executor hands groups of neighbouring parts to workers that hold loaded models and keep nothing else; finished parts
come back to the driver, which alone writes them down.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Protocol

from geoovseg.settings import Settings, Stop
from geoovseg.vocabulary import Vocabulary
from geoovseg.windows.plan import Part

if TYPE_CHECKING:
    from geoovseg.run.job import Job, Step


class Executor(Protocol):
    """Somewhere to compute; `open_executor` makes one."""

    workers: int

    @property
    def peak_mb(self) -> float:
        """The most memory that processes other than this one have held, together."""

    def job(self, scene: str, settings: Settings, stop: Stop, *, features: bool = False) -> Job:
        """What there is to do with a scene, whose `features` may be what is kept.

        Raises what opening it and loading the models raise.
        """

    def prepare(self, job: Job, stop: Stop) -> bytes:
        """What the method learns from the scene before the first window."""

    def run(self, job: Job, groups: Sequence[Sequence[Part]], stop: Stop) -> Iterator[tuple[int, Step]]:
        """Compute groups of parts; gives steps with the number of their group, as they come.

        Asked to stop, it ends after the parts in hand.
        """

    def close(self) -> None:
        """End the workers."""


def open_executor(words: Vocabulary, settings: Settings) -> Executor:
    """One for as many workers as settings say; models are loaded when they are first needed."""
    if settings.ray is not None:
        from geoovseg.run.executors.cluster import Cluster

        return Cluster(words, settings)
    if settings.workers == 1:
        from geoovseg.run.executors.here import Here

        return Here(words, settings)
    from geoovseg.run.executors.processes import Processes

    return Processes(words, settings)
