"""From windows to finished parts: the stream that a run, a shard and a worker have in common."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field

import numpy as np
import torch
from rasterio.windows import Window

from geoovseg.errors import InterruptedRunError, SceneError
from geoovseg.labels.write import CONFIDENCE_NODATA, CONFIDENCE_STEPS
from geoovseg.run.job import Job
from geoovseg.run.state import Run
from geoovseg.scene.reader import read_ahead
from geoovseg.scene.scene import Scene
from geoovseg.windows.batch import TileBatch
from geoovseg.windows.blend import Rows, ScoreMosaic
from geoovseg.windows.plan import BLOCK, Panel, Part

Progress = Callable[[int, int], None]
"""Called with (windows done, windows to compute)."""
Stop = Callable[[], int | None]
"""The number of the signal that asked to stop, if one did."""


def compute(scene: Scene, job: Job, run: Run, *, progress: Progress, stop: Stop) -> int:
    """All parts that are missing, in runs of neighbours; returns how many windows the model saw.

    Raises InterruptedRunError between parts when asked to stop.
    """
    total = sum(_windows(job, parts) for parts in run.todo)
    left, before, seen = sum(map(len, run.todo)), 0, 0
    for parts in run.claims():
        _check_stop(run, max(left, 1), stop)  # a member of a crew may have waited long
        if not parts:
            continue
        windows = 0
        for windows, finished in _stream(scene, job, run, parts):
            progress(before + windows, total)
            left -= len(finished)
            if finished:
                _check_stop(run, left, stop)
        before, seen = before + _windows(job, parts), seen + windows
        progress(before, total)
    return seen


def _windows(job: Job, parts: Sequence[Part]) -> int:
    return job.plan.count(parts[0].panel, (parts[0].row_off, parts[-1].end))


def _check_stop(run: Run, left: int, stop: Stop) -> None:
    if left and (signal := stop()):
        kept = sum(run.store.has(part) for part in run.mine)
        hint = "nothing is left behind"
        if kept or run.together:
            hint = "the same command goes on" if run.together and not run.crew else "--resume goes on"
        raise InterruptedRunError(f"stopped with {kept} of {len(run.mine)} parts finished; {hint}", signal)


def check_early(stop: Stop) -> None:
    """Raise InterruptedRunError when asked to stop while there is no part yet."""
    if signal := stop():
        raise InterruptedRunError("stopped before the first part; nothing is lost", signal)


def sample(scene: Scene, job: Job, window: Window, stop: Stop) -> TileBatch:
    """A window that a method looks at before the run; one that may be skipped and cannot be read has no data.

    Raises InterruptedRunError when asked to stop.
    """
    check_early(stop)
    try:
        return scene.look_at(window)
    except SceneError:
        if job.settings.on_error != "skip":
            raise
        shape = (1, window.height, window.width)
        return TileBatch(
            windows=(window,), pixels=np.zeros((1, 3, *shape[1:]), np.float32), valid=np.zeros(shape, bool)
        )


def redone(job: Job, run: Run) -> int:
    """Windows to compute now that also lie in parts that were finished before."""
    kept = {(part.panel, part.row_off) for part in run.kept}
    count = 0
    for parts in run.todo:
        panel, first, end = parts[0].panel, parts[0].row_off, parts[-1].end
        above, below = (panel, first - BLOCK) in kept, (panel, end) in kept
        tile = job.plan.tile[0]
        crossing = [r for r in job.plan.rows((first, end)) if (above and r < first) or (below and r + tile > end)]
        count += len(crossing) * len(job.plan.columns(panel))
    return count


@dataclass
class Tally:
    """Windows by the part in which they begin: seen by the model, and not to be read."""

    job: Job
    panel: Panel
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
        here = self.panel.col_off <= window.col_off < self.panel.col_off + self.panel.width
        return window.row_off // BLOCK * BLOCK if here else -1

    def summary(self, part: Part) -> dict[str, int]:
        """Of the windows that begin in a part: all, without data, outside the area, not to be read."""
        owned = needed = self.job.plan.owned(part)
        if self.job.area is not None:
            windows = self.job.windows_of(part.panel, (part.row_off, part.end))
            needed = sum(part.owns(window) for window in windows)
        done, failed = self.done.pop(part.row_off, 0), self.failed.pop(part.row_off, 0)
        return {"windows": owned, "outside": owned - needed, "failed": failed, "skipped": needed - failed - done}


def _stream(scene: Scene, job: Job, run: Run, parts: Sequence[Part]) -> Iterator[tuple[int, list[Part]]]:
    """Windows to scores to rows of labels for neighbouring parts; yields windows so far and parts just finished."""
    panel, span = parts[0].panel, (parts[0].row_off, parts[-1].end)
    mosaic = ScoreMosaic(job.plan, panel, job.channels, job.device, span)
    tally, count = Tally(job, panel), 0
    tell = tally.fail if job.settings.on_error == "skip" else None
    for batch in read_ahead(scene, job.windows_of(panel, span), batch=job.micro_batch, depth=job.depth, skip=tell):
        valid = torch.from_numpy(batch.known).to(job.device)
        finished: list[Part] = []
        scores = job.class_scores(batch)
        for n, window in enumerate(batch.windows):
            for rows in mosaic.add([window], scores[n : n + 1], valid[n : n + 1]):
                finished += _write(rows, panel.col_off, job, run, tally)
            tally.add([window])
        count += len(batch)
        yield count, finished
    for rows in mosaic.finish():
        yield count, _write(rows, panel.col_off, job, run, tally)


def _write(rows: Rows, col_off: int, job: Job, run: Run, tally: Tally) -> list[Part]:
    """Decide finished rows on the device; only codes and rounded confidence leave it. Returns the parts they finish."""
    if rows.scores is None:
        return _write_nothing(rows, col_off, run, tally)
    layout, valid = run.writer.layout, rows.valid
    if job.area is not None:
        inside = job.area.mask(rows.row_off, col_off, (valid.shape[0], valid.shape[1]))
        valid = valid & torch.from_numpy(inside).to(valid.device)
    codes, confidence = job.decide(rows.scores, valid, layout.nodata)
    kind = torch.uint8 if layout.dtype == "uint8" else torch.int32
    dense = codes.to(kind).cpu().numpy().astype(layout.dtype, copy=False)
    sure = None
    if run.outputs.confidence is not None:
        rounded = torch.where(valid, (confidence * CONFIDENCE_STEPS).round(), CONFIDENCE_NODATA)
        sure = rounded.to(torch.uint8).cpu().numpy()
    return run.writer.write(rows.row_off, col_off, dense, sure, tally.summary)


def _write_nothing(rows: Rows, col_off: int, run: Run, tally: Tally) -> list[Part]:
    """Rows that no window touched have no data; nothing has to be decided about them."""
    layout, shape = run.writer.layout, tuple(rows.valid.shape)
    sure = None if run.outputs.confidence is None else np.full(shape, CONFIDENCE_NODATA, np.uint8)
    return run.writer.write(rows.row_off, col_off, np.full(shape, layout.nodata, layout.dtype), sure, tally.summary)
