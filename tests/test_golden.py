"""The dense methods reproduce the features of the authors' released code."""

from __future__ import annotations

import os
import re
from pathlib import Path
from typing import Any

import golden_cases
import open_clip
import pytest
import torch
from golden_cases import HERE, KINDS, Case, assert_close, build, case_id, compared, each, find, folders, kinds, sampled

from geoovseg.methods.dense import DenseMethod
from geoovseg.methods.feedback import feedback
from geoovseg.models.text import TextEncoder
from geoovseg.models.vfm import ClipVfm
from geoovseg.models.vit import ClipVit
from geoovseg.ops.attention import neighbourhood
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


DENSE = each("dense", lambda case: ((entry, output) for entry, output in case.entries() if output.count("/") == 2))
OMEGA = [
    pytest.param(case, output, id=f"{case.path.name}-{output}")
    for case in find("dense")
    for output in case.outputs
    if output.startswith("naclip_omega")
]  # of some cases only


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


@pytest.mark.parametrize(("case", "output"), OMEGA)
def test_the_gaussian_of_naclip_equals_the_release(case: Case, output: str) -> None:
    found = re.fullmatch(r"naclip_omega_(\d+)x(\d+)_std([\d.]+)", output)
    assert found is not None, output
    gaussian = neighbourhood((int(found[1]), int(found[2])), float(found[3]))
    assert_close(gaussian, case.outputs[output], case.tolerance(output))


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
    encoder = TextEncoder(lambda: (case.clip, tokenize), templates())
    features = torch.stack([encoder.encode(word) for word in words])
    assert_close(features, case.outputs["query_features"], case.tolerance("query_features"))


@pytest.mark.parametrize("case", find("dense"), ids=case_id)
def test_every_output_of_a_dense_case_is_compared(case: Case) -> None:
    """Here, or as a whole image with its windows, in test_golden_published.py."""
    others = set(case.outputs) - compared(case, DENSE) - compared(case, OMEGA)
    assert all(output.count("/") == 1 for output in others), others
    assert not others or "slide" in kinds(case)


def test_every_golden_case_is_of_a_kind_that_a_test_compares() -> None:
    """Of the folders given, or of this tree: a run on nothing must not look like a success."""
    sources = [file.read_text() for file in HERE.glob("test_*.py")]
    asked = {kind for text in sources for kind in re.findall(r"\b(?:find|each)\(\s*\"(\w+)\"", text)}
    assert asked == set(KINDS)
    cases = [Case(path) for path in folders()]
    assert cases
    assert [case.path.name for case in cases if not kinds(case)] == []


def test_a_folder_that_is_named_for_golden_cases_holds_some() -> None:
    """A name that was mistyped must not look like a success beside another one."""
    given = os.environ.get("GEOOVSEG_GOLDEN")
    for root in given.split(os.pathsep) if given else [HERE / "golden"]:
        assert list(Path(root).glob("*/case.json")), root


def test_kinds_without_a_case_and_cases_without_a_comparison_are_errors(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """They would be parameters of no test at all, which a runner skips."""
    kind, other = "pamr", "jbu"
    monkeypatch.delenv("GEOOVSEG_GOLDEN", raising=False)
    monkeypatch.setattr(golden_cases, "HERE", tmp_path / "tests")
    with pytest.raises(LookupError, match="no golden case of the kind pamr"):
        find(kind)
    folder = tmp_path / "tests" / "golden" / "some"
    folder.mkdir(parents=True)
    (folder / "case.json").write_text('{"outputs": ["iter1.dil1.out"]}')
    with pytest.raises(LookupError, match="nothing is compared of .*some"):
        each(kind, lambda case: ())
    monkeypatch.setenv("GEOOVSEG_GOLDEN", str(folder.parent))
    assert (len(find(kind)), find(other)) == (1, [])
