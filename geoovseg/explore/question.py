"""Words asked of kept features: classes of any part of a scene, at any scale, as fast as they are looked at."""

from __future__ import annotations

from dataclasses import replace
from functools import lru_cache
from threading import Lock
from typing import NamedTuple

import numpy as np
import torch
from affine import Affine
from numpy.typing import NDArray
from torch import Tensor

from geoovseg.explore.kept import Chunk, Kept
from geoovseg.explore.pyramid import Square
from geoovseg.features.store import SIDE
from geoovseg.labels.areas import Piece, hectares
from geoovseg.rasters.ground import RasterGrid
from geoovseg.run.places import crs_of
from geoovseg.run.predictor import Predictor

FEW = 1 << 26
"""Numbers of all vectors up to which every cell is counted, else one of some."""
SCORES_BYTES = 256e6
"""That scores of one question may take."""
COVERS = 16
"""Thresholds of which it is kept what classes cover."""


class Found(NamedTuple):
    """Classes of the pixels of a tile."""

    codes: NDArray[np.int32]
    """(h, w), -1 where there is no data"""
    sure: NDArray[np.float32]
    """(h, w) confidence of the best class, in 0..1"""


class Word(NamedTuple):
    """How like a cell is to a word."""

    name: str
    score: float


class Question:
    """Some classes with their words, asked of kept features; scores of chunks are kept while it is the question."""

    def __init__(self, kept: Kept, asker: Predictor) -> None:
        self.kept, self.asker = kept, asker
        self.first = asker.vocabulary.first_code
        words = asker.words
        self._words = replace(words, text=asker.text.cpu(), won=None)
        self._scores: dict[tuple[Chunk, int], Tensor] = {}
        self._held = 0
        self._lock = Lock()
        self._covers = lru_cache(COVERS)(self._cover)

    @torch.inference_mode()
    def of(self, square: Square, rows: int, cols: int, threshold: float | None) -> Found:
        """Classes of the first rows and columns of a tile: scores between cells bilinear, as `--upsample bilinear`."""
        about = self.kept.store.about
        step = 1 if square.step <= about.cell else self.kept.step
        side = about.cell * step
        down, right = (
            _places(first, count, square.step, side, -(-length // step))
            for first, count, length in ((square.row, rows, about.rows), (square.col, cols, about.columns))
        )
        scores, known = self._grid(down[0], right[0], step)
        scores, known = (_between(each, down, right) for each in (scores * known, known))
        shares = (self.asker.facts.scale * scores / known.clamp_min(1e-6)).softmax(0)
        sure, best = shares.max(0)
        codes = best + self.first
        if threshold is not None:
            codes = torch.where(sure < threshold, 0, codes)
        valid = (
            known[0].numpy() > 0.5
            if step > 1
            else self.kept.valid(square.row, square.col, rows, cols, square.step) & (known[0].numpy() > 0)
        )
        return Found(np.where(valid, codes.numpy(), -1).astype(np.int32), sure.numpy())

    def _grid(self, rows: range, cols: range, step: int) -> tuple[Tensor, Tensor]:
        """Class scores (C, n, m) of cells, or of every `step`-th one, and which have features (1, n, m)."""
        per = SIDE // step
        lines = []
        for down in range(rows.start // per, (rows.stop - 1) // per + 1):
            line = [self._of((down, r), step) for r in range(cols.start // per, (cols.stop - 1) // per + 1)]
            lines.append(torch.cat(line, dim=2))
        top, left = rows.start // per * per, cols.start // per * per
        whole = torch.cat(lines, dim=1)[:, rows.start - top : rows.stop - top, cols.start - left : cols.stop - left]
        return whole[:-1], whole[-1:]

    def _of(self, chunk: Chunk, step: int) -> Tensor:
        """Class scores of a chunk, and after them which cells have features (C + 1, rows, columns)."""
        key = (chunk, step)
        with self._lock:
            if key in self._scores:
                return self._scores[key]
        vectors = torch.from_numpy(np.ascontiguousarray(self.kept.get(chunk, step)))
        scores = self._words.class_scores(vectors.permute(2, 0, 1), 0)
        found = torch.cat([scores, vectors.any(2)[None].float()])
        with self._lock:
            if key in self._scores:  # another thread was there first
                return self._scores[key]
            self._scores[key] = found
            self._held += found.nbytes
            while self._held > SCORES_BYTES and len(self._scores) > 1:
                self._held -= self._scores.pop(next(iter(self._scores))).nbytes
        return found

    @torch.inference_mode()
    def words_at(self, row: int, col: int) -> list[Word]:
        """How like each word the cell of a pixel is, the likest first; nothing where there is no data."""
        vector = torch.from_numpy(self._vector(row, col)).float()
        if not vector.any():
            return []
        scores = self._words.text @ vector
        return sorted(map(Word, self.asker.vocabulary.queries, scores.tolist()), key=lambda word: -word.score)

    def _vector(self, row: int, col: int) -> NDArray[np.float16]:
        down, right = row // self.kept.store.about.cell, col // self.kept.store.about.cell
        found: NDArray[np.float16] = self.kept.get((down // SIDE, right // SIDE), 1)[down % SIDE, right % SIDE]
        return found

    def cover(self, threshold: float | None) -> tuple[dict[int, float], dict[int, float] | None]:
        """By code the share of the pixels with data, and hectares, if these are known; pixels count as their cell."""
        return self._covers(threshold)

    @torch.inference_mode()
    def _cover(self, threshold: float | None) -> tuple[dict[int, float], dict[int, float] | None]:
        about, pieces = self.kept.store.about, []
        totals = np.zeros(len(self.asker.vocabulary.channels) + self.first, np.int64)
        few = about.rows * about.columns * about.depth <= FEW
        cell, step = about.cell, 1 if few else self.kept.step
        for down in range(self.kept.chunks[0]):
            for right in range(self.kept.chunks[1]):
                scores = self._of((down, right), step)
                counts = self._counts(scores, self.kept.pixels((down, right), step), threshold, len(totals))
                totals += counts
                each = {code: n for code, n in enumerate(counts.tolist()) if n}
                middle = SIDE * cell / 2
                row, col = down * SIDE * cell + middle, right * SIDE * cell + middle
                pieces.append(Piece(min(row, about.height - 1), min(col, about.width - 1), each))
        whole = max(1, int(totals.sum()))
        shares = {code: n / whole for code, n in enumerate(totals.tolist())}
        return shares, hectares(self.grid, pieces)

    def _counts(
        self, scores: Tensor, pixels: NDArray[np.int32], threshold: float | None, codes: int
    ) -> NDArray[np.int64]:
        sure, best = (self.asker.facts.scale * scores[:-1]).softmax(0).max(0)
        found = best + self.first
        if threshold is not None:
            found = torch.where(sure < threshold, 0, found)
        known = (scores[-1] > 0).numpy()
        return np.bincount(found.numpy()[known], pixels[known], codes).astype(np.int64)

    @property
    def grid(self) -> RasterGrid:
        """The pixels of the scene."""
        about = self.kept.store.about
        return RasterGrid(height=about.height, width=about.width, crs=crs_of(about), transform=Affine(*about.transform))


class _Line(NamedTuple):
    """Pixels along one side of a tile: which cells they lie between."""

    cells: range
    low: Tensor
    """of each pixel, the first of its two cells among `cells`"""
    high: Tensor
    part: Tensor
    """weight of the second"""


def _places(first: int, count: int, step: int, side: int, length: int) -> _Line:
    """Where the centres of `count` pixels of a tile lie between the centres of `length` cells of `side` pixels."""
    place = (first + (torch.arange(count, dtype=torch.float64) + 0.5) * step) / side - 0.5
    place = place.clamp(0, length - 1)
    low = place.floor().long()
    high = (low + 1).clamp_max(length - 1)
    start, stop = int(low[0]), int(high[-1]) + 1
    return _Line(range(start, stop), low - start, high - start, (place - low).float())


def _between(values: Tensor, down: _Line, right: _Line) -> Tensor:
    """Values (C, n, m) of cells at the pixels between them (C, h, w)."""
    wide = torch.lerp(values[..., right.low], values[..., right.high], right.part)
    return torch.lerp(wide[:, down.low], wide[:, down.high], down.part[:, None])
