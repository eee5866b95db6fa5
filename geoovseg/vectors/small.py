"""Small regions given to their neighbours, block by block, whatever the blocks: a label raster without them.

A block settles what it can see whole (neighbours.py): regions that do not reach its edge and touch nothing of unknown
size. The rest, little, is put together from all blocks and settled in the end.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import partial
from itertools import chain, pairwise
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from rasterio.windows import Window
from skimage.measure import label as connected

from geoovseg.labels.names import writing
from geoovseg.rasters.open import plain_open
from geoovseg.run.executors.pool import in_processes
from geoovseg.vectors.neighbours import Ints, Regions, clusters, given_away, grouped, summed
from geoovseg.vectors.pieces import NOTHING, block_windows, read_window
from geoovseg.vectors.source import Source

FINE = 2**20
"""Parts of a pixel in which areas are counted."""
LONG = 1000
"""Parts of a pixel's longer side in which borders are counted."""
SIDE = 2048
"""Of blocks, in pixels."""


@dataclass(frozen=True, kw_only=True)
class Sieve:
    """What blocks are judged by."""

    source: Source
    least: float
    """area under which a region is small, in parts"""
    step: tuple[int, int]
    """length of a border of one pixel's height, and of its width, in parts"""


class BlockRegions(NamedTuple):
    """What a block knows of its regions, by their numbers in the block."""

    total: int
    settled: Ints
    """(k, 2) numbers of small regions, and their new codes"""
    numbers: Ints
    """(n,) of what is left to others"""
    regions: Regions
    """those; pairs by their numbers in the block"""
    edges: tuple[Ints, Ints, Ints, Ints]
    """number of the region of each pixel along the top, bottom, left, right; -1 for none"""


@contextmanager
def without_small(
    source: Source, least: float, target: Path, workers: int, side: int = SIDE
) -> Iterator[tuple[Source, int]]:
    """The labels with regions under `least` square metres given to their neighbours, in a file that is there meanwhile.

    Gives a source to read them from, and how many regions were given away. Without a coordinate system in square
    units of the raster. What has no neighbour but missing data stays. Raises SceneError, OutputError.
    """
    height, width = source.pixel
    step = (round(LONG * width / max(height, width)), round(LONG * height / max(height, width)))
    sieve = Sieve(source=source, least=least * FINE / source.pixel_area, step=step)
    windows = list(chain(*block_windows(*source.shape, side)))
    try:
        with in_processes(partial(block_regions, sieve), windows, workers) as found:
            changes, count = _settled(found, windows, sieve)
        with in_processes(partial(_redrawn, source.path), list(zip(windows, changes, strict=True)), workers) as drawn:
            _write(target, drawn, windows, source)
        yield replace(source, path=str(target)), count
    finally:
        target.unlink(missing_ok=True)


def numbered(codes: Ints) -> Ints:
    """Connected regions (h, w) of codes, from 0 on; -1 where there is nothing."""
    return np.asarray(connected(codes, background=NOTHING, connectivity=1), np.int64) - 1


def block_regions(sieve: Sieve, window: Window) -> BlockRegions:
    """The regions of a block: small ones settled where the block alone decides."""
    codes = read_window(sieve.source.path, window)
    places = numbered(codes)
    regions = _measured(codes, places, window, sieve)
    edges = (places[0], places[-1], places[:, 0], places[:, -1])
    reach = np.zeros(len(regions.codes), bool)
    for edge, beyond in zip(edges, _goes_on(window, sieve.source.shape), strict=True):
        if beyond:
            reach[edge[edge >= 0]] = True
    unclear = _unclear(regions, reach, sieve.least)
    mine = (regions.areas < sieve.least) & ~unclear
    settled = _settle(regions, mine, sieve.least)
    pairs = unclear[regions.pairs].any(axis=1)
    left = np.unique(np.concatenate([np.flatnonzero(reach | unclear), regions.pairs[pairs].ravel()]))
    rest = Regions(
        codes=regions.codes[left],
        areas=regions.areas[left],
        firsts=regions.firsts[left],
        pairs=regions.pairs[pairs],
        borders=regions.borders[pairs],
    )
    return BlockRegions(len(regions.codes), settled, left, rest, edges)


def _settle(regions: Regions, mine: NDArray[np.bool_], least: float) -> Ints:
    """New codes (k, 2) of the small regions that are `mine` to give away."""
    some = mine[regions.pairs].any(axis=1)
    codes = given_away(regions._replace(pairs=regions.pairs[some], borders=regions.borders[some]), least)
    changed = np.flatnonzero(mine & (codes != regions.codes))
    return np.stack([changed, codes[changed]], axis=1)


def _goes_on(window: Window, shape: tuple[int, int]) -> tuple[bool, bool, bool, bool]:
    """Whether the raster goes on beyond a window's top, bottom, left and right."""
    height, width = shape
    end = (window.row_off + window.height, window.col_off + window.width)
    return window.row_off > 0, end[0] < height, window.col_off > 0, end[1] < width


def _unclear(regions: Regions, reach: NDArray[np.bool_], least: float) -> NDArray[np.bool_]:
    """Small regions (n,) that a block cannot settle: what it does not see may change where they go.

    So it is with sets of small regions of which one reaches beyond the block, or that touch two large ones of one
    code that do: those may be one.
    """
    small = regions.areas < least
    cluster = clusters(regions, small)
    both_ways = np.concatenate([regions.pairs, regions.pairs[:, ::-1]])
    near, far = both_ways[small[both_ways[:, 0]] & ~small[both_ways[:, 1]] & reach[both_ways[:, 1]]].T
    touching = np.unique(np.stack([cluster[near], regions.codes[far], far], axis=1), axis=0)
    kinds, times = np.unique(touching[:, :2], axis=0, return_counts=True)
    return small & np.isin(cluster, np.concatenate([cluster[small & reach], kinds[times > 1, 0]]))


def _measured(codes: Ints, places: Ints, window: Window, sieve: Sieve) -> Regions:
    """Codes, areas, first pixels and borders of numbered regions."""
    flat, there = places.ravel(), np.flatnonzero(places.ravel() >= 0)
    count = int(flat.max(initial=-1)) + 1
    share = np.rint(sieve.source.pixel_areas(window) * (FINE / sieve.source.pixel_area)).ravel()
    areas = np.bincount(flat[there], share[there], minlength=count).astype(np.int64)
    firsts, of = np.zeros(count, np.int64), np.zeros(count, np.int64)
    back = there[::-1]  # the first of a region is written last
    firsts[flat[back]] = (window.row_off + back // window.width) * sieve.source.shape[1]
    firsts[flat[back]] += window.col_off + back % window.width
    of[flat[back]] = codes.ravel()[back]
    found = [_meeting(places[:, :-1], places[:, 1:], sieve.step[0]), _meeting(places[:-1], places[1:], sieve.step[1])]
    pairs, borders = summed(*(np.concatenate(part) for part in zip(*found, strict=True)))
    return Regions(of, areas, firsts, pairs, borders)


def _meeting(one: Ints, other: Ints, step: int) -> tuple[Ints, Ints]:
    """Pairs (m, 2) of different regions on both sides of a border, and its length in each place."""
    apart = (one != other) & (one >= 0) & (other >= 0)
    pairs, times = np.unique(np.stack([one[apart], other[apart]], axis=1), axis=0, return_counts=True)
    return pairs, times * step


def _settled(found: Iterator[BlockRegions], windows: list[Window], sieve: Sieve) -> tuple[list[Ints], int]:
    """New codes (k, 2) by number, block by block, and how many regions were given away."""
    settled, numbers, parts, starts, seams = [], [], [], [0], _Seams(sieve)
    for window, block in zip(windows, found, strict=True):
        first = starts[-1]
        settled.append(block.settled)
        numbers.append(block.numbers + first)
        parts.append(block.regions._replace(pairs=block.regions.pairs + first))
        seams.add(window, [np.where(edge >= 0, edge + first, -1) for edge in block.edges])
        starts.append(first + block.total)
    ids = np.concatenate(numbers)
    count = sum(map(len, settled))
    changed, more = _across(ids, parts, seams, sieve.least)
    for n, (first, end) in enumerate(pairwise(starts)):
        here = changed[(changed[:, 0] >= first) & (changed[:, 0] < end)]
        settled[n] = np.concatenate([settled[n], here - np.array([first, 0])])
    return settled, count + more


class _Seams:
    """Pairs of regions on both sides of seams."""

    def __init__(self, sieve: Sieve) -> None:
        self._step = sieve.step
        self._left: Ints = np.empty(0, np.int64)
        self._above: Ints = np.full(sieve.source.shape[1], -1, np.int64)
        self.pairs = [np.empty((0, 2), np.int64)]
        self.borders = [np.empty(0, np.int64)]

    def add(self, window: Window, edges: list[Ints]) -> None:
        """Take the edges of the next block, in reading order."""
        top, bottom, left, right = edges
        columns = slice(window.col_off, window.col_off + window.width)
        meetings = [_meeting(self._above[columns], top, self._step[1])]
        if window.col_off:
            meetings.append(_meeting(self._left, left, self._step[0]))
        for pairs, borders in meetings:
            self.pairs.append(pairs)
            self.borders.append(borders)
        self._left, self._above[columns] = right, bottom


def _across(ids: Ints, parts: list[Regions], seams: _Seams, least: float) -> tuple[Ints, int]:
    """New codes (k, 2) by id of what blocks left over: parts of one region put together, then given away.

    Also how many regions were.
    """
    codes, areas, firsts = (np.concatenate([part[n] for part in parts]) for n in range(3))
    over = np.searchsorted(ids, np.concatenate(seams.pairs))
    within = np.searchsorted(ids, np.concatenate([part.pairs for part in parts]))
    same = codes[over[:, 0]] == codes[over[:, 1]]
    group = grouped(len(ids), over[same])
    size = int(group.max(initial=-1)) + 1
    whole, first, of = np.zeros(size, np.int64), np.full(size, np.iinfo(np.int64).max), np.zeros(size, np.int64)
    np.add.at(whole, group, areas)
    np.minimum.at(first, group, firsts)
    of[group] = codes
    lengths = np.concatenate([*(part.borders for part in parts), np.concatenate(seams.borders)[~same]])
    pairs, lengths = summed(group[np.concatenate([within, over[~same]])], lengths)
    new = given_away(Regions(of, whole, first, pairs, lengths), least)[group]
    changed = new != codes
    return np.stack([ids[changed], new[changed]], axis=1), len(np.unique(group[changed]))


def _redrawn(path: str, block: tuple[Window, Ints]) -> Ints:
    """Codes of a block with the new ones in place."""
    window, changes = block
    codes = read_window(path, window)
    if len(changes):
        places = numbered(codes)
        new = np.full(int(places.max()) + 1, NOTHING, np.int64)
        new[changes[:, 0]] = changes[:, 1]
        codes = np.where((places >= 0) & (new[places] != NOTHING), new[places], codes)
    return codes.astype(np.int32)


def _write(target: Path, blocks: Iterator[Any], windows: list[Window], source: Source) -> None:
    """Codes to a file of the same grid."""
    height, width = source.shape
    profile = {"driver": "GTiff", "height": height, "width": width, "count": 1, "dtype": "int32", "nodata": NOTHING}
    layout = {"tiled": True, "blockxsize": 512, "blockysize": 512, "compress": "deflate", "zlevel": 1}
    with writing(target), plain_open(target, "w", **profile, **layout, BIGTIFF="IF_SAFER") as dst:
        for window, codes in zip(windows, blocks, strict=True):
            dst.write(codes, 1, window=window)
