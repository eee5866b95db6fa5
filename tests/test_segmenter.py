"""A Segmenter loads its models once, and sees arrays as it sees scenes."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import rasterio
import rioxarray
import xarray

from geoovseg import Segmenter, segment
from geoovseg.demo.scenes import render
from geoovseg.errors import UsageError
from geoovseg.run import worker
from geoovseg.scene.scene import DEMO_TAG

GIVEN: dict[str, Any] = {"vocabulary": "demo", "model": "demo", "background": "none"}
Write = Callable[..., str]


@pytest.fixture(scope="module")
def segmenter() -> Segmenter:
    return Segmenter(**GIVEN)


def _read(path: Path) -> np.ndarray:
    with rasterio.open(path) as src:
        return src.read(1)


@pytest.mark.parametrize(
    "settings",
    [
        {},
        {"background": "auto", "threshold": 0.5},
        pytest.param({"method": "coninfer", "vfm": "demo", "settings": {"context": "scene"}}, marks=pytest.mark.trial),
        pytest.param({"method": "resegclip", "regions": "felzenszwalb"}, marks=pytest.mark.trial),
        pytest.param({"max_memory": 0.001, "upsample": "guided"}, marks=pytest.mark.trial),
    ],
)
def test_an_array_gets_the_labels_that_its_scene_gets(
    write_raster: Write, tmp_path: Path, settings: dict[str, Any]
) -> None:
    pixels = render(1000, 250, 540)[0]  # wider than a panel, if memory is short
    scene = write_raster(pixels, tags={DEMO_TAG: "1000"})
    with Segmenter(**{**GIVEN, **settings}) as segmenter:
        segmenter.segment(scene, output=tmp_path / "labels.tif", confidence=tmp_path / "sure.tif")
        codes, confidence = segmenter.predict(pixels)
    np.testing.assert_array_equal(codes, _read(tmp_path / "labels.tif"))
    np.testing.assert_array_equal(np.round(confidence * 250), _read(tmp_path / "sure.tif"))
    assert (codes.dtype, confidence.dtype) == (np.uint8, np.float32)


def test_the_order_of_axes_and_the_type_of_pixels_do_not_matter(
    segmenter: Segmenter, drawn: tuple[np.ndarray, np.ndarray]
) -> None:
    expected, sure = segmenter.predict(drawn[0])
    for same in (np.moveaxis(drawn[0], 0, -1), drawn[0] / np.float32(255), drawn[0].astype(np.float64) / 255):
        codes, confidence = segmenter.predict(same)
        np.testing.assert_array_equal(codes, expected)
        np.testing.assert_array_equal(confidence, sure)


def test_pixels_that_are_not_valid_have_no_label_and_touch_no_other_window(
    segmenter: Segmenter, drawn: tuple[np.ndarray, np.ndarray]
) -> None:
    whole, _ = segmenter.predict(drawn[0])
    valid = np.ones(drawn[0].shape[1:], bool)
    valid[:50, :60] = False
    codes, confidence = segmenter.predict(drawn[0], valid)
    assert (codes[~valid] == 255).all()
    assert np.isnan(confidence[~valid]).all()
    assert np.isfinite(confidence[valid]).all()
    np.testing.assert_array_equal(codes[170:], whole[170:])
    holes = np.where(valid, drawn[0] / np.float32(255), np.nan)
    np.testing.assert_array_equal(segmenter.predict(holes)[0] == 255, ~valid)


def test_scores_are_what_labels_are_the_best_of(segmenter: Segmenter, drawn: tuple[np.ndarray, np.ndarray]) -> None:
    scores = segmenter.scores(drawn[0])
    codes, _ = segmenter.predict(drawn[0])
    assert (scores.dtype, scores.shape) == (np.float32, (8, *drawn[0].shape[1:]))
    np.testing.assert_array_equal(scores.argmax(0) + 1, codes)


def test_of_a_dataarray_results_have_its_place_on_the_ground(segmenter: Segmenter, demo_scene: str) -> None:
    pixels = rioxarray.open_rasterio(demo_scene)
    assert isinstance(pixels, xarray.DataArray)
    codes, confidence = segmenter.predict(pixels)
    for found in (codes, confidence):
        assert found.dims == ("y", "x")
        assert found.rio.crs == pixels.rio.crs
        assert found.rio.transform() == pixels.rio.transform()
    last = segmenter.predict(pixels.transpose("y", "x", "band"))[0]
    np.testing.assert_array_equal(codes, segmenter.predict(pixels.values)[0])
    np.testing.assert_array_equal(last, codes)
    scores = segmenter.scores(pixels)
    assert scores.dims == ("class", "y", "x")
    assert list(scores["class"].values) == list(segmenter.words.names)


@pytest.mark.parametrize(
    ("pixels", "message"),
    [
        (np.zeros((5, 5)), r"shape \(5, 5\)"),
        (np.zeros((4, 6, 2), np.uint8), "give red, green, blue"),
        (np.zeros((3, 0, 4), np.uint8), "give red, green, blue"),
        (np.zeros((3, 5, 5), np.uint16), "uint16 pixels"),
        (np.full((3, 5, 5), 255.0), "float pixels from 255 to 255"),
        ("scene.tif", "shape"),
        (None, "shape"),
    ],
)
def test_arrays_of_another_form_are_refused(segmenter: Segmenter, pixels: Any, message: str) -> None:
    with pytest.raises(UsageError, match=message):
        segmenter.predict(pixels)


def test_a_mask_of_another_shape_and_choices_for_files_are_refused(segmenter: Segmenter) -> None:
    with pytest.raises(UsageError, match="does not fit"):
        segmenter.predict(np.zeros((3, 8, 8), np.uint8), np.ones((8, 9)))
    with pytest.raises(UsageError, match="gsd is a choice for files"):
        Segmenter(**GIVEN, gsd=2).predict(np.zeros((3, 8, 8), np.uint8))
    with pytest.raises(UsageError, match=r"arrays go to Segmenter\.predict"):
        segmenter.segment(np.zeros((3, 8, 8)))  # type: ignore[arg-type]


def test_models_are_loaded_once_for_many_scenes_and_arrays(
    write_raster: Write, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    loads: list[int] = []
    load = worker.load_predictor
    monkeypatch.setattr(worker, "load_predictor", lambda *given: loads.append(1) or load(*given))
    with Segmenter(**GIVEN) as segmenter:
        for n in range(3):
            scene = write_raster(render(1000 + n, 60, 70)[0], f"{n}.tif", tags={DEMO_TAG: "1"})
            alone = segment(scene, output=tmp_path / f"{n}_alone.tif", **GIVEN)
            together = segmenter.segment(scene, output=tmp_path / f"{n}_labels.tif")
            np.testing.assert_array_equal(_read(Path(alone.labels)), _read(Path(together.labels)))
        segmenter.predict(render(1000, 60, 70)[0])
    assert len(loads) == 1 + 3  # and one for each call of `segment`


def test_a_scene_that_fails_leaves_the_segmenter_usable(write_raster: Write, tmp_path: Path) -> None:
    good = write_raster(render(1000, 60, 70)[0], tags={DEMO_TAG: "1"})
    with Segmenter(**GIVEN, workers=2) as segmenter:
        with pytest.raises(OSError, match="cannot open"):
            segmenter.segment(tmp_path / "none.tif")
        assert Path(segmenter.segment(good, output=tmp_path / "labels.tif").labels).exists()


def test_polygons_come_with_the_labels(write_raster: Write, tmp_path: Path) -> None:
    scene = write_raster(render(1000, 60, 70)[0], tags={DEMO_TAG: "1"})
    with Segmenter(**GIVEN) as segmenter:
        result = segmenter.segment(scene, output=tmp_path / "labels.tif", vectors=tmp_path / "classes.gpkg")
    assert result.vectors == str(tmp_path / "classes.gpkg")
    assert (tmp_path / "classes.gpkg").stat().st_size > 0


def test_a_plain_script_may_use_workers(write_raster: Write, tmp_path: Path) -> None:
    """One without the usual guard: workers know nothing of the caller's main module."""
    scene = write_raster(render(1000, 1100, 70)[0], tags={DEMO_TAG: "1"})
    script = tmp_path / "script.py"
    script.write_text(
        "import geoovseg\n"
        "print('begun')\n"
        f"given = dict(model='demo', vocabulary='demo', workers=2, output={str(tmp_path / 'l.tif')!r})\n"
        f"made = geoovseg.segment({scene!r}, **given)\n"
        f"geoovseg.vectorize(made.labels, {str(tmp_path / 'v.gpkg')!r}, block=256, workers=2)\n"
    )
    done = subprocess.run([sys.executable, script], capture_output=True, text=True, timeout=240, check=False)
    assert (done.returncode, done.stdout) == (0, "begun\n"), done.stderr
    assert (tmp_path / "v.gpkg").exists()
