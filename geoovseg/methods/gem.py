"""GEM (Bousselham et al. 2024): a second stream through the last blocks, of values averaged over like tokens."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from torch import Tensor
from torch.nn import functional as F
from torch.nn.functional import scaled_dot_product_attention as sdpa

from geoovseg.errors import MethodError
from geoovseg.methods.builder import builder
from geoovseg.methods.dense import DenseMethod, Features
from geoovseg.models.vit import ClipVit


@dataclass(frozen=True)
class Gem:
    """CLIP's ordinary stream and beside it GEM's, which takes from each wrapped block its ensemble of attentions."""

    clip: ClipVit
    depth: int
    iterations: int
    temperature: float
    accumulate: bool

    def __post_init__(self) -> None:
        wrapped = self.depth - 1
        if wrapped > self.clip.depth:
            raise MethodError(
                f"gem: --set depth={self.depth} replaces the last {wrapped} blocks; this tower has {self.clip.depth}"
            )

    def __call__(self, pixels: Tensor) -> Features:
        """Features of GEM's stream; it has no class token of use."""
        clip = self.clip
        x, grid = clip.embed(pixels, "antialias")
        first = clip.depth - (self.depth - 1)
        for i in range(first):
            x = clip.block(i, x)
        stream = x
        for i in range(first, clip.depth):
            ensemble = clip.merge(i, self.ensemble(i, x))
            stream = stream + ensemble if self.accumulate else ensemble
            x = clip.block(i, x)
        return Features(clip.readout(stream)[:, 1:], None, grid)

    def ensemble(self, i: int, x: Tensor) -> Tensor:
        """Values (B, heads, L, d) of block i under the mean of its v-v, k-k and q-q attentions.

        Each attends on unit vectors sharpened by beta, after `iterations` rounds that pull similar tokens together;
        beta is the mean length of the block's normalised tokens over sqrt d, per image (release, gem_utils.py).
        """
        q, k, v = self.clip.qkv(i, x)
        if self.temperature:
            beta = x.new_full((len(x), 1, 1, 1), self.temperature)
        else:
            y = self.clip.blocks[i].ln_1(x)
            beta = (y.norm(dim=-1).mean(-1) * q.shape[-1] ** -0.5)[:, None, None, None]
        return (self._attend(v, v, beta) + self._attend(k, v, beta) + self._attend(q, v, beta)) / 3

    def _attend(self, s: Tensor, v: Tensor, beta: Tensor) -> Tensor:
        for _ in range(self.iterations):
            s = F.normalize(s, dim=-1)
            s = sdpa(beta * s, s, s, scale=1.0)
        s = F.normalize(s, dim=-1)
        return sdpa(beta * s, s, v, scale=1.0)


def _make(clip: ClipVit, text: Tensor, *, scale: float, **values: Any) -> DenseMethod:
    return DenseMethod(Gem(clip, **values), text, scale=scale)


build = builder("gem", _make)
