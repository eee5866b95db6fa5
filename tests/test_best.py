"""The best class at pixels, looked for among those that can win, is that of all scores."""

from __future__ import annotations

import pytest
import torch

from geoovseg.features.best import Corners, best_of
from geoovseg.features.pixels import between
from geoovseg.features.squares import Squares
from geoovseg.ops.guided import at_pixels

SIDE = 4
WEIGHT = between((SIDE // 2, SIDE // 2 + SIDE), SIDE, 9, "cpu").weight


def _alike(score: float, slope: float, least: float, most: float) -> list[float]:
    """What a class has everywhere: it follows red, within limits."""
    return [score, slope, 0.0, 0.0, least, most]


@pytest.mark.parametrize(
    ("one", "other", "best"),
    [
        (_alike(0.5, -1, 0.5, 0.6), _alike(0.4, 0, 0.4, 0.4), 0),  # 0.2 by its colour, but not less than 0.5
        (_alike(0.5, 1, 0.4, 0.5), _alike(0.6, 0, 0.6, 0.6), 1),  # 0.8 by its colour, but not more than 0.5
    ],
)
def test_limits_of_scores_decide_before_colours(one: list[float], other: list[float], best: int) -> None:
    fields = torch.tensor([one, other]).T[..., None, None].expand(-1, -1, 2, 2)
    own = torch.zeros(3, SIDE, SIDE)
    own[0] = 0.3
    assert at_pixels(fields[..., 0, 0], own[:, 0, 0]).argmax() == best
    assert (best_of(Corners(fields, torch.ones(2, 2, dtype=torch.bool), WEIGHT), own) == best).all()


@pytest.mark.parametrize("classes", [4, 5, 17, 48])
@pytest.mark.parametrize("guided", [False, True], ids=["bilinear", "guided"])
def test_products_choose_as_scores_do(classes: int, guided: bool) -> None:
    """Also of classes that are equal, where the first one counts, and of those that differ in the last digits."""
    rng = torch.Generator().manual_seed(classes)
    corners = torch.randn(4, 6 if guided else 1, classes, 900, generator=rng) * 0.05
    corners[:, :, 1] = corners[:, :, 0]
    corners[:, :, 3] = corners[:, :, 2] * (1 + 2e-7)
    own = torch.randn(3, 900, SIDE, SIDE, generator=rng) * 0.1 if guided else None
    squares = Squares(corners, None, WEIGHT, own)
    expected = squares._scores().max(0).indices
    assert len(expected.unique()) >= classes - 2
    assert torch.equal(squares.best(), expected)
