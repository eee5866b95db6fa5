"""ProC-SAM3 (Song et al. 2026, arXiv 2606.21863): where SAM 3's objects and its map of a word agree, objects may add.

Written from what its release (234c87e) does. Its pools of prompts, made offline by a language model, are not released:
classes with several words are what takes their place. The release sees images whole, stretched to one window.
"""

from __future__ import annotations

from functools import partial
from typing import Any

import torch
from torch import Tensor

from geoovseg.methods.builder import builder
from geoovseg.methods.concepts import ConceptMethod, Size, at_pixels, instances
from geoovseg.models.sam3 import Answers
from geoovseg.ops.classes import for_each_word
from geoovseg.vocabulary import Vocabulary

EDGE = 1e-4
"""How near to 0 and 1 a map may come before it is weighed by presence (release)."""
BEST = 2
"""Words of a class whose maps are averaged with `aggregate=topk_mean` (release)."""


def fuse(answers: Answers, size: Size, *, confidence_threshold: float) -> Tensor:
    """How surely each pixel is each word (Q, H, W): the word's map, raised towards objects as far as a gate is open.

    The gate is presence times the best object's score, kept or not, times how well both maps agree at a pixel.
    """
    there = answers.presence.sigmoid()
    sure = answers.classes.sigmoid() * there[:, None]
    semantic = at_pixels(answers.semantic, size)
    raised = torch.maximum(semantic, instances(answers, sure, confidence_threshold, size))
    agreement = (1 - (semantic - raised).abs()).clamp(0, 1)
    gate = ((there * sure.amax(1))[:, None, None] * agreement).clamp(0, 1)
    found = semantic + gate * (raised - semantic)
    return found.clamp(EDGE, 1 - EDGE) * there[:, None, None]


def topk_mean(maps: Tensor, groups: list[int]) -> Tensor:
    """Maps of words (Q, H, W), all words of a class having the mean of its two that are surest of a pixel anywhere."""
    classes = []
    for group in maps.split(groups):
        best = group.flatten(1).amax(1).topk(min(BEST, len(group))).indices
        classes.append(group[best].mean(0))
    return for_each_word(torch.stack(classes)[None], groups)[0]


def _make(
    clip: Any,
    text: Tensor,
    *,
    vocabulary: Vocabulary,
    geometry_cls: bool,
    words_together: int,
    aggregate: str,
    confidence_threshold: float,
) -> ConceptMethod:
    groups = [len(group) for group in vocabulary.groups]
    more: dict[str, Any] = {"topk_mean": {"speak": partial(topk_mean, groups=groups)}}.get(aggregate, {})
    return ConceptMethod(
        sam3=clip,
        text=text,
        fuse=partial(fuse, confidence_threshold=confidence_threshold),
        geometry_cls=geometry_cls,
        words_together=words_together,
        **more,
    )


build = builder("proc-sam3", _make)
