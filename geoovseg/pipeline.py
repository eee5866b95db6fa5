"""The way of the data, top-down: scene, windows, scores, mosaic, labels. Read this first."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass

import torch

from geoovseg.job import Job, Settings, check_settings, prepare_job
from geoovseg.labels import CONFIDENCE_NODATA, CONFIDENCE_STEPS, Grid, LabelWriter, create_labels, output_names
from geoovseg.models.cards import DEFAULT_MODEL, model_card
from geoovseg.models.weights import find_weights
from geoovseg.mosaic import Rows, ScoreMosaic
from geoovseg.prompts import DEFAULT_TEMPLATES
from geoovseg.reader import read_ahead
from geoovseg.record import Stopwatch, peak_rss_mb
from geoovseg.scene import Scene, open_scene
from geoovseg.vocabulary import Vocabulary, read_classes

Progress = Callable[[int, int], None]
"""Called with (windows done, windows in all)."""


@dataclass(frozen=True, kw_only=True)
class SegmentResult:
    """What a run made and what it took; `to_json` is what `geoovseg segment --json` prints."""

    scene: str
    labels: str
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
    megapixels: float
    seconds: dict[str, float]
    peak_rss_mb: float
    background: tuple[str, ...]
    """the words that were code 0"""
    dropped_background: tuple[str, ...]
    """automatic counter-words left out as too close to the classes"""
    panels: int
    classes: dict[str, dict[str, int]]
    """code and pixels of every class by name"""

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
    bands: Sequence[int] | None = None,
    device: str = "auto",
    precision: str = "auto",
    batch_size: int | None = None,
    max_memory: float | None = None,
    overwrite: bool = False,
    progress: Progress | None = None,
) -> SegmentResult:
    """Segment a georeferenced image by words and write a finished label raster.

    Args:
        scene: any raster GDAL opens, of any size; 8-bit.
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
        bands: 1-based indexes of red, green, blue.
        device: `auto`, `cpu`, `cuda`, `cuda:1`.
        precision: `auto`, `fp32`, `bf16`, `fp16`.
        batch_size: windows in flight; on a CPU it does not change any result.
        max_memory: MB for the blend; a quarter of the memory by default. Wider scenes are done in column panels.
        overwrite: replace existing outputs.
        progress: called with (windows done, windows in all).

    Returns:
        Names of the outputs, counts and times.

    Raises:
        GeoOVSegError: one of its leaves, for everything a caller can cause; nothing is written then.
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
        device=device,
        precision=precision,
        batch_size=batch_size,
        max_memory=max_memory,
    )
    check_settings(given)
    outputs = output_names(os.fspath(scene), output, confidence)
    with open_scene(scene, bands=bands) as src:
        find_weights(model_card(model))
        outputs.check(src.files, overwrite=overwrite)
        with watch.stage("load"):
            job = prepare_job(src, words, given)
            job.method.prepare(lambda window: src.batch([window]))
        legend = [(c.name, c.colour) for c in words.classes]
        with create_labels(outputs, _grid(src), legend, overwrite=overwrite) as dst:
            with watch.stage("segment"):
                done = _stream(src, job, dst, progress or (lambda done, total: None))
            with watch.stage("assemble"):
                dst.commit(job.record(src, skipped=job.windows - done).to_json())
        return _result(job, src, dst, done, watch)


def _stream(scene: Scene, job: Job, dst: LabelWriter, progress: Progress) -> int:
    """Windows to scores to rows of labels, panel by panel; returns how many windows of the scene had data.

    A window on the border between panels is computed for both, and counted where it begins.
    """
    done = passed = 0
    for panel in job.panels:
        here = 0
        mosaic = ScoreMosaic(job.plan, panel, job.channels, job.device)
        for batch in read_ahead(scene, job.plan.windows(panel), batch=job.micro_batch, depth=job.depth):
            valid = torch.from_numpy(batch.valid).to(job.device)
            for rows in mosaic.add(batch.windows, job.class_scores(batch), valid):
                _write(rows, panel.col_off, job, dst)
            here += len(batch)
            done += sum(window.col_off >= panel.col_off for window in batch.windows)
            progress(passed + here, job.work)
        for rows in mosaic.finish():
            _write(rows, panel.col_off, job, dst)
        passed += job.plan.count(panel)
        progress(passed, job.work)
    return done


def _write(rows: Rows, col_off: int, job: Job, dst: LabelWriter) -> None:
    """Decide finished rows on the device; only codes and rounded confidence leave it."""
    codes, confidence = job.decide(rows.scores, rows.valid, dst.nodata)
    kind = torch.uint8 if dst.dtype == "uint8" else torch.int32
    dense = codes.to(kind).cpu().numpy().astype(dst.dtype, copy=False)
    sure = None
    if dst.outputs.confidence is not None:
        rounded = torch.where(rows.valid, (confidence * CONFIDENCE_STEPS).round(), CONFIDENCE_NODATA)
        sure = rounded.to(torch.uint8).cpu().numpy()
    dst.write(rows.row_off, col_off, dense, sure)


def _grid(scene: Scene) -> Grid:
    height, width = scene.shape
    return Grid(height=height, width=width, crs=scene.crs, transform=scene.transform)


def _result(job: Job, scene: Scene, dst: LabelWriter, done: int, watch: Stopwatch) -> SegmentResult:
    outputs = dst.outputs
    return SegmentResult(
        scene=scene.path,
        labels=str(outputs.labels),
        vectors=None,
        confidence=str(outputs.confidence) if outputs.confidence else None,
        method=job.settings.method,
        model=job.model.card.name,
        device=str(job.device),
        precision=job.precision,
        batch_size=job.batch_size,
        windows=job.windows,
        skipped_windows=job.windows - done,
        failed_windows=0,
        megapixels=round(scene.shape[0] * scene.shape[1] / 1e6, 3),
        seconds=watch.seconds(),
        peak_rss_mb=peak_rss_mb(),
        background=job.vocabulary.background,
        dropped_background=job.dropped,
        panels=len(job.panels),
        classes={entry.name: {"code": entry.code, "pixels": entry.pixels} for entry in dst.legend()},
    )
