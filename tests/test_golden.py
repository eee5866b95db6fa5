"""The dense methods reproduce the numbers of the authors' released code."""

from __future__ import annotations

import os
import re
from functools import lru_cache

import numpy as np
import pytest
import torch
from golden_cases import MEAN, STD, Case, assert_close, find
from rasterio.windows import Window

from geoovseg.methods import Method, load_method
from geoovseg.methods.published import pad_to_patch, predict, slide
from geoovseg.models.text import TextEncoder
from geoovseg.models.vit import ClipVit
from geoovseg.ops.upsample import bilinear
from geoovseg.scene import TileBatch
from geoovseg.vocabulary import parse_classes, templates

pytestmark = pytest.mark.golden

ENTRIES: dict[str, tuple[str, dict[str, bool]]] = {
    "vanilla": ("clip", {}),
    "maskclip": ("maskclip", {}),
    "clearclip": ("clearclip", {}),
    "segearth": ("segearth", {}),
    "ablate_vanilla_attn_only": ("clip", {"residual": False}),
    "ablate_maskclip_attn_only": ("maskclip", {"residual": False}),
    "ablate_clearclip_residual_ffn": ("clearclip", {"residual": True}),
    "ablate_segearth_residual_ffn": ("segearth", {"residual": True}),
}
"""Method and settings of every entry of the dense cases that this package has so far."""


def _id(value: object) -> str:
    return value.path.name if isinstance(value, Case) else str(value)


DENSE = [
    (case, output)
    for case in find("dense")
    for entry in case.meta["entries"]
    for output in entry["outputs"]
    if output.split("/")[0] in ENTRIES
]


@lru_cache(maxsize=4)
def _vit(case: Case) -> ClipVit:
    return ClipVit(case.clip.visual)


def _method(case: Case, name: str, text: torch.Tensor | None = None, **settings: float) -> Method:
    """A method as the tool builds it, with its published settings unless given."""
    vit = _vit(case)
    words = torch.eye(1, vit.dim) if text is None else text
    vocabulary = parse_classes([",".join(f"word{n}" for n in range(len(words)))])
    return load_method(name, vit, words, vocabulary, settings=settings)


@pytest.mark.parametrize(("case", "output"), DENSE, ids=_id)
def test_dense_features_equal_the_release(case: Case, output: str) -> None:
    entry, image, what = output.split("/")
    name, settings = ENTRIES[entry]
    pixels = case.inputs[f"u8_{image}"].float() / 255
    tokens, cls, grid = _method(case, name, **settings).features(pixels)
    assert grid[0] * grid[1] == tokens.shape[1]
    assert_close({"tokens": tokens, "cls": cls}[what], case.outputs[output], case.tolerance(output))


SEGEARTH = find("segearth")


def _segearth(case: Case) -> Method:
    hyper = case.meta["hyper"]
    settings = {"class_token_weight": hyper["cls_token_lambda"], "residual": not hyper["ignore_residual"]}
    return _method(case, "segearth", case.outputs["query_features"], **settings)


def _scores(method: Method, pixels: torch.Tensor) -> torch.Tensor:
    """The method's scores of whole images, at pixel resolution."""
    window = Window(0, 0, pixels.shape[-1], pixels.shape[-2])
    valid = np.ones((len(pixels), *pixels.shape[-2:]), bool)
    batch = TileBatch(windows=(window,) * len(pixels), pixels=pixels.numpy(), valid=valid)
    return bilinear(method.scores(batch), pixels)


@pytest.mark.parametrize("what", ["tokens", "cls", "logits_no_featup"])
@pytest.mark.parametrize("case", SEGEARTH, ids=_id)
def test_segearth_equals_the_release_on_whole_images(case: Case, what: str) -> None:
    method, compared = _segearth(case), 0
    for name, expected in case.outputs.items():
        image, _, rest = name.partition(".")
        found = re.fullmatch(rf"{what}(?:_s(\d+))?", rest)
        if found is None or f"u8_{image}" not in case.inputs:
            continue
        pixels = case.inputs[f"u8_{image}"].float() / 255
        tokens, cls, _ = method.features(pixels)
        step = int(found[1] or 1)
        logits = _scores(method, pixels)[..., ::step, ::step]
        assert_close({"tokens": tokens, "cls": cls}.get(what, logits), expected, case.tolerance(name))
        compared += 1
    assert compared


@pytest.mark.parametrize("case", SEGEARTH, ids=_id)
def test_padded_sliding_windows_equal_the_release(case: Case) -> None:
    hyper, method = case.meta["hyper"], _segearth(case)
    image = (case.inputs["u8_slide"].float() / 255 - MEAN) / STD
    crop, stride = hyper["crop"] - 4, hyper["stride"] - 2
    patch = _vit(case).patch
    logits = slide(image, lambda x: _scores(method, x * STD + MEAN), crop=crop, stride=stride, patch=patch)
    name = next(n for n in case.outputs if n.startswith("slide_padded_crop.logits"))
    step = int(name.rpartition("_s")[2])
    assert_close(logits[..., ::step, ::step], case.outputs[name], case.tolerance(name))


@pytest.mark.parametrize("case", SEGEARTH, ids=_id)
def test_post_processing_equals_the_release(case: Case) -> None:
    hyper = case.meta["hyper"]
    groups = torch.bincount(case.inputs["query_idx"]).tolist()
    compared = 0
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
        compared += 1
    assert compared


@pytest.mark.parametrize("case", find("text"), ids=_id)
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


def test_there_are_golden_cases() -> None:
    """Of the folders given, or of this tree: a run on nothing must not look like a success."""
    assert DENSE or SEGEARTH
    if "GEOOVSEG_GOLDEN" not in os.environ:
        assert len(DENSE) > 20
        assert SEGEARTH
