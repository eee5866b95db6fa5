"""Pixels and attention on a grid of patches that is asked for."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

Grid = tuple[int, int]


def own_grid(pixels: Tensor, patch: int) -> Grid:
    """The grid of a model of this patch for pixels (B, 3, H, W) as they are: whole patches, one at least."""
    return max(1, pixels.shape[2] // patch), max(1, pixels.shape[3] // patch)


def fit_to(pixels: Tensor, grid: Grid, patch: int) -> Tensor:
    """Pixels resized so that a model of this patch sees exactly this grid: bilinear, antialiased."""
    size = (grid[0] * patch, grid[1] * patch)
    if tuple(pixels.shape[-2:]) == size:
        return pixels
    return F.interpolate(pixels, size=size, mode="bilinear", align_corners=False, antialias=True)


def between_patches(attention: Tensor, prefix: int) -> Tensor:
    """Attention (B, L, L) without the first `prefix` tokens, rows adding to 1 again."""
    patches = attention[:, prefix:, prefix:]
    return patches / patches.sum(-1, keepdim=True).clamp_min(torch.finfo(patches.dtype).tiny)
