"""Methods that differ only in how CLIP's last block mixes its tokens: CLIP, MaskCLIP, ClearCLIP, SegEarth-OV."""

from __future__ import annotations

from torch import Tensor

from geoovseg.models.vit import ClipVit, Grid
from geoovseg.ops.attention import Mix


def dense_features(clip: ClipVit, pixels: Tensor, mix: Mix, *, residual: bool) -> tuple[Tensor, Tensor, Grid]:
    """Patch features (B, h * w, D), class-token feature (B, D), neither normalised, and the grid (h, w).

    With `residual` the last block keeps its skip connections and feed-forward part; without, its output is the
    attention's alone (ClearCLIP, section 3.3).
    """
    x, grid = clip.trunk(pixels)
    features = last_block(clip, x, mix, residual=residual)
    return features[:, 1:], features[:, 0], grid


def last_block(clip: ClipVit, x: Tensor, mix: Mix, *, residual: bool) -> Tensor:
    """The last block on its input x (B, L, E) under `mix`, read out for every token: (B, L, D)."""
    last = clip.depth - 1
    if residual:
        return clip.readout(clip.block(last, x, mix))
    return clip.readout(clip.merge(last, mix(*clip.qkv(last, x))))
