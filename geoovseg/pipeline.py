"""The way of the data, top-down: scene, job, run, parts, labels. Read this first, then run/compute.py."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import NamedTuple

from geoovseg.errors import InterruptedRunError, OutputError, UsageError
from geoovseg.features.store import SIDE
from geoovseg.files import as_path, is_store, made_folder, names_folder
from geoovseg.labels.names import Outputs, output_names
from geoovseg.methods import card
from geoovseg.run.checks import check_kept_on_the_way, check_windows, space_of, warn_of_space
from geoovseg.run.executors import Executor
from geoovseg.run.feature_parts import about_of_job
from geoovseg.run.feature_run import (
    FeatureRun,
    are_made_of,
    feature_names,
    holds_features,
    kept_on_the_way,
    open_finished_features,
)
from geoovseg.run.finished import finished
from geoovseg.run.job import Job
from geoovseg.run.layout import area_of, caution
from geoovseg.run.places import check_seen
from geoovseg.run.result import EncodeResult as EncodeResult
from geoovseg.run.result import SegmentResult as SegmentResult
from geoovseg.run.result import encoded, of_outputs, of_run
from geoovseg.run.state import Run, as_written, clear, open_finished, open_run
from geoovseg.run.stored import as_encoded, opened, unsaid
from geoovseg.run.timings import TileTime, Timings, keep_timings
from geoovseg.scene.scene import Scene
from geoovseg.settings import Settings, StrPath, Watch
from geoovseg.tiles.cut import check_per_tile
from geoovseg.tiles.cut import per_tile as cut_per_tile
from geoovseg.tiles.join import tiles_of, vrt_of
from geoovseg.trace import stretch
from geoovseg.usage import Usage, peak_rss_mb, told
from geoovseg.vocabulary import Vocabulary
from geoovseg.windows.plan import BLOCK, Panel, Part

ENOUGH = 4
"""Batches from which a run tells how fast the next will be."""


def segment_scene(
    path: str, words: Vocabulary, settings: Settings, begin: Callable[[], Executor], watch: Watch
) -> SegmentResult:
    """Segment one scene, from its pixels to finished label rasters; `begin` gives what computes it."""
    if settings.features is not None and not is_store(path):
        return _by_features(path, words, settings, begin, watch)
    if not is_store(path):
        check_seen(words)
    usage = Usage()
    settings = as_encoded(settings, path) if is_store(path) else settings
    outputs = output_names(path, **settings.rasters)
    with opened(path, settings) as scene:
        for option in ("output", "confidence", "scores"):
            if names_folder(folder := getattr(settings, option)):
                made_folder(folder, f"--{option}")
        outputs.check(
            scene.files,
            overwrite=settings.overwrite,
            resume=settings.resume or settings.shard is not None,
            finished=settings.goes_on,
        )
        check_windows(settings)
        area_of(scene, settings)  # may be wrong, which is to be told before models are loaded
        with usage.stage("load"), told(watch.say):
            executor = begin()
            job = executor.job(path, settings, watch.stopped)
            caution(scene, settings, words, job.facts.needs)
            loaded_mb = peak_rss_mb()
        if settings.goes_on and outputs.are_there and (there := _there(job, scene, outputs)):
            clear(outputs)
            return replace(there, seconds=usage.seconds(), peak_rss_mb=peak_rss_mb())
        with open_run(outputs, scene, job) as run:
            job = replace(job, prepared=_prepared(run, job, executor, watch))
            again = redone(job, run)
            warn_of_space(dict.fromkeys((outputs.parts, outputs.labels), space_of(outputs, scene.outputs.shape)))
            watch.say(_announced(job, run))
            with usage.stage("segment"), told(watch.say):
                seen, together = compute(job, run, executor, watch)
            found = of_run(job, scene, run, again, together)
            if not run.shared:
                with usage.stage("assemble"):
                    run.assemble()
        if executor.workers == 1:
            _remember(job, seen, found.skipped_windows, usage.seconds()["segment"], loaded_mb)
    return replace(found, seconds=usage.seconds(), peak_rss_mb=round(peak_rss_mb() + executor.peak_mb, 1))


def _by_features(
    path: str, words: Vocabulary, settings: Settings, begin: Callable[[], Executor], watch: Watch
) -> SegmentResult:
    """Keep the features of a scene on the way, or take those that are there already, and ask them."""
    check_kept_on_the_way(settings)
    outputs = output_names(path, **settings.rasters)
    outputs.check([path], overwrite=settings.overwrite, resume=settings.resume, finished=settings.goes_on)
    store = kept_on_the_way(path, outputs.labels, settings)
    goes_on = settings.resume or feature_names(path, store).are_there
    kept = encode_scene(path, replace(settings, output=store, resume=goes_on, grid="working"), begin, watch)
    asked = replace(settings, output=outputs.labels, features=None, **unsaid(settings))
    found = segment_scene(kept.features, words, asked, begin, watch)
    seconds = {stage: round(kept.seconds.get(stage, 0) + spent, 3) for stage, spent in found.seconds.items()}
    counts = {name: getattr(kept, name) for name in ("windows", "skipped_windows")}
    return replace(found, scene=path, features=kept.features, seconds={**kept.seconds, **seconds}, **counts)


def encode_scene(path: str, settings: Settings, begin: Callable[[], Executor], watch: Watch) -> EncodeResult:
    """Keep the features of one scene: windows to cells to a store, which can be asked any words."""
    usage = Usage()
    outputs = feature_names(path, settings.output, settings.work_dir)
    with opened(path, settings) as scene:
        outputs.check(
            scene.files, overwrite=settings.overwrite, resume=settings.resume or settings.shard is not None,
            finished=settings.goes_on,
        )  # fmt: skip
        check_windows(settings)
        area_of(scene, settings)  # of what will be asked, which may be wrong
        with usage.stage("load"), told(watch.say):
            executor = begin()
            job = executor.job(path, settings, watch.stopped, features=True)
            caution(scene, settings, None, job.facts.needs)
            loaded_mb = peak_rss_mb()
        about = about_of_job(scene, job, outputs.labels)
        if settings.goes_on and outputs.are_there and are_made_of(outputs.labels, about, settings):
            clear(outputs)
            return encoded(job, scene, outputs, about, {}, usage)
        with open_run(outputs, scene, job, partial(FeatureRun, about=about)) as run:
            job = replace(job, prepared=_prepared(run, job, executor, watch))
            warn_of_space({outputs.parts: int(1e6 * about.megabytes)})
            watch.say(_announced(job, run))
            with usage.stage("encode"), told(watch.say):
                seen, _ = compute(job, run, executor, watch)
            if not run.shared:
                with usage.stage("assemble"):
                    run.assemble()
            totals = run.totals()
            found = encoded(job, scene, outputs, about, totals, usage, str(run.store.folder) if run.shared else None)
        if executor.workers == 1:
            _remember(job, seen, found.skipped_windows, usage.seconds()["encode"], loaded_mb)
    return replace(found, peak_rss_mb=round(peak_rss_mb() + executor.peak_mb, 1))


def _there(job: Job, scene: Scene, outputs: Outputs) -> SegmentResult | None:
    """What an earlier run made, if it is what this one would make; else none where it may be replaced.

    Raises OutputError where it may not.
    """
    try:
        found = finished(outputs, scene, job)
    except OutputError:
        if job.settings.overwrite:
            return None
        raise
    counts = {"windows": found.record.windows, "skipped": found.record.skipped_windows, "outside": 0, "failed": 0}
    made = of_outputs(job, scene, outputs, counts, found.pieces)
    return replace(made, was_there=True)


def _announced(job: Job, run: Run) -> str:
    """What a run is about to do, for a person."""
    facts, needed = job.facts, sum(map(job.count, run.todo))
    what = "keeping features" if job.features else f"looking for {facts.vocabulary}"
    if is_store(job.scene):
        return f"{what}; in features of {job.settings.method} with {facts.digests['model']}, on {facts.device}"
    where = facts.device if facts.precision == "fp32" else f"{facts.device} in {facts.precision}"
    own, least = card(job.settings.method).own.get("threshold"), job.settings.threshold
    rest = f"; a confidence below {own:g} is code 0 (--threshold)" if own is not None and own == least else ""
    return f"{what}; {job.settings.method} with {facts.digests['model']} on {where}, {needed} windows{rest}"


def compute(job: Job, run: Run, executor: Executor, watch: Watch) -> tuple[int, int]:
    """All parts that are missing; returns how many windows the model saw, and how many of them it can at once.

    Raises InterruptedRunError when asked to stop, with what is finished kept.
    """
    groups, stored = run.groups(executor.workers), is_store(job.scene)
    wanted = [len(parts) if stored else job.count(parts) for parts in groups]
    done, seen, left, together = Counter[int](), Counter[int](), sum(map(len, groups)), job.facts.planned
    for number, step in executor.run(job, groups, watch.stopped):
        with stretch("keep"):
            for part in step.finished:
                run.keep(part)
        left -= len(step.finished)
        seen[number], together = step.windows, min(together, step.together or together)
        so_far = done[number] + len(step.finished) if stored else step.windows
        done[number] = wanted[number] if step.ended else min(so_far, wanted[number])
        watch.tell(done.total(), sum(wanted))
    if left:
        raise _interrupted(run, watch.stopped() or 0)
    return seen.total(), together


def _interrupted(run: Run, signal: int) -> InterruptedRunError:
    kept = len(run.finished)
    hint = "the same command goes on" if run.shared else "--resume goes on" if kept else "nothing is left behind"
    return InterruptedRunError(f"stopped with {kept} of {len(run.mine)} parts finished; {hint}", signal)


def _prepared(run: Run, job: Job, executor: Executor, watch: Watch) -> bytes:
    """What the method learned from the scene, once for all shards and resumptions of the run."""
    with as_written(run.store.folder):
        found = run.store.prepared
    return run.keep_prepared(executor.prepare(job, watch.stopped)) if found is None else found


def redone(job: Job, run: Run) -> int:
    """Windows to compute now that also lie in parts that were finished before."""
    kept, plan = {(part.panel, part.row_off) for part in run.kept}, job.layout.plan
    count, unit, block = 0, *((job.layout.cell, SIDE) if job.features else (1, BLOCK))
    for parts in () if is_store(job.scene) else run.todo:  # of kept features no window is seen
        (panel, (first, _)), end = parts[0].place, parts[-1].end
        above, below = (panel, first - block) in kept, (panel, end) in kept
        columns = Panel(panel.col_off * unit, panel.width * unit)
        panel, (first, end) = job.layout.begun_in(Part(columns, first * unit, (end - first) * unit)).place
        crossing = [r for r in plan.rows((first, end)) if (above and r < first) or (below and r + plan.tile[0] > end)]
        count += len(crossing) * len(plan.columns(panel))
    return count


def _remember(job: Job, seen: int, skipped: int, seconds: float, process_mb: float) -> None:
    """Keep how long windows took, for the next dry run, where enough of them were seen to tell."""
    if seen >= max(ENOUGH * job.layout.micro_batch, skipped):
        keep_timings(job.settings, _timings(job, seconds / seen, process_mb))


def _timings(job: Job, seconds: float, process_mb: float) -> Timings:
    """What is worth remembering of a run, at `seconds` a tile."""
    taken = TileTime(job.layout.tile_bytes, seconds, process_mb, len(job.facts.vocabulary.queries))
    return Timings(needs=job.facts.needs, tiles={job.layout.plan.tile: taken})


class Merged(NamedTuple):
    """What `merge` made, and the windows of all shards together."""

    labels: str
    windows: int
    skipped_windows: int
    failed_windows: int
    outside_windows: int
    per_tile: tuple[str, ...] = ()
    """labels of the tiles of a mosaic"""


def merge(
    folder: StrPath,
    *,
    output: StrPath | None = None,
    confidence: StrPath | None = None,
    scores: StrPath | None = None,
    overwrite: bool = False,
    per_tile: str | None = None,
) -> Merged:
    """Put the finished parts of all shards of a run together; of a mosaic also the labels of its tiles, in a folder.

    Outputs go beside the folder, under the names that the run had; elsewhere only where `output`, `confidence`
    and `scores` say.

    Raises OutputError, which says how many parts are missing.
    """
    if holds_features(as_path(folder, "the folder")):
        return _merge_features(Path(folder), output, confidence or scores or per_tile, overwrite)
    with open_finished(
        as_path(folder, "the folder"),
        output=None if output is None else as_path(output, "the output"),
        confidence=None if confidence is None else as_path(confidence, "the confidence"),
        scores=None if scores is None else as_path(scores, "the scores"),
        overwrite=overwrite,
    ) as run:
        totals, vrt = run.totals(), vrt_of(run.outputs.labels)
        paths = [] if per_tile is None else tiles_of(vrt, run.profile.grid)
        if per_tile is not None:
            check_per_tile(paths, per_tile, run.outputs.rasters, overwrite=overwrite)
        run.assemble()
    for scene in (vrt, vrt_of(run.outputs.labels, "stack")):
        scene.unlink(missing_ok=True)
    cut = [] if per_tile is None else cut_per_tile(run.outputs.labels, paths, per_tile, overwrite=overwrite)
    windows, skipped, failed, outside = (totals[key] for key in ("windows", "skipped", "failed", "outside"))
    return Merged(str(run.outputs.labels), windows, skipped, failed, outside, tuple(cut))


def _merge_features(folder: Path, output: StrPath | None, other: StrPath | None, overwrite: bool) -> Merged:
    """Put the parts of a store together. Raises OutputError, UsageError."""
    if other is not None:
        raise UsageError(f"{folder} holds features, of which there is only a store; leave {other} away")
    store = None if output is None else as_path(output, "the output")
    with open_finished_features(folder, store, overwrite=overwrite) as run:
        totals = run.totals()
        run.assemble()
    windows, skipped, failed, outside = (totals[key] for key in ("windows", "skipped", "failed", "outside"))
    return Merged(str(run.outputs.labels), windows, skipped, failed, outside)
