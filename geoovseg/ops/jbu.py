"""SimFeatUp and FeatUp: learned joint bilateral upsampling of features, four times by two, guided by the picture.

Every pixel of the result is a weighted sum of patch features, and the weights w depend on the picture alone. So
upsampling is linear in the features, and so is the 1 x 1 convolution that follows it, but for its bias:

    U = W F (I + 0.1 A)^T + 0.1 b        patches F (N, D), weights W (pixels, N), convolution A (D, D), b (D)

Two things follow, both exact. The convolution can be applied to the N patches instead of the 256 N pixels. And since
the rows of U lie in the span of the N + 1 rows of F (I + 0.1 A)^T and 0.1 b, an orthonormal basis of it (QR) gives each
patch at most N + 1 coordinates in place of D, here 197 for 512, that keep all lengths and all products with words. Only
the length of a pixel's feature is not linear in the patches; it, and the cosines with the words, are taken as soon as a
strip of pixels is done, so that features at pixel resolution never exist as a whole.

All tensors here have channels last: (height, width, channels).
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache

import torch
from torch import Tensor
from torch.nn import functional as F

STRIP = 8
"""Rows worked on together on a CPU: what a tap reads and adds to then stays in the cache."""
CONVOLUTION = 0.1
"""Weight of the last convolution and of the correction of kernels (release, upsamplers.py)."""
Projection = tuple[Tensor, Tensor, Tensor, Tensor]
"""Two linear maps with a GELU between: weight (m, n), bias (m), weight (k, m), bias (k)."""


@dataclass(frozen=True)
class JbuStep:
    """One doubling: kernels of (2 radius + 1)^2 taps from the picture, applied to bicubically doubled features."""

    range_temp: Tensor
    sigma_spatial: Tensor
    range_proj: Projection
    fixup_proj: Projection

    @property
    def side(self) -> int:
        """Taps along a side: 11 for SimFeatUp's jbu_one, 7 for FeatUp's jbu_stack."""
        return round(len(self.fixup_proj[3]) ** 0.5)

    def __call__(self, source: Tensor, guide: Tensor) -> Tensor:
        """Source (h, w, C) and picture (2h, 2w, 3) to (2h, 2w, C)."""
        return torch.cat(list(self.strips(source, guide)))

    def strips(self, source: Tensor, guide: Tensor) -> Iterator[Tensor]:
        """The same as strips of rows, from the top."""
        height, radius = len(guide), self.side // 2
        doubled = doubled_with_margin(source, radius)
        near = self.compared(guide)
        for top in range(0, height, strip := STRIP if source.device.type == "cpu" else height):
            rows = slice(top, top + strip)
            kernels = self._kernels(near[top : top + strip + 2 * radius], guide[rows])
            yield adaptive_convolution(doubled[top : top + strip + 2 * radius], kernels, self.side)

    def compared(self, guide: Tensor) -> Tensor:
        """What pixels are compared by, (H + 2 radius, W + 2 radius, 32), edges reflected."""
        projected = _project(guide, self.range_proj)
        rows, cols = (_mirrored(n, self.side // 2).to(guide.device) for n in guide.shape[:2])
        return projected[rows][:, cols]

    def range_kernels(self, near: Tensor) -> Tensor:
        """How alike each pixel's neighbours are to it, adding to 1: (H, W, taps) of projected colours with margin."""
        radius, side = self.side // 2, self.side
        height, width = near.shape[0] - 2 * radius, near.shape[1] - 2 * radius
        centre = near[radius : radius + height, radius : radius + width]
        alike = near.new_empty(side * side, height, width)
        for n, moved in enumerate(_taps(near, side, height, width)):
            torch.sum(moved * centre, dim=-1, out=alike[n])
        return (alike * self.range_temp.exp().clamp(1e-4, 1e4)).softmax(0).permute(1, 2, 0)

    def spatial_kernel(self) -> Tensor:
        """A Gaussian of the distance from the centre, which is 1 at the middle of an edge: (taps,)."""
        place = torch.linspace(-1, 1, self.side, device=self.sigma_spatial.device).square()
        squared = (place[:, None] + place[None]).flatten()
        return torch.exp(-squared / (2 * self.sigma_spatial**2))

    def _kernels(self, near: Tensor, guide: Tensor) -> Tensor:
        """Weights (H, W, taps): range times space, made to add to 1, then corrected by a small network."""
        kernels = self.range_kernels(near) * self.spatial_kernel()
        kernels = kernels / kernels.sum(-1, keepdim=True).clamp(min=1e-7)
        return kernels + CONVOLUTION * _project(torch.cat([kernels, guide], dim=-1), self.fixup_proj)


def doubled_with_margin(source: Tensor, margin: int) -> Tensor:
    """Source (h, w, C) doubled bicubically and mirrored at the edges: (2h + 2 margin, 2w + 2 margin, C).

    Both are linear along one axis at a time: two matrix products.
    """
    down, across = (_doubling(n, margin).to(source) for n in source.shape[:2])
    rows = (down @ source.flatten(1)).unflatten(1, source.shape[1:])
    return across @ rows


@lru_cache(maxsize=16)
def _doubling(length: int, margin: int) -> Tensor:
    """The matrix (2 length + 2 margin, length) of torch's bicubic interpolation (align_corners=False) and mirroring."""
    image = torch.eye(length)[None, None]
    matrix = F.interpolate(image, size=(2 * length, length), mode="bicubic", align_corners=False)[0, 0]
    return matrix[_mirrored(2 * length, margin)]


@lru_cache(maxsize=16)
def _mirrored(length: int, margin: int) -> Tensor:
    """Indexes of an axis with `margin` mirrored on both sides, the edge itself not repeated."""
    place = torch.arange(-margin, length + margin).abs()
    return torch.where(place < length, place, 2 * (length - 1) - place)


def adaptive_convolution(source: Tensor, kernels: Tensor, side: int) -> Tensor:
    """Every pixel's own kernel (H, W, side^2) on its neighbourhood in source (H + side - 1, W + side - 1, C).

    Tap by tap: the memory is that of source and result, not side^2 times as much.
    """
    height, width = kernels.shape[:2]
    total = source.new_zeros(height, width, source.shape[2])
    for n, moved in enumerate(_taps(source, side, height, width)):
        total.addcmul_(moved, kernels[..., n, None])
    return total


@dataclass(frozen=True)
class Jbu:
    """An upsampler of features by sixteen: four doublings and a convolution (Li et al. 2024; Fu et al. 2024)."""

    steps: tuple[JbuStep, JbuStep, JbuStep, JbuStep]
    weight: Tensor
    """(D, D)"""
    bias: Tensor
    """(D,)"""

    @property
    def dim(self) -> int:
        """Length of the features it was trained on."""
        return len(self.bias)

    @property
    def least_grid(self) -> int:
        """Patches a window needs along a side, for its edge to be mirrored in the first doubling."""
        return self.steps[0].side // 4 + 1

    def features(self, patches: Tensor, image: Tensor) -> Tensor:
        """Patch features (h, w, D) and the normalised picture (3, 16h, 16w) to features (16h, 16w, D)."""
        rows, offset = self._convolved(patches.flatten(0, 1))
        return torch.cat(list(self._strips(rows.view(patches.shape), image))) + offset

    def cosines(self, patches: Tensor, grid: tuple[int, int], image: Tensor, text: Tensor) -> Tensor:
        """Cosines (B, Q, H, W) of upsampled features with unit text (Q, D), for patches (B, N, D), in float32.

        Window by window, so that none depends on another.
        """
        each = zip(patches.float(), image.float(), strict=True)
        return torch.stack([self._cosines(p, grid, i, text) for p, i in each])

    def _cosines(self, patches: Tensor, grid: tuple[int, int], image: Tensor, text: Tensor) -> Tensor:
        rows, offset = self._convolved(patches)
        if len(rows) + 1 < rows.shape[1]:
            basis, coordinates = torch.linalg.qr(torch.cat([rows, offset[None]]).T)
            rows, offset, text = coordinates.T[:-1], coordinates.T[-1], text @ basis
        strips = []
        for strip in self._strips(rows.unflatten(0, grid), image):
            found = strip + offset
            strips.append(found @ text.T / found.norm(dim=-1, keepdim=True).clamp(min=1e-12))
        return torch.cat(strips).permute(2, 0, 1)

    def _convolved(self, rows: Tensor) -> tuple[Tensor, Tensor]:
        """Patches (N, D) after the convolution's linear part, and its constant part."""
        return rows + CONVOLUTION * (rows @ self.weight.T), CONVOLUTION * self.bias

    def _strips(self, source: Tensor, image: Tensor) -> Iterator[Tensor]:
        """Strips of rows of the source after all doublings; only the last doubling's are not joined."""
        for step in self.steps[:-1]:
            source = step(source, _shrunk(image, source))
        yield from self.steps[-1].strips(source, _shrunk(image, source))


def _shrunk(image: Tensor, source: Tensor) -> Tensor:
    """The picture (3, H, W) averaged to twice the source's size, channels last."""
    size = (2 * source.shape[0], 2 * source.shape[1])
    return F.adaptive_avg_pool2d(image, size).permute(1, 2, 0).contiguous()


def _project(x: Tensor, weights: Projection) -> Tensor:
    return F.linear(F.gelu(F.linear(x, *weights[:2])), *weights[2:])


def _taps(x: Tensor, side: int, height: int, width: int) -> Iterator[Tensor]:
    for row in range(side):
        for col in range(side):
            yield x[row : row + height, col : col + width]
