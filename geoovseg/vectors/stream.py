"""Blocks polygonised by processes of their own, a few ahead of what is joined."""

from __future__ import annotations

import itertools
import os
import signal
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from multiprocessing import get_context
from typing import Any, TypeVar

from rasterio.windows import Window

from geoovseg.vectors.pieces import Pieces, Task, block_windows, cut_pieces
from geoovseg.vectors.seams import Polygons, Seams

Item = TypeVar("Item")
Done = TypeVar("Done")
Rows = Iterator[tuple[int, Iterable[Pieces]]]
"""Rows of polygonised blocks, each with its first row of pixels."""


@contextmanager
def in_processes(work: Callable[[Item], Done], items: Sequence[Item], workers: int) -> Iterator[Iterator[Done]]:
    """What `work` makes of items, in their order, by processes of their own; `workers` 0 is one a core.

    Threads would not do: the first two that polygonise at once can wait for each other for ever.
    """
    count = min(workers or os.cpu_count() or 1, len(items))
    if count <= 1:
        yield map(work, items)
        return
    with get_context("spawn").Pool(count, signal.signal, (signal.SIGINT, signal.SIG_IGN)) as pool:
        yield _ahead(pool, work, items, 2 * count)


def _ahead(pool: Any, work: Callable[[Item], Done], items: Sequence[Item], most: int) -> Iterator[Done]:
    """Results in order, at most so many of them ahead of what is taken."""
    waiting = deque(pool.apply_async(work, (item,)) for item in items[:most])
    for number in range(len(items)):
        yield waiting.popleft().get()
        if number + most < len(items):
            waiting.append(pool.apply_async(work, (items[number + most],)))


@contextmanager
def blocks(task: Task, side: int, workers: int) -> Iterator[Rows]:
    """Rows of polygonised blocks with their first row of pixels."""
    width, height = task.size
    rows = block_windows(height, width, side)
    with in_processes(partial(cut_pieces, task), [window for row in rows for window in row], workers) as pieces:
        yield _in_rows(pieces, rows)


def _in_rows(pieces: Iterator[Pieces], rows: list[list[Window]]) -> Rows:
    for row in rows:
        yield row[0].row_off, itertools.islice(pieces, len(row))


def joined_rows(rows: Rows, seams: Seams) -> Iterator[Polygons]:
    """Polygons as they are finished."""
    for row_off, pieces in rows:
        yield from seams.row(pieces, row_off)
    yield from seams.end()
