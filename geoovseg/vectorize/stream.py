"""Blocks polygonised by processes of their own, a few ahead of what is joined."""

from __future__ import annotations

import itertools
import os
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from multiprocessing import get_context
from typing import Any

from rasterio.windows import Window

from geoovseg.vectorize.pieces import Pieces, Task, block_windows, cut_pieces
from geoovseg.vectorize.seams import Polygons, Seams

Rows = Iterator[tuple[int, Iterable[Pieces]]]
"""Rows of polygonised blocks, each with its first row of pixels."""


@contextmanager
def blocks(task: Task, shape: tuple[int, int], side: int, workers: int) -> Iterator[Rows]:
    """Rows of polygonised blocks with their first row of pixels, by processes of their own.

    Threads would not do: the first two that polygonise at once can wait for each other for ever.
    """
    rows = block_windows(*shape, side)
    cut = partial(cut_pieces, task)
    count = min(workers or os.cpu_count() or 1, sum(map(len, rows)))
    if count == 1:
        yield ((row[0].row_off, map(cut, row)) for row in rows)
        return
    with get_context("spawn").Pool(count) as pool:
        yield _in_rows(_ahead(pool, cut, [window for row in rows for window in row], 2 * count), rows)


def _ahead(pool: Any, cut: Any, windows: Sequence[Window], most: int) -> Iterator[Pieces]:
    """Blocks in order, at most so many of them ahead of what is taken."""
    waiting = [pool.apply_async(cut, (window,)) for window in windows[:most]]
    for number in range(len(windows)):
        yield waiting.pop(0).get()
        if number + most < len(windows):
            waiting.append(pool.apply_async(cut, (windows[number + most],)))


def _in_rows(pieces: Iterator[Pieces], rows: list[list[Window]]) -> Rows:
    for row in rows:
        yield row[0].row_off, itertools.islice(pieces, len(row))


def joined_rows(rows: Rows, seams: Seams) -> Iterator[Polygons]:
    """Polygons as they are finished."""
    for row_off, pieces in rows:
        yield from seams.row(pieces, row_off)
    yield from seams.end()
