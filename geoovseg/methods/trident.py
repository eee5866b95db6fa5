"""Trident (Shi et al. 2024): windows of CLIP spliced into one map, aggregated over it as SAM's patches attend."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Literal, cast

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
from geoovseg.methods.proxyclip import ProxyClip
from geoovseg.methods.refinement import Refinement, refine
from geoovseg.methods.splice import Splice
from geoovseg.models.sam import Sam, Seen, as_image, fitted
from geoovseg.models.vit import ClipVit, Grid
from geoovseg.ops.affinity import Matrices, affinity_rows
from geoovseg.ops.classes import best_word, for_each_word
from geoovseg.ops.pamr import pamr
from geoovseg.vocabulary import Vocabulary
from geoovseg.windows.batch import FILL, TileBatch

SIDE, STEP = 1.5, 2 / 3
"""Windows of 336 pixels for towers trained on 224, and 224 between them (release)."""
FRAME = 1024
"""Side of the images SAM sees; a block has as many pixels unless it is told otherwise."""


def aggregated(
    canvas: Tensor,
    sam: Sam,
    seen: Seen,
    factor: float,
    *,
    keep_negative: bool,
    known: Tensor | None = None,
    matrices: str = "both",
) -> Tensor:
    """A spliced map (1, E, h, w) on SAM's patches (N, E), each the mean of those it attends to (section 3.4).

    With `matrices` none, as it is (table 3).
    """
    on_sam = F.interpolate(canvas, size=seen.grid, mode="bilinear", align_corners=False)[0].flatten(1).T
    if matrices == "none":
        return on_sam
    rows = affinity_rows(
        sam.attention(seen), sam.values(seen), factor, keep_negative=keep_negative, known=known,
        matrices=cast("Matrices", matrices),
    )  # fmt: skip
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
    matrices: str
    halves: bool
    pamr_steps: int
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
        picture = as_image(pixels)
        seen = self.looks(picture)
        image = torch.from_numpy(pixels)[None].to(self.clip.device)
        found = self.cosines(seen, self.canvas(image), torch.from_numpy(valid).to(image.device))
        size = (image.shape[2], image.shape[3])
        at_pixels = F.interpolate(best_word(found[None], self.groups), size=size, mode="bilinear", align_corners=False)
        if self.pamr_steps:
            at_pixels = pamr(self.clip.normalise(image), at_pixels, steps=self.pamr_steps)
        shares = (self.sharpness * at_pixels[0]).softmax(0)
        if self.refinement is not None:
            whole = seen[0] if len(seen) == 1 else self.sam.see(picture)
            shares = refine(self.sam, whole, shares.argmax(0), shares, self.refinement).blendable(shares)
        return shares[:, : shape[0], : shape[1]]

    def looks(self, picture: NDArray[np.uint8]) -> list[Seen]:
        """What SAM sees of a picture (H, W, 3): the whole, or its left and its right half (Cityscapes, release)."""
        parts = np.array_split(picture, 2, axis=1) if self.halves else [picture]
        return [self.sam.see(np.ascontiguousarray(part)) for part in parts]

    def canvas(self, image: Tensor) -> Tensor:
        """What CLIP sees of a block (1, 3, H, W): `zoom` pixels for one of SAM's, and a window at least."""
        patch, least = self.clip.patch, self.blocks.window
        frame = fitted((image.shape[2], image.shape[3]), self.sam.side)
        size = [max(least, -(-int(side * self.zoom) // patch) * patch) for side in frame]
        return F.interpolate(image, size=size, mode="bilinear", align_corners=False, antialias=True)

    def cosines(self, seen: Sequence[Seen], canvas: Tensor, valid: Tensor | None = None) -> Tensor:
        """Cosines with the words (Q, h, w) on SAM's patches; what is not `valid` (H, W) takes no part.

        Where SAM saw parts side by side, each takes its part of the spliced map.
        """
        patches = (canvas.shape[2] // self.clip.patch, canvas.shape[3] // self.clip.patch)
        boxes = self.splicer.boxes((canvas.shape[2], canvas.shape[3]))
        if valid is not None:
            here = _reduced(valid, patches)
            boxes = [box for box in boxes if here[box[0] : box[2], box[1] : box[3]].any()]
        values, features, grid = self.splicer.look(canvas, boxes)
        spliced = self.splicer.splice(self.splicer.mixed(values, features), grid, boxes, patches)
        maps = spliced.tensor_split(len(seen), dim=3)
        masks = [None] * len(seen) if valid is None else valid.tensor_split(len(seen), dim=1)
        parts = [self._part(one, *given) for one, given in zip(seen, zip(maps, masks, strict=True), strict=True)]
        return torch.cat(parts, dim=2)

    def _part(self, seen: Seen, spliced: Tensor, valid: Tensor | None) -> Tensor:
        """Cosines (Q, h, w) of the part that SAM saw at once."""
        known = None if valid is None else _reduced(valid, seen.grid).flatten()
        found = aggregated(
            spliced, self.sam, seen, self.cos_fac, keep_negative=self.refine_neg_cos, known=known,
            matrices=self.matrices,
        )  # fmt: skip
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
    beta: float, gamma: float, mixing: str, cos_fac: float, refine_neg_cos: bool, matrices: str, halves: bool,
    zoom: float, refine: bool, coarse_thresh: float, minimal_area: float, sam_iou_thresh: float, sam_mask_coff: float,
    mask_prompt_layout: Any, prompts: str, pamr_steps: int,
) -> Trident:  # fmt: skip
    blocks = _lay(cut, clip, sam)
    masks = Refinement(
        coarse=coarse_thresh,
        area=minimal_area * (blocks.side / FRAME) ** 2,
        quality=sam_iou_thresh,
        alpha=sam_mask_coff,
        layout=mask_prompt_layout,
        kinds=tuple(prompts.split("+")),
    )
    return Trident(
        clip=clip,
        text=text,
        blocks=blocks,
        sam=sam,
        splicer=Splice(
            encoder=ProxyClip(clip=clip, vfm=vfm, beta=beta, gamma=gamma), blocks=blocks, plain=mixing == "maskclip"
        ),
        groups=[len(group) for group in vocabulary.groups],
        sharpness=scale,
        cos_fac=cos_fac,
        refine_neg_cos=refine_neg_cos,
        zoom=zoom,
        refinement=masks if refine else None,
        matrices=matrices,
        halves=halves,
        pamr_steps=pamr_steps,
    )


build = builder("trident", _make)
