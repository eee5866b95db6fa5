"""How long a tile takes, tried on random pixels, where no earlier run tells."""

from __future__ import annotations

import time
from dataclasses import replace
from typing import Any

import numpy as np
from rasterio.windows import Window

from geoovseg.models.regions import given
from geoovseg.run.job import Job, prepare_job
from geoovseg.run.timings import Pace
from geoovseg.scene.scene import Scene
from geoovseg.settings import Settings
from geoovseg.usage import peak_rss_mb
from geoovseg.vocabulary import Vocabulary
from geoovseg.windows.batch import TileBatch
from geoovseg.windows.memory import CPU_BATCH
from geoovseg.windows.plan import origins


def rehearse(scene: Scene, words: Vocabulary, settings: Settings) -> Pace:
    """Load the models and time a batch, as large as this scene's, without reading it.

    Raises what a run would raise before it reads pixels.
    """
    job = prepare_job(scene, words, replace(settings, max_memory=None))
    process_mb = peak_rss_mb()
    return job.pace(_seconds_per_tile(job), process_mb)


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
