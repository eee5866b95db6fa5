"""Methods that differ only in how CLIP's last block mixes its tokens: CLIP, MaskCLIP, ClearCLIP, SegEarth-OV."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import KW_ONLY, dataclass
from typing import Any, ClassVar, Literal

import torch
from rasterio.windows import Window
from torch import Tensor
from torch.nn import functional as F

from geoovseg.methods import Method, read_settings
from geoovseg.models.vit import ClipVit, Grid
from geoovseg.ops import attention
from geoovseg.ops.attention import Mix
from geoovseg.scene import TileBatch
from geoovseg.vocabulary import Vocabulary


def dense_features(clip: ClipVit, pixels: Tensor, mix: Mix, *, residual: bool) -> tuple[Tensor, Tensor, Grid]:
    """Patch features (B, h * w, D), class-token feature (B, D), neither normalised, and the grid (h, w).

    With `residual` the last block keeps its skip connections and feed-forward part; without, its output is the
    attention's alone (ClearCLIP, section 3.3). The class token is that of the block as mixed.
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


def cosines(features: Tensor, text: Tensor) -> Tensor:
    """Features (..., D), any length, against unit text features (Q, D): (..., Q), in float32."""
    return F.normalize(features.float(), dim=-1) @ text.T


@dataclass(frozen=True)
class LastBlock:
    """What the four share: one pass through the tower, the last block under `mix`, cosines with the words."""

    clip: ClipVit
    text: Tensor
    """unit word features (Q, D), on the model's device"""
    mix: Mix
    _: KW_ONLY
    residual: bool
    scale: float
    class_token_weight: float = 0.0

    unit: ClassVar[Literal["cosine"]] = "cosine"

    @property
    def patch(self) -> int:
        """What the tile must be a multiple of."""
        return self.clip.patch

    @property
    def tile(self) -> int:
        """The side the model was trained on."""
        return self.clip.native_grid[0] * self.clip.patch

    @property
    def stride(self) -> int:
        """Half a tile, as in the releases (224 and 112)."""
        return max(1, self.tile // 2)

    def prepare(self, read: Callable[[Window], TileBatch]) -> None:
        """Nothing: every window is seen on its own."""

    @torch.inference_mode()
    def features(self, pixels: Tensor) -> tuple[Tensor, Tensor, Grid]:
        """Patch features (B, h * w, D), class-token feature (B, D) and grid of pixels (B, 3, H, W) in 0..1."""
        return dense_features(self.clip, pixels, self.mix, residual=self.residual)

    @torch.inference_mode()
    def scores(self, batch: TileBatch) -> Tensor:
        """Cosines (B, Q, h, w) of patches and words, plus the weighted cosine of the class token where it counts.

        The class token's term is SegEarth-OV's global bias (section 3.5), a score all patches of a window share.
        """
        pixels = torch.from_numpy(batch.pixels).to(self.clip.device, non_blocking=True)
        features, cls, grid = self.features(pixels)
        scores = cosines(features, self.text)  # (B, N, Q)
        if self.class_token_weight:
            scores = scores + self.class_token_weight * cosines(cls, self.text)[:, None]
        return scores.mT.unflatten(2, grid)


def _builder(name: str, mix: Mix) -> Callable[..., LastBlock]:
    """What the card of `name` points to; its fields' defaults stand in the card."""

    def build(
        clip: ClipVit,
        text: Tensor,
        vocabulary: Vocabulary,
        *,
        vfm: Any = None,
        sam: Any = None,
        base: Method | None = None,
        **fields: Any,
    ) -> LastBlock:
        values: dict[str, Any] = read_settings(name, fields)
        return LastBlock(clip, text, mix, **values)

    return build


clip = _builder("clip", attention.clip)
maskclip = _builder("maskclip", attention.maskclip)
clearclip = _builder("clearclip", attention.clearclip)
segearth = _builder("segearth", attention.segearth)
