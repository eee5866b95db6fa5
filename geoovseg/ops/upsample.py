"""From the patch grid to pixels: strategies of one signature, chosen by name."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn import functional as F

from geoovseg.ops.guided import at_pixels, model_of, smoothed

Upsample = Callable[[Tensor, Tensor], Tensor]
"""Scores (B, C, h, w) and pixels (B, 3, H, W) in 0..1 to scores (B, C, H, W)."""


def bilinear(scores: Tensor, pixels: Tensor) -> Tensor:
    """Interpolate between patch centres (align_corners=False, as every released method does)."""
    if scores.shape[-2:] == pixels.shape[-2:]:
        return scores
    return F.interpolate(scores, size=pixels.shape[-2:], mode="bilinear", align_corners=False)


def mixed(one: Tensor, other: Tensor, weight: Tensor) -> Tensor:
    """Values between two, by the weight of the other; of equal ones exactly these."""
    return ((other - one) * weight).add_(one)


def guided(scores: Tensor, pixels: Tensor) -> Tensor:
    """Bilinear, and what a pixel's own colour says: around each cell, scores follow colours by a linear model.

    See `geoovseg.ops.guided`. Constant scores stay constant; memory is a few times that of the result.
    """
    if scores.shape[-2:] == pixels.shape[-2:]:
        return scores
    return torch.stack([_guided(*each) for each in zip(scores, pixels, strict=True)])


def _guided(scores: Tensor, pixels: Tensor) -> Tensor:
    """The same for one picture: scores (C, h, w) and pixels (3, H, W)."""
    grid = (scores.shape[-2], scores.shape[-1])
    known, seen = (torch.ones(size, dtype=torch.bool, device=scores.device) for size in (grid, pixels.shape[-2:]))
    picture = smoothed(pixels, seen, pixels.shape[-1] / grid[1])
    colours = F.adaptive_avg_pool2d(picture[None], grid)
    own = picture - bilinear(colours, pixels)[0]
    return at_pixels(bilinear(model_of(scores, known, colours[0], known), pixels), own)


def bilateral(scores: Tensor, pixels: Tensor) -> Tensor:
    """The same with the reach of Direct segmentation (arXiv 2604.07723, eq. 23), and no cells outside the grid.

    Where no cell looks like the pixel at all, in the numbers' range, it is bilinear. Constants are those of M2N2.
    """
    total, weights = gathered(scores, pixels, Reach(3, 1.0, 0.1), repeat_edge=False, least=0)
    tiny = torch.finfo(scores.dtype).tiny
    return torch.where(weights > tiny, total / weights.clamp_min(tiny), bilinear(scores, pixels))


class Reach(NamedTuple):
    """How far a pixel draws."""

    radius: int
    """cells on every side"""
    space: float
    """standard deviation in cells"""
    colour: float
    """standard deviation of RGB in 0..1"""


def gathered(scores: Tensor, pixels: Tensor, reach: Reach, *, repeat_edge: bool, least: float) -> tuple[Tensor, Tensor]:
    """Weighted sums (B, C, H, W) of the cells around each pixel, and of the weights (B, 1, H, W)."""
    height, width = pixels.shape[-2:]
    grid = (scores.shape[-2], scores.shape[-1])
    cells = F.adaptive_avg_pool2d(pixels, grid)
    rows, cols = _places(height, grid[0], scores), _places(width, grid[1], scores)
    total = torch.zeros(len(scores), scores.shape[1], height, width, dtype=scores.dtype, device=scores.device)
    weights = torch.zeros_like(total[:, :1])
    steps = range(-reach.radius, reach.radius + 1)
    for dy, dx in itertools.product(steps, steps):
        (r, far_r, in_r), (c, far_c, in_c) = _tap(rows, grid[0], dy), _tap(cols, grid[1], dx)
        colour = (pixels - cells[:, :, r][:, :, :, c]).square().sum(1, keepdim=True)
        space = far_r[:, None] + far_c[None, :]
        weight = torch.exp(-space / (2 * reach.space**2) - colour / (2 * reach.colour**2)) + least
        if not repeat_edge:
            weight = weight * (in_r[:, None] & in_c[None, :])
        total += weight * scores[:, :, r][:, :, :, c]
        weights += weight
    return total, weights


def _places(length: int, cells: int, like: Tensor) -> Tensor:
    """Where pixel centres lie, in cells."""
    return (torch.arange(length, device=like.device, dtype=like.dtype) + 0.5) * (cells / length)


def _tap(places: Tensor, cells: int, offset: int) -> tuple[Tensor, Tensor, Tensor]:
    """The cell `offset` steps from each pixel's own, kept inside; its squared distance in cells; if it was inside."""
    cell = places.floor().long() + offset
    kept = cell.clamp(0, cells - 1)
    return kept, (places - (kept + 0.5)).square(), kept == cell


UPSAMPLERS: dict[str, Upsample] = {"bilinear": bilinear, "guided": guided}
