"""Who is told how far a run is, and who may stop it."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal

Progress = Callable[[int, int], None]
"""Called with (windows done, windows to compute)."""
Shown = Progress | Literal[True]
"""That, or a bar of tqdm, in a terminal or a notebook."""
Announce = Callable[[str], None]
"""Called with a line for a person, on what a run is about to do."""
Stop = Callable[[], int | None]
"""The number of the signal that asked to stop, if one did; asked between parts."""


@dataclass(frozen=True)
class Watch:
    """Who is told how far a run is, and who may stop it; nobody by default."""

    progress: Shown | None = None
    stop: Stop | None = None
    announce: Announce | None = None

    def __post_init__(self) -> None:
        """Make the bar that was asked for."""
        if self.progress is True:
            object.__setattr__(self, "progress", bar())

    def say(self, text: str) -> None:
        """Say what is about to be done."""
        if self.announce is not None:
            self.announce(text)

    def tell(self, done: int, total: int) -> None:
        """Say how far it is."""
        if self.progress is not None and self.progress is not True:
            self.progress(done, total)

    def stopped(self) -> int | None:
        """The number of the signal that asked to stop, if one did."""
        return None if self.stop is None else self.stop()


def bar() -> Progress:
    """A bar that begins with the first windows, and closes with the last."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # a notebook without ipywidgets has a bar of text
        from tqdm.auto import tqdm  # slow to import

    mine: list[Any] = []

    def update(done: int, total: int) -> None:
        if not mine:
            mine.append(tqdm(total=total, unit="window"))
        mine[0].update(done - mine[0].n)
        if done >= total:
            mine[0].close()

    return update
