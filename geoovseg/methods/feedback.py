"""ResCLIP's semantic feedback: which patches a first segmentation takes for the same thing."""

from __future__ import annotations

from functools import lru_cache

import torch
from torch import Tensor
from torch.nn import functional as F

from geoovseg.ops.pamr import pamr

Grid = tuple[int, int]


def word_shares(scores: Tensor, image: Tensor, scale: float) -> Tensor:
    """Cosines (B, Q, h, w) of a first pass to shares of the words at pixels (B, Q, H, W), adding to 1.

    Bilinear, refined by the colours of the normalised image (B, 3, H, W), softmax at `scale`.
    """
    fine = F.interpolate(scores, size=image.shape[-2:], mode="bilinear", align_corners=False)
    return (pamr(image, fine) * scale).softmax(1)


def surest_word(shares: Tensor, sure: float) -> Tensor:
    """The best word of every pixel (B, H, W); the first word where none reaches `sure`."""
    best, words = shares.max(1)
    return torch.where(best < sure, 0, words)


def patch_labels(words: Tensor, grid: Grid, patch: int, count: int) -> Tensor:
    """The commonest word (B, N) of the pixels (B, H, W) of every patch, the first of equals."""
    cut = words[:, : grid[0] * patch, : grid[1] * patch]
    pixels = cut.unflatten(2, (grid[1], patch)).unflatten(1, (grid[0], patch)).transpose(2, 3).flatten(3).flatten(1, 2)
    votes = torch.zeros(*pixels.shape[:2], count, dtype=torch.int32, device=words.device)
    votes.scatter_add_(2, pixels, torch.ones_like(pixels, dtype=torch.int32))
    return votes.argmax(2)


def feedback(labels: Tensor, grid: Grid, sigma: float, *, path_check: bool) -> Tensor:
    """How much each patch should attend to each other (1 + N, 1 + N), for patch labels (N,); the class token's is 0.

    Patches of one word count 1, less the farther they are when another word lies between; then smoothed along each row
    of the flattened grid, and rows made to add to 1.
    """
    same = (labels[:, None] == labels[None]).float()
    if path_check:
        between, steps, longest = (t.to(labels.device) for t in _paths(grid))
        broken = (labels[between] != labels[:, None, None]).any(-1)
        same = torch.where(broken, same * torch.exp(-steps / longest.clamp(min=1)), same)
    smooth = _smooth(same, sigma).relu()
    rows = smooth / (smooth.sum(-1, keepdim=True) + 1e-8)
    return F.pad(rows, (1, 0, 1, 0))


def _smooth(rows: Tensor, sigma: float) -> Tensor:
    """A Gaussian along the last axis, at most as wide as that and odd, zeros outside."""
    size = min(rows.shape[-1], int(6 * sigma + 1))
    size += 1 - size % 2
    place = torch.arange(size, device=rows.device, dtype=rows.dtype) - size // 2
    kernel = torch.exp(-place.square() / (2 * sigma**2))
    return F.conv1d(rows[:, None], (kernel / kernel.sum())[None, None], padding=size // 2)[:, 0]


@lru_cache(maxsize=4)
def _paths(grid: Grid) -> tuple[Tensor, Tensor, Tensor]:
    """For every pair of patches: patches on the way (N, N, K + 1), steps between them (N, N); and the longest way K.

    The segment from i to j is sampled at k / K and rounded half to even; of these K + 1 samples the release looks at
    the first `steps` + 1 only, that is at the leading part of the segment. The rest are i itself here.
    """
    rows, cols = torch.meshgrid(*(torch.arange(n) for n in grid), indexing="ij")
    place = torch.stack([rows.flatten(), cols.flatten()], -1).double()  # (N, 2)
    steps = (place[:, None] - place[None]).abs().amax(-1)
    longest = steps.max()
    k = torch.arange(int(longest) + 1)
    t = (k / longest.clamp(min=1))[:, None]
    way = (place[:, None, None] + t * (place[None, :, None] - place[:, None, None])).round().long()
    index = way[..., 0] * grid[1] + way[..., 1]
    own = torch.arange(len(place))[:, None, None]
    return torch.where(k <= steps[..., None], index, own), steps.float(), longest.float()
