"""MaskCLIP (Zhou et al. 2022): every patch keeps its own value; with the release's two refinements of scores."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F

from geoovseg.methods.builder import builder
from geoovseg.methods.dense import DenseMethod, Features, last_block
from geoovseg.models.vit import ClipVit
from geoovseg.ops import attention
from geoovseg.ops.attention import Policy

SHARPEN = 100.0
"""Factor on cosines before the softmaxes of both refinements (release, maskclip_head.py)."""


@dataclass(frozen=True)
class MaskClip:
    """The last block with the identity for attention; keys are kept for smoothing."""

    clip: ClipVit
    residual: bool
    original: bool
    """positions and padding of the mmseg release instead of those of later papers"""

    @property
    def policy(self) -> Policy | None:
        """The identity, for methods that change the last block further; none where the trunk is another."""
        return None if self.original else attention.anywhere(attention.maskclip)

    def __call__(self, pixels: Tensor) -> Features:
        """Features of the windows, and the keys after the output projection as the release smooths with them."""
        clip, last = self.clip, self.clip.depth - 1
        whole = clip.pad(pixels) if self.original else pixels
        x, grid = clip.trunk(whole, "size" if self.original else "offset")
        features = last_block(clip, x, attention.maskclip, residual=self.residual)
        keys = clip.merge(last, clip.qkv(last, x)[1])
        return Features(features[:, 1:], features[:, 0], grid, keys[:, 1:])


@dataclass(frozen=True)
class Refinement:
    """Prompt denoising and key smoothing (maskclip_head.py; both commented out in the release's configurations)."""

    denoise: float
    smooth: float

    def __call__(self, scores: Tensor, features: Features) -> Tensor:
        """Refined scores (B, N, Q): words no patch is sure of at -100, unsure patches drawn from those with like keys.

        With smoothing, scores are probabilities or sums of them: only their order counts. The release normalises
        keys over the patches, not over the channels.
        """
        if self.denoise:
            best = (scores * SHARPEN).softmax(-1).amax(1, keepdim=True)  # (B, 1, Q)
            scores = torch.where(best < self.denoise, -100.0, scores)
        if self.smooth and features.keys is not None:
            scores = (scores * SHARPEN).softmax(-1)
            keys = F.normalize(features.keys.float(), dim=1)
            unsure = scores.amax(-1, keepdim=True) < self.smooth
            scores = torch.where(unsure, keys @ (keys.mT @ scores), scores)
        return scores


def _make(
    clip: ClipVit, text: Tensor, *, residual: bool, scale: float, original: bool, denoise: float, smooth: float
) -> DenseMethod:
    refine = Refinement(denoise, smooth) if denoise or smooth else None
    return DenseMethod(MaskClip(clip, residual, original), text, scale=scale, refine=refine)


build = builder("maskclip", _make)
