"""ConInfer (Chen et al. 2026): patches of a context that look alike to a vision model correct each other's words."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, ClassVar, Literal

import numpy as np
import torch
from rasterio.windows import Window
from torch import Tensor
from torch.nn import functional as F

from geoovseg.methods import Cost
from geoovseg.methods.blocks import BlockMethod, Blocks, Cut, lay_blocks
from geoovseg.methods.builder import builder
from geoovseg.methods.dense import PAPER_DEPTH, DenseMethod, Features, blocks_of, last_block
from geoovseg.models.vit import ClipVit
from geoovseg.ops.attention import Policy, summing
from geoovseg.ops.classes import best_word, for_each_word
from geoovseg.ops.context import FIRST, Mixture, Rule, fit, log_shares, posterior
from geoovseg.vocabulary import Vocabulary
from geoovseg.windows.batch import TileBatch, in_batches
from geoovseg.windows.memory import CPU_BATCH
from geoovseg.windows.plan import origins

FUSED = (1, 4, 7, 10)
"""Blocks whose attention is added to the last one's, from 0, the same in deeper towers (release)."""
GAIN = 3.0
"""Factor on the fused attention, as for three softmaxes whatever the policy (release)."""
WINDOWS = 7
"""Windows on a side of a block: 49, where the release has 50 images in a context."""
LOOKS = 20_000
"""Windows that are looked at to find some with data, at most."""
LENGTH = 1024
"""Of the features that the temperature was set for (DINOv3 ViT-L)."""
FEATURES = 1280
"""Length of the features of the largest vision model, to tell how much memory a block takes."""


@dataclass(frozen=True)
class Fused:
    """A last-block method with the attention of earlier blocks: 3 ((1 - share) A_policy + share A_earlier) v."""

    clip: ClipVit
    policy: Policy
    residual: bool
    share: float
    blocks: tuple[int, ...] = FUSED

    def __call__(self, pixels: Tensor) -> Features:
        """Features of the windows."""
        clip, total = self.clip, list[Tensor]()
        wanted = blocks_of(self.blocks, clip.depth)
        x, grid = clip.embed(pixels)
        for i in range(clip.depth - 1):
            x = clip.block(i, x, summing(total, wanted.count(i)) if i in wanted else None)

        def mix(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
            earlier = total[0].to(v.dtype) @ v if total else torch.zeros_like(v)
            return GAIN * ((1 - self.share) * self.policy(grid)(q, k, v) + self.share * earlier)

        features = last_block(clip, x, mix, residual=self.residual)
        return Features(features[:, 1:], features[:, 0], grid)


@dataclass(kw_only=True)
class ConInfer(BlockMethod):
    """Words from a score model, likeness from a vision model, both corrected by one mixture for a context."""

    clip: ClipVit
    blocks: Blocks
    scorer: DenseMethod
    vfm: Any
    temperature: float
    by_length: bool
    update: str
    components: str
    joint: bool
    groups: Sequence[int]
    context: str
    sample: int
    notes: tuple[str, ...] = ()
    mixture: Mixture | None = None
    """of the whole scene, once `use` has brought it"""

    unit: ClassVar[Literal["posterior"]] = "posterior"

    def cost(self, tile: tuple[int, int]) -> Cost:
        """Of what is seen of a block, three times over."""
        a_word, base = 3 * 4 * tile[0] * tile[1] / self.patch**2, super().cost(tile)
        return base._replace(fixed=base.fixed + a_word * FEATURES, a_word=a_word)

    @torch.inference_mode()
    def scores(self, batch: TileBatch) -> Tensor:
        """Posteriors of the words (B, Q, h, w); every tile is a context, or has the scene's."""
        values, known = self.blocks.mean(batch, self.see)
        return torch.cat([self._corrected(v, k) for v, k in zip(values.split(1), known.split(1), strict=True)])

    @torch.inference_mode()
    def together(self, images: Tensor, looked_at: Tensor) -> Tensor:
        """Posteriors (B, Q, h, w) of whole images (B, 3, H, W) as one context, as the release has them.

        `looked_at` is what the vision model is given, which there is resized from the files in its own way.
        """
        values = self.see(images, looked_at)
        return self._corrected(values, torch.ones_like(values[:, 0], dtype=torch.bool))

    def see(self, pixels: Tensor, looked_at: Tensor | None = None) -> Tensor:
        """Cosines with the words, and unit features of the vision model, on the patches (B, Q + D, h, w)."""
        cosines = self.scorer.score(pixels)
        grid = (cosines.shape[2], cosines.shape[3])
        features = self.vfm.features(pixels if looked_at is None else looked_at, grid)
        return torch.cat([cosines, F.normalize(features.float(), dim=-1).mT.unflatten(2, grid)], dim=1)

    def _corrected(self, values: Tensor, known: Tensor) -> Tensor:
        """Posteriors (B, Q, h, w) of what was seen (B, Q + D, h, w), all of it one context."""
        shares, features = self._split(values.movedim(1, -1).flatten(0, 2))
        rule = self._rule(features)
        if self.mixture is not None:
            z = posterior(features, shares, self.mixture, rule, unseen_below=FIRST)
        elif self.context == "scene":  # nothing of it was found to have data
            z = shares.exp()
        else:
            here = known.flatten()
            mixture = fit(features[here], shares[here.to(shares.device)], rule)
            z = posterior(features, shares, mixture, rule)
        found = z.unflatten(0, known.shape).movedim(-1, 1).float().to(self.clip.device)
        return found if self.components == "word" else for_each_word(found, self.groups)

    def _rule(self, features: Tensor) -> Rule:
        """How words and likeness go together; log-likelihoods are sums over the features' length."""
        temperature = self.temperature * (features.shape[1] / LENGTH if self.by_length else 1.0)
        return Rule(temperature, 0.5 if self.update == "paper" else 1.0, self.joint)

    def _split(self, values: Tensor) -> tuple[Tensor, Tensor]:
        """Log-shares of the words (N, Q), or of the classes by their best word, and unit features (N, D)."""
        words = len(self.scorer.text)
        cosines = values[:, :words]
        if self.components == "class":
            cosines = best_word(cosines[..., None, None], self.groups)[..., 0, 0]
        return log_shares(cosines), F.normalize(values[:, words:], dim=-1)

    @torch.inference_mode()
    def prepare(self, read: Callable[[Window], TileBatch], shape: tuple[int, int]) -> dict[str, Tensor]:
        """With context=scene the mixture of windows from all over the scene (not in the paper)."""
        if self.context != "scene":
            return {}
        seen = [self._known(batch) for batch in in_batches(self._samples(read, shape), CPU_BATCH)]
        if not seen:
            return {}
        shares, features = self._split(torch.cat(seen))
        return {k: v.cpu() for k, v in fit(features, shares, self._rule(features))._asdict().items()}

    def _known(self, batch: TileBatch) -> Tensor:
        """What is seen of all patches with data in a batch of windows (N, Q + D)."""
        values, known = self.blocks.mean(batch, self.see)
        return values.movedim(1, -1)[known].cpu()

    def _samples(self, read: Callable[[Window], TileBatch], shape: tuple[int, int]) -> Iterator[TileBatch]:
        """Windows with data, `sample` at most, from places that follow from the scene's shape alone."""
        wanted = self.sample
        for window in sample_windows(shape, self.blocks, LOOKS):
            batch = read(window)
            if wanted and batch.valid.any():
                wanted -= 1
                yield batch
            if not wanted:
                return

    def use(self, prepared: Mapping[str, Tensor]) -> None:
        """Take the scene's mixture."""
        if prepared:
            device = "cpu" if self.clip.device.type == "mps" else self.clip.device
            self.mixture = Mixture(**{k: v.to(device) for k, v in prepared.items()})


def sample_windows(shape: tuple[int, int], blocks: Blocks, most: int) -> list[Window]:
    """Windows all over a scene (height, width), in a random order that is the same for every scene of this shape."""
    height, width = (min(blocks.window, -(-side // blocks.patch) * blocks.patch) for side in shape)
    rows, cols = origins(shape[0], height, height), origins(shape[1], width, width)
    order = np.random.default_rng([0, *shape]).permutation(len(rows) * len(cols))[:most]
    return [Window(cols[n % len(cols)], rows[n // len(cols)], width, height) for n in order.tolist()]


def _make(
    clip: ClipVit, text: Tensor, *, vocabulary: Vocabulary, cut: Cut | None, vfm: Any, base: Any, attn_lambda: float,
    fused: str, temperature: float, by_length: bool, update: str, components: str, joint: bool, context: str,
    sample: int,
) -> ConInfer:  # fmt: skip
    scorer, notes = _fused(base, attn_lambda, tuple(map(int, fused.split("+"))))
    return ConInfer(
        clip=clip,
        blocks=lay_blocks(cut, clip, windows=WINDOWS),
        scorer=scorer,
        vfm=vfm,
        temperature=temperature,
        by_length=by_length,
        update=update,
        components=components,
        joint=joint,
        groups=[len(group) for group in vocabulary.groups],
        context=context,
        sample=sample,
        notes=notes,
    )


def _fused(scorer: Any, share: float, blocks: tuple[int, ...]) -> tuple[DenseMethod, tuple[str, ...]]:
    """The score model with earlier attention where it is a last-block method; else as it is, and a note of that."""
    encoder = scorer.encoder
    policy = getattr(encoder, "policy", None)
    if not share:
        return scorer, scorer.notes
    if policy is None:
        note = f"attn_lambda 0 instead of {share:g}: this base has no last block of its own to fuse"
        return scorer, (*scorer.notes, note)
    depth = scorer.clip.depth
    wanted = blocks_of(blocks, depth)
    mapped = () if wanted == blocks else (f"fused blocks {wanted} of {depth} for {blocks} of {PAPER_DEPTH}",)
    return replace(scorer, encoder=Fused(scorer.clip, policy, encoder.residual, share, blocks)), mapped


build = builder("coninfer", _make)
