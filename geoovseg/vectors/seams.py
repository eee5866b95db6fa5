"""Pieces of blocks joined across their seams: polygons leave as soon as no later block can touch them."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any, NamedTuple

import numpy as np
import shapely
from numpy.typing import NDArray

from geoovseg.vectors.pieces import Ints, Pieces


class Polygons(NamedTuple):
    """Finished polygons, in corners of pixels."""

    codes: Ints
    geometries: NDArray[Any]
    confidence: NDArray[np.float64]
    """mean over pixels"""


class Groups:
    """Which numbers belong together (union-find)."""

    def __init__(self) -> None:
        self._parent: dict[int, int] = {}

    def root(self, number: int) -> int:
        """The number that stands for a group."""
        path = []
        while (above := self._parent.get(number, number)) != number:
            path.append(number)
            number = above
        for passed in path:
            self._parent[passed] = number
        return number

    def join(self, one: int, other: int) -> None:
        """Put two groups together, under the smaller number."""
        a, b = sorted((self.root(one), self.root(other)))
        if a != b:
            self._parent[b] = a

    def forget(self, number: int) -> None:
        """Drop a number whose group is done with."""
        self._parent.pop(number, None)


class _Piece(NamedTuple):
    """What is kept of a piece until its polygon is finished."""

    code: int
    geometry: Any
    total: float
    """of confidence over pixels"""
    pixels: int


class _Whole(NamedTuple):
    """Finished polygons, and the number of the first piece of each."""

    numbers: Ints
    polygons: Polygons


class Seams:
    """Joins blocks, given row by row, left to right; polygons leave with the last block they touch."""

    def __init__(self, *, cell: tuple[int, int] | None = None) -> None:
        """`cell` (width, height) in pixels: polygons are not joined across its multiples."""
        self._cell = cell
        self._open: dict[int, _Piece] = {}
        self._groups, self._next = Groups(), 0
        self._crossings: list[Ints] = []
        self._keys: Ints = np.empty(0, np.int64)
        self._bottom: Ints = np.empty(0, np.int64)

    def row(self, pieces: Iterable[Pieces], row_off: int) -> Iterator[Polygons]:
        """Take a row of blocks that begins at a row of pixels; yields the polygons that it ends."""
        col_off, before, bottom = 0, None, list[Ints]()
        for block in pieces:
            numbers, whole = self._take(block)
            if before is not None and not self._cut(0, col_off):
                self._join(before, _numbered(block.left, numbers))
            if len(self._bottom) and not self._cut(1, row_off):
                above = self._bottom[col_off : col_off + len(block.top)]
                self._join(above, _numbered(block.top, numbers))
            before = _numbered(block.right, numbers)
            bottom.append(_numbered(block.bottom, numbers))
            col_off += len(block.top)
            edges = np.unique(np.concatenate([before, *bottom, self._bottom[col_off:]]))
            yield from self._finished({self._groups.root(n) for n in edges.tolist() if n >= 0}, whole)
        self._bottom = np.concatenate(bottom)

    def end(self) -> Iterator[Polygons]:
        """What is left."""
        yield from self._finished(set())

    def _cut(self, axis: int, at: int) -> bool:
        return self._cell is not None and at % self._cell[axis] == 0

    def _take(self, block: Pieces) -> tuple[int, _Whole]:
        """Keep a block's pieces that touch its edge; returns the number of its first, and the others, finished."""
        first = self._next
        self._next += len(block.codes)
        touches = np.zeros(len(block.codes) + 1, bool)  # the last for -1
        touches[np.concatenate([block.top, block.bottom, block.left, block.right])] = True
        for n in np.flatnonzero(touches[:-1]).tolist():
            self._open[first + n] = _Piece(
                int(block.codes[n]), block.geometries[n], float(block.sums[n]), int(block.pixels[n])
            )
        self._crossings.append(block.crossings)
        rest = ~touches[:-1]
        means = block.sums[rest] / block.pixels[rest]
        return first, _Whole(first + np.flatnonzero(rest), Polygons(block.codes[rest], block.geometries[rest], means))

    def _join(self, one: Ints, other: Ints) -> None:
        """Put pieces together that meet along a seam."""
        both = (one >= 0) & (other >= 0)
        for a, b in np.unique(np.stack([one[both], other[both]], axis=1), axis=0).tolist():
            if self._open[a].code == self._open[b].code:
                self._groups.join(a, b)

    def _finished(self, still: set[int], whole: _Whole | None = None) -> Iterator[Polygons]:
        """Polygons of all groups but those that are still open, with the whole ones of a block, by their numbers."""
        members: dict[int, list[int]] = {}
        for number in self._open:
            members.setdefault(self._groups.root(number), []).append(number)
        done = [numbers for root, numbers in members.items() if root not in still]
        parts = [whole] if whole is not None else []
        if done:
            parts.append(_Whole(np.array([numbers[0] for numbers in done]), self._united(done)))
        if parts:
            order = np.argsort(np.concatenate([part.numbers for part in parts]))
            columns = zip(*(part.polygons for part in parts), strict=True)
            yield Polygons(*(np.concatenate(column)[order] for column in columns))

    def _united(self, groups: list[list[int]]) -> Polygons:
        self._keys = np.unique(np.concatenate([self._keys, *map(_keys, self._crossings)]))
        self._crossings = []
        codes, geometries, means = [], np.empty(len(groups), object), []
        for n, numbers in enumerate(groups):
            pieces = [self._open.pop(number) for number in numbers]
            codes.append(pieces[0].code)
            means.append(sum(p.total for p in pieces) / sum(p.pixels for p in pieces))
            parts = [p.geometry for p in pieces]
            geometries[n] = parts[0] if len(parts) == 1 else joined(parts, self._keys)
            for number in numbers:
                self._groups.forget(number)
        return Polygons(np.array(codes, np.int64), geometries, np.array(means))


def _numbered(edge: Ints, first: int) -> Ints:
    return np.where(edge >= 0, edge + first, -1)


def joined(parts: list[Any], crossings: Ints) -> Any:
    """One polygon of pieces that share edges exactly, without the corners that only seams gave it.

    `crossings` are sorted keys of where those can be.
    """
    whole = shapely.coverage_union_all(np.array(parts, object))
    points = shapely.get_coordinates(whole)
    drop = _among(points, crossings)
    if drop.any():
        drop &= _straight(whole, points)
    return _without(whole, points, drop) if drop.any() else whole


def _keys(points: Any) -> Ints:
    """Corners (n, 2) as one number each."""
    found: Ints = (points[:, 1].astype(np.int64) << 32) | points[:, 0].astype(np.int64)
    return found


def _among(points: Any, crossings: Ints) -> NDArray[np.bool_]:
    """Which of points (n, 2) are at sorted keys."""
    keys = _keys(points)
    place = np.searchsorted(crossings, keys)
    return np.append(crossings, -1)[place] == keys


def _straight(polygon: Any, points: Any) -> NDArray[np.bool_]:
    """Whether a ring goes straight on at a vertex; the vertex a ring begins and ends with looks around it."""
    found = np.zeros(len(points), bool)
    for ring in _rings(polygon):
        xy = points[ring][:-1]
        before, after = xy - np.roll(xy, 1, axis=0), np.roll(xy, -1, axis=0) - xy
        straight = before[:, 0] * after[:, 1] == before[:, 1] * after[:, 0]
        found[ring] = np.append(straight, straight[0])
    return found


def _rings(polygon: Any) -> list[slice]:
    """Where the vertices of each ring are among those of a polygon, its exterior first."""
    ends = np.cumsum(shapely.get_num_coordinates([polygon.exterior, *polygon.interiors])).tolist()
    return [slice(first, end) for first, end in zip([0, *ends], ends, strict=False)]


def _without(polygon: Any, points: Any, drop: NDArray[np.bool_]) -> Any:
    """A polygon without some of its vertices."""
    kept = [points[ring][:-1][~drop[ring][:-1]] for ring in _rings(polygon)]
    rings = [shapely.linearrings(np.concatenate([xy, xy[:1]])) for xy in kept]
    return shapely.polygons(rings[0], holes=rings[1:] or None)
