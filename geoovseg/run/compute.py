"""From windows to finished parts: the stream that runs wherever a model is, in this process or in a worker."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import torch
from rasterio.windows import Window
from torch import Tensor

from geoovseg.errors import SceneError
from geoovseg.features.ask import CellRows
from geoovseg.features.cells import FeatureBlend
from geoovseg.features.pixels import Asked
from geoovseg.features.votes import Votes
from geoovseg.labels.parts import FinishedPart
from geoovseg.labels.profile import LabelProfile
from geoovseg.labels.write import (
    CONFIDENCE,
    CONFIDENCE_NODATA,
    CONFIDENCE_STEPS,
    LABELS,
    SCORES,
    Layers,
    PartsBuilder,
    nothing,
)
from geoovseg.run.job import Job, Step
from geoovseg.run.looks import picture_of, resampled
from geoovseg.run.predictor import Predictor
from geoovseg.run.stored import StoredScene, plan_of
from geoovseg.scene.reader import read_ahead
from geoovseg.scene.scene import Scene
from geoovseg.trace import stretch, until_each
from geoovseg.windows.batch import TileBatch
from geoovseg.windows.blend import Blend, Rows, ScoreBlend
from geoovseg.windows.plan import BLOCK, Panel, Part, Span


@dataclass(frozen=True)
class Context:
    """A model, a scene it sees, and what is to be done with it."""

    predictor: Predictor
    scene: Scene
    job: Job

    @cached_property
    def profile(self) -> LabelProfile:
        """What the labels will be."""
        return self.job.profile(self.scene)


def finished_parts(context: Context, parts: Sequence[Part]) -> Iterator[Step]:
    """Neighbouring parts of a panel; after every batch, and every part, the windows seen so far."""
    panel, span = parts[0].panel, (parts[0].row_off, parts[-1].end)
    tally, settings = Tally(context, panel), context.job.settings
    more = [end for end, asked in ((CONFIDENCE, settings.confidence), (SCORES, settings.scores)) if asked is not None]
    best, every = not more and settings.threshold is None, settings.scores is not None
    builder = PartsBuilder(context.profile, *more, describe=tally.summary)
    try:
        for seen, rows in finished_rows(context, panel, span, tally, best=best, every=every):
            done: list[FinishedPart] = []
            if rows is not None:
                with stretch("decide"):
                    layers = decided(context, rows, panel.col_off, *more)
                with stretch("write"):
                    done = builder.write(rows.row_off, panel.col_off, layers)
            yield Step(seen, tuple(done), together=context.predictor.in_flight.count)
    finally:
        builder.close()


def finished_rows(
    context: Context, panel: Panel, span: Span, tally: Tally | None = None, *, best: bool = False, every: bool = True
) -> Iterator[tuple[int, Rows | None]]:
    """Rows of a panel that no later window touches, as they become final, and None after every batch.

    With each goes the number of windows seen so far. With `best`, no more than the best class is needed of them; unless
    `every`, no more than that and its share of those whose regions vote.
    """
    scene, job, device = context.scene, context.job, context.predictor.device
    with picture_of(scene, job) as read, resampled(scene, job, panel, span, device) as native:
        best, every = best and native is None, every or native is not None
        asked = Asked(context.predictor.words, best, read, job.layout.votes)
        around = job.layout.around(panel, span)
        if isinstance(scene, StoredScene):
            found: Iterator[tuple[int, Rows | None]] = ((0, rows) for rows in stored_rows(scene, asked, *around))
        else:
            tally = tally or Tally(context, panel)
            batches = read_batches(context, job.layout.windows_of(panel, span), tally)
            found = _seen_rows(batches, *_blend(context, *around, asked), tally)
        votes = _votes(context, panel, span, best=best, every=every) if job.layout.votes else None
        steps = [(name, step.add) for name, step in (("vote", votes), ("resample", native)) if step is not None]
        for seen, rows in found:
            if rows is None:
                yield seen, None
            else:
                yield from ((seen, own) for own in _through(rows, steps))


def _through(rows: Rows, steps: Sequence[tuple[str, Callable[[Rows], Iterator[Rows]]]]) -> Iterator[Rows]:
    """What some steps, one after the other, make of rows."""
    if not steps:
        yield rows
        return
    for found in until_each(steps[0][0], steps[0][1](rows)):
        yield from _through(found, steps[1:])


def _votes(context: Context, panel: Panel, span: Span, *, best: bool, every: bool) -> Votes:
    """The vote of regions on the grid that models see."""
    layout, predictor = context.job.layout, context.predictor
    place = layout.inner(panel, span)
    beyond = layout.native is not None  # their pixels may have data where those that models see have none
    return Votes(layout.plan, *place, predictor.channels, predictor.shares, best=best, every=every, beyond=beyond)


def _seen_rows(
    batches: Iterable[TileBatch], blend: Blend, see: Callable[[TileBatch], Tensor], tally: Tally
) -> Iterator[tuple[int, Rows | None]]:
    """The rows of a scene that a model sees."""
    seen, predictor, votes = 0, tally.context.predictor, tally.context.job.layout.votes
    for batch in batches:
        valid = torch.from_numpy(batch.valid).to(predictor.device)
        with stretch("model"):
            batch = predictor.with_regions(batch) if votes else batch
            found = see(batch)
        own = torch.from_numpy(batch.regions).to(predictor.device) if votes and batch.regions is not None else None
        seen += len(batch)
        for n, window in enumerate(batch.windows):
            here = slice(n, n + 1)
            regions = None if own is None else own[here]
            for rows in until_each("blend", blend.add([window], found[here], valid[here], regions)):
                yield seen, rows
            tally.add([window])
        yield seen, None
    for rows in until_each("blend", blend.finish()):
        yield seen, rows


def read_batches(context: Context, windows: Iterable[Window], tally: Tally) -> Iterator[TileBatch]:
    """Batches of windows, in order; those that cannot be read and may be skipped are counted."""
    layout = context.job.layout
    skip = tally.fail if context.job.settings.on_error == "skip" else None
    return read_ahead(context.scene, windows, batch=layout.micro_batch, depth=context.predictor.depth, skip=skip)


def _blend(context: Context, panel: Panel, span: Span, asked: Asked) -> tuple[Blend, Callable[[TileBatch], Tensor]]:
    """What windows are blended in, and how they are seen: features on cells, or scores at pixels."""
    predictor, layout = context.predictor, context.job.layout
    if not layout.cell:
        scores = ScoreBlend(layout.plan, panel, predictor.channels, predictor.device, span)
        return scores, predictor.class_scores
    return FeatureBlend(layout.plan, layout.cell, panel, span, asked), predictor.vectors


def stored_rows(scene: StoredScene, asked: Asked, panel: Panel, span: Span) -> Iterator[Rows]:
    """Rows of pixels, of features that were kept."""
    store, device = scene.store, asked.words.text.device
    cells, pixels = asked.of(plan_of(store.about), store.about.cell, panel, span)
    for first, vectors in until_each("read", store.rows(cells.span, cells.panel)):
        features = torch.from_numpy(vectors).to(device).permute(2, 0, 1)
        for rows in until_each("pixels", pixels.add(CellRows(first, len(vectors), features))):
            here = (rows.row_off, rows.row_off + rows.count)
            valid, ids = store.valid(here, panel), store.regions(here, panel) if asked.voting else None
            regions = None if ids is None else torch.from_numpy(ids).to(device)
            yield Rows(rows.row_off, rows.scores, torch.from_numpy(valid).to(device), rows.best, regions)


def decided(context: Context, rows: Rows, col_off: int, *more: str) -> Layers:
    """Codes, and what more is asked for, of finished rows: decided on the device, which only small numbers leave."""
    profile, layout, valid = context.profile, context.job.layout, rows.valid
    if rows.scores is None and rows.best is None:  # no window touched them
        return nothing(profile, (valid.shape[0], valid.shape[1]), *more)
    if layout.area is not None:
        inside = layout.area.mask(rows.row_off, col_off, (valid.shape[0], valid.shape[1]))
        valid = valid & torch.from_numpy(inside).to(valid.device)
    codes = context.predictor.codes(rows, valid, profile.nodata)
    kind = torch.uint8 if profile.dtype == "uint8" else torch.int32
    found = {LABELS: codes.to(kind).cpu().numpy().astype(profile.dtype, copy=False)}
    if more:
        shares = context.predictor.shares_of(rows)
        for end in more:
            small = (shares if end == SCORES else shares.amax(0)).mul(CONFIDENCE_STEPS).round_()
            found[end] = torch.where(valid, small, CONFIDENCE_NODATA).to(torch.uint8).cpu().numpy()
    return found


@dataclass
class Tally:
    """Windows by the part in which they begin: seen by the model, and not to be read."""

    context: Context
    panel: Panel
    """in pixels of the outputs"""
    block: int = BLOCK
    """rows of a part"""
    done: Counter[int] = field(default_factory=Counter)
    failed: Counter[int] = field(default_factory=Counter)

    def add(self, windows: Sequence[Window]) -> None:
        """Count windows that were scored."""
        self.done.update(self._part(window) for window in windows)

    def fail(self, window: Window, error: SceneError) -> None:
        """Count a window that could not be read."""
        self.failed[self._part(window)] += 1

    def _part(self, window: Window) -> int:
        """First row of the part a window belongs to; -1 where it begins in another panel."""
        row, column = self.context.job.layout.begin(window)
        here = self.panel.col_off <= column < self.panel.col_off + self.panel.width
        return row // self.block * self.block if here else -1

    def summary(self, part: Part) -> dict[str, Any]:
        """Of the windows that begin in a part: all, without data, outside the area, not to be read; and the threads.

        And how often counter-words won since the part before.
        """
        layout, won = self.context.job.layout, self.context.predictor.won
        said = {"threads": torch.get_num_threads(), "won": [] if won is None else won.take()}
        scene = self.context.scene
        if isinstance(scene, StoredScene):  # no window is seen; what its features lack is told once
            lacks = scene.store.about.failed_windows if part.row_off == part.panel.col_off == 0 else 0
            return {**dict.fromkeys(("windows", "outside", "skipped"), 0), "failed": lacks, **said}
        begun = layout.begun_in(part)
        owned = needed = layout.plan.owned(begun)
        if layout.area is not None:
            needed = sum(map(begun.owns, layout.windows_of(part.panel, (part.row_off, part.end))))
        done, failed = self.done.pop(part.row_off, 0), self.failed.pop(part.row_off, 0)
        windows = {"windows": owned, "outside": owned - needed, "failed": failed, "skipped": needed - failed - done}
        return {**windows, **said}
