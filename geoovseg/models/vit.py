"""The verbs of a CLIP image tower: what every dense method is composed of, over unmodified open_clip modules."""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar, Literal, Protocol, cast

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.functional import scaled_dot_product_attention as sdpa

from geoovseg.errors import ModelError
from geoovseg.models.card import CLIP_MEAN, CLIP_STD, Tower
from geoovseg.models.patches import Grid as Grid
from geoovseg.ops.attention import Mix
from geoovseg.ops.linear import feed_forward, linear

Positions = Literal["offset", "size", "antialias"]
"""How a position table is brought to another grid: see `ClipVit.positions`."""


class _Block(Protocol):
    ln_1: nn.Module
    ln_2: nn.Module
    ls_1: nn.Module
    ls_2: nn.Module
    mlp: nn.Module
    attn: nn.MultiheadAttention


class _Transformer(Protocol):
    resblocks: Sequence[_Block]


class _Tower(Protocol):
    """What we use of `open_clip.transformer.VisionTransformer`."""

    conv1: nn.Conv2d
    class_embedding: Tensor
    positional_embedding: Tensor
    ln_pre: nn.Module
    ln_post: nn.Module
    proj: Tensor
    transformer: _Transformer


class ClipVit:
    """An open_clip vision transformer, taken apart into verbs; the tower itself is neither changed nor hooked.

    `embed`, then `block` for each layer, then `readout` equals the tower's own forward on its class token. Any number
    of pixels is accepted: the grid is (H // patch, W // patch) and position tables are resized to it.
    Raises ModelError for towers that are not plain vision transformers.
    """

    kind: ClassVar[Tower] = "clip"

    def __init__(
        self, visual: nn.Module, *, mean: Sequence[float] = CLIP_MEAN, std: Sequence[float] = CLIP_STD
    ) -> None:
        for part in ("conv1", "class_embedding", "positional_embedding", "ln_pre", "ln_post", "proj", "transformer"):
            if getattr(visual, part, None) is None:
                raise ModelError(
                    f"this image tower ({type(visual).__name__}) has no {part}: the methods need a plain CLIP vision "
                    "transformer such as ViT-B-16/openai"
                )
        if getattr(visual, "attn_pool", None) is not None:
            raise ModelError("image towers with attention pooling (CoCa) have no patch features to read out")
        self.visual = visual
        self._tower = cast("_Tower", visual)
        self.blocks = self._tower.transformer.resblocks
        self.heads = int(self.blocks[0].attn.num_heads)
        patch = self._tower.conv1.kernel_size
        self.patch = int(patch[0])
        tokens, width = self._tower.positional_embedding.shape
        side = int((tokens - 1) ** 0.5)
        self.native_grid: Grid = (side, side)
        self.width, self.dim = int(width), int(self._tower.proj.shape[1])
        self._keep_colours(mean, std)
        self._positions: dict[tuple[Grid, Positions], Tensor] = {}

    @property
    def depth(self) -> int:
        """Number of blocks."""
        return len(self.blocks)

    @property
    def dtype(self) -> torch.dtype:
        """The dtype the tower computes in."""
        return self._tower.conv1.weight.dtype

    @property
    def device(self) -> torch.device:
        """Where the tower's weights are."""
        return self._tower.conv1.weight.device

    @property
    def mean(self) -> Tensor:
        """The mean colour the tower was trained with, (1, 3, 1, 1) in 0..1."""
        return self._mean

    def _keep_colours(self, mean: Sequence[float], std: Sequence[float]) -> None:
        """Have what `normalise` needs where the weights are, in float32 or finer."""
        dtype = torch.promote_types(self.dtype, torch.float32)
        self._mean, self._std = (torch.tensor(v, device=self.device, dtype=dtype).view(1, 3, 1, 1) for v in (mean, std))

    def _patches_of(self, pixels: Tensor) -> tuple[Tensor, Grid]:
        """Normalised pixels in the tower's dtype without what fills no patch, and the grid of patches."""
        grid = (pixels.shape[-2] // self.patch, pixels.shape[-1] // self.patch)
        whole = pixels[..., : grid[0] * self.patch, : grid[1] * self.patch]
        return self.normalise(whole).to(self.dtype), grid

    def normalise(self, pixels: Tensor) -> Tensor:
        """RGB in 0..1 to what the tower was trained on: less the mean, by the standard deviation, in float32."""
        return (pixels.to(self._mean.dtype) - self._mean) / self._std

    def pad(self, pixels: Tensor) -> Tensor:
        """Extend (B, 3, H, W) right and below to multiples of the patch with the mean colour, 0 when normalised."""
        height, width = pixels.shape[-2:]
        padded = self._mean.expand(len(pixels), 3, height + -height % self.patch, width + -width % self.patch).clone()
        padded[..., :height, :width] = pixels
        return padded

    def embed(self, pixels: Tensor, positions: Positions = "offset") -> tuple[Tensor, Grid]:
        """Pixels (B, 3, H, W), RGB in 0..1, to tokens (B, 1 + N, E) before the first block, and the grid (h, w).

        Sizes that are no multiple of the patch lose the remainder, as the convolution does.
        """
        tower = self._tower
        x = tower.conv1(self.normalise(pixels).to(self.dtype))
        grid = (x.shape[-2], x.shape[-1])
        patches = x.flatten(2).mT  # (B, N, E)
        cls = tower.class_embedding.to(x.dtype).expand(len(x), 1, -1)
        tokens = torch.cat([cls, patches], dim=1) + self.positions(grid, positions).to(x.dtype)
        return tower.ln_pre(tokens), grid

    def positions(self, grid: Grid, rule: Positions = "offset") -> Tensor:
        """The position table (1 + h * w, E) for a grid, resized bicubically by one of three published rules.

        - offset (SCLIP, ClearCLIP, NACLIP, ResCLIP, SegEarth-OV, ConInfer): scale factor (n + 0.1) / s.
        - size (MaskCLIP): to the plain size.
        - antialias (GEM): to the plain size, antialiased.

        They give different features. With as many tokens as in training the table is used as it is, even for another
        shape, but for GEM, which compares shapes.
        """
        table = self._tower.positional_embedding
        if grid == self.native_grid or (rule != "antialias" and grid[0] * grid[1] + 1 == len(table)):
            return table
        key = (grid, rule)
        if key not in self._positions or table.requires_grad:
            self._positions[key] = resize_positions(table, self.native_grid, grid, rule)
        return self._positions[key]

    def attended(self, i: int, x: Tensor) -> Tensor:
        """What block `i` projects to queries, keys and values: its input x (B, L, E) through its first norm."""
        return cast("Tensor", self.blocks[i].ln_1(x))

    def qkv(self, i: int, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Queries, keys and values of block `i` for its input x (B, L, E): three of (B, heads, L, d)."""
        attn = self.blocks[i].attn
        y = linear(self.attended(i, x), attn.in_proj_weight, attn.in_proj_bias)
        q, k, v = y.unflatten(-1, (3, self.heads, -1)).permute(2, 0, 3, 1, 4)
        return q, k, v

    def merge(self, i: int, heads: Tensor) -> Tensor:
        """Values (B, heads, L, d) to tokens (B, L, E) through the output projection of block `i`, bias included."""
        out = self.blocks[i].attn.out_proj
        return linear(heads.transpose(1, 2).flatten(2), out.weight, out.bias)

    def ffn(self, i: int, x: Tensor) -> Tensor:
        """What the feed-forward part of block `i` adds to x."""
        block = self.blocks[i]
        return cast("Tensor", block.ls_2(feed_forward(block.mlp, block.ln_2(x))))

    def block(self, i: int, x: Tensor, mix: Mix | None = None, bias: Tensor | None = None) -> Tensor:
        """Block `i` as trained, with its attention replaced by `mix` or biased by `bias` (B, heads, L, L) if given."""
        q, k, v = self.qkv(i, x)
        return self.after(i, x, sdpa(q, k, v, attn_mask=bias) if mix is None else mix(q, k, v))

    def after(self, i: int, x: Tensor, heads: Tensor) -> Tensor:
        """What block `i` makes of its input x (B, L, E) once attention has given heads (B, heads, L, d)."""
        x = x + self.blocks[i].ls_1(self.merge(i, heads))
        return x + self.ffn(i, x)

    def final_norm(self, x: Tensor) -> Tensor:
        """Tokens (B, L, E) through the norm after the last block."""
        return cast("Tensor", self._tower.ln_post(x))

    def readout(self, x: Tensor) -> Tensor:
        """Tokens (B, L, E) into the joint space (B, L, D) by the last norm and the projection; not normalised."""
        return self.project(self.final_norm(x))

    def project(self, x: Tensor) -> Tensor:
        """Normed tokens (B, L, E) into the joint space (B, L, D)."""
        return x @ self._tower.proj

    def trunk(self, pixels: Tensor, positions: Positions = "offset") -> tuple[Tensor, Grid]:
        """Tokens (B, 1 + N, E) entering the last block, and the grid: the part all last-block methods share."""
        x, grid = self.embed(pixels, positions)
        for i in range(self.depth - 1):
            x = self.block(i, x)
        return x, grid


def resize_positions(table: Tensor, native: Grid, grid: Grid, rule: Positions) -> Tensor:
    """A position table (1 + N, E) of a native grid for another one, by one of the rules of `ClipVit.positions`."""
    patches = table[1:].T.unflatten(1, native)[None].float()  # (1, E, s, s)
    if rule == "offset":
        scale = ((grid[0] + 0.1) / native[0], (grid[1] + 0.1) / native[1])
        resized = F.interpolate(patches, scale_factor=scale, mode="bicubic", align_corners=False)
    else:
        resized = F.interpolate(patches, size=grid, mode="bicubic", align_corners=False, antialias=rule == "antialias")
    return torch.cat([table[:1], resized[0].flatten(1).T.to(table.dtype)])
