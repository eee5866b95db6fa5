"""A first signal to stop lets the part in hand be finished; a second ends the run at once."""

from __future__ import annotations

import signal
from collections.abc import Callable
from types import FrameType, TracebackType
from typing import Any

SIGNALS = (signal.SIGINT, signal.SIGTERM)


class StopSignals:
    """Catches SIGINT and SIGTERM while it is open; called, it gives the number of the first that came."""

    def __init__(self, tell: Callable[[str], None] = lambda text: None) -> None:
        self.signal: int | None = None
        self._tell = tell
        self._before: dict[signal.Signals, Any] = {}

    def __enter__(self) -> StopSignals:
        self._before = {number: signal.signal(number, self._catch) for number in SIGNALS}
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)

    def __call__(self) -> int | None:
        """The signal that asked to stop."""
        return self.signal

    def _catch(self, number: int, frame: FrameType | None) -> None:
        if self.signal is None:
            self.signal = number
            self._tell("stopping when the part in hand is finished; once more to stop at once")
        else:
            self.__exit__(None, None, None)
            signal.raise_signal(number)
