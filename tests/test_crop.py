"""Only the box around an area is written: the same pixels as those of the whole scene."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import rasterio
from affine import Affine
from conftest import TRANSFORM

from geoovseg import merge, segment
from geoovseg.errors import UsageError

AREA = "480010.2,5459920.4,480060.9,5459980.1"
"""Columns 20 to 122, rows 39 to 160."""


@pytest.fixture
def scene(write_raster: Any) -> str:
    return write_raster(np.random.default_rng(1).integers(1, 255, (3, 600, 220), dtype=np.uint8))


def _same(cropped: str, whole: str) -> None:
    with rasterio.open(cropped) as part, rasterio.open(whole) as src:
        assert part.shape == (121, 102)
        assert part.transform == src.transform @ Affine.translation(20, 39)
        assert part.crs == src.crs
        assert (part.read(1) == src.read(1)[39:160, 20:122]).all()


def test_a_crop_has_the_pixels_of_the_whole_scene(scene: str, tmp_path: Path) -> None:
    given: dict[str, Any] = {"model": "demo", "aoi": AREA}
    whole = segment(scene, "road", output=tmp_path / "w.tif", confidence=tmp_path / "wc.tif", **given)
    made = segment(scene, "road", output=tmp_path / "c.tif", confidence=tmp_path / "cc.tif", crop=True, **given)
    _same(made.labels, whole.labels)
    assert made.confidence is not None
    assert whole.confidence is not None
    _same(made.confidence, whole.confidence)
    assert made.classes == whole.classes
    assert segment(scene, "road", output=tmp_path / "c.tif", crop=True, skip_finished=True, **given).was_there


def test_shards_make_the_same_crop(scene: str, tmp_path: Path) -> None:
    given: dict[str, Any] = {"model": "demo", "aoi": AREA}
    whole = segment(scene, "road", output=tmp_path / "w.tif", **given)
    for number in (1, 2):
        segment(scene, "road", output=tmp_path / "c.tif", crop=True, shard=(number, 2), **given)
    _same(merge(tmp_path / "c.tif.parts").labels, whole.labels)


def test_an_area_beyond_the_scene_is_cut_at_its_edge(scene: str, tmp_path: Path) -> None:
    area = "479000,5459990,480005,5461000"
    made = segment(scene, "road", model="demo", aoi=area, crop=True, output=tmp_path / "c.tif")
    with rasterio.open(made.labels) as src:
        assert (src.shape, src.transform) == ((20, 10), TRANSFORM)


def test_a_turned_scene_is_cropped_on_its_own_grid(write_raster: Any, tmp_path: Path) -> None:
    turned = TRANSFORM @ Affine.rotation(30)
    scene = write_raster(np.random.default_rng(1).integers(1, 255, (3, 200, 220), dtype=np.uint8), transform=turned)
    area = {"type": "Polygon", "coordinates": [[turned @ at for at in ((50, 40), (90, 40), (90, 70), (50, 40))]]}
    (tmp_path / "area.geojson").write_text(json.dumps(area))
    made = segment(
        scene, "road", model="demo", aoi=tmp_path / "area.geojson", aoi_crs="EPSG:32632", crop=True,
        output=tmp_path / "c.tif",
    )  # fmt: skip
    with rasterio.open(made.labels) as src:
        row, col = src.index(*(turned @ (50.5, 40.5)))
        assert max(abs(row), abs(col)) <= 1
        assert np.allclose(src.shape, (30, 40), atol=2)


def test_a_crop_needs_an_area(scene: str) -> None:
    with pytest.raises(UsageError, match="--crop writes the box around an area: add --aoi"):
        segment(scene, "road", model="demo", crop=True)
