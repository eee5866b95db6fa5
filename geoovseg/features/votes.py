"""The vote of regions: each takes the class that most of its pixels have, when features are asked.

A region is what a window found, cut to the window's core: the pixels whose middle is nearer to its own than to that of
any other window. So a vote needs the pixels of whole cores, of which a strip is held.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace
from itertools import pairwise
from typing import NamedTuple

import torch
from torch import Tensor

from geoovseg.ops.regions import numbered
from geoovseg.windows.blend import Rows
from geoovseg.windows.plan import AT_ONCE, BAND, Panel, Span, TilePlan


class Piece(NamedTuple):
    """Some rows of pixels whose regions have not all been seen."""

    best: Tensor
    """(rows, columns) the class of each pixel"""
    regions: Tensor
    """(rows, columns)"""
    valid: Tensor
    """(rows, columns)"""
    alone: Tensor | None
    """(C or 1, n) shares of the classes, or the largest, at pixels that count and have no region, row by row"""


class Votes:
    """Rows of class scores, or of best classes, become rows of shares in which each region has one.

    The share of a class in a region is that of its pixels in which that class is the best; pixels without a region keep
    the shares of their scores. With `best`, no more than the best class is needed; unless `every`, the largest share.
    Pixels without data need none unless `beyond`.
    """

    def __init__(
        self, plan: TilePlan, panel: Panel, span: Span, channels: int, shares: Callable[[Tensor], Tensor],
        *, best: bool, every: bool, beyond: bool = False,
    ) -> None:  # fmt: skip
        self.around = wide, rows = plan.whole_cores(panel, span)
        self._span = span
        self._edges = [edge for edge in plan.row_edges if rows[0] < edge <= rows[1]]
        inside = [edge - wide.col_off for edge in plan.col_edges if wide.col_off <= edge <= wide.col_off + wide.width]
        self._columns = [slice(*pair) for pair in pairwise(inside)]
        self._here = slice(panel.col_off - wide.col_off, panel.col_off - wide.col_off + panel.width)
        self._channels, self._shares, self._best, self._every = channels, shares, best, every
        self._kept, self._beyond = channels if every else 1, beyond
        self._row = self._top = rows[0]
        self._held: list[Piece] = []
        self._seen = False

    def add(self, rows: Rows) -> Iterator[Rows]:
        """Take rows of the panel around, top to bottom without a gap; yield those whose regions are complete."""
        taken = 0
        while taken < len(rows.valid):
            count = min(len(rows.valid) - taken, self._edges[0] - self._row)
            self._hold(rows, slice(taken, taken + count))
            taken, self._row = taken + count, self._row + count
            if self._row == self._edges[0]:
                yield from self._voted() if self._seen else self._nowhere()
                self._edges.pop(0)
                self._top, self._seen = self._row, False

    def _hold(self, rows: Rows, part: slice) -> None:
        """Keep what a vote needs of some rows."""
        valid = rows.valid[part]
        self._seen |= rows.scores is not None or rows.best is not None
        regions = torch.zeros_like(valid, dtype=torch.int32) if rows.regions is None else rows.regions[part]
        scores, best = (None if each is None else each[..., part, :] for each in (rows.scores, rows.best))
        if scores is not None and best is None:
            best = scores.max(0).indices
        kind = torch.uint8 if self._channels < 256 else torch.int32
        best = torch.zeros_like(valid, dtype=kind) if best is None else best.to(kind)
        alone = None if self._best else self._alone(scores, (valid | self._beyond) & (regions == 0))
        self._held.append(Piece(best, regions, valid, alone))

    def _alone(self, scores: Tensor | None, where: Tensor) -> Tensor:
        """Shares (C or 1, n) of some pixels."""
        if scores is None:  # no window was there
            return torch.zeros(self._kept, int(where.sum()), device=where.device)
        shares = self._shares(scores[:, where][..., None])[..., 0]
        return shares if self._every else shares.amax(0, keepdim=True)

    def _nowhere(self) -> Iterator[Rows]:
        """The rows that are held, none of which has a region, or anything else."""
        yield from self._inside(Rows(self._top, None, torch.cat([piece.valid for piece in self._held])))
        self._held.clear()

    def _voted(self) -> Iterator[Rows]:
        """The rows that are held, each region with its class."""
        index, winners, shares = self._ballots(*(torch.cat(each) for each in list(zip(*self._held, strict=True))[:2]))
        row = 0
        while self._held:
            piece = self._held.pop(0)
            among = index[row : row + len(piece.valid)]
            for rows in self._decided(piece, among, winners, shares):
                yield from self._inside(replace(rows, row_off=self._top + row + rows.row_off))
            row += len(piece.valid)

    def _decided(self, piece: Piece, index: Tensor, winners: Tensor, shares: Tensor) -> Iterator[Rows]:
        """A piece, a few rows at a time, counted from its first; by number of its regions their classes and shares."""
        step, used = max(1, min(BAND, AT_ONCE // (index.shape[1] * len(shares)))), 0
        for first in range(0, len(index), step):
            rows = slice(first, first + step)
            among, valid, own, found = index[rows], piece.valid[rows], piece.regions[rows] == 0, None
            if piece.alone is not None:
                found, here = shares[:, among], (valid | self._beyond) & own
                found[:, here] = piece.alone[:, used : used + (count := int(here.sum()))]
                used += count
            yield Rows(first, found, valid, torch.where(own, piece.best[rows].long(), winners[among]))

    def _ballots(self, best: Tensor, regions: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """The number of each pixel's region (rows, columns), 0 for none; and by number its class and its shares."""
        index, count = torch.zeros_like(regions, dtype=torch.long), 1
        winners, shares = [index.new_zeros(1)], [torch.zeros(self._kept, 1, device=regions.device)]
        for core in self._columns:
            names, among = numbered(regions[:, core])
            votes = (among * self._channels + best[:, core]).flatten()
            ballots = torch.bincount(votes, minlength=len(names) * self._channels).view(len(names), -1)[1:]
            index[:, core] = torch.where(among == 0, 0, among + count - 1)
            count += len(ballots)
            most, which = ballots.max(1)
            winners.append(which)
            won = ballots if self._every else most[:, None]
            shares.append((won.double() / ballots.sum(1, keepdim=True)).float().T)
        return index, torch.cat(winners), torch.cat(shares, 1)

    def _inside(self, rows: Rows) -> Iterator[Rows]:
        """What of some rows was asked for."""
        first, end = (min(max(at - rows.row_off, 0), len(rows.valid)) for at in self._span)
        if first == end:
            return
        cut = (..., slice(first, end), self._here)
        scores, best = (None if each is None else each[cut] for each in (rows.scores, rows.best))
        yield Rows(rows.row_off + first, scores, rows.valid[cut], best, voted=True)
