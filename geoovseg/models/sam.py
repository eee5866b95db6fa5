"""Segment Anything beside CLIP: what it sees in an image, how its patches attend, and masks for prompts.

A walk over unmodified segment_anything modules. Its global attention is made a few rows of patches at a time, so that
nothing of N x N x heads is ever alive.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, cast

import numpy as np
import torch
from numpy.typing import NDArray
from segment_anything import sam_model_registry
from segment_anything.modeling.image_encoder import get_rel_pos
from segment_anything.utils.transforms import ResizeLongestSide
from torch import Tensor, nn

from geoovseg.models.cards import model_card
from geoovseg.models.decoder import decode
from geoovseg.models.download import file_sha256
from geoovseg.models.patches import Grid
from geoovseg.models.precision import PRECISIONS
from geoovseg.models.tensors import as_weights, fill, read_state
from geoovseg.models.weights import find_weights
from geoovseg.ops.linear import packed

ROWS = 4
"""Rows of patches whose attention is made at once; on a CPU one, whose 13 MB (ViT-B) stay in its cache."""
PROMPTS = 16
"""Prompts that go through the decoder together."""


@dataclass(frozen=True)
class Seen:
    """An image as SAM's encoder left it."""

    embedding: Tensor
    """(1, 256, g, g) float32, of the whole frame, padding included"""
    q: Tensor
    """queries of the last block (heads, g * g, d); k and v alike"""
    k: Tensor
    v: Tensor
    grid: Grid
    """patches of the frame that the image fills, rounded down"""
    size: tuple[int, int]
    """(height, width) of the image in SAM's frame"""
    original: tuple[int, int]
    """(height, width) of the image itself"""


class Sam:
    """Segment Anything (Kirillov et al. 2023), taken apart into verbs; the model is neither changed nor hooked.

    Images are (H, W, 3) uint8 RGB of any size; the model sees them with their longer side at `side` pixels, and padded
    to a square.
    """

    def __init__(self, model: nn.Module, name: str = "sam", sha256: str | None = None) -> None:
        self.model = cast("Any", model)
        self.name, self.sha256 = name, sha256
        self.encoder = self.model.image_encoder
        self.side = int(self.encoder.img_size)
        self.patch = int(self.encoder.patch_embed.proj.kernel_size[0])

    @property
    def device(self) -> torch.device:
        """Where the weights are."""
        return next(self.encoder.parameters()).device

    @torch.inference_mode()
    def see(self, image: NDArray[np.uint8]) -> Seen:
        """Run the image encoder: PIL's antialiased resize, the model's own mean and deviation, padding."""
        resized = ResizeLongestSide(self.side).apply_image(image)
        pixels = torch.as_tensor(resized, device=self.device).permute(2, 0, 1)[None]
        embedding, q, k, v = self.encode(self.model.preprocess(pixels))
        size = (int(pixels.shape[2]), int(pixels.shape[3]))
        grid = (size[0] // self.patch, size[1] // self.patch)
        return Seen(embedding, q, k, v, grid, size, (image.shape[0], image.shape[1]))

    def encode(self, frame: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """The embedding of a preprocessed frame (1, 3, side, side), and q, k, v (heads, N, d) of the last block."""
        encoder = self.encoder
        x = encoder.patch_embed(frame.to(next(encoder.parameters()).dtype))
        x = x if encoder.pos_embed is None else x + encoder.pos_embed
        for block in encoder.blocks[:-1]:
            x = block(x) if block.window_size else _through(block, x)[0]
        x, (q, k, v) = _through(encoder.blocks[-1], x)
        return encoder.neck(x.permute(0, 3, 1, 2)).float(), q, k, v

    def attention(self, seen: Seen) -> Iterator[Tensor]:
        """Attention of the last block between patches of the image, (heads, n, h * w) for a few patches at a time.

        The softmax runs over the whole frame, its padding included: rows add to less than 1 where there is any.
        """
        height, width = seen.grid
        attn, whole = self.encoder.blocks[-1].attn, self._whole_grid
        for rows in _weights(attn, seen.q, seen.k, whole, height):
            inside = rows.unflatten(1, (-1, whole[1])).unflatten(3, whole)
            yield inside[:, :, :width, :height, :width].flatten(3).flatten(1, 2)

    def values(self, seen: Seen) -> Tensor:
        """Values of the last block of the image's patches (heads, h * w, d)."""
        height, width = seen.grid
        return seen.v.unflatten(1, self._whole_grid)[:, :height, :width].flatten(1, 2)

    @property
    def _whole_grid(self) -> Grid:
        return (self.side // self.patch, self.side // self.patch)

    def in_frame(self, points: Tensor, size: tuple[int, int]) -> Tensor:
        """Points (..., 2) as (x, y) of an image of this size (height, width), in SAM's frame."""
        found: Tensor = ResizeLongestSide(self.side).apply_coords_torch(points, size)
        return found

    @torch.inference_mode()
    def prompted(
        self, seen: Seen, points: Tensor, boxes: Tensor, mask: Tensor, kinds: Collection[str] = ("point", "box", "mask")
    ) -> Iterator[tuple[Tensor, Tensor]]:
        """One mask for each point (R, 2) with a box (R, 4), both (x, y) in SAM's frame, under one mask prompt.

        Yields logits (r, 1, s, s) at the decoder's resolution and predicted qualities (r,), a few prompts at a time.
        `mask` is (1, s, s), normalised over rows as Trident's release does, or (1, 1, s, s), as SAM documents it. Of
        the three only those of `kinds` are given to SAM; a mask alone makes all answers alike.
        """
        for point, box in zip(points.split(PROMPTS), boxes.split(PROMPTS), strict=True):
            label = torch.ones(len(point), 1, dtype=torch.int, device=point.device)
            sparse, dense = self.model.prompt_encoder(
                points=(point[:, None], label) if "point" in kinds else None,
                boxes=box if "box" in kinds else None,
                masks=mask if "mask" in kinds else None,
            )
            logits, quality = self.decode(seen.embedding, sparse.expand(len(point), -1, -1), dense, slice(1))
            yield logits, quality[:, 0]

    @torch.inference_mode()
    def decode(self, embedding: Tensor, sparse: Tensor, dense: Tensor, masks: slice) -> tuple[Tensor, Tensor]:
        """Logits (B, m, s, s) and qualities (B, m) of some of the decoder's masks: the first is of clear prompts.

        `sparse` (B, t, C) are what the prompt encoder made of points and boxes, `dense` what it made of the one mask
        prompt, or of none: the same for all.
        """
        image = embedding[0] + dense.reshape(-1, *embedding.shape[1:])[0]
        return decode(self.model.mask_decoder, image, self.model.prompt_encoder.get_dense_pe()[0], sparse, masks)

    def at_pixels(self, logits: Tensor, seen: Seen) -> Tensor:
        """Logits (r, 1, s, s) brought to the pixels of the image (r, 1, H, W)."""
        found: Tensor = self.model.postprocess_masks(logits, seen.size, seen.original)
        return found


def fitted(size: tuple[int, int], side: int) -> tuple[int, int]:
    """The (height, width) in SAM's frame of this side of an image of `size`."""
    height, width = ResizeLongestSide.get_preprocess_shape(*size, side)
    return int(height), int(width)


def as_image(pixels: NDArray[np.float32]) -> NDArray[np.uint8]:
    """Pixels (3, H, W) in 0..1 as the image (H, W, 3) they were read from."""
    return (pixels * 255).round().astype(np.uint8).transpose(1, 2, 0)


def _through(block: Any, x: Tensor) -> tuple[Tensor, tuple[Tensor, Tensor, Tensor]]:
    """A block of global attention on tokens (1, h, w, E), and its q, k, v (heads, h * w, d)."""
    grid, attn = (x.shape[1], x.shape[2]), block.attn
    q, k, v = attn.qkv(block.norm1(x)).reshape(grid[0] * grid[1], 3, attn.num_heads, -1).permute(1, 2, 0, 3)
    heads = torch.cat([rows @ v for rows in _weights(attn, q, k, grid, grid[0])], dim=1)
    x = x + attn.proj(heads.transpose(0, 1).reshape(x.shape))
    return x + block.mlp(block.norm2(x)), (q, k, v)


def _weights(attn: Any, q: Tensor, k: Tensor, grid: Grid, height: int) -> Iterator[Tensor]:
    """Rows of softmaxed attention (heads, n, N) with relative positions, for the first `height` rows of patches."""
    up = side = None
    if attn.use_rel_pos:
        up, side = get_rel_pos(grid[0], grid[0], attn.rel_pos_h), get_rel_pos(grid[1], grid[1], attn.rel_pos_w)
    queries = q.unflatten(1, grid)
    for first in range(0, height, step := 1 if q.device.type == "cpu" else ROWS):
        y = queries[:, first : min(first + step, height)]  # (heads, n, w, d)
        logits = (y * attn.scale).flatten(1, 2) @ k.mT
        if up is not None and side is not None:
            table = logits.unflatten(2, grid).unflatten(1, y.shape[1:3])
            table += torch.einsum("anwd,nkd->anwk", y, up[first : first + y.shape[1]])[..., :, None]
            table += torch.einsum("anwd,wkd->anwk", y, side)[..., None, :]
        yield logits.softmax(-1)


def load_sam(name: str, device: torch.device, precision: str) -> Sam:
    """A model by name, or ARCH@FILE. Raises ModelError, WeightsMissingError, GeoOVSegError for damaged files.

    The encoder runs in `precision`, in float32 where that is int8; the largest never in float16, which it exceeds. The
    decoder runs in float32.
    """
    return _load(name, device, "fp32" if _too_large(name) and precision == "fp16" else precision)


def _too_large(name: str) -> bool:
    return model_card(name, "sam").arch == "vit_h"


@lru_cache(maxsize=1)
def _load(name: str, device: torch.device, precision: str) -> Sam:
    card = model_card(name, "sam")
    path = find_weights(card)
    model = build_sam(card.arch)
    with as_weights(path, card):
        fill(model, read_state(path))
    model.to(device)
    packed(model.image_encoder.to(PRECISIONS[precision]))
    return Sam(model, name, file_sha256(path))


def build_sam(arch: str) -> Any:
    """An empty model: `vit_b`, `vit_l` or `vit_h`."""
    return sam_model_registry[arch]().eval().requires_grad_(False)
