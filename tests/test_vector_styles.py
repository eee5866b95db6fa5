"""QGIS styles beside polygons: there for every format, and never in the place of another file's."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from geoovseg.errors import GeoOVSegWarning
from geoovseg.vectors.vectorize import vectorize


@pytest.fixture
def labels(write_raster: Callable[..., str]) -> str:
    return write_raster(np.array([[[1, 1, 2], [1, 2, 2]]], np.uint8), "labels.tif")


def _silently(labels: str, target: Path, **given: object) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        vectorize(labels, target, **given)  # type: ignore[arg-type]


@pytest.mark.parametrize("suffix", [".fgb", ".parquet", ".geojson", ".geojsonl"])
def test_polygons_have_their_style_beside_them(labels: str, tmp_path: Path, suffix: str) -> None:
    _silently(labels, tmp_path / f"roads.x{suffix}")
    text = (tmp_path / "roads.x.qml").read_text()
    assert 'attr="class_id"' in text
    assert 'label="class 2"' in text
    assert not list(tmp_path.glob(".*"))


def test_a_geopackage_has_its_style_inside(labels: str, tmp_path: Path) -> None:
    _silently(labels, tmp_path / "roads.gpkg")
    assert not list(tmp_path.glob("*.qml"))


def test_the_style_of_a_raster_is_left_alone(labels: str, tmp_path: Path) -> None:
    (tmp_path / "labels.qml").write_text("mine")
    for given in ({}, {"overwrite": True}):
        with pytest.warns(GeoOVSegWarning, match=r"labels.fgb has no style of its own: QGIS would use .*labels.tif"):
            vectorize(labels, tmp_path / "labels.fgb", **given)  # type: ignore[arg-type]
        assert (tmp_path / "labels.qml").read_text() == "mine"


def test_a_raster_without_a_style_gets_none_of_polygons(labels: str, tmp_path: Path) -> None:
    with pytest.warns(GeoOVSegWarning, match="QGIS would use"):
        vectorize(labels, tmp_path / "labels.geojson")
    assert not (tmp_path / "labels.qml").exists()


def test_a_style_of_somebody_else_is_replaced_only_when_asked(labels: str, tmp_path: Path) -> None:
    (tmp_path / "roads.qml").write_text("mine")
    with pytest.warns(GeoOVSegWarning, match=r"roads.qml is there already"):
        vectorize(labels, tmp_path / "roads.fgb")
    assert (tmp_path / "roads.qml").read_text() == "mine"
    _silently(labels, tmp_path / "roads.fgb", overwrite=True)
    assert 'attr="class_id"' in (tmp_path / "roads.qml").read_text()
    (tmp_path / "roads.qml").write_text("<qgis><pipe><rasterrenderer/></pipe></qgis>")
    with pytest.warns(GeoOVSegWarning, match=r"roads.qml is there already"):
        vectorize(labels, tmp_path / "roads.fgb", overwrite=True)


def test_files_of_the_same_polygons_share_a_style_and_others_keep_theirs(labels: str, tmp_path: Path) -> None:
    for suffix in (".fgb", ".parquet"):
        _silently(labels, tmp_path / f"all{suffix}")
    text = (tmp_path / "all.qml").read_text()
    with pytest.warns(GeoOVSegWarning, match=r"all.geojson has no style of its own: QGIS would use .*all.fgb"):
        vectorize(labels, tmp_path / "all.geojson", classes=["class 1"], overwrite=True)
    assert (tmp_path / "all.qml").read_text() == text
