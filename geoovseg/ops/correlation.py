"""Attention by likeness of features, made a few rows at a time: N x N x heads never exists."""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor

ROWS = 512
"""Rows of the N x N likeness made at once."""


def mean_likeness(features: Tensor) -> Tensor:
    """Mean (B, 1, 1) of all inner products of features (B, N, D): the square of the length of their mean."""
    return features.mean(1).square().sum(-1)[:, None, None]


def proxy_rows(features: Tensor, *, beta: float, gamma: float, mean: Tensor | None = None) -> Iterator[Tensor]:
    """softmax(gamma (f f^T - beta mean)) without its negative entries, some rows (B, n, N) at a time.

    `features` (B, N, D) are unit; `mean` is that of their inner products unless it is taken over more of them. Where
    patches are so alike that nothing exceeds it (open water), all count; the release gives not-a-number there.
    """
    average = mean_likeness(features) if mean is None else mean
    for rows in features.split(ROWS, dim=1):
        logits = gamma * (rows @ features.mT - beta * average)
        unlike = logits < 0
        unlike &= ~unlike.all(-1, keepdim=True)
        yield logits.masked_fill(unlike, -torch.inf).softmax(-1)


def correlated(features: Tensor, values: Tensor, *, beta: float, gamma: float, mean: Tensor | None = None) -> Tensor:
    """Values (B, heads, N, d) mixed by the likeness of features (B, N, D), the same for all heads."""
    side_by_side = values.transpose(1, 2).flatten(2)
    rows = proxy_rows(features, beta=beta, gamma=gamma, mean=mean)
    return apart(torch.cat([weights.to(values.dtype) @ side_by_side for weights in rows], dim=1), values.shape[1])


def apart(mixed: Tensor, heads: int) -> Tensor:
    """Values (B, N, heads * d), heads side by side, as (B, heads, N, d).

    Weights that all heads share are best applied to values side by side: applied head by head they would be copied for
    each.
    """
    return mixed.unflatten(2, (heads, -1)).transpose(1, 2)
