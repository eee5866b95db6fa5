"""The reader: a thread that stays ahead of the model, and gives it full batches of windows with data."""

from __future__ import annotations

import itertools
import queue
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from contextvars import copy_context
from functools import partial

import numpy as np
from rasterio.windows import Window

from geoovseg.errors import SceneError
from geoovseg.rasters.open import adopt, gdal_settings, native, raster_env
from geoovseg.scene import renewed
from geoovseg.scene.renewed import Renewed
from geoovseg.scene.scene import Scene
from geoovseg.trace import stretch, until_each
from geoovseg.windows.batch import TileBatch, join

Skip = Callable[[Window, SceneError], None]
"""Told of windows that cannot be read, when they are to be left out."""


def read_ahead(
    scene: Scene, windows: Iterable[Window], *, batch: int, depth: int, skip: Skip | None = None
) -> Iterator[TileBatch]:
    """Yield batches of `batch` windows, the last one smaller, read by a thread at most `depth` batches ahead.

    Windows in which no pixel is valid are left out. What cannot be read is tried once more, window by window, from the
    file opened anew; then it is left out and `skip` is told, or the error is raised here, in the order of the windows.
    Leaving the loop early ends the thread.
    """
    ready: queue.Queue[TileBatch | BaseException | None] = queue.Queue(maxsize=max(1, depth))
    stop = threading.Event()

    def put(item: TileBatch | BaseException | None) -> None:
        with stretch("ahead"):
            while not stop.is_set():
                try:
                    ready.put(item, timeout=0.1)
                except queue.Full:
                    continue
                return

    def work() -> None:
        try:
            with raster_env(), native(), Renewed(scene) as steady:
                kept = (window for window in windows if not scene.lacks(window))
                for item in until_each("read", _occupied(steady, kept, batch, skip)):
                    if stop.is_set():
                        return
                    put(item)
            put(None)
        except BaseException as error:  # handed to the consumer, who raises it
            put(error)

    context = copy_context()
    context.run(adopt, gdal_settings())
    thread = threading.Thread(target=context.run, args=(work,), name="geoovseg-reader", daemon=True)
    thread.start()
    try:
        items: Iterator[TileBatch | BaseException] = iter(ready.get, None)
        for item in until_each("wait", items):
            if isinstance(item, BaseException):
                raise item
            yield item
    finally:
        stop.set()
        thread.join()


def _occupied(scene: Renewed, windows: Iterable[Window], size: int, skip: Skip | None) -> Iterator[TileBatch]:
    """Batches of exactly `size` windows that have data (the last may be smaller), in order."""
    held: list[TileBatch] = []
    for group in _grouped(windows, size):
        read = _read(scene, group, skip)
        if read is None:
            continue
        held.append(read.take(np.flatnonzero(read.valid.any(axis=(1, 2)))))
        if sum(map(len, held)) >= size:
            joined = join(held)
            yield joined.take(np.arange(size))
            held = [joined.take(np.arange(size, len(joined)))]
    if any(map(len, held)):
        yield join(held)


def _read(scene: Renewed, group: list[Window], skip: Skip | None) -> TileBatch | None:
    """A group of windows in one go; if that fails one by one, after a moment, without those that fail again."""
    try:
        return scene.read(lambda now: now.batch(group))
    except SceneError:
        time.sleep(renewed.RETRY_AFTER)
    good: list[TileBatch] = []
    for window in group:
        try:
            good.append(scene.read(partial(_single, window)))
        except SceneError as error:
            if skip is None:
                raise
            skip(window, error)
    return join(good) if good else None


def _single(window: Window, scene: Scene) -> TileBatch:
    return scene.batch([window])


def _grouped(windows: Iterable[Window], size: int) -> Iterator[list[Window]]:
    stream = iter(windows)
    while group := list(itertools.islice(stream, size)):
        yield group
