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
from geoovseg.errors import InterruptedRunError, OutputError, SceneError, UsageError, first_line, some
from geoovseg.features.store import SIDE, About
from geoovseg.files import is_store
from geoovseg.labels.parts import PREPARED
from geoovseg.methods import METHODS
from geoovseg.run.asker import load_asker
from geoovseg.run.compute import Context, finished_parts
from geoovseg.run.encode import encoded_parts
from geoovseg.run.job import NOTHING, Job, Step
from geoovseg.run.layout import Layout, area_of, lay_out
from geoovseg.run.places import check_seen
from geoovseg.run.predictor import Predictor, load_predictor, tile_bytes
from geoovseg.run.stored import StoredScene, lay_out_stored, opened
from geoovseg.scene.area import Area
from geoovseg.scene.renewed import Renewed
from geoovseg.scene.scene import Scene
from geoovseg.settings import Settings, Stop
from geoovseg.vocabulary import Vocabulary
from geoovseg.windows.batch import TileBatch
from geoovseg.windows.plan import Part, panels_of


class Worker:
    """Models for some words and settings, loaded once."""

    def __init__(self, words: Vocabulary, settings: Settings) -> None:
        self.words, self.settings = words, settings
        self._asker: tuple[tuple[Settings, About], Predictor] | None = None

    @cached_property
    def predictor(self) -> Predictor:
        """The models, loaded when they are first needed."""
        with self.settings.access():
            return load_predictor(NOTHING if self.words.places else self.words, self.settings)

    def job(self, path: str, settings: Settings, stop: Stop = lambda: None, *, features: bool = False) -> Job:
        """What there is to do with a scene, under settings for it; its range of pixels may have to be sampled.

        With `features` these are kept, and not asked.

        Raises what opening it and loading the models raise, InterruptedRunError when asked to stop meanwhile.
        """
        if torch.get_num_threads() > 1:
            machine.start_threads()
        with opened(path, settings) as scene:
            area = None if features else area_of(scene, settings)  # may be wrong: to be told before models are loaded
            facts = self._predictor(scene, settings).facts
            layout = self._layout(scene, settings, area)
            lenient = settings.on_error == "skip"
            return Job(
                scene=path,
                settings=settings,
                facts=facts,
                layout=in_chunks(layout, settings.method) if features else layout,
                intensity=scene.measured(lenient=lenient, check=lambda: check_early(stop)).intensity,
                features=features,
            )

    def features_job(self, path: str, settings: Settings) -> Job:
        """What there is to do with a scene whose features are kept."""
        return self.job(path, settings, features=True)

    def _predictor(self, scene: Scene, settings: Settings) -> Predictor:
        """What sees a scene, or what asks kept features."""
        if not isinstance(scene, StoredScene):
            return self.predictor
        if self._asker is None or self._asker[0] != (settings, scene.store.about):
            with settings.access():
                self._asker = (settings, scene.store.about), load_asker(self.words, settings, scene.store)
        return self._asker[1]

    def _layout(self, scene: Scene, settings: Settings, area: Area | None) -> Layout:
        predictor = self._predictor(scene, settings)
        words, needs = predictor.vocabulary, predictor.facts.needs
        if isinstance(scene, StoredScene):
            return lay_out_stored(scene, settings, words, needs, area)
        return lay_out(scene, settings, words, needs, tile_bytes(predictor.method), area)

    def prepare(self, job: Job, stop: Stop = lambda: None) -> bytes:
        """What the method learns from the scene. Raises InterruptedRunError when asked to stop."""
        if is_store(job.scene):
            return b""
        with self._context(job) as context, Renewed(context.scene) as steady:
            read = _sampler(context, steady, lambda: check_early(stop))
            return save(dict(self.predictor.method.prepare(read, context.scene.shape)))

    def compute(self, job: Job, parts: Sequence[Part]) -> Iterator[Step]:
        """A group of neighbouring parts. Raises OutputError where what was prepared cannot be read."""
        with self._context(job) as context:
            self._use(job)
            step, steps = Step(0), encoded_parts if job.features else finished_parts
            for step in steps(context, parts):
                yield step
            yield Step(step.windows, ended=True)

    def _use(self, job: Job) -> None:
        """Take what was prepared. Raises OutputError where it cannot be read."""
        if is_store(job.scene):
            return
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
            predictor = self._predictor(scene, job.settings)
            yield Context(predictor, replace(scene, intensity=job.intensity), job)

    @contextmanager
    def on(self, path: str, settings: Settings) -> Iterator[Context]:
        """A scene that the model can see. Raises UsageError for words that only kept features are asked."""
        check_seen(self.words)
        job = self.job(path, settings)
        job = replace(job, prepared=self.prepare(job))
        with self._context(job) as context:
            self._use(job)
            yield context


def in_chunks(layout: Layout, method: str) -> Layout:
    """With panels in cells, whole chunks of a store each. Raises UsageError for a method that gives scores."""
    if not layout.cell:
        able = some((name for name, card in METHODS.items() if card.gives == "features" and name != method), 99)
        raise UsageError(f"{method}, as it is set, gives scores of words and no features; these give some: {able}")
    most = max(panel.width for panel in layout.panels) // layout.cell
    return replace(layout, panels=panels_of(layout.plan.in_cells(layout.cell).width, max(1, most), SIDE))


def check_early(stop: Stop) -> None:
    """Raise InterruptedRunError when asked to stop while there is no part yet."""
    if signal := stop():
        raise InterruptedRunError("stopped before the first part; nothing is lost", signal)


def _sampler(context: Context, scene: Renewed, check: Callable[[], None]) -> Callable[[Window], TileBatch]:
    """Reads windows that a method looks at before the run; one that may be skipped and cannot be read has no data."""

    def read(window: Window) -> TileBatch:
        check()
        try:
            return scene.read(lambda now: now.batch([window]))
        except SceneError:
            if context.job.settings.on_error != "skip":
                raise
            shape = (1, window.height, window.width)
            pixels = np.zeros((1, 3, *shape[1:]), np.float32)
            return TileBatch(windows=(window,), stored=pixels, valid=np.zeros(shape, bool))

    return read
