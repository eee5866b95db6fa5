"""What pixels are interpolated from: class scores on cells, alone or with a model of how they follow colours."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import NamedTuple, Protocol

import torch
from torch import Tensor

from geoovseg.features.ask import CellRows, Words
from geoovseg.features.picture import Colours, Picture
from geoovseg.ops.guided import FIELDS, RADIUS, model_of
from geoovseg.windows.plan import AT_ONCE, Cells


@dataclass(frozen=True)
class Gap:
    """Rows of cells that no window was on."""

    row_off: int
    count: int


@dataclass(frozen=True)
class FieldRows:
    """Finished rows of cells."""

    row_off: int
    fields: Tensor
    """(F, C, rows, columns): scores, or what `geoovseg.ops.guided.model_of` gives"""
    known: Tensor
    """(rows, columns) where any window was"""
    colours: Colours | None = None
    """of the model, if there is one"""

    @property
    def end(self) -> int:
        """The first row below."""
        return self.row_off + len(self.known)

    @property
    def last(self) -> FieldRows:
        """The last of the rows."""
        return self._of(lambda rows: rows[..., -1:, :], self.end - 1)

    def empty(self, row_off: int) -> FieldRows:
        """A row like these that no window was on."""
        return self._of(lambda rows: torch.zeros_like(rows[..., -1:, :]), row_off)

    def _of(self, part: Callable[[Tensor], Tensor], row_off: int) -> FieldRows:
        colours = None if self.colours is None else Colours(*map(part, self.colours))
        return FieldRows(row_off, part(self.fields), part(self.known), colours)

    def below(self, above: FieldRows) -> FieldRows:
        """These rows and those right above them."""
        colours = None
        if self.colours is not None and above.colours is not None:
            colours = Colours(*(torch.cat(pair, -2) for pair in zip(above.colours, self.colours, strict=True)))
        fields, known = torch.cat([above.fields, self.fields], -2), torch.cat([above.known, self.known])
        return FieldRows(above.row_off, fields, known, colours)


class Fields(Protocol):
    """What makes such rows of features, top to bottom."""

    @property
    def picture(self) -> Picture | None:
        """The scene's colours, if they matter."""

    def add(self, rows: CellRows) -> Iterator[FieldRows | Gap]:
        """Take rows of cells; yield those that are finished."""


class Plain:
    """Scores alone."""

    picture: Picture | None = None

    def __init__(self, words: Words, cells: Cells) -> None:
        self._words, self._left = words, cells.panel.col_off
        self._step = max(1, AT_ONCE // (len(words.text) * cells.panel.width))

    def add(self, rows: CellRows) -> Iterator[FieldRows | Gap]:
        """Take rows of cells; yield their scores."""
        if rows.features is None:
            yield Gap(rows.row_off, rows.count)
            return
        for row, features in _steps(rows.row_off, rows.features, self._step):
            scores = self._words.class_scores(features, self._left)
            yield FieldRows(row, scores[None], (features != 0).any(0))


def _steps(row: int, features: Tensor, step: int) -> Iterator[tuple[int, Tensor]]:
    """A few rows at a time."""
    for first in range(0, features.shape[1], step):
        yield row + first, features[:, first : first + step]


class _Held(NamedTuple):
    """Rows of cells that others are still learned from."""

    scores: Tensor
    known: Tensor
    mean: Tensor
    seen: Tensor


class Guided:
    """Scores and how they follow colours, RADIUS rows of cells later; cells are `around` those that are given."""

    def __init__(self, words: Words, picture: Picture, around: Cells, inner: Cells) -> None:
        self.picture = picture
        self._words, self._inner, self._end = words, inner, around.span[1]
        self._left = around.panel.col_off
        first = inner.panel.col_off - self._left
        self._columns = slice(first, first + inner.panel.width)
        pixels, many = around.side * around.side, FIELDS * len(words.text)
        self._step = max(1, 2 * AT_ONCE // (max(pixels, many) * around.panel.width))
        self._held: _Held | None = None
        self._top = self._next = around.span[0]

    def add(self, rows: CellRows) -> Iterator[FieldRows | Gap]:
        """Take rows of cells; yield those that all that is to be known around them is known of."""
        first, end = rows.row_off, rows.row_off + rows.count
        if rows.features is None:
            yield from self._without(first, end)
            return
        for row, features in _steps(first, rows.features, self._step):
            scores = self._words.class_scores(features, self._left)
            yield from self._taken(row, scores, (features != 0).any(0))

    def _without(self, first: int, end: int) -> Iterator[FieldRows | Gap]:
        """Rows that no window was on: the first are still what others are learned from, the rest are let be."""
        if self._held is not None:
            last = min(first + RADIUS + 1, end)
            nothing = torch.zeros_like(self._held.scores[:, :1]).expand(-1, last - first, -1)
            yield from self._taken(first, nothing, torch.zeros_like(nothing[0], dtype=torch.bool))
            first = last
        if first < end:
            begin, last = max(self._next, self._inner.span[0]), min(end, self._inner.span[1])
            if begin < last:
                yield Gap(begin, last - begin)
            self._held, self._top, self._next = None, end, end

    def _taken(self, row: int, scores: Tensor, known: Tensor) -> Iterator[FieldRows | Gap]:
        new = _Held(scores, known, *self.picture.colours(row, len(known)))
        held = (
            new if self._held is None else _Held(*(torch.cat(pair, -2) for pair in zip(self._held, new, strict=True)))
        )
        end = row + len(known)
        ready = end if end == self._end else end - RADIUS
        first, last = max(self._next, self._inner.span[0]), min(ready, self._inner.span[1])
        if first < last:
            yield self._modelled(held, first, last)
        self._next = max(self._next, ready)
        over = max(0, self._next - RADIUS - self._top)
        self._held, self._top = _Held(*(each[..., over:, :] for each in held)), self._top + over

    def _modelled(self, held: _Held, first: int, last: int) -> FieldRows:
        """Rows whose neighbours are all held."""
        here = (..., slice(first - self._top, last - self._top), self._columns)
        fields, known = model_of(*held), held.known[here]
        colours = Colours(held.mean[here].where(known, 0), held.seen[here] & known)  # as a gap has none
        return FieldRows(first, fields[here], known, colours)
