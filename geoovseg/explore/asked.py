"""The question as a page gives it, and as the class file that asks the same from the command line."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from geoovseg.errors import UsageError
from geoovseg.explore.opened import Opened
from geoovseg.prompts import PLACES

MOST = 1000
"""Classes, words of a class and examples at most."""
LONGEST = 200
"""Letters of a name or a word."""
FARTHEST = 100
"""Offsets are cosines, and learned ones small."""
_MEANS = re.compile(r"[][,+|=@:;#\x00-\x1f]")
"""What means something else in a class file."""
_COLOUR = re.compile(r"#[0-9a-fA-F]{6}")


@dataclass(frozen=True)
class Asked:
    """A class with its words, and places that show it."""

    name: str
    words: tuple[str, ...] = ()
    colour: str | None = None
    examples: tuple[tuple[float, float], ...] = ()
    """(column, row) of pixels of the scene"""
    offset: float = 0.0
    """what is added to its scores, as a class file says"""


def asked_of(said: Any) -> list[Asked]:
    """Classes as JSON gives them. Raises UsageError for anything else."""
    if not isinstance(said, list) or not 0 < len(said) <= MOST or not all(isinstance(each, Mapping) for each in said):
        raise UsageError("name at least one class, and at most 1000")
    return [_asked_of(each) for each in said]


def _asked_of(said: Mapping[str, Any]) -> Asked:
    """Raises UsageError."""
    name, words, colour = said.get("name"), said.get("words", []), said.get("colour")
    if not isinstance(words, list) or len(words) > MOST:
        raise UsageError(f"the words of {name!r} are no list")
    texts = [_text(each) for each in (name, *words)]
    if colour is not None and not (isinstance(colour, str) and _COLOUR.fullmatch(colour)):
        raise UsageError(f"{colour!r} is no colour as in #c0392b")
    offset = said.get("offset", 0)
    if not isinstance(offset, int | float) or not abs(offset) <= FARTHEST:
        raise UsageError(f"the offset {offset!r} is no number from {-FARTHEST} to {FARTHEST}")
    return Asked(texts[0], tuple(dict.fromkeys(texts[1:])), colour, _places(said.get("examples", [])), offset)


def _text(said: Any) -> str:
    """A name or a word. Raises UsageError."""
    text = " ".join(said.split()) if isinstance(said, str) else ""
    if not text or len(text) > LONGEST or not text.isprintable():
        raise UsageError(f"{ascii(said)[:40]} is no word")
    if found := _MEANS.search(text):
        raise UsageError(f"{text!r}: names and words go without {found[0]!r}")
    return text


def _places(said: Any) -> tuple[tuple[float, float], ...]:
    """Raises UsageError."""
    try:
        places = tuple((float(col), float(row)) for col, row in said)
    except (TypeError, ValueError, OverflowError) as error:
        raise UsageError(f"examples are places, as in [[12, 80]]: {error}") from error
    if len(places) > MOST or any(abs(value) > 1e9 or value != value for place in places for value in place):
        raise UsageError("examples are at most 1000 places on the scene")
    return places


def write_classes(folder: Path, stem: str, classes: Sequence[Asked], opened: Opened) -> list[Path]:
    """The class file of a question, and after it those of its examples beside it."""
    lines, files = [], [folder / f"{stem}_classes.txt"]
    for number, each in enumerate(classes, start=1):
        words = list(each.words) or ([] if each.examples else [each.name])
        if each.examples:
            places = folder / f"{stem}_examples_{number}.gpkg"
            opened.write_places(places, each.examples)
            words.append(f"{PLACES}{places.name}")
            files.append(places)
        more = [f"[{each.offset:+.6f}]"] if each.offset else []
        lines.append(" ".join([f"{each.name}: {', '.join(words)}", *more, *filter(None, [each.colour])]) + "\n")
    files[0].write_text("".join(lines), encoding="utf-8")
    return files
