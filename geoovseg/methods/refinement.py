"""SAM refinement (Trident, section 3.4): a segmentation's regions are prompts, and the masks correct their outlines."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal, NamedTuple

import torch
from torch import Tensor
from torch.nn import functional as F

from geoovseg.models.sam import Sam, Seen
from geoovseg.ops.regions import components


@dataclass(frozen=True, kw_only=True)
class Refinement:
    """How regions become prompts, and which masks count."""

    coarse: float
    """least share of the surest class for a pixel to belong to a region"""
    area: float
    """least pixels of a region, at half resolution"""
    quality: float
    """least predicted quality of a mask"""
    alpha: float
    """factor on shares in the mask prompt"""
    layout: Literal["official", "sam"]
    """shape of the mask prompt: as the release passes it, or as SAM documents it"""
    kinds: tuple[str, ...] = ("point", "box", "mask")
    """prompts that SAM is given"""


class Region(NamedTuple):
    """A connected part of one class, at half resolution."""

    channel: int
    area: int
    box: tuple[int, int, int, int]
    """(left, top, right, bottom), inclusive"""
    point: tuple[int, int]
    """(x, y) of the largest share of its class"""
    inside: Tensor
    """(h, w)"""


class Refined(NamedTuple):
    """What masks made of a segmentation."""

    labels: Tensor
    """(H, W)"""
    scores: Tensor
    """(C, H, W) shares times the masks' own confidence; where no mask lies, 0"""
    failed: Tensor
    """(H, W) true in regions whose masks were no good"""

    def blendable(self, shares: Tensor) -> Tensor:
        """Scores with the shares (C, H, W) they came from where no mask lies: their best class is that of `labels`."""
        return torch.where(self.scores.sum(0) == 0, shares, self.scores)


def halved(labels: Tensor, shares: Tensor, coarse: float) -> tuple[Tensor, Tensor]:
    """Labels (h, w) by nearest pixel and shares (C, h, w) at half resolution; -1 where no class reaches `coarse`.

    On the CPU, where regions are found.
    """
    size = (labels.shape[0] // 2, labels.shape[1] // 2)
    small = F.interpolate(labels[None, None].float(), size=size, mode="nearest")[0, 0].long()
    half = F.interpolate(shares[None], size=size, mode="bilinear", align_corners=False)[0]
    kept = torch.where(half.amax(0) < coarse, -1, small) if coarse > 0 else small
    return kept.cpu(), half.cpu()


def find_regions(small: Tensor, half: Tensor, settings: Refinement) -> Iterator[Region]:
    """Regions of labels (h, w) that are large enough, class by class, each in order of its first pixel."""
    for channel in range(len(half)):
        yield from _regions_of(channel, small, half[channel], settings)


def _regions_of(channel: int, small: Tensor, share: Tensor, settings: Refinement) -> Iterator[Region]:
    if float(share.max()) < settings.coarse:
        return
    numbered, count = components(small == channel)
    areas = torch.bincount(numbered.flatten(), minlength=count + 1).tolist()
    for number in range(1, count + 1):
        if areas[number] >= settings.area:
            yield _region(channel, areas[number], numbered == number, share)


def _region(channel: int, area: int, inside: Tensor, share: Tensor) -> Region:
    rows, cols = inside.nonzero(as_tuple=True)
    box = (int(cols.min()), int(rows.min()), int(cols.max()), int(rows.max()))
    best = int(share[inside].argmax())
    return Region(channel, area, box, (int(cols[best]), int(rows[best])), inside)


def mask_prompt(share: Tensor, size: tuple[int, int], side: int, settings: Refinement) -> Tensor:
    """The mask prompt (1, side, side) of a class's shares (h, w): those above `coarse` times alpha, else 0.

    `size` is that of the whole image, whose longer side becomes `side`; padded with 0.
    """
    scale = side / max(size)
    fitted = (int(size[0] * scale + 0.5), int(size[1] * scale + 0.5))
    small = F.interpolate(share[None, None], size=fitted, mode="bilinear", align_corners=False)[0]
    prompt = torch.where(small > settings.coarse, settings.alpha * small, 0)
    return F.pad(prompt, (0, side - fitted[1], 0, side - fitted[0]))


def prompts(sam: Sam, regions: list[Region], half: tuple[int, int]) -> tuple[Tensor, Tensor]:
    """Points (R, 2) and boxes (R, 4) of regions in SAM's frame, from `half` (h, w) resolution."""
    points = torch.tensor([r.point for r in regions], device=sam.device, dtype=torch.float32)
    boxes = torch.tensor([r.box for r in regions], device=sam.device, dtype=torch.float32)
    return sam.in_frame(points, half), sam.in_frame(boxes.view(-1, 2, 2), half).view(-1, 4)


def refine(sam: Sam, seen: Seen, labels: Tensor, shares: Tensor, settings: Refinement) -> Refined:
    """Correct labels (H, W) and shares (C, H, W) of an image by masks prompted with its own regions."""
    small, half = halved(labels, shares, settings.coarse)
    size, low = (labels.shape[0], labels.shape[1]), (half.shape[1], half.shape[2])
    scores, failed = torch.zeros_like(shares), torch.zeros_like(small, dtype=torch.bool)
    for channel in range(len(shares)):
        regions = list(_regions_of(channel, small, half[channel], settings))
        if not regions:
            continue
        mask = mask_prompt(half[channel], size, _side(sam), settings).to(sam.device)
        best = _best(sam, seen, regions, low, size, mask, settings, failed)
        if best is not None:
            scores[channel] = torch.where(best > 0, best.sigmoid() * shares[channel], 0)
    winner = torch.where(scores.sum(0) == 0, labels, scores.argmax(0))
    wide = F.interpolate(failed[None, None].float(), size=size, mode="nearest")[0, 0] > 0
    return Refined(winner, scores, wide.to(labels.device))


def _best(
    sam: Sam,
    seen: Seen,
    regions: list[Region],
    half: tuple[int, int],
    size: tuple[int, int],
    mask: Tensor,
    settings: Refinement,
    failed: Tensor,
) -> Tensor | None:
    """The largest logit (H, W) of a class's good masks, if there are any; other regions are marked in `failed`."""
    points, boxes = prompts(sam, regions, half)
    best: Tensor | None = None
    waiting = iter(regions)
    mask = mask if settings.layout == "official" else mask[None]
    for logits, quality in sam.prompted(seen, points, boxes, mask, settings.kinds):
        good = quality > settings.quality
        for region, kept in zip((next(waiting) for _ in range(len(quality))), good.tolist(), strict=True):
            if not kept:
                failed |= region.inside
        if good.any():
            most = _fit(sam.at_pixels(logits[good], seen), size)[:, 0].amax(0)
            best = most if best is None else torch.maximum(best, most)
    return best


def _side(sam: Sam) -> int:
    return int(sam.model.prompt_encoder.mask_input_size[0])


def _fit(logits: Tensor, size: tuple[int, int]) -> Tensor:
    if tuple(logits.shape[2:]) == size:
        return logits
    return F.interpolate(logits, size=size, mode="bilinear", align_corners=False)
