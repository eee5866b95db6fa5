"""The releases' whole-image protocol and SegEarth-OV end to end reproduce the numbers of the authors' code."""

from __future__ import annotations

import re
from dataclasses import replace
from typing import Any

import pytest
import torch
from golden_cases import Case, assert_close, assert_labels, build, case_id, compared, each, find, sampled
from safetensors.torch import load_file

from geoovseg.methods import upsampled
from geoovseg.methods.dense import DenseMethod
from geoovseg.methods.published import RELEASES, Protocol, predict, run, window_logits
from geoovseg.models.upsamplers import build_jbu
from geoovseg.ops.jbu import Jbu, adaptive_convolution
from geoovseg.ops.pamr import pamr

pytestmark = pytest.mark.golden
CPU = torch.device("cpu")
Output = tuple[str, torch.Tensor]


def _hyper(case: Case, prefix: str) -> dict[str, Any]:
    """The hyper-parameters of a method's outputs, whose name the case may write in capitals."""
    return {k.lower(): v for k, v in case.meta["hyper"].items()}[prefix]


SLIDES = each(
    "slide", lambda case: (o for o in case.outputs if o.count("/") == 1 and not o.endswith("/query_features"))
)


def _protocol(name: str, hyper: dict[str, Any], **changed: Any) -> Protocol:
    given = {
        "crop": hyper["crop"],
        "stride": hyper["stride"],
        "scale": hyper["logit_scale"],
        "threshold": hyper["prob_thd"],
        "area": hyper.get("area_thd"),
        "background": hyper.get("bg_idx", 0),
        "pamr_steps": hyper.get("pamr_steps", 0),
    }
    return replace(RELEASES[name], **{**given, **changed})


def _slide_method(case: Case, prefix: str, name: str, hyper: dict[str, Any]) -> DenseMethod:
    settings: dict[str, Any] = {"scale": hyper["logit_scale"]}
    if name == "resclip":
        (rcs_gain, rcs_share), (sfr_gain, sfr_share) = hyper["rcs"], hyper["sfr"]
        settings |= {"rcs_gain": rcs_gain, "rcs_share": rcs_share, "sfr_gain": sfr_gain, "sfr_share": sfr_share}
        settings |= {"sure": hyper["temp_thd"]}
    if name == "naclip":
        settings |= {"sigma": hyper["gaussian_std"]}
    return build(case.vit, name, case.outputs[f"{prefix}/query_features"], **settings)


@pytest.mark.parametrize(("case", "output"), SLIDES)
def test_sliding_windows_and_post_processing_equal_the_release(case: Case, output: str) -> None:
    prefix, what = output.split("/")
    name, hyper = prefix.partition("_")[0], _hyper(case, prefix)

    def given(key: str) -> torch.Tensor:
        return case.inputs[f"{prefix}/{key}"] if f"{prefix}/{key}" in case.inputs else case.inputs[key]

    groups = torch.bincount(given("query_idx")).tolist()
    image, _, kind = what.partition(".")
    if image == "post":
        area = re.match(r"area([\d.]+|None)\.", kind)
        assert area is not None, what
        protocol = _protocol(name, hyper, area=None if area[1] == "None" else float(area[1]))
        labels, shares = predict(given("post.logits"), groups, protocol)
        _compare(case, output, kind.rpartition(".")[2], labels, shares)
        return
    method = _slide_method(case, prefix, name, hyper)
    pixels = given("u8_slide_small" if image == "slide_small" else "u8_slide").float() / 255
    small = tuple(pixels.shape[-2:])
    size = tuple(hyper["ori"]) if image == "predict_resized" else small
    refined = re.fullmatch(r"predict_pamr(\d+)", image)
    pamr_steps = int(refined[1]) if refined else hyper.get("pamr_steps", 0)
    protocol = _protocol(name, hyper, pamr_steps=pamr_steps)
    logits = run(pixels, protocol, method, size=size)
    if kind.startswith(("logits", "argmax")):
        _compare(case, output, kind, logits.argmax(1), logits)
    else:
        _compare(case, output, kind, *predict(logits, groups, protocol))


def _compare(case: Case, output: str, kind: str, labels: torch.Tensor, scores: torch.Tensor) -> None:
    expected = case.outputs[output]
    if kind in ("labels", "argmax"):
        assert_labels(labels, expected, scores)
    else:
        step = sampled(kind)[1]
        found = scores[..., ::step, ::step]
        assert_close(found if expected.dim() == 4 else found[0], expected, case.tolerance(output))


def _jbu(case: Case) -> Jbu:
    return build_jbu(load_file(case.path / "jbu_one.safetensors"), "jbu_one", CPU)


def _segearth(case: Case, **changed: Any) -> DenseMethod:
    hyper = case.meta["hyper"]
    given = {"class_token_weight": hyper["cls_token_lambda"], "residual": not hyper["ignore_residual"]}
    return build(case.vit, "segearth", case.outputs["query_features"], **{**given, **changed})


def _segearth_output(case: Case, image: str, what: str) -> torch.Tensor:
    """A result on a whole image, before sampling."""
    pixels = case.pixels(f"u8_{image}")
    plain, jbu = _segearth(case), _jbu(case)
    features = plain.features(pixels)
    if what in ("tokens", "cls"):
        return {"tokens": features.patches, "cls": features.cls}[what]
    if what == "upsampled":
        grid = features.patches[0].unflatten(0, features.grid)
        return jbu.features(grid, case.vit.normalise(pixels)[0]).permute(2, 0, 1)[None]
    if what == "logits_no_featup":
        return window_logits(plain)(pixels)
    method = _segearth(case, class_token_weight=0) if what == "logits_no_cls" else plain
    logits = window_logits(upsampled("segearth", method, jbu.cosines))(pixels)
    return logits.argmax(1) if what == "argmax" else logits


WHOLE = each(
    "segearth",
    lambda case: (o for o in case.outputs if f"u8_{o.partition('.')[0]}" in case.inputs and not o.startswith("slide")),
)


@pytest.mark.parametrize(("case", "output"), WHOLE)
def test_segearth_equals_the_release_on_whole_images(case: Case, output: str) -> None:
    image, _, kind = output.partition(".")
    what, step = sampled(kind)
    found = _segearth_output(case, image, what)
    if what == "argmax":
        assert_labels(found, case.outputs[output], _segearth_output(case, image, "logits"))
        return
    found = found[..., ::step, ::step] if step > 1 else found
    assert_close(found, case.outputs[output], case.tolerance(output))


RUNS = each("segearth", lambda case: (o for o in case.outputs if o.startswith(("slide", "predict"))))


@pytest.mark.parametrize(("case", "output"), RUNS)
def test_segearth_equals_the_release_end_to_end(case: Case, output: str) -> None:
    """Windows, JBU, class token, resizing, words, threshold."""
    hyper = case.meta["hyper"]
    image, _, kind = output.partition(".")
    method: DenseMethod = _segearth(case)
    protocol = _protocol("segearth", hyper)
    if image == "slide_padded_crop":
        protocol = replace(protocol, crop=hyper["crop"] - 4, stride=hyper["stride"] - 2)
    else:
        method = upsampled("segearth", method, _jbu(case).cosines)
    if "whole" in image:
        protocol = replace(protocol, crop=0)
    source = {"slide_small": "u8_slide_small", "predict_whole_resized": "u8_nonsquare"}.get(image, "u8_slide")
    pixels = case.pixels(source)
    size = tuple(hyper["ori"]) if image.endswith("resized") else tuple(pixels.shape[-2:])
    logits = run(pixels, protocol, method, size=size)
    if image.startswith("predict"):
        groups = torch.bincount(case.inputs["query_idx"]).tolist()
        _compare(case, output, kind, *predict(logits, groups, protocol))
    else:
        _compare(case, output, kind, logits.argmax(1), logits)


@pytest.mark.parametrize("case", find("segearth"), ids=case_id)
def test_every_output_of_segearth_is_compared(case: Case) -> None:
    others = set(case.outputs) - compared(case, WHOLE) - compared(case, RUNS) - {"query_features"}  # an input here
    assert all(output.startswith("post.") for output in others), others


@pytest.mark.parametrize("case", find("slide"), ids=case_id)
def test_every_output_of_sliding_windows_is_compared(case: Case) -> None:
    """Here, or those of single windows in test_golden.py."""
    others = set(case.outputs) - compared(case, SLIDES)
    assert all(output.endswith("/query_features") or output.count("/") == 2 for output in others), others


@pytest.mark.parametrize("case", find("segearth"), ids=case_id)
def test_post_processing_equals_the_release(case: Case) -> None:
    groups, compared = torch.bincount(case.inputs["query_idx"]).tolist(), 0
    for name, expected in case.outputs.items():
        found = re.fullmatch(r"post\.thd([\d.]+)\.labels", name)
        if found is None:
            continue
        protocol = _protocol("segearth", {**case.meta["hyper"], "prob_thd": float(found[1])})
        labels, shares = predict(case.inputs["post.logits"], groups, protocol)
        assert_labels(labels, expected, shares)
        assert_close(shares[0], case.outputs["post.probs"], case.tolerance("post.probs"))
        compared += 1
    assert compared


def _upsample(case: Case, arch: str) -> torch.Tensor:
    jbu = build_jbu(load_file(case.path / f"{arch}_weights.safetensors"), arch, CPU)
    source = case.inputs["source"][0].permute(1, 2, 0)
    return jbu.features(source, case.inputs["guidance"][0]).permute(2, 0, 1)[None]


@pytest.mark.parametrize("arch", ["jbu_one", "jbu_stack"])
@pytest.mark.parametrize("case", find("jbu"), ids=case_id)
def test_upsampled_features_equal_the_release(case: Case, arch: str) -> None:
    name = next(n for n in case.outputs if n.startswith(f"{arch}.out"))
    step = sampled(name)[1]
    assert_close(_upsample(case, arch)[..., ::step, ::step], case.outputs[name], case.tolerance(name))


@pytest.mark.parametrize("case", find("jbu"), ids=case_id)
def test_the_first_doubling_equals_the_release(case: Case) -> None:
    step = build_jbu(load_file(case.path / "jbu_one_weights.safetensors"), "jbu_one", CPU).steps[0]
    guide = case.outputs["jbu_one.guidance_x2"][0].permute(1, 2, 0)
    found = {
        "jbu_one.source_x2": step(case.inputs["source"][0].permute(1, 2, 0), guide).permute(2, 0, 1)[None],
        "jbu_one.range_kernel_x2": step.range_kernels(step.compared(guide)).permute(2, 0, 1)[None],
        "jbu_one.spatial_kernel": step.spatial_kernel().view(1, -1, 1, 1),
    }
    for name, tensor in found.items():
        assert_close(tensor, case.outputs[name], case.tolerance(name))


@pytest.mark.parametrize("case", find("jbu"), ids=case_id)
def test_adaptive_convolution_equals_the_release(case: Case) -> None:
    source, kernels = case.inputs["adaptive_conv.in"], case.inputs["adaptive_conv.filters"]
    each = [
        adaptive_convolution(s.permute(1, 2, 0), k.flatten(2), k.shape[-1]).permute(2, 0, 1)
        for s, k in zip(source, kernels, strict=True)
    ]
    assert_close(torch.stack(each), case.outputs["adaptive_conv.out"], case.tolerance("adaptive_conv.out"))


PAMR = each("pamr", lambda case: case.outputs)


@pytest.mark.parametrize(("case", "output"), PAMR)
def test_pamr_equals_the_release(case: Case, output: str) -> None:
    found = re.fullmatch(r"(mask_lowres\.)?iter(\d+)\.dil([\d_]+)\.out", output)
    assert found is not None, output
    mask = case.inputs["mask"][..., ::2, ::2] if found[1] else case.inputs["mask"]
    dilations = [int(d) for d in found[3].split("_")]
    result = pamr(case.inputs["img"], mask, steps=int(found[2]), dilations=dilations)
    assert_close(result, case.outputs[output], case.tolerance(output))
