"""Towers that are no plain CLIP: read out as their own libraries would, on tiny random ones."""

from __future__ import annotations

from typing import Any

import numpy as np
import open_clip
import pytest
import timm
import torch
from golden_cases import assert_close
from tiny_weights import tokenizer
from torch.nn import functional as F

from geoovseg.errors import MethodError, ModelError
from geoovseg.methods import METHODS, load_method
from geoovseg.models.layouts import as_open_clip
from geoovseg.models.pooled import PooledVit
from geoovseg.models.tensors import fill
from geoovseg.models.tips import TipsVit, load_tips
from geoovseg.vocabulary import parse_classes
from geoovseg.windows.batch import TileBatch

FLOAT = {"atol": 2e-6, "rtol": 1e-5}
TIMM = {"siglip": ("vit_base_patch16_siglip_224", "none"), "pe": ("vit_pe_core_base_patch16_224", None)}
VOCABULARY = parse_classes(["a,b,c"])


class Visual(torch.nn.Module):
    """An image tower as open_clip has it of timm."""

    def __init__(self, kind: str, **size: Any) -> None:
        super().__init__()
        name, proj = TIMM[kind]
        given = {"depth": 2, "embed_dim": 32, "num_heads": 2, "img_size": 64, "dynamic_img_size": True, **size}
        self.trunk = timm.create_model(name, num_classes=0 if proj else 24, global_pool="map", **given)
        self.head = torch.nn.Sequential()


@pytest.fixture(scope="module", params=TIMM)
def vit(request: pytest.FixtureRequest) -> PooledVit:
    torch.manual_seed(5)
    visual = Visual(request.param).eval().requires_grad_(False)
    for value in visual.parameters():
        torch.nn.init.normal_(value, std=0.2)
    return PooledVit(visual, mean=(0.5, 0.5, 0.5), std=(0.5, 0.5, 0.5))


def _pixels(*size: int) -> torch.Tensor:
    return torch.rand(2, 3, *size, generator=torch.Generator().manual_seed(1))


def _batch(pixels: torch.Tensor) -> TileBatch:
    valid = np.ones((len(pixels), *pixels.shape[2:]), bool)
    return TileBatch(windows=(None,) * len(pixels), stored=pixels.numpy(), valid=valid)


@pytest.mark.parametrize("size", [(64, 64), (48, 80)])
def test_a_patch_is_what_the_towers_own_head_makes_of_it_alone(vit: PooledVit, size: tuple[int, int]) -> None:
    """Attention over one key gives its value: the head of timm on one token is MaskCLIP's read-out."""
    pixels, trunk = _pixels(*size), vit.visual.trunk
    tokens = trunk.forward_features((pixels - 0.5) / 0.5)[:, trunk.num_prefix_tokens :]
    expected = torch.stack([trunk.forward_head(tokens[:, n : n + 1]) for n in range(tokens.shape[1])], dim=1)
    text = F.normalize(torch.randn(3, vit.dim, generator=torch.Generator().manual_seed(2)), dim=-1)
    method = load_method("maskclip", vit, text, VOCABULARY)
    found = method.vectors(_batch(pixels))
    assert found.shape == (2, vit.dim, size[0] // 16, size[1] // 16)
    assert_close(found.flatten(2).mT, F.normalize(expected, dim=-1), FLOAT)


def test_all_patches_pooled_are_the_towers_image_feature(vit: PooledVit) -> None:
    pixels, trunk = _pixels(64, 64), vit.visual.trunk
    x, _ = vit.trunk(pixels)
    seen = x if trunk.num_prefix_tokens else x[:, 1:]
    pooled = vit.readout(vit.block(vit.depth - 1, seen))[:, 0]
    assert_close(pooled, trunk((pixels - 0.5) / 0.5), FLOAT)


def test_other_methods_refuse_a_pooled_tower(vit: PooledVit) -> None:
    text = F.normalize(torch.randn(3, vit.dim), dim=-1)
    for name in METHODS:
        if "pooled" not in METHODS[name].towers:
            with pytest.raises(MethodError, match=f"{name} cannot read this image tower"):
                load_method(name, vit, text, VOCABULARY)


@pytest.mark.parametrize("stretched", [True, False])
def test_the_text_side_of_longclip_gives_its_own_features(stretched: bool) -> None:
    """Its forward written out: 248 positions, from the 21st on those of the second table."""
    size = {"vocab_size": 64, "width": 16, "heads": 2, "layers": 2}
    vision = {"image_size": 32, "layers": 1, "width": 16, "head_width": 8, "patch_size": 16}
    torch.manual_seed(4)
    theirs = open_clip.CLIP(embed_dim=8, vision_cfg=vision, text_cfg={**size, "context_length": 248})
    ours = open_clip.CLIP(embed_dim=8, vision_cfg=vision, text_cfg={**size, "context_length": 77})
    state = dict(theirs.state_dict())
    if stretched:
        first = state["positional_embedding"].clone()
        first[20:] = 9  # which is not used
        state |= {"positional_embedding": first, "positional_embedding_res": state["positional_embedding"].clone()}
        state["positional_embedding_res"][:20] = 9
    fill(ours, as_open_clip(state))
    tokens = torch.zeros(3, 248, dtype=torch.long)
    for row, length in enumerate((5, 30, 77)):
        tokens[row, :length] = torch.arange(1, length + 1) % 60
        tokens[row, length - 1] = 63
    with torch.no_grad():
        assert_close(ours.eval().encode_text(tokens[:, :77]), theirs.eval().encode_text(tokens), FLOAT)


@pytest.fixture(scope="module")
def tips(tmp_path_factory: pytest.TempPathFactory) -> tuple[Any, Any, Any]:
    """A tiny TIPSv2 of transformers, and the same as we load it."""
    transformers = pytest.importorskip("transformers", minversion="5.14", reason="no TIPSv2 in transformers")
    folder = tmp_path_factory.mktemp("tips")
    size = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2}
    config = transformers.Tipsv2Config(
        vision_config={**size, "image_size": 56}, text_config={**size, "intermediate_size": 64, "vocab_size": 8}
    )
    torch.manual_seed(6)
    theirs = transformers.Tipsv2Model(config).eval().requires_grad_(False)
    for value in theirs.parameters():
        torch.nn.init.normal_(value, std=0.2)
    theirs.save_pretrained(folder)
    for name, content in tokenizer():
        (folder / name).write_bytes(content)
    return theirs, *load_tips(folder)


@pytest.mark.parametrize("size", [(56, 56), (42, 84)])
def test_patches_of_tips_are_its_tokens_after_the_last_norm(tips: tuple[Any, Any, Any], size: tuple[int, int]) -> None:
    theirs, ours, _ = tips
    vit, pixels = TipsVit(ours.visual, mean=(0, 0, 0), std=(1, 1, 1)), _pixels(*size)
    tokens = theirs.vision_model(pixel_values=pixels).last_hidden_state[:, 2:]  # two class tokens
    text = F.normalize(torch.randn(3, vit.dim, generator=torch.Generator().manual_seed(2)), dim=-1)
    found = load_method("clip", vit, text, VOCABULARY).vectors(_batch(pixels))
    assert found.shape == (2, 32, size[0] // 14, size[1] // 14)
    assert_close(found.flatten(2).mT, F.normalize(tokens, dim=-1), FLOAT)


def test_words_of_tips_are_its_own_features(tips: tuple[Any, Any, Any]) -> None:
    """With the padding that its processor has, and none of it counted."""
    theirs, ours, tokenize = tips
    tokens = tokenize(["forest", "water road building"])
    assert tokens.shape == (2, 64)
    expected = theirs.get_text_features(input_ids=tokens, attention_mask=(tokens != 0).long()).pooler_output
    assert_close(ours.encode_text(tokens), expected, FLOAT)


def test_only_clip_reads_tips_and_leaves_it_as_it_is(tips: tuple[Any, Any, Any]) -> None:
    vit = TipsVit(tips[1].visual, mean=(0, 0, 0), std=(1, 1, 1))
    text = F.normalize(torch.randn(3, vit.dim), dim=-1)
    with pytest.raises(MethodError, match="segearth cannot read this image tower"):
        load_method("segearth", vit, text, VOCABULARY)
    method = load_method("clip", vit, text, VOCABULARY, settings={"residual": False})
    with pytest.raises(ModelError, match="use -m clip, without --set residual=false"):
        method.vectors(_batch(_pixels(56, 56)))
