"""ReSeg-CLIP: region maps, masks, tokens and labels equal the release."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import open_clip
import pytest
import torch
from golden_cases import Case, assert_close, build, case_id, find
from torch.nn import functional as F
from windows import random_batch

from geoovseg.errors import MethodError
from geoovseg.methods import read_settings
from geoovseg.methods.blocks import Cut
from geoovseg.methods.dense import cosines
from geoovseg.methods.published import Protocol
from geoovseg.methods.releases import starts
from geoovseg.methods.resegclip import ReSegClip, plan_of, region_bias, sets_of, shares_at_pixels
from geoovseg.models.masks import MaskSet
from geoovseg.models.vit import ClipVit
from geoovseg.ops.regions import painted, patch_ids
from geoovseg.windows.batch import TileBatch


def _method(case: Case, **settings: Any) -> ReSegClip:
    """The case's plan: its own numbers of blocks with regions and without, each with a set of its own."""
    hyper = case.meta["hyperparameters"]
    method: ReSegClip = build(case.vit, "resegclip", case.inputs["text"], regions="none", **settings)
    method.plan = (*range(hyper["num_sam_attention_layers"]), *([None] * hyper["num_neighbor_attention_layers"]))
    return method


def _maps(case: Case, prefix: str) -> torch.Tensor:
    """Maps (1, sets, H, W) painted from the masks of a tile."""
    count, side = len(case.meta["hyperparameters"]["sam_param_sets"]), case.meta["hyperparameters"]["tile"]
    sets = [case.inputs[f"{prefix}s{n}"].bool().numpy() for n in range(count)]
    return torch.from_numpy(np.stack([painted(list(masks), (side, side)) for masks in sets]))[None]


@pytest.mark.golden
@pytest.mark.parametrize("case", find("reseg_masks"), ids=case_id)
def test_masks_equal_the_release(case: Case) -> None:
    hyper = case.meta["hyperparameters"]
    maps = _maps(case, "seg.")
    free = hyper["num_initial_layers"]
    patches = (hyper["tile"] // hyper["patch_size"]) ** 2
    for n in range(maps.shape[1]):
        ids = patch_ids(maps[:, n], hyper["patch_size"])
        torch.testing.assert_close(maps[0, n], case.outputs[f"label_map.s{n}"])
        torch.testing.assert_close(ids[0].int(), case.outputs[f"patch_ids.s{n}"])
        banned = region_bias(ids.flatten(1), torch.float32)[0, 0] == -torch.inf
        assert torch.equal(banned, case.outputs[f"mask.l{free + n}"].bool())
    alone = region_bias(torch.arange(patches)[None], torch.float32)[0, 0] == -torch.inf
    for n in range(free + maps.shape[1], free + maps.shape[1] + hyper["num_neighbor_attention_layers"]):
        assert torch.equal(alone, case.outputs[f"mask.l{n}"].bool())
    assert not any(case.outputs[f"mask.l{n}"].any() for n in range(free))


@pytest.mark.golden
@pytest.mark.parametrize("case", find("reseg_dense"), ids=case_id)
def test_tokens_and_scores_equal_the_release(case: Case) -> None:
    method, hyper, limits = _method(case), case.meta["hyperparameters"], case.meta["tolerance"]
    free, depth = hyper["num_initial_layers"], case.vit.depth
    banned = [case.inputs[f"mask.l{n}"].bool() for n in range(free, depth)]
    biases = [torch.zeros(b.shape).masked_fill(b, -torch.inf)[None, None] for b in banned]
    pixels = case.inputs["pixels"] * case.vit._std + case.vit.mean
    tokens, grid = method.tokens(pixels, biases)
    patches, text, size = tokens[:, 1:], case.inputs["text"], (hyper["tile"], hyper["tile"])
    similar = cosines(patches, text)
    on_grid = similar.mT.unflatten(2, grid)
    assert_close(tokens[0], case.outputs["tokens"], limits)
    assert_close(similar[0], case.outputs["patch_cos"], limits)
    up = F.interpolate(on_grid, size=size, mode="bilinear", align_corners=False)
    assert_close(up[0], case.outputs["cos_up"], limits)
    shares = shares_at_pixels(patches.mT.unflatten(2, grid), text, size)
    assert_close(shares[0].movedim(0, -1), case.outputs["tile_probs"], limits)


@pytest.mark.golden
@pytest.mark.parametrize("case", find("reseg_infer"), ids=case_id)
def test_images_get_the_labels_of_the_release(case: Case) -> None:
    """Windows that hang over are filled up with black and cut back, as the script does."""
    method, hyper = _method(case, output="code"), case.meta["hyperparameters"]
    side, image = hyper["tile"], case.inputs["image"].permute(2, 0, 1)[None].float() / 255
    height, width = image.shape[2:]
    total = torch.zeros(len(case.inputs["text"]), height, width, dtype=torch.float64)
    count = torch.zeros(height, width)
    for n, (row, col) in enumerate(case.meta["windows"]):
        window = torch.zeros(1, 3, side, side)
        cut = image[..., row : row + side, col : col + side]
        window[..., : cut.shape[2], : cut.shape[3]] = cut
        shares = method.see(window, _maps(case, f"seg.t{n}."))[0, :, : cut.shape[2], : cut.shape[3]]
        total[:, row : row + side, col : col + side] += shares
        count[row : row + side, col : col + side] += 1
    shares = total / count
    expected = case.outputs["final_probs"].movedim(-1, 0)
    limits = {k: case.meta["tolerance"][k] for k in ("atol", "rtol")}
    assert_close(shares.to(expected.dtype), expected, limits)
    top = expected.topk(2, dim=0).values
    sure = top[0] - top[1] > 1e-5
    best = shares.argmax(0)
    assert torch.equal(best[sure], case.outputs["query_pred"][sure])
    assert set(case.outputs) <= {"final_probs", "query_pred", "class_pred"}
    if "class_pred" in case.outputs:
        classes = case.inputs["query_class"][best]
        assert torch.equal(classes[sure], case.outputs["class_pred"][sure])


def test_the_last_quarter_of_a_tower_has_masks() -> None:
    assert plan_of(24, "code") == (0, 1, 2, 3, None, None)
    assert plan_of(24, "paper") == (3, 2, 1, 0, None, None)
    assert plan_of(12, "code") == (0, 3, None)
    assert len(plan_of(32, "code")) == 8
    assert plan_of(24, "code", 3) == (0, 3, None)
    assert plan_of(24, "code", 1) == (0,)
    assert plan_of(24, "code", 0) == plan_of(12, "paper", 0) == ()
    assert [len(plan_of(24, "code", last)) for last in (12, 18, 24)] == [12, 18, 24]


def test_without_masks_it_is_clip_itself(tiny_clip: open_clip.CLIP) -> None:
    """No block is held to regions, so that whatever these are, features are those of the tower as trained."""
    vit = ClipVit(tiny_clip.visual)
    pixels = torch.rand(1, 3, 32, 32, generator=torch.Generator().manual_seed(3))
    x, _ = vit.embed(pixels)
    for i in range(vit.depth):
        x = vit.block(i, x)
    method = build(vit, "resegclip", regions="none", layers=0)
    found = method.unit_features(pixels, torch.zeros(1, 1, 32, 32, dtype=torch.long))
    torch.testing.assert_close(found.flatten(2).mT, F.normalize(vit.readout(x)[:, 1:], dim=-1))


def test_sets_can_be_others_and_more() -> None:
    published = sets_of(str(read_settings("resegclip", {})["sets"]))
    assert [(s.points, s.quality, s.stability, s.area) for s in published] == [
        (4, 0.5, 0.5, 500), (2, 0.6, 0.6, 500), (2, 0.5, 0.5, 1000), (2, 0.5, 0.5, 2000),
    ]  # fmt: skip
    assert sets_of("7/0.9/0.8/30") == (MaskSet(points=7, quality=0.9, stability=0.8, area=30, crops=1, shrink=2),)
    assert plan_of(24, "code", 6, 2) == (0, 0, 1, 1, None, None)
    assert plan_of(24, "paper", 6, 1) == (0, 0, 0, 0, None, None)
    with pytest.raises(MethodError, match="sets=4/2/0.5/500 is not as in 4/0.5/0.5/500"):
        read_settings("resegclip", {"sets": "4/2/0.5/500"})


def test_shares_can_be_averaged_over_windows_as_the_paper_says(tiny_vit: ClipVit) -> None:
    """Softmax of `scale` cosines at pixels in every window, then their mean."""
    text = F.normalize(torch.randn(3, 16, generator=torch.Generator().manual_seed(5)), dim=-1)
    batch, flat = random_batch(1, 40, 40), lambda batch, sets, tile=0: np.ones((1, len(sets), 40, 40), np.int32)
    cut = Cut(window=32, stride=8, block=64)
    plain, shares = (
        build(tiny_vit, "resegclip", text, regions=flat, cut=cut, average=a) for a in ("cosines", "shares")
    )
    assert (plain.unit, shares.unit, shares.cell) == ("cosine", "probability", 0)
    total, count = torch.zeros(1, 3, 40, 40), torch.zeros(40, 40)
    for row, col in [(r, c) for r in (0, 8) for c in (0, 8)]:
        box = (..., slice(row, row + 32), slice(col, col + 32))
        ids = torch.ones(1, len(plain.sets), 32, 32, dtype=torch.int32)
        total[box] += (50 * plain.see(torch.from_numpy(batch.pixels[box]), ids)).softmax(1)
        count[box] += 1
    torch.testing.assert_close(shares.scores(batch), total / count)


def test_a_single_class_has_a_share_of_one(tiny_vit: ClipVit) -> None:
    text = F.normalize(torch.randn(1, 16), dim=-1)
    for output in ("code", "paper"):
        method = build(tiny_vit, "resegclip", text, regions=_one_region, output=output)
        scores = method.scores(random_batch(1, 32, 32))
        assert scores.shape == (1, 1, 32, 32)
        assert scores.isfinite().all()
        assert output == "paper" or (scores == 1).all()


def _one_region(batch: TileBatch, sets: Sequence[MaskSet], tile: int = 0) -> np.ndarray:
    return np.ones((len(batch), len(sets), *batch.valid.shape[1:]), np.int32)


def test_windows_of_the_release_start_at_whole_strides_and_hang_over() -> None:
    protocol = Protocol(crop=224, stride=50)
    assert list(starts(300, protocol)) == [0, 50, 100]
    assert list(starts(224, protocol)) == [0]
    assert list(starts(100, protocol)) == [0]
