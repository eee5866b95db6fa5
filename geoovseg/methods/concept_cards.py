"""Cards of the methods that ask SAM 3."""

from __future__ import annotations

from typing import Any

from geoovseg.methods.fields import Field, MethodCard

_KEPT = (
    "what SAM 3 sees takes 110 MB a window of 1008 x 1008, of which a detector asks each word, so that asking again "
    "would save its image encoder alone, which takes as long as 11 words"
)
"""Why nothing is kept of a scene."""
_COMMON: dict[str, Any] = {
    "unit": "probability",
    "needs": ("sam3",),
    "towers": ("sam3",),
    "counter_words": False,
    "at_pixels": True,
    "cost": 3.7,
    "word_cost": 0.09,
    "not_kept": _KEPT,
}
"""What these methods share. Cost is of the same area, on two cores in float32: a window of 1008 took 36 s and a word in
it 3.3 s more (5.61e12 and 0.42e12 operations, sam3.md, section 7), CLIP's ViT-B/16 17 s a megapixel."""


def _confidence(default: float, source: str) -> Field:
    about = f"objects count that are surer than this ({source})"
    return Field("confidence_threshold", default, about, at_least=0, at_most=1)


def _shared() -> tuple[Field, ...]:
    return (
        Field(
            "geometry_cls",
            True,
            "the token of an empty prompt of boxes joins the words, as in SAM 3's own code; false: as transformers",
        ),
        Field(
            "words_together",
            1,
            "words asked at a time; more are faster on a GPU, take 0.9 GB each, and are not bit-equal in bf16 (ours)",
            at_least=1,
            at_most=1000,
        ),
    )


CONCEPT_METHODS: dict[str, MethodCard] = {
    "segearth-ov3": MethodCard(
        title="SegEarth-OV3",
        paper="Li et al. 2025, SegEarth-OV3: Exploring SAM 3 for Open-Vocabulary Semantic Segmentation in Remote "
        "Sensing Images, arXiv 2512.08730",
        about="SAM 3's objects and its map of each word, the larger of both, times whether there is any.",
        own={"model": "sam3", "templates": "bare", "threshold": 0.3},
        published={"tile": 512, "stride": 512, "threshold": 0.1, "settings": {"confidence_threshold": 0.1}},
        fields=(
            _confidence(0.5, "SegEarth-OV3 release; 0.1 to 0.5 by data set"),
            Field("instance", True, "look at objects (SegEarth-OV3 release, use_transformer_decoder)"),
            Field("semantic", True, "look at the word's own map (SegEarth-OV3 release, use_sem_seg)"),
            Field(
                "presence",
                True,
                "weigh maps by whether there is any in the window; objects are in any case (SegEarth-OV3 release, "
                "use_presence_score)",
            ),
            Field(
                "presence_floor",
                0.0,
                "presence is at least this (ours): others report that 55 of 1669 tiles of LoveDA come out empty, where "
                "that of every word is too low",
                at_least=0,
                at_most=1,
            ),
            *_shared(),
        ),
        build="geoovseg.methods.segearth_ov3:build",
        **_COMMON,
    ),
    "proc-sam3": MethodCard(
        title="ProC-SAM3",
        paper="Song et al. 2026, ProC-SAM3, arXiv 2606.21863 (its pools of prompts are not released, so that its "
        "published numbers cannot be repeated exactly)",
        about="SAM 3's map of each word, raised by objects as far as both agree; classes of many words.",
        own={"model": "sam3", "templates": "bare", "threshold": 0.1},
        of_classes=True,
        fields=(
            _confidence(0.4, "ProC-SAM3 release; 0.3 to 0.5 by data set"),
            Field(
                "aggregate",
                "max",
                "what of its words speaks for a class: the best at each pixel, or the mean of the two that are surest "
                "anywhere in the window (ProC-SAM3 release)",
                choices=("max", "topk_mean"),
            ),
            *_shared(),
        ),
        build="geoovseg.methods.proc_sam3:build",
        **_COMMON,
    ),
}
