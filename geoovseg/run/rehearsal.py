"""How long a tile takes, tried on random pixels, where no earlier run tells."""

from __future__ import annotations

import time
from dataclasses import replace

import numpy as np
from rasterio.windows import Window

from geoovseg.methods import Trial
from geoovseg.run.layout import TileBytes, lay_windows
from geoovseg.run.predictor import Predictor, load_predictor, tile_bytes
from geoovseg.run.timings import TileTime, Timings
from geoovseg.scene.scene import Scene
from geoovseg.settings import Settings
from geoovseg.usage import peak_rss_mb
from geoovseg.vocabulary import Vocabulary
from geoovseg.windows.batch import TileBatch


def rehearse(scene: Scene, words: Vocabulary, settings: Settings) -> Timings:
    """Load the models and time a batch, as large as this scene's, without reading it.

    Raises what a run would raise before it reads pixels.
    """
    predictor = load_predictor(words, replace(settings, max_memory=None))
    process_mb = peak_rss_mb()
    tile = lay_windows(scene, settings, predictor.facts.needs).tile
    seconds = sum(_timed(predictor, trial) * trial.times for trial in predictor.method.cost(tile).trials)
    queries = len(predictor.vocabulary.queries)
    taken = TileTime(TileBytes(*tile_bytes(predictor.method)(tile)), seconds, process_mb, queries)
    return Timings(needs=predictor.facts.needs, tiles={tile: taken})


def _timed(predictor: Predictor, trial: Trial) -> float:
    """Seconds of a trial for each of its tiles; the first batch warms up, where there is one."""
    batch = _random_batch(trial.together or predictor.facts.needs.micro_batch, trial.size)
    if len(batch) > 1:
        _tried(predictor, trial, batch)
    start = time.perf_counter()
    _tried(predictor, trial, batch)
    return (time.perf_counter() - start) / len(batch)


def _tried(predictor: Predictor, trial: Trial, batch: TileBatch) -> None:
    scores = trial.run(batch)
    if scores is not None:
        predictor.upsampled(scores, batch).cpu()


def _random_batch(count: int, size: tuple[int, int]) -> TileBatch:
    """Windows of random pixels, to time a model without reading a scene."""
    windows = (Window(0, 0, size[1], size[0]),) * count
    pixels = np.random.default_rng(0).random((count, 3, *size), dtype=np.float32)
    squares = np.add.outer(np.arange(size[0]) // 40 * 1000, np.arange(size[1]) // 40 + 1).astype(np.int32)
    regions = np.broadcast_to(squares, (count, *size))
    return TileBatch(windows=windows, stored=pixels, valid=np.ones((count, *size), bool), regions=regions)
