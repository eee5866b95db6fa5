"""The dense methods reproduce the numbers of the authors' released code."""

from __future__ import annotations

import os
import re
from functools import lru_cache

import pytest
import torch
from golden_cases import MEAN, STD, Case, assert_close, find
from torch.nn import functional as F

from geoovseg.methods.last_block import cosines, dense_features
from geoovseg.methods.published import pad_to_patch, predict, slide
from geoovseg.models.text import TextEncoder
from geoovseg.models.vit import ClipVit
from geoovseg.ops import attention
from geoovseg.vocabulary import templates

pytestmark = pytest.mark.golden

ENTRIES = {
    "vanilla": (attention.clip, True),
    "maskclip": (attention.maskclip, True),
    "clearclip": (attention.clearclip, False),
    "segearth": (attention.segearth, False),
    "ablate_vanilla_attn_only": (attention.clip, False),
    "ablate_maskclip_attn_only": (attention.maskclip, False),
    "ablate_clearclip_residual_ffn": (attention.clearclip, True),
    "ablate_segearth_residual_ffn": (attention.segearth, True),
}
"""Policy and residual of every entry of the dense cases that this package has so far."""


def _id(value: object) -> str:
    return value.path.name if isinstance(value, Case) else str(value)


DENSE = [
    (case, output)
    for case in find("dense_")
    for entry in case.meta["entries"]
    for output in entry["outputs"]
    if output.split("/")[0] in ENTRIES
]


@lru_cache(maxsize=4)
def _vit(case: Case) -> ClipVit:
    return ClipVit(case.clip.visual)


@pytest.mark.parametrize(("case", "output"), DENSE, ids=_id)
def test_dense_features_equal_the_release(case: Case, output: str) -> None:
    entry, image, what = output.split("/")
    mix, residual = ENTRIES[entry]
    pixels = case.inputs[f"u8_{image}"].float() / 255
    tokens, cls, grid = dense_features(_vit(case), pixels, mix, residual=residual)
    assert grid[0] * grid[1] == tokens.shape[1]
    assert_close({"tokens": tokens, "cls": cls}[what], case.outputs[output], case.tolerance(output))


SEGEARTH = find("segearth_")


class _Release:
    """SegEarth-OV without feature upsampling, composed of the package's verbs."""

    def __init__(self, case: Case) -> None:
        self.case, self.vit, self.hyper = case, _vit(case), case.meta["hyper"]
        self.text = case.outputs["query_features"]

    def pixels(self, name: str) -> torch.Tensor:
        return self.case.inputs[name].float() / 255

    def scores(self, pixels: torch.Tensor, weight: float) -> torch.Tensor:
        tokens, cls, grid = dense_features(
            self.vit, pixels, attention.segearth, residual=not self.hyper["ignore_residual"]
        )
        score = cosines(tokens, self.text) + weight * cosines(cls, self.text)[:, None]
        size = pixels.shape[-2:]
        return F.interpolate(score.mT.unflatten(2, grid), size=size, mode="bilinear", align_corners=False)

    def normalised_scores(self, image: torch.Tensor) -> torch.Tensor:
        return self.scores(image * STD + MEAN, self.hyper["cls_token_lambda"])


@pytest.mark.parametrize("what", ["tokens", "cls", "logits_no_featup"])
@pytest.mark.parametrize("case", SEGEARTH, ids=_id)
def test_segearth_equals_the_release_on_whole_images(case: Case, what: str) -> None:
    release, compared = _Release(case), 0
    for name, expected in case.outputs.items():
        image, _, rest = name.partition(".")
        found = re.fullmatch(rf"{what}(?:_s(\d+))?", rest)
        if found is None or f"u8_{image}" not in case.inputs:
            continue
        pixels = release.pixels(f"u8_{image}")
        tokens, cls, _ = dense_features(release.vit, pixels, attention.segearth, residual=False)
        step = int(found[1] or 1)
        logits = release.scores(pixels, release.hyper["cls_token_lambda"])[..., ::step, ::step]
        assert_close({"tokens": tokens, "cls": cls}.get(what, logits), expected, case.tolerance(name))
        compared += 1
    assert compared


@pytest.mark.parametrize("case", SEGEARTH, ids=_id)
def test_padded_sliding_windows_equal_the_release(case: Case) -> None:
    release, hyper = _Release(case), case.meta["hyper"]
    image = (release.pixels("u8_slide") - MEAN) / STD
    crop, stride = hyper["crop"] - 4, hyper["stride"] - 2
    logits = slide(image, release.normalised_scores, crop=crop, stride=stride, patch=release.vit.patch)
    name = next(n for n in case.outputs if n.startswith("slide_padded_crop.logits"))
    step = int(name.rpartition("_s")[2])
    assert_close(logits[..., ::step, ::step], case.outputs[name], case.tolerance(name))


@pytest.mark.parametrize("case", SEGEARTH, ids=_id)
def test_post_processing_equals_the_release(case: Case) -> None:
    hyper = case.meta["hyper"]
    groups = torch.bincount(case.inputs["query_idx"]).tolist()
    for name, expected in case.outputs.items():
        found = re.fullmatch(r"post\.thd([\d.]+)\.labels", name)
        if found is None:
            continue
        labels, shares = predict(
            case.inputs["post.logits"],
            groups,
            scale=hyper["logit_scale"],
            threshold=float(found[1]),
            background=hyper["bg_idx"],
        )
        top = shares.topk(2, dim=1).values
        unsure = (top[:, 0] - top[:, 1]) < 1e-5
        assert ((labels == expected) | unsure).all()
        assert_close(shares[0], case.outputs["post.probs"], case.tolerance("post.probs"))


@pytest.mark.parametrize("case", find("text_"), ids=_id)
def test_word_features_equal_the_release(case: Case) -> None:
    """Through the package's templates and open_clip's tokenizer, ids mapped to the tiny tower's as the case says."""
    import open_clip

    tokenizer = open_clip.get_tokenizer("ViT-B-16")
    compact = case.inputs["compact_vocab"].long()

    def tokenize(texts: list[str]) -> torch.Tensor:
        return torch.searchsorted(compact, tokenizer(texts))

    words = case.meta["words"]
    raw = tokenizer([t.replace("{}", words[0]) for t in templates()])
    assert torch.equal(raw, case.inputs["prompt_token_ids_raw"][0].long())
    encoder = TextEncoder(case.clip, tokenize, templates())
    features = torch.stack([encoder.encode(word) for word in words])
    assert_close(features, case.outputs["query_features"], case.tolerance("query_features"))


def test_padding_is_centred_with_the_odd_pixel_last() -> None:
    padded, (top, left) = pad_to_patch(torch.ones(1, 3, 13, 32), 16)
    assert padded.shape == (1, 3, 16, 32)
    assert (top, left) == (1, 0)
    assert padded[0, 0, :, 0].tolist() == [0.0] + [1.0] * 13 + [0.0] * 2


@pytest.mark.skipif("GEOOVSEG_GOLDEN" in os.environ, reason="other case folders are run")
def test_there_are_golden_cases() -> None:
    assert len(DENSE) > 20
    assert SEGEARTH
