"""A loaded model that is told what to do: by this process, or from another one. All that a worker keeps is here."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from functools import cached_property

import numpy as np
import torch
from rasterio.windows import Window
from safetensors import SafetensorError
from safetensors.torch import load, save

from geoovseg import machine
from geoovseg.errors import InterruptedRunError, OutputError, SceneError, first_line
from geoovseg.labels.parts import PREPARED
from geoovseg.rasters.open import native
from geoovseg.run.compute import Context, finished_parts
from geoovseg.run.job import Job, Step
from geoovseg.run.layout import area_of, lay_out
from geoovseg.run.predictor import Predictor, load_predictor, tile_bytes
from geoovseg.scene.renewed import Renewed
from geoovseg.scene.scene import Scene, open_scene
from geoovseg.settings import Settings, Stop
from geoovseg.vocabulary import Vocabulary
from geoovseg.windows.batch import TileBatch
from geoovseg.windows.plan import Part


class Worker:
    """Models for some words and settings, loaded once."""

    def __init__(self, words: Vocabulary, settings: Settings) -> None:
        self.words, self.settings = words, settings

    @cached_property
    def predictor(self) -> Predictor:
        """The models, loaded when they are first needed."""
        with self.settings.access():
            return load_predictor(self.words, self.settings)

    def job(self, path: str, settings: Settings, stop: Stop = lambda: None) -> Job:
        """What there is to do with a scene, under settings for it; its range of pixels may have to be sampled.

        Raises what opening it and loading the models raise, InterruptedRunError when asked to stop meanwhile.
        """
        if torch.get_num_threads() > 1:
            machine.start_threads()
        with opened(path, settings) as scene:
            area = area_of(scene, settings)  # may be wrong, which is to be told before models are loaded
            facts, method = self.predictor.facts, self.predictor.method
            layout = lay_out(scene, settings, facts.vocabulary, facts.needs, tile_bytes(method), area)
            lenient = settings.on_error == "skip"
            return Job(
                scene=path,
                settings=settings,
                facts=facts,
                layout=layout,
                intensity=scene.measured(lenient=lenient, check=lambda: check_early(stop)).intensity,
                look=None if layout.tile == layout.plan.tile else (layout.plan.tile, layout.tile),
            )

    def prepare(self, job: Job, stop: Stop = lambda: None) -> bytes:
        """What the method learns from the scene. Raises InterruptedRunError when asked to stop."""
        with self._context(job) as context, Renewed(context.scene) as steady:
            read = _sampler(context, steady, lambda: check_early(stop))
            return save(dict(self.predictor.method.prepare(read, context.scene.seen_shape)))

    def compute(self, job: Job, parts: Sequence[Part]) -> Iterator[Step]:
        """A group of neighbouring parts. Raises OutputError where what was prepared cannot be read."""
        with self._context(job) as context:
            self._use(job)
            step = Step(0)
            for step in finished_parts(context, parts):
                yield step
            yield Step(step.windows, ended=True)

    def _use(self, job: Job) -> None:
        """Take what was prepared. Raises OutputError where it cannot be read."""
        try:
            self.predictor.method.use(load(job.prepared))
        except (SafetensorError, KeyError) as error:
            raise OutputError(
                f"{PREPARED} of the run is damaged: {first_line(error)}; remove that folder and compute the run again"
            ) from error

    @contextmanager
    def _context(self, job: Job) -> Iterator[Context]:
        """The job's scene, seen as the job says."""
        with opened(job.scene, job.settings) as scene:
            yield Context(self.predictor, replace(scene, intensity=job.intensity, look=job.look), job)

    @contextmanager
    def on(self, path: str, settings: Settings) -> Iterator[Context]:
        """A scene that the model can see."""
        job = self.job(path, settings)
        job = replace(job, prepared=self.prepare(job))
        with self._context(job) as context:
            self._use(job)
            yield context


@contextmanager
def opened(path: str, settings: Settings) -> Iterator[Scene]:
    """A scene as settings say."""
    with settings.access(), open_scene(path, **settings.view) as scene, native():
        yield scene


def check_early(stop: Stop) -> None:
    """Raise InterruptedRunError when asked to stop while there is no part yet."""
    if signal := stop():
        raise InterruptedRunError("stopped before the first part; nothing is lost", signal)


def _sampler(context: Context, scene: Renewed, check: Callable[[], None]) -> Callable[[Window], TileBatch]:
    """Reads windows that a method looks at before the run; one that may be skipped and cannot be read has no data."""

    def read(window: Window) -> TileBatch:
        check()
        try:
            return scene.read(lambda now: now.look_at(window))
        except SceneError:
            if context.job.settings.on_error != "skip":
                raise
            shape = (1, window.height, window.width)
            pixels = np.zeros((1, 3, *shape[1:]), np.float32)
            return TileBatch(windows=(window,), pixels=pixels, valid=np.zeros(shape, bool))

    return read
