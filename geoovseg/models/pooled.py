"""Image towers that end in attention pooling (SigLIP 2, PE-Core), taken apart into the verbs of a CLIP tower.

The pool stands for the last block: its keys and values are of the patches, its one query is learned. A value that goes
through the pool's projection and feed-forward part, and through the head, is a feature of its patch: what MaskCLIP
reads out of CLIP. It equals the tower's own head on that patch alone.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, ClassVar, cast

import torch
from torch import Tensor, nn

from geoovseg.models.card import Tower
from geoovseg.models.light import open_clip, timm
from geoovseg.models.patches import Grid
from geoovseg.models.vit import ClipVit, Positions


def pooled(config: dict[str, Any]) -> Any:
    """An empty model by a configuration of open_clip, whose image tower takes windows of any size."""
    config = {key: value for key, value in config.items() if key != "custom_text"}
    create, vision = timm().create_model, config["vision_cfg"]
    model = open_clip.CustomTextCLIP(**config)
    classes = 0 if vision.get("timm_proj") == "none" else config["embed_dim"]
    model.visual.trunk = create(
        vision["timm_model_name"], num_classes=classes, global_pool=vision["timm_pool"], dynamic_img_size=True
    )
    return model


class PooledVit(ClipVit):
    """A vision transformer of timm under open_clip, whose head pools by attention.

    The first token is the class token, or where the tower has none the mean of the patches, which nothing reads.
    Position tables are resized as timm does.
    """

    kind: ClassVar[Tower] = "pooled"

    def __init__(self, visual: nn.Module, *, mean: Sequence[float], std: Sequence[float]) -> None:
        self.visual = visual
        self._trunk, self._head = cast("Any", visual).trunk, cast("Any", visual).head
        self._pool = self._trunk.attn_pool
        self.blocks = (*self._trunk.blocks, self._pool)
        self.heads, self.width = int(self._pool.num_heads), int(self._pool.latent.shape[-1])
        self.patch = int(self._trunk.patch_embed.patch_size[0])
        rows, columns = self._trunk.patch_embed.grid_size
        self.native_grid: Grid = (int(rows), int(columns))
        self.dim = int(self.project(self._pool.latent.detach()[0]).shape[-1])
        self._keep_colours(mean, std)

    @property
    def dtype(self) -> torch.dtype:
        """The dtype the tower computes in."""
        return cast("torch.dtype", self._trunk.patch_embed.proj.weight.dtype)

    @property
    def device(self) -> torch.device:
        """Where the tower's weights are."""
        return cast("torch.device", self._trunk.patch_embed.proj.weight.device)

    def trunk(self, pixels: Tensor, positions: Positions = "offset") -> tuple[Tensor, Grid]:
        """Tokens (B, 1 + N, E) entering the pool, after the tower's norm, and the grid."""
        whole, grid = self._patches_of(pixels)
        x = self._trunk.forward_features(whole)
        first = x[:, :1] if self._trunk.num_prefix_tokens else x.mean(1, keepdim=True)
        return torch.cat([first, x[:, self._trunk.num_prefix_tokens :]], dim=1), grid

    def attended(self, i: int, x: Tensor) -> Tensor:
        """The pool attends to tokens as they are."""
        return x

    def qkv(self, i: int, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """The pool's learned query for every token, and their keys and values: three of (B, heads, L, d)."""
        query = self._pool.q(self._pool.latent).expand(*x.shape[:2], -1)
        q = query.unflatten(-1, (self.heads, -1)).transpose(1, 2)
        k, v = self._pool.kv(x).unflatten(-1, (2, self.heads, -1)).permute(2, 0, 3, 1, 4)
        return self._pool.q_norm(q), self._pool.k_norm(k), v

    def merge(self, i: int, heads: Tensor) -> Tensor:
        """Values (B, heads, L, d) to tokens (B, L, E) through the pool's projection."""
        return cast("Tensor", self._pool.proj(heads.transpose(1, 2).flatten(2)))

    def ffn(self, i: int, x: Tensor) -> Tensor:
        """What the pool's feed-forward part adds to x."""
        return cast("Tensor", self._pool.mlp(self._pool.norm(x)))

    def after(self, i: int, x: Tensor, heads: Tensor) -> Tensor:
        """What the pool makes once attention has given heads (B, heads, L, d); it has no skip connection."""
        merged = self.merge(i, heads)
        return merged + self.ffn(i, merged)

    def final_norm(self, x: Tensor) -> Tensor:
        """The norm after the pool, if there is one."""
        return cast("Tensor", self._trunk.fc_norm(x))

    def project(self, x: Tensor) -> Tensor:
        """Pooled tokens (B, L, E) into the joint space (B, L, D)."""
        return cast("Tensor", self._head(self._trunk.head(x)))
