"""Linear layers with packed weights, against torch's own."""

from __future__ import annotations

import copy

import open_clip
import pytest
import torch
from torch import nn

from geoovseg.models.vit import ClipVit
from geoovseg.ops import eight_bits
from geoovseg.ops import linear as linear_module
from geoovseg.ops.linear import feed_forward, linear, packed

needs_onednn = pytest.mark.skipif(
    not torch.backends.mkldnn.is_available() or not hasattr(torch.ops.mkldnn, "_reorder_linear_weight"),
    reason="torch has no oneDNN here",
)


def _tower(activation: type[nn.Module] = nn.GELU) -> nn.Module:
    torch.manual_seed(0)
    vision = {"image_size": 32, "layers": 2, "width": 64, "patch_size": 8}
    text = {"context_length": 8, "vocab_size": 16, "heads": 2, "layers": 1, "width": 32}
    model = open_clip.CLIP(32, vision, text, quick_gelu=activation is not nn.GELU)
    return model.visual.eval().requires_grad_(False)


@needs_onednn
@pytest.mark.parametrize("activation", [nn.GELU, open_clip.transformer.QuickGELU])
@torch.inference_mode()
def test_a_packed_tower_says_what_it_said_before(activation: type[nn.Module]) -> None:
    tower = _tower(activation)
    plain, fast = ClipVit(copy.deepcopy(tower)), ClipVit(packed(tower))
    assert sum(part in linear_module._FUSED for part in tower.modules()) == 2
    pixels = torch.rand(2, 3, 32, 40)
    for vit in (plain, fast):
        x, _ = vit.trunk(pixels)
        vit.found = vit.readout(vit.block(vit.depth - 1, x))  # type: ignore[attr-defined]
    torch.testing.assert_close(fast.found, plain.found, atol=2e-6, rtol=1e-5)  # type: ignore[attr-defined]


@needs_onednn
@torch.inference_mode()
def test_bfloat16_layers_are_the_same_to_its_rounding() -> None:
    layer, x = nn.Linear(64, 96).requires_grad_(False).bfloat16(), torch.randn(3, 5, 64).bfloat16()
    expected = layer(x)
    torch.testing.assert_close(packed(layer)(x), expected, atol=0.02, rtol=0.02)


def test_what_torch_refuses_to_lay_out_stays_as_it_is(monkeypatch: pytest.MonkeyPatch) -> None:
    """As it does for bfloat16 on CPUs without instructions for it."""

    def refuse(weight: torch.Tensor) -> torch.Tensor:
        raise RuntimeError("bf16 path needs the cpu support")

    monkeypatch.setattr(linear_module, "_laid_out", refuse)
    monkeypatch.setattr(linear_module, "_lays_out", linear_module._lays_out.__wrapped__)
    layer = packed(nn.Linear(8, 4).requires_grad_(False))
    assert type(layer) is nn.Linear
    assert layer.weight not in linear_module._PACKED


@needs_onednn
@torch.inference_mode()
def test_what_shares_a_batch_changes_nothing() -> None:
    layer, x = packed(nn.Linear(48, 80).requires_grad_(False)), torch.randn(8, 17, 48)
    shuffled = x[[3, 3, 3, 3, 0, 1, 2, 3]]
    assert torch.equal(layer(shuffled)[0], layer(x)[3])


@needs_onednn
def test_numbers_of_another_kind_and_gradients_take_torchs_way() -> None:
    layer = packed(nn.Linear(8, 4).requires_grad_(False))
    x = torch.randn(2, 8, requires_grad=True)
    layer(x).sum().backward()
    torch.testing.assert_close(x.grad, layer.weight.sum(0).expand(2, -1))
    layer.double()
    with torch.no_grad():
        assert linear(x.detach().double(), layer.weight, layer.bias).dtype == torch.float64


@needs_onednn
def test_layers_that_are_packed_with_their_activation_are_not_packed_again() -> None:
    layers = packed(nn.Sequential(nn.Linear(8, 16), nn.GELU(), nn.Linear(16, 8)).requires_grad_(False))
    assert layers in linear_module._FUSED
    assert all(layers[n].weight not in linear_module._PACKED for n in (0, 2))


@needs_onednn
@torch.inference_mode()
def test_weights_that_are_changed_later_count() -> None:
    with torch.inference_mode(mode=False):
        layers = packed(nn.Sequential(nn.Linear(8, 16), nn.GELU(), nn.Linear(16, 8)).requires_grad_(False))
        layers[0].weight.mul_(2)
        layers[2].load_state_dict(nn.Linear(16, 8).state_dict())
    x = torch.randn(3, 8)
    hidden = torch.nn.functional.gelu(x @ layers[0].weight.T + layers[0].bias)
    expected = hidden @ layers[2].weight.T + layers[2].bias
    torch.testing.assert_close(feed_forward(layers, x), expected)
    torch.testing.assert_close(layers(x), expected)


@needs_onednn
def test_layers_without_a_bias_are_packed_one_by_one() -> None:
    layers = nn.Sequential(nn.Linear(8, 16, bias=False), nn.GELU(), nn.Linear(16, 8)).requires_grad_(False)
    x = torch.randn(3, 8)
    expected = layers(x)
    with torch.inference_mode():
        torch.testing.assert_close(feed_forward(packed(layers), x), expected)


@needs_onednn
def test_a_model_too_large_to_be_held_twice_is_left_as_it_is(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(linear_module, "MOST", 100)
    assert type(packed(nn.Sequential(nn.Linear(8, 8)))[0]) is nn.Linear


@needs_onednn
def test_packed_weights_go_with_their_model() -> None:
    layer = packed(nn.Linear(8, 8).requires_grad_(False))
    held = len(linear_module._PACKED)
    del layer
    assert len(linear_module._PACKED) == held - 1


def test_layers_that_are_not_packed_are_torchs() -> None:
    layers, x = nn.Sequential(nn.Linear(8, 16), nn.GELU(), nn.Linear(16, 8)), torch.randn(3, 8)
    assert torch.equal(feed_forward(layers, x), layers(x))
    assert torch.equal(linear(x, layers[0].weight, layers[0].bias), layers[0](x))


needs_eight_bits = pytest.mark.skipif(not eight_bits.is_exact(), reason="this CPU has no exact 8-bit products")


def _in_steps(x: torch.Tensor) -> torch.Tensor:
    """Numbers (..., E) as whole multiples of 1/127 of the largest of each row."""
    step = x.abs().amax(-1, keepdim=True) / 127
    return (x / step + 0.5).floor() * step


@needs_eight_bits
@torch.inference_mode()
@pytest.mark.parametrize("shape", [(5, 48), (3, 7, 48), (2, 3, 4, 48)])
def test_eight_bits_are_whole_multiples_of_a_step_for_each_row_and_token(shape: tuple[int, ...]) -> None:
    layer, x = nn.Linear(48, 80).requires_grad_(False), torch.randn(shape) * 10
    exact = _in_steps(x).double() @ _in_steps(layer.weight).double().T + layer.bias.double()
    found = packed(layer, eight=True)(x)
    torch.testing.assert_close(found.double(), exact, atol=2e-5, rtol=2e-5)


@needs_eight_bits
@torch.inference_mode()
@pytest.mark.parametrize("activation", [nn.GELU, open_clip.transformer.QuickGELU])
def test_a_tower_in_eight_bits_says_nearly_what_it_said_before(activation: type[nn.Module]) -> None:
    tower = _tower(activation)
    plain, fast = ClipVit(copy.deepcopy(tower)), ClipVit(packed(tower, eight=True))
    assert sum(part in linear_module._FUSED for part in tower.modules()) == 2
    pixels = torch.rand(2, 3, 32, 40)
    features = [vit.readout(vit.block(vit.depth - 1, vit.trunk(pixels)[0])) for vit in (plain, fast)]
    difference = (features[1] - features[0]).norm() / features[0].norm()
    assert 1e-4 < difference < 0.02


@needs_eight_bits
@torch.inference_mode()
def test_in_eight_bits_nothing_that_shares_a_batch_matters() -> None:
    layers, x = nn.Sequential(nn.Linear(48, 80), nn.GELU(), nn.Linear(80, 48)), torch.randn(8, 17, 48)
    packed(layers.requires_grad_(False), eight=True)
    x[1] *= 1000
    for few in (x[3:4], x[2:5]):
        assert torch.equal(feed_forward(layers, few)[-1], feed_forward(layers, x)[3 if len(few) == 1 else 4])


@needs_eight_bits
@torch.inference_mode()
@pytest.mark.parametrize("shape", [(48,), (0, 48), (0, 7, 48), (2, 0, 48)])
def test_few_tokens_or_none_take_torchs_shapes(shape: tuple[int, ...]) -> None:
    layer, x = nn.Linear(48, 80).requires_grad_(False), torch.ones(shape)
    expected = layer(x).shape
    assert packed(layer, eight=True)(x).shape == expected


@needs_eight_bits
@torch.inference_mode()
def test_tokens_and_rows_of_zeros_are_zeros_in_eight_bits() -> None:
    layer = nn.Linear(16, 8, bias=False).requires_grad_(False)
    layer.weight[2] = 0
    x = torch.randn(3, 16)
    x[1] = 0
    found = packed(layer, eight=True)(x)
    assert torch.isfinite(found).all()
    assert (found[1] == 0).all()
    assert (found[:, 2] == 0).all()


def test_a_cpu_without_the_kernel_has_no_eight_bits(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(rows: object, whole: object) -> None:
        raise RuntimeError("no such kernel")

    monkeypatch.setattr(eight_bits, "_products", refuse)
    assert not eight_bits.is_exact.__wrapped__()


def test_a_cpu_whose_sums_overflow_has_no_eight_bits(monkeypatch: pytest.MonkeyPatch) -> None:
    """As those that add pairs of products in 16 bits, which hold no more than 32,767."""
    monkeypatch.setattr(eight_bits, "_products", lambda rows, whole: torch.zeros(len(whole), len(rows.steps)))
    assert not eight_bits.is_exact.__wrapped__()
