"""Whatever a caller of the public functions does wrong is an error of ours."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from geoovseg import evaluate, info, merge, preview, segment, vectorize
from geoovseg.errors import GeoOVSegError
from geoovseg.tiles import as_one, as_stack, per_tile

NO_NAME = "a\0b"
WRONG: dict[str, Callable[[str, Path], Any]] = {
    "polygons to no name": lambda labels, folder: vectorize(labels, NO_NAME + ".gpkg"),
    "polygons of no name": lambda labels, folder: vectorize(NO_NAME, folder / "x.gpkg"),
    "polygons to a number": lambda labels, folder: vectorize(labels, 3),  # type: ignore[arg-type]
    "names by text": lambda labels, folder: vectorize(labels, folder / "x.gpkg", names={"1": "a"}),  # type: ignore[dict-item]
    "an area in words": lambda labels, folder: vectorize(labels, folder / "x.gpkg", min_area="big"),  # type: ignore[arg-type]
    "no tolerance": lambda labels, folder: vectorize(labels, folder / "x.gpkg", simplify=None),  # type: ignore[arg-type]
    "fewer than no workers": lambda labels, folder: vectorize(labels, folder / "x.gpkg", workers=-3),
    "blocks of nothing": lambda labels, folder: vectorize(labels, folder / "x.gpkg", block=0),
    "classes by number": lambda labels, folder: evaluate(labels, labels, mapping=5),  # type: ignore[arg-type]
    "a class of no name": lambda labels, folder: evaluate(labels, labels, mapping={"road": None}),  # type: ignore[dict-item]
    "outside by number": lambda labels, folder: evaluate(labels, labels, outside=3),  # type: ignore[arg-type]
    "truth of no name": lambda labels, folder: evaluate(labels, NO_NAME),
    "a picture of no name": lambda labels, folder: preview(labels, labels, NO_NAME + ".png"),
    "no folder": lambda labels, folder: merge(NO_NAME),
    "no file": lambda labels, folder: info(NO_NAME),
    "a scene of no name": lambda labels, folder: segment(NO_NAME, "road", model="demo"),
    "an area of no numbers": lambda labels, folder: segment(labels, "road", model="demo", aoi="nan,0,1,2"),
    "no tiles": lambda labels, folder: as_one([], folder / "x.vrt"),
    "a mosaic of no name": lambda labels, folder: as_one([labels], NO_NAME),
    "no bands": lambda labels, folder: as_stack([], folder / "x.vrt"),
    "tiles to no folder": lambda labels, folder: per_tile(labels, [labels], NO_NAME),
}


@pytest.mark.parametrize("name", WRONG)
def test_a_wrong_call_is_told(write_raster: Callable[..., str], tmp_path: Path, name: str) -> None:
    labels = write_raster(np.ones((1, 8, 8), np.uint8), "labels.tif")
    with pytest.raises(GeoOVSegError):
        WRONG[name](labels, tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["labels.tif"]


def test_corners_of_an_area_must_be_numbers(write_raster: Callable[..., str], tmp_path: Path) -> None:
    import geopandas
    import shapely

    scene = write_raster(np.ones((3, 64, 64), np.uint8))
    square = shapely.Polygon([(480_000, 5_459_980), (float("inf"), 5_459_990), (480_020, 5_459_990)])
    geopandas.GeoDataFrame(geometry=[square], crs="EPSG:32632").to_file(tmp_path / "area.gpkg")
    with pytest.raises(GeoOVSegError, match="corners that are no numbers"):
        segment(scene, "road", model="demo", aoi=tmp_path / "area.gpkg")


@pytest.mark.parametrize("far", [1e30, 1e300])
def test_corners_of_an_area_must_lie_in_this_world(
    write_raster: Callable[..., str], tmp_path: Path, far: float
) -> None:
    import geopandas
    import shapely

    scene = write_raster(np.ones((3, 64, 64), np.uint8))
    square = shapely.Polygon([(480_000, 5_459_980), (far, -far), (-far, far), (480_020, 5_459_990)])
    geopandas.GeoDataFrame(geometry=[square], crs="EPSG:32632").to_file(tmp_path / "area.gpkg")
    with pytest.raises(GeoOVSegError, match="corners beyond all maps"):
        segment(scene, "road", model="demo", aoi=tmp_path / "area.gpkg")
