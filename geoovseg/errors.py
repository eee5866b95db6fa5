"""Everything a user can cause to go wrong: what failed, with which value, and what to do."""

from __future__ import annotations

import difflib
import importlib
import json
import re
import threading
import warnings
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import Any

from geoovseg.network import public

_UNSHOWN = re.compile("[\x00-\x1f\x7f-\x9f\u2028-\u202e\u2066-\u2069]")
"""What moves a terminal's cursor, ends a line, or turns the direction of what is written."""


def printable(text: str) -> str:
    """A text for a person, on one line: what would command a terminal, as in a file's name, is written out by codes."""
    return _UNSHOWN.sub(lambda found: found[0].encode("unicode_escape").decode("ascii"), text)


class GeoOVSegError(Exception):
    """Root of all errors this package raises on purpose; its message is one line for the user, and holds no secrets."""

    exit_code = 1
    scene: str | None = None
    """the image it is about, of a command that takes several"""

    def __init__(self, *args: Any) -> None:
        super().__init__(*(printable(public(arg)) if isinstance(arg, str) else arg for arg in args))


class UsageError(GeoOVSegError, ValueError):
    """A value, an option or a combination of them that cannot work."""

    exit_code = 2


class VocabularyError(UsageError):
    """A class list that cannot be read."""


class SceneError(GeoOVSegError, OSError):
    """An input raster that cannot be opened or read."""

    exit_code = 4


class OutputError(GeoOVSegError, OSError):
    """An output that cannot be written, or must not be overwritten."""


class NobodyListensError(OutputError):
    """Standard output is full, so that no result can be told."""


class PipeClosedError(NobodyListensError):
    """Whoever read standard output has heard enough, as `head` does."""

    exit_code = 128 + 13  # as of a program that SIGPIPE ends


class ResumeError(UsageError):
    """Parts of a run that is not this one."""


class MethodError(UsageError):
    """An unknown method, an unknown setting of one, or a method and a model that do not fit."""


class ModelError(UsageError):
    """An unknown model, or one that the methods cannot use."""


class WeightsMissingError(GeoOVSegError, FileNotFoundError):
    """Weights that are not on this machine."""

    exit_code = 5


class InterruptedRunError(GeoOVSegError):
    """A run that was asked to stop and did, with its finished parts kept."""

    def __init__(self, message: str, signal: int) -> None:
        super().__init__(message)
        self.signal, self.exit_code = signal, 128 + signal

    def __reduce__(self) -> tuple[type, tuple[str, int]]:
        """So that it can go from one process to another."""
        return type(self), (str(self), self.signal)


class GeoOVSegWarning(UserWarning):
    """Something the user should know, though the run goes on; it holds no secrets."""

    def __init__(self, message: str) -> None:
        super().__init__(printable(public(message)))


_FILTERS = threading.RLock()
"""Filters of warnings belong to the whole process: two threads that change them at once would leave them changed."""


@contextmanager
def hushed(category: type[Warning] = Warning, message: str = "") -> Iterator[None]:
    """In here, for a moment, warnings of a kind that begin like this are not shown; other threads wait."""
    with _FILTERS, warnings.catch_warnings():
        warnings.filterwarnings("ignore", message, category)
        yield


def did_you_mean(name: str, names: Iterable[str]) -> str:
    """`, did you mean x?` where a name is close to one there is, else nothing."""
    near = difflib.get_close_matches(name, list(names), n=1, cutoff=0.6)
    return f" (did you mean {near[0]}?)" if near else ""


NAMED = 5
"""How many of many names a message has."""
LONGEST = 200
"""Letters of a name in a message at most."""


def some(names: Iterable[object], most: int = NAMED, *, between: str = ", ") -> str:
    """`a, b, c and 247 more`: the first of many names, so that a message stays one that is read."""
    texts = [text if len(text := str(name)) <= LONGEST else f"{text[: LONGEST - 3]}..." for name in names]
    more = f" and {len(texts) - most} more" if len(texts) > most else ""
    return between.join(texts[:most]) + more


def in_short(value: Any) -> str:
    """A value as JSON, short enough for a message."""
    text = json.dumps(value, ensure_ascii=False)
    return text if len(text) < 80 else f"{text[:77]}..."


def first_line(error: BaseException) -> str:
    """What another library's error says, short enough for a message of ours."""
    if isinstance(error, OSError) and error.strerror:
        return error.strerror
    return (str(error).strip().splitlines() or [type(error).__name__])[0]


@contextmanager
def silent(library: str) -> Iterator[None]:
    """Without what a library says while it loads: bars, and advice on packages that are not needed."""
    say = importlib.import_module(f"{library}.utils.logging")
    level, bars = say.get_verbosity(), say.is_progress_bar_enabled()
    say.set_verbosity_error()
    say.disable_progress_bar()
    try:
        yield
    finally:
        say.set_verbosity(level)
        if bars:
            say.enable_progress_bar()
