"""From the patch grid to pixels: strategies of one signature, chosen by name."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor
from torch.nn import functional as F

Upsample = Callable[[Tensor, Tensor], Tensor]
"""Scores (B, C, h, w) and pixels (B, 3, H, W) in 0..1 to scores (B, C, H, W)."""

RADIUS = 2
"""Cells on every side that a pixel may draw from."""
SIGMA_SPACE = 0.7
"""Spatial reach of `guided`, in cells."""
SIGMA_COLOUR = 0.08
"""Colour difference (Euclidean, RGB in 0..1) at which a cell's weight falls to 0.61."""


def bilinear(scores: Tensor, pixels: Tensor) -> Tensor:
    """Interpolate between patch centres (align_corners=False, as every released method does)."""
    if scores.shape[-2:] == pixels.shape[-2:]:
        return scores
    return F.interpolate(scores, size=pixels.shape[-2:], mode="bilinear", align_corners=False)


def guided(scores: Tensor, pixels: Tensor) -> Tensor:
    """Joint bilateral upsampling (Kopf et al. 2007, eq. 3): a pixel draws from near cells that look like it.

    The guide of a cell is its mean colour. Weights are positive and normalised, so constant scores stay constant.
    Works tap by tap: memory is a few times that of the result.
    """
    height, width = pixels.shape[-2:]
    grid = (scores.shape[-2], scores.shape[-1])
    cells = F.adaptive_avg_pool2d(pixels, grid)
    rows, cols = _places(height, grid[0], scores), _places(width, grid[1], scores)
    total = torch.zeros(len(scores), scores.shape[1], height, width, dtype=scores.dtype, device=scores.device)
    weights = torch.zeros_like(total[:, :1])
    for dy in range(-RADIUS, RADIUS + 1):
        for dx in range(-RADIUS, RADIUS + 1):
            (r, far_r), (c, far_c) = _tap(rows, grid[0], dy), _tap(cols, grid[1], dx)
            colour = (pixels - cells[:, :, r][:, :, :, c]).square().sum(1, keepdim=True)
            space = far_r[:, None] + far_c[None, :]
            weight = torch.exp(-space / (2 * SIGMA_SPACE**2) - colour / (2 * SIGMA_COLOUR**2)) + 1e-12
            total += weight * scores[:, :, r][:, :, :, c]
            weights += weight
    return total / weights


def _places(length: int, cells: int, like: Tensor) -> Tensor:
    """Where pixel centres lie, in cells."""
    return (torch.arange(length, device=like.device, dtype=like.dtype) + 0.5) * (cells / length)


def _tap(places: Tensor, cells: int, offset: int) -> tuple[Tensor, Tensor]:
    """The cell `offset` steps from each pixel's own, kept inside, and its squared distance in cells."""
    cell = (places.floor().long() + offset).clamp(0, cells - 1)
    return cell, (places - (cell + 0.5)).square()


UPSAMPLERS: dict[str, Upsample] = {"bilinear": bilinear, "guided": guided}
