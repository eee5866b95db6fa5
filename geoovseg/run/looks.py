"""What a run looks at in a scene while its rows are finished: colours, and where it has data on its own grid."""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from rasterio.windows import Window

from geoovseg.errors import GeoOVSegWarning, SceneError
from geoovseg.features.picture import Read
from geoovseg.rasters.ground import Box
from geoovseg.run.job import Job
from geoovseg.run.stored import StoredScene
from geoovseg.scene.renewed import Renewed
from geoovseg.scene.scene import Scene
from geoovseg.windows.plan import BAND, Panel, Span
from geoovseg.windows.resample import Resampled


@contextmanager
def picture_of(scene: Scene, job: Job) -> Iterator[Read | None]:
    """What reads a scene for scores that follow its colours, if they do; what may be skipped has no data."""
    source = scene.source if isinstance(scene, StoredScene) else scene
    if source is None or job.settings.upsampled_by != "guided" or not job.layout.cell:
        yield None
        return
    skip = job.settings.on_error == "skip"
    with source.afresh() as own, Renewed(own) as steady:  # not the one that another thread reads

        def read(window: Window) -> tuple[NDArray[Any], NDArray[Any]]:
            try:
                return steady.read_again(lambda now: now.read(window))
            except SceneError:
                if not skip:
                    raise
            if isinstance(scene, StoredScene):
                text = f"parts of {source.path} cannot be read; there labels do not follow its colours"
                warnings.warn(text, GeoOVSegWarning, 2)
            return steady.in_pieces(window)

        yield read


@contextmanager
def resampled(scene: Scene, job: Job, panel: Panel, span: Span, device: torch.device) -> Iterator[Resampled | None]:
    """What brings rows to the scene's own grid, where outputs are to lie there; what may be skipped has no data."""
    if scene.native is None or job.layout.native is None:
        yield None
        return
    with scene.native.afresh() as own, Renewed(own) as steady:
        yield Resampled(job.layout.native, panel, span, Masks(steady, job), device)


class Masks:
    """Where a scene has data, read a band of rows at a time.

    What cannot be read and may be skipped has none; beyond the box of an area it is not looked.
    """

    def __init__(self, scene: Renewed, job: Job) -> None:
        self._scene, self._skip = scene, job.settings.on_error == "skip"
        height, width = job.layout.shape
        area = job.layout.area
        self._height, self._box = height, Box(0, 0, height, width) if area is None else area.box((height, width))
        self._band: tuple[tuple[int, int, int], NDArray[np.bool_]] | None = None

    def __call__(self, window: Window) -> NDArray[np.bool_]:
        """Of a window inside the scene (h, w)."""
        found = np.zeros((window.height, window.width), bool)
        here = self._box.shared(window.row_off, window.col_off, window.height, window.width)
        if here is None:
            return found
        left, right, end = here.col_off, here.col_off + here.width, here.row_off + here.height
        columns = slice(left - window.col_off, right - window.col_off)
        for top in range(here.row_off // BAND * BAND, end, BAND):
            first, last = max(here.row_off, top), min(end, top + BAND)
            band = self._of((top, left, right))
            found[first - window.row_off : last - window.row_off, columns] = band[first - top : last - top]
        return found

    def _of(self, place: tuple[int, int, int]) -> NDArray[np.bool_]:
        """A band of rows from one column to another; the last is kept, as its rows are asked for a few at a time."""
        if self._band is None or self._band[0] != place:
            top, left, right = place
            self._band = place, self._read(Window(left, top, right - left, min(BAND, self._height - top)))
        return self._band[1]

    def _read(self, window: Window) -> NDArray[np.bool_]:
        try:
            return self._scene.read_again(lambda now: now.valid(window))
        except SceneError:
            if not self._skip:
                raise
        return self._scene.in_pieces(window)[1]
