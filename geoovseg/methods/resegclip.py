"""ReSeg-CLIP: in the last blocks patches attend only to patches of their own region."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Literal

import numpy as np
import torch
from rasterio.windows import Window
from torch import Tensor
from torch.nn import functional as F

from geoovseg.methods import Cost, Trial
from geoovseg.methods.blocks import BlockMethod, Blocks, Cut, lay_blocks
from geoovseg.methods.builder import builder
from geoovseg.methods.dense import cosines, on_the_grid
from geoovseg.models.masks import MaskSet, Order
from geoovseg.models.regions import Regions, SamRegions, finding, given, region_maps
from geoovseg.models.vit import ClipVit
from geoovseg.ops.attention import only
from geoovseg.ops.regions import patch_ids
from geoovseg.ops.upsample import bilinear
from geoovseg.vocabulary import Vocabulary
from geoovseg.windows.batch import TileBatch
from geoovseg.windows.plan import origins

DEPTH, LAST = 24, 6
"""Blocks of the tower it was published with, and how many of them have masks: a quarter."""
WINDOWS = 4
"""Windows on a side of a block."""
ROWS = 16
"""Rows of pixels whose features are compared at once."""

Layers = tuple[int | None, ...]
"""For the last blocks of a tower: the set whose regions hold attention together; None: each patch keeps to itself."""


def sets_of(said: str) -> tuple[MaskSet, ...]:
    """Sets as the setting `sets` says them: points on a side, quality, stability, least area: 4/0.5/0.5/500."""
    read = [[float(part) for part in one.split("/")] for one in said.split("+")]
    return tuple(
        MaskSet(points=max(1, int(points)), quality=quality, stability=stability, area=int(area), crops=1, shrink=2)
        for points, quality, stability, area in read
    )


def plan_of(depth: int, order: str, last: int = LAST, count_of_sets: int = 4) -> Layers:
    """The plan for a tower: two thirds of its last blocks by regions, then patches by themselves.

    `order` is that of the sets: `code` as released, `paper` the other way round. `last` blocks of 24 have masks, a
    quarter, and as large a part of other towers; 0 is none.
    """
    count = max(1, round(depth * last / DEPTH)) if last else 0
    alone = max(1, round(count / 3)) if count > 1 else 0
    masked = count - alone
    sets = [round(n * (count_of_sets - 1) / max(1, masked - 1)) for n in range(masked)]
    return (*(sets if order == "code" else [count_of_sets - 1 - n for n in sets]), *([None] * alone))


def region_bias(ids: Tensor, dtype: torch.dtype) -> Tensor:
    """What to add to logits (B, 1, 1 + N, 1 + N): patches attend within regions (B, N), the class token to itself."""
    allowed = torch.eye(1 + ids.shape[1], device=ids.device).bool().repeat(len(ids), 1, 1)
    allowed[:, 1:, 1:] = ids[:, :, None] == ids[:, None, :]
    return only(allowed, dtype)


@dataclass(kw_only=True)
class ReSegClip(BlockMethod):
    """Blocks of windows whose regions are found once for squares that do not overlap."""

    clip: ClipVit
    text: Tensor
    blocks: Blocks
    regions: Regions
    plan: Layers
    sets: Sequence[MaskSet]
    sharpness: float
    output: str
    average: str
    exact: bool
    notes: tuple[str, ...] = ()

    @property
    def unit(self) -> Literal["cosine", "probability"]:
        """Shares in the order of the release, or where shares are averaged; else cosines."""
        return "probability" if self.output == "code" or self.average == "shares" else "cosine"

    @property
    def scale(self) -> float:  # type: ignore[override]
        """Factor on cosines before the softmax over classes."""
        return self.sharpness

    @property
    def at_pixels(self) -> bool:
        """Scores are those of pixels."""
        return True

    @property
    def cell(self) -> int:  # type: ignore[override]
        """A patch; 0 for shares in the order of the release, and where windows do not lie on whole patches."""
        return 0 if self.unit == "probability" or self.blocks.stride % self.patch else self.patch

    @property
    def depth(self) -> int:  # type: ignore[override]
        """Numbers of a vector."""
        return int(self.text.shape[1])

    def cost(self, tile: tuple[int, int]) -> Cost:
        """Of region maps, of words at pixels, and of features at some rows of pixels."""
        pixels, base = 4 * tile[0] * tile[1], super().cost(tile)
        size, looks = self._region_looks(tile)
        find = Trial(size, 1, looks, finding(self.regions, self.sets))
        rest = (t._replace(run=replace(self, regions=given).scores) for t in base.trials)
        return Cost(base.fixed + pixels * 2 * len(self.sets), pixels * 3, (find, *rest))

    def _region_looks(self, tile: tuple[int, int]) -> tuple[tuple[int, int], int]:
        """The size of the squares that Segment Anything sees in a block, and their number; else the block, once."""
        if not isinstance(self.regions, SamRegions):
            return tile, 1
        side, step = self.blocks.window, self.blocks.stride if self.exact else self.blocks.window
        return (side, side), len(origins(tile[0], side, step)) * len(origins(tile[1], side, step))

    @torch.inference_mode()
    def scores(self, batch: TileBatch) -> Tensor:
        """Scores of the words (B, Q, H, W), at pixels."""
        return self._mean(batch, self.see)

    @torch.inference_mode()
    def vectors(self, batch: TileBatch) -> Tensor:
        """Means over windows of unit features (B, D, h, w)."""
        return self._mean(batch, self.unit_features)

    def _mean(self, batch: TileBatch, see: Callable[[Tensor, Tensor], Tensor]) -> Tensor:
        """What windows with their regions say, averaged over each block."""
        if self.exact and batch.regions is None:
            return self.blocks.mean(batch, partial(self._alone, see), batch.valid[:, None].astype(np.int32)).values
        return self.blocks.mean(batch, see, region_maps(self.regions, batch, self.sets, self.blocks.window)).values

    def unit_features(self, pixels: Tensor, ids: Tensor) -> Tensor:
        """Unit features (b, D, h, w) of windows with their regions."""
        tokens, grid = self.tokens(pixels, [self.bias(level, ids, pixels) for level in self.plan])
        return F.normalize(tokens[:, 1:].float(), dim=-1).mT.unflatten(2, grid)

    def _alone(self, see: Callable[[Tensor, Tensor], Tensor], pixels: Tensor, valid: Tensor) -> Tensor:
        """Windows whose regions are their own."""
        images, here = pixels.cpu().numpy(), valid[:, 0].cpu().numpy() > 0
        whole = Window(0, 0, images.shape[3], images.shape[2])
        batch = TileBatch(windows=(whole,) * len(images), stored=images, valid=here)
        return see(pixels, torch.from_numpy(region_maps(self.regions, batch, self.sets)).to(pixels.device))

    def see(self, pixels: Tensor, ids: Tensor) -> Tensor:
        """Scores (b, Q, H, W) of windows (b, 3, H, W) with their regions (b, sets, H, W), in `unit`."""
        return self.shares(pixels, ids) if self.unit == "probability" else self._cosines(pixels, ids)

    def shares(self, pixels: Tensor, ids: Tensor) -> Tensor:
        """Shares of the words (b, Q, H, W), as the release and the paper average them over windows."""
        tokens, grid = self.tokens(pixels, [self.bias(level, ids, pixels) for level in self.plan])
        if self.output == "code":
            patches = tokens[:, 1:].float().mT.unflatten(2, grid)
            return shares_at_pixels(patches, self.text, (pixels.shape[2], pixels.shape[3]))
        return (self.sharpness * self._at_pixels(tokens, grid, pixels)).softmax(1)

    def _cosines(self, pixels: Tensor, ids: Tensor) -> Tensor:
        tokens, grid = self.tokens(pixels, [self.bias(level, ids, pixels) for level in self.plan])
        return self._at_pixels(tokens, grid, pixels)

    def _at_pixels(self, tokens: Tensor, grid: tuple[int, int], pixels: Tensor) -> Tensor:
        """Cosines of patches brought to pixels (b, Q, H, W), the order of the paper."""
        return bilinear(on_the_grid(tokens[:, 1:], grid, pixels, self.text), pixels)

    def bias(self, level: int | None, ids: Tensor, pixels: Tensor) -> Tensor:
        """What holds patches to the regions of a set, or each to itself."""
        patches = (pixels.shape[2] // self.patch) * (pixels.shape[3] // self.patch)
        if level is None:
            found = torch.arange(patches, device=pixels.device).expand(len(pixels), -1)
        else:
            found = patch_ids(ids[:, level], self.patch).flatten(1)
        return region_bias(found, self.clip.dtype)

    def tokens(self, pixels: Tensor, biases: Sequence[Tensor]) -> tuple[Tensor, tuple[int, int]]:
        """All tokens in the joint space (b, 1 + N, D), the last blocks under their biases, and the grid."""
        x, grid = self.clip.embed(pixels)
        free = self.clip.depth - len(biases)
        for i in range(self.clip.depth):
            x = self.clip.block(i, x, bias=biases[i - free] if i >= free else None)
        return self.clip.readout(x), grid


def shares_at_pixels(patches: Tensor, text: Tensor, size: tuple[int, int]) -> Tensor:
    """Shares of the words (B, Q, H, W): features (B, D, h, w) brought to pixels, a softmax of bare cosines (release).

    Bilinear, a few rows of pixels at a time: features of all pixels at once would be hundreds of megabytes.
    """
    wide = F.interpolate(patches, size=(patches.shape[2], size[1]), mode="bilinear", align_corners=False)
    place = ((torch.arange(size[0], device=patches.device) + 0.5) * patches.shape[2] / size[0] - 0.5).clamp_min(0)
    above = place.floor().long().clamp_max(patches.shape[2] - 1)
    below, part = (above + 1).clamp_max(patches.shape[2] - 1), (place - above).clamp(0, 1)
    found = []
    for rows in torch.arange(size[0], device=patches.device).split(ROWS):
        weight = part[rows][:, None]
        features = wide[:, :, above[rows]] * (1 - weight) + wide[:, :, below[rows]] * weight
        found.append(cosines(features.movedim(1, -1), text).softmax(-1).movedim(-1, 1))
    return torch.cat(found, dim=2)


def _make(
    clip: ClipVit, text: Tensor, *, vocabulary: Vocabulary, cut: Cut | None, regions: Regions, scale: float, order: str,
    layers: int, output: str, average: str, exact: bool, sets: str, iou: float, stability: float, mask_order: Order,
) -> ReSegClip:  # fmt: skip
    known = sets_of(sets)
    published = plan_of(clip.depth, order, layers, len(known))
    used = sorted({level for level in published if level is not None}) or [0]  # regions are asked for in any case
    said = f"masks in the last {len(published)} of {clip.depth} blocks: sets {published}"
    return ReSegClip(
        clip=clip,
        text=text,
        blocks=lay_blocks(cut, clip, windows=WINDOWS, side=1, step=0.5, at_pixels=True),
        regions=regions,
        plan=tuple(None if level is None else used.index(level) for level in published),
        sets=[_changed(known[level], iou, stability, mask_order) for level in used],
        sharpness=scale,
        output=output,
        average=average,
        exact=exact,
        notes=() if clip.depth == DEPTH else (said,),
    )


def _changed(wanted: MaskSet, iou: float, stability: float, order: Order) -> MaskSet:
    """A set with other thresholds, where they are not negative."""
    quality, steady = wanted.quality if iou < 0 else iou, wanted.stability if stability < 0 else stability
    return replace(wanted, quality=quality, stability=steady, order=order)


build = builder("resegclip", _make)
