"""Region maps: connected parts, which patches a region has, and the label of a region as a whole."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional as F


def components(mask: Tensor) -> tuple[Tensor, int]:
    """Connected parts of a mask (h, w), also by corners, numbered from 1 by their first pixel; and how many."""
    from skimage import measure  # slow to import, as is scipy, and needed only for regions

    numbered = measure.label(mask.cpu().numpy(), connectivity=2)
    return torch.from_numpy(numbered.astype(np.int64)).to(mask.device), int(numbered.max(initial=0))


def linked(near: Tensor) -> Tensor:
    """Numbers (R,) of the groups that a symmetric table (R, R) of neighbours connects."""
    from scipy.sparse import csgraph

    _, groups = csgraph.connected_components(near.cpu().numpy(), directed=False)
    return torch.from_numpy(groups.astype(np.int64)).to(near.device)


def painted(masks: Iterable[NDArray[np.bool_]], shape: tuple[int, int]) -> NDArray[np.int32]:
    """Masks (H, W) as one map of ids from 1 in their order, later ones over earlier ones; 0 where there is none."""
    ids = np.zeros(shape, np.int32)
    for number, mask in enumerate(masks, start=1):
        ids[mask] = number
    return ids


def patch_ids(ids: Tensor, patch: int) -> Tensor:
    """The most frequent id (B, h, w) in each patch of maps (B, H, W); of equally frequent ones the smallest."""
    tiles = ids.unfold(1, patch, patch).unfold(2, patch, patch).flatten(3).sort(3).values
    begins = F.pad(tiles[..., 1:] != tiles[..., :-1], (1, 0), value=False)
    runs = begins.long().cumsum(3)
    lengths = torch.zeros_like(runs).scatter_add_(3, runs, torch.ones_like(runs))
    longest = lengths.argmax(3, keepdim=True)  # runs are in ascending order, so the first is the smallest id
    return tiles.gather(3, (runs == longest).long().argmax(3, keepdim=True))[..., 0]


def numbered(ids: Tensor) -> tuple[Tensor, Tensor]:
    """Which ids there are, 0 always first, and the place of each (like ids) among them: 0 for no region."""
    names, index = torch.unique(torch.cat([ids.new_zeros(1), ids.flatten()]), return_inverse=True)
    return names, index[1:].view_as(ids)


def vote(shares: Tensor, ids: Tensor) -> Tensor:
    """Class shares (C, H, W) where each region of ids (H, W) has one: the share of its pixels that each class wins.

    The best class of a region is then that of most of its pixels. Pixels of no region (0) keep their shares.
    """
    names, index = numbered(ids)
    flat = index.flatten()
    ballots = torch.zeros(len(names), len(shares), dtype=torch.float64, device=shares.device)
    ballots.view(-1).index_add_(
        0, flat * len(shares) + shares.argmax(0).flatten(), torch.ones_like(flat, dtype=torch.float64)
    )
    won = (ballots / ballots.sum(1, keepdim=True).clamp_min(1)).to(shares.dtype)
    return torch.where(index == 0, shares, won[flat].T.unflatten(1, tuple(ids.shape)))
