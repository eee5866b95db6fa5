"""ReAttnCLIP: the reference numbers, and what must hold of its map of attention."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

import open_clip
import pytest
import torch
from golden_cases import Case, assert_close, build, case_id, find
from safetensors.torch import load_file
from torch.nn import functional as F

from geoovseg.errors import MethodError
from geoovseg.methods.dense import cosines
from geoovseg.methods.reattnclip import ReAttn, turned_back, turns_together
from geoovseg.models.cards import CLIP_MEAN, CLIP_STD
from geoovseg.models.vit import ClipVit


def _tower(case: Case) -> ClipVit:
    """The case's image tower in float64; it has no text tower."""
    config = json.loads((case.path / "config.json").read_text())
    text = {"context_length": 8, "vocab_size": 16, "width": 16, "heads": 2, "layers": 1}
    sizes = {"embed_dim": config["embed_dim"], "vision_cfg": config["vision_cfg"], "quick_gelu": config["quick_gelu"]}
    model = open_clip.CLIP(**sizes, text_cfg=text).double().eval().requires_grad_(False)
    model.load_state_dict(load_file(case.path / "weights.safetensors"), strict=False)
    return ClipVit(model.visual)


@pytest.mark.golden
@pytest.mark.parametrize("case", find("reattnclip"), ids=case_id)
def test_the_method_equals_the_reference(case: Case) -> None:
    hyper = case.meta["hyperparameters"]
    vit, text = _tower(case), case.inputs["text"]
    assert len(set(hyper["lambdas"][1:])) == 1
    fields: dict[str, Any] = {
        "alpha": hyper["alpha"],
        "beta": sum(hyper["beta"]),
        "turned": hyper["lambdas"][1],
        "middle_first": hyper["mid_layers"][0],
        "middle_count": len(hyper["mid_layers"]),
    }
    encoder: ReAttn = build(vit, "reattnclip", **fields).encoder
    mean, std = (torch.tensor(v, dtype=torch.double).view(1, 3, 1, 1) for v in (CLIP_MEAN, CLIP_STD))
    pixels = case.inputs["pixels"] * std + mean
    features, (attention, _, _) = encoder(pixels), encoder.refined(pixels)
    patches = F.normalize(features.patches[0], dim=-1) @ text.T
    bias = F.normalize(features.cls[0], dim=-1) @ text.T
    found = {
        "a_refine": attention[0],
        "patch_features": features.patches[0],
        "cls_feature": features.cls[0],
        "logits": patches - hyper["cls_lambda"] * bias,
        "s_rot": _similar(encoder, pixels),
        **{name: _one_turn(encoder, pixels, name)[0] for name in case.outputs if name.startswith("s.r")},
    }
    tolerance = {key: float(value) for key, value in case.meta["tolerance"].items()}
    for name, expected in case.outputs.items():
        assert_close(found[name], expected, tolerance)


def _similar(encoder: ReAttn, pixels: torch.Tensor) -> torch.Tensor:
    return encoder._turned(pixels)[0][0]


def _one_turn(encoder: ReAttn, pixels: torch.Tensor, name: str) -> torch.Tensor:
    """`s.r2.k10`: of the image turned twice, at the input of block 10."""
    turn, block = (int(part[1:]) for part in name.split(".")[1:])
    x, grid = encoder.clip.embed(torch.rot90(pixels, turn, (2, 3)))
    for i in range(block):
        x = encoder.clip.block(i, x)
    return encoder.similarity(turned_back(encoder.clip.attended(block, x)[:, 1:], grid, turn))


@pytest.fixture
def encoder(tiny_clip: open_clip.CLIP) -> ReAttn:
    return build(ClipVit(tiny_clip.visual), "reattnclip").encoder


def _pixels(height: int, width: int) -> torch.Tensor:
    return torch.rand(2, 3, height, width, generator=torch.Generator().manual_seed(2))


@pytest.mark.parametrize("turn", [0, 1, 2, 3])
@pytest.mark.parametrize(("height", "width"), [(4, 4), (3, 5)])
def test_turning_back_undoes_the_turn(turn: int, height: int, width: int) -> None:
    """Patches of a turned image, each told by its place, come back in their first order."""
    image = torch.arange(height * width).view(1, 1, height, width)
    turned = torch.rot90(image, turn, (2, 3))
    grid = (turned.shape[2], turned.shape[3])
    found = turned_back(turned.flatten(2).mT, grid, turn)
    assert torch.equal(found.flatten(), torch.arange(height * width))


@pytest.mark.parametrize(("height", "width"), [(32, 32), (40, 64)])
def test_rows_of_attention_add_to_one_and_patches_do_not_see_the_class_token(
    encoder: ReAttn, height: int, width: int
) -> None:
    attention, _, grid = encoder.refined(_pixels(height, width))
    assert grid == (height // 8, width // 8)
    torch.testing.assert_close(attention.sum(-1), torch.ones(attention.shape[:2]))
    assert (attention[:, 1:, 0] == 0).all()
    assert (attention[:, 0, 0] > 0).all()
    assert (attention >= 0).all()


def test_an_equivariant_comparison_turns_with_the_image(encoder: ReAttn) -> None:
    """With equal weights for all turns, the similarity of a turned image is the turned similarity."""
    even = replace(encoder, turned=1.0)
    pixels = _pixels(40, 64)
    here, there = even._turned(pixels)[0], even._turned(torch.rot90(pixels, 1, (2, 3)))[0]
    order = turned_back(torch.rot90(torch.arange(40).view(1, 5, 8), 1, (1, 2)).reshape(1, -1, 1), (8, 5), 0).flatten()
    torch.testing.assert_close(there, here[:, order][:, :, order], rtol=1e-4, atol=1e-5)


def test_images_of_one_shape_go_through_the_tower_together() -> None:
    assert turns_together(_pixels(32, 32)) == [(0,), (1,), (2,), (3,)]
    assert turns_together(_pixels(32, 32).to("meta")) == [(0, 1, 2, 3)]
    assert turns_together(_pixels(32, 40).to("meta")) == [(0, 2), (1, 3)]


def test_without_turns_and_in_another_tower_blocks_are_in_proportion(encoder: ReAttn) -> None:
    assert encoder.middle == (6, 7, 8, 9)
    assert encoder.compared == (9, 10, 11)
    assert encoder.notes == ()
    torch.manual_seed(0)
    vision = {"image_size": 32, "layers": 4, "width": 24, "head_width": 8, "patch_size": 8}
    text = {"context_length": 8, "vocab_size": 16, "width": 16, "heads": 2, "layers": 1}
    short = open_clip.CLIP(embed_dim=16, vision_cfg=vision, text_cfg=text).eval().requires_grad_(False)
    other: ReAttn = build(ClipVit(short.visual), "reattnclip").encoder
    assert max(other.compared) <= 3
    assert max(other.middle) <= 2
    assert "of 4 for (6, 7, 8, 9)" in other.notes[0]
    assert other(_pixels(32, 48)).patches.isfinite().all()


def test_a_patch_may_be_kept_from_counting_itself(encoder: ReAttn) -> None:
    tokens = torch.randn(1, 6, 24, generator=torch.Generator().manual_seed(0))
    apart = replace(encoder, exclude_self=True).similarity(tokens)
    assert (apart.diagonal(dim1=1, dim2=2) == 0).all()
    whole = encoder.similarity(tokens)
    expected = whole * (1 - torch.eye(6))
    torch.testing.assert_close(apart, expected / expected.sum(-1, keepdim=True), rtol=1e-4, atol=1e-6)


def test_scores_have_the_class_tokens_share_taken_off(tiny_clip: open_clip.CLIP) -> None:
    vit = ClipVit(tiny_clip.visual)
    text = F.normalize(torch.randn(3, vit.dim, generator=torch.Generator().manual_seed(5)), dim=-1)
    pixels = _pixels(32, 32)
    plain, biased = (build(vit, "reattnclip", text, class_token_weight=w) for w in (0.0, -0.3))
    cls = plain.features(pixels).cls
    expected = plain.score(pixels) - 0.3 * cosines(cls, text)[:, :, None, None]
    torch.testing.assert_close(biased.score(pixels), expected)


def _own(encoder: ReAttn, x: torch.Tensor) -> torch.Tensor:
    q, k, _ = encoder.clip.qkv(encoder.clip.depth - 1, x)
    return (q @ k.mT / q.shape[-1] ** 0.5).softmax(-1).mean(1)


def test_without_its_parts_attention_is_the_last_blocks_own(encoder: ReAttn) -> None:
    none = replace(encoder, patches=False, class_row=False, zero_column=False)
    attention, x, _ = none.refined(_pixels(32, 40))
    torch.testing.assert_close(attention, _own(encoder, x))


@pytest.mark.parametrize("off", ["patches", "class_row", "zero_column"])
def test_each_part_alone_can_be_the_last_blocks_own(encoder: ReAttn, off: str) -> None:
    whole, x, _ = encoder.refined(_pixels(32, 40))
    found, own = replace(encoder, **{off: False}).refined(_pixels(32, 40))[0], _own(encoder, x)
    expected = whole.clone()
    if off == "class_row":
        expected[:, 0] = own[:, 0]
    elif off == "patches":
        expected[:, 1:, 1:] = own[:, 1:, 1:] / own[:, 1:, 1:].sum(-1, keepdim=True)
    else:
        expected[:, 1:, :1] = own[:, 1:, :1]
        expected[:, 1:, 1:] *= 1 - own[:, 1:, :1]
    torch.testing.assert_close(found, expected)
    torch.testing.assert_close(found.sum(-1), torch.ones(found.shape[:2]))


def test_the_blocks_that_are_compared_can_be_chosen(encoder: ReAttn) -> None:
    alone = [replace(encoder, compared_first=k, compared_count=1) for k in (0, 1)]
    both = replace(encoder, compared_first=0, compared_count=2)
    mean = sum(each._turned(_pixels(32, 32))[0] for each in alone) / 2
    torch.testing.assert_close(both._turned(_pixels(32, 32))[0], mean)


def test_middle_blocks_can_have_shares_of_their_own(encoder: ReAttn) -> None:
    """S ~ alpha S_rot + sum of beta_l A_l; equal shares are one beta."""
    pixels = _pixels(32, 32)
    same = "+".join(["0.2"] * len(encoder.middle))
    torch.testing.assert_close(
        replace(encoder, betas=same).refined(pixels)[0],
        replace(encoder, beta=0.2 * len(encoder.middle)).refined(pixels)[0],
    )
    similar, _, _, kept = encoder._turned(pixels)
    shares = [0.1 * n for n in range(1, len(kept) + 1)]
    between = encoder.alpha * similar + sum(b * a[:, 1:, 1:] for b, a in zip(shares, kept, strict=True))
    found = replace(encoder, betas="+".join(f"{b:g}" for b in shares)).refined(pixels)[0]
    torch.testing.assert_close(found[:, 1:, 1:], between / between.sum(-1, keepdim=True))


def test_as_many_shares_as_there_are_middle_blocks_are_asked_for(encoder: ReAttn) -> None:
    with pytest.raises(MethodError, match="is 2 numbers, and there are 4 middle blocks"):
        replace(encoder, betas="0.1+0.2")


def test_similarity_can_be_what_the_paper_prints(encoder: ReAttn) -> None:
    tokens = torch.rand(2, 5, encoder.clip.width, generator=torch.Generator().manual_seed(3))
    expected = torch.einsum("bnd,bmd->bnm", tokens, tokens) / encoder.clip.width**0.5
    torch.testing.assert_close(replace(encoder, literal=True).similarity(tokens), expected)
    alone = replace(encoder, literal=True, exclude_self=True).similarity(tokens)
    assert (alone.diagonal(dim1=1, dim2=2) == 0).all()


def test_a_part_that_is_off_can_be_as_in_segearth(encoder: ReAttn) -> None:
    none = replace(encoder, patches=False, class_row=False, zero_column=False, own="segearth")
    attention, x, _ = none.refined(_pixels(32, 40))
    q, k, v = encoder.clip.qkv(encoder.clip.depth - 1, x)
    mean = sum((t @ t.mT / t.shape[-1] ** 0.5).softmax(-1).mean(1) for t in (q, k, v)) / 3
    torch.testing.assert_close(attention, mean)
