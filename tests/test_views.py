"""The working grid: a scene at so many metres a pixel, on the same ground, and scores brought back from it."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any
from xml.sax.saxutils import escape

import numpy as np
import pytest
import rasterio
from affine import Affine
from conftest import TRANSFORM, hide
from rasterio.enums import ColorInterp
from rasterio.errors import NotGeoreferencedWarning
from rasterio.transform import from_origin
from rasterio.windows import Window

from geoovseg.demo.scenes import render
from geoovseg.errors import GeoOVSegWarning, UsageError
from geoovseg.evaluation import evaluate
from geoovseg.labels.preview import preview
from geoovseg.pipeline import merge
from geoovseg.rasters.open import plain_open
from geoovseg.scene.scene import DEMO_TAG, open_scene
from geoovseg.segmenter import segment
from geoovseg.vectors.vectorize import vectorize

RNG = np.random.default_rng(12)
WriteRaster = Callable[..., str]
FOOT = 0.3048006096012192
COMMON: dict[str, Any] = {"classes": "building,road,water,tree,grass", "model": "demo", "background": "none"}


def _whole(path: str, **how: Any) -> tuple[np.ndarray, np.ndarray, Any]:
    with open_scene(path, **how) as scene:
        return *scene.measured().read(Window(0, 0, scene.shape[1], scene.shape[0])), scene.transform


def test_pixels_of_the_working_grid_are_means(write_raster: WriteRaster) -> None:
    data = RNG.integers(0, 256, (3, 40, 60)).astype(np.uint8)
    found, _, place = _whole(write_raster(data), gsd=1.0)  # pixels of half a metre
    means = data.reshape(3, 20, 2, 30, 2).mean(axis=(2, 4))
    assert np.abs(found * 255 - means).max() <= 0.5 + 1e-4
    assert place == TRANSFORM @ Affine.scale(2)


@pytest.mark.parametrize(
    ("crs", "transform"),
    [
        ("EPSG:32632", from_origin(480_000, 5_460_000, 0.5, 0.5)),
        ("EPSG:32632", from_origin(480_000, 5_460_000, 0.5, 0.5) @ Affine.rotation(25)),
        ("EPSG:32632", Affine(0.5, 0, 480_000, 0, 0.5, 5_460_000)),
        ("EPSG:2263", from_origin(980_000, 200_000, 0.5 / FOOT, 0.5 / FOOT)),
        ("EPSG:4326", from_origin(9, 0, 0.5 / 111_319.49, 0.5 / 110_574.3)),
        ("EPSG:3857", from_origin(1_000_000, 8_399_737.9, 1.0, 1.0)),
    ],
    ids=["metres", "rotated", "south-up", "feet", "degrees", "web-mercator-at-60-degrees"],
)
def test_metres_are_metres_on_the_ground(write_raster: WriteRaster, crs: str, transform: Affine) -> None:
    path = write_raster(np.ones((3, 60, 90), np.uint8), crs=crs, transform=transform)
    with open_scene(path, gsd=1.5) as scene:
        assert scene.shape == (20, 30)
        corner = scene.transform * (30, 20)
        assert corner == pytest.approx(transform * (90, 60), rel=1e-12)


def test_finer_grids_are_interpolated(write_raster: WriteRaster) -> None:
    ramp = np.broadcast_to(np.arange(0, 200, 10, dtype=np.uint8), (3, 20, 20))
    found, _, _ = _whole(write_raster(ramp.copy()), gsd=0.25)
    assert found.shape == (3, 40, 40)
    assert (np.diff(found[0, 5]) >= 0).all()
    assert len(np.unique(found[0, 5])) > 25


@pytest.mark.parametrize("kind", ["nodata", "mask", "alpha"])
def test_means_leave_out_what_is_no_data(write_raster: WriteRaster, kind: str) -> None:
    data = np.full((4 if kind == "alpha" else 3, 40, 40), 200, np.uint8)
    hole = np.zeros((40, 40), bool)
    hole[:20], hole[20, 20] = True, True
    data[:3, hole] = 0
    found, valid, _ = _whole(write_raster(data, **hide(data, hole, kind)), gsd=1.0)
    np.testing.assert_array_equal(valid, np.arange(20)[:, None].repeat(20, 1) >= 10)
    np.testing.assert_allclose(found[:, valid], 200 / 255, atol=1e-6)


def test_what_a_file_says_of_its_bands_stays(write_raster: WriteRaster) -> None:
    data = RNG.integers(0, 4096, (4, 20, 20)).astype(np.uint16)
    path = write_raster(data, photometric="minisblack", nodata=7, NBITS=12)
    with rasterio.open(path, "r+") as dst:
        dst.descriptions = ("blue", "green", "red", "nir")
        dst.scales, dst.offsets = (0.1,) * 4, (2.0,) * 4
    with open_scene(path) as own, open_scene(path, gsd=2) as other:
        assert own.bands == other.bands == (3, 2, 1)
        assert own.intensity == other.intensity
        assert own.validity.masks == other.validity.masks == (1, 2, 3)
        assert own.files == other.files
        assert own.crs == other.crs
        assert own.src.tags(1, ns="IMAGE_STRUCTURE")["NBITS"] == other.src.tags(1, ns="IMAGE_STRUCTURE")["NBITS"]


def test_colours_of_a_palette_are_taken_not_mixed(write_raster: WriteRaster) -> None:
    data = RNG.choice([1, 9], (1, 20, 20)).astype(np.uint8)
    path = write_raster(data, photometric="palette")
    with rasterio.open(path, "r+") as dst:
        dst.write_colormap(1, {1: (255, 0, 0, 255), 9: (0, 0, 255, 255)})
    found, _, _ = _whole(path, gsd=1.0)
    assert set(np.unique(found)) == {0, 1}
    assert not found[1].any()


def test_windows_of_the_working_grid_do_not_depend_on_how_they_are_read(write_raster: WriteRaster) -> None:
    path = write_raster(RNG.integers(0, 256, (3, 97, 133)).astype(np.uint8))
    whole, _, _ = _whole(path, gsd=0.85)
    with open_scene(path, gsd=0.85) as scene:
        for window in (Window(3, 5, 20, 20), Window(40, 30, 17, 9), Window(60, 10, 2, 3)):
            rows, cols = window.toslices()
            np.testing.assert_array_equal(scene.read(window)[0], whole[:, rows, cols])


@pytest.mark.parametrize(
    ("crs", "gsd", "message"),
    [
        (None, 1.0, "does not say how many metres"),
        ("EPSG:32632", -1.0, "must be"),
        ("EPSG:32632", float("nan"), "must be"),
        ("EPSG:32632", 1e-9, "choose more metres"),
    ],
)
@pytest.mark.filterwarnings("ignore::geoovseg.errors.GeoOVSegWarning")
def test_metres_that_cannot_be_are_refused(
    write_raster: WriteRaster, crs: str | None, gsd: float, message: str
) -> None:
    with (
        pytest.raises(UsageError, match=message),
        open_scene(write_raster(np.ones((3, 9, 9), np.uint8), crs=crs), gsd=gsd),
    ):
        pass


@pytest.fixture(scope="module")
def demo() -> np.ndarray:
    """A drawn scene (3, 224, 280) of half-metre pixels."""
    return render(seed=1004, height=224, width=280)[0]


def _labels(path: str, tmp_path: Path, **how: Any) -> np.ndarray:
    result = segment(path, output=tmp_path / "labels.tif", overwrite=True, **COMMON, **how)
    with rasterio.open(result.labels) as src:
        return src.read(1)


VARIANTS: dict[str, Callable[[np.ndarray], dict[str, Any]]] = {
    "uint16": lambda data: {"data": data.astype(np.uint16) * 257, "how": {"scale": "dtype"}},
    "eight-bits-in-uint16": lambda data: {"data": data.astype(np.uint16), "how": {"scale": "0,255"}},
    "float": lambda data: {"data": data.astype(np.float32) / 255, "how": {"scale": "0,1"}},
    "bgr": lambda data: {
        "data": data[::-1].copy(),
        "colorinterp": (ColorInterp.blue, ColorInterp.green, ColorInterp.red),
        "photometric": "minisblack",
    },
    "four-bands": lambda data: {
        "data": np.concatenate([data, data[:1]]),
        "colorinterp": (ColorInterp.red, ColorInterp.green, ColorInterp.blue, ColorInterp.undefined),
    },
    "chosen-bands": lambda data: {"data": data[[1, 2, 0]], "how": {"bands": (3, 1, 2)}},
    "degrees": lambda data: {"data": data, "crs": "EPSG:4326", "transform": from_origin(9, 49, 7e-6, 4.5e-6)},
    "feet": lambda data: {"data": data, "crs": "EPSG:2263", "transform": from_origin(9e5, 2e5, 0.5 / FOOT, 0.5 / FOOT)},
    "rotated": lambda data: {"data": data, "transform": TRANSFORM @ Affine.rotation(30)},
    "south-up": lambda data: {"data": data, "transform": Affine(0.5, 0, 480_000, 0, 0.5, 5_400_000)},
}


@pytest.mark.parametrize("name", VARIANTS)
def test_the_same_pixels_in_another_guise_have_the_same_labels(
    write_raster: WriteRaster, tmp_path: Path, demo: np.ndarray, name: str
) -> None:
    tags = {DEMO_TAG: "1004"}
    expected = _labels(write_raster(demo, "plain.tif", tags=tags), tmp_path)
    variant = VARIANTS[name](demo)
    how, data = variant.pop("how", {}), variant.pop("data")
    path = write_raster(data, "variant.tif", tags=tags, **variant)
    found = _labels(path, tmp_path, **how)
    assert len(np.unique(expected)) > 2
    assert (found == expected).mean() >= 0.999
    with rasterio.open(path) as src, rasterio.open(tmp_path / "labels.tif") as dst:
        assert (src.crs, src.transform, src.shape) == (dst.crs, dst.transform, dst.shape)


@pytest.mark.parametrize("name", ["metres", "degrees", "feet", "rotated"])
def test_a_finer_scene_seen_at_the_models_resolution_has_its_labels(
    write_raster: WriteRaster, tmp_path: Path, demo: np.ndarray, name: str
) -> None:
    """Each pixel drawn as 3 x 3 finer ones."""
    tags = {DEMO_TAG: "1004"}
    expected = _labels(write_raster(demo, "plain.tif", tags=tags), tmp_path)
    fine = np.kron(demo, np.ones((1, 3, 3), np.uint8))
    places = {
        "metres": ("EPSG:32632", TRANSFORM),
        "degrees": ("EPSG:4326", from_origin(9, 0, 0.5 / 111_319.49, 0.5 / 110_574.3)),
        "feet": ("EPSG:2263", from_origin(980_000, 200_000, 0.5 / FOOT, 0.5 / FOOT)),
        "rotated": ("EPSG:32632", TRANSFORM @ Affine.rotation(30)),
    }
    crs, place = places[name]
    path = write_raster(fine, "fine.tif", tags=tags, crs=crs, transform=place @ Affine.scale(1 / 3))
    found = _labels(path, tmp_path, gsd=0.5)
    assert found.shape == expected.shape
    assert (found == expected).mean() >= 0.999
    back = _labels(path, tmp_path, gsd=0.5, grid="scene")
    assert back.shape == fine.shape[1:]
    assert (back == np.kron(expected, np.ones((3, 3), np.uint8))).mean() > 0.97
    with rasterio.open(path) as src, rasterio.open(tmp_path / "labels.tif") as dst:
        assert (src.crs, src.transform) == (dst.crs, dst.transform)


def test_scores_come_back_without_data_where_the_scene_has_none(
    write_raster: WriteRaster, tmp_path: Path, demo: np.ndarray
) -> None:
    data = demo.copy()
    data[:, 31:77, 53:200] = 0
    path = write_raster(np.maximum(data, (data.any(0) * 1).astype(np.uint8)), nodata=0, tags={DEMO_TAG: "1004"})
    found = _labels(path, tmp_path, gsd=0.8, grid="scene")
    np.testing.assert_array_equal(found == 255, ~data.any(0))


def test_a_method_that_looks_at_the_scene_first_looks_at_the_resolution_it_will_see(
    write_raster: WriteRaster, tmp_path: Path, demo: np.ndarray
) -> None:
    """So labels on the scene's pixels are those of the working grid, where these are squares of equal ones."""
    fine = np.kron(demo[:, :112], np.ones((1, 3, 3), np.uint8))
    path = write_raster(fine, transform=TRANSFORM @ Affine.scale(1 / 3), tags={DEMO_TAG: "1004"})
    given: dict[str, Any] = {"method": "coninfer", "vfm": "demo", "settings": {"context": "scene"}, "gsd": 0.5}
    coarse = _labels(path, tmp_path, **given)
    back = _labels(path, tmp_path, **given, grid="scene")
    assert (back[1::3, 1::3] == coarse).mean() > 0.995


def test_a_raster_without_a_place_gets_none(tmp_path: Path, demo: np.ndarray) -> None:
    """A transform of ones, written, would turn its rows round in a GIS. Nothing made of the labels minds."""
    path, labels, sure = (tmp_path / f"{name}.tif" for name in ("nowhere", "labels", "sure"))
    with plain_open(path, "w", driver="GTiff", width=60, height=40, count=3, dtype="uint8") as dst:
        dst.write(demo[:, :40, :60])
    segment(path, output=labels, confidence=str(sure), **COMMON)
    for name in (path, labels, sure):
        with pytest.warns(NotGeoreferencedWarning), rasterio.open(name) as src:
            assert src.transform.is_identity
    preview(path, labels, tmp_path / "picture.png")
    evaluate(labels, labels)
    vectorize(labels, tmp_path / "polygons.gpkg", min_area=2)


def test_far_finer_pixels_bring_a_hint(write_raster: WriteRaster, tmp_path: Path) -> None:
    place = from_origin(480_000, 5_460_000, 0.02, 0.02)
    path = write_raster(np.ones((3, 60, 60), np.uint8), transform=place, tags={DEMO_TAG: "1"})
    with pytest.warns(
        GeoOVSegWarning,
        match=r"pixels of 0.02 m are finer than the 0.3 to 1.2 m.* 112 of them.* are 2.24 m "
        r"of ground, where those saw 34 to 134 m; with --gsd 0.5 --grid scene it would see 56 m, and 0.16 % of as many",
    ):
        _labels(path, tmp_path)


def test_pixels_as_of_published_results_bring_no_hint(write_raster: WriteRaster, tmp_path: Path) -> None:
    place = from_origin(480_000, 5_460_000, 0.26, 0.26)
    path = write_raster(np.ones((3, 60, 60), np.uint8), transform=place, tags={DEMO_TAG: "1"})
    _labels(path, tmp_path)


@pytest.mark.parametrize("metres", [10, 30])
def test_far_coarser_pixels_bring_a_hint(write_raster: WriteRaster, tmp_path: Path, metres: int) -> None:
    place = from_origin(480_000, 5_460_000, metres, metres)
    path = write_raster(np.ones((3, 60, 60), np.uint8), transform=place, tags={DEMO_TAG: "1"})
    with pytest.warns(GeoOVSegWarning, match=rf"pixels of {metres} m are far coarser than .* forest,water"):
        _labels(path, tmp_path)


@pytest.mark.parametrize(
    "text",
    [
        "+proj=longlat +pm=paris +ellps=clrk80ign",
        "+proj=longlat +datum=WGS84 +lon_wrap=180",
        "+proj=ob_tran +o_proj=longlat +o_lon_p=-162 +o_lat_p=39.25 +lon_0=180 +to_meter=0.0174532925199433",
    ],
)
def test_a_coordinate_system_that_geotiff_cannot_hold_is_in_the_side_files(
    write_raster: WriteRaster, tmp_path: Path, text: str
) -> None:
    """As of a VRT; also when shards are merged."""
    crs = rasterio.CRS.from_string(text)
    path = write_raster(np.ones((3, 20, 20), np.uint8), transform=from_origin(45, 0, 1e-3, 1e-3), crs=crs)
    side = Path(f"{path}.aux.xml")
    side.write_text(f"<PAMDataset><SRS>{escape(crs.to_wkt())}</SRS></PAMDataset>")
    given: dict[str, Any] = {"classes": "road,water", "model": "demo", "confidence": str(tmp_path / "sure.tif")}
    whole = segment(path, output=tmp_path / "whole.tif", **given)
    given["confidence"] = str(tmp_path / "merged_sure.tif")
    merge(str(segment(path, output=tmp_path / "merged.tif", shard=(1, 1), **given).parts_dir))
    for name in (path, whole.labels, whole.confidence, tmp_path / "merged.tif", tmp_path / "merged_sure.tif"):
        with rasterio.open(str(name)) as src:
            assert src.crs == crs, name
    Path(f"{whole.labels}.aux.xml").unlink()
    with rasterio.open(whole.labels) as src:
        assert src.crs != crs
