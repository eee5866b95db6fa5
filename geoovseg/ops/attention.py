"""How the last block mixes its values: one line per paper.

A policy maps queries, keys and values, each (B, heads, L, d), to mixed values of the same shape, rather than to
weights: then no L x L matrix is kept, and the fused kernels of torch can be used.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache

import torch
from torch import Tensor
from torch.nn.functional import scaled_dot_product_attention as sdpa

Mix = Callable[[Tensor, Tensor, Tensor], Tensor]
Policy = Callable[[tuple[int, int]], Mix]
"""The mix for a grid (h, w) of patches; most do not care."""


def anywhere(mix: Mix) -> Policy:
    """The policy of a mix that does not depend on where patches lie."""
    return lambda grid: mix


def only(allowed: Tensor, dtype: torch.dtype) -> Tensor:
    """What to add to logits (B, 1, n, N), for all heads, so that only `allowed` (B, n, N) pairs attend.

    0 and -inf as numbers: towers read a mask of true and false as a bias of 1 and 0.
    """
    return torch.zeros(allowed.shape, dtype=dtype, device=allowed.device).masked_fill(~allowed, -torch.inf)[:, None]


def clip(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    """Every token attends as CLIP was trained: softmax(q k^T / sqrt d) v (Radford et al. 2021)."""
    return sdpa(q, k, v)


def maskclip(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    """Every token keeps its own value: the identity (Zhou et al. 2022, MaskCLIP)."""
    return v


def sclip(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    """The sum, not the mean, of q-q and k-k attention; rows of weights add to 2 (Wang et al. 2023, SCLIP)."""
    return sdpa(q, q, v) + sdpa(k, k, v)


def kk(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    """Tokens attend to tokens with similar keys: softmax(k k^T / sqrt d) v (NACLIP's ablation without neighbours)."""
    return sdpa(k, k, v)


def clearclip(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    """Tokens attend to tokens that ask alike: softmax(q q^T / sqrt d) v (Lan et al. 2024, ClearCLIP)."""
    return sdpa(q, q, v)


def segearth(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    """The sum, not the mean, of q-q, k-k and v-v attention; rows of weights add to 3 (Li et al. 2024, SegEarth-OV).

    The sum matters: out_proj has a bias and this block no skip connection, so a mean would change the direction.
    """
    return sdpa(q, q, v) + sdpa(k, k, v) + sdpa(v, v, v)


def full(x: Tensor) -> Tensor:
    """Numbers in float32, or in float64 where they are."""
    return x.to(torch.promote_types(x.dtype, torch.float32))


def attention_logits(a: Tensor, b: Tensor) -> Tensor:
    """Logits a b^T / sqrt d of (B, heads, L, d) twice: (B, heads, L, L), at least in float32."""
    return full(a @ b.mT).mul_(a.shape[-1] ** -0.5)


def summing(total: list[Tensor], times: int = 1, *, heads: bool = True) -> Mix:
    """CLIP's own attention; its weights, `times` over, are added to what `total` holds.

    Weights are (B, heads, L, L), or without `heads` their mean over heads (B, L, L); then they are made head by head,
    which on a CPU stays in its cache.
    """

    def mix(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        weights = attention_logits(q, k).softmax(-1)
        kept = times * weights
        total[:] = [total[0] + kept if total else kept]
        return weights.to(v.dtype) @ v

    def mix_mean(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        mixed, share = [], times / q.shape[1]
        for one in zip(q.split(1, 1), k.split(1, 1), v.split(1, 1), strict=True):
            own: list[Tensor] = []
            mixed.append(summing(own)(*one))
            total[:] = [total[0].add_(own[0][:, 0], alpha=share) if total else share * own[0][:, 0]]
        return torch.cat(mixed, dim=1)

    return mix if heads else mix_mean


@lru_cache(maxsize=8)
def neighbourhood(grid: tuple[int, int], sigma: float) -> Tensor:
    """NACLIP's Gaussian of grid distance exp(-d^2 / (2 sigma^2)), (1 + N, 1 + N) (Hajimiri et al. 2024).

    Between patches, row-major; the class token's row and column are 0. Neither normalised nor cut off.
    """
    rows, cols = (torch.arange(n, dtype=torch.float32) for n in grid)
    place = torch.cartesian_prod(rows, cols).view(-1, 2)
    squared = (place[:, None] - place[None]).square().sum(-1)
    bias = torch.zeros(len(place) + 1, len(place) + 1)
    bias[1:, 1:] = torch.exp(-squared / (2 * sigma**2))
    return bias


def naclip(sigma: float) -> Policy:
    """Keys with keys, near patches preferred: softmax(k k^T / sqrt d + neighbourhood) v (NACLIP)."""
    return lambda grid: lambda q, k, v: sdpa(k, k, v, attn_mask=neighbourhood(grid, sigma).to(k))


def neighbours_only(sigma: float) -> Policy:
    """NACLIP's ablation `nonly`: softmax(c * neighbourhood) v, c the mean length of queries times that of keys.

    c is per image, mean over heads of mean |q| mean |k| / sqrt d; the release takes one c for a whole batch.
    """

    def policy(grid: tuple[int, int]) -> Mix:
        def mix(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
            lengths = q.norm(dim=-1).mean(-1) * k.norm(dim=-1).mean(-1)  # (B, heads)
            c = lengths.mean(1)[:, None, None, None] * q.shape[-1] ** -0.5
            return (c * neighbourhood(grid, sigma).to(v)).softmax(-1) @ v

        return mix

    return policy
