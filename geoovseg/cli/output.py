"""Data on stdout, talk on stderr: progress, hints, warnings, errors."""

from __future__ import annotations

import codecs
import json
import os
import re
import sys
import warnings
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Any

import typer

from geoovseg.errors import GeoOVSegWarning, NobodyListensError, PipeClosedError, printable
from geoovseg.network import public

BARS: list[Any] = []
"""Bars that are on the terminal: what is said meanwhile goes above them."""
_UNSAFE = re.compile("[\x00-\x1f\x7f-\x9f\u2028-\u202e\u2066-\u2069\ud800-\udfff]")
_UNSAFE_ELSEWHERE = re.compile("[\x00-\x1f\x7f-\U0010ffff]")
"""What JSON is to say by codes, in UTF-8 and in other encodings."""
_NO_NUMBER = re.compile(r"\b(NaN|Infinity)\b")


def data(*lines: str, names: bool = False) -> None:
    """Results, on stdout, in whatever encoding that has: objects of JSON, lines for people, or `names` of files.

    These are as they are where a program reads them, and else as `printable` shows them. Raises NobodyListensError
    where standard output is full or closed.
    """
    encoding, raw = sys.stdout.encoding or "utf-8", names and not sys.stdout.isatty()
    text = "\n".join(line if raw else _one_line(line, encoding) for line in lines)
    try:
        # bytes are left as they are, of text codes for terminals would be taken away
        typer.echo(
            text.encode(encoding, "surrogateescape") if raw and printable(text) != text else _encodable(text, encoding)
        )
        sys.stdout.flush()
    except BrokenPipeError as error:
        with suppress(OSError):
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # what is left of it goes nowhere
        raise PipeClosedError("standard output was closed before all results were told") from error
    except OSError as error:
        raise NobodyListensError(f"cannot write to standard output: {error}; the results are {text}") from error


def _one_line(text: str, encoding: str) -> str:
    """A text for people, or JSON for machines, on a line."""
    return machine_readable(text, encoding) if text.startswith("{") and text.endswith("}") else printable(text)


def machine_readable(text: str, encoding: str = "utf-8") -> str:
    """JSON that any program takes, whatever its strings hold: UTF-8, on one line, without NaN and codes for terminals.

    Of a name that cannot be decoded the bytes are there as Python has them, by codes from udc80 to udcff.
    """
    if _NO_NUMBER.search(text):
        with suppress(ValueError):
            text = json.dumps(json.loads(text, parse_constant=lambda name: None), ensure_ascii=False)
    other = _UNSAFE if codecs.lookup(encoding).name == "utf-8" else _UNSAFE_ELSEWHERE
    return other.sub(lambda found: json.dumps(found[0])[1:-1] if found[0] > "\x7f" else f"\\u{ord(found[0]):04x}", text)


def _encodable(text: str, encoding: str) -> str | bytes:
    """A text as an encoding can hold it: names of files as their bytes, else escapes."""
    try:
        text.encode(encoding)
        return text
    except UnicodeEncodeError:
        pass
    try:
        return text.encode(encoding, "surrogateescape")
    except UnicodeEncodeError:
        return text.encode(encoding, "backslashreplace")


def talk(text: str, *, quiet: bool = False) -> None:
    """Something for a person, a line on stderr; without secrets, and without codes for terminals."""
    if quiet:
        return
    shown = printable(public(text)).encode(errors="backslashreplace").decode()
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
