"""Where things of a demo scene are, pixel by pixel: what is drawn and how it is painted both go by this."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from geoovseg.demo.noise import Field, Index


@dataclass(frozen=True)
class Block:
    """For every pixel, the block between streets it lies in, and where in it."""

    row: Index
    col: Index
    x: Field
    """metres from the block's left street line"""
    y: Field
    width: Field
    height: Field
    use: Index

    def inset(self, margin: float) -> NDArray[np.bool_]:
        """Pixels at least `margin` metres from all four street lines."""
        return (self.x > margin) & (self.y > margin) & (self.width - self.x > margin) & (self.height - self.y > margin)


@dataclass(frozen=True)
class Roof:
    """Where roofs are, and what is needed to paint them."""

    there: NDArray[np.bool_]
    ridge: Field
    """signed distance from the ridge, in units of the roof's half depth"""
    tone: Field
    flat: NDArray[np.bool_]
