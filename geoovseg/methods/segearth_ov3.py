"""SegEarth-OV3 (Li et al. 2025, arXiv 2512.08730): SAM 3's objects and its map of a word, fused, times its presence.

Written from the specification (section 3). There a class is the best of its words after windows are blended, here as
in all methods before: the blended best of two words is never below the best of the two blended. The releases' way is
`benchmark --protocol paper`.
"""

from __future__ import annotations

from functools import partial
from typing import Any

import torch
from torch import Tensor

from geoovseg.errors import MethodError
from geoovseg.methods.builder import builder
from geoovseg.methods.concepts import ConceptMethod, Size, at_pixels, instances
from geoovseg.models.sam3 import Answers


def fuse(
    answers: Answers,
    size: Size,
    *,
    confidence_threshold: float,
    instance: bool,
    semantic: bool,
    presence: bool,
    presence_floor: float,
) -> Tensor:
    """How surely each pixel is each word (Q, H, W): the larger of objects and the word's own map, times presence.

    An object counts by its class score times presence, which therefore counts twice for it, as in the release.
    """
    there = answers.presence.sigmoid().clamp_min(presence_floor)
    sure = answers.classes.sigmoid() * there[:, None]
    found = torch.zeros(len(sure), *size, device=sure.device)
    if instance:
        found = instances(answers, sure, confidence_threshold, size)
    if semantic:
        found = torch.maximum(found, at_pixels(answers.semantic, size))
    return found * there[:, None, None] if presence else found


def _make(
    clip: Any, text: Tensor, *, geometry_cls: bool, words_together: int, instance: bool, semantic: bool, **own: Any
) -> ConceptMethod:
    if not (instance or semantic):
        raise MethodError("segearth-ov3: --set instance=false semantic=false leaves nothing to look at")
    return ConceptMethod(
        sam3=clip,
        text=text,
        fuse=partial(fuse, instance=instance, semantic=semantic, **own),
        geometry_cls=geometry_cls,
        words_together=words_together,
    )


build = builder("segearth-ov3", _make)
