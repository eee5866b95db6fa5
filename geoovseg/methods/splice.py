"""Trident's splice: windows of CLIP mixed by a vision model's likeness, and put together into one map."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F

from geoovseg.methods.blocks import Blocks
from geoovseg.methods.proxyclip import ProxyClip, on_grid
from geoovseg.models.patches import own_grid
from geoovseg.models.vit import Grid
from geoovseg.ops.correlation import correlated, mean_likeness
from geoovseg.windows.plan import origins


@dataclass(frozen=True, kw_only=True)
class Splice:
    """From the windows of an image to one map of features, before CLIP's last norm (sections 3.2 and 3.3)."""

    encoder: ProxyClip
    blocks: Blocks
    plain: bool = False

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

        What likeness counts follows from its mean over all windows together, unlike in ProxyCLIP. Where windows are
        `plain`, each patch keeps its own value, as in MaskCLIP.
        """
        clip, encoder = self.encoder.clip, self.encoder
        if self.plain:
            return clip.merge(clip.depth - 1, values[:, None].to(clip.dtype)).float()
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
