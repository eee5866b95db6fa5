"""What polygons are made of, and what is refused: images, measures for labels, labels for confidence, unknown names."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyogrio
import pytest
import rasterio
from conftest import TRANSFORM
from rasterio.enums import ColorInterp

from geoovseg.errors import SceneError, UsageError
from geoovseg.labels.record import RUN_TAG
from geoovseg.vectors.vectorize import vectorize

Write = Callable[..., str]


@pytest.fixture
def labels(write_raster: Write) -> str:
    """One class and background."""
    codes = np.zeros((1, 60, 80), np.uint8)
    codes[0, 10:40, 10:60] = 1
    return write_raster(codes, "labels.tif", nodata=255)


def _read(path: Path) -> Any:
    return pyogrio.read_dataframe(path, layer="classes")


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
@pytest.mark.parametrize("bands", [2, 3, 4])
def test_images_are_no_labels(write_raster: Write, tmp_path: Path, bands: int, dtype: Any) -> None:
    path = write_raster(np.ones((bands, 9, 9), dtype), "image.tif")
    with pytest.raises(SceneError, match=rf"image.tif has {bands} bands, as images have; labels have one"):
        vectorize(path, tmp_path / "out.gpkg", workers=1)
    assert [p.name for p in tmp_path.iterdir()] == ["image.tif"]


def test_labels_may_have_a_band_of_transparency(write_raster: Write, tmp_path: Path) -> None:
    codes = np.ones((2, 9, 9), np.uint8)
    codes[1, :, :4] = 0
    codes[1, :, 4:] = 255
    path = write_raster(codes, "labels.tif", colorinterp=[ColorInterp.gray, ColorInterp.alpha])
    vectorize(path, tmp_path / "out.gpkg", workers=1)
    (polygon,) = _read(tmp_path / "out.gpkg").geometry
    assert polygon.area == pytest.approx(9 * 5 * TRANSFORM.a**2)


def test_labels_and_confidence_are_not_taken_for_each_other(
    geoovseg: Callable[..., Any], demo_scene: str, tmp_path: Path
) -> None:
    labels, sure, out = (tmp_path / name for name in ("labels.tif", "sure.tif", "out.gpkg"))
    common = ["segment", demo_scene, "--model", "demo", "-c", "road,water", "--quiet"]
    assert geoovseg(*common, "-o", labels, "--confidence", sure)[0] == 0
    code, _, err = geoovseg("vectorize", sure, out)
    assert code == 4
    assert "sure.tif has the scale 0.004: its pixels are measures such as confidence, not class codes" in err
    assert "--confidence" in err
    code, _, err = geoovseg("vectorize", labels, out, "--confidence", labels)
    assert code == 2
    assert "labels.tif has whole numbers without a scale, as labels have; give what `geoovseg segment" in err
    assert not out.exists()
    assert geoovseg("vectorize", labels, out, "--confidence", sure)[0] == 0


def test_a_scaled_raster_with_other_numbers_is_no_confidence(labels: str, write_raster: Write, tmp_path: Path) -> None:
    path = write_raster(np.full((1, 60, 80), 251, np.uint8), "sure.tif")
    with rasterio.open(path, "r+") as dst:
        dst.scales = (1 / 250,)
    with pytest.raises(UsageError, match="sure.tif has the value 1.004; confidence is between 0 and 1"):
        vectorize(labels, tmp_path / "out.gpkg", confidence=path, workers=1)


def test_shares_are_confidence_and_other_numbers_are_not(labels: str, write_raster: Write, tmp_path: Path) -> None:
    shares = np.full((1, 60, 80), 0.75, np.float32)
    shares[0, 0, :2] = 1 + 1e-7, np.nan
    vectorize(labels, tmp_path / "out.gpkg", confidence=write_raster(shares, "sure.tif"), workers=1)
    assert (_read(tmp_path / "out.gpkg").confidence == 0.75).all()
    for value in (-0.5, 3):
        shares[0, 59, 79] = value
        path = write_raster(shares, "codes.tif")
        with pytest.raises(UsageError, match=f"codes.tif has the value {value}; confidence is between 0 and 1"):
            vectorize(labels, tmp_path / "no.gpkg", confidence=path, block=32, workers=2)
    path = write_raster(np.repeat(shares, 3, axis=0), "image.tif")
    with pytest.raises(UsageError, match=r"--confidence .*image.tif has 3 bands"):
        vectorize(labels, tmp_path / "no.gpkg", confidence=path, workers=1)
    assert not (tmp_path / "no.gpkg").exists()


def _of_ours(write_raster: Write) -> str:
    """Labels that know road and water, without a pixel of water."""
    record = {"classes": [[name, [name], "#000000"] for name in ("road", "water")], "threshold": 0.5, "background": []}
    codes = np.zeros((1, 9, 9), np.uint8)
    codes[0, :3] = 1
    return write_raster(codes, "labels.tif", nodata=255, tags={RUN_TAG: json.dumps(record)})


def test_a_class_without_pixels_is_no_error(write_raster: Write, tmp_path: Path, geoovseg: Callable[..., Any]) -> None:
    path = _of_ours(write_raster)
    code, out, err = geoovseg("vectorize", path, tmp_path / "none.gpkg", "--classes", "water", "--workers", "1")
    assert code == 0, err
    assert out.strip() == str(tmp_path / "none.gpkg")
    assert "no polygon was made" in err
    assert len(_read(tmp_path / "none.gpkg")) == 0
    vectorize(path, tmp_path / "some.gpkg", classes=["water", "road"], workers=1)
    assert set(_read(tmp_path / "some.gpkg").class_name) == {"road"}


def test_an_unknown_class_is_told_all_there_are(write_raster: Write, tmp_path: Path) -> None:
    path = _of_ours(write_raster)
    with pytest.raises(UsageError, match="has no class 'watr'; it has background, road, water$"):
        vectorize(path, tmp_path / "out.gpkg", classes=["road", "watr"], workers=1)
