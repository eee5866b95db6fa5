"""Pictures: what is drawn where."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from rasterio.transform import from_origin

from geoovseg.errors import OutputError, SceneError, UsageError
from geoovseg.labels.preview import OPACITY, preview
from geoovseg.labels.record import RUN_TAG
from geoovseg.scene.scene import open_scene
from geoovseg.scene.views import metres_per_pixel

WriteRaster = Callable[..., str]


@pytest.fixture
def pair(write_raster: WriteRaster) -> tuple[str, str]:
    codes = np.zeros((1, 200, 300), np.uint8)
    codes[:, :, 100:200], codes[:, :, 200:] = 1, 255
    record = {"classes": [["road", ["road"], "#ff0000"]], "background": [], "threshold": None}
    scene = write_raster(np.full((3, 200, 300), 100, np.uint8), "scene.tif")
    labels = write_raster(codes, "labels.tif", nodata=255, tags={RUN_TAG: json.dumps(record)})
    import rasterio

    with rasterio.open(labels, "r+") as dst:
        dst.write_colormap(1, {1: (255, 0, 0, 255)})
    return scene, labels


def test_labels_lie_over_the_scene_in_their_colour(pair: tuple[str, str], tmp_path: Path) -> None:
    page = np.asarray(Image.open(preview(*pair, tmp_path / "p.png")))
    row, pane = page[40], 14 + 300 + 14
    grey, red = [100, 100, 100], [round(100 * (1 - OPACITY) + 255 * OPACITY), 45, 45]
    assert row[14 + 150].tolist() == grey
    assert row[pane + 50].tolist() == grey
    assert np.abs(row[pane + 150] - np.array(red)).max() <= 1
    assert row[pane + 250].tolist() == grey


def test_the_legend_shows_only_classes_that_occur(pair: tuple[str, str], tmp_path: Path) -> None:
    page = np.asarray(Image.open(preview(*pair, tmp_path / "p.png")))
    swatches = (page[230:] == (255, 0, 0)).all(axis=-1)
    assert 150 < swatches.sum() < 300


def test_large_scenes_are_drawn_small(pair: tuple[str, str], tmp_path: Path) -> None:
    page = np.asarray(Image.open(preview(*pair, tmp_path / "p.png", size=90)))
    assert page.shape[1] == 2 * 90 + 3 * 14


@pytest.mark.parametrize(
    ("crs", "transform", "metres"),
    [
        ("EPSG:32632", from_origin(480_000, 5_460_000, 0.5, 0.5), 0.5),
        ("EPSG:2263", from_origin(980_000, 200_000, 1, 1), 0.3048006),
        ("EPSG:4326", from_origin(9, 60, 1e-3, 1e-3), 55.8),
    ],
)
def test_a_pixels_width_is_known_in_metres(
    write_raster: WriteRaster, crs: str, transform: object, metres: float
) -> None:
    with open_scene(write_raster(np.ones((3, 4, 4), np.uint8), crs=crs, transform=transform)) as scene:
        assert metres_per_pixel(scene.src)[0] == pytest.approx(metres, rel=2e-3)


def test_what_cannot_be_drawn_is_refused(pair: tuple[str, str], write_raster: WriteRaster, tmp_path: Path) -> None:
    other = write_raster(np.ones((1, 5, 5), np.uint8), "other.tif")
    with pytest.raises(UsageError, match="differ in size or place"):
        preview(pair[0], other, tmp_path / "p.png")
    moved = write_raster(np.ones((1, 200, 300), np.uint8), "moved.tif", transform=from_origin(5, 5, 1, 1))
    with pytest.raises(UsageError, match="differ in size or place"):
        preview(pair[0], moved, tmp_path / "p.png")
    picture = write_raster(np.ones((3, 20, 30), np.uint8), "scene.png", driver="PNG")
    with pytest.raises(OutputError, match="is the scene or its labels"):
        preview(picture, pair[1], picture)
    with pytest.raises(SceneError, match="cannot read the labels"):
        preview(pair[0], tmp_path / "none.tif", tmp_path / "p.png")
    with pytest.raises(OutputError, match="cannot write the picture"):
        preview(*pair, tmp_path / "no" / "p.png")
    with pytest.raises(UsageError, match=r"scene.tif must end in .png"):
        preview(*pair, pair[0])
    assert not list(tmp_path.glob(".*"))  # nothing half-drawn is left
