"""`geoovseg segment`."""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from dataclasses import replace
from functools import cache, partial
from threading import Lock
from typing import TYPE_CHECKING, Any

import typer

from geoovseg.cli import options as o
from geoovseg.cli.output import data, talk
from geoovseg.cli.plans import dry_runs
from geoovseg.cli.profile import profiled
from geoovseg.cli.progress import Progress
from geoovseg.cli.questions import questions
from geoovseg.cli.remarks import found, hints, remarks
from geoovseg.cli.scenes import PARTLY, Asked, Task, each, tasks
from geoovseg.errors import GeoOVSegError, InterruptedRunError, PipeClosedError
from geoovseg.files import is_object
from geoovseg.methods import card, read_settings
from geoovseg.models.cards import model_card
from geoovseg.network import public
from geoovseg.settings import Settings
from geoovseg.signals import StopSignals
from geoovseg.trace import stretch
from geoovseg.vocabulary import parse_background, read_classes

if TYPE_CHECKING:
    from geoovseg.pipeline import SegmentResult
    from geoovseg.segmenter import Segmenter


@o.taking_settings
def command(
    scenes: o.ScenesArg,
    classes: o.ClassesOpt = None,
    *,
    mosaic: o.MosaicOpt = False,
    stack: o.StackOpt = False,
    per_tile: o.PerTileOpt = None,
    asset: o.AssetOpt = None,
    stac: o.StacOpt = None,
    dry_run: o.DryRunOpt = False,
    json: o.JsonOpt = False,
    quiet: o.QuietOpt = False,
    progress: o.ProgressOpt = "auto",
    profile: o.ProfileOpt = None,
    **given: Any,
) -> None:
    """Segment images by words into label rasters.

    geoovseg segment scene.tif -c building=house+roof,road,water

    Many scenes: several names, folders of rasters, or - for a list on standard input.
    """
    settings = Settings(**given)
    _check_early(classes, settings)
    for text in questions(classes):
        talk(f"warning: {text}", quiet=quiet)
    assets = tuple(name.strip() for name in asset.split(",")) if asset else ()
    asked = Asked(
        settings=settings, per_tile=per_tile, mosaic=mosaic, stack=stack, dry_run=dry_run, assets=assets, stac=stac
    )  # fmt: skip
    with profiled(profile, settings, quiet=quiet), settings.access(), tasks(scenes, asked, quiet=quiet) as todo:
        if dry_run:
            raise typer.Exit(dry_runs(todo, classes, settings, json=json, quiet=quiet))
        with StopSignals(lambda text: talk(text, quiet=quiet)) as stop:
            run = _Runs(classes, asked, todo, json=json, quiet=quiet, stop=stop)
            try:
                code = each(todo, run, json=json, quiet=quiet, at_once=run.at_once, give_up=run.close)
            finally:
                run.close()
    raise typer.Exit(code)


def _check_early(classes: Any, settings: Settings) -> None:
    """Find mistakes before heavy libraries are loaded: they should be cheap."""
    read_settings(settings.method, settings.settings)
    counter = card(settings.method).counter_words
    parse_background(settings.background, read_classes(classes, settings.vocabulary), counter=counter)
    model_card(settings.model)
    if settings.vectors is not None:
        from geoovseg.segmenter import check_vectors

        check_vectors(settings)


class _Runs:
    """Runs on one scene after the other, by models that are loaded once."""

    def __init__(
        self, classes: Any, asked: Asked, todo: Sequence[Task], *, json: bool, quiet: bool, stop: StopSignals
    ) -> None:
        self.asked, self.json, self.quiet, self.stop = asked, json, quiet, stop
        self._progress = Progress([task.scene for task in todo], quiet=quiet)
        self._segmenter = cache(lambda: _segmenter(classes, asked.settings))
        self._telling = Lock()

    @property
    def at_once(self) -> int:
        """How many scenes may be run at once."""
        alone = self.asked.settings.workers == 1 and self.asked.settings.ray is None
        return 1 if alone else self._segmenter().at_once

    def close(self) -> None:
        """End the workers, if there are any, and the bar."""
        self._progress.close()
        if self._segmenter.cache_info().currsize:
            self._segmenter().close()
        if self.asked.stac is not None and os.path.isdir(self.asked.stac):
            from geoovseg.cli.catalogues import write_catalogue

            write_catalogue(self.asked.stac)

    def __call__(self, task: Task) -> int:
        """Segment a scene; returns the exit code."""
        with self._progress.of(task.scene, shared=self.at_once > 1) as progress:
            if not self._segmenter.cache_info().currsize and sys.stderr.isatty():
                talk(f"loading {self.asked.settings.model}", quiet=self.quiet)  # which may take a while
            result = self._segmenter().segment(
                task.scene,
                output=task.output,
                progress=progress,
                stop=self.stop,
                announce=partial(talk, quiet=self.quiet),
            )
        with self._telling:
            return self._told(result, task)

    def _told(self, result: SegmentResult, task: Task) -> int:
        """What more is made of the labels, and what is said of them; the exit code."""
        for line in remarks(result):
            talk(line, quiet=self.quiet)
        try:
            result = _with_more(result, task, self.asked)
        except GeoOVSegError:
            talk(f"the labels are finished: {result.labels}")
            raise
        rasters = (result.labels, result.vectors, result.confidence, result.scores)
        outputs = (result.parts_dir,) if result.parts_dir else rasters
        try:
            names = filter(None, (*outputs, *result.per_tile))
            data(*((result.to_json(),) if self.json else names), names=not self.json)
        except PipeClosedError as error:
            error.add_note(f"finished: {', '.join(filter(None, outputs))}")
            raise
        self._talk(result, task)
        if self.stop.signal:
            raise InterruptedRunError(f"{task.scene} was finished first", self.stop.signal)
        return PARTLY if result.failed_windows else 0

    def _talk(self, result: SegmentResult, task: Task) -> None:
        for line in (*found(result), *hints(result, task, self.asked.settings)):
            talk(line, quiet=self.quiet or self.json)
        if not any(entry["pixels"] for entry in result.classes.values()):
            talk("no pixel has a label", quiet=self.quiet)
        if result.failed_windows:
            talk(f"{result.failed_windows} windows could not be read; areas that no other window covers have no data")


def _segmenter(classes: Any, settings: Settings) -> Segmenter:
    with stretch("import"):
        from geoovseg.segmenter import Segmenter

    return Segmenter.of(classes, settings if _on_stores(settings) else replace(settings, vectors=None))


def _on_stores(settings: Settings) -> bool:
    """Whether outputs go to an object store, all of them together when they are whole."""
    return any(is_object(value) for value in (settings.output, settings.vectors, settings.confidence) if value)


def _with_more(result: SegmentResult, task: Task, asked: Asked) -> SegmentResult:
    """What is made of the labels: polygons, by a process a core, and labels of every tile."""
    if asked.settings.vectors is not None and not _on_stores(asked.settings):
        from geoovseg.segmenter import with_vectors

        with stretch("polygons"):
            result = with_vectors(result, asked.settings, workers=0)
    if asked.per_tile is not None:
        from geoovseg.tiles.cut import per_tile

        cut = per_tile(result.labels, task.tiles, asked.per_tile, overwrite=task.overwrite, keep=result.was_there)
        result = replace(result, per_tile=tuple(cut))
    if asked.stac is not None:
        from geoovseg.cli.catalogues import write_items

        write_items(asked.stac, result, task.item)
    return replace(result, tiles=tuple(map(public, task.tiles)), stack=tuple(map(public, task.bands)))
