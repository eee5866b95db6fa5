"""The best class at pixels, looked for only among those that can win: the same labels, whatever the number of classes.

A pixel between the centres of four cells has scores between theirs, so a class whose highest score there is below the
lowest of another one need not be computed. Most squares between centres are left with one to three classes.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

import torch
from torch import Tensor

from geoovseg.features.squares import Squares, by_products
from geoovseg.windows.plan import AT_ONCE

MARGIN = 1e-5
"""By which a score of about 1 may come out higher than those that it lies between, and more."""


class Corners(NamedTuple):
    """Of squares between the centres of cells: what the cells have, and the weights of the second of two."""

    fields: Tensor
    """(F, C, n + 1, m + 1)"""
    known: Tensor
    """(n + 1, m + 1)"""
    weight: Tensor
    """(side) of pixels of a square, the same downwards and to the right"""


def best_of(corners: Corners, own: Tensor | None) -> Tensor:
    """The class with the best score (n side, m side) at pixels of n x m squares.

    `own` (3, n side, m side) is how colours of pixels differ from those of cells, for a model that asks for it.
    """
    side, (rows, columns) = len(corners.weight), (length - 1 for length in corners.known.shape)
    inside = None if own is None else own.unflatten(2, (columns, side)).unflatten(1, (rows, side))
    known = _over(corners.known, torch.logical_and)
    high, count = _candidates(corners, known, inside)
    kind = torch.uint8 if len(high) < 256 else torch.int32
    found = high.argmax(0).to(kind)[:, None, :, None].expand(-1, side, -1, side).contiguous()
    for many, whole, *squares in _alike(count, known, len(high)):
        fields = 1 if by_products(many, whole, high.device.type) else len(corners.fields)
        step = max(1, 2 * AT_ONCE // (many * side * side * fields))
        for row, column in zip(*(each.split(step) for each in squares), strict=True):
            among = high[:, row, column].topk(many, 0).indices.sort(0).values
            here = None if inside is None else inside[:, row, :, column].transpose(0, 1)
            best = _squares(corners, row, column, among, here, whole).best()
            found[row, :, column, :] = among.T.gather(1, best.flatten(1)).unflatten(1, (side, side)).to(kind)
    return found.flatten(2).flatten(0, 1)


def _candidates(corners: Corners, whole: Tensor, own: Tensor | None) -> tuple[Tensor, Tensor]:
    """The most that a class can have in a square (C, n, m), and how many classes can win there (n, m).

    `whole` (n, m) tells of which squares all corners are known.
    """
    far = torch.finfo(corners.fields.dtype).max
    least = corners.fields[0 if own is None else -2]
    high = _over(torch.where(corners.known, corners.fields[-1], -far), torch.maximum)
    low = _over(torch.where(corners.known, least, far), torch.minimum)
    if own is not None:
        most, least = _between(corners.fields, own.amax((2, 4)), own.amin((2, 4)))
        high, low = torch.where(whole, most, high), torch.where(whole, least, low)
    margin = MARGIN * corners.fields.abs().amax().clamp_min(1)
    return high, (high >= low.max(0).values - margin).sum(0)


def _between(fields: Tensor, most: Tensor, least: Tensor) -> tuple[Tensor, Tensor]:
    """What a model can give at most, and at least, for colours that differ by so much from those of cells (3, n, m)."""
    high, low = (_over(fields[0], pick) for pick in (torch.maximum, torch.minimum))
    for channel in range(3):
        slopes = [_over(fields[1 + channel], pick) for pick in (torch.maximum, torch.minimum)]
        one, two, three, four = (slope * by[channel] for slope in slopes for by in (most, least))
        high += one.maximum(two).maximum(three.maximum(four))
        low += one.minimum(two).minimum(three.minimum(four))
    floor, top = ([_over(fields[n], pick) for pick in (torch.maximum, torch.minimum)] for n in (4, 5))
    return high.maximum(floor[0]).minimum(top[0]), low.minimum(top[1]).maximum(floor[1])


def _over(values: Tensor, pick: object) -> Tensor:
    """The most, or the least, of four corners."""
    assert callable(pick)
    down = pick(values[..., :-1, :], values[..., 1:, :])
    found: Tensor = pick(down[..., :-1], down[..., 1:])
    return found


def _alike(count: Tensor, whole: Tensor, classes: int) -> Iterator[tuple[int, bool, Tensor, Tensor]]:
    """Squares (rows, columns) with more than one class that can win, by how many are enough: 2, 3, 4, 6, 8, 12...

    And by whether all their corners are known.
    """
    enough = [1, 2]
    while enough[-1] < classes:
        enough.append(max(enough[-1] + 1, enough[-2] * 2))
    row, column = (count > 1).nonzero(as_tuple=True)
    level = torch.bucketize(count[row, column], torch.tensor(enough, device=count.device))
    kind = 2 * level + whole[row, column]
    order, sizes = kind.argsort(stable=True), kind.bincount(minlength=2 * len(enough)).tolist()
    for number, some in enumerate(order.split(sizes)):
        if len(some):
            yield min(enough[number // 2], classes), bool(number % 2), row[some], column[some]


def _squares(corners: Corners, row: Tensor, column: Tensor, among: Tensor, own: Tensor | None, whole: bool) -> Squares:
    """Some squares, with what their corners have of some classes (K, S); `whole` is whether all of these are known."""
    four = [(row + down, column + right) for down in (0, 1) for right in (0, 1)]
    fields = torch.stack([corners.fields[:, among, r, c] for r, c in four])
    known = None if whole else torch.stack([corners.known[r, c] for r, c in four])
    return Squares(fields, known, corners.weight, own)
