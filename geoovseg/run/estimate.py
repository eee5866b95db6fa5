"""What a run would do and take, without reading a pixel: `geoovseg segment --dry-run`."""

from __future__ import annotations

import json
import os
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from geoovseg import machine
from geoovseg.errors import UsageError
from geoovseg.features.store import megabytes
from geoovseg.files import is_store, names_folder
from geoovseg.labels.names import Outputs, output_names
from geoovseg.methods import card
from geoovseg.rasters.ground import wkt_of
from geoovseg.run.checks import check_kept, check_kept_on_the_way, check_models, check_settings
from geoovseg.run.feature_run import feature_names, kept_on_the_way
from geoovseg.run.job import NOTHING
from geoovseg.run.layout import Layout, area_of, caution, lay_out, lay_windows
from geoovseg.run.stored import StoredScene, as_encoded, lay_out_stored, needs_of, opened, unsaid
from geoovseg.run.timings import TileTime, Timings, keep_timings, known_timings
from geoovseg.scene.scene import Scene, open_scene
from geoovseg.settings import Settings, StrPath
from geoovseg.settings.keywords import on_scene
from geoovseg.usage import duration
from geoovseg.vocabulary import Classes, Vocabulary, parse_background, read_classes

ASKING = {"bilinear": 0.1, "guided": 0.25}
"""Seconds for a megapixel of kept features, about, on two cores (docs/benchmarks.md)."""
ASKER_MB = 700.0
"""Of a process that asks them, beside the blend."""


@dataclass(frozen=True, kw_only=True)
class Estimate:
    """A run in figures, before it starts: all of it, with every shard, and with parts that were finished before."""

    scene: str
    labels: str
    """where they would go"""
    windows: int
    batches: int
    parts: int
    """bands of rows of the output"""
    panels: int
    memory_mb: float
    """expected peak: what the process holds with the model loaded, and the blend"""
    working_grid: dict[str, Any]
    estimated_seconds: float
    """of one process, as fast as windows went in the last run of these models and sizes here; the first time, a batch
    is timed, or the demo model's time elsewhere taken"""
    background: tuple[str, ...]
    """counter-words, of which a run leaves out those too close to the classes"""

    def to_json(self) -> str:
        """One line of JSON."""
        return json.dumps(asdict(self), ensure_ascii=False)

    def to_text(self) -> str:
        """For a person."""
        grid = self.working_grid
        windows, batches = _counted(self.windows, "window"), _counted(self.batches, "batch", "batches")
        seen = f"{windows} in {batches}" if self.batches else "no window to see"
        return (
            f"{grid['width']} x {grid['height']} pixels, {seen}, {_counted(self.panels, 'panel')}, "
            f"about {self.memory_mb:.0f} MB and {duration(self.estimated_seconds)}"
        )


def _counted(number: int, one: str, more: str = "") -> str:
    """`1 window`, `2 windows`."""
    return f"{number} {one if number == 1 else more or one + 's'}"


@on_scene(Settings)
def dry_run(scene: StrPath, classes: Classes | None, settings: Settings) -> Estimate:
    """Estimate a run by the arguments of `segment`.

    It is the whole run, in one process: with all its shards, with the work of all `workers`, and with the parts that
    `resume` would find finished.

    Raises what `segment` would raise before it reads pixels, but does not look into the parts of a run to go on with.
    """
    return estimate(scene, read_classes(classes, settings.vocabulary), settings)


def estimate(scene: StrPath, named: Vocabulary, settings: Settings) -> Estimate:
    """As `dry_run`, for classes and settings that are made already."""
    outputs = output_names(os.fspath(scene), **settings.rasters)
    if is_store(scene):
        return _of_store(os.fspath(scene), named, settings, outputs)
    with settings.access():
        check_settings(settings)
        check_models(settings)
        with open_scene(scene, **settings.view) as src:
            if outputs.labels.parent.exists() or not names_folder(settings.output):  # a new folder loses nothing
                outputs.check(
                    src.files,
                    overwrite=settings.overwrite,
                    resume=settings.resume or settings.shard is not None,
                    finished=settings.goes_on,
                )
            if settings.features is not None:
                return _with_features(src, os.fspath(scene), named, settings, outputs)
            return _estimated(src, named, settings, str(outputs.labels))[0]


def _with_features(src: Scene, path: str, named: Vocabulary, settings: Settings, outputs: Outputs) -> Estimate:
    """A run that keeps features of all of the scene on its way, or asks those that are there."""
    check_kept_on_the_way(settings)
    area_of(src, settings)  # may be wrong
    store = str(kept_on_the_way(path, outputs.labels, settings))
    if Path(store).exists():
        try:
            as_encoded(replace(settings, speed="normal"), store)
        except UsageError:
            if not settings.overwrite:
                raise
        else:
            return _of_store(store, named, replace(settings, **unsaid(settings)), outputs)
    everywhere = replace(settings, aoi=None, aoi_crs=None, aoi_layer=None, aoi_where=None, crop=False)
    return _estimated(src, named, everywhere, str(outputs.labels))[0]


def _of_store(path: str, named: Vocabulary, settings: Settings, outputs: Outputs) -> Estimate:
    """What asking kept features would take, for which no model is needed. Raises what opening them raises."""
    settings = as_encoded(settings, path)
    words, _ = parse_background(settings.background, named)
    with opened(path, settings) as scene:
        assert isinstance(scene, StoredScene)
        outputs.check(scene.files, overwrite=settings.overwrite, resume=settings.resume, finished=settings.goes_on)
        needs = needs_of(scene.store.about, settings, machine.memory())
        layout = lay_out_stored(scene, settings, words, needs, area_of(scene, settings))
        seconds = ASKING[settings.upsampled_by] * scene.shape[0] * scene.shape[1] / 1e6
        if layout.native is not None:
            seconds += ASKING["bilinear"] * layout.shape[0] * layout.shape[1] / 1e6
        tile = TileTime(layout.tile_bytes, 0.0, ASKER_MB, len(words.queries))
        return replace(
            _figures(scene, layout, tile, str(outputs.labels), words),
            windows=0,
            batches=0,
            estimated_seconds=round(seconds, 2),
        )


def _estimated(src: Scene, named: Vocabulary, settings: Settings, labels: str) -> tuple[Estimate, Layout]:
    method = card(settings.method)
    words, _ = parse_background(settings.background, named, counter=method.counter_words)
    known, tile = _timings(src, named, settings, len(words.queries))
    caution(src, settings, words, known.needs)
    layout = lay_out(src, settings, words, known.needs, lambda _: tile.method, area_of(src, settings))
    return _figures(src, layout, tile, labels, words), layout


def _figures(src: Scene, layout: Layout, tile: TileTime, labels: str, words: Vocabulary) -> Estimate:
    """What a layout comes to."""
    height, width = src.shape
    windows = [layout.count(panel) for panel in layout.panels]
    return Estimate(
        scene=src.path,
        labels=labels,
        windows=layout.windows,
        batches=sum(-(-count // layout.micro_batch) for count in windows),
        parts=len(layout.parts),
        panels=len(layout.panels),
        memory_mb=round(tile.process_mb + layout.memory_mb, 1),
        working_grid={
            "height": height,
            "width": width,
            "crs": wkt_of(src.crs),
            "transform": list(src.transform)[:6],
        },
        estimated_seconds=round(tile.seconds * sum(windows), 1),
        background=words.background,
    )


def _timings(scene: Scene, named: Vocabulary, settings: Settings, queries: int) -> tuple[Timings, TileTime]:
    """What a run would take for a tile as large as this scene's, of so many queries: as known here, or tried now."""
    known = known_timings(settings)
    if known is not None:
        tile = lay_windows(scene, settings, known.needs).tile
        if (taken := known.of(tile, queries)) is not None:
            return known, taken.asked(queries, card(settings.method).word_cost)
    from geoovseg.run.rehearsal import rehearse  # loads torch and the models, which takes many times as long

    new = rehearse(scene, named, settings)
    (seen,) = new.tiles
    return new, keep_timings(settings, new).tiles[seen]


@dataclass(frozen=True, kw_only=True)
class FeatureEstimate:
    """An encoding in figures, before it starts."""

    scene: str
    features: str
    """where they would go"""
    windows: int
    rows: int
    columns: int
    depth: int
    """cells, and numbers of a vector"""
    megabytes: float
    """that the store would take, at least"""
    memory_mb: float
    estimated_seconds: float

    def to_json(self) -> str:
        """One line of JSON."""
        return json.dumps(asdict(self), ensure_ascii=False)

    def to_text(self) -> str:
        """For a person."""
        return (
            f"{self.columns} x {self.rows} cells of {self.depth} numbers, {self.megabytes:.0f} MB on the disk, of "
            f"{_counted(self.windows, 'window')}; about {self.memory_mb:.0f} MB of memory and "
            f"{duration(self.estimated_seconds)}"
        )


def estimate_features(scene: StrPath, settings: Settings) -> FeatureEstimate:
    """What `encode` would do and take. Raises what it would raise before it reads pixels."""
    outputs = feature_names(os.fspath(scene), settings.output, settings.work_dir)
    with settings.access():
        check_kept(settings)
        check_settings(settings)
        check_models(settings)
        with open_scene(scene, **settings.view) as src:
            found, layout = _estimated(src, NOTHING, settings, str(outputs.labels))
            if not layout.cell:
                raise UsageError(f"{settings.method}, as it is set, gives scores of words and no features")
            cells, depth = layout.plan.in_cells(layout.cell), layout.needs.depth
    return FeatureEstimate(
        scene=found.scene,
        features=found.labels,
        windows=found.windows,
        rows=cells.height,
        columns=cells.width,
        depth=depth,
        megabytes=megabytes(cells.height, cells.width, depth),
        memory_mb=found.memory_mb,
        estimated_seconds=found.estimated_seconds,
    )
