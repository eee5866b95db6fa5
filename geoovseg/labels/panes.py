"""The panes of a preview: a scene, labels over it, and the legend of what is seen."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from geoovseg.labels.contents import Counts, named
from geoovseg.labels.page import Entry, compose, hatched
from geoovseg.labels.paint import Colour, Layer, over
from geoovseg.labels.styles import LegendEntry
from geoovseg.prompts import customary_colour, fold

SHOWN = 60
"""Classes in a legend at most."""


@dataclass(frozen=True, kw_only=True)
class Drawn:
    """What is drawn over a scene, and what is said of it."""

    layer: Layer
    entries: list[LegendEntry]
    """of the layer's colours, in their order"""
    counts: Counts
    confidence: bool


@dataclass(frozen=True, kw_only=True)
class Looked:
    """A scene and what lies over it, as large as they are drawn."""

    light: NDArray[np.uint8]
    valid: NDArray[np.bool_]
    drawn: Drawn
    metres: float


def page_of(looked: Looked, *, overlay: bool) -> Image.Image:
    """Scene and labels over it, or these alone, what is no data hatched, with their legend."""
    painted, seen = _painted(looked)
    stripes = np.asarray(hatched(looked.light.shape[1::-1]))
    panes = [Image.fromarray(np.where(looked.valid[..., None], looked.light, stripes)), painted]
    entries = _shades(seen) if looked.drawn.confidence else _legend(looked.drawn, seen)
    return compose(panes[1:] if overlay else panes, [*entries, *_lacking(looked)], looked.metres)


def page_of_two(first: Looked, second: Looked) -> Image.Image:
    """Labels beside others, with the shares of both in one legend; a class of both has one colour."""
    second = replace(second, drawn=_coloured_as(first.drawn, second.drawn))
    (one, seen), (two, other) = _painted(first), _painted(second)
    lines = _of_both(_by_name(first.drawn, seen), _by_name(second.drawn, other))
    return compose([one, two], [*lines, *(_lacking(first) or _lacking(second))], first.metres)


def _coloured_as(first: Drawn, second: Drawn) -> Drawn:
    """The second with the colours that the first has for its classes, and for others with none of these."""
    known = {fold(entry.name): entry.colour for entry in first.entries if entry.code}
    taken = set(known.values())
    colours = []
    for number, entry in enumerate(second.entries):
        name = fold(entry.name)
        other = customary_colour(name, number, taken) if entry.colour in taken else entry.colour
        colours.append(known.get(name, other))
        taken.add(colours[-1])
    entries = [replace(entry, colour=colour) for entry, colour in zip(second.entries, colours, strict=True)]
    table = np.array([entry.rgb for entry in entries], np.uint8).reshape(-1, 3)
    return replace(second, entries=entries, layer=replace(second.layer, colours=table))


def _by_name(drawn: Drawn, seen: Sequence[Colour]) -> dict[str, tuple[float, Colour]]:
    """Share and colour of classes by their names, as far as they are in the picture; else their own colour."""
    shares = {name: drawn.counts.share(entry.code) for name, entry in named(drawn.entries).items()}
    return {name: (share, colour) for (name, share), colour in zip(shares.items(), seen, strict=True)}


def _of_both(before: Mapping[str, tuple[float, Colour]], after: Mapping[str, tuple[float, Colour]]) -> list[Entry]:
    """Lines of a legend with both shares; of very many classes the most frequent, and how many more there are."""
    names = list(dict.fromkeys([*before, *after]))
    pairs = {name: [each.get(name, (0.0, None))[0] for each in (before, after)] for name in names}
    shown = sorted(names, key=lambda name: -max(pairs[name]))[:SHOWN]
    found = []
    for name in names:
        if name in shown:
            (one, two), source = pairs[name], before if pairs[name][0] or name not in after else after
            text = f"{percent(one)} \u2192 {percent(two)}"
            found.append(Entry(text=name, share=text, colour=source[name][1], faint=not (one or two)))
    rest = len(names) - len(shown)
    return [*found, Entry(text=f"and {rest} more", colour=(255, 255, 255))] if rest else found


def _painted(looked: Looked) -> tuple[Image.Image, list[Colour]]:
    """Labels over the pale scene, and the colours as they are seen."""
    layer = looked.drawn.layer
    painted, seen = over(looked.light, layer)
    stripes = np.asarray(hatched(looked.light.shape[1::-1]))
    lines = np.minimum(stripes, painted // 2 + 128)
    under = np.where(looked.valid[..., None], lines, stripes)
    return Image.fromarray(np.where((layer.index >= 0)[..., None], painted, under)), seen


def _lacking(looked: Looked) -> list[Entry]:
    """The legend's line for no data, where there is some."""
    some_lack = not looked.valid.all() or (looked.drawn.layer.index < 0).any()
    return [Entry(text="no data", colour=None)] if some_lack else []


def _shades(seen: Sequence[Colour]) -> list[Entry]:
    """Some shades of confidence."""
    return [Entry(text=f"{n / 4:g}", colour=seen[n * (len(seen) - 1) // 4]) for n in range(5)]


def _legend(drawn: Drawn, seen: Sequence[Colour]) -> list[Entry]:
    """The classes with their shares; of very many the most frequent, and how many more there are."""
    pairs = list(zip(drawn.entries, seen, strict=True))
    first = sorted(pairs, key=lambda pair: -pair[0].pixels)[:SHOWN]
    found = [
        Entry(text=e.name, share=percent(drawn.counts.share(e.code)), colour=colour, faint=not e.pixels)
        for e, colour in pairs
        if len(pairs) <= SHOWN or (e, colour) in first
    ]
    rest = [entry for entry, colour in pairs if len(pairs) > SHOWN and (entry, colour) not in first]
    if rest:
        empty = sum(not entry.pixels for entry in rest)
        found.append(Entry(text=f"and {len(rest)} more, {empty} of them without a pixel", colour=(255, 255, 255)))
    return found


def percent(share: float) -> str:
    """A share as people read it: `66 %`, `5.2 %`, `<0.1 %` and, only of nothing, `0 %`."""
    if not share:
        return "0 %"
    return (
        "<0.1 %" if share < 0.001 else f"{share:.0%}".replace("%", " %") if share >= 0.0995 else f"{share * 100:.1f} %"
    )
