"""From patches to pixels."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from scipy.ndimage import correlate1d

from geoovseg.ops.guided import RIDGE, SHARE
from geoovseg.ops.upsample import UPSAMPLERS, bilinear, guided


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
    scores = torch.tensor([0.0, 0.375, 1.0, 1.0]).expand(1, 1, 4, 4)
    row, plain = guided(scores, pixels)[0, 0, 16], bilinear(scores, pixels)[0, 0, 16]
    assert row[12] < plain[12] < 0.5 < row[13]
    assert row[13] - row[12] > 3 * (plain[13] - plain[12])


def test_guided_without_colour_is_bilinear() -> None:
    scores = torch.rand(1, 2, 5, 4)
    grey = torch.full((1, 3, 40, 32), 0.4)
    torch.testing.assert_close(guided(scores, grey), bilinear(scores, grey), rtol=0, atol=1e-6)


def test_guided_equals_its_formula() -> None:
    """At one pixel inside, by hand: least squares with a ridge over 5 x 5 cells, between four of them."""
    rng = np.random.default_rng(0)
    scores, pixels = rng.random((6, 7)), rng.random((3, 48, 56))
    sigma = 1.0
    taps = np.exp(-(np.arange(-2, 3) ** 2) / (2 * sigma**2))
    smooth, weight = pixels, np.ones_like(pixels)  # beyond the edge is nothing
    for axis in (1, 2):
        smooth, weight = (correlate1d(each, taps, axis=axis, mode="constant") for each in (smooth, weight))
    smooth = smooth / weight
    cells = smooth.reshape(3, 6, 8, 7, 8).mean(axis=(2, 4))
    around = np.pad(scores, 2, mode="edge"), np.pad(cells, ((0, 0), (2, 2), (2, 2)), mode="edge")

    def slope(row: int, col: int) -> np.ndarray:
        here = (
            around[0][row : row + 5, col : col + 5].ravel(),
            around[1][:, row : row + 5, col : col + 5].reshape(3, 25),
        )
        colours = here[1] - here[1].mean(1, keepdims=True)
        return np.linalg.solve(colours @ colours.T / 25 + RIDGE * np.eye(3), colours @ (here[0] - here[0].mean()) / 25)

    y, x = 21, 34  # between the centres of rows 2 and 3 and of columns 3 and 4
    down, right = (y + 0.5) / 8 - 0.5 - 2, (x + 0.5) / 8 - 0.5 - 3
    weights = {
        (2, 3): (1 - down) * (1 - right),
        (2, 4): (1 - down) * right,
        (3, 3): down * (1 - right),
        (3, 4): down * right,
    }
    expected = sum(w * scores[at] for at, w in weights.items())
    own = smooth[:, y, x] - sum(w * cells[(slice(None), *at)] for at, w in weights.items())
    expected += SHARE * own @ sum(w * slope(*at) for at, w in weights.items())
    near = np.pad(scores, 1, mode="edge")
    bounds = [sum(w * pick(near[r : r + 3, c : c + 3]) for (r, c), w in weights.items()) for pick in (np.min, np.max)]
    found = guided(torch.from_numpy(scores[None, None]), torch.from_numpy(pixels[None]))[0, 0, y, x]
    np.testing.assert_allclose(found, np.clip(expected, *bounds), rtol=1e-6)
