"""Data on stdout, talk on stderr: progress, hints, warnings, errors."""

from __future__ import annotations

import json
import os
import sys
import time
import warnings
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

import typer

from geoovseg.errors import GeoOVSegWarning, NobodyListensError, PipeClosedError
from geoovseg.network import public
from geoovseg.usage import duration

SECONDS_BETWEEN_LINES = 10.0


def data(text: str) -> None:
    """A result, on stdout, in whatever encoding that has. Raises NobodyListensError where that is full or closed."""
    try:
        typer.echo(_encodable(text, sys.stdout.encoding or "utf-8"))
        sys.stdout.flush()
    except BrokenPipeError as error:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # what is left of it goes nowhere
        raise PipeClosedError("standard output was closed before all results were told") from error
    except OSError as error:
        raise NobodyListensError(f"cannot write to standard output: {error}; the results are {text}") from error


def _encodable(text: str, encoding: str) -> str | bytes:
    """A text as an encoding can hold it: names of files as their bytes, JSON in ASCII, else escapes."""
    try:
        text.encode(encoding)
        return text
    except UnicodeEncodeError:
        if text.startswith("{"):
            return "\n".join(json.dumps(json.loads(line)) for line in text.splitlines())
    try:
        return text.encode(encoding, "surrogateescape")
    except UnicodeEncodeError:
        return text.encode(encoding, "backslashreplace")


def talk(text: str, *, quiet: bool = False) -> None:
    """Something for a person, on stderr; without secrets."""
    if not quiet:
        typer.echo(public(text).encode(errors="backslashreplace").decode(), err=True)


@contextmanager
def plain_warnings() -> Iterator[None]:
    """Show each of our warnings once, as one line without a source position; others' stay hidden."""
    seen: set[str] = set()

    def show(message: Warning | str, category: type[Warning], *args: Any, **kwargs: Any) -> None:
        if issubclass(category, GeoOVSegWarning) and str(message) not in seen:
            seen.add(str(message))
            talk(f"warning: {message}")

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        warnings.simplefilter("always", GeoOVSegWarning)
        warnings.showwarning = show
        yield


@contextmanager
def progress_bar(quiet: bool, unit: str = "window") -> Iterator[Callable[[int, int], None]]:
    """Progress with rate and remaining time on stderr: a bar on a terminal, elsewhere a line now and then."""
    if quiet:
        yield lambda done, total: None
    elif not sys.stderr.isatty():
        yield _lines(unit)
    else:
        with ExitStack() as stack:
            yield _bar(stack, unit)


def _bar(stack: ExitStack, unit: str) -> Callable[[int, int], None]:
    """A bar that appears with the first batch, so that errors before it stand alone."""
    from tqdm import tqdm

    bars: list[Any] = []

    def update(done: int, total: int) -> None:
        if not bars:
            bar = tqdm(total=total, unit=unit, unit_scale=unit == "B", file=sys.stderr, mininterval=0.2)
            bars.append(stack.enter_context(bar))
        bars[0].update(done - bars[0].n)

    return update


def _lines(unit: str) -> Callable[[int, int], None]:
    start = last = time.monotonic()
    shown = 0
    size, name = (1e6, "MB") if unit == "B" else (1, f"{unit}s")

    def update(done: int, total: int) -> None:
        nonlocal last, shown
        now = time.monotonic()
        if done > shown and (done == total or now - last >= SECONDS_BETWEEN_LINES):
            last, shown = now, done
            rate = done / max(now - start, 1e-9)
            left = f"{duration((total - done) / max(rate, 1e-9))} left"
            talk(f"{done / size:.0f} of {total / size:.0f} {name}, {rate / size:.1f} {name}/s, {left}")

    return update
