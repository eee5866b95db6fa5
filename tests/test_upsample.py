"""From patches to pixels."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from geoovseg.ops.upsample import RADIUS, SIGMA_COLOUR, SIGMA_SPACE, UPSAMPLERS, guided


@pytest.mark.parametrize("name", UPSAMPLERS)
@pytest.mark.parametrize("shape", [(4, 6), (1, 1), (3, 1)])
def test_constant_scores_stay_constant(name: str, shape: tuple[int, int]) -> None:
    pixels = torch.rand(2, 3, shape[0] * 8, shape[1] * 8, generator=torch.Generator().manual_seed(2))
    out = UPSAMPLERS[name](torch.full((2, 3, *shape), 0.3), pixels)
    assert out.shape == (2, 3, *pixels.shape[-2:])
    torch.testing.assert_close(out, torch.full_like(out, 0.3), rtol=0, atol=1e-6)


@pytest.mark.parametrize("name", UPSAMPLERS)
def test_results_stay_within_the_scores(name: str) -> None:
    scores = torch.rand(1, 2, 5, 4)
    out = UPSAMPLERS[name](scores, torch.rand(1, 3, 40, 32))
    assert out.min() >= scores.min() - 1e-6
    assert out.max() <= scores.max() + 1e-6


def test_guided_edges_follow_the_picture() -> None:
    """A step at pixel 13, inside the second of four cells: guided puts the edge there, bilinear between cells."""
    pixels = torch.zeros(1, 3, 32, 32)
    pixels[..., 13:] = 1
    scores = torch.tensor([0.0, 0.4, 1.0, 1.0]).expand(1, 1, 4, 4)
    row = guided(scores, pixels)[0, 0, 16]
    assert row[:13].max() < 0.5 < row[13:].min()


def test_guided_equals_its_formula() -> None:
    rng = np.random.default_rng(0)
    scores, pixels = rng.random((1, 1, 3, 4)), rng.random((1, 3, 12, 16))
    out = guided(torch.from_numpy(scores), torch.from_numpy(pixels))
    cells = pixels.reshape(3, 3, 4, 4, 4).mean(axis=(2, 4))
    y, x = 5, 9
    above = below = 0.0
    for dy in range(-RADIUS, RADIUS + 1):
        for dx in range(-RADIUS, RADIUS + 1):
            r, c = min(max(y // 4 + dy, 0), 2), min(max(x // 4 + dx, 0), 3)
            space = ((y + 0.5) / 4 - r - 0.5) ** 2 + ((x + 0.5) / 4 - c - 0.5) ** 2
            colour = ((pixels[0, :, y, x] - cells[:, r, c]) ** 2).sum()
            weight = np.exp(-space / (2 * SIGMA_SPACE**2) - colour / (2 * SIGMA_COLOUR**2))
            above, below = above + weight * scores[0, 0, r, c], below + weight
    np.testing.assert_allclose(out[0, 0, y, x], above / below, rtol=1e-6)
