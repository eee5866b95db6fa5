"""How the last block mixes its values: one line per paper.

A policy maps queries, keys and values, each (B, heads, L, d), to mixed values of the same shape, rather than to
weights: then no L x L matrix is kept, and the fused kernels of torch can be used.
"""

from __future__ import annotations

from collections.abc import Callable

from torch import Tensor
from torch.nn.functional import scaled_dot_product_attention as sdpa

Mix = Callable[[Tensor, Tensor, Tensor], Tensor]


def clip(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    """Every token attends as CLIP was trained: softmax(q k^T / sqrt d) v (Radford et al. 2021)."""
    return sdpa(q, k, v)


def maskclip(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    """Every token keeps its own value: the identity (Zhou et al. 2022, MaskCLIP, section 3.2)."""
    return v


def clearclip(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    """Tokens attend to tokens that ask alike: softmax(q q^T / sqrt d) v (Lan et al. 2024, ClearCLIP, section 3.3)."""
    return sdpa(q, q, v)


def segearth(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    """The sum, not the mean, of q-q, k-k and v-v attention; rows of weights add to 3 (Li et al. 2024, SegEarth-OV).

    The sum matters: out_proj has a bias and this block no skip connection, so a mean would change the direction.
    """
    return sdpa(q, q, v) + sdpa(k, k, v) + sdpa(v, v, v)
