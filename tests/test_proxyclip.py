"""ProxyCLIP: features, attention and labels equal the release; what is done in pieces is what it would be whole."""

from __future__ import annotations

import json
import re
from dataclasses import replace
from functools import partial
from typing import Any

import open_clip
import pytest
import torch
from golden_cases import Case, assert_close, build, case_id, find
from safetensors.torch import load_file
from timm.models.vision_transformer import VisionTransformer
from torch import nn
from torch.nn import functional as F
from windows import Largest

from geoovseg.methods.dense import DenseMethod
from geoovseg.methods.proxyclip import ProxyClip, on_grid
from geoovseg.methods.published import RELEASES, Protocol, pad_to_patch, predict, run
from geoovseg.models.cards import IMAGENET_MEAN, IMAGENET_STD
from geoovseg.models.vfm import ClipVfm, TimmVfm
from geoovseg.models.vit import ClipVit
from geoovseg.ops.correlation import correlated, mean_likeness, proxy_rows
from geoovseg.windows.plan import origins


def _load(model: nn.Module, case: Case, name: str) -> Any:
    state = {k: v.float() for k, v in load_file(case.path / f"weights-{name}.safetensors").items()}
    model.load_state_dict(state, strict=False)
    return model.eval().requires_grad_(False)


def _vision_model(case: Case, name: str = "vfm") -> TimmVfm:
    config = json.loads((case.path / f"config-{name}.json").read_text())
    family, eps = config.pop("family"), config.pop("norm_eps")
    norm = partial(nn.LayerNorm, eps=eps)
    model = _load(VisionTransformer(**config, norm_layer=norm, dynamic_img_size=True), case, name)
    return TimmVfm(family, model, IMAGENET_MEAN, IMAGENET_STD, "offset" if family == "dino" else "timm")


def _method(case: Case) -> tuple[DenseMethod, Protocol, dict[str, Any]]:
    hyper = case.meta["hyperparameters"]
    clip = _load(open_clip.CLIP(**json.loads((case.path / "config-clip.json").read_text())), case, "clip")
    settings = {"beta": hyper["beta"], "gamma": hyper["gamma"], "scale": hyper["logit_scale"]}
    text = case.inputs["text_features"]
    method = build(ClipVit(clip.visual), "proxyclip", text, vfm=_vision_model(case), **settings)
    changed = {"crop": hyper["slide_crop"], "stride": hyper["slide_stride"], "multiple": hyper["pad_multiple"]}
    protocol = replace(RELEASES["proxyclip"], threshold=hyper["prob_thd"], scale=hyper["logit_scale"], **changed)
    return method, protocol, hyper


def _tolerance(case: Case, output: str) -> dict[str, float]:
    found = dict(re.findall(r"(atol|rtol) ([\d.e-]+)", case.meta["tolerance"][output]))
    return {"atol": float(found.get("atol", 0)), "rtol": float(found.get("rtol", 0))}


def _last_window(pixels: torch.Tensor, protocol: Protocol, mean: torch.Tensor) -> torch.Tensor:
    row, col = (origins(side, protocol.crop, protocol.stride)[-1] for side in pixels.shape[2:])
    window = pixels[..., row : row + protocol.crop, col : col + protocol.crop]
    return pad_to_patch(window, protocol.multiple, mean)[0]


@pytest.mark.golden
@pytest.mark.parametrize("case", find("proxyclip"), ids=case_id)
def test_the_method_equals_the_release(case: Case) -> None:
    method, protocol, hyper = _method(case)
    pixels = case.inputs["image_u8"].permute(2, 0, 1)[None].float() / 255
    window = _last_window(pixels, protocol, method.clip.mean)
    encoder = method.encoder
    assert isinstance(encoder, ProxyClip)
    features, (seen, grid) = encoder(window), encoder.proxies(window)
    rows = torch.cat(list(proxy_rows(seen, beta=encoder.beta, gamma=encoder.gamma)), dim=1)[0]
    logits = run(pixels, protocol, method, size=tuple(hyper["ori_shape"]))
    groups = torch.bincount(case.inputs["query_to_class"]).tolist()
    labels, shares = predict(logits, groups, protocol)
    found = {
        "last_window_vfm_features": encoder.vfm.features(window, grid)[0].T.unflatten(1, grid),
        "last_window_features": features.patches[0],
        "last_window_attention_rows": rows[::9],
        "logits_sub": logits[0, :, ::5, ::5],
        "prob_sub": shares[0, :, ::5, ::5],
    }
    assert set(case.outputs) == {*found, "pred"}
    assert (labels[0] == case.outputs["pred"]).float().mean() >= 0.999
    for name, value in found.items():
        assert_close(value, case.outputs[name], _tolerance(case, name))


def _unit(count: int, patches: int, dims: int) -> torch.Tensor:
    generator = torch.Generator().manual_seed(0)
    return F.normalize(torch.randn(count, patches, dims, generator=generator) + 0.5, dim=-1)


def test_rows_in_pieces_are_the_whole(monkeypatch: pytest.MonkeyPatch) -> None:
    features, values = _unit(2, 50, 8), torch.rand(2, 3, 50, 4)
    likeness = features @ features.mT
    logits = 3 * (likeness - 1.2 * likeness.mean((1, 2), keepdim=True))
    whole = logits.masked_fill(logits < 0, -torch.inf).softmax(-1)
    torch.testing.assert_close(mean_likeness(features), likeness.mean((1, 2), keepdim=True))
    for size in (7, 512):
        monkeypatch.setattr("geoovseg.ops.correlation.ROWS", size)
        rows = torch.cat(list(proxy_rows(features, beta=1.2, gamma=3)), dim=1)
        torch.testing.assert_close(rows, whole)
        mixed = correlated(features, values, beta=1.2, gamma=3)
        torch.testing.assert_close(mixed, whole[:, None] @ values)


def test_patches_that_are_all_alike_attend_to_all() -> None:
    features = F.normalize(torch.ones(1, 9, 4), dim=-1)
    (rows,) = proxy_rows(features, beta=1.2, gamma=3)
    torch.testing.assert_close(rows, torch.full((1, 9, 9), 1 / 9))


def test_values_are_brought_to_the_vision_models_grid(tiny_clip: open_clip.CLIP) -> None:
    """Patches of another size see another number of them; a constant stays one."""
    values = torch.ones(2, 3, 12, 4)
    assert on_grid(values, (3, 4), (3, 4)) is values
    torch.testing.assert_close(on_grid(values, (3, 4), (6, 5)), torch.ones(2, 3, 30, 4))
    vit = ClipVit(tiny_clip.visual)
    method = build(vit, "proxyclip", vfm=ClipVfm("clip", vit))
    assert (method.tile, method.stride) == (48, 24)
    assert method.features(torch.rand(1, 3, 48, 40)).grid == (6, 5)


def test_weights_that_all_heads_share_are_never_copied_for_each() -> None:
    features = F.normalize(torch.randn(2, 600, 8, generator=torch.Generator().manual_seed(0)), dim=-1)
    values = torch.randn(2, 12, 600, 4, generator=torch.Generator().manual_seed(1))
    with Largest() as mode:
        mixed = correlated(features, values, beta=1.2, gamma=3.0)
    rows = torch.cat(list(proxy_rows(features, beta=1.2, gamma=3.0)), dim=1)
    torch.testing.assert_close(mixed, rows[:, None] @ values)
    assert mode.largest <= 2 * 600 * 600
