"""`geoovseg methods`."""

from __future__ import annotations

import json as jsonlib
from collections.abc import Iterator
from dataclasses import asdict
from typing import Annotated

import typer

from geoovseg.cli import options as o
from geoovseg.cli.output import data
from geoovseg.methods import METHODS, MethodCard, card
from geoovseg.settings import Settings
from geoovseg.settings.choice import option_of


def command(
    name: Annotated[str | None, typer.Argument(help="A method, to see its paper and settings.", metavar="NAME")] = None,
    json: o.JsonOpt = False,
) -> None:
    """List the methods with what they need and their cost, or show one with its settings."""
    chosen = {name: card(name)} if name else METHODS
    if json:
        for key, entry in chosen.items():
            data(jsonlib.dumps({"name": key, **asdict(entry)}))
    elif name:
        data(*_show(name, card(name)))
    else:
        data(*(_line(key, entry) for key, entry in METHODS.items()))


def _line(name: str, entry: MethodCard) -> str:
    """Name, what it needs beside CLIP, its cost, and what it does."""
    needs = "+".join(entry.needs)
    return f"{name:<13}{entry.title:<26}{needs:<18}{entry.cost:>4g} x  {entry.about}"


def _weights(name: str) -> Iterator[str]:
    """What its models take to download, unless told otherwise, and the command that gets them."""
    found = Settings(method=name).weights
    sizes = [f"{each.name} {each.megabytes or '?'} MB" for each in found]
    total = sum(each.megabytes or 0 for each in found)
    yield f"weights: {', '.join(sizes)}; {total} MB in all: geoovseg models fetch --method {name}"


def _regions_cost(entry: MethodCard) -> str:
    """What regions cost besides, where Segment Anything finds them."""
    if not entry.sam_seconds:
        return ""
    return f" with regions given; {entry.sam} takes about {entry.sam_seconds} s more for 448 x 448 pixels on two cores"


def _own(entry: MethodCard) -> Iterator[str]:
    """What is not as usual where nothing is said."""
    if entry.own:
        yield f"unless told otherwise: {' '.join(f'{option_of(name)} {value}' for name, value in entry.own.items())}"


def _published(entry: MethodCard) -> Iterator[str]:
    """What `--as-published` sets."""
    if entry.published:
        given = {name: value for name, value in entry.published.items() if name != "settings"}
        said = [f"{option_of(name)} {value}" for name, value in given.items()]
        own = entry.published.get("settings", {})
        said += [f"--set {name}={str(value).lower()}" for name, value in own.items()]
        yield f"--as-published: {' '.join(said)}"


def _cost(entry: MethodCard) -> str:
    """What it takes, by plain CLIP, and with words and regions."""
    words = f", without words, each of which adds {entry.word_cost:.1%} of that" if entry.word_cost else ""
    return f"{entry.cost:g} x clip{words}{_regions_cost(entry)}"


def _show(name: str, entry: MethodCard) -> list[str]:
    vfm = f", a vision model (--vfm, default {entry.vfm})" if entry.vfm else ""
    sam = f", Segment Anything (--sam, default {entry.sam})" if "sam" in entry.needs else ""
    regions = f", regions (--regions, default sam by {entry.sam})" if "regions" in entry.needs else ""
    model = entry.own.get("model", "a CLIP model")
    sees = "blocks of windows (--block)" if entry.blocks else "one window at a time"
    return [
        f"{name}: {entry.title}",
        entry.paper,
        entry.about,
        f"scores: {entry.unit}; cost: {_cost(entry)}",
        f"needs: {model} (--model){vfm}{sam}{regions}; sees {sees}",
        *_weights(name),
        *_own(entry),
        *_published(entry),
        *(f"  --set {f.name}={str(f.default).lower()}   {f.about}" for f in entry.fields),
    ]
