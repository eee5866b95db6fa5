"""CorrCLIP (Zhang et al. 2024): regions decide which patches attend to each other, a vision model how much."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional as F
from torch.nn.functional import scaled_dot_product_attention as sdpa

from geoovseg.methods import Cost, Trial
from geoovseg.methods.blocks import BlockMethod, Blocks, Cut, lay_blocks
from geoovseg.methods.builder import builder
from geoovseg.methods.dense import on_the_grid
from geoovseg.methods.proxyclip import on_grid
from geoovseg.models.masks import MaskSet, mask_bytes
from geoovseg.models.patches import own_grid
from geoovseg.models.regions import Regions, SamRegions, finding, given, region_maps
from geoovseg.models.vit import ClipVit, Grid
from geoovseg.ops.attention import only
from geoovseg.ops.classes import best_word, for_each_word
from geoovseg.ops.correlation import apart
from geoovseg.ops.regions import linked, numbered, vote
from geoovseg.ops.upsample import bilinear
from geoovseg.vocabulary import Vocabulary
from geoovseg.windows.batch import TileBatch

SIDE, STEP = 1.5, 1 / 3
"""Windows of 336 pixels for towers trained on 224, and 112 between them (release)."""
WINDOWS = 3
"""Windows that fit beside each other into a block."""
SPATIAL = {12: 5, 24: 12, 32: 28}
"""How many middle blocks the spatial branch takes, by the depth of the tower (release); else all but four."""


def spatial_blocks(depth: int) -> range:
    """Blocks, from 0, whose outputs the spatial branch averages: the last of them is the third from the end."""
    count = SPATIAL.get(depth, max(1, depth - 4))
    return range(max(0, depth - 2 - count), max(1, depth - 2))


def merge_regions(features: Tensor, ids: Tensor, distance: float) -> Tensor:
    """Regions numbered anew (N,), 0 for none; like ones are one.

    `features` (N, D) are unit. Regions whose mean features are within `distance` of the likeness of the most alike are
    merged, and so on (DBSCAN with one sample): what is connected is one region. Nothing is merged with one region.
    """
    names, index = numbered(ids)
    if len(names) <= 2:
        return index
    members = F.one_hot(index, len(names)).to(features.dtype)[:, 1:]
    means = F.normalize((members.T @ features) / members.sum(0)[:, None], dim=-1)
    alike = means @ means.T
    groups = linked(alike.max() - alike <= distance)
    return torch.cat([groups.new_zeros(1), 1 + groups])[index]


def reconstructed(features: Tensor, regions: Tensor, tau: float) -> Tensor:
    """Attention (N, N) by the likeness of unit features (N, D), within the scope that regions (N,) allow.

    Patches of one region may attend to each other; where one of two has none (0), if they are more alike than is usual.
    """
    likeness = features @ features.T
    free = regions == 0
    same = (regions[:, None] == regions) & ~free
    usual = (free[:, None] | free) & (likeness > likeness.mean())
    itself = torch.eye(len(features), dtype=torch.bool, device=features.device)  # where all are alike nothing else may
    return (tau * likeness).masked_fill(~(same | usual | itself), -torch.inf).softmax(-1)


@dataclass(frozen=True, kw_only=True)
class CorrClip:
    """Windows with their regions to features on the vision model's grid."""

    clip: ClipVit
    vfm: Any
    tau: float
    distance: float
    alpha: float
    beta: float

    def __call__(self, pixels: Tensor, ids: Tensor) -> tuple[Tensor, Grid]:
        """Features (b, N, D) of windows (b, 3, H, W) with region ids (b, H, W), and their grid."""
        proxy = own_grid(pixels, self.vfm.patch)
        seen = self.correlated(pixels, proxy)
        near = _nearest(ids, proxy).flatten(1)
        merged = torch.stack([merge_regions(f, i, self.distance) for f, i in zip(seen, near, strict=True)])
        weights = torch.stack([reconstructed(f, m, self.tau) for f, m in zip(seen, merged, strict=True)])
        main, spatial, semantic = self.branches(pixels, merged, proxy, weights)
        return self.clip.project(main + self.alpha * spatial + self.beta * semantic), proxy

    def correlated(self, pixels: Tensor, grid: Grid) -> Tensor:
        """Unit features (b, N, D): queries plus keys of the vision model's last block."""
        return F.normalize(self.vfm.queries_keys(pixels, grid).float(), dim=-1)

    def branches(self, pixels: Tensor, merged: Tensor, proxy: Grid, weights: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """The three parts of the answer (b, N, E), each through the last norm: main, spatial, semantic."""
        clip = self.clip
        x, grid = clip.embed(pixels)
        on_tokens = _nearest(merged.unflatten(1, proxy), grid)
        tokens, bias = x[:, :1].expand(-1, int(merged.max()) + 1, -1), self.bias(on_tokens.flatten(1), merged, x.dtype)
        middle = list[Tensor]()
        for i in range(clip.depth - 1):
            x, tokens = self._block(i, x, tokens, bias)
            if i in spatial_blocks(clip.depth):
                middle.append(x)
        _, tokens = self._block(clip.depth - 1, x, tokens, bias)
        main, spatial = (self._mixed(y, grid, proxy, weights) for y in (x, torch.stack(middle).mean(0)))
        place = _nearest(on_tokens, proxy).flatten(1)[..., None].expand(-1, -1, tokens.shape[2])
        return main, spatial, clip.final_norm(tokens).gather(1, place)

    def bias(self, regions: Tensor, merged: Tensor, dtype: torch.dtype) -> Tensor:
        """What keeps region tokens (b, 1, R, 1 + N) to the class token and to the patches of their region."""
        inside = regions[:, None] == torch.arange(int(merged.max()) + 1, device=regions.device)[:, None]
        return only(F.pad(inside, (1, 0), value=True), dtype)

    def _block(self, i: int, x: Tensor, tokens: Tensor, bias: Tensor) -> tuple[Tensor, Tensor]:
        """A block of the tower, and what region tokens make of its keys and values; nothing attends to them."""
        q, k, v = self.clip.qkv(i, x)
        regional = sdpa(self.clip.qkv(i, tokens)[0], k, v, attn_mask=bias)
        return self.clip.after(i, x, sdpa(q, k, v)), self.clip.after(i, tokens, regional)

    def _mixed(self, x: Tensor, grid: Grid, proxy: Grid, weights: Tensor) -> Tensor:
        """Values of the last block for its input x, on the vision model's grid, mixed; through the last norm."""
        last = self.clip.depth - 1
        values = on_grid(self.clip.qkv(last, x)[2][:, :, 1:], grid, proxy)
        mixed = weights.to(values.dtype) @ values.transpose(1, 2).flatten(2)
        return self.clip.final_norm(self.clip.merge(last, apart(mixed, values.shape[1])))


def _nearest(ids: Tensor, grid: Grid) -> Tensor:
    """Numbers (b, h, w) on another grid, by the nearest."""
    return F.interpolate(ids[:, None].double(), size=grid, mode="nearest")[:, 0].long()


@dataclass(kw_only=True)
class CorrClipBlocks(BlockMethod):
    """Blocks of windows; in the end each region of a block takes the class that most of its pixels have."""

    encoder: CorrClip
    text: Tensor
    blocks: Blocks
    regions: Regions
    groups: Sequence[int]
    sets: Sequence[MaskSet]
    """one: how Segment Anything finds the regions"""
    sharpness: float
    correct: bool
    notes: tuple[str, ...] = ()

    @property
    def unit(self) -> Literal["cosine", "probability"]:
        """Cosines, of which regions may be shares in the end; shares at pixels where windows are not of whole cells."""
        return "cosine" if self.cell else "probability"

    @property
    def scale(self) -> float:  # type: ignore[override]
        """Factor on cosines before the softmax over classes."""
        return self.sharpness if self.cell else 1.0

    @property
    def cell(self) -> int:  # type: ignore[override]
        """The vision model's patch; 0 where windows, or blocks, do not lie on whole ones."""
        side, blocks = int(self.encoder.vfm.patch), self.blocks
        unit = math.lcm(side, self.patch)
        odd = blocks.stride % side or blocks.window % side or blocks.side % unit or blocks.step % unit
        return 0 if odd else side

    @property
    def depth(self) -> int:  # type: ignore[override]
        """Numbers of a vector."""
        return int(self.text.shape[1])

    @property
    def clip(self) -> ClipVit:  # type: ignore[override]
        """The tower."""
        return self.encoder.clip

    @property
    def at_once(self) -> int:
        """One block: windows of different blocks never share a batch."""
        return 1

    @property
    def at_pixels(self) -> bool:
        """Shares of pixels."""
        return True

    def cost(self, tile: tuple[int, int]) -> Cost:
        """Of the words at pixels, and of attention of the windows of a batch; regions are found once a block."""
        patches = (self.blocks.window / self.encoder.vfm.patch) ** 2
        masks = mask_bytes(tile) if isinstance(self.regions, SamRegions) else 0
        base = super().cost(tile)
        find = Trial(tile, 1, 1, finding(self.regions, self.sets))
        return Cost(
            base.fixed + 4 * 8 * 3 * patches**2 + masks,
            4 * 4 * tile[0] * tile[1],
            (find, *(t._replace(run=replace(self, regions=given).scores) for t in base.trials)),
        )

    @torch.inference_mode()
    def scores(self, batch: TileBatch) -> Tensor:
        """Shares of the classes (B, Q, H, W), at pixels; all words of a class have its share. Cosines by `unit`."""
        maps = region_maps(self.regions, batch, self.sets)
        found = self.blocks.mean(batch, self.see, maps).values
        if self.cell:
            return found
        shares = (self.sharpness * best_word(found, self.groups)).softmax(1)
        if self.correct:
            ids = torch.from_numpy(maps[:, 0]).to(shares.device)
            shares = torch.stack([vote(s, i) for s, i in zip(shares, ids, strict=True)])
        return for_each_word(shares, self.groups)

    @torch.inference_mode()
    def vectors(self, batch: TileBatch) -> Tensor:
        """Means over windows of unit features (B, D, h, w), on the vision model's grid."""
        regions = self.regions if batch.regions is None else given
        return self.blocks.mean(batch, self.unit_features, region_maps(regions, batch, self.sets)).values

    def region_ids(self, batch: TileBatch) -> NDArray[np.int32]:
        """The regions of blocks (B, H, W), 0 for none."""
        return region_maps(self.regions, batch, self.sets)[:, 0]

    def unit_features(self, pixels: Tensor, ids: Tensor) -> Tensor:
        """Unit features (b, D, h, w) of windows with their regions."""
        features, grid = self.encoder(pixels, ids[:, 0])
        return F.normalize(features.float(), dim=-1).mT.unflatten(2, grid)

    def see(self, pixels: Tensor, ids: Tensor) -> Tensor:
        """Cosines (b, Q, H, W) of windows (b, 3, H, W) with their regions (b, 1, H, W)."""
        features, grid = self.encoder(pixels, ids[:, 0])
        return bilinear(on_the_grid(features, grid, pixels, self.text), pixels)


def _make(
    clip: ClipVit, text: Tensor, *, vocabulary: Vocabulary, cut: Cut | None, vfm: Any, regions: Regions, scale: float,
    tau: float, distance: float, alpha: float, beta: float, correct: bool, points: int, iou: float, stability: float,
    mask_order: Any,
) -> CorrClipBlocks:  # fmt: skip
    spatial = spatial_blocks(clip.depth)
    known = clip.depth in SPATIAL
    return CorrClipBlocks(
        encoder=CorrClip(clip=clip, vfm=vfm, tau=tau, distance=distance, alpha=alpha, beta=beta),
        text=text,
        blocks=lay_blocks(cut, clip, windows=WINDOWS, side=SIDE, step=STEP, at_pixels=True),
        regions=regions,
        groups=[len(group) for group in vocabulary.groups],
        sets=[MaskSet(points=points, quality=iou, stability=stability, order=mask_order)],
        sharpness=scale,
        correct=correct,
        notes=() if known else (f"spatial branch of blocks {spatial.start} to {spatial.stop - 1} of {clip.depth}",),
    )


build = builder("corrclip", _make)
