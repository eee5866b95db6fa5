"""Windows in memory: bytes stay bytes until a device has them, and are the same light either way."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
import torch
from rasterio.windows import Window

from geoovseg.ops.pixels import on_device
from geoovseg.scene.scene import open_scene
from geoovseg.windows.batch import TileBatch, join

BYTES = np.random.default_rng(3).integers(1, 256, (3, 40, 48), dtype=np.uint8)
LIGHT = BYTES.astype(np.float32) / 255
WriteRaster = Callable[..., str]


def _batch(path: str, *windows: Window, scale: str = "auto") -> TileBatch:
    with open_scene(path, scale=scale) as scene:
        return scene.measured().batch(windows)


def test_bytes_with_data_everywhere_stay_bytes(write_raster: WriteRaster) -> None:
    batch = _batch(write_raster(BYTES), Window(0, 8, 32, 32), Window(16, 8, 32, 32))
    assert batch.stored.dtype == np.uint8
    np.testing.assert_array_equal(batch.stored[1], BYTES[:, 8:40, 16:48])


def test_all_256_bytes_are_the_same_light_here_and_on_a_device() -> None:
    every = np.arange(256, dtype=np.uint8).reshape(1, 1, 16, 16).repeat(3, 1)
    batch = TileBatch(windows=(Window(0, 0, 16, 16),), stored=every, valid=np.ones((1, 16, 16), bool))
    exact = (np.arange(256) / 255).astype(np.float32)
    np.testing.assert_array_equal(batch.pixels[0, 0].ravel(), exact)
    there = on_device(batch.stored, torch.device("cpu"))
    assert there.dtype == torch.float32
    np.testing.assert_array_equal(there.numpy(), batch.pixels)


@pytest.mark.parametrize(
    ("pixels", "scale"),
    [(BYTES.astype(np.uint16), "auto"), (BYTES, "0,200"), (LIGHT, "0,1")],
    ids=["16 bits", "another range", "float"],
)
def test_other_pixels_are_light_at_once(write_raster: WriteRaster, pixels: np.ndarray, scale: str) -> None:
    assert _batch(write_raster(pixels), Window(0, 0, 32, 32), scale=scale).stored.dtype == np.float32


def test_negatives_are_light_at_once(write_raster: WriteRaster) -> None:
    path = write_raster(BYTES[:1], photometric="miniswhite")
    batch = _batch(path, Window(0, 0, 32, 32))
    np.testing.assert_array_equal(batch.stored[0], np.repeat(1 - LIGHT[:1, :32, :32], 3, axis=0))


def test_a_hole_in_one_window_makes_light_of_all(write_raster: WriteRaster) -> None:
    holed = BYTES.copy()
    holed[:, 4, 4] = 0
    batch = _batch(write_raster(holed, nodata=0), Window(0, 0, 16, 16), Window(16, 0, 16, 16), Window(0, 24, 16, 16))
    assert batch.stored.dtype == np.float32
    np.testing.assert_array_equal(batch.pixels[2], LIGHT[:, 24:, :16])


def test_bytes_and_light_are_joined_as_light(write_raster: WriteRaster) -> None:
    path = write_raster(BYTES)
    whole, beyond = _batch(path, Window(0, 0, 32, 32)), _batch(path, Window(24, 16, 32, 32))
    assert (whole.stored.dtype, beyond.stored.dtype) == (np.uint8, np.float32)
    both = join([whole, beyond])
    np.testing.assert_array_equal(both.pixels, np.concatenate([whole.pixels, beyond.pixels]))
    assert join([whole, whole]).stored.dtype == np.uint8
