"""Who is told how far a run is, and who may stop it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

Progress = Callable[[int, int], None]
"""Called with (windows done, windows to compute)."""
Announce = Callable[[str], None]
"""Called with a line for a person, on what a run is about to do."""
Stop = Callable[[], int | None]
"""The number of the signal that asked to stop, if one did; asked between parts."""


@dataclass(frozen=True)
class Watch:
    """Who is told how far a run is, and who may stop it; nobody by default."""

    progress: Progress | None = None
    stop: Stop | None = None
    announce: Announce | None = None

    def say(self, text: str) -> None:
        """Say what is about to be done."""
        if self.announce is not None:
            self.announce(text)

    def tell(self, done: int, total: int) -> None:
        """Say how far it is."""
        if self.progress is not None:
            self.progress(done, total)

    def stopped(self) -> int | None:
        """The number of the signal that asked to stop, if one did."""
        return None if self.stop is None else self.stop()
