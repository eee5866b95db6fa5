"""Blocks polygonised by processes of their own, a few ahead of what is joined."""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from functools import partial

from rasterio.windows import Window

from geoovseg.run.executors.pool import in_processes
from geoovseg.vectors.pieces import Pieces, Recipe, block_windows, cut_pieces
from geoovseg.vectors.seams import Polygons, Seams

Rows = Iterator[tuple[int, Iterable[Pieces]]]
"""Rows of polygonised blocks, each with its first row of pixels."""


@contextmanager
def blocks(recipe: Recipe, side: int, workers: int) -> Iterator[Rows]:
    """Rows of polygonised blocks with their first row of pixels."""
    width, height = recipe.size
    rows = block_windows(height, width, side)
    with in_processes(partial(cut_pieces, recipe), [window for row in rows for window in row], workers) as pieces:
        yield _in_rows(pieces, rows)


def _in_rows(pieces: Iterator[Pieces], rows: list[list[Window]]) -> Rows:
    for row in rows:
        yield row[0].row_off, itertools.islice(pieces, len(row))


def joined_rows(rows: Rows, seams: Seams) -> Iterator[Polygons]:
    """Polygons as they are finished."""
    for row_off, pieces in rows:
        yield from seams.row(pieces, row_off)
    yield from seams.end()
