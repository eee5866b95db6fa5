"""ProxyCLIP (Lan et al. 2024): values of CLIP's last block, gathered by how alike patches are to a vision model."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from torch import Tensor
from torch.nn import functional as F

from geoovseg.methods.builder import builder
from geoovseg.methods.dense import DenseMethod, Features
from geoovseg.models.patches import own_grid
from geoovseg.models.vit import ClipVit, Grid
from geoovseg.ops.correlation import correlated

SIDE = 1.5
"""Windows of 336 pixels for towers trained on 224 (release, slide_crop)."""


@dataclass(frozen=True, kw_only=True)
class ProxyClip:
    """One pass of CLIP up to its last block's values, which are brought to the vision model's grid."""

    clip: ClipVit
    vfm: Any
    beta: float
    gamma: float

    @property
    def cell(self) -> int:
        """The vision model's patch."""
        return int(self.vfm.patch)

    def __call__(self, pixels: Tensor) -> Features:
        """Features of the windows on the vision model's grid; no skip connection, no feed-forward part."""
        clip, last = self.clip, self.clip.depth - 1
        x, grid = clip.trunk(pixels)
        seen, proxy = self.proxies(pixels)
        values = clip.qkv(last, x)[2][:, :, 1:]
        mixed = correlated(seen, on_grid(values, grid, proxy), beta=self.beta, gamma=self.gamma)
        return Features(clip.readout(clip.merge(last, mixed)), None, proxy)

    def proxies(self, pixels: Tensor) -> tuple[Tensor, Grid]:
        """Unit features (B, N, D) of the vision model on its own grid for these pixels."""
        grid = own_grid(pixels, self.vfm.patch)
        return F.normalize(self.vfm.features(pixels, grid).float(), dim=-1), grid


def on_grid(values: Tensor, grid: Grid, other: Grid) -> Tensor:
    """Values (B, heads, h * w, d) of patches brought to another grid, bilinearly."""
    if grid == other:
        return values
    flat = values.mT.flatten(1, 2).unflatten(-1, grid).float()
    resized = F.interpolate(flat, size=other, mode="bilinear", align_corners=False)
    return resized.flatten(2).unflatten(1, (values.shape[1], -1)).mT.to(values.dtype)


def _make(clip: ClipVit, text: Tensor, *, vfm: Any, scale: float, **values: Any) -> DenseMethod:
    return DenseMethod(ProxyClip(clip=clip, vfm=vfm, **values), text, scale=scale, side=SIDE)


build = builder("proxyclip", _make)
