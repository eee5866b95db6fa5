"""Attention of a diffusion model, on a tiny random one."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
import torch
from golden_cases import build

from geoovseg.errors import ModelError
from geoovseg.models.cards import model_card
from geoovseg.models.diffusion import TIMESTEP, DiffusionVfm, load_diffusion
from geoovseg.models.vit import ClipVit

diffusers = pytest.importorskip("diffusers", reason="needs the extra sd")


@pytest.fixture(scope="module")
def vfm() -> DiffusionVfm:
    """Of the layout of Stable Diffusion 2: attention in the last three levels going up, latents an eighth as wide."""
    torch.manual_seed(0)
    widths = (8, 8, 16, 16)
    unet = diffusers.UNet2DConditionModel(
        block_out_channels=widths, layers_per_block=2, cross_attention_dim=12, attention_head_dim=2, norm_num_groups=4,
        down_block_types=("CrossAttnDownBlock2D",) * 3 + ("DownBlock2D",),
        up_block_types=("UpBlock2D",) + ("CrossAttnUpBlock2D",) * 3, sample_size=8,
    )  # fmt: skip
    vae = diffusers.AutoencoderKL(
        block_out_channels=widths, norm_num_groups=4, latent_channels=4,
        down_block_types=("DownEncoderBlock2D",) * 4, up_block_types=("UpDecoderBlock2D",) * 4,
    )  # fmt: skip
    for model in (unet, vae):
        model.eval().requires_grad_(False)
    return DiffusionVfm("sd2", vae, unet, torch.randn(1, 7, 12))


def _pixels(height: int, width: int) -> torch.Tensor:
    return torch.rand(2, 3, height, width, generator=torch.Generator().manual_seed(1))


@pytest.mark.parametrize("grid", [(8, 8), (6, 10)])
def test_rows_of_attention_add_to_one(vfm: DiffusionVfm, grid: tuple[int, int]) -> None:
    attention = vfm.attention(_pixels(64, 80), grid, 2)
    assert attention.shape == (2, grid[0] * grid[1], grid[0] * grid[1])
    assert (attention >= 0).all()
    torch.testing.assert_close(attention.sum(-1), torch.ones(attention.shape[:2]))


def test_attention_is_what_diffusers_own_processor_computes(vfm: DiffusionVfm) -> None:
    """With its slow processor, which makes the weights explicit, and the encoding written out."""
    kept: list[torch.Tensor] = []

    class Explicit:
        def __call__(self, attn: Any, hidden: torch.Tensor, encoder_hidden_states: Any = None, **more: Any) -> Any:
            other = hidden if encoder_hidden_states is None else encoder_hidden_states
            q, k, v = (
                attn.head_to_batch_dim(f(t)) for f, t in ((attn.to_q, hidden), (attn.to_k, other), (attn.to_v, other))
            )
            weights = attn.get_attention_scores(q, k)
            if encoder_hidden_states is None:
                kept.append(weights.unflatten(0, (len(hidden), attn.heads)).mean(1))
            return attn.to_out[0](attn.batch_to_head_dim(weights @ v))

    pixels = _pixels(64, 64)
    found = vfm.attention(pixels, (8, 8), 2)
    before = dict(vfm.unet.attn_processors)
    vfm.unet.set_attn_processor(Explicit())
    latent = vfm.vae.encode(2 * pixels - 1).latent_dist.mode() * vfm.vae.config.scaling_factor
    vfm.unet(latent, TIMESTEP, encoder_hidden_states=vfm.empty.expand(2, -1, -1))
    vfm.unet.set_attn_processor(before)
    largest = [weights for weights in kept if weights.shape[-1] == 64][-3:]
    torch.testing.assert_close(found, (largest[0] + largest[1]) / 2, rtol=1e-4, atol=1e-6)


def test_no_hooks_stay(vfm: DiffusionVfm) -> None:
    vfm.attention(_pixels(64, 64), (8, 8), 2)
    assert not any(module._forward_hooks for module in vfm.unet.modules())


def test_it_has_no_features(vfm: DiffusionVfm) -> None:
    with pytest.raises(ModelError, match="has attention but no features"):
        vfm.features(_pixels(64, 64), (8, 8))


def test_without_the_extra_the_way_to_it_is_told(tmp_path: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(__import__("sys").modules, "transformers", None)
    with pytest.raises(ModelError, match=r"pip install 'geoovseg\[sd\]'"):
        load_diffusion("sd2", tmp_path, torch.device("cpu"), torch.float32)
    assert model_card("sd2", "vfm").licence.startswith("CreativeML")


def test_layers_are_averaged_by_their_weights(vfm: DiffusionVfm) -> None:
    pixels = _pixels(64, 64)
    alone = [replace(vfm, weights=tuple(float(k == n) for k in range(3))).attention(pixels, (8, 8), 3) for n in (0, 2)]
    both = replace(vfm, weights=(1.0, 0.0, 3.0)).attention(pixels, (8, 8), 3)
    torch.testing.assert_close(both, (alone[0] + 3 * alone[1]) / 4)
    assert not torch.equal(alone[0], alone[1])


def test_the_time_step_is_the_one_of_the_setting(vfm: DiffusionVfm, tiny_vit: ClipVit) -> None:
    early, late = (replace(vfm, timestep=t).attention(_pixels(64, 64), (8, 8), 2) for t in (1, 900))
    assert not torch.equal(early, late)
    method = build(tiny_vit, "direct-mv", vfm=vfm, sd_step=7, sd_layers="0.2+0+0.8")
    assert (method.vfm.timestep, method.vfm.weights) == (7, (0.2, 0.0, 0.8))
    usual = build(tiny_vit, "direct-mv", vfm=vfm).vfm
    assert (usual.timestep, usual.weights) == (vfm.timestep, vfm.weights)
