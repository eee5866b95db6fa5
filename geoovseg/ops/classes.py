"""From query scores to class scores to labels: the best word speaks for its class."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor


def best_word(scores: Tensor, groups: Sequence[int]) -> Tensor:
    """Query scores (B, Q, h, w) to class scores (B, C, h, w); `groups` counts the words of each class, in order.

    The maximum, taken before blending, so that a class does not fade as synonyms are added.
    """
    return torch.stack([group.amax(dim=1) for group in scores.split(list(groups), dim=1)], dim=1)


def for_each_word(classes: Tensor, groups: Sequence[int]) -> Tensor:
    """Class scores (B, C, h, w) to query scores (B, Q, h, w): all words of a class have its score."""
    return classes.repeat_interleave(torch.tensor(groups, device=classes.device), 1)


def shares_of(scores: Tensor, scale: float | None) -> Tensor:
    """Class scores (C, h, w) as shares of 1 (C, h, w).

    Cosines are sharpened by `scale` and softmaxed over classes; with scale None they already are shares.
    """
    return torch.softmax(scores * scale, dim=0) if scale is not None else scores
