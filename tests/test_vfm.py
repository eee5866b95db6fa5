"""Vision foundation models: features equal the releases', attention is attention, nothing is left behind."""

from __future__ import annotations

import hashlib
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import timm
import torch
from golden_cases import Case, assert_close, case_id, find
from safetensors.torch import load_file, save_file

from geoovseg.errors import GeoOVSegError
from geoovseg.models.cards import IMAGENET_MEAN, MODELS, SAT_MEAN, SAT_STD
from geoovseg.models.patches import fit_to
from geoovseg.models.vfm import ClipVfm, TimmVfm, build_timm, load_vfm
from geoovseg.models.vit import ClipVit

ARCH = {"mlp": "vit_large_patch16_dinov3", "swiglu": "vit_huge_plus_patch16_dinov3"}


def _released(case: Case, name: str) -> TimmVfm:
    """A tiny DINOv3 of the case, from weights with the release's keys."""
    hyper = case.meta["hyper"][name]
    state = {k: v.float() for k, v in load_file(case.path / f"{name}_weights.safetensors").items()}
    hidden = next(v for k, v in state.items() if k.endswith(("mlp.fc1.bias", "mlp.w1.bias")))
    size = {key: hyper[key] for key in ("embed_dim", "depth", "num_heads")}
    model = build_timm(ARCH[hyper["ffn_layer"]], state, **size, mlp_ratio=len(hidden) / hyper["embed_dim"])
    return TimmVfm(name, model, SAT_MEAN, SAT_STD)


@pytest.mark.golden
@pytest.mark.parametrize("case", find("dinov3"), ids=case_id)
def test_dinov3_features_equal_the_release(case: Case) -> None:
    checked = 0
    for output in case.outputs:
        name, _, rest = output.partition(".")
        image, _, what = rest.partition(".")
        if what != "patch":
            continue
        vfm, pixels = _released(case, name), case.pixels(f"u8_{image}")
        grid = (pixels.shape[2] // vfm.patch, pixels.shape[3] // vfm.patch)
        assert_close(vfm.features(pixels, grid), case.outputs[output], case.tolerance(output))
        checked += 1
    assert checked


@pytest.mark.parametrize("bias", [False, True], ids=["zero", "biased"])
@pytest.mark.parametrize("gated", [False, True], ids=["mlp", "swiglu"])
def test_dinov3_features_equal_those_of_transformers(gated: bool, bias: bool) -> None:
    """From weights under its names, as the model hub has them; it rounds the angles of positions otherwise."""
    transformers = pytest.importorskip("transformers", minversion="4.56", reason="no DINOv3 in transformers")
    size = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 64}
    torch.manual_seed(1)
    config = transformers.DINOv3ViTConfig(**size, num_register_tokens=4, use_gated_mlp=gated, layerscale_value=0.3)
    theirs = transformers.DINOv3ViTModel(config).eval().requires_grad_(False)
    for name, value in theirs.named_parameters():
        if name.endswith(("q_proj.bias", "v_proj.bias")) and bias:
            torch.nn.init.normal_(value)
    state, given = dict(theirs.state_dict()), {"embed_dim": 32, "depth": 2, "num_heads": 2, "mlp_ratio": 2}
    ours = TimmVfm("x", build_timm(ARCH["swiglu" if gated else "mlp"], state, **given), SAT_MEAN, SAT_STD)
    pixels = _pixels(48, 80)
    seen = (pixels - torch.tensor(SAT_MEAN).view(1, 3, 1, 1)) / torch.tensor(SAT_STD).view(1, 3, 1, 1)
    assert_close(ours.features(pixels, (3, 5)), theirs(seen).last_hidden_state[:, 5:], {"atol": 1e-4, "rtol": 1e-4})


def _tiny(family: str) -> TimmVfm:
    """A random model of a family."""
    torch.manual_seed(3)
    size: dict[str, Any] = {"embed_dim": 24, "depth": 3, "num_heads": 2, "num_classes": 0, "dynamic_img_size": True}
    name = {"dino": "vit_small_patch8_224", "dinov2": "vit_small_patch14_reg4_dinov2", "dinov3": ARCH["mlp"]}
    model = timm.create_model(name[family], **size).eval().requires_grad_(False)
    return TimmVfm(family, model, SAT_MEAN, SAT_STD, "offset" if family == "dino" else "timm")


@pytest.fixture(scope="module", params=["dino", "dinov2", "dinov3", "clip"])
def vfm(request: pytest.FixtureRequest, tiny_clip: Any) -> TimmVfm | ClipVfm:
    """A tiny random one of every family."""
    return ClipVfm("clip", ClipVit(tiny_clip.visual)) if request.param == "clip" else _tiny(request.param)


def _pixels(height: int, width: int) -> torch.Tensor:
    return torch.rand(2, 3, height, width, generator=torch.Generator().manual_seed(1))


@pytest.mark.parametrize("grid", [(4, 4), (3, 7)])
def test_features_are_those_of_the_grid_that_is_asked_for(vfm: TimmVfm | ClipVfm, grid: tuple[int, int]) -> None:
    features = vfm.features(_pixels(60, 90), grid)
    assert features.shape[:2] == (2, grid[0] * grid[1])
    assert features.isfinite().all()


@pytest.mark.parametrize("blocks", [1, 2, 99])
def test_attention_between_patches_is_positive_and_rows_add_to_one(vfm: TimmVfm | ClipVfm, blocks: int) -> None:
    attention = vfm.attention(_pixels(56, 56), (3, 5), blocks)
    assert attention.shape == (2, 15, 15)
    assert (attention >= 0).all()
    torch.testing.assert_close(attention.sum(-1), torch.ones(2, 15), rtol=0, atol=1e-5)


def test_looking_at_attention_changes_nothing(vfm: TimmVfm | ClipVfm) -> None:
    pixels = _pixels(56, 56)
    before = vfm.features(pixels, (4, 4))
    vfm.attention(pixels, (4, 4), 2)
    assert torch.equal(vfm.features(pixels, (4, 4)), before)
    if isinstance(vfm, TimmVfm):
        assert not any(m._forward_pre_hooks for m in vfm.model.modules())
        assert all(m.fused_attn for m in vfm.model.modules() if hasattr(m, "fused_attn"))


@pytest.mark.parametrize("family", ["dino", "dinov2"])
def test_attention_is_softmax_of_queries_and_keys(family: str) -> None:
    """Recomputed from the last block's own projection, for the families without a rotary code."""
    vfm = _tiny(family)
    seen: list[torch.Tensor] = []
    last = vfm.model.blocks[-1].attn
    hook = last.qkv.register_forward_hook(lambda module, given, out: seen.append(out))
    pixels = _pixels(56, 56)
    vfm.features(pixels, (4, 4))
    hook.remove()
    q, k, _ = seen[0].unflatten(-1, (3, last.num_heads, -1)).permute(2, 0, 3, 1, 4)
    whole = (q @ k.mT * q.shape[-1] ** -0.5).softmax(-1).mean(1)[:, vfm.prefix :, vfm.prefix :]
    expected = whole / whole.sum(-1, keepdim=True)
    torch.testing.assert_close(vfm.attention(pixels, (4, 4), 1), expected, rtol=1e-4, atol=1e-6)


def test_dinos_rule_is_timms_on_the_native_grid(tiny_clip: Any) -> None:
    torch.manual_seed(3)
    size: dict[str, Any] = {"embed_dim": 24, "depth": 2, "num_heads": 2, "num_classes": 0, "img_size": 32}
    model = timm.create_model("vit_small_patch8_224", dynamic_img_size=True, **size).eval().requires_grad_(False)
    ours, theirs = (TimmVfm("x", model, SAT_MEAN, SAT_STD, rule) for rule in ("offset", "timm"))
    native, other = (4, 4), (6, 5)
    torch.testing.assert_close(ours.features(_pixels(32, 32), native), theirs.features(_pixels(32, 32), native))
    assert not torch.allclose(ours.features(_pixels(48, 40), other), theirs.features(_pixels(48, 40), other))


def test_pixels_are_only_resized_when_the_grid_asks_for_it() -> None:
    pixels = _pixels(32, 48)
    assert fit_to(pixels, (4, 6), 8) is pixels
    assert fit_to(pixels, (4, 4), 8).shape == (2, 3, 32, 32)


@pytest.mark.parametrize("family", ["dino", "other"])
def test_a_model_is_loaded_from_a_file(family: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """By its card: architecture, colours, rule of positions, digest."""
    arch = {"dino": "vit_tiny_patch16_224", "other": "vit_tiny_patch16_224"}[family]
    torch.manual_seed(0)
    model = timm.create_model(arch, num_classes=0)
    save_file(model.state_dict(), tmp_path / "w.safetensors")
    card = replace(MODELS["dino_vitb16"], name="tiny", arch=f"{arch}.dino" if family == "dino" else arch)
    monkeypatch.setitem(MODELS, "tiny", card)
    monkeypatch.setattr("geoovseg.models.vfm.build_timm", lambda name, state: build_timm(arch, state))
    clip: Any = SimpleNamespace(card=SimpleNamespace(name="demo"))
    found = load_vfm(f"tiny@{tmp_path / 'w.safetensors'}", clip, torch.device("cpu"), "fp32")
    assert isinstance(found, TimmVfm)
    assert (found.rule, found.patch, found.mean) == ("offset" if family == "dino" else "timm", 16, IMAGENET_MEAN)
    assert found.sha256 == hashlib.sha256((tmp_path / "w.safetensors").read_bytes()).hexdigest()
    pixels = _pixels(224, 224)
    assert found.features(pixels, (14, 14)).shape == (2, 196, 192)
    (tmp_path / "w.safetensors").write_bytes(b"nothing")
    with pytest.raises(GeoOVSegError, match="cannot be loaded as weights of"):
        load_vfm(f"tiny@{tmp_path / 'w.safetensors'}", clip, torch.device("cpu"), "bf16")


def test_weights_of_another_model_are_refused() -> None:
    with pytest.raises(ValueError, match="it lacks"):
        build_timm("vit_small_patch8_224", {"cls_token": torch.zeros(1, 1, 24)}, embed_dim=24, depth=1, num_heads=2)


@pytest.mark.parametrize("family", ["dino", "dinov2", "dinov3", "dinov3_qkvb"])
def test_queries_and_keys_are_what_the_last_block_projects(family: str) -> None:
    """The tokens that enter the last block through its first norm and its own weights, biases kept apart or not."""
    vfm = _tiny("dinov3" if family == "dinov3_qkvb" else family)
    if family == "dinov3_qkvb":
        name = ARCH["mlp"].replace("dinov3", "dinov3_qkvb")
        small = {"depth": 2, "embed_dim": 48, "num_heads": 3}
        model = timm.create_model(name, num_classes=0, dynamic_img_size=True, **small).eval()
        for bias in (model.blocks[-1].attn.q_bias, model.blocks[-1].attn.v_bias):
            torch.nn.init.normal_(bias)
        vfm = replace(vfm, model=model)
    parts: Any = vfm.model
    pixels = _pixels(4 * vfm.patch, 6 * vfm.patch)
    seen: list[torch.Tensor] = []
    hook = parts.blocks[-1].norm1.register_forward_hook(lambda module, given, found: seen.append(found))
    found = vfm.queries_keys(pixels, (4, 6))
    hook.remove()
    attn, width = parts.blocks[-1].attn, seen[0].shape[2]
    weight = attn.qkv.weight[:width] + attn.qkv.weight[width : 2 * width]
    bias = attn.qkv.bias[:width] + attn.qkv.bias[width : 2 * width] if attn.qkv.bias is not None else None
    if family == "dinov3_qkvb":
        bias = attn.q_bias + attn.k_bias
    expected = torch.nn.functional.linear(seen[0][:, vfm.prefix :], weight, bias)
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-5)
    assert found.shape == (len(pixels), 24, width)
