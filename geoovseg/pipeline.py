"""The way of the data, top-down: scene, words, run, parts, labels. Read this first, then compute.py."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import NamedTuple

from geoovseg import tiles
from geoovseg.labels.names import output_names
from geoovseg.models.cards import DEFAULT_MODEL, model_card
from geoovseg.models.weights import find_weights
from geoovseg.prompts import DEFAULT_TEMPLATES
from geoovseg.rasters.open import native
from geoovseg.run.compute import Progress, Stop, check_early, compute, redone, sample
from geoovseg.run.job import Job, prepare_job
from geoovseg.run.layout import caution
from geoovseg.run.state import Run, open_finished, open_run
from geoovseg.run.timings import keep_pace
from geoovseg.scene.scene import Scene, open_scene
from geoovseg.settings import Settings, check_settings, check_shares
from geoovseg.usage import Stopwatch, peak_rss_mb
from geoovseg.vocabulary import Vocabulary, read_classes

ENOUGH = 4
"""Batches from which a run tells how fast the next will be."""


@dataclass(frozen=True, kw_only=True)
class SegmentResult:
    """What a run made and what it took; `to_json` is what `geoovseg segment --json` prints."""

    scene: str
    labels: str
    """when this was a shard, the name that `geoovseg merge` will give them"""
    vectors: str | None
    confidence: str | None
    method: str
    model: str
    device: str
    precision: str
    batch_size: int
    windows: int
    skipped_windows: int
    """windows without any valid pixel"""
    failed_windows: int
    """windows that could not be read and were skipped, with on_error `skip`"""
    outside_windows: int
    """windows that do not meet the area of interest"""
    parts: int
    parts_kept: int
    """parts that an earlier run had finished"""
    redone_windows: int
    """windows computed now although they also lie in kept parts"""
    megapixels: float
    bands: tuple[int, int, int]
    """that were seen as red, green, blue"""
    scale: tuple[float, float] | None
    """values that were seen as black and white"""
    seconds: dict[str, float]
    peak_rss_mb: float
    background: tuple[str, ...]
    """the words that were code 0"""
    dropped_background: tuple[str, ...]
    """automatic counter-words left out as too close to the classes"""
    panels: int
    parts_dir: str | None
    """where a shard's parts are"""
    classes: dict[str, dict[str, int]]
    """code and pixels of every class by name"""
    tiles: tuple[str, ...] = ()
    """what the scene was made of, as a mosaic"""
    per_tile: tuple[str, ...] = ()
    """labels of each of them"""

    def to_json(self) -> str:
        """One line of JSON."""
        return json.dumps(asdict(self), ensure_ascii=False)


def segment(
    scene: str | os.PathLike[str],
    classes: str | Sequence[str] | Vocabulary | None = None,
    *,
    vocabulary: str | None = None,
    method: str = "segearth",
    model: str = DEFAULT_MODEL,
    output: str | os.PathLike[str] | None = None,
    confidence: str | None = None,
    templates: str = DEFAULT_TEMPLATES,
    background: str = "auto",
    threshold: float | None = None,
    upsample: str = "bilinear",
    settings: Mapping[str, str | bool | int | float] | None = None,
    tile: int | None = None,
    stride: int | None = None,
    block: int | None = None,
    vfm: str | None = None,
    sam: str | None = None,
    regions: str | None = None,
    bands: Sequence[int | str] | None = None,
    scale: str = "auto",
    gsd: float | None = None,
    nodata: float | None = None,
    grid: str = "working",
    device: str = "auto",
    precision: str = "auto",
    batch_size: int | None = None,
    max_memory: float | None = None,
    overwrite: bool = False,
    resume: bool = False,
    shard: tuple[int, int] | None = None,
    aoi: str | None = None,
    aoi_crs: str | None = None,
    on_error: str = "stop",
    work_dir: str | None = None,
    crew: int = 0,
    progress: Progress | None = None,
    stop: Stop = lambda: None,
) -> SegmentResult:
    """Segment a georeferenced image by words and write a finished label raster.

    Args:
        scene: any raster GDAL opens, of any size and pixel type.
        classes: what to look for, as on the command line: `"building=house+roof,road,water"`, or a Vocabulary.
        vocabulary: instead of classes, the name of a class list or a file of one.
        method: a key of METHODS.
        model: a CLIP model by name, `ARCH@FILE`, or `demo`. Nothing is downloaded.
        output: the label raster, or a folder for it; by default `<stem>_labels.tif` beside the scene.
        confidence: also write this raster of confidence, 0..1 stored as 0..250.
        templates: the sentences around each word: `openai-80`, `openai-7`, `plain`, or a file of them.
        background: `auto`, `none` or `word+word`; what these words win is code 0.
        threshold: confidence (0..1) below which a pixel is code 0.
        upsample: `bilinear`; `guided` by the pixels; or `jbu_one`, `jbu_stack`, with weights, for patches of 16.
        settings: fields of the method by name.
        tile: side of a window in pixels, at most; by default what the model was trained on.
        stride: step between windows; by default half a tile.
        block: side of a block in pixels, for methods that see blocks; tile and stride are those of its windows.
        vfm: the vision model of methods that use one besides CLIP; `clip` is the model itself, `demo` the demo model.
        sam: the Segment Anything of methods that use it, or of their regions: a name, or `ARCH@FILE`.
        regions: where region maps come from, for methods that use them: `sam`, `felzenszwalb`, or a raster of ids.
        bands: red, green, blue, by number from 1 or by name.
        scale: what becomes black and white: `auto`, 8-bit as it is and else the 2nd and 98th percentile of the scene;
            `dtype`, the range of the pixel type; or "MIN,MAX".
        gsd: metres a pixel at which the scene is seen; its own by default.
        nodata: pixels of this value in all three bands have no data, whatever the file says of that.
        grid: where outputs lie with gsd: `working`, at that resolution, or `scene`, to which scores are interpolated.
        device: `auto`, `cpu`, `cuda`, `cuda:1`.
        precision: `auto`, `fp32`, `bf16`, `fp16`.
        batch_size: windows in flight; on a CPU it does not change any result.
        max_memory: MB for the blend; a quarter of the memory by default. Wider scenes are done in column panels.
        overwrite: replace existing outputs, and remove the parts of a run that did not finish, unless this goes on.
        resume: go on with the parts of a run that did not finish, if it was this one.
        shard: (I, N) computes the I-th (from 1) of N shares of the parts, for `merge`; makes no outputs.
        aoi: a polygon file, or "W,S,E,N"; outside it pixels are nodata.
        aoi_crs: coordinate system of `aoi`, where the file does not say; by default the scene's.
        on_error: `stop`, or `skip` windows that cannot be read.
        work_dir: folder for the parts, instead of beside the labels.
        crew: how many processes call this alike and share the parts among themselves; makes no outputs.
        progress: called with (windows done, windows to compute).
        stop: asked after every part; a signal's number ends the run there.

    Returns:
        Names of the outputs, counts and times.

    Raises:
        GeoOVSegError: one of its leaves, for everything a caller can cause; finished parts are kept then.
    """
    watch = Stopwatch()
    words = read_classes(classes, vocabulary)
    given = Settings(
        method=method,
        model=model,
        templates=templates,
        background=background,
        threshold=threshold,
        upsample=upsample,
        settings=settings or {},
        tile=tile,
        stride=stride,
        block=block,
        vfm=vfm,
        sam=sam,
        regions=regions,
        bands=None if bands is None else tuple(bands),
        scale=scale,
        gsd=gsd,
        nodata=nodata,
        grid=grid,
        device=device,
        precision=precision,
        batch_size=batch_size,
        max_memory=max_memory,
        aoi=aoi,
        aoi_crs=aoi_crs,
        on_error=on_error,
    )
    check_settings(given)
    check_shares(shard)
    outputs = output_names(os.fspath(scene), output, confidence, work_dir)
    with open_scene(scene, **given.view) as src, native():
        find_weights(model_card(model))
        outputs.check(src.files, overwrite=overwrite, resume=resume or shard is not None or crew > 0)
        with watch.stage("load"):
            job = prepare_job(src, words, given)
            caution(src, given, words, job.needs)
            process_mb = peak_rss_mb()
            src = job.seen(src, lambda: check_early(stop))
        with open_run(outputs, src, job, resume=resume, overwrite=overwrite, shard=shard, crew=crew) as run:
            run.prepare(job.method, lambda window: sample(src, job, window, stop), src.seen_shape)
            again = redone(job, run)
            with watch.stage("segment"):
                scored = compute(src, job, run, progress=progress or (lambda done, total: None), stop=stop)
            found = _result(job, src, run, again)
            if not run.together:
                with watch.stage("assemble"):
                    run.commit()
        if scored >= max(ENOUGH * job.micro_batch, found.skipped_windows) and not crew:
            keep_pace(given, job.pace(watch.seconds()["segment"] / scored, process_mb))
    return replace(found, seconds=watch.seconds(), peak_rss_mb=peak_rss_mb())


class Merged(NamedTuple):
    """What `merge` made, and the windows of all shards together."""

    labels: str
    windows: int
    skipped_windows: int
    failed_windows: int
    outside_windows: int
    per_tile: tuple[str, ...] = ()
    """labels of the tiles of a mosaic"""


def merge(folder: str | os.PathLike[str], *, overwrite: bool = False, per_tile: str | None = None) -> Merged:
    """Put the finished parts of all shards of a run together; of a mosaic also the labels of its tiles, in a folder.

    Raises OutputError, which says how many parts are missing.
    """
    with open_finished(Path(folder), overwrite=overwrite) as run:
        totals, vrt = run.totals(), tiles.vrt_of(run.outputs.labels)
        paths = [] if per_tile is None else tiles.tiles_of(vrt, run.writer.layout.grid)
        if per_tile is not None:
            tiles.check_per_tile(paths, per_tile, run.outputs.rasters, overwrite=overwrite)
        run.commit()
    vrt.unlink(missing_ok=True)
    cut = [] if per_tile is None else tiles.per_tile(run.outputs.labels, paths, per_tile, overwrite=overwrite)
    windows, skipped, failed, outside = (totals[key] for key in ("windows", "skipped", "failed", "outside"))
    return Merged(str(run.outputs.labels), windows, skipped, failed, outside, tuple(cut))


def _result(job: Job, scene: Scene, run: Run, again: int) -> SegmentResult:
    """What there is to say before the parts are put together; a shard stops here."""
    outputs, totals, shard = run.outputs, run.totals(), run.together
    return SegmentResult(
        scene=scene.path,
        labels=str(outputs.labels),
        vectors=None,
        confidence=str(outputs.confidence) if outputs.confidence else None,
        parts_dir=str(run.store.folder) if shard else None,
        method=job.settings.method,
        model=job.model.card.name,
        device=str(job.device),
        precision=job.precision,
        batch_size=min(job.batch_size, job.in_flight.count) if job.in_flight.halved else job.batch_size,
        windows=totals["windows"],
        skipped_windows=totals["skipped"],
        failed_windows=totals["failed"],
        outside_windows=totals["outside"],
        redone_windows=again,
        parts=len(run.mine),
        parts_kept=len(run.kept),
        megapixels=round(scene.shape[0] * scene.shape[1] / 1e6, 3),
        bands=scene.bands,
        scale=scene.light.ends,
        seconds={},
        peak_rss_mb=0.0,
        background=job.vocabulary.background,
        dropped_background=job.dropped,
        panels=len({part.panel for part in run.parts}),
        classes={entry.name: {"code": entry.code, "pixels": entry.pixels} for entry in run.legend()},
    )
