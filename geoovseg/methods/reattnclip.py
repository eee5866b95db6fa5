"""ReAttnCLIP (CVPR 2026): the last block attends by what the image and its rotations agree on, and by middle blocks.

The code is not released. What the paper leaves open is a setting; see docs/methods.md.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from geoovseg.errors import MethodError
from geoovseg.methods.builder import builder
from geoovseg.methods.dense import PAPER_DEPTH, DenseMethod, Features, blocks_of
from geoovseg.models.vit import ClipVit, Grid
from geoovseg.ops.attention import full, summing


@dataclass(frozen=True, kw_only=True)
class ReAttn:
    """Four rotated passes up to the last block, then one map of attention for all of its heads."""

    clip: ClipVit
    alpha: float
    beta: float
    betas: str
    turned: float
    middle_first: int
    middle_count: int
    literal: bool
    temperature: float
    exclude_self: bool
    compared_first: int
    compared_count: int
    patches: bool
    class_row: bool
    zero_column: bool
    own: str

    def __post_init__(self) -> None:
        """Raises MethodError for as many betas as there are no middle blocks."""
        if self.betas and len(self.betas.split("+")) != len(self._published_middle):
            raise MethodError(
                f"reattnclip: --set betas={self.betas} is {len(self.betas.split('+'))} numbers, and there are "
                f"{len(self._published_middle)} middle blocks: {self._published_middle}"
            )

    @property
    def notes(self) -> tuple[str, ...]:
        """For the run record: which blocks stand for the published ones in another tower."""
        found, published = (self.middle, self.compared), (self._published_middle, self._published_compared)
        if found == published:
            return ()
        return (
            f"middle blocks {self.middle} and compared blocks {self.compared} of {self.clip.depth} for "
            f"{published[0]} and {published[1]} of {PAPER_DEPTH}",
        )

    @property
    def _published_middle(self) -> tuple[int, ...]:
        return tuple(range(self.middle_first, min(self.middle_first + self.middle_count, PAPER_DEPTH - 1)))

    @property
    def _published_compared(self) -> tuple[int, ...]:
        return tuple(range(self.compared_first, min(self.compared_first + self.compared_count, PAPER_DEPTH)))

    @property
    def middle(self) -> tuple[int, ...]:
        """Blocks whose attention is added."""
        return blocks_of(self._published_middle, self.clip.depth)

    @property
    def compared(self) -> tuple[int, ...]:
        """Blocks whose inputs are compared in four rotations."""
        return blocks_of(self._published_compared, self.clip.depth, before_last=False)

    def __call__(self, pixels: Tensor) -> Features:
        """Features of the windows (sec. 3.3): Y = A V, without skip connection and feed-forward part."""
        attention, x, grid = self.refined(pixels)
        last = self.clip.depth - 1
        _, _, values = self.clip.qkv(last, x)
        tokens = self.clip.readout(self.clip.merge(last, attention[:, None].to(values.dtype) @ values))
        return Features(tokens[:, 1:], tokens[:, 0], grid)

    def refined(self, pixels: Tensor) -> tuple[Tensor, Tensor, Grid]:
        """The map of attention (B, 1 + N, 1 + N), rows adding to 1; the last block's input; the grid (eq. 11 to 15).

        A = [[a00, a0], [0, S]], S ~ alpha S_rot + beta A_middle between patches, a of the middle blocks: patches see
        nothing of the class token. Each of the three parts may be the last block's own attention, mean over heads;
        where patches see the class token, S has the rest of their rows.
        """
        similar, x, grid, kept = self._turned(pixels)
        middle = sum(kept) / len(self.middle)
        assert isinstance(middle, Tensor)  # there is always one middle block
        own = middle if self.patches and self.class_row and self.zero_column else self._own(x)
        between = self.alpha * similar + self._weighted(kept, middle)[:, 1:, 1:] if self.patches else own[:, 1:, 1:]
        attention = torch.zeros_like(middle)
        attention[:, 0] = (middle if self.class_row else own)[:, 0]
        if not self.zero_column:
            attention[:, 1:, :1] = own[:, 1:, :1]
        attention[:, 1:, 1:] = (1 - attention[:, 1:, :1]) * between / between.sum(-1, keepdim=True)
        return attention, x, grid

    def _weighted(self, kept: Sequence[Tensor], middle: Tensor) -> Tensor:
        """Attention of the middle blocks (B, 1 + N, 1 + N), each with a beta of its own or all with the same."""
        if not self.betas:
            return self.beta * middle
        each = zip(map(float, self.betas.split("+")), kept, strict=True)
        found = sum(beta * attention for beta, attention in each)
        assert isinstance(found, Tensor)
        return found

    def _own(self, x: Tensor) -> Tensor:
        """The last block's attention for its input (B, 1 + N, E): (B, 1 + N, 1 + N), mean over heads.

        CLIP's own, or the mean of SegEarth-OV's three.
        """
        found: list[Tensor] = []
        q, k, v = self.clip.qkv(self.clip.depth - 1, x)
        for a, b in [(q, k)] if self.own == "clip" else [(q, q), (k, k), (v, v)]:
            summing(found, heads=False)(a, b, v)
        return found[0] if self.own == "clip" else found[0] / 3

    def _turned(self, pixels: Tensor) -> tuple[Tensor, Tensor, Grid, list[Tensor]]:
        """S_rot (B, N, N); tokens entering the last block; the grid; attention of each of the middle blocks."""
        count = len(pixels)
        similar: Tensor | float = 0.0
        for turns in turns_together(pixels):
            middle: list[Tensor] = []  # of images that are not turned
            turned = torch.cat([torch.rot90(pixels, turn, (2, 3)) for turn in turns])
            inputs, x, grid = self._walk(turned, middle, count if turns[0] == 0 else 0)
            if turns[0] == 0:
                first = (x, grid, middle)
            for tokens in inputs:
                for turn, own in zip(turns, tokens.split(count), strict=True):
                    weight = (1.0 if turn == 0 else self.turned) / len(inputs)
                    similar = similar + weight * self.similarity(turned_back(own, grid, turn))
        assert isinstance(similar, Tensor)  # there are always four turns
        return similar, *first

    def _walk(self, pixels: Tensor, middle: list[Tensor], upright: int) -> tuple[list[Tensor], Tensor, Grid]:
        """Normed inputs (B, N, E) of the compared blocks, that of the last block (upright, 1 + N, E), the grid.

        The first `upright` images are not turned: of them `middle` is given the attention of the middle blocks.
        """
        clip = self.clip
        x, grid = clip.embed(pixels)
        kept: dict[int, Tensor] = {}
        for i in range(clip.depth):
            if i in self.compared:
                kept[i] = clip.attended(i, x)[:, 1:]
            if i == clip.depth - 1 or (i == max(self.compared) and not upright):
                break
            if i == max(self.compared):
                x = x[:upright]
            if i in self.middle and upright:
                found: list[Tensor] = []
                summing(found, heads=False)(*(t[:upright] for t in clip.qkv(i, x)))
                middle.extend(found * self.middle.count(i))
            x = clip.block(i, x)
        return [kept[i] for i in self.compared], x[:upright], grid

    def similarity(self, tokens: Tensor) -> Tensor:
        """softmax(t cos(x_i, x_j)) between patches (B, N, E): (B, N, N), rows adding to 1.

        The paper writes x x^T / sqrt(d), `literal`; attention of the middle blocks is not comparable to it.
        """
        if self.literal:
            raw = full(tokens) @ full(tokens).mT / self.clip.width**0.5
            if self.exclude_self:
                raw.diagonal(dim1=1, dim2=2).zero_()
            return raw
        unit = F.normalize(full(tokens), dim=-1)
        logits = (self.temperature or self.clip.width**0.5) * (unit @ unit.mT)
        if self.exclude_self and logits.shape[-1] > 1:
            logits.diagonal(dim1=1, dim2=2).fill_(-torch.inf)
        return logits.softmax(-1)


def turns_together(pixels: Tensor) -> list[tuple[int, ...]]:
    """Quarter turns whose images have one shape and go through the tower together; on the CPU each alone.

    There four times as many images at once take 1.16 times as long for each (ViT-B/16, windows of 224, two cores).
    """
    if pixels.device.type == "cpu":
        return [(0,), (1,), (2,), (3,)]
    return [(0, 1, 2, 3)] if pixels.shape[2] == pixels.shape[3] else [(0, 2), (1, 3)]


def turned_back(tokens: Tensor, grid: Grid, turn: int) -> Tensor:
    """Patches (B, N, E) of an image turned by torch.rot90(image, turn), in the order of the image as it was."""
    return torch.rot90(tokens.unflatten(1, grid), -turn, (1, 2)).flatten(1, 2)


def _make(clip: ClipVit, text: Tensor, *, scale: float, class_token_weight: float, **values: Any) -> DenseMethod:
    return DenseMethod(ReAttn(clip=clip, **values), text, scale=scale, class_token_weight=class_token_weight)


build = builder("reattnclip", _make)
