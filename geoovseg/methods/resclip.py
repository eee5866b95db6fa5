"""ResCLIP (Yang et al. 2025): attention of middle blocks added to the last, corrected by a first segmentation."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
from torch import Tensor

from geoovseg.methods.builder import builder
from geoovseg.methods.dense import PAPER_DEPTH, DenseMethod, Features, blocks_of, last_block, on_the_grid
from geoovseg.methods.feedback import feedback, patch_labels, surest_word, word_shares
from geoovseg.models.vit import ClipVit, Grid
from geoovseg.ops.attention import Mix, attention_logits, neighbourhood, summing

MIDDLE = (5, 6, 7, 8)
"""Blocks whose attention is added, from 0 (layers 6 to 9 of the paper), absolute whatever the depth."""
BASES = {"naclip": ("kk",), "clearclip": ("qq",), "sclip": ("qq", "kk"), "vanilla": ("qk",)}
"""Products of queries and keys whose softmaxes are summed."""


class FirstPass(NamedTuple):
    """A segmentation without feedback."""

    shares: Tensor
    """of the words at pixels (B, Q, H, W), adding to 1"""
    labels: Tensor
    """the word of every patch (B, N)"""
    grid: Grid


@dataclass(frozen=True, kw_only=True)
class ResClip:
    """Two passes of the last block: one without feedback to segment, one with what that segmentation says."""

    clip: ClipVit
    text: Tensor
    scale: float
    mixing: str
    residual: str
    sigma: float
    rcs: bool
    rcs_gain: float
    rcs_share: float
    sfr: bool
    sfr_gain: float
    sfr_share: float
    sure: float
    path_check: bool
    half: bool

    @property
    def notes(self) -> tuple[str, ...]:
        """For the run record: which blocks stand for the published ones in another tower."""
        blocks = middle_blocks(self.clip.depth)
        changed = self.rcs and blocks != MIDDLE
        return (f"middle blocks {blocks} of {self.clip.depth} for {MIDDLE} of {PAPER_DEPTH}",) if changed else ()

    def __call__(self, pixels: Tensor) -> Features:
        """Features of the windows."""
        x, grid, middle = self._trunk(pixels)
        correction = None
        if self.sfr:
            shares = self._shares(x, grid, middle, self.clip.normalise(pixels))
            correction = self._correction(torch.cat([self._labels(s, grid) for s in shares]), grid)
        features = self._last(x, grid, middle, correction)
        return Features(features[:, 1:], features[:, 0], grid)

    def first_pass(self, pixels: Tensor) -> FirstPass:
        """The segmentation that feeds back, to look at."""
        x, grid, middle = self._trunk(pixels)
        shares = torch.cat(list(self._shares(x, grid, middle, self.clip.normalise(pixels))))
        return FirstPass(shares, self._labels(shares, grid), grid)

    def _shares(self, x: Tensor, grid: Grid, middle: Tensor | None, image: Tensor) -> Iterator[Tensor]:
        """Shares of the words without feedback (1, Q, H, W), image by image: memory does not grow with the batch."""
        first = self._last(x, grid, middle, None)[:, 1:]
        scores = on_the_grid(first, grid, image, self.text)
        for own, guide in zip(scores.split(1), image.split(1), strict=True):
            yield word_shares(own, guide, self.scale)

    def _labels(self, shares: Tensor, grid: Grid) -> Tensor:
        return patch_labels(surest_word(shares, self.sure), grid, self.clip.patch, len(self.text))

    def _correction(self, labels: Tensor, grid: Grid) -> Tensor:
        """Semantic feedback, its largest value 1, times its share (B, 1 + N, 1 + N); every image on its own."""
        each = feedback(labels, grid, self.sigma, path_check=self.path_check)
        each = each / each.amax((1, 2), keepdim=True)
        return (each.half() * self.sfr_share).float() if self.half else each * self.sfr_share

    def _trunk(self, pixels: Tensor) -> tuple[Tensor, Grid, Tensor | None]:
        """Tokens entering the last block, the grid, and the mean attention (B, heads, L, L) of the middle blocks."""
        clip = self.clip
        x, grid = clip.embed(pixels)
        total: list[Tensor] = []
        middle = middle_blocks(clip.depth) if self.rcs else ()
        for i in range(clip.depth - 1):
            x = clip.block(i, x, summing(total, middle.count(i)) if i in middle else None)
        return x, grid, total[0] / len(middle) if total else None

    def _last(self, x: Tensor, grid: Grid, middle: Tensor | None, correction: Tensor | None) -> Tensor:
        """The last block, read out for every token, under the base's attention, corrected and with the middle's."""
        residual = self.mixing in ("sclip", "vanilla") if self.residual == "auto" else self.residual == "true"
        return last_block(self.clip, x, self._mix(grid, middle, correction), residual=residual)

    def _mix(self, grid: Grid, middle: Tensor | None, correction: Tensor | None) -> Mix:
        def mix(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
            weights = torch.zeros((), device=v.device)
            for pair in BASES[self.mixing]:
                logits = attention_logits(*({"q": q, "k": k}[side] for side in pair))
                if correction is not None:
                    logits = self.sfr_gain * ((1 - self.sfr_share) * logits + correction[:, None])
                if self.mixing == "naclip":
                    logits = logits + neighbourhood(grid, self.sigma).to(logits)
                weights = weights + logits.softmax(-1)
            if middle is not None:
                weights = self.rcs_gain * ((1 - self.rcs_share) * weights + self.rcs_share * middle)
            return weights.to(v.dtype) @ v

        return mix


def middle_blocks(depth: int) -> tuple[int, ...]:
    """The blocks of MIDDLE in a tower: as published where it has them before its last, else in proportion."""
    return blocks_of(MIDDLE, depth)


def _make(clip: ClipVit, text: Tensor, **values: Any) -> DenseMethod:
    """The words are used one by one in the feedback, as in the release."""
    return DenseMethod(ResClip(clip=clip, text=text, **values), text, scale=values["scale"], of_words=True)


build = builder("resclip", _make)
