"""What a run looks at in a scene while its rows are finished: colours, and where it has data on its own grid."""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from numpy.typing import NDArray
from rasterio.windows import Window

from geoovseg.errors import GeoOVSegWarning, SceneError
from geoovseg.features.picture import Read
from geoovseg.run.job import Job
from geoovseg.run.stored import StoredScene
from geoovseg.scene.renewed import Renewed
from geoovseg.scene.scene import Scene
from geoovseg.windows.plan import Panel, Span
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
                return steady.read(lambda now: now.read(window))
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
    skip = job.settings.on_error == "skip"
    with scene.native.afresh() as own, Renewed(own) as steady:

        def mask(window: Window) -> NDArray[Any]:
            try:
                return steady.read(lambda now: now.valid(window))
            except SceneError:
                if not skip:
                    raise
            return steady.in_pieces(window)[1]

        yield Resampled(job.layout.native, panel, span, mask, device)
