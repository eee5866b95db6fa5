"""What most methods are: dense features of an image, compared with words."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import KW_ONLY, dataclass
from typing import ClassVar, Literal, NamedTuple, Protocol

import torch
from rasterio.windows import Window
from torch import Tensor
from torch.nn import functional as F

from geoovseg.methods import Cost, Trial
from geoovseg.models.vit import ClipVit, Grid
from geoovseg.ops.attention import Mix
from geoovseg.ops.pixels import on_device
from geoovseg.windows.batch import TileBatch

PAPER_DEPTH = 12
"""Blocks of the towers most methods were published with."""


class Features(NamedTuple):
    """What an image tower says of every patch; nothing is normalised."""

    patches: Tensor
    """(B, h * w, D), row by row"""
    cls: Tensor | None
    """the class token's (B, D), for methods that have one"""
    grid: Grid
    keys: Tensor | None = None
    """the last block's keys (B, h * w, E), for methods that smooth scores with them"""


class Encoder(Protocol):
    """A paper's way from pixels (B, 3, H, W), RGB in 0..1, to features."""

    @property
    def clip(self) -> ClipVit:
        """The tower it walks."""

    def __call__(self, pixels: Tensor) -> Features:
        """Features of the windows, each seen on its own."""


Compare = Callable[[Tensor, Grid, Tensor, Tensor], Tensor]
"""Patch features (B, N, D), their grid, normalised pixels and unit text (Q, D) to cosines (B, Q, h, w)."""
Refine = Callable[[Tensor, Features], Tensor]
"""Scores (B, N, Q) and the features they come from to better scores (B, N, Q)."""


def cosines(features: Tensor, text: Tensor) -> Tensor:
    """Features (..., D), any length, against unit text features (Q, D): (..., Q), in float32."""
    return F.normalize(features.float(), dim=-1) @ text.T


def on_the_grid(patches: Tensor, grid: Grid, image: Tensor, text: Tensor) -> Tensor:
    """Cosines of the patches themselves (B, Q, h, w), to be brought to pixels later."""
    return cosines(patches, text).mT.unflatten(2, grid)


@dataclass(frozen=True)
class DenseMethod:
    """A method that scores a window by the cosines of its features with the words."""

    encoder: Encoder
    text: Tensor
    """unit word features (Q, D), on the model's device"""
    _: KW_ONLY
    scale: float
    class_token_weight: float = 0.0
    side: float = 1.0
    """of windows, by the side the tower was trained on"""
    refine: Refine | None = None
    compare: Compare = on_the_grid
    """where features become scores: on the patch grid, or at pixels by an upsampler of features"""
    of_words: bool = False
    """whether features depend on the words"""

    unit: ClassVar[Literal["cosine"]] = "cosine"
    at_once: ClassVar[None] = None
    windows: ClassVar[None] = None

    @property
    def clip(self) -> ClipVit:
        """The tower."""
        return self.encoder.clip

    @property
    def notes(self) -> tuple[str, ...]:
        """What the run record should say beyond the settings."""
        return tuple(getattr(self.encoder, "notes", ()))

    @property
    def patch(self) -> int:
        """What the tile must be a multiple of."""
        return self.clip.patch

    @property
    def cell(self) -> int:
        """The side of a patch that has a vector of its own; 0 where scores are not linear in the words."""
        linear = self.refine is None and self.compare is on_the_grid and not self.of_words
        return int(getattr(self.encoder, "cell", self.clip.patch)) if linear else 0

    @property
    def depth(self) -> int:
        """Numbers of a vector."""
        return int(self.text.shape[1])

    @property
    def tile(self) -> int:
        """The side the model was trained on, or what the method was published with."""
        return round(self.side * self.clip.native_grid[0]) * self.clip.patch

    @property
    def stride(self) -> int:
        """Half a tile, as in the releases (224 and 112)."""
        return max(1, self.tile // 2)

    @property
    def at_pixels(self) -> bool:
        """Whether an upsampler of features compares them at pixels."""
        return self.compare is not on_the_grid

    def cost(self, tile: tuple[int, int]) -> Cost:
        """Nothing that is kept for a window."""
        return Cost(0.0, 0.0, (Trial(tile, 0, 1, self.scores),))

    def prepare(self, read: Callable[[Window], TileBatch], shape: tuple[int, int]) -> dict[str, Tensor]:
        """Nothing: every window is seen on its own."""
        return {}

    def use(self, prepared: Mapping[str, Tensor]) -> None:
        """Nothing to take."""

    @torch.inference_mode()
    def features(self, pixels: Tensor) -> Features:
        """Dense features of pixels (B, 3, H, W) in 0..1."""
        return self.encoder(pixels)

    @torch.inference_mode()
    def vectors(self, batch: TileBatch) -> Tensor:
        """One vector a patch (B, D, h, w), of which the product with a word is its score: see `scores`."""
        found = self.encoder(on_device(batch.stored, self.clip.device))
        vectors = F.normalize(found.patches.float(), dim=-1)
        if self.class_token_weight and found.cls is not None:
            vectors = vectors + self.class_token_weight * F.normalize(found.cls.float(), dim=-1)[:, None]
        return vectors.mT.unflatten(2, found.grid)

    @torch.inference_mode()
    def scores(self, batch: TileBatch) -> Tensor:
        """Cosines (B, Q, h, w) with the words, plus the weighted cosine of the class token where it counts.

        The class token's term is SegEarth-OV's global bias (cls_token_lambda), a score all patches of a window share.
        """
        return self.score(on_device(batch.stored, self.clip.device))

    @torch.inference_mode()
    def score(self, pixels: Tensor) -> Tensor:
        """`scores` of pixels (B, 3, H, W) on the tower's device."""
        found = self.encoder(pixels)
        scores = self.compare(found.patches, found.grid, self.clip.normalise(pixels), self.text)
        if self.refine is not None:
            scores = self.refine(scores.flatten(2).mT, found).mT.unflatten(2, found.grid)
        if self.class_token_weight and found.cls is not None:
            scores = scores + self.class_token_weight * cosines(found.cls, self.text)[:, :, None, None]
        return scores


def last_block(clip: ClipVit, x: Tensor, mix: Mix, *, residual: bool) -> Tensor:
    """The last block on its input x (B, L, E) under `mix`, read out for every token: (B, L, D).

    With `residual` the block keeps its skip connections and feed-forward part; without, its output is the
    attention's alone, as in ClearCLIP. The class token is that of the block as mixed.
    """
    last = clip.depth - 1
    if residual:
        return clip.readout(clip.block(last, x, mix))
    return clip.readout(clip.merge(last, mix(*clip.qkv(last, x))))


def blocks_of(published: Sequence[int], depth: int, *, before_last: bool = True) -> tuple[int, ...]:
    """Blocks, from 0, that stand for those of a published tower of 12: the same if it has them, else in proportion.

    With `before_last` none of them is the last block.
    """
    last = depth - 2 if before_last else depth - 1
    if last >= max(published):
        return tuple(published)
    return tuple(min(round(i * depth / PAPER_DEPTH), max(last, 0)) for i in published)
