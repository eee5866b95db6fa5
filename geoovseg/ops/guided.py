"""Scores that follow colours: around every cell a linear model of how they do, which says more of pixels than cells.

With s the scores and m the mean colours of cells, over the cells within RADIUS of one:

    slope = (cov(m, m) + RIDGE I)^-1 cov(m, s);  score of a pixel = s + SHARE slope . (its colour - m),

s, slope and m interpolated between cells, kept within the scores of the cells next to the pixel's. The model is that of
the guided filter (He et al. 2013), on cells; the constants are those that were best on real aerial pairs
(docs/benchmarks.md). Cells without data do not count. All sums are taken in one order, so that a cell, or a pixel,
depends on nothing but what is around it.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor
from torch.nn import functional as F

RADIUS = 2  # as windows.plan.REACH says for those who load no torch
"""Cells on every side from which it is learned how scores follow colours."""
RIDGE = 1e-3
"""What is added to the variances of colours there (RGB in 0..1), so that little variance says little."""
SHARE = 0.75
"""How much of what colours say counts."""
FIELDS = 6
"""What the model has for a cell and a class: its score, three slopes, the least and the most around."""
SMOOTH = 1 / 8
"""Standard deviation, in cells, by which the picture is smoothed first."""


def reach_of(side: float) -> int:
    """Pixels on every side that a smoothed one is made of, for cells of a side."""
    return math.ceil(2 * SMOOTH * side)


def smoothed(pixels: Tensor, valid: Tensor, side: float) -> Tensor:
    """A picture (3, h, w) without its finest noise: a Gaussian over pixels with data (h, w)."""
    sigma, reach = SMOOTH * side, reach_of(side)
    weights = [math.exp(-(at**2) / (2 * sigma**2)) for at in range(reach + 1)]
    known = valid.to(pixels.dtype)
    whole = bool(valid.all())
    found, share = (pixels, known[None, : 2 * reach + 1, : 2 * reach + 1]) if whole else (pixels * known, known[None])
    for dim in (1, 2):
        found, share = _along(found, dim, weights), _along(share, dim, weights)
        if whole:  # away from the edge it is the same everywhere
            share = share.index_select(dim, _inwards(pixels.shape[dim], reach, share.device))
    return found.div_(share.clamp_min_(torch.finfo(pixels.dtype).tiny))


def _inwards(length: int, reach: int, device: torch.device) -> Tensor:
    """For places on a line, those on one of at most 2 reach + 1 as far from its ends, or farther than reach."""
    place = torch.arange(length, device=device)
    return torch.where(place < reach, place, (place - max(0, length - 2 * reach - 1)).clamp_min(reach))


def _along(values: Tensor, dim: int, weights: list[float]) -> Tensor:
    """Weighted sums of what lies around along a dimension, the same on both sides; beyond the edge is nothing."""
    reach, length = len(weights) - 1, values.shape[dim]
    padded = F.pad(values, (reach, reach) if dim == values.ndim - 1 else (0, 0, reach, reach))
    total = padded.narrow(dim, reach, length) * weights[0]
    both = torch.empty_like(total)
    for at, weight in enumerate(weights[1:], start=1):
        torch.add(padded.narrow(dim, reach - at, length), padded.narrow(dim, reach + at, length), out=both)
        total += both if weight == 1 else both.mul_(weight)
    return total


def colours_of(picture: Tensor, valid: Tensor, side: int) -> tuple[Tensor, Tensor]:
    """Mean colours (3, n, m) of whole cells over their pixels with data, and which have any (n, m)."""
    known = valid.to(picture.dtype)
    sums = torch.cat([picture * known, known[None]])
    down = _summed(sums.unflatten(1, (-1, side)), 2)
    sums = _summed(down.unflatten(2, (-1, side)), 3)
    return sums[:3] / sums[3:].clamp_min(1), sums[3] > 0


def _summed(values: Tensor, dim: int) -> Tensor:
    """Sums over a dimension, one after the other."""
    total = values.select(dim, 0).clone()
    for at in range(1, values.shape[dim]):
        total += values.select(dim, at)
    return total


def model_of(scores: Tensor, known: Tensor, colours: Tensor, seen: Tensor) -> Tensor:
    """How scores (C, n, m) of cells follow colours (3, n, m): (6, C, n, m).

    These are the scores, SHARE times their slopes along red, green and blue, and the least and the most that is around.
    `known` (n, m) tells which cells have scores, `seen` which have colours.
    """
    slopes = _slopes(scores, colours, (known & seen).to(scores.dtype))
    found = torch.cat([scores[None], slopes * SHARE, -_most(-scores, known)[None], _most(scores, known)[None]])
    return torch.where(known, found, 0)


def at_pixels(fields: Tensor, own: Tensor) -> Tensor:
    """Scores at pixels, of the model at them (6, ...) and how their colours differ from those of cells (3, ...)."""
    found = (own[0] * fields[1]).add_(fields[0])
    found += own[1] * fields[2]
    found += own[2] * fields[3]
    torch.maximum(found, fields[4], out=found)
    return torch.minimum(found, fields[5], out=found)


def _slopes(scores: Tensor, colours: Tensor, weight: Tensor) -> Tensor:
    """How scores follow colours around each cell (3, C, n, m), of cells that count (n, m) by 1 or 0."""
    count = _around(weight[None])[0].clamp_min(1)
    mean = _around(colours * weight) / count
    score = _around(scores * weight) / count
    cross = [_around(scores * (colours[n] * weight)) / count - mean[n] * score for n in range(3)]
    pairs = {
        (n, k): _around((colours[n] * colours[k] * weight)[None])[0] / count - mean[n] * mean[k]
        for n in range(3)
        for k in range(n, 3)
    }
    return _solved(pairs, cross)


def _solved(pairs: dict[tuple[int, int], Tensor], right: list[Tensor]) -> Tensor:
    """(cov + RIDGE I)^-1 right, for all cells, by the square root free Cholesky decomposition."""
    first = pairs[0, 0] + RIDGE
    below, last = pairs[0, 1] / first, pairs[0, 2] / first
    second = pairs[1, 1] + RIDGE - below * pairs[0, 1]
    rest = pairs[1, 2] - last * pairs[0, 1]
    between = rest / second
    third = pairs[2, 2] + RIDGE - last * pairs[0, 2] - between * rest
    one = right[1] - below * right[0]
    two = right[2] - last * right[0] - between * one
    blue = two / third
    green = one / second - between * blue
    return torch.stack([right[0] / first - below * green - last * blue, green, blue])


def _around(values: Tensor) -> Tensor:
    """Sums over the square of cells around each; beyond the edge is nothing."""
    for dim in (1, 2):
        values = _along(values, dim, [1.0] * (RADIUS + 1))
    return values


def _most(scores: Tensor, known: Tensor) -> Tensor:
    """The most (C, n, m) among the known cells next to each, and itself."""
    lowest = torch.finfo(scores.dtype).min
    around = F.pad(torch.where(known, scores, lowest), (1, 1, 1, 1), value=lowest)
    down = torch.maximum(torch.maximum(around[:, :-2], around[:, 1:-1]), around[:, 2:])
    return torch.maximum(torch.maximum(down[..., :-2], down[..., 1:-1]), down[..., 2:])
