"""Refinement of scores by colour."""

from __future__ import annotations

import torch
from torch.nn import functional as F

from geoovseg.ops.pamr import affinity, pamr


def test_constant_scores_stay_constant() -> None:
    image, scores = torch.rand(2, 3, 20, 30), torch.full((2, 4, 20, 30), 0.7)
    torch.testing.assert_close(pamr(image, scores), scores, rtol=0, atol=1e-5)


def test_affinities_equal_their_formula() -> None:
    image = torch.rand(1, 3, 9, 8, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    found = affinity(image, (1, 2))
    row, col = 4, 3
    near = [
        image[0, :, min(max(row + d * y, 0), 8), min(max(col + d * x, 0), 7)]
        for d in (1, 2) for y in (-1, 0, 1) for x in (-1, 0, 1) if (y, x) != (0, 0)
    ]  # fmt: skip
    own = image[0, :, row, col]
    std = torch.stack([*near, own, own]).std(0)
    logits = torch.stack([(-(own - n).abs() / (1e-8 + 0.1 * std)).mean() for n in near])
    torch.testing.assert_close(found[0, :, row, col], logits.softmax(0))


def test_scores_spread_within_a_colour_and_not_across() -> None:
    image = torch.zeros(1, 3, 16, 16)
    image[..., 8:] = 1
    scores = torch.zeros(1, 1, 16, 16)
    scores[0, 0, 8, 2] = 1
    found = pamr(image, scores, steps=5, dilations=(1, 2))[0, 0]
    assert found[:, :8].sum() > 50 * found[:, 8:].sum()
    assert found[8, 2] < 1


def test_coarse_scores_are_first_resized() -> None:
    image, scores = torch.rand(1, 3, 16, 12), torch.rand(1, 2, 4, 3)
    fine = F.interpolate(scores, size=(16, 12), mode="bilinear", align_corners=True)
    torch.testing.assert_close(pamr(image, scores, steps=2), pamr(image, fine, steps=2))
