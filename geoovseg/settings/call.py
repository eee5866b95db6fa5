"""Settings of a call from Python: the choices of a run, and who watches it."""

from __future__ import annotations

from dataclasses import dataclass

from geoovseg.settings import Settings, choices
from geoovseg.settings.choice import by_name
from geoovseg.settings.watch import Announce, Shown, Stop


@by_name
@dataclass(frozen=True, kw_only=True)
class Call(Settings):
    """Settings of a call, and who watches it."""

    progress: Shown | None = None
    """called with (windows done, windows to compute); true: a bar, in a terminal or a notebook"""
    stop: Stop | None = None
    """asked between parts; a signal's number ends the run there, with what is finished kept"""

    announce: Announce | None = None
    """called with a line on what the run is about to do"""

    @property
    def plain(self) -> Settings:
        """The settings alone, which can go to another process."""
        return Settings(**{name: getattr(self, name) for name in choices()})
