"""Reading: bands, masks, edges, errors, and the reader that stays ahead."""

from __future__ import annotations

import threading
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import rasterio
import rasterio.shutil
from conftest import hide, shared_file
from rasterio._env import get_gdal_config
from rasterio.enums import ColorInterp
from rasterio.env import getenv
from rasterio.transform import from_origin
from rasterio.windows import Window

from geoovseg import machine
from geoovseg.errors import SceneError, UsageError
from geoovseg.rasters.open import raster_env
from geoovseg.scene.reader import read_ahead
from geoovseg.scene.scene import open_scene
from geoovseg.windows.batch import FILL
from geoovseg.windows.plan import Panel, plan_tiles

RNG = np.random.default_rng(3)
WriteRaster = Callable[..., str]


def _noise(bands: int, height: int, width: int) -> np.ndarray:
    return RNG.integers(1, 256, (bands, height, width), dtype=np.uint8)


def _light(data: np.ndarray) -> np.ndarray:
    """8-bit pixels between 0 and 1."""
    return data.astype(np.float32) / 255


def test_pixels_are_rgb_between_0_and_1(write_raster: WriteRaster) -> None:
    data = _noise(3, 40, 50)
    with open_scene(write_raster(data)) as scene:
        batch = scene.batch([Window(8, 4, 16, 24)])
    np.testing.assert_array_equal(batch.pixels[0], data[:, 4:28, 8:24].astype(np.float32) / 255)
    assert batch.valid.all()


def test_bands_follow_their_colour_interpretation(write_raster: WriteRaster) -> None:
    bgra = (ColorInterp.blue, ColorInterp.green, ColorInterp.red, ColorInterp.alpha)
    path = write_raster(_noise(4, 16, 16), colorinterp=bgra, photometric="minisblack")
    with open_scene(path) as scene:
        assert scene.bands == (3, 2, 1)
        assert scene.validity.masks


def test_a_fourth_band_is_not_alpha_unless_it_says_so(write_raster: WriteRaster) -> None:
    rgbn = (ColorInterp.red, ColorInterp.green, ColorInterp.blue, ColorInterp.undefined)
    data = _noise(4, 16, 16)
    data[3] = 0
    with open_scene(write_raster(data, colorinterp=rgbn)) as scene:
        assert not scene.validity.masks
        assert scene.read(Window(0, 0, 16, 16))[1].all()


def test_one_band_is_seen_three_times(write_raster: WriteRaster) -> None:
    data = _noise(1, 16, 16)
    with open_scene(write_raster(data)) as scene:
        np.testing.assert_array_equal(scene.read(Window(0, 0, 16, 16))[0], np.repeat(_light(data), 3, axis=0))


def test_bands_can_be_chosen(write_raster: WriteRaster) -> None:
    data = _noise(5, 16, 16)
    with open_scene(write_raster(data), bands=(5, 1, 3)) as scene:
        np.testing.assert_array_equal(scene.read(Window(0, 0, 16, 16))[0], _light(data)[[4, 0, 2]])


@pytest.mark.parametrize("kind", ["nodata", "mask", "alpha"])
def test_pixels_without_data_are_invalid_and_grey(write_raster: WriteRaster, kind: str) -> None:
    data = _noise(4 if kind == "alpha" else 3, 24, 24)
    hole = np.zeros((24, 24), bool)
    hole[3:9, 5:20] = True
    with open_scene(write_raster(data, **hide(data, hole, kind))) as scene:
        batch = scene.batch([Window(0, 0, 24, 24)])
    np.testing.assert_array_equal(batch.valid[0], ~hole)
    np.testing.assert_array_equal(batch.pixels[0][:, hole], np.broadcast_to(FILL[:, 0], (3, hole.sum())))


def test_nodata_and_alpha_both_count(write_raster: WriteRaster) -> None:
    data = _noise(4, 12, 12)
    data[:3, :4], data[3], data[3, 8:] = 0, 255, 0
    with open_scene(write_raster(data, photometric="rgb", alpha="yes", nodata=0)) as scene:
        _, valid = scene.read(Window(0, 0, 12, 12))
    assert valid[:, 0].tolist() == [False] * 4 + [True] * 4 + [False] * 4


def test_a_pixel_lacks_data_when_its_three_bands_do(write_raster: WriteRaster) -> None:
    data = _noise(4, 4, 4)
    data[:3, 0], data[:2, 1] = 0, 0
    path = write_raster(data, nodata=0, photometric="minisblack")
    with open_scene(path, bands=(1, 2, 3)) as scene:
        _, valid = scene.read(Window(0, 0, 4, 4))
    assert valid[:, 0].tolist() == [False, True, True, True]


def test_windows_beyond_the_edge_are_reflected_and_invalid(write_raster: WriteRaster) -> None:
    data = _noise(3, 5, 7)
    with open_scene(write_raster(data)) as scene:
        batch = scene.batch([Window(0, 0, 16, 8)])
    assert batch.pixels.shape == (1, 3, 8, 16)
    expected = np.pad(data, [(0, 0), (0, 3), (0, 9)], mode="reflect").astype(np.float32) / 255
    np.testing.assert_array_equal(batch.pixels[0], np.where(np.ones((8, 16), bool), expected, 0))
    assert batch.valid[0].sum() == 35
    assert batch.valid[0, :5, :7].all()


def test_a_run_of_windows_equals_windows_read_alone(write_raster: WriteRaster) -> None:
    with open_scene(write_raster(_noise(3, 50, 90), nodata=7)) as scene:
        plan = plan_tiles(50, 90, tile=32, stride=20, patch=8)
        windows = list(plan.windows(Panel(0, 90)))
        together = scene.batch(windows)
        for n, window in enumerate(windows):
            alone = scene.batch([window])
            np.testing.assert_array_equal(alone.pixels[0], together.pixels[n])
            np.testing.assert_array_equal(alone.valid[0], together.valid[n])


def test_windows_without_data_are_left_out_and_batches_stay_full(write_raster: WriteRaster) -> None:
    data = _noise(3, 16, 16 * 10)
    data[:, :, 16:64] = 0
    with open_scene(write_raster(data, nodata=0)) as scene:
        windows = [Window(16 * n, 0, 16, 16) for n in range(10)]
        batches = list(read_ahead(scene, windows, batch=3, depth=2))
    assert [len(b) for b in batches] == [3, 3, 1]
    assert [w.col_off // 16 for b in batches for w in b.windows] == [0, 4, 5, 6, 7, 8, 9]


def test_leaving_early_ends_the_reader(write_raster: WriteRaster) -> None:
    with open_scene(write_raster(_noise(3, 16, 160))) as scene:
        for _ in read_ahead(scene, [Window(16 * n, 0, 16, 16) for n in range(10)], batch=1, depth=1):
            break
    assert not [t for t in threading.enumerate() if t.name == "geoovseg-reader"]


def test_a_file_cut_short_is_an_error_where_it_is_read(write_raster: WriteRaster, tmp_path: Path) -> None:
    path = tmp_path / "cut.tif"
    rasterio.shutil.copy(write_raster(_noise(3, 256, 256)), path, driver="COG", blocksize=128, overviews="NONE")
    with path.open("r+b") as file:
        file.truncate(path.stat().st_size * 3 // 4)
    windows = [Window(0, row, 256, 128) for row in (0, 128)]
    with (
        open_scene(path) as scene,
        pytest.raises(SceneError, match=r"cannot read rows 128..256 and columns 0..256 of .*cut.tif"),
    ):
        list(read_ahead(scene, windows, batch=1, depth=1))


def test_what_cannot_be_used_is_refused_with_its_name(write_raster: WriteRaster) -> None:
    with pytest.raises(SceneError, match=r"cannot open 'nowhere.tif'"), open_scene("nowhere.tif"):
        pass
    waves = write_raster(_noise(3, 8, 8).astype(np.complex64), "waves.tif")
    with pytest.raises(SceneError, match=r"waves.tif has complex pixels"), open_scene(waves):
        pass
    with pytest.raises(UsageError, match=r"--bands 1,2,9: three bands between 1 and 3"):
        with open_scene(write_raster(_noise(3, 8, 8)), bands=(1, 2, 9)):
            pass


@pytest.mark.parametrize(
    "name",
    [
        "rgb_uint8_utm_strip_nodata0.tif", "rgb_internal_mask_strip.tif", "rgba_uint8_alpha.tif", "naip_4band_rgbn.tif",
        "cog_jpeg_mask_overviews.tif", "rgb_uint8_internal_mask_cog.tif", "rgb_external_mask_usgs.tif",
        "rgb_4x4_jpeg.tif", "rgb_51px.tif", "planar_rgb_lzw.tif", "aerial_rgba_drone_field.tif",
    ],
)  # fmt: skip
@pytest.mark.filterwarnings("ignore::rasterio.errors.NotGeoreferencedWarning")
def test_real_files_are_read_as_rasterio_reads_them(name: str) -> None:
    path = shared_file("rasters", name)
    with rasterio.open(path) as src:
        data, valid = src.read((1, 2, 3)), src.dataset_mask() > 0
    with open_scene(path) as scene:
        found, known = scene.read(Window(0, 0, scene.shape[1], scene.shape[0]))
    np.testing.assert_array_equal(found, _light(data))
    np.testing.assert_array_equal(known, valid)


@pytest.mark.parametrize(
    "name", ["corrupt_jpeg_tile.tif", "bad_tags_colormap.tif", "unsupported_srs.tif", "gcp.vrt", "rpc.vrt"]
)
def test_damaged_real_files_are_errors_not_tracebacks(name: str) -> None:
    with pytest.raises(SceneError), open_scene(shared_file("rasters", name)) as scene:
        scene.read(Window(0, 0, scene.shape[1], scene.shape[0]))


def test_the_block_cache_is_small_unless_the_user_chose(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("GDAL_CACHEMAX", raising=False)
    before = get_gdal_config("GDAL_CACHEMAX")
    with raster_env(), raster_env():
        assert get_gdal_config("GDAL_CACHEMAX") == 64 << 20  # as GDAL has it: in bytes
    assert get_gdal_config("GDAL_CACHEMAX") == before
    with rasterio.Env(GDAL_CACHEMAX=200 << 20), raster_env():
        assert get_gdal_config("GDAL_CACHEMAX") == 200 << 20
    monkeypatch.setenv("GDAL_CACHEMAX", "10%")
    with raster_env():
        assert "GDAL_CACHEMAX" not in getenv()


@pytest.mark.parametrize(
    ("compress", "wide", "expected"), [("deflate", 16_384, 96), ("deflate", 512, 64), ("none", 16_384, 64)]
)
def test_the_block_cache_holds_two_rows_of_blocks_that_are_decoded(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, compress: str, wide: int, expected: int
) -> None:
    monkeypatch.delenv("GDAL_CACHEMAX", raising=False)
    monkeypatch.setattr(machine, "memory", lambda: 8 << 30)
    tiles = {"tiled": True, "blockxsize": 512, "blockysize": 1024, "sparse_ok": True, "compress": compress}
    place = {"crs": "EPSG:32632", "transform": from_origin(0, 0, 2, 2)}
    shape = {"driver": "GTiff", "count": 3, "dtype": "uint8", "width": wide, "height": 2048}
    with rasterio.open(tmp_path / "x.tif", "w", **shape, **tiles, **place):
        pass
    with open_scene(tmp_path / "x.tif") as scene:
        assert get_gdal_config("GDAL_CACHEMAX") == expected << 20
        with scene.afresh():
            assert get_gdal_config("GDAL_CACHEMAX") == expected << 20
    with rasterio.Env(GDAL_CACHEMAX=70 << 20), open_scene(tmp_path / "x.tif"):
        assert get_gdal_config("GDAL_CACHEMAX") == 70 << 20


def test_the_block_cache_grows_to_a_share_of_the_memory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("GDAL_CACHEMAX", raising=False)
    monkeypatch.setattr(machine, "memory", lambda: 3 << 30)
    shape = {"driver": "GTiff", "count": 3, "dtype": "uint8", "width": 400_000, "height": 8, "compress": "deflate"}
    with rasterio.open(tmp_path / "x.tif", "w", **shape, transform=from_origin(0, 0, 2, 2)) as dst:
        dst.write(np.zeros((3, 8, 400_000), np.uint8))
    with open_scene(tmp_path / "x.tif"):
        assert get_gdal_config("GDAL_CACHEMAX") == 96 << 20
