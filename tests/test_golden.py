"""The dense methods reproduce the features of the authors' released code."""

from __future__ import annotations

import os
import re
from typing import Any

import open_clip
import pytest
import torch
from golden_cases import Case, assert_close, build, case_id, find, sampled

from geoovseg.methods.dense import DenseMethod
from geoovseg.methods.feedback import feedback
from geoovseg.models.text import TextEncoder
from geoovseg.models.vfm import ClipVfm
from geoovseg.models.vit import ClipVit
from geoovseg.prompts import templates

pytestmark = pytest.mark.golden

ENTRIES: dict[str, tuple[str, dict[str, Any]]] = {
    "vanilla": ("clip", {}),
    "maskclip": ("maskclip", {}),
    "maskclip_original_clip_act": ("maskclip", {"original": True}),
    "sclip": ("sclip", {}),
    "clearclip": ("clearclip", {}),
    "naclip": ("naclip", {}),
    "naclip_vanilla_arch": ("naclip", {"residual": True}),
    "naclip_kk_only": ("naclip", {"mixing": "kk"}),
    "naclip_nonly": ("naclip", {"mixing": "nonly"}),
    "segearth": ("segearth", {}),
    "ablate_vanilla_attn_only": ("clip", {"residual": False}),
    "ablate_maskclip_attn_only": ("maskclip", {"residual": False}),
    "ablate_sclip_attn_only": ("sclip", {"residual": False}),
    "ablate_clearclip_residual_ffn": ("clearclip", {"residual": True}),
    "ablate_segearth_residual_ffn": ("segearth", {"residual": True}),
}
"""Method and settings of the entries whose name says everything; those of GEM and ResCLIP carry figures."""


def _method(case: Case, entry: str, hyper: dict[str, Any]) -> DenseMethod:
    if entry.startswith("gem"):
        temperature = hyper["ss_attn_temp"] or 0
        return build(
            case.vit, "gem", depth=hyper["gem_depth"], iterations=hyper["ss_attn_iter"], temperature=temperature
        )
    if entry.startswith("coninfer_"):
        return _coninfer(case, entry)
    if entry.startswith("resclip_"):
        return _resclip(case, entry, hyper)
    if entry == "maskclip_original_released_config":
        return build(_released_tower(case, hyper), "maskclip", original=True)
    if sigma := re.fullmatch(r"naclip_std([\d.]+)", entry):
        return build(case.vit, "naclip", sigma=float(sigma[1]))
    name, settings = ENTRIES[entry]
    if name == "naclip" and "gaussian_std" in hyper:
        settings = {**settings, "sigma": hyper["gaussian_std"]}
    return build(case.vit, name, **settings)


def _resclip(case: Case, entry: str, hyper: dict[str, Any]) -> DenseMethod:
    found = re.fullmatch(r"resclip_(\w+?)_rcs(\d)_sfr(\d)(_no_path_check)?(_fp16_rounded_sfr)?", entry)
    assert found is not None, entry
    base = {"resclip": "naclip"}.get(found[1], found[1])
    (rcs_gain, rcs_share), (sfr_gain, sfr_share) = _weights(case)
    return build(
        case.vit, "resclip", case.inputs["resclip_query_features"],
        mixing=base, rcs=found[2] == "1", sfr=found[3] == "1", path_check=not found[4], half=bool(found[5]),
        sigma=hyper["gaussian_std"], sure=hyper["temp_thd"], scale=hyper["logit_scale"],
        rcs_gain=rcs_gain, rcs_share=rcs_share, sfr_gain=sfr_gain, sfr_share=sfr_share,
    )  # fmt: skip


def _coninfer(case: Case, entry: str) -> DenseMethod:
    """The score model with earlier attention."""
    found = re.fullmatch(r"coninfer_lambda([\d.]+)(?:_(\w+))?", entry)
    assert found is not None, entry
    settings = {"attn_lambda": float(found[1]), "base": found[2] or "segearth"}
    method = build(case.vit, "coninfer", vfm=ClipVfm("clip", case.vit), **settings)
    return method.scorer


def _weights(case: Case) -> tuple[list[float], list[float]]:
    hyper = case.meta["hyper"]["resclip"]
    return hyper["rcs"], hyper["sfr"]


def _released_tower(case: Case, hyper: dict[str, Any]) -> ClipVit:
    """As MaskCLIP's configuration has it: another activation and another epsilon than the weights were trained with."""
    tower = case.tower(quick_gelu=hyper["act"] != "GELU").visual
    for module in tower.modules():
        if isinstance(module, torch.nn.LayerNorm):
            module.eps = hyper["ln_eps"]
    return ClipVit(tower)


DENSE = [
    pytest.param(case, entry, output, id=f"{case.path.name}-{output}")
    for case in find("dense")
    for entry, output in case.entries()
    if output.count("/") == 2
]


@pytest.mark.parametrize(("case", "entry", "output"), DENSE)
def test_dense_outputs_equal_the_release(case: Case, entry: dict[str, Any], output: str) -> None:
    name, image, what = output.split("/")
    expected = case.outputs[output]
    hyper = entry.get("hyper", {})
    method = _method(case, name, hyper if isinstance(hyper, dict) else {})
    pixels = case.pixels(f"u8_{image}")[: len(expected) if what in ("tokens", "cls") else 1]
    if what.startswith("logits"):
        found = _maskclip_logits(case, hyper, pixels, what)
    elif what.startswith(("labels", "sfr_matrix", "probs")):
        _check_feedback(method, pixels, what, expected, case.tolerance(output))
        return
    else:
        features = method.features(pixels)
        assert features.grid[0] * features.grid[1] == features.patches.shape[1]
        found = {"tokens": features.patches, "cls": features.cls}[what]
    assert_close(found, expected, case.tolerance(output))


def _maskclip_logits(case: Case, hyper: dict[str, Any], pixels: torch.Tensor, what: str) -> torch.Tensor:
    """Scores on the patch grid, refined as `logits_ks<smooth>_pd<denoise>` says."""
    found = re.fullmatch(r"logits(?:_ks([\d.]+)_pd([\d.]+))?", what)
    assert found is not None, what
    settings = {"smooth": float(found[1] or 0), "denoise": float(found[2] or 0)}
    method = build(_released_tower(case, hyper), "maskclip", case.inputs["query_features"], original=True, **settings)
    return method.score(pixels)


def _check_feedback(
    method: DenseMethod, pixels: torch.Tensor, what: str, expected: torch.Tensor, tolerance: dict[str, float]
) -> None:
    """What ResCLIP makes on its way: its first segmentation and the matrix of it."""
    first = method.encoder.first_pass(pixels)
    if what.startswith("probs"):
        step = sampled(what)[1]
        assert_close(first.shares[..., ::step, ::step], expected, tolerance)
    elif what == "labels":
        assert torch.equal(first.labels[0].view(first.grid).short(), expected)
    else:
        encoder = method.encoder
        found = feedback(first.labels, first.grid, encoder.sigma, path_check=encoder.path_check)
        assert_close(found[0], expected, tolerance)


@pytest.mark.parametrize("case", find("text"), ids=case_id)
def test_word_features_equal_the_release(case: Case) -> None:
    """Through the package's templates and open_clip's tokenizer, ids mapped to the tiny tower's as the case says."""
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


def test_there_are_golden_cases() -> None:
    """Of the folders given, or of this tree: a run on nothing must not look like a success."""
    kinds = {kind: len(find(kind)) for kind in ("dense", "segearth", "text", "jbu", "pamr", "slide")}
    assert any(kinds.values())
    if "GEOOVSEG_GOLDEN" not in os.environ:
        assert all(kinds.values()), kinds
        assert len(DENSE) > 200
