"""Pixel-adaptive mask refinement (Araslanov and Roth 2020): scores follow the colours of the picture."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import torch
from torch import Tensor
from torch.nn import functional as F


def pamr(image: Tensor, scores: Tensor, *, steps: int = 10, dilations: Sequence[int] = (8, 16)) -> Tensor:
    """Scores (B, Q, h, w) refined at the resolution of `image` (B, 3, H, W): (B, Q, H, W).

    They are first resized (bilinear, align_corners=True); then, `steps` times, every pixel takes the mean of its eight
    neighbours at each dilation, weighted by likeness of colour. As released with NACLIP and ResCLIP.
    """
    scores = F.interpolate(scores, size=image.shape[-2:], mode="bilinear", align_corners=True)
    weights = affinity(image, dilations)
    for _ in range(steps):
        total = torch.zeros_like(scores)
        for weight, moved in zip(weights.unbind(1), _neighbours(scores, dilations), strict=True):
            total.addcmul_(moved, weight[:, None])
        scores = total
    return scores


def affinity(image: Tensor, dilations: Sequence[int]) -> Tensor:
    """Weights (B, 8 * dilations, H, W) of every neighbour, adding to 1.

    Softmax of the mean over channels of -|I - I_n| / (1e-8 + 0.1 std), where std is over the neighbourhoods, centres
    included, unbiased, per channel.
    """
    away = [moved - image for moved in _neighbours(image, dilations)]
    count, nothing = len(away) + len(dilations), torch.zeros_like(image)  # centres are 0 away from themselves
    mean, squares = sum(away, nothing) / count, sum((a.square() for a in away), nothing)
    std = ((squares - count * mean.square()) / (count - 1)).sqrt()
    sharpness = -1 / (image.shape[1] * (1e-8 + 0.1 * std))
    return torch.stack([(a.abs() * sharpness).sum(1) for a in away], dim=1).softmax(1)


def _neighbours(x: Tensor, dilations: Sequence[int]) -> Iterator[Tensor]:
    """Tensors (B, C, H, W) moved by each neighbour's offset, edges repeated."""
    height, width = x.shape[-2:]
    for d in dilations:
        padded = F.pad(x, (d, d, d, d), mode="replicate")
        for row in range(3):
            for col in range(3):
                if (row, col) != (1, 1):
                    yield padded[..., row * d : row * d + height, col * d : col * d + width]
