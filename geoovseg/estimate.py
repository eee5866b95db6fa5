"""What a run would do and take, without reading a pixel: `geoovseg segment --dry-run`."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

import numpy as np
from rasterio.windows import Window

from geoovseg.batch import TileBatch
from geoovseg.budget import CPU_BATCH
from geoovseg.job import Job, prepare_job
from geoovseg.models.regions import given
from geoovseg.outputs import output_names
from geoovseg.record import peak_rss_mb
from geoovseg.scene import open_scene
from geoovseg.settings import Settings, check_settings, check_shares
from geoovseg.tiling import origins
from geoovseg.vocabulary import Vocabulary, read_classes


@dataclass(frozen=True, kw_only=True)
class Estimate:
    """A run in figures, before it starts."""

    windows: int
    batches: int
    parts: int
    """bands of rows of the output"""
    panels: int
    memory_mb: float
    """expected peak: what the process holds with the model loaded, and the blend"""
    working_grid: dict[str, Any]
    estimated_seconds: float
    """from one timed batch of random pixels"""
    background: tuple[str, ...]

    def to_json(self) -> str:
        """One line of JSON."""
        return json.dumps(asdict(self), ensure_ascii=False)

    def to_text(self) -> str:
        """For a person."""
        grid = self.working_grid
        return (
            f"{grid['width']} x {grid['height']} pixels, {self.windows} windows in {self.batches} batches, "
            f"{self.panels} panel(s), about {self.memory_mb:.0f} MB and {self.estimated_seconds:.0f} s"
        )


def dry_run(
    scene: str | os.PathLike[str],
    classes: str | Sequence[str] | Vocabulary | None = None,
    *,
    vocabulary: str | None = None,
    output: str | os.PathLike[str] | None = None,
    confidence: str | None = None,
    overwrite: bool = False,
    resume: bool = False,
    shard: tuple[int, int] | None = None,
    workers: int = 1,
    work_dir: str | None = None,
    **settings: Any,
) -> Estimate:
    """Estimate a run, with all its shards, by the arguments of `segment`.

    Raises what `segment` would raise before it reads pixels.
    """
    check_shares(shard, workers)
    outputs = output_names(os.fspath(scene), output, confidence, work_dir)
    words, asked = read_classes(classes, vocabulary), Settings(**settings)
    check_settings(asked)
    with open_scene(scene, **asked.view) as src:
        outputs.check(src.files, overwrite=overwrite, resume=resume or shard is not None)
        job = prepare_job(src, words, asked)
        height, width = src.shape
        windows = [job.count(panel) for panel in job.panels]
        batches = sum(-(-count // job.micro_batch) for count in windows)
        return Estimate(
            windows=job.windows,
            batches=batches,
            parts=len(job.plan.parts(job.panels)),
            panels=len(job.panels),
            memory_mb=round(peak_rss_mb() + job.memory_mb, 1),
            working_grid={
                "height": height,
                "width": width,
                "crs": src.crs.to_wkt() if src.crs else None,
                "transform": list(src.transform)[:6],
            },
            estimated_seconds=round(_seconds_per_tile(job) * sum(windows), 1),
            background=job.vocabulary.background,
        )


def _seconds_per_tile(job: Job) -> float:
    """Of a window, or of a block: its windows, and what Segment Anything takes to find its regions."""
    if getattr(job.method, "whole_blocks", False):
        return _timed(job, _random_batch(1, job.tile))
    seconds = 0.0
    if job.settings.regions_from is not None:
        method: Any = job.method
        seconds = _timed_regions(method, _random_batch(1, job.tile))
        job = replace(job, method=replace(method, regions=given))
    return seconds + _seconds_per_window(job) * _windows_per_tile(job)


def _timed_regions(method: Any, batch: TileBatch) -> float:
    """Seconds to find the regions of a block; by Segment Anything from one of its tiles."""
    tile, looks = method.region_looks(batch.valid.shape[1:])
    one = batch if not tile else _random_batch(1, (tile, tile))
    start = time.perf_counter()
    method.regions(one, method.sets)
    return (time.perf_counter() - start) * looks


def _windows_per_tile(job: Job) -> int:
    """One, or as many as a block has."""
    blocks = getattr(job.method, "blocks", None)
    if blocks is None:
        return 1
    rows, cols = (len(origins(side, blocks.window, blocks.stride)) for side in job.tile)
    return rows * cols


def _seconds_per_window(job: Job) -> float:
    """From a batch of random pixels; of a block, one window stands for all."""
    blocks = getattr(job.method, "blocks", None)
    size = job.tile if blocks is None else tuple(min(side, blocks.window) for side in job.tile)
    batch = _random_batch(CPU_BATCH if blocks else job.micro_batch, (size[0], size[1]))
    job.class_scores(batch).cpu()  # the first batch warms up
    return _timed(job, batch)


def _timed(job: Job, batch: TileBatch) -> float:
    start = time.perf_counter()
    job.class_scores(batch).cpu()
    return (time.perf_counter() - start) / len(batch)


def _random_batch(count: int, size: tuple[int, int]) -> TileBatch:
    """Windows of random pixels, to time a model without reading a scene."""
    windows = (Window(0, 0, size[1], size[0]),) * count
    pixels = np.random.default_rng(0).random((count, 3, *size), dtype=np.float32)
    squares = np.add.outer(np.arange(size[0]) // 40 * 1000, np.arange(size[1]) // 40 + 1).astype(np.int32)
    regions = np.broadcast_to(squares, (count, *size))
    return TileBatch(windows=windows, pixels=pixels, valid=np.ones((count, *size), bool), regions=regions)
