"""How much memory a run takes beside its model, and how wide a panel may be. Nothing here loads torch."""

from __future__ import annotations

import math
import warnings
from dataclasses import dataclass
from itertools import pairwise

from geoovseg.errors import GeoOVSegWarning
from geoovseg.windows.plan import AT_ONCE, BAND, BLOCK, TilePlan

CPU_BATCH = 8
"""On a CPU the towers always see exactly this many windows, which makes results independent of what shares a batch."""


@dataclass(frozen=True)
class Load:
    """What decides the memory of a run besides its model."""

    plan: TilePlan
    channels: int
    """of the blend: classes and background"""
    at_once: int
    """of a batch at pixel resolution: the words, where they are not merged before"""
    batch: int
    method: float = 0.0
    """bytes that the method itself needs for a tile"""
    cell: int = 0
    """pixels on a side of what has one vector of features, where these are blended"""
    depth: int = 0
    """numbers of a vector"""
    reach: int = 0
    """cells on every side from which it is learned how scores follow colours, if they do"""
    scored: int = 0
    """bands of scores that are written"""
    regions: bool = False
    """whether regions of pixels are held"""
    votes: int = 0
    """shares of a pixel that are held beside, where regions vote, for which all pixels of a window's core are"""
    wide: float = 1.0
    """columns of the outputs for each that models see; more rows are then made of finished ones"""

    def nbytes(self, width: int) -> float:
        """Memory of a panel of `width` columns.

        The strip, one channel while it scrolls and bands of finished rows grow with the width; scores of a batch at
        pixel resolution and finished rows while they are decided do not. Of features, the strip has cells.
        """
        own = self.wide * width
        written = 2 * BAND * (self.scored + 1) * own  # a row of blocks, and the file of a part, which is packed
        if self.wide != 1:  # where there is data, and scores between others
            written += 4 * BAND * own + 4 * 4 * (AT_ONCE + self.channels * own)
        tile = self.plan.tile
        if self.cell:
            plan = self.plan.in_cells(self.cell)
            cells = -(-width // self.cell)
            columns = plan.strip_bytes(self.depth, cells) + plan.tile[0] * cells * 4 * self.channels + written
            columns += (min(tile[0], self.plan.height) + self.cell) * width
            if self.regions:
                columns += 4 * (min(tile[0], self.plan.height) + 2 * BLOCK) * width
            if self.votes:  # regions twice, their numbers, classes twice, and whether there is data
                rows = max(end - first for first, end in pairwise(self.plan.row_edges))
                columns += rows * (2 * 4 + 8 + 3 + 4 * self.votes) * width
            if self.reach:  # smoothed rows, and how scores follow colours in cells
                columns += 4 * 4 * 3 * (2 * self.reach + 1) * self.cell * width
                columns += 2 * 4 * 6 * (2 * self.reach + 2) * self.channels * cells
            batch = 2 * 4 * self.depth * self.batch * plan.tile[0] * plan.tile[1]
            return columns + batch + 4 * 4 * max(AT_ONCE, self.channels * width) + self.method
        columns = self.plan.strip_bytes(self.channels, width) + written
        columns += 4 * min(tile[0], self.plan.height) * width
        return columns + 3 * 4 * self.at_once * self.batch * tile[0] * tile[1] + 4 * 4 * AT_ONCE + self.method

    def panel_width(self, memory: float, max_memory: float | None) -> int:
        """Columns of a panel that keep the blend within its budget: `max_memory` MB, or a quarter of `memory` bytes.

        A panel is not narrower than a tile, of which it would compute most again. Warns when that does not fit.
        """
        plan = self.plan
        budget = max_memory * 1e6 if max_memory is not None else memory / 4
        fixed = self.nbytes(0)
        width = int((budget - fixed) / (self.nbytes(1) - fixed))
        narrowest = max(math.ceil(BLOCK / self.wide), plan.tile[1])
        if width < narrowest and plan.width > max(0, width):
            least = self.nbytes(min(narrowest, plan.width)) / 1e6
            message = (
                f"{len(plan.col_offs)} columns of windows cannot be blended in {budget / 1e6:.0f} MB; using "
                f"{least:.0f} MB"
            )
            warnings.warn(message, GeoOVSegWarning, 5)
        return max(width, narrowest)
