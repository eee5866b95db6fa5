"""What words say of finished features: cosines, the best word of every class."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F

from geoovseg.ops.classes import Won, best_word, shifted
from geoovseg.trace import stretch

CHUNK = 64
"""Cells that are compared at once, from a column that is a multiple of it: a product of always the same shape, so that
a cell's scores depend on no panel, span or store."""


@dataclass(frozen=True)
class CellRows:
    """Finished rows of cells."""

    row_off: int
    count: int
    features: Tensor | None
    """(D, rows, columns) float16: taper-weighted means over windows, zero where none was; none if that is everywhere"""


@dataclass(frozen=True)
class Words:
    """Words, and which of them speak for one class."""

    text: Tensor
    """unit features of words (Q, D), float32"""
    groups: tuple[int, ...]
    """how many words each class has, in order"""
    won: Won | None = None
    """counts which words of the first class win"""
    offsets: tuple[float, ...] = ()
    """what is added to the scores of each class, if anything is"""

    @property
    def channels(self) -> int:
        """Classes, with the background if there is one."""
        return len(self.groups)

    def class_scores(self, features: Tensor, col_off: int) -> Tensor:
        """Scores (C, rows, columns) of features (D, rows, columns) that begin at a column of the scene's cells."""
        with stretch("words"):
            return self._scored(features, col_off)

    def _scored(self, features: Tensor, col_off: int) -> Tensor:
        depth, height, width = features.shape
        before = col_off % CHUNK
        padded = F.pad(features.permute(1, 2, 0), (0, 0, before, -(before + width) % CHUNK)).contiguous()
        chunks = padded.reshape(-1, CHUNK, depth).float()
        words = self.text.T
        scores = torch.stack([chunk @ words for chunk in chunks]).reshape(height, -1, len(self.text))
        found = scores[:, before : before + width].permute(2, 0, 1)
        if self.won is not None:
            self.won.add(found[None])
        return shifted(best_word(found[None], self.groups), self.offsets)[0]
