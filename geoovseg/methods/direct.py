"""Direct segmentation (arXiv 2604.07723): labels from how far words must travel over a vision model's attention.

The paper's code is not released. What it leaves open is a setting, with the value that experiments settled on; see
docs/methods.md. Maths is per image: cosines (C, N) of classes and patches, attention (N, N) whose rows add to 1.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any, ClassVar, Literal, NamedTuple

import torch
from torch import Tensor
from torch.nn import functional as F

from geoovseg.errors import UsageError
from geoovseg.methods import Cost
from geoovseg.methods.blocks import BlockMethod, Blocks, Cut, lay_blocks
from geoovseg.methods.builder import builder
from geoovseg.models.diffusion import DiffusionVfm
from geoovseg.models.vit import ClipVit, Grid
from geoovseg.ops.classes import best_word, for_each_word
from geoovseg.ops.context import precise
from geoovseg.ops.pixels import on_device
from geoovseg.ops.upsample import bilateral
from geoovseg.vocabulary import Vocabulary
from geoovseg.windows.batch import TileBatch

SHARPEN = 100.0
"""Factor on cosines before the softmax over classes that says how sure a patch is."""
ROWS = 1024
"""Rows of N x N work made at once beside the attention and its kernel."""
TINY = torch.finfo(torch.float64).tiny
MOST_PATCHES = 128 * 128
"""Patches of a block, at most: attention of so many takes 2 GB in float64, three times over."""
LEAST_GRID = 32
"""Patches along the longer side that attention is looked at with, at least."""


class Seeds(NamedTuple):
    """Where each class surely is."""

    shares: Tensor
    """(C, N) of each class, adding to 1 over the patches; 0 for rejected classes"""
    alive: Tensor
    """(C,) classes that win a patch"""
    mass: Tensor
    """(C,) sum of confidences above the threshold / N"""


def seeds(cosines: Tensor, threshold: float, sharpness: float) -> Seeds:
    """Suppress unsure patches, normalise over patches, reject classes that win none (sec. 3.2)."""
    confidence = (SHARPEN * cosines).softmax(0)
    sure = confidence >= threshold
    shares = torch.where(sure, sharpness * cosines, -torch.inf).softmax(1).nan_to_num(0)
    winner = shares.argmax(0)[shares.amax(0) > 0]
    alive = torch.bincount(winner, minlength=len(cosines)) > 0
    return Seeds(shares * alive[:, None], alive, (confidence * sure).sum(1) / cosines.shape[1])


def optimal_path(attention: Tensor, found: Seeds, *, epsilon: float, iterations: int, mass_power: float) -> Tensor:
    """What every patch receives of each class (C, N) by the cheapest transport from its seeds to all patches alike.

    Cost is the attention itself; Sinkhorn with K = exp(-A / epsilon), D_j = sum_i A_ij pi_ij, never forming pi
    (eq. 8 to 12). Every class carries the same mass unless `mass_power` lets that of its seeds count.
    """
    kernel = attention.div(-epsilon).exp_()
    source = found.shares.T[:, found.alive]
    nu = torch.ones_like(source)
    for _ in range(iterations):
        mu = source / (kernel @ nu)
        nu = 1 / (len(kernel) * (kernel.T @ mu))
    received = torch.zeros_like(nu)
    for rows in torch.arange(len(kernel), device=kernel.device).split(ROWS):
        received += (kernel[rows] * attention[rows]).T @ mu[rows]
    result = torch.zeros_like(found.shares)
    result[found.alive] = (nu * received).T * found.mass[found.alive, None] ** mass_power
    return result


def stochastic(attention: Tensor, sweeps: int) -> Tensor:
    """Columns, then rows made to add to 1, `sweeps` times: attention without patches that draw all of it (IPF)."""
    flow = attention.clone()
    for _ in range(sweeps):
        flow /= flow.sum(0, keepdim=True).clamp_min(TINY)
        flow /= flow.sum(1, keepdim=True).clamp_min(TINY)
    return flow


def crossing_steps(flow: Tensor, found: Seeds, *, reach: float, max_steps: int) -> Tensor:
    """Steps (C, N), between whole ones, until a class spread by `flow` is at a patch `reach` of what it is at most.

    `max_steps` where that never happens, as for rejected classes.
    """
    steps = torch.full_like(found.shares, float(max_steps))
    waiting = found.alive[:, None].expand_as(steps).clone()
    state, before = found.shares, torch.zeros_like(steps)
    for step in range(1, max_steps + 1):
        state = state @ flow
        level = state / state.amax(1, keepdim=True).clamp_min(torch.finfo(state.dtype).tiny)
        rise = level - before + 1e-6 if step > 1 else torch.full_like(level, 1 - reach + 1e-6)
        crossed = waiting & (level > reach)
        steps = torch.where(crossed, step - (level - reach) / rise, steps)
        waiting &= ~crossed
        before = level
        if not bool(waiting.any()):
            break
    return steps


def maximum_velocity(
    attention: Tensor, found: Seeds, *, reach: float, max_steps: int, sweeps: int, mass_power: float
) -> Tensor:
    """How fast each class arrives at every patch (C, N), 1 / (1 + steps) in 0..1; 0 for rejected classes (eq. 15)."""
    steps = crossing_steps(stochastic(attention, sweeps), found, reach=reach, max_steps=max_steps)
    return found.alive[:, None] / (1 + steps) * found.mass[:, None] ** mass_power


Answer = Callable[[Tensor, Seeds], Tensor]
"""Attention (N, N) and seeds to what speaks for each class at every patch (C, N), 0 for rejected classes."""


@dataclass(kw_only=True)
class Direct(BlockMethod):
    """A score model's cosines, spread over a vision model's attention."""

    clip: ClipVit
    blocks: Blocks
    scorer: Any
    vfm: Any
    groups: Sequence[int]
    answer: Answer
    threshold: float
    sharpness: float
    attention_blocks: int
    jbu: bool
    notes: tuple[str, ...] = ()

    unit: ClassVar[Literal["probability"]] = "probability"

    @property
    def at_pixels(self) -> bool:
        """Whether the answer is brought to pixels by joint bilateral upsampling."""
        return self.jbu

    def cost(self, tile: tuple[int, int]) -> Cost:
        """Of the attention: sixteen heads in float32, and three times float64."""
        height, width = attention_grid(torch.empty(1, 3, *tile, device="meta"), self.vfm.patch)
        base = super().cost(tile)
        return base._replace(fixed=base.fixed + (height * width) ** 2 * (16 * 4 + 3 * 8))

    @torch.inference_mode()
    def scores(self, batch: TileBatch) -> Tensor:
        """Shares of the classes (B, Q, H, W) that are there, 0 for the others; all words of a class have its share."""
        cosines, known = self.blocks.mean(batch, self.scorer.score)
        classes = best_word(cosines, self.groups)
        pixels = on_device(batch.stored, classes.device)
        images = zip(classes.split(1), known.split(1), pixels.split(1), strict=True)
        found = torch.cat([self._shares(*image) for image in images])
        return for_each_word(found, self.groups)

    def _shares(self, cosines: Tensor, known: Tensor, pixels: Tensor) -> Tensor:
        """Shares (1, C, H, W) of one image; on the grid of attention without the joint bilateral upsampling.

        Patches without data have no part in anything.
        """
        grid = attention_grid(pixels, self.vfm.patch)
        blocks = self.attention_blocks or self.vfm.attention_blocks
        attention = precise(self.vfm.attention(pixels, grid, blocks)[0])
        flat = precise(F.interpolate(cosines, size=grid, mode="bilinear", align_corners=False)[0].flatten(1))
        here = seen_on(known, grid).to(flat.device)
        speaks = torch.zeros_like(flat)
        speaks[:, here] = self._speaks(between(attention, here), flat[:, here])
        image = speaks.unflatten(1, grid)[None]
        if self.jbu:
            image = bilateral(image, precise(pixels))
        return (image / image.sum(1, keepdim=True).clamp_min(TINY)).float().to(cosines.device)

    def _speaks(self, attention: Tensor, cosines: Tensor) -> Tensor:
        """What speaks for each class at the patches with data; plain shares where no patch is sure of anything."""
        found = seeds(cosines, self.threshold, self.sharpness)
        return self.answer(attention, found) if bool(found.alive.any()) else (SHARPEN * cosines).softmax(0)


def _small_enough(blocks: Blocks, vfm: Any) -> Blocks:
    """Refuse blocks whose attention would not fit into any memory. Raises UsageError."""
    if (blocks.side / vfm.patch) ** 2 > MOST_PATCHES:
        most = int(MOST_PATCHES**0.5) * vfm.patch // blocks.patch * blocks.patch
        raise UsageError(f"--block {blocks.side} has too many patches of {vfm.name} for attention; at most {most}")
    return blocks


def _maker(answer: Callable[..., Tensor]) -> Callable[..., Direct]:
    """`answer` is given the settings that are not common to both."""

    def make(
        clip: ClipVit, text: Tensor, *, vocabulary: Vocabulary, cut: Cut | None, vfm: Any, base: Any, threshold: float,
        sharpness: float, attention_blocks: int, sd_step: int, sd_layers: str, jbu: bool, **own: Any,
    ) -> Direct:  # fmt: skip
        if isinstance(vfm, DiffusionVfm):
            vfm = replace(vfm, timestep=sd_step, weights=tuple(map(float, sd_layers.split("+"))))
        return Direct(
            clip=clip,
            blocks=_small_enough(lay_blocks(cut, clip, windows=1), vfm),
            scorer=base,
            vfm=vfm,
            notes=base.notes,
            groups=[len(group) for group in vocabulary.groups],
            answer=partial(answer, **own),
            threshold=threshold,
            sharpness=sharpness,
            attention_blocks=attention_blocks,
            jbu=jbu,
        )

    return make


optimal_path_method = builder("direct-op", _maker(optimal_path))
maximum_velocity_method = builder("direct-mv", _maker(maximum_velocity))


def seen_on(known: Tensor, grid: Grid) -> Tensor:
    """Which patches of another grid have data (N,), of those known (1, h, w); all if it is too coarse to say."""
    here = F.interpolate(known[None].float(), size=grid, mode="bilinear", align_corners=False).flatten() >= 0.5
    return here if bool(here.any()) else torch.ones_like(here)


def between(attention: Tensor, here: Tensor) -> Tensor:
    """Attention among some patches, rows adding to 1 again."""
    if bool(here.all()):
        return attention
    kept = attention[here][:, here]
    return kept / kept.sum(1, keepdim=True).clamp_min(TINY)


def attention_grid(pixels: Tensor, patch: int) -> Grid:
    """The grid of a model of this patch, scaled up so that the longer side has at least LEAST_GRID patches."""
    height, width = pixels.shape[-2:]
    factor = max(1.0, LEAST_GRID * patch / max(height, width))
    return max(1, round(height * factor / patch)), max(1, round(width * factor / patch))
