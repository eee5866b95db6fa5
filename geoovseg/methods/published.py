"""The releases' whole-image protocol, for comparing with published numbers; the tool's own pipeline does not use it.

Differences on purpose: uniform mean over windows, zero padding, softmax over all words and then the best word.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor
from torch.nn import functional as F

from geoovseg.tiling import origins

Scores = Callable[[Tensor], Tensor]
"""A normalised window (B, 3, H, W) to logits (B, Q, H, W) at its size."""


def pad_to_patch(image: Tensor, patch: int) -> tuple[Tensor, tuple[int, int]]:
    """Zero-pad (B, 3, H, W) to multiples of the patch, centred, the odd pixel right and below; and (top, left).

    As SegEarth-OV and ClearCLIP; zero is the mean colour, since the image is normalised already.
    """
    height, width = image.shape[-2:]
    dy, dx = -height % patch, -width % patch
    top, left = dy // 2, dx // 2
    return F.pad(image, (left, dx - left, top, dy - top)), (top, left)


def slide(image: Tensor, scores: Scores, *, crop: int, stride: int, patch: int) -> Tensor:
    """Logits (B, Q, H, W) of a normalised image: plain mean over windows, the last one shifted back inside.

    As SegEarth-OV and ClearCLIP: a window that is no multiple of the patch is zero-padded and its logits cut back.
    """
    height, width = image.shape[-2:]
    total: Tensor | None = None
    count = torch.zeros(1, 1, height, width, device=image.device)
    for row in origins(height, crop, stride):
        for col in origins(width, crop, stride):
            box = (..., slice(row, row + crop), slice(col, col + crop))
            window = image[box]
            padded, (top, left) = pad_to_patch(window, patch)
            logits = scores(padded)[..., top : top + window.shape[-2], left : left + window.shape[-1]]
            total = torch.zeros(*logits.shape[:2], height, width, device=image.device) if total is None else total
            total[box] += logits
            count[box] += 1
    assert total is not None  # there is always one window
    return total / count


def predict(
    logits: Tensor, groups: Sequence[int], *, scale: float, threshold: float = 0.0, background: int = 0
) -> tuple[Tensor, Tensor]:
    """Labels (B, H, W) and class probabilities (B, C, H, W) of query logits (B, Q, H, W), as the releases post-process.

    Softmax over all words, then the best word of each class (`groups` counts them, in order), no renormalisation;
    where the best class stays below `threshold` the label is `background`.
    """
    shares = torch.softmax(logits * scale, dim=1)
    classes = torch.stack([g.amax(dim=1) for g in shares.split(list(groups), dim=1)], dim=1)
    best, labels = classes.max(dim=1)
    return torch.where(best < threshold, background, labels), classes
