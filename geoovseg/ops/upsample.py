"""From the patch grid to pixels: strategies of one signature, chosen by name."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn import functional as F

Upsample = Callable[[Tensor, Tensor], Tensor]
"""Scores (B, C, h, w) and pixels (B, 3, H, W) in 0..1 to scores (B, C, H, W)."""

RADIUS = 2
"""Cells on every side of which `guided` learns how scores follow colours."""
RIDGE = 1e-3
"""What is added to the variances of colours there (RGB in 0..1), so that little variance says little."""
SHARE = 0.75
"""How much of what colours say counts."""
SMOOTH = 1 / 8
"""Standard deviation, in cells, by which the picture is smoothed first."""


def bilinear(scores: Tensor, pixels: Tensor) -> Tensor:
    """Interpolate between patch centres (align_corners=False, as every released method does)."""
    if scores.shape[-2:] == pixels.shape[-2:]:
        return scores
    return F.interpolate(scores, size=pixels.shape[-2:], mode="bilinear", align_corners=False)


def guided(scores: Tensor, pixels: Tensor) -> Tensor:
    """Bilinear, and what a pixel's own colour says: around each cell, scores follow colours by a linear model.

    With s and m the scores and mean colours of cells, over a square of 2 RADIUS + 1 cells:

        slope = (cov(m, m) + RIDGE I)^-1 cov(m, s);  out = bilinear(s) + SHARE bilinear(slope) . (colour - bilinear(m))

    kept within the scores of the cells next to a pixel's. The model is that of the guided filter (He et al. 2013), on
    cells; the constants are those that were best on real aerial pairs (docs/benchmarks.md). Constant scores stay
    constant; memory is a few times that of the result.
    """
    if scores.shape[-2:] == pixels.shape[-2:]:
        return scores
    grid = (scores.shape[-2], scores.shape[-1])
    picture = _smoothed(pixels, SMOOTH * pixels.shape[-1] / grid[1])
    colours = F.adaptive_avg_pool2d(picture, grid)
    found, slopes = bilinear(scores, pixels), _slopes(scores, colours)
    for channel in range(3):
        own = picture[:, channel, None] - bilinear(colours[:, channel, None], pixels)
        found = found + SHARE * own * bilinear(slopes[:, channel], pixels)
    around = F.pad(scores, (1, 1, 1, 1), mode="replicate")
    most, least = F.max_pool2d(around, 3, 1), -F.max_pool2d(-around, 3, 1)
    return found.clamp(bilinear(least, pixels), bilinear(most, pixels))


def _slopes(scores: Tensor, colours: Tensor) -> Tensor:
    """How scores (B, C, h, w) follow mean colours (B, 3, h, w) of cells around each: (B, 3, C, h, w)."""
    mean_colour, mean_score = _around(colours), _around(scores)
    cross = _around((colours[:, :, None] * scores[:, None]).flatten(1, 2)).unflatten(1, (3, -1))
    own = _around((colours[:, :, None] * colours[:, None]).flatten(1, 2)).unflatten(1, (3, 3))
    cross = cross - mean_colour[:, :, None] * mean_score[:, None]
    own = own - mean_colour[:, :, None] * mean_colour[:, None]
    ridge = RIDGE * torch.eye(3, dtype=own.dtype, device=own.device)
    solved = torch.linalg.solve(own.movedim((1, 2), (-2, -1)) + ridge, cross.movedim((1, 2), (-2, -1)))
    return solved.movedim((-2, -1), (1, 2))


def _around(values: Tensor) -> Tensor:
    """Means over the square of cells around each; beyond the edge are those at it."""
    return F.avg_pool2d(F.pad(values, (RADIUS,) * 4, mode="replicate"), 2 * RADIUS + 1, 1)


def _smoothed(pixels: Tensor, sigma: float) -> Tensor:
    """A picture without its finest noise: a Gaussian, by shifted sums, so that one does not depend on others beside."""
    reach = math.ceil(3 * sigma)
    weights = [math.exp(-(at**2) / (2 * sigma**2)) for at in range(-reach, reach + 1)]
    for dim in (2, 3):
        pad = (reach, reach, 0, 0) if dim == 3 else (0, 0, reach, reach)
        padded, length = F.pad(pixels, pad, mode="replicate"), pixels.shape[dim]
        total = torch.zeros_like(pixels)
        for first, weight in enumerate(weights):
            total += weight / sum(weights) * padded.narrow(dim, first, length)
        pixels = total
    return pixels


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
