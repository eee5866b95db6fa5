"""Regions and the borders between them: which neighbours the small ones are given to."""

from __future__ import annotations

from heapq import heapify, heappop, heappush
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components

Ints = NDArray[np.int64]
Flags = NDArray[np.bool_]


class Regions(NamedTuple):
    """Connected regions of labels, and which of them meet. Whole numbers, so that sums do not depend on their order."""

    codes: Ints
    """(n,)"""
    areas: Ints
    """(n,)"""
    firsts: Ints
    """(n,) the first pixel of each, in reading order: decides between equal areas"""
    pairs: Ints
    """(m, 2) regions that share a border"""
    borders: Ints
    """(m,) how long it is"""


def grouped(count: int, pairs: Ints) -> Ints:
    """Group number (count,) of each region, where pairs (m, 2) belong together."""
    ones = np.ones(len(pairs), np.int8)
    one, other = pairs.T.astype(np.int32)  # all that csgraph takes; scipy before 1.15 does not see to it
    links = coo_array((ones, (one, other)), shape=(count, count))
    return np.asarray(connected_components(links, directed=False)[1], np.int64)


def summed(pairs: Ints, borders: Ints) -> tuple[Ints, Ints]:
    """Each pair once, the lower number first, with the whole length of its border."""
    pairs = np.sort(pairs, axis=1)
    once, place = np.unique(pairs, axis=0, return_inverse=True)
    lengths = np.zeros(len(once), np.int64)
    np.add.at(lengths, place.ravel(), borders)
    return once, lengths


def clusters(regions: Regions, small: Flags) -> Ints:
    """Number (n,) of the set of touching small regions that each belongs to, -1 for the others.

    What happens in a set depends on it and on what it touches alone.
    """
    both = small[regions.pairs].all(axis=1)
    return np.where(small, grouped(len(small), regions.pairs[both]), -1)


def given_away(regions: Regions, least: float) -> Ints:
    """Codes (n,) after every region smaller than `least` went to the neighbour it has the longest border with.

    The smallest goes first; it takes its area along, and becomes one with all that touch it and have its new code.
    A region without neighbours stays. Of equal borders the one with the lower code wins.
    """
    small = regions.areas < least
    cluster = clusters(regions, small)
    some = small[regions.pairs].any(axis=1)
    pairs = regions.pairs[some]
    # a large region takes part in every cluster on its own, or clusters would depend on each other through it
    of = cluster[pairs].max(axis=1)
    ends, place = np.unique(
        np.stack([np.where(small[pairs], -1, of[:, None]), pairs], axis=2).reshape(-1, 2), axis=0, return_inverse=True
    )
    giving = _Giving(regions, ends[:, 1], place.reshape(-1, 2), regions.borders[some], least)
    codes = regions.codes.copy()
    mine = ends[:, 0] < 0
    codes[ends[mine, 1]] = giving.run()[mine]
    return codes


class _Giving:
    """Regions that are given to each other, one by one."""

    def __init__(self, regions: Regions, numbers: Ints, pairs: Ints, borders: Ints, least: float) -> None:
        self._codes = regions.codes[numbers].tolist()
        self._areas = regions.areas[numbers].tolist()
        self._firsts = regions.firsts[numbers].tolist()
        self._least = least
        self._into = list(range(len(numbers)))
        self._borders: list[dict[int, int]] = [{} for _ in numbers]
        for (one, other), length in zip(pairs.tolist(), borders.tolist(), strict=True):
            self._borders[one][other] = self._borders[other][one] = length

    def run(self) -> Ints:
        """The codes in the end."""
        queue = [self._entry(n) for n, area in enumerate(self._areas) if area < self._least]
        heapify(queue)
        while queue:
            area, _, region = heappop(queue)
            if self._into[region] != region or area != self._areas[region] or not self._borders[region]:
                continue  # is part of another by now, has grown, or has no neighbour
            grown = self._give(region)
            if self._areas[grown] < self._least:
                heappush(queue, self._entry(grown))
        return np.array([self._codes[self._root(n)] for n in range(len(self._into))], np.int64)

    def _entry(self, region: int) -> tuple[int, int, int]:
        return self._areas[region], self._firsts[region], region

    def _give(self, region: int) -> int:
        """Give a region to a neighbour; returns what became of both."""
        near = self._borders[region]
        to = max(near, key=lambda n: (near[n], -self._codes[n]))
        code = self._codes[to]
        grown = self._join(to, region, code)
        for like in [n for n in self._borders[grown] if self._codes[n] == code]:
            grown = self._join(grown, like, code)
        return grown

    def _join(self, one: int, other: int, code: int) -> int:
        if len(self._borders[one]) < len(self._borders[other]):
            one, other = other, one
        for near, length in self._borders[other].items():
            del self._borders[near][other]
            if near != one:
                both = self._borders[one].get(near, 0) + length
                self._borders[one][near] = self._borders[near][one] = both
        self._borders[other], self._into[other], self._codes[one] = {}, one, code
        self._areas[one] += self._areas[other]
        self._firsts[one] = min(self._firsts[one], self._firsts[other])
        return one

    def _root(self, region: int) -> int:
        while self._into[region] != region:
            self._into[region] = self._into[self._into[region]]
            region = self._into[region]
        return region
