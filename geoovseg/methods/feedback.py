"""ResCLIP's semantic feedback: which patches a first segmentation takes for the same thing."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

from geoovseg.models.patches import Grid
from geoovseg.ops.pamr import pamr


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
    """How much each patch should attend to each other (B, 1 + N, 1 + N), for patch labels (B, N); the class token: 0.

    Patches of one word count 1, less the farther they are when another word lies between; then smoothed along each row
    of the flattened grid, and rows made to add to 1.
    """
    same = (labels[:, :, None] == labels[:, None]).float()
    if path_check:
        steps = _steps(grid).to(labels.device)
        same = torch.where(_broken(labels, grid), same * torch.exp(-steps / steps.max().clamp(min=1)), same)
    smooth = _smooth(same, sigma).relu()
    return F.pad(smooth / (smooth.sum(-1, keepdim=True) + 1e-8), (1, 0, 1, 0))


def _smooth(rows: Tensor, sigma: float) -> Tensor:
    """A Gaussian along the last axis, at most as wide as that and odd, zeros outside."""
    count = rows.shape[-1]
    size = min(count, int(6 * sigma + 1))
    size += 1 - size % 2
    place = torch.arange(size, device=rows.device, dtype=rows.dtype) - size // 2
    kernel = torch.exp(-place.square() / (2 * sigma**2))
    return F.conv1d(rows.view(-1, 1, count), (kernel / kernel.sum())[None, None], padding=size // 2).view_as(rows)


def _places(grid: Grid) -> Tensor:
    """Row and column of every patch, (N, 2)."""
    rows, cols = torch.meshgrid(*(torch.arange(n) for n in grid), indexing="ij")
    return torch.stack([rows.flatten(), cols.flatten()], -1).float()


def _steps(grid: Grid) -> Tensor:
    """Steps between patches (N, N), diagonal ones counting one."""
    place = _places(grid)
    return (place[:, None] - place[None]).abs().amax(-1)


def _broken(labels: Tensor, grid: Grid) -> Tensor:
    """Whether another word lies on the way between patches (B, N, N), in the leading part of it.

    The segment from i to j is sampled at k / K, K being the longest way in the grid, and rounded half to even; of these
    K + 1 samples the release looks at the first `steps` + 1 only. Halves fall as they do there, where a point is
    i (1 - t) + j t in float32: in double precision other patches are looked at now and then.
    """
    place, steps = _places(grid), _steps(grid)
    longest = int(steps.max())
    shares = torch.linspace(0, 1, longest + 1)
    found = torch.zeros(len(labels), *steps.shape, dtype=torch.bool, device=labels.device)
    for k in range(1, longest + 1):
        way = (place[:, None] * (1 - shares[k]) + place[None] * shares[k]).round().long()
        index = torch.where(k <= steps, way[..., 0] * grid[1] + way[..., 1], torch.arange(len(place))[:, None])
        found |= labels[:, index.to(labels.device)] != labels[:, :, None]
    return found
