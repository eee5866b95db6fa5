"""The best class at pixels, looked for among those that can win, is that of all scores."""

from __future__ import annotations

import pytest
import torch

from geoovseg.features.best import Corners, _squares, best_of
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


@pytest.mark.parametrize("classes", [3, 9, 60])
@pytest.mark.parametrize("guided", [False, True], ids=["bilinear", "guided"])
def test_cells_that_are_not_known_leave_the_best_of_the_others(classes: int, guided: bool) -> None:
    rng = torch.Generator().manual_seed(classes)
    known = torch.rand(9, 12, generator=rng) > 0.2
    scores = torch.randn(classes, 9, 12, generator=rng) * 0.05
    fields = scores[None]
    if guided:
        fields = torch.cat([fields, torch.randn(3, classes, 9, 12, generator=rng) * 0.1, fields - 0.05, fields + 0.05])
    fields = torch.where(known, fields, 0)
    own = torch.randn(3, 8 * SIDE, 11 * SIDE, generator=rng) * 0.1 if guided else None
    corners = Corners(fields, known, WEIGHT)
    row, column = (each.flatten() for each in torch.meshgrid(torch.arange(8), torch.arange(11), indexing="ij"))
    every = torch.arange(classes)[:, None].expand(-1, 88)
    inside = (
        None if own is None else own.unflatten(2, (11, SIDE)).unflatten(1, (8, SIDE))[:, row, :, column].transpose(0, 1)
    )
    expected = _squares(corners, row, column, every, inside, False)._scores().max(0).indices
    found = best_of(corners, own).unflatten(1, (11, SIDE)).unflatten(0, (8, SIDE))[row, :, column]
    seen = torch.stack([known[:-1, :-1], known[:-1, 1:], known[1:, :-1], known[1:, 1:]]).any(0).flatten()
    assert torch.equal(found[seen].long(), expected[seen])


@pytest.mark.parametrize("offset", [20.0, 1000.0])
def test_large_offsets_leave_the_best(offset: float) -> None:
    corners = torch.randn(4, 6, 12, 500, generator=torch.Generator().manual_seed(1)) * 0.05
    corners[:, (0, 4, 5)] += offset
    squares = Squares(corners, None, WEIGHT, torch.randn(3, 500, SIDE, SIDE) * 0.1)
    assert torch.equal(squares.best(), squares._scores().max(0).indices)


def test_products_are_not_taken_where_torch_shortens_them() -> None:
    corners = torch.randn(4, 1, 900, 20) * 0.05
    squares = Squares(corners, None, WEIGHT, None)
    expected = squares._scores().max(0).indices
    torch.set_float32_matmul_precision("medium")
    try:
        assert torch.equal(squares.best(), expected)
    finally:
        torch.set_float32_matmul_precision("highest")
    with torch.autocast("cpu", torch.bfloat16):
        assert torch.equal(squares.best(), expected)
