"""From windows to finished parts of features, which are chunks of a store already."""

from __future__ import annotations

import zlib
from collections.abc import Iterator, Sequence
from functools import partial

import numpy as np
import torch

from geoovseg.features.ask import CellRows
from geoovseg.features.cells import CellBlend, PixelStrip, of_core
from geoovseg.features.pixels import PixelRows
from geoovseg.features.store import SIDE, chunks
from geoovseg.labels.parts import FinishedPart
from geoovseg.run.compute import Context, Tally, read_batches
from geoovseg.run.feature_parts import MASK, REGIONS, about_of_job, end_of, in_pixels, pixels_of
from geoovseg.run.job import Step
from geoovseg.trace import stretch, until_each
from geoovseg.windows.plan import Cells, Part


def encoded_parts(context: Context, parts: Sequence[Part]) -> Iterator[Step]:
    """Neighbouring parts of a panel of cells; after every batch, and every part, the windows seen so far."""
    job, predictor = context.job, context.predictor
    plan, side = job.layout.plan, job.layout.cell
    cells = Cells(side, parts[0].panel, (parts[0].row_off, parts[-1].end))
    around = in_pixels(cells.panel, side, plan.width)
    tally = Tally(context, around, SIDE * side)
    blend = CellBlend(plan, cells, job.layout.needs.depth, predictor.device)
    strip = partial(PixelStrip, plan, cells, around)
    build = _Parts(context, parts, strip(predictor.device), strip("cpu", kind=torch.int32), tally)
    seen = 0
    for batch in read_batches(context, plan.windows(*cells.pixels), tally):
        valid = torch.from_numpy(batch.valid).to(predictor.device)
        with stretch("model"):
            batch = predictor.with_regions(batch) if job.layout.needs.regions else batch
            found = predictor.vectors(batch)
        seen += len(batch)
        done: list[FinishedPart] = []
        for n, window in enumerate(batch.windows):
            for rows in until_each("blend", blend.add(window, found[n])):
                with stretch("write"):
                    done += build.add(rows)
            build.valid.add(window, valid[n])
            if job.layout.needs.regions and batch.regions is not None:
                build.regions.add(*of_core(plan, window, torch.from_numpy(batch.regions[n])))
            tally.add([window])
        yield Step(seen, tuple(done), together=predictor.in_flight.count)
    for rows in blend.finish():
        yield Step(seen, tuple(build.add(rows)))


class _Parts:
    """Takes rows of cells, top to bottom, and gives every part as it fills."""

    def __init__(
        self, context: Context, parts: Sequence[Part], valid: PixelStrip, regions: PixelStrip, tally: Tally
    ) -> None:
        self.valid, self.regions = valid, regions
        self._tally = tally
        self._about = about_of_job(context.scene, context.job)
        self._waiting = iter(parts)
        self._begin()

    def _begin(self) -> None:
        """Be ready for the next part, if there is one."""
        self._part = next(self._waiting, None)
        if self._part is not None:
            part, self._pixels = self._part, pixels_of(self._part, self._about)
            widths = [min(SIDE, part.panel.width - left) for left in range(0, part.panel.width, SIDE)]
            self._columns = [np.zeros((part.height, width, self._about.depth), np.float16) for width in widths]
            shape = self._pixels.height, self._pixels.panel.width
            self._mask, self._ids = np.zeros(shape, bool), np.zeros(shape if self._about.regions else (0, 0), np.int32)

    def add(self, rows: CellRows) -> list[FinishedPart]:
        """Take rows; returns the parts that they completed."""
        done, finished = 0, []
        while done < rows.count:
            assert self._part is not None  # rows end where the last part does
            first = rows.row_off + done - self._part.row_off
            count = min(rows.count - done, self._part.height - first)
            self._fill(first, count, None if rows.features is None else rows.features[:, done : done + count])
            done += count
            if first + count == self._part.height:
                finished.append(self._finished(self._part))
                self._begin()
        return finished

    def _fill(self, first: int, count: int, features: torch.Tensor | None) -> None:
        """Put rows of cells, and the pixels of theirs, into the part."""
        if features is not None:
            vectors = features.permute(1, 2, 0).cpu().numpy()
            for left, column in enumerate(self._columns):
                column[first : first + count] = vectors[:, left * SIDE : (left + 1) * SIDE]
        side = self._about.cell
        top, end = first * side, min((first + count) * side, len(self._mask))
        if end > top:
            rows = PixelRows(self._pixels.row_off + top, end - top, features)
            self._mask[top:end] = self.valid.take(rows).cpu().numpy()
            if self._about.regions:
                self._ids[top:end] = self.regions.take(rows).cpu().numpy()

    def _finished(self, part: Part) -> FinishedPart:
        pieces = chunks(self._about, part.row_off, part.panel.col_off, self._columns)
        files = {end_of(name): content for name, content in pieces}
        files[MASK] = np.packbits(self._mask).tobytes()
        if self._about.regions:
            files[REGIONS] = zlib.compress(self._ids.tobytes(), 1)
        return FinishedPart(part, files, {"counts": {}, **self._tally.summary(self._pixels)})
