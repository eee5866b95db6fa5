"""Data on stdout, talk on stderr: progress, hints, warnings, errors."""

from __future__ import annotations

import sys
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import typer

from geoovseg.errors import GeoOVSegWarning, OutputError


def data(text: str) -> None:
    """A result, on stdout. Raises OutputError where that is full or closed."""
    try:
        typer.echo(text)
        sys.stdout.flush()
    except OSError as error:
        raise OutputError(f"cannot write to standard output: {error}; the results are {text}") from error


def talk(text: str, *, quiet: bool = False) -> None:
    """Something for a person, on stderr."""
    if not quiet:
        typer.echo(text, err=True)


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
def progress_bar(quiet: bool) -> Iterator[Callable[[int, int], None]]:
    """A bar with rate and remaining time on stderr; a line every half minute where that is no terminal."""
    from tqdm import tqdm

    bar: Any = None

    def update(done: int, total: int) -> None:
        nonlocal bar
        if bar is None:
            interval = 0.2 if sys.stderr.isatty() else 30.0
            bar = tqdm(total=total, unit="window", disable=quiet, file=sys.stderr, mininterval=interval)
        bar.update(done - bar.n)

    try:
        yield update
    finally:
        if bar is not None:
            bar.close()
