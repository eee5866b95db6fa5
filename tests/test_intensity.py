"""From stored numbers to light: one range for a scene, whatever the pixel type; and which bands are seen."""

from __future__ import annotations

import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import rasterio
from rasterio.enums import ColorInterp
from rasterio.windows import Window

from geoovseg.errors import GeoOVSegError, InterruptedRunError, SceneError, UsageError
from geoovseg.scene.intensity import Intensity, read_scale
from geoovseg.scene.scene import Scene, open_scene
from geoovseg.segmenter import segment

RNG = np.random.default_rng(8)
WriteRaster = Callable[..., str]


def _seen(path: str, **how: Any) -> tuple[np.ndarray, np.ndarray]:
    with open_scene(path, **how) as scene:
        return scene.measured().read(Window(0, 0, scene.shape[1], scene.shape[0]))


def _limits(path: str, **how: Any) -> tuple[float, float] | None:
    with open_scene(path, **how) as scene:
        return scene.measured().intensity.limits


@pytest.mark.parametrize(
    "dtype", ["uint16", "int16", "int8", "uint32", "int32", "int64", "uint64", "float32", "float64"]
)
def test_other_numbers_are_seen_between_percentiles_of_the_scene(write_raster: WriteRaster, dtype: str) -> None:
    data = RNG.integers(0, 120, (3, 40, 50)).astype(dtype)
    found, _ = _seen(write_raster(data))
    low, high = np.percentile(data.astype(np.float64), (2, 98))
    expected = np.clip((data.astype(np.float64) - low) / (high - low), 0, 1)
    np.testing.assert_allclose(found, expected, atol=1e-6)
    assert _limits(write_raster(data)) == (low, high)


def test_percentiles_leave_out_what_is_no_data(write_raster: WriteRaster) -> None:
    data = RNG.integers(100, 200, (3, 40, 50)).astype(np.uint16)
    data[:, :20] = 60_000
    low, high = _limits(write_raster(data, nodata=60_000)) or (0, 0)
    assert 100 <= low < high < 200


def test_eight_bits_are_seen_as_they_are(write_raster: WriteRaster) -> None:
    data = RNG.integers(90, 100, (3, 20, 20)).astype(np.uint8)
    np.testing.assert_array_equal(_seen(write_raster(data))[0], data.astype(np.float32) / 255)


def test_a_range_can_be_given_or_be_that_of_the_type(write_raster: WriteRaster) -> None:
    data = RNG.integers(0, 65_536, (3, 20, 20)).astype(np.uint16)
    path = write_raster(data)
    np.testing.assert_allclose(_seen(path, scale="dtype")[0], data / 65_535, atol=1e-7)
    given, _ = _seen(path, scale="1000,5000")
    np.testing.assert_allclose(given, np.clip((data.astype(float) - 1000) / 4000, 0, 1), atol=1e-6)


@pytest.mark.parametrize("high", [200.0, 255.0, 300.0, 65_535.0])
@pytest.mark.parametrize("dtype", ["uint8", "uint16", "int16"])
def test_numbers_above_zero_are_divided_and_kept_between_zero_and_one(dtype: str, high: float) -> None:
    kind = np.iinfo(dtype)
    values = np.arange(kind.min, kind.max + 1).astype(dtype)
    expected = np.clip(values.astype(np.float32) / np.float32(high), 0, 1)
    assert np.array_equal(Intensity(limits=(0, high)).scaled(values), expected)


@pytest.mark.parametrize(("bits", "dtype"), [(1, "uint8"), (4, "uint8"), (12, "uint16")])
def test_a_type_of_few_bits_has_the_range_of_its_bits(write_raster: WriteRaster, bits: int, dtype: str) -> None:
    data = RNG.integers(0, 2**bits, (1, 20, 24)).astype(dtype)
    path = write_raster(data, NBITS=bits)
    if bits > 1:  # one bit is a palette of black and white
        assert _limits(path, scale="dtype") == (0, 2**bits - 1)
    if dtype == "uint8":
        np.testing.assert_allclose(_seen(path)[0][0], data[0] / (2**bits - 1), atol=1e-7)


def test_tags_of_scale_and_offset_come_first(write_raster: WriteRaster) -> None:
    data = RNG.integers(0, 10_000, (3, 30, 30)).astype(np.int16)
    path = write_raster(data)
    with rasterio.open(path, "r+") as dst:
        dst.scales, dst.offsets = (1e-4, 1e-4, 2e-4), (0, 0.1, 0)
    values = data * np.array([1e-4, 1e-4, 2e-4])[:, None, None] + np.array([0, 0.1, 0])[:, None, None]
    np.testing.assert_allclose(_seen(path, scale="0,1.5")[0], np.clip(values / 1.5, 0, 1), atol=1e-6)
    assert _limits(path) == pytest.approx(tuple(np.percentile(values, (2, 98))))


def test_numbers_that_are_none_are_no_data(write_raster: WriteRaster) -> None:
    data = RNG.random((3, 20, 20)).astype(np.float32)
    data[1, 3, 4], data[0, 5, 6] = np.nan, np.inf
    found, valid = _seen(write_raster(data))
    assert np.argwhere(~valid).tolist() == [[3, 4], [5, 6]]
    assert np.isfinite(found).all()


def test_a_scene_without_data_has_none(write_raster: WriteRaster) -> None:
    found, valid = _seen(write_raster(np.zeros((3, 20, 20), np.uint16), nodata=0))
    assert not valid.any()
    assert not found.any()


def test_one_value_is_no_range_but_seen(write_raster: WriteRaster) -> None:
    assert not _seen(write_raster(np.full((3, 20, 20), 700, np.uint16)))[0].any()


def test_a_palette_is_seen_in_its_colours(write_raster: WriteRaster) -> None:
    data = RNG.integers(0, 4, (1, 20, 24)).astype(np.uint8)
    path = write_raster(data, photometric="palette", nodata=3)
    table = {0: (255, 0, 10, 255), 1: (0, 120, 0, 255), 2: (1, 2, 3, 0), 3: (9, 9, 9, 255)}
    with rasterio.open(path, "r+") as dst:
        dst.write_colormap(1, table)
    with rasterio.open(path) as src:
        transparent = src.colormap(1)[2][3] == 0  # TIFF keeps no alpha
    found, valid = _seen(path)
    colours = np.array([table[n][:3] for n in range(4)])[data[0]]
    np.testing.assert_allclose(found, np.moveaxis(colours, -1, 0) / 255, atol=1e-7)
    np.testing.assert_array_equal(valid, (data[0] != 3) & ((data[0] != 2) | (not transparent)))


@pytest.mark.parametrize("gsd", [0.3, 0.5, 0.8, 1.7])
def test_what_a_sparse_file_does_not_store_is_known_at_another_resolution(
    write_raster: WriteRaster, gsd: float
) -> None:
    """Nothing that has data is left out, and most of what has none is."""
    data = np.full((3, 320, 256), 7, np.uint8)
    data[:, 64:128, 32:96] = RNG.integers(8, 255, (3, 64, 64))
    path = write_raster(data, nodata=7, tiled=True, blockxsize=32, blockysize=32, sparse_ok=True)
    with open_scene(path, gsd=gsd) as scene:
        seen, lacked = scene.measured(), 0
        for row in range(0, seen.shape[0], 9):
            for col in range(0, seen.shape[1], 9):
                window = Window(col, row, min(9, seen.shape[1] - col), min(9, seen.shape[0] - row))
                assert not (seen.lacks(window) and seen.validity.read({"window": window}, (1, 1)).any())
                lacked += seen.lacks(window)
    assert lacked > 0.5 * (seen.shape[0] // 9) * (seen.shape[1] // 9)


def test_what_a_sparse_file_does_not_store_is_known_without_reading(write_raster: WriteRaster) -> None:
    data = np.full((3, 64, 96), 7, np.int16)
    data[:, :32, 64:] = RNG.integers(10, 20, (3, 32, 32))
    path = write_raster(data, nodata=7, tiled=True, blockxsize=32, blockysize=32, sparse_ok=True)
    whole, valid = _seen(path)
    np.testing.assert_array_equal(valid, (data != 7).any(0))
    with open_scene(path) as scene:
        assert scene.lacks(Window(0, 0, 64, 64))
        assert not scene.lacks(Window(0, 0, 65, 64))
        part, known = scene.measured().read(Window(40, 10, 40, 40))
    np.testing.assert_array_equal(known, valid[10:50, 40:80])
    np.testing.assert_array_equal(part[:, known], whole[:, 10:50, 40:80][:, known])


def test_a_sample_of_a_large_scene_is_always_the_same_one(write_raster: WriteRaster) -> None:
    ramp = np.add.outer(np.arange(1500), np.arange(1400)).astype(np.uint16)
    path = write_raster(np.stack([ramp] * 3))
    low, high = _limits(path) or (0, 0)
    assert (low, high) == _limits(path)
    assert (low, high) == pytest.approx(tuple(np.percentile(ramp, (2, 98))), rel=0.15)


def test_rare_data_is_found_where_a_sample_misses_it(write_raster: WriteRaster) -> None:
    data = np.zeros((1, 2500, 2500), np.uint16)
    data[:, 2490:, 2490:] = RNG.integers(100, 200, (1, 10, 10))
    low, high = _limits(write_raster(data, nodata=0)) or (0, 0)
    assert 100 <= low < high < 200


@pytest.mark.parametrize("text", ["", "some", "1", "1,2,3", "5,5", "7,3", "0,nan", "0,inf"])
def test_a_range_that_is_none_is_refused(text: str) -> None:
    with pytest.raises(UsageError, match="--scale"):
        read_scale(text)


def test_a_float_type_has_no_range(write_raster: WriteRaster) -> None:
    path = write_raster(RNG.random((3, 9, 9)).astype(np.float32))
    with pytest.raises(UsageError, match="float32 pixels, which have no range; write --scale MIN,MAX"):
        _limits(path, scale="dtype")


def _named(write_raster: WriteRaster, names: list[str | None], **profile: Any) -> str:
    path = write_raster(RNG.integers(0, 256, (len(names), 9, 9)).astype(np.uint8), photometric="minisblack", **profile)
    with rasterio.open(path, "r+") as dst:
        dst.descriptions = names
    return path


def test_bands_are_found_by_their_names(write_raster: WriteRaster) -> None:
    path = _named(write_raster, ["Blue", "Green", "Red", "NIR"])
    with open_scene(path) as scene:
        assert scene.bands == (3, 2, 1)
    with open_scene(path, bands=("nir", "RED", 2)) as scene:
        assert scene.bands == (4, 3, 2)
    with pytest.raises(UsageError, match=r"has no band 'swir'; its bands are called Blue, Green, Red, NIR"):
        with open_scene(path, bands=("swir", 1, 2)):
            pass


def test_bands_that_nothing_tells_apart_are_refused_with_what_to_type(write_raster: WriteRaster) -> None:
    path = _named(write_raster, [None] * 4)
    with pytest.raises(SceneError, match=r"has 4 bands and does not say .* --bands 3,2,1"), open_scene(path):
        pass


def test_three_bands_and_a_mask_need_no_names(write_raster: WriteRaster) -> None:
    path = _named(write_raster, [None] * 4)
    with rasterio.open(path, "r+") as dst:
        dst.colorinterp = [ColorInterp.gray, ColorInterp.undefined, ColorInterp.undefined, ColorInterp.alpha]
    with open_scene(path) as scene:
        assert scene.bands == (1, 2, 3)


@pytest.mark.filterwarnings("ignore::rasterio.errors.NotGeoreferencedWarning")
@pytest.mark.parametrize("kind", ["gcps", "rpcs"])
def test_a_scene_that_no_grid_places_is_refused_with_how_to_warp_it(write_raster: WriteRaster, kind: str) -> None:
    place = rasterio.transform.Affine.identity()
    path = write_raster(np.ones((3, 9, 9), np.uint8), crs=None, transform=place)
    with rasterio.open(path, "r+") as dst:
        if kind == "gcps":
            corners = [(0, 0), (0, 9), (9, 0), (9, 9)]
            points = [rasterio.control.GroundControlPoint(r, c, 7 + c / 1e4, 50 - r / 1e4) for r, c in corners]
            dst.gcps = (points, rasterio.CRS.from_epsg(4326))
        else:
            ones, other = [1.0, *[0.0] * 19], [0.0, 1.0, *[0.0] * 18]
            middle = {"lat_off": 50, "lat_scale": 1, "long_off": 7, "long_scale": 1, "height_off": 0, "height_scale": 1}
            camera = {"line_off": 0, "line_scale": 1, "samp_off": 0, "samp_scale": 1}
            ratios = {"line_num_coeff": other, "line_den_coeff": ones, "samp_num_coeff": other, "samp_den_coeff": ones}
            dst.rpcs = rasterio.rpc.RPC(**middle, **camera, **ratios)
    option = {"gcps": "-tps", "rpcs": "-rpc"}[kind]
    with pytest.raises(GeoOVSegError, match=rf"warp it first: gdalwarp {option}"), open_scene(path):
        pass


def test_a_palette_that_is_not_there_is_refused(tmp_path: Path, write_raster: WriteRaster) -> None:
    path = write_raster(np.ones((1, 9, 9), np.uint8))
    vrt = tmp_path / "scene.vrt"
    vrt.write_text(
        '<VRTDataset rasterXSize="9" rasterYSize="9"><VRTRasterBand dataType="Byte" band="1">'
        f"<ColorInterp>Palette</ColorInterp><SimpleSource><SourceFilename>{path}</SourceFilename></SimpleSource>"
        "</VRTRasterBand></VRTDataset>"
    )
    with pytest.raises(SceneError, match="stands for colours of a palette"), open_scene(vrt):
        pass


@pytest.mark.parametrize(
    ("place", "size", "message"),
    [("480000,0.5,0,nan,0,-0.5", 9, "values that are not numbers"), ("0,1,0,0,0,-1", 2**21, "more than can be")],
)
def test_places_and_sizes_that_cannot_be_are_refused(tmp_path: Path, place: str, size: int, message: str) -> None:
    vrt = tmp_path / "scene.vrt"
    vrt.write_text(
        f'<VRTDataset rasterXSize="{size}" rasterYSize="{size}"><GeoTransform>{place}</GeoTransform>'
        '<VRTRasterBand dataType="Byte" band="1"/></VRTDataset>'
    )
    with pytest.raises(SceneError, match=message), open_scene(vrt):
        pass


def test_a_strip_as_large_as_the_scene_is_not_decoded_for_every_look(
    write_raster: WriteRaster, monkeypatch: pytest.MonkeyPatch
) -> None:
    data = RNG.integers(0, 4000, (3, 1100, 1200)).astype(np.uint16)
    tiled = _limits(write_raster(data, tiled=True, blockxsize=256, blockysize=256))
    reads: list[Window] = []
    values = Scene._values
    monkeypatch.setattr(Scene, "_values", lambda self, *given: reads.append(given[0]) or values(self, *given))
    assert _limits(write_raster(data, blockysize=1100, compress="deflate")) == tiled
    assert 8 < len(reads) <= 16


def test_a_search_for_rare_data_stops_when_asked(write_raster: WriteRaster, tmp_path: Path) -> None:
    """Without any, all of a scene is looked at, however large."""
    path = write_raster(np.zeros((3, 1100, 1100), np.uint16), nodata=0)
    asked: list[int] = []

    def stop() -> int | None:
        asked.append(1)
        return signal.SIGTERM if len(asked) == 3 else None

    with pytest.raises(InterruptedRunError, match="stopped before the first part; nothing is lost"):
        segment(path, "road,water", model="demo", output=tmp_path / "labels.tif", stop=stop)
    assert not list(tmp_path.glob("labels*"))
