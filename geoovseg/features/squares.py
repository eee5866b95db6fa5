"""The best of a few classes at the pixels of squares between the centres of cells."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from geoovseg.ops.guided import at_pixels
from geoovseg.ops.upsample import mixed

CLOSE = 1e-5
"""More than a score of about 1 may differ by the way it is computed."""
MANY = 4
"""Classes from which on products of matrices are faster."""


class Squares(NamedTuple):
    """Squares (S), what the cells at their corners have of some classes (K), and their pixels."""

    corners: Tensor
    """(4, F, K, S): above left and right, then below"""
    known: Tensor | None
    """(4, S) where any window was, unless that is everywhere"""
    weight: Tensor
    """(side) of the second of two corners at pixels, the same downwards and to the right"""
    own: Tensor | None
    """(3, S, side, side) how colours of pixels differ from those of cells, for a model that asks for it"""

    def best(self) -> Tensor:
        """Which class has the best score (S, side, side); of equal ones the first."""
        if by_products(self.corners.shape[2], self.known is None, self.corners.device.type):
            return self._best_by_products()
        return self._scores().max(0).indices

    def _best_by_products(self) -> Tensor:
        """The same, of scores that are nearly right, and of right ones where some come close to the best."""
        side, classes = len(self.weight), self.corners.shape[2]
        scores = self._nearly()
        close = scores.ge_(scores.amax(1, keepdim=True) - CLOSE * self.corners.abs().amax().clamp_min(1))
        numbers = torch.arange(classes, dtype=scores.dtype, device=scores.device)
        count, which = (torch.stack([torch.ones_like(numbers), numbers]) @ close).unbind(1)
        best = which.long()
        square, pixel = (count != 1).nonzero(as_tuple=True)  # 0 where scores are no numbers
        if 4 * len(square) > best.numel():
            return self._scores().max(0).indices
        step = max(1, scores.numel() // (classes * len(self.corners[0])))
        for some, here in zip(square.split(step), pixel.split(step), strict=True):
            best[some, here] = self._scores_at(some, here.div(side, rounding_mode="floor"), here % side).max(0).indices
        return best.unflatten(1, (side, side))

    def _nearly(self) -> Tensor:
        """Scores (S, K, side side) but for what rounding does, where all corners are known."""
        ends = torch.stack([1 - self.weight, self.weight]).to(self.corners.dtype)
        shares = (ends[:, None, :, None] * ends[None, :, None, :]).flatten(2).flatten(0, 1)  # of corners at pixels
        fields = self.corners.permute(1, 3, 2, 0)
        if self.own is None:
            return fields[0] @ shares
        seen = self.own.transpose(0, 1).flatten(2)
        seen = torch.cat([torch.ones_like(seen[:, :1]), seen], 1)
        found = fields[:4].permute(1, 2, 0, 3).flatten(2) @ (seen[:, :, None] * shares).flatten(1, 2)
        torch.maximum(found, fields[4] @ shares, out=found)
        return torch.minimum(found, fields[5] @ shares, out=found)

    def _scores(self) -> Tensor:
        """Scores (K, S, side, side)."""
        down, right = self.weight[:, None], self.weight
        fields = _mixed(self.corners[..., None, None], down, right)
        if self.known is not None:
            shares = _mixed(self.known.to(fields.dtype)[..., None, None], down, right)
            whole = fields / shares.clamp_min(torch.finfo(shares.dtype).tiny)
            fields = torch.where(self.known.all(0)[:, None, None], fields, whole)
        return fields[0] if self.own is None else at_pixels(fields, self.own)

    def _scores_at(self, square: Tensor, row: Tensor, column: Tensor) -> Tensor:
        """Scores (K, P) at some pixels of squares whose corners are known."""
        fields = _mixed(self.corners[..., square], self.weight[row], self.weight[column])
        return fields[0] if self.own is None else at_pixels(fields, self.own[:, square, row, column])


def by_products(classes: int, whole: bool, device: str) -> bool:
    """Whether products of matrices tell the best of so many classes, in squares whose corners are all known or not.

    They take less memory than scores by the way of all classes, which have all fields of the model at pixels.
    """
    return whole and classes >= MANY and _exact(device)


def _exact(device: str) -> bool:
    """Whether products of float32 are not shortened, as somebody may have told torch to."""
    if torch.is_autocast_enabled(device):
        return False
    backend = getattr(torch.backends, "cuda" if device == "cuda" else "mkldnn")
    said = [getattr(of, "fp32_precision", "") for of in (getattr(backend, "matmul", None), backend, torch.backends)]
    if not said[0]:  # before torch 2.9
        return torch.get_float32_matmul_precision() == "highest"
    return next((each for each in said if each not in ("", "none")), "ieee") == "ieee"


def _mixed(corners: Tensor, down: Tensor, right: Tensor) -> Tensor:
    """Values at pixels between corners (4, ...); products and sums as for whole rows of pixels."""
    left, beside = (mixed(corners[n], corners[n + 2], down) for n in (0, 1))
    return mixed(left, beside, right)
