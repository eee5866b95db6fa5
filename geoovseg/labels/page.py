"""The page of a preview: panes, and under them a scale bar and a legend, laid out by how wide its words are."""

from __future__ import annotations

import math
import warnings
from bisect import bisect_right
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from PIL import Image, ImageDraw

from geoovseg.errors import GeoOVSegWarning, some
from geoovseg.labels import letters

MARGIN, SWATCH = 14, 16
"""Pixels around what is on the page, and the side of a swatch."""
HATCH = ("#ffffff", "#8c8c8c", 7)
"""Where there is no data: ground and stripes, and how many pixels from one stripe to the next."""
FLAT = 2.0
"""Width to height from which panes stand one above the other."""
ENTRY = 420
"""Pixels of text in a legend's column at most; longer names go on in another line."""
_GAP, _ROW = 8, letters.LINE + 2
Colour = tuple[int, int, int]


@dataclass(frozen=True, kw_only=True)
class Entry:
    """A line of the legend."""

    text: str
    share: str = ""
    """written after the text, also after one that runs from right to left"""
    colour: Colour | None
    """as it is seen in the picture; none for no data"""
    faint: bool = False
    """of what is not in the picture"""


@dataclass(frozen=True)
class _Block:
    """An entry as it is laid out: its lines as pictures of ink."""

    entry: Entry
    lines: tuple[Image.Image, ...]

    @property
    def width(self) -> int:
        return SWATCH + _GAP + max(ink.width for ink in self.lines)


def compose(panes: Sequence[Image.Image], legend: Sequence[Entry], metres: float) -> Image.Image:
    """A page of panes of one size, one beside the other or, where they are flat, one above the other.

    `metres` is the width of a pixel on the ground, 0 where it is not known.
    """
    body = _joined(panes)
    bar = _bar(panes[0].width, metres)
    return _stacked([body, *([bar] if bar else []), *([_key(legend, body.width)] if legend else [])])


def _joined(panes: Sequence[Image.Image]) -> Image.Image:
    wide, high = panes[0].size
    step = (0, high + MARGIN) if wide >= FLAT * high else (wide + MARGIN, 0)
    size = (wide + (len(panes) - 1) * step[0], high + (len(panes) - 1) * step[1])
    found = Image.new("RGB", size, "white")
    for number, pane in enumerate(panes):
        found.paste(pane, (number * step[0], number * step[1]))
    return found


def _stacked(pictures: Sequence[Image.Image]) -> Image.Image:
    """Pictures from top to bottom, with a margin around each."""
    width, height = max(p.width for p in pictures), sum(p.height + MARGIN for p in pictures)
    page, top = Image.new("RGB", (width + 2 * MARGIN, height + MARGIN), "white"), MARGIN
    for picture in pictures:
        page.paste(picture, (MARGIN, top))
        top += picture.height + MARGIN
    return page


def _key(legend: Sequence[Entry], width: int) -> Image.Image:
    """The legend, in as many columns as fit a width; wider where one does not."""
    blocks = _laid_out(legend, min(ENTRY, max(width // 2, 200)))
    widest = max(block.width for block in blocks)
    cell = widest + 3 * _GAP
    columns = max(1, (width + 3 * _GAP) // cell)
    rows = [blocks[n : n + columns] for n in range(0, len(blocks), columns)]
    heights = [_ROW * max(len(block.lines) for block in row) for row in rows]
    found, top = Image.new("RGB", (min(columns, len(blocks)) * cell - 3 * _GAP, sum(heights)), "white"), 0
    for row, height in zip(rows, heights, strict=True):
        for number, block in enumerate(row):
            _draw(found, block, (number * cell, top))
        top += height
    return found


def _laid_out(legend: Sequence[Entry], room: int) -> list[_Block]:
    """Entries as lines of so many pixels at most. Warns of letters that had to be spelled."""
    missing: dict[str, None] = {}
    blocks = [_Block(entry, tuple(_with_share(entry, room, missing))) for entry in legend]
    if missing:
        message = (
            f"no font here has the letters {some(missing, 20, between='')}, so the legend shows their code points; "
            "install one that has them, such as Noto Sans"
        )
        warnings.warn(message, GeoOVSegWarning, 6)
    return blocks


def _with_share(entry: Entry, room: int, missing: dict[str, None]) -> list[Image.Image]:
    """The lines of an entry, its share at the end of the last one where that has room."""
    found = list(_lines(entry.text, room, missing))
    if not entry.share:
        return found
    share, last = letters.line(f"({entry.share})")[0], found[-1]
    if last.width + _GAP // 4 + share.width > room:
        return [*found, share]
    both = Image.new("L", (last.width + _GAP // 4 + share.width, letters.LINE))
    both.paste(last, (0, 0))
    both.paste(share, (last.width + _GAP // 4, 0))
    return [*found[:-1], both]


def _lines(text: str, room: int, missing: dict[str, None]) -> Iterator[Image.Image]:
    """A text as lines that fit: cut between words, and within words that are too long for one."""
    ink, lacking = letters.line(text)
    missing.update(dict.fromkeys(lacking))
    if ink.width <= room or len(text) < 2:
        yield ink
        return
    fits = 1 + bisect_right(range(2, len(text)), room, key=lambda n: letters.line(text[:n])[0].width)
    cut = text.rfind(" ", 1, fits + 1)
    cut = cut if cut > fits // 2 else fits
    yield letters.line(text[:cut])[0]
    yield from _lines(text[cut:].strip(), room, missing)


def _draw(page: Image.Image, block: _Block, at: tuple[int, int]) -> None:
    x, y = at
    box = (x, y + 2, x + SWATCH, y + 2 + SWATCH)
    if block.entry.colour is None:
        page.paste(hatched((SWATCH, SWATCH)), box[:2])
    draw = ImageDraw.Draw(page)
    draw.rectangle(box, fill=block.entry.colour, outline="#999999" if block.entry.faint else "black")
    for number, ink in enumerate(block.lines):
        page.paste("#777777" if block.entry.faint else "black", (x + SWATCH + _GAP, y + number * _ROW - 1), ink)


def hatched(size: tuple[int, int]) -> Image.Image:
    """A picture of stripes, for where there is no data."""
    ground, stripe, step = HATCH
    found = Image.new("RGB", size, ground)
    draw = ImageDraw.Draw(found)
    for x in range(-size[1], size[0], step):
        draw.line((x, size[1], x + size[1], 0), fill=stripe)
    return found


def _bar(width: int, metres: float) -> Image.Image | None:
    """A scale bar of a round length, at most a third of a pane."""
    if not (metres > 0 and math.isfinite(metres)):
        return None
    longest = max(width, 90) * metres / 3
    step = 10 ** math.floor(math.log10(longest))
    length = max(n * step for n in (1, 2, 5) if n * step <= longest)
    end = max(1, round(length / metres))
    ink, _ = letters.line(f"{length / 1000:g} km" if length >= 1000 else f"{length:g} m")
    bar = Image.new("RGB", (end + 1 + _GAP + ink.width, letters.LINE), "white")
    draw = ImageDraw.Draw(bar)
    draw.line((0, 5, 0, 16, end, 16, end, 5), fill="black", width=1)
    draw.rectangle((0, 14, end, 16), fill="black")
    bar.paste("black", (end + 1 + _GAP, 0), ink)
    return bar
