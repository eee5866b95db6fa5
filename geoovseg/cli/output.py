"""Data on stdout, talk on stderr: progress, hints, warnings, errors."""

from __future__ import annotations

import json
import os
import sys
import warnings
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Any

import typer

from geoovseg.errors import GeoOVSegWarning, NobodyListensError, PipeClosedError
from geoovseg.network import public

BARS: list[Any] = []
"""Bars that are on the terminal: what is said meanwhile goes above them."""


def data(text: str) -> None:
    """A result, on stdout, in whatever encoding that has. Raises NobodyListensError where that is full or closed."""
    try:
        typer.echo(_encodable(text, sys.stdout.encoding or "utf-8"))
        sys.stdout.flush()
    except BrokenPipeError as error:
        with suppress(OSError):
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
    if quiet:
        return
    shown = public(text).encode(errors="backslashreplace").decode()
    if BARS:
        BARS[-1].write(shown, file=sys.stderr)
    else:
        typer.echo(shown, err=True)


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
