"""The verbs put together are the upstream tower, and take any patch size and grid."""

from __future__ import annotations

import open_clip
import pytest
import torch
from torch import nn
from torch.nn import functional as F

from geoovseg.errors import ModelError
from geoovseg.models.vit import CLIP_MEAN, CLIP_STD, ClipVit, Positions


def _normalised(pixels: torch.Tensor) -> torch.Tensor:
    return (pixels - torch.tensor(CLIP_MEAN).view(1, 3, 1, 1)) / torch.tensor(CLIP_STD).view(1, 3, 1, 1)


def _tower(**changes: object) -> open_clip.CLIP:
    torch.manual_seed(3)
    vision = {"image_size": 32, "layers": 3, "width": 24, "head_width": 8, "patch_size": 8, **changes}
    text = {"context_length": 8, "vocab_size": 16, "width": 8, "heads": 1, "layers": 1}
    return open_clip.CLIP(16, vision, text, quick_gelu=bool(changes.get("ls_init_value"))).eval().requires_grad_(False)


@pytest.mark.parametrize("changes", [{}, {"ls_init_value": 0.5}, {"no_ln_pre": True}, {"patch_size": 4}])
def test_blocks_walked_one_by_one_equal_the_towers_own_forward(changes: dict[str, object]) -> None:
    model = _tower(**changes)
    vit, pixels = ClipVit(model.visual), torch.rand(2, 3, 32, 32)
    x, _ = vit.embed(pixels)
    for i in range(vit.depth):
        x = vit.block(i, x)
    torch.testing.assert_close(vit.readout(x)[:, 0], model.visual(_normalised(pixels)), rtol=1e-5, atol=2e-6)


@pytest.mark.parametrize(("height", "width", "grid"), [(32, 32, (4, 4)), (40, 64, (5, 8)), (37, 50, (4, 6))])
def test_any_size_gives_its_grid(tiny_vit: ClipVit, height: int, width: int, grid: tuple[int, int]) -> None:
    x, found = tiny_vit.trunk(torch.rand(1, 3, height, width))
    assert found == grid
    assert x.shape == (1, 1 + grid[0] * grid[1], tiny_vit.width)


def test_positions_are_resized_with_the_released_scale_factor(tiny_vit: ClipVit) -> None:
    table = tiny_vit.visual.positional_embedding
    patches = table[1:].T.reshape(1, -1, 4, 4)
    scale = ((5 + 0.1) / 4, (8 + 0.1) / 4)
    expected = F.interpolate(patches, scale_factor=scale, mode="bicubic", align_corners=False)
    plain = F.interpolate(patches, size=(5, 8), mode="bicubic", align_corners=False)
    found = tiny_vit.positions((5, 8))
    torch.testing.assert_close(found[1:], expected[0].flatten(1).T)
    torch.testing.assert_close(found[:1], table[:1])
    assert not torch.allclose(found[1:], plain[0].flatten(1).T, atol=1e-4)


@pytest.mark.parametrize(("rule", "antialias"), [("size", False), ("antialias", True)])
def test_other_releases_resize_positions_to_the_plain_size(tiny_vit: ClipVit, rule: Positions, antialias: bool) -> None:
    table = tiny_vit.visual.positional_embedding
    patches = table[1:].T.reshape(1, -1, 4, 4)
    expected = F.interpolate(patches, size=(3, 8), mode="bicubic", align_corners=False, antialias=antialias)
    torch.testing.assert_close(tiny_vit.positions((3, 8), rule)[1:], expected[0].flatten(1).T)


def test_as_many_tokens_as_in_training_keep_the_table_but_for_gem(tiny_vit: ClipVit) -> None:
    table = tiny_vit.visual.positional_embedding
    assert torch.equal(tiny_vit.positions((2, 8)), table)
    assert torch.equal(tiny_vit.positions((2, 8), "size"), table)
    assert not torch.equal(tiny_vit.positions((2, 8), "antialias"), table)
    assert torch.equal(tiny_vit.positions((4, 4), "antialias"), table)


def test_padding_is_right_and_below_and_nothing_when_normalised(tiny_vit: ClipVit) -> None:
    pixels = torch.rand(2, 3, 13, 24)
    padded = tiny_vit.normalise(tiny_vit.pad(pixels))
    assert padded.shape == (2, 3, 16, 24)
    assert torch.equal(padded[:, :, :13], tiny_vit.normalise(pixels))
    assert (padded[:, :, 13:] == 0).all()


def test_the_tower_is_left_as_it_was(tiny_clip: open_clip.CLIP) -> None:
    before = {k: v.clone() for k, v in tiny_clip.visual.state_dict().items()}
    vit = ClipVit(tiny_clip.visual)
    for _ in range(3):
        vit.trunk(torch.rand(1, 3, 32, 40))
    assert all(torch.equal(v, before[k]) for k, v in tiny_clip.visual.state_dict().items())
    assert not any(m._forward_hooks or m._forward_pre_hooks for m in tiny_clip.visual.modules())


def test_other_towers_are_refused_by_name() -> None:
    with pytest.raises(ModelError, match="ResNet-like has no conv1|Sequential.*has no"):
        ClipVit(nn.Sequential(nn.Linear(3, 3)))


def test_no_gradient_of_the_position_table_is_lost_in_training() -> None:
    model = _tower()
    model.visual.requires_grad_(True)
    vit = ClipVit(model.visual)
    for _ in range(2):
        vit.trunk(torch.rand(1, 3, 40, 40))[0].sum().backward()
    assert model.visual.positional_embedding.grad is not None
