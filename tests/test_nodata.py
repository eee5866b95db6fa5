"""Where rasters have data and what their bands mean, as files in the wild say it: by names, masks, alpha, tags."""

from __future__ import annotations

import threading
import warnings
from collections.abc import Callable
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import pytest
import rasterio
from conftest import TRANSFORM
from rasterio.enums import ColorInterp
from rasterio.windows import Window

from geoovseg.errors import GeoOVSegWarning, SceneError, UsageError
from geoovseg.network import is_remote
from geoovseg.scene.scene import DEMO_TAG, open_scene
from geoovseg.segmenter import segment

WriteRaster = Callable[..., str]
C = ColorInterp
RGB = (C.red, C.green, C.blue)
RNG = np.random.default_rng(81)
PIXELS = RNG.integers(1, 250, (3, 40, 60)).astype(np.uint8)
HOLE = np.zeros((40, 60), bool)
HOLE[:, :16] = True


def _seen(path: str, **how: Any) -> tuple[np.ndarray, np.ndarray]:
    with open_scene(path, **how) as scene:
        return scene.measured().read(Window(0, 0, scene.shape[1], scene.shape[0]))


def _vrt(folder: Path, path: str, bands: list[dict[str, str]], more: str = "") -> str:
    """A VRT of bands of a file: `of`, `type`, `inside` (XML) of each."""
    with rasterio.open(path) as src:
        size = f'rasterXSize="{src.width}" rasterYSize="{src.height}"'
        srs, place = src.crs.to_wkt(), ",".join(map(str, src.transform.to_gdal()))
    text = "".join(
        f'<VRTRasterBand dataType="{band.get("type", "Byte")}" band="{n}">{band.get("inside", "")}<SimpleSource>'
        f"<SourceFilename>{path}</SourceFilename><SourceBand>{band['of']}</SourceBand></SimpleSource></VRTRasterBand>"
        for n, band in enumerate(bands, start=1)
    )
    vrt = folder / "scene.vrt"
    head = f"<VRTDataset {size}><SRS>{srs.replace('&', '&amp;')}</SRS><GeoTransform>{place}</GeoTransform>"
    vrt.write_text(f"{head}{text}{more}</VRTDataset>")
    return str(vrt)


ALPHA = {
    "nir-and-alpha": ((*RGB, C.undefined, C.alpha), "uint8"),
    "nir-and-alpha-16": ((*RGB, C.undefined, C.alpha), "uint16"),
    "alpha-first": ((C.alpha, *RGB), "uint8"),
    "float": ((*RGB, C.alpha), "float32"),
    "grey-float": ((C.gray, C.alpha), "float32"),
    "grey-int16": ((C.gray, C.alpha), "int16"),
}


@pytest.mark.parametrize("gsd", [None, 1.0])
@pytest.mark.parametrize("name", ALPHA)
def test_transparent_pixels_have_no_data_wherever_the_alpha_band_is(
    write_raster: WriteRaster, name: str, gsd: float | None
) -> None:
    kinds, dtype = ALPHA[name]
    light = iter([*PIXELS, PIXELS[0]])
    data = np.stack([~HOLE * 255 if kind == C.alpha else next(light) for kind in kinds]).astype(dtype)
    path = write_raster(data, colorinterp=kinds, photometric="minisblack")
    _, valid = _seen(path, gsd=gsd)
    step = 2 if gsd else 1
    np.testing.assert_array_equal(valid, ~HOLE[::step, ::step])


@pytest.mark.parametrize("own", [(0, 0, 0), (0, 1, 2)])
def test_nodata_of_each_band_counts_beside_alpha(
    tmp_path: Path, write_raster: WriteRaster, own: tuple[int, ...]
) -> None:
    data = np.concatenate([PIXELS + 3, np.full((1, 40, 60), 255, np.uint8)])
    data[3, 30:] = 0
    for band, value in enumerate(own):
        data[band][HOLE] = value
    path = write_raster(data, colorinterp=(*RGB, C.alpha))
    kinds = ("Red", "Green", "Blue", "Alpha")
    bands = [
        {"of": str(n), "inside": f"<ColorInterp>{kind}</ColorInterp>"}
        | ({} if n == 4 else {"inside": f"<NoDataValue>{own[n - 1]}</NoDataValue><ColorInterp>{kind}</ColorInterp>"})
        for n, kind in enumerate(kinds, start=1)
    ]
    _, valid = _seen(_vrt(tmp_path, path, bands))
    expected = ~HOLE
    expected[30:] = False
    np.testing.assert_array_equal(valid, expected)


def test_a_nodata_value_of_one_band_only_is_no_light(write_raster: WriteRaster) -> None:
    """Nor is it in the sample that black and white are taken from."""
    data = PIXELS.astype(np.float32)
    with open_scene(write_raster(data)) as scene:
        whole = scene.measured().intensity.limits
    data[0][HOLE] = -9999
    with open_scene(write_raster(data, nodata=-9999)) as scene:
        found = scene.measured().intensity.limits
        assert scene.measured().read(Window(0, 0, 60, 40))[1].all()
    assert whole is not None
    assert found == pytest.approx(whole, abs=3)


def test_a_nodata_value_that_one_band_lacks_makes_no_holes(tmp_path: Path, write_raster: WriteRaster) -> None:
    data = PIXELS.copy()
    data[0][HOLE] = 0
    bands = [{"of": "1", "inside": "<NoDataValue>0</NoDataValue>"}, {"of": "2"}, {"of": "3"}]
    assert _seen(_vrt(tmp_path, write_raster(data), bands))[1].all()


@pytest.mark.parametrize(
    ("names", "bands"),
    [
        (("blue", "green", "red"), (3, 2, 1)),
        (("blue", "green", "red", "nir"), (3, 2, 1)),
        (("Blue", "", "Red"), (1, 2, 3)),
    ],
)
def test_names_count_more_than_colours_nobody_asked_for(
    write_raster: WriteRaster, names: tuple[str, ...], bands: tuple[int, ...]
) -> None:
    """GDAL marks bands of every 8-bit GeoTIFF as red, green, blue and alpha."""
    data = np.concatenate([PIXELS, PIXELS[:1] * HOLE])[: len(names)]
    path = write_raster(data)
    with rasterio.open(path, "r+") as dst:
        dst.descriptions = names
        assert tuple(dst.colorinterp) == (*RGB, C.alpha)[: len(names)]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", GeoOVSegWarning)
        with open_scene(path) as scene:
            assert scene.bands == bands
            assert scene.read(Window(0, 0, 60, 40))[1].all()
        with open_scene(path, gsd=1) as scene:
            assert scene.read(Window(0, 0, 30, 20))[1].all()


def test_bands_that_are_called_other_light_bring_a_warning(write_raster: WriteRaster) -> None:
    path = write_raster(PIXELS)
    with rasterio.open(path, "r+") as dst:
        dst.descriptions = ("nir", "red", "green")
    with pytest.warns(GeoOVSegWarning, match="called nir, red, green, are seen as red, green, blue; see --bands"):
        with open_scene(path):
            pass


def test_bands_that_are_no_light_are_refused(tmp_path: Path, write_raster: WriteRaster) -> None:
    kinds = {"1": "Hue", "2": "Saturation", "3": "Lightness"}
    bands = [{"of": n, "inside": f"<ColorInterp>{kind}</ColorInterp>"} for n, kind in kinds.items()]
    vrt = _vrt(tmp_path, write_raster(PIXELS), bands)
    with pytest.raises(SceneError, match="are hue, saturation, lightness, not red, green and blue"), open_scene(vrt):
        pass
    with open_scene(vrt, bands=(1, 2, 3)) as scene:
        assert scene.bands == (1, 2, 3)


def test_undefined_is_no_name_of_a_band(write_raster: WriteRaster) -> None:
    path = write_raster(PIXELS.astype(np.uint16), photometric="minisblack")
    with pytest.raises(UsageError, match="no band 'undefined'"), open_scene(path, bands=("undefined",) * 3):
        pass


def test_bands_of_different_types_are_seen_together(tmp_path: Path, write_raster: WriteRaster) -> None:
    path = write_raster(PIXELS)
    vrt = _vrt(tmp_path, path, [{"of": "1"}, {"of": "2", "type": "UInt16"}, {"of": "3"}])
    np.testing.assert_array_equal(_seen(vrt, scale="0,255")[0], _seen(path)[0])
    with pytest.raises(UsageError, match="are uint16 and uint8; write --scale MIN,MAX"), open_scene(vrt, scale="dtype"):
        pass


def _table(*colours: tuple[int, int, int, int]) -> str:
    entries = "".join(f'<Entry c1="{r}" c2="{g}" c3="{b}" c4="{a}"/>' for r, g, b, a in colours)
    return f"<ColorInterp>Palette</ColorInterp><ColorTable>{entries}</ColorTable>"


def test_a_palette_gives_no_colours_but_its_own(tmp_path: Path, write_raster: WriteRaster) -> None:
    """Numbers beyond it have no data, colours beyond 255 are 255."""
    path = write_raster(np.tile(np.arange(4, dtype=np.uint8), (1, 10, 10)))
    colours = _table((0, 0, 0, 255), (300, 0, -5, 255), (9, 9, 9, 0))
    light, valid = _seen(_vrt(tmp_path, path, [{"of": "1", "inside": colours}]))
    np.testing.assert_array_equal(valid[0, :4], [True, True, False, False])
    np.testing.assert_array_equal(light[:, 0, 1], [1, 0, 0])


@pytest.mark.parametrize("dtype", ["Float32", "Float64"])
def test_a_palette_of_fractions_is_refused(tmp_path: Path, write_raster: WriteRaster, dtype: str) -> None:
    vrt = _vrt(tmp_path, write_raster(PIXELS), [{"of": "1", "type": dtype, "inside": _table((0, 0, 0, 255))}])
    with pytest.raises(SceneError, match=f"but has {dtype.lower()} pixels, which number no colours"), open_scene(vrt):
        pass


def test_only_chosen_bands_need_be_fit(tmp_path: Path, write_raster: WriteRaster) -> None:
    bands = [{"of": str(n)} for n in (1, 2, 3)] + [{"of": "1", "inside": "<ColorInterp>Palette</ColorInterp>"}]
    vrt = _vrt(tmp_path, write_raster(PIXELS), bands)
    with open_scene(vrt, bands=(1, 2, 3)) as scene:
        assert scene.bands == (1, 2, 3)
    with (
        pytest.raises(SceneError, match="band 4 of .* so it is seen alone: --bands 4,4,4"),
        open_scene(vrt, bands=(4, 1, 2)),
    ):
        pass


def test_where_the_smallest_number_is_white_it_is_seen_so(write_raster: WriteRaster) -> None:
    grey = PIXELS[:1]
    plain, _ = _seen(write_raster(grey))
    turned = write_raster(255 - grey, "white.tif", photometric="MINISWHITE")
    np.testing.assert_allclose(_seen(turned)[0], plain, atol=1e-6)
    coarse = _seen(write_raster(grey), gsd=1)[0]
    np.testing.assert_allclose(_seen(turned, gsd=1)[0], coarse, atol=1 / 200)


def test_scale_tags_that_are_no_numbers_are_refused(write_raster: WriteRaster) -> None:
    path = write_raster(PIXELS.astype(np.uint16))
    with rasterio.open(path, "r+") as dst:
        dst.scales = (float("nan"), 1.0, 1.0)
    with pytest.raises(SceneError, match="correct these tags"), open_scene(path):
        pass


def _masks_apart(path: str) -> None:
    """A mask file in which the bands have masks of their own."""
    size: dict[str, Any] = {"driver": "GTiff", "width": 60, "height": 40, "count": 3, "dtype": "uint8"}
    with rasterio.open(f"{path}.msk", "w", transform=TRANSFORM, **size) as dst:
        dst.write(np.stack([~HOLE * np.uint8(255)] * 3))
        dst.update_tags(**{f"INTERNAL_MASK_FLAGS_{n}": "0" for n in (1, 2, 3)})


@pytest.mark.parametrize("how", ["masks", "64 bits", "means"])
def test_what_has_no_data_has_none_at_another_resolution(tmp_path: Path, write_raster: WriteRaster, how: str) -> None:
    """Masks of each band, nodata beyond what floats hold, means that equal the nodata value."""
    data = PIXELS.copy()
    if how == "means":
        data[:, ::2], data[:, 1::2] = 127, 129
        data[:, HOLE] = 128
    path = write_raster(data, nodata=128 if how == "means" else None)
    if how == "masks":
        _masks_apart(path)
    elif how == "64 bits":
        most = 2**63 - 1
        large = write_raster(np.where(HOLE, most, PIXELS.astype(np.int64)), "large.tif")
        none = f"<NoDataValue>{most}</NoDataValue>"
        path = _vrt(tmp_path, large, [{"of": str(n), "type": "Int64", "inside": none} for n in (1, 2, 3)])
    np.testing.assert_array_equal(_seen(path)[1], ~HOLE)
    np.testing.assert_array_equal(_seen(path, gsd=1)[1], ~HOLE[::2, ::2])


@pytest.mark.parametrize("gsd", [None, 1.0])
@pytest.mark.parametrize("how", ["no tag", "alpha", "another tag", "16 bits", "vrt"])
def test_a_nodata_value_may_be_given(tmp_path: Path, write_raster: WriteRaster, how: str, gsd: float | None) -> None:
    """Also with --gsd, where it is not mixed with what is data."""
    data = np.concatenate([PIXELS, np.full((1, 40, 60), 255)]).astype(np.uint16 if how == "16 bits" else np.uint8)
    data[:3, HOLE] = 0
    expected = ~HOLE
    if how == "alpha":
        data[3, 30:] = 0
        expected[30:] = False
    path = write_raster(data[: 4 if how == "alpha" else 3], nodata=255 if how == "another tag" else None)
    if how == "vrt":
        path = _vrt(tmp_path, path, [{"of": str(n)} for n in (1, 2, 3)])
    light, valid = _seen(path, nodata=0, gsd=gsd, scale="0,255")
    plain, everywhere = _seen(write_raster(PIXELS, "plain.tif"), gsd=gsd, scale="0,255")
    np.testing.assert_array_equal(valid, expected[::2, ::2] if gsd else expected)
    assert everywhere.all()
    np.testing.assert_array_equal(light[:, valid], plain[:, valid])


def test_a_nodata_value_that_cannot_be_is_refused(write_raster: WriteRaster) -> None:
    path = write_raster(PIXELS)
    for value in (-1, 256, 0.5):
        with pytest.raises(UsageError, match="has uint8 pixels, which are never that"), open_scene(path, nodata=value):
            pass
    masked = write_raster(PIXELS, "masked.tif", mask=~HOLE)
    with pytest.raises(UsageError, match="leave --nodata away"), open_scene(masked, nodata=0):
        pass


def test_overviews_of_a_file_change_nothing(write_raster: WriteRaster, tmp_path: Path) -> None:
    path = write_raster(RNG.integers(0, 255, (3, 600, 600)).astype(np.uint8), tags={DEMO_TAG: "1"})
    given: dict[str, Any] = {"classes": "road,water", "model": "demo", "gsd": 2.0, "overwrite": True}
    labels = {}
    for overviews in (False, True):
        if overviews:
            with rasterio.open(path, "r+") as dst:
                dst.build_overviews([2, 4], rasterio.enums.Resampling.nearest)
        vrt = _vrt(tmp_path, path, [{"of": str(n)} for n in (1, 2, 3)])
        for name, more in (("file", {"grid": "scene"}), ("vrt", {})):
            result = segment(vrt if name == "vrt" else path, output=tmp_path / "labels.tif", **given, **more)
            with rasterio.open(result.labels) as src:
                labels[name, overviews] = src.read(1)
    for name in ("file", "vrt"):
        np.testing.assert_array_equal(labels[name, True], labels[name, False])


@pytest.mark.parametrize("code", ["EPSG:27572", "EPSG:27561"])
def test_coordinate_systems_on_grads_have_metres(write_raster: WriteRaster, code: str) -> None:
    place = {"EPSG:27572": (600_000, 2_200_000), "EPSG:27561": (600_000, 200_000)}[code]
    transform = TRANSFORM.translation(*place) @ TRANSFORM.scale(0.5, -0.5)
    with open_scene(write_raster(PIXELS, crs=code, transform=transform), gsd=1) as scene:
        assert scene.shape == (20, 30)


@pytest.mark.parametrize(
    "name",
    [
        "https://x/y.tif", "/vsicurl/https://x/y.tif", "/vsizip/vsicurl/https://x/y.zip/z.tif", "zip+https://x/y.zip!z.tif",
        "/vsisubfile/0,/vsicurl/http://x/y.tif", "/vsizip//vsis3/bucket/y.zip", "s3://bucket/y.tif",
    ],
)  # fmt: skip
def test_remote_names_are_known_in_all_their_forms(name: str) -> None:
    assert is_remote(name)


@pytest.mark.parametrize("name", ["y.tif", "/data/https/y.tif", "file:///data/y.tif", "/vsizip/data/y.zip/z.tif"])
def test_local_names_are_not_taken_for_remote(name: str) -> None:
    assert not is_remote(name)


class _Counted(SimpleHTTPRequestHandler):
    asked: ClassVar[list[str]] = []

    def log_message(self, format: str, *args: object) -> None:
        self.asked.append(self.path)


@pytest.mark.parametrize("offline", ["0", "1"])
def test_offline_no_part_of_a_scene_is_fetched(
    tmp_path: Path, write_raster: WriteRaster, monkeypatch: pytest.MonkeyPatch, offline: str
) -> None:
    """Also when only a local file names it; here on this machine's own address."""
    path = write_raster(PIXELS)
    monkeypatch.setenv("GEOOVSEG_OFFLINE", offline)
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    _Counted.asked.clear()
    with ThreadingHTTPServer(("127.0.0.1", 0), partial(_Counted, directory=str(tmp_path))) as server:
        threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True).start()
        vrt = Path(_vrt(tmp_path, path, [{"of": str(n)} for n in (1, 2, 3)]))
        vrt.write_text(vrt.read_text().replace(path, f"/vsicurl/http://127.0.0.1:{server.server_port}/scene.tif"))
        if offline == "0":
            np.testing.assert_array_equal(_seen(str(vrt))[0], _seen(path)[0])
        else:
            with pytest.raises(SceneError, match="forbid the network"):
                _seen(str(vrt))
        server.shutdown()
    assert bool(_Counted.asked) is (offline == "0")
