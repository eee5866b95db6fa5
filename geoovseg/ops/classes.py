"""From query scores to class scores to labels: the best word speaks for its class."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F

TOGETHER = 64
"""Pixels that a CPU takes the softmax of at once; of those left over it rounds otherwise."""


def best_word(scores: Tensor, groups: Sequence[int]) -> Tensor:
    """Query scores (B, Q, h, w) to class scores (B, C, h, w); `groups` counts the words of each class, in order.

    The maximum, taken before blending, so that a class does not fade as synonyms are added.
    """
    return torch.stack([group.amax(dim=1) for group in scores.split(list(groups), dim=1)], dim=1)


def shifted(classes: Tensor, offsets: Sequence[float]) -> Tensor:
    """Class scores (B, C, h, w) with something added to each class, if anything is (`geoovseg tune`)."""
    return classes + classes.new_tensor(offsets)[:, None, None] if offsets else classes


@dataclass
class Won:
    """How often each word of the first class was alone the best of all words, counted where scores are."""

    counts: Tensor
    """(words of that class), whole numbers"""

    @classmethod
    def of(cls, words: int, device: torch.device) -> Won:
        """Nothing yet."""
        return cls(torch.zeros(words, dtype=torch.int64, device=device))

    def add(self, scores: Tensor) -> None:
        """Count query scores (B, Q, h, w); words that are always equal, as of methods that see classes, never win."""
        words = len(self.counts)
        if words < 2:
            return
        best = scores[:, :words].topk(2, dim=1)
        won = best.values[:, 0] > best.values[:, 1]
        if scores.shape[1] > words:
            won &= best.values[:, 0] >= scores[:, words:].amax(1)
        which = torch.where(won, best.indices[:, 0], -1)
        self.counts += torch.stack([(which == n).sum() for n in range(words)])

    def take(self) -> list[int]:
        """What was counted since it was taken last."""
        found: list[int] = self.counts.tolist()
        self.counts.zero_()
        return found


def for_each_word(classes: Tensor, groups: Sequence[int]) -> Tensor:
    """Class scores (B, C, h, w) to query scores (B, Q, h, w): all words of a class have its score."""
    return classes.repeat_interleave(torch.tensor(groups, device=classes.device), 1)


def shares_of(scores: Tensor, scale: float | None) -> Tensor:
    """Class scores (C, h, w) as shares of 1 (C, h, w).

    Cosines are sharpened by `scale` and softmaxed over classes; with scale None they are shares already. Those of a
    pixel do not depend on where it stands.
    """
    if scale is None:
        return scores
    sharp = scores.flatten(1) * scale
    padded = F.pad(sharp, (0, -sharp.shape[1] % TOGETHER))
    return torch.softmax(padded, dim=0)[:, : sharp.shape[1]].reshape(scores.shape)
