"""Methods that differ in how CLIP's last block mixes its tokens: CLIP, SCLIP, ClearCLIP, NACLIP, SegEarth-OV."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from torch import Tensor

from geoovseg.methods.builder import builder
from geoovseg.methods.dense import DenseMethod, Features, last_block
from geoovseg.models.vit import ClipVit
from geoovseg.ops import attention
from geoovseg.ops.attention import Policy, anywhere


@dataclass(frozen=True)
class LastBlock:
    """One pass through the tower, the last block under a policy, with or without its residual part."""

    clip: ClipVit
    policy: Policy
    residual: bool

    def __call__(self, pixels: Tensor) -> Features:
        """Features of the windows; the class token's is that of the block as mixed."""
        x, grid = self.clip.trunk(pixels)
        features = last_block(self.clip, x, self.policy(grid), residual=self.residual)
        return Features(features[:, 1:], features[:, 0], grid)


def _builder(name: str, policy: Callable[..., Policy]) -> Callable[..., DenseMethod]:
    """`policy` is given the settings that are not everyone's."""

    def make(
        clip: ClipVit, text: Tensor, *, residual: bool, scale: float, class_token_weight: float = 0.0, **values: Any
    ) -> DenseMethod:
        encoder = LastBlock(clip, policy(**values), residual)
        return DenseMethod(encoder, text, scale=scale, class_token_weight=class_token_weight)

    return builder(name, make)


def _naclip(mixing: str, sigma: float) -> Policy:
    """NACLIP and the ablations of its release."""
    return {
        "naclip": attention.naclip(sigma),
        "kk": anywhere(attention.kk),
        "csa": anywhere(attention.sclip),
        "vanilla": anywhere(attention.clip),
        "nonly": attention.neighbours_only(sigma),
    }[mixing]


clip = _builder("clip", lambda: anywhere(attention.clip))
sclip = _builder("sclip", lambda: anywhere(attention.sclip))
clearclip = _builder("clearclip", lambda: anywhere(attention.clearclip))
segearth = _builder("segearth", lambda: anywhere(attention.segearth))
naclip = _builder("naclip", _naclip)
