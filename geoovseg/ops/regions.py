"""Region maps: connected parts, which patches a region has, and the label of a region as a whole."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.sparse import csgraph
from skimage import measure
from torch import Tensor


def components(mask: Tensor) -> tuple[Tensor, int]:
    """Connected parts of a mask (h, w), also by corners, numbered from 1 by their first pixel; and how many."""
    numbered = measure.label(mask.cpu().numpy(), connectivity=2)
    return torch.from_numpy(numbered.astype(np.int64)).to(mask.device), int(numbered.max(initial=0))


def linked(near: Tensor) -> Tensor:
    """Numbers (R,) of the groups that a symmetric table (R, R) of neighbours connects."""
    _, groups = csgraph.connected_components(near.cpu().numpy(), directed=False)
    return torch.from_numpy(groups.astype(np.int64)).to(near.device)


def painted(masks: Sequence[NDArray[np.bool_]], shape: tuple[int, int]) -> NDArray[np.int32]:
    """Masks (H, W) as one map of ids from 1 in their order, later ones over earlier ones; 0 where there is none."""
    ids = np.zeros(shape, np.int32)
    for number, mask in enumerate(masks, start=1):
        ids[mask] = number
    return ids


def patch_ids(ids: Tensor, patch: int) -> Tensor:
    """The most frequent id (B, h, w) in each patch of maps (B, H, W); of equally frequent ones the smallest."""
    tiles = ids.unfold(1, patch, patch).unfold(2, patch, patch).flatten(3)
    names, index = torch.unique(tiles, return_inverse=True)
    votes = torch.zeros(*tiles.shape[:3], len(names), device=ids.device)
    votes.scatter_add_(3, index, torch.ones_like(index, dtype=votes.dtype))
    return names[votes.argmax(3)]


def vote(shares: Tensor, ids: Tensor) -> Tensor:
    """Class shares (C, H, W) where each region of ids (H, W) has one: the share of its pixels that each class wins.

    The best class of a region is then that of most of its pixels. Pixels of the smallest id keep their shares: it
    stands for what belongs to no region.
    """
    names, index = torch.unique(ids, return_inverse=True)
    flat = index.flatten()
    ballots = torch.zeros(len(names), len(shares), dtype=torch.float64, device=shares.device)
    ballots.view(-1).index_add_(
        0, flat * len(shares) + shares.argmax(0).flatten(), torch.ones_like(flat, dtype=torch.float64)
    )
    won = (ballots / ballots.sum(1, keepdim=True)).to(shares.dtype)
    return torch.where(index == 0, shares, won[flat].T.unflatten(1, tuple(ids.shape)))
