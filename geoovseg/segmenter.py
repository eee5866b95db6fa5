"""A loaded model that sees many scenes, or arrays: what the command `geoovseg segment` is from Python."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from functools import cache, cached_property
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any

from geoovseg.errors import GeoOVSegError, UsageError
from geoovseg.files import BESIDE, behind_link, is_folder, is_object, is_store, made_folder, names_folder, sweep
from geoovseg.labels.names import output_names
from geoovseg.pipeline import EncodeResult, SegmentResult, encode_scene, segment_scene
from geoovseg.run.checks import check_kept, check_models, check_settings
from geoovseg.run.executors import Executor, open_executor
from geoovseg.run.job import NOTHING
from geoovseg.run.staged import staged
from geoovseg.settings import Announce, Settings, Shown, Stop, StrPath, Watch
from geoovseg.settings.call import Call
from geoovseg.settings.keywords import on_init, on_scene
from geoovseg.vectors.targets import check_made_of, check_target, target_of
from geoovseg.vocabulary import Classes, read_classes

if TYPE_CHECKING:
    from geoovseg.run.worker import Worker


AT_ONCE = 32
"""Scenes under way at once at most: each has files open."""


class Segmenter:
    """Segments scenes and arrays with models that are loaded once, when they are first needed.

    `Segmenter("building=house+roof,road", model="demo")` takes classes as `segment` does, and every choice of Settings
    as a keyword. Use it in a `with` block, or close it, where it has `workers`.

    Raises GeoOVSegError for settings that cannot work.
    """

    @on_init(Settings)
    def __init__(self, classes: Classes | None, settings: Settings) -> None:
        self.settings = settings
        self.words = read_classes(classes, settings.vocabulary)
        with settings.access():
            check_settings(settings)

    @cached_property
    def _executor(self) -> Executor:
        """Where models are, or will be: begun only when the mistakes that are cheap to find are found."""
        return open_executor(self.words, self.settings)

    def _repr_html_(self) -> str:
        """As a notebook shows it."""
        from geoovseg.run.notebook import html_of_classes

        words = {entry.name: entry.words for entry in self.words.classes}
        return html_of_classes(words, f"{self.settings.method} with {self.settings.model} on {self.settings.device}")

    @classmethod
    def of(cls, classes: Classes | None, settings: Settings) -> Segmenter:
        """One with settings that are made already."""
        return cls(read_classes(classes, settings.vocabulary), **_keywords(settings))

    def segment(
        self,
        scene: StrPath,
        *,
        output: StrPath | None = None,
        confidence: StrPath | None = None,
        scores: StrPath | None = None,
        vectors: StrPath | None = None,
        overwrite: bool | None = None,
        progress: Shown | None = None,
        stop: Stop | None = None,
        announce: Announce | None = None,
    ) -> SegmentResult:
        """Write the labels of a scene, as the command does; outputs that are not named are as the settings say.

        Raises GeoOVSegError for everything a caller can cause; finished parts are kept then.
        """
        given = self.settings
        settings = replace(
            given,
            output=output or given.output,
            confidence=confidence or given.confidence,
            scores=scores or given.scores,
            vectors=vectors or given.vectors,
            overwrite=given.overwrite if overwrite is None else overwrite,
        )
        if not isinstance(scene, str | os.PathLike):
            raise UsageError(f"{type(scene).__name__} is no name of a scene; arrays go to Segmenter.predict")
        with settings.access(), staged(os.fspath(scene), settings) as stage:
            settings = stage.settings
            if not is_store(scene):
                check_models(settings)
            check_vectors(settings, os.fspath(scene))
            watch = Watch(progress, stop, announce)
            result = segment_scene(os.fspath(scene), self.words, settings, lambda: self._executor, watch)
            return stage.published(with_vectors(result, settings, workers=settings.workers))

    def predict(self, pixels: Any, valid: Any = None) -> tuple[Any, Any]:
        """Labels of an array, without files: codes (H, W) and confidence (H, W) in 0..1, as `segment` writes them.

        `pixels` are red, green, blue, (H, W, 3) or (3, H, W), uint8 or float in 0..1; `valid` (H, W) is true where they
        have data. Of an xarray DataArray the results are DataArrays with its coordinates. Codes are uint8, 0 for the
        background and 255 where there is no data (uint16 and 65535 above 254 classes); confidence is float32, rounded
        to 1/250, NaN where there is no data.

        Raises UsageError for arrays of another form.
        """
        from geoovseg.run.arrays import predict

        return predict(self._worker, self.settings, pixels, valid)

    def scores(self, pixels: Any, valid: Any = None) -> Any:
        """Class scores (C, H, W) of an array, blended over windows, float32; see `names` for the channels.

        They are what the method gives: cosines, or shares in 0..1, also where regions vote.

        Arrays are as for `predict`; of a DataArray the result is one with a dimension `class`.
        """
        from geoovseg.run.arrays import scores

        return scores(self._worker, self.settings, pixels, valid)

    @cached_property
    def _worker(self) -> Worker:
        """A model in this process."""
        from geoovseg.run.worker import Worker

        with self.settings.access():
            check_models(self.settings)
        return getattr(self._executor, "worker", None) or Worker(self.words, self.settings)

    def close(self) -> None:
        """End the workers, if there are any."""
        if "_executor" in vars(self):
            vars(self).pop("_executor").close()

    @property
    def at_once(self) -> int:
        """How many scenes may be segmented at once, from threads, so that all workers have something to do."""
        workers = self._executor.workers
        return 1 if workers == 1 else min(workers + 1, AT_ONCE)

    def __enter__(self) -> Segmenter:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.close()


@on_scene(Call)
def segment(scene: StrPath, classes: Classes | None, call: Call) -> SegmentResult:
    """Segment a georeferenced image by words and write a finished label raster.

    `scene` is any raster GDAL opens, of any size and pixel type. `classes` are texts as on the command line
    (`"building=house+roof,road,water"`), a dictionary from names to words (`{"building": ["house", "roof"]}`), or a
    Vocabulary; or name a list with `vocabulary`. Everything else is a choice of `Settings`, by name. `progress` is
    called with (windows done, windows to compute); `stop` is asked between parts, and a signal's number ends the run.

    Returns names of the outputs, counts and times. Raises GeoOVSegError for everything a caller can cause; finished
    parts are kept then.
    """
    with Segmenter.of(classes, call.plain) as segmenter:
        return segmenter.segment(scene, progress=call.progress, stop=call.stop, announce=call.announce)


@on_scene(Call)
def encode(scene: StrPath, classes: Classes | None, call: Call) -> EncodeResult:
    """Keep a scene's features in a Zarr store, which `segment` takes in place of the scene, with any words.

    Takes the choices of `Settings` that concern scene, windows, model and run; `output` is the store, by default
    `<scene>_features.zarr`.

    Raises GeoOVSegError for everything a caller can cause; finished parts are kept then.
    """
    settings = call.plain
    if classes is not None or settings.vocabulary is not None:
        raise UsageError("features are kept without words: give them to segment, with the store as scene")
    with encoding(settings) as encode_one:
        return encode_one(os.fspath(scene), Watch(call.progress, call.stop, call.announce))


@contextmanager
def encoding(settings: Settings) -> Iterator[Callable[[str, Watch], EncodeResult]]:
    """What keeps the features of one scene after the other, with models that are loaded once."""
    with settings.access():
        check_kept(settings)
        check_settings(settings)
        check_models(settings)
    begin = cache(lambda: open_executor(NOTHING, settings))

    def one(scene: str, watch: Watch) -> EncodeResult:
        with settings.access(), staged(scene, settings, features=True) as stage:
            return stage.published_store(encode_scene(scene, stage.settings, begin, watch))

    try:
        yield one
    finally:
        if begin.cache_info().currsize:
            begin().close()


def _keywords(settings: Settings) -> dict[str, Any]:
    return {name: value for name, value in vars(settings).items() if name != "vocabulary"}


def check_vectors(settings: Settings, scene: str | None = None) -> None:
    """Refuse polygons that could not be made when the labels are done, as far as that is known without a scene.

    Raises UsageError, OutputError.
    """
    if settings.vectors is None:
        return
    if settings.shard is not None:
        raise UsageError("--vectors needs whole labels: run `geoovseg vectorize` after `geoovseg merge`")
    if scene is not None:
        _make_folder(settings.vectors)
        labels = output_names(scene, settings.output).labels
        check_target(target_of(settings.vectors, labels), settings.overwrite or settings.goes_on)
    elif not (settings.vectors == BESIDE or is_object(settings.vectors) or is_folder(settings.vectors)):
        check_target(Path(settings.vectors), settings.overwrite or settings.goes_on)


def _make_folder(vectors: StrPath) -> None:
    """Make the folder that polygons are to go to, if it is one by its name."""
    if names_folder(vectors):
        made_folder(vectors, "--vectors")


def with_vectors(result: SegmentResult, settings: Settings, *, workers: int) -> SegmentResult:
    """Make the labels' polygons, if settings ask for them; an error says that the labels are finished."""
    if settings.vectors is None:
        return result
    target = target_of(settings.vectors, result.labels)
    if result.was_there and target.exists() and not settings.overwrite:
        check_made_of(target, Path(result.labels))
        sweep(behind_link(target))
        return replace(result, vectors=str(target))
    from geoovseg.vectors.vectorize import vectorize  # slow to import, and needed only for polygons

    _make_folder(settings.vectors)
    try:
        made = vectorize(
            result.labels,
            target,
            confidence=result.confidence,
            overwrite=settings.overwrite,
            workers=workers,
        )
    except GeoOVSegError as error:
        error.add_note(f"the labels are finished: {result.labels}")
        raise
    spent = made.seconds["total"]
    seconds = {**result.seconds, "vectorize": spent, "total": round(result.seconds["total"] + spent, 3)}
    return replace(result, vectors=made.vectors, seconds=seconds, peak_rss_mb=max(result.peak_rss_mb, made.peak_rss_mb))
