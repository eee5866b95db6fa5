"""Trident (Shi et al. 2024): windows of CLIP spliced into one map, aggregated over it as SAM's patches attend."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional as F

from geoovseg.errors import UsageError
from geoovseg.methods import Cost, Trial
from geoovseg.methods.blocks import BlockMethod, Blocks, Cut
from geoovseg.methods.builder import builder
from geoovseg.methods.dense import cosines
from geoovseg.methods.proxyclip import ProxyClip, on_grid
from geoovseg.methods.refinement import Refinement, refine
from geoovseg.models.patches import own_grid
from geoovseg.models.sam import Sam, Seen, as_image
from geoovseg.models.vit import ClipVit, Grid
from geoovseg.ops.affinity import affinity_rows
from geoovseg.ops.classes import best_word, for_each_word
from geoovseg.ops.correlation import correlated, mean_likeness
from geoovseg.vocabulary import Vocabulary
from geoovseg.windows.batch import FILL, TileBatch
from geoovseg.windows.plan import origins

SIDE, STEP = 1.5, 2 / 3
"""Windows of 336 pixels for towers trained on 224, and 224 between them (release)."""
FRAME = 1024
"""Side of the images SAM sees; a block has as many pixels unless it is told otherwise."""


@dataclass(frozen=True, kw_only=True)
class Splice:
    """From the windows of an image to one map of features, before CLIP's last norm (sections 3.2 and 3.3)."""

    encoder: ProxyClip
    blocks: Blocks

    def boxes(self, shape: tuple[int, int]) -> list[tuple[int, int, int, int]]:
        """Windows (top, left, bottom, right) of an image (height, width), in patches, row by row."""
        patch, side, step = self.encoder.clip.patch, self.blocks.window, self.blocks.stride
        rows, cols = (origins(length, side, step) for length in shape)
        height, width = (min(side, length) for length in shape)
        places = [(row, col, row + height, col + width) for row in rows for col in cols]
        return [(a // patch, b // patch, c // patch, d // patch) for a, b, c, d in places]

    def look(self, image: Tensor, boxes: Sequence[tuple[int, int, int, int]]) -> tuple[Tensor, Tensor, Grid]:
        """Values (n, L, E) of CLIP's last block and unit features (n, L, D) of the vision model, and their grid."""
        patch = self.encoder.clip.patch
        windows = torch.cat([image[..., a * patch : c * patch, b * patch : d * patch] for a, b, c, d in boxes])
        found = torch.cat([found for _, found in self.blocks.each(len(boxes), lambda index: self._see(windows[index]))])
        width = self.encoder.clip.width
        return found[..., :width], found[..., width:], own_grid(windows, self.encoder.vfm.patch)

    def _see(self, pixels: Tensor) -> Tensor:
        """Values and features of windows side by side (b, L, E + D), both on the vision model's grid."""
        clip = self.encoder.clip
        x, grid = clip.trunk(pixels)
        features, other = self.encoder.proxies(pixels)
        values = on_grid(clip.qkv(clip.depth - 1, x)[2][:, :, 1:], grid, other)
        return torch.cat([values.transpose(1, 2).flatten(2).float(), features], dim=2)

    def mixed(self, values: Tensor, features: Tensor) -> Tensor:
        """Values (n, L, E) mixed by the likeness of features (n, L, D), through the last block's output projection.

        What likeness counts follows from its mean over all windows together, unlike in ProxyCLIP.
        """
        clip, encoder = self.encoder.clip, self.encoder
        mean = mean_likeness(features).mean()
        found = [
            correlated(f, v[:, None], beta=encoder.beta, gamma=encoder.gamma, mean=mean)
            for v, f in zip(values.split(1), features.split(1), strict=True)
        ]
        return clip.merge(clip.depth - 1, torch.cat(found).to(clip.dtype)).float()

    def splice(
        self, mixed: Tensor, grid: Grid, boxes: Sequence[tuple[int, int, int, int]], shape: tuple[int, int]
    ) -> Tensor:
        """Windows (n, L, E) put together on the patches of an image (1, E, h, w), averaged where they overlap.

        `shape` is the image's (height, width) in patches. A finer vision model gives a map as much finer.
        """
        top, left, bottom, right = boxes[0]
        maps = mixed.mT.unflatten(2, grid)
        fine = max(1, round(grid[0] / (bottom - top)))
        wanted = ((bottom - top) * fine, (right - left) * fine)
        if wanted != grid:
            maps = F.interpolate(maps, size=wanted, mode="bilinear", align_corners=False)
        total = maps.new_zeros(maps.shape[1], shape[0] * fine, shape[1] * fine)
        count = maps.new_zeros(1, *total.shape[1:])
        for one, box in zip(maps, boxes, strict=True):
            a, b, c, d = (edge * fine for edge in box)
            total[:, a:c, b:d] += one
            count[:, a:c, b:d] += 1
        return (total / count.clamp_min(1))[None]


def aggregated(
    canvas: Tensor, sam: Sam, seen: Seen, factor: float, *, keep_negative: bool, known: Tensor | None = None
) -> Tensor:
    """A spliced map (1, E, h, w) on SAM's patches (N, E), each the mean of those it attends to (section 3.4)."""
    on_sam = F.interpolate(canvas, size=seen.grid, mode="bilinear", align_corners=False)[0].flatten(1).T
    rows = affinity_rows(sam.attention(seen), sam.values(seen), factor, keep_negative=keep_negative, known=known)
    return torch.cat([weights @ on_sam for weights in rows])


@dataclass(kw_only=True)
class Trident(BlockMethod):
    """A block is what the release calls an image: one frame of SAM, and windows of CLIP over it."""

    clip: ClipVit
    text: Tensor
    blocks: Blocks
    sam: Sam
    splicer: Splice
    groups: Sequence[int]
    sharpness: float
    cos_fac: float
    refine_neg_cos: bool
    zoom: float
    refinement: Refinement | None
    notes: tuple[str, ...] = ()

    unit: ClassVar[Literal["probability"]] = "probability"

    @property
    def patch(self) -> int:
        """SAM's: a full block is exactly as many of its patches as it was trained on."""
        return self.sam.patch

    @property
    def at_pixels(self) -> bool:
        """Shares of pixels."""
        return True

    def cost(self, tile: tuple[int, int]) -> Cost:
        """Of a few rows of SAM's attention, its widest layer, the spliced map, and of the words at pixels."""
        patches = (self.sam.side / self.sam.patch) ** 2
        fixed = super().cost(tile).fixed + 4 * patches * (4 * 16 * 256 + 4 * 5120 + 4 * self.clip.width)
        return Cost(fixed, 4 * 4 * tile[0] * tile[1], (Trial(tile, 1, 1, self.scores),))

    @torch.inference_mode()
    def scores(self, batch: TileBatch) -> Tensor:
        """Shares of the classes (B, Q, H, W); all words of a class have its share."""
        found = torch.stack([self._block(batch.pixels[n], batch.valid[n]) for n in range(len(batch))])
        return for_each_word(found, self.groups)

    def _block(self, pixels: NDArray[np.float32], valid: NDArray[np.bool_]) -> Tensor:
        """Shares of the classes (C, H, W) of one block."""
        shape, (pixels, valid) = valid.shape, _whole_patches(pixels, valid, self.sam)
        seen = self.sam.see(as_image(pixels))
        image = torch.from_numpy(pixels)[None].to(self.clip.device)
        found = self.cosines(seen, self.canvas(image, seen), torch.from_numpy(valid).to(image.device))
        size = (image.shape[2], image.shape[3])
        at_pixels = F.interpolate(best_word(found[None], self.groups), size=size, mode="bilinear", align_corners=False)
        shares = (self.sharpness * at_pixels[0]).softmax(0)
        if self.refinement is not None:
            shares = refine(self.sam, seen, shares.argmax(0), shares, self.refinement).blendable(shares)
        return shares[:, : shape[0], : shape[1]]

    def canvas(self, image: Tensor, seen: Seen) -> Tensor:
        """What CLIP sees of a block (1, 3, H, W): `zoom` pixels for one of SAM's, and a window at least."""
        patch, least = self.clip.patch, self.blocks.window
        size = [max(least, -(-int(side * self.zoom) // patch) * patch) for side in seen.size]
        return F.interpolate(image, size=size, mode="bilinear", align_corners=False, antialias=True)

    def cosines(self, seen: Seen, canvas: Tensor, valid: Tensor | None = None) -> Tensor:
        """Cosines with the words (Q, h, w) on SAM's patches; what is not `valid` (H, W) takes no part."""
        patches = (canvas.shape[2] // self.clip.patch, canvas.shape[3] // self.clip.patch)
        boxes, known = self.splicer.boxes((canvas.shape[2], canvas.shape[3])), None
        if valid is not None:
            here = _reduced(valid, patches)
            boxes = [box for box in boxes if here[box[0] : box[2], box[1] : box[3]].any()]
            known = _reduced(valid, seen.grid).flatten()
        values, features, grid = self.splicer.look(canvas, boxes)
        spliced = self.splicer.splice(self.splicer.mixed(values, features), grid, boxes, patches)
        found = aggregated(spliced, self.sam, seen, self.cos_fac, keep_negative=self.refine_neg_cos, known=known)
        return self.read(found).T.unflatten(1, seen.grid)

    def read(self, aggregated: Tensor) -> Tensor:
        """Cosines (N, Q) of an aggregated map (N, E)."""
        return cosines(self.features(aggregated), self.text)

    def features(self, aggregated: Tensor) -> Tensor:
        """An aggregated map (N, E) in the joint space (N, D), not normalised."""
        return self.clip.readout(aggregated.to(self.clip.dtype))


def _whole_patches(
    pixels: NDArray[np.float32], valid: NDArray[np.bool_], sam: Sam
) -> tuple[NDArray[np.float32], NDArray[np.bool_]]:
    """A block (3, H, W) and its mask, filled up so that SAM sees whole patches of it, and CLIP the same."""
    patch = max(valid.shape) * sam.patch / sam.side  # in pixels of the block
    more = [(0, max(0, round(math.ceil(side / patch - 1e-6) * patch) - side)) for side in valid.shape]
    if not any(after for _, after in more):
        return pixels, valid
    filled = [np.pad(band, more, constant_values=float(fill)) for band, fill in zip(pixels, FILL.ravel(), strict=True)]
    return np.stack(filled), np.pad(valid, more)


def _reduced(valid: Tensor, grid: Grid) -> Tensor:
    """Where cells of a grid have any valid pixel of (H, W)."""
    return F.adaptive_max_pool2d(valid[None].float(), grid)[0] > 0


def _lay(cut: Cut | None, clip: ClipVit, sam: Sam) -> Blocks:
    """Blocks of one SAM frame, a quarter of which overlaps. Raises UsageError for what does not fit."""
    cut, patch = cut or Cut(), clip.patch
    window = cut.window or round(SIDE * clip.native_grid[0]) * patch
    stride = cut.stride or max(1, round(STEP * window / patch)) * patch
    side = cut.block or sam.side
    for name, value, unit in (("tile", window, patch), ("stride", stride, patch), ("block", side, 4 * sam.patch)):
        if value % unit:
            raise UsageError(f"--{name} {value} is no multiple of {unit}; try {max(unit, round(value / unit) * unit)}")
    if stride > window:
        raise UsageError(f"--stride {stride} must not be larger than the tile of {window} pixels")
    return Blocks(
        side=side, step=side * 3 // 4, window=window, stride=stride, patch=patch, device=clip.device,
        in_flight=cut.in_flight,
    )  # fmt: skip


def _make(
    clip: ClipVit, text: Tensor, *, vocabulary: Vocabulary, cut: Cut | None, vfm: Any, sam: Sam, scale: float,
    beta: float, gamma: float, cos_fac: float, refine_neg_cos: bool, zoom: float, refine: bool, coarse_thresh: float,
    minimal_area: float, sam_iou_thresh: float, sam_mask_coff: float, mask_prompt_layout: Any,
) -> Trident:  # fmt: skip
    blocks = _lay(cut, clip, sam)
    masks = Refinement(
        coarse=coarse_thresh,
        area=minimal_area * (blocks.side / FRAME) ** 2,
        quality=sam_iou_thresh,
        alpha=sam_mask_coff,
        layout=mask_prompt_layout,
    )
    return Trident(
        clip=clip,
        text=text,
        blocks=blocks,
        sam=sam,
        splicer=Splice(encoder=ProxyClip(clip=clip, vfm=vfm, beta=beta, gamma=gamma), blocks=blocks),
        groups=[len(group) for group in vocabulary.groups],
        sharpness=scale,
        cos_fac=cos_fac,
        refine_neg_cos=refine_neg_cos,
        zoom=zoom,
        refinement=masks if refine else None,
    )


build = builder("trident", _make)
