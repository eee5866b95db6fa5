"""Trident's affinity: attention where values are alike, a few rows of it at a time."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Literal

import torch
from torch import Tensor
from torch.nn import functional as F

CAP = 0.9
"""No likeness below 1 needs to be larger than this to count (Trident release)."""
NEGATIVE = 0.6
"""What a negative threshold becomes, where it is not left as it is (Trident release)."""


def thresholds(alike: Tensor, factor: float, *, keep_negative: bool, known: Tensor | None = None) -> Tensor:
    """Likeness (N,) that others must exceed to count for each patch: `factor` times its mean over heads and patches.

    `alike` (heads, N, d) are unit values; only `known` patches (N,) are counted.
    """
    others = alike if known is None else alike[:, known]
    limit = factor * (alike @ others.mean(1)[..., None]).mean(0)[:, 0]
    if not keep_negative:
        limit = torch.where(limit < 0, NEGATIVE, limit)
    return limit.clamp_max(CAP)


Matrices = Literal["both", "cosine", "attention"]
"""What affinity is made of: attention where values are alike, their likeness there, or all attention."""


def affinity_rows(
    attention: Iterable[Tensor],
    values: Tensor,
    factor: float,
    *,
    keep_negative: bool,
    known: Tensor | None = None,
    matrices: Matrices = "both",
) -> Iterator[Tensor]:
    """Affinity (n, N), rows adding to 1, for rows of attention (heads, n, N) and values (heads, N, d).

    Patches that are not `known` (N,) get no weight; a row without any is 0. Trident, eq. 5 as released: each head keeps
    its attention where its values are alike enough, then heads are averaged. `matrices` are the paper's table 3.
    """
    alike = F.normalize(values.float(), dim=-1)
    limit = thresholds(alike, factor, keep_negative=keep_negative, known=known)
    first = 0
    for weights in attention:
        rows = slice(first, first + weights.shape[1])
        first = rows.stop
        likeness = alike[:, rows] @ alike.mT if matrices != "attention" else None
        kept = (likeness if matrices == "cosine" and likeness is not None else weights).float()
        if likeness is not None:
            kept = kept.masked_fill(likeness <= limit[rows, None], 0)
        kept = kept.mean(0)
        if known is not None:
            kept = kept * known
        yield kept / kept.sum(-1, keepdim=True).clamp_min(torch.finfo(kept.dtype).tiny)
