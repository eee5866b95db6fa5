"""Truth that is drawn: what of shapes reaches the pixels of an image, and what is refused with its reason."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import geopandas
import numpy as np
import pytest
import rasterio
import yaml
from PIL import Image
from rasterio.transform import from_origin
from shapely import LineString, Polygon

from geoovseg.errors import UsageError
from geoovseg.evaluation import datasets
from geoovseg.evaluation.prepared import Pair, digest_of, hash_of, truth_of

pytestmark = pytest.mark.filterwarnings("ignore:'crs' was not provided")
ROAD = LineString([(10, 40), (90, 40)])


def _data(folder: Path, suffix: str, image: str = ".tif", **more: Any) -> datasets.DataSet:
    said = {"labels": ["background", "road"], "image_suffix": image, "truth_suffix": suffix, "code": "shapes"}
    (folder / "d.yaml").write_text(yaml.safe_dump({**said, "runs": {"default": {"classes": "x"}}, **more}))
    return datasets.read_data_set(str(folder / "d.yaml"))


def _image(path: Path, crs: str, size: float) -> str:
    place = from_origin(11.0, 48.0, size, size) if crs == "EPSG:4326" else from_origin(500_000, 5_300_000, size, size)
    grid = {"height": 80, "width": 100, "count": 3, "dtype": "uint8", "crs": crs, "transform": place}
    with rasterio.open(path, "w", driver="GTiff", **grid) as dst:
        dst.write(np.full((3, 80, 100), 9, np.uint8))
    return str(path)


def _shapes(path: Path, shapes: list[Any], crs: str | None = None, **columns: list[Any]) -> str:
    drivers = {".geojson": "GeoJSON", ".shp": "ESRI Shapefile", ".gpkg": "GPKG"}
    geopandas.GeoDataFrame(columns, geometry=shapes, crs=crs).to_file(path, driver=drivers[path.suffix])
    return str(path)


def test_an_image_without_coordinates_is_drawn_on_in_its_pixels(tmp_path: Path) -> None:
    """GDAL says degrees of any GeoJSON."""
    Image.fromarray(np.zeros((80, 100, 3), np.uint8)).save(tmp_path / "a.png")
    pair = Pair("a", str(tmp_path / "a.png"), _shapes(tmp_path / "a.geojson", [ROAD]))
    found = truth_of(_data(tmp_path, ".geojson", ".png", buffer=5.0), pair)
    assert (found.sum(0)[10:90] == 10).all()
    assert found.sum() == pytest.approx(10 * 80 + np.pi * 25, rel=0.03)


def test_shapes_that_do_not_say_their_coordinates_are_in_those_of_the_image(tmp_path: Path) -> None:
    image = _image(tmp_path / "a.tif", "EPSG:4326", 1e-5)
    road = LineString([(11.0, 48.0 - 4e-4), (11.001, 48.0 - 4e-4)])
    pair = Pair("a", image, _shapes(tmp_path / "a.shp", [road]))
    found = truth_of(_data(tmp_path, ".shp", buffer=5.55), pair)
    assert (found.sum(0)[10:90] == 10).all()  # a pixel is 1.11 m high


def test_shapes_of_nothing_and_without_a_name_are_left_out(tmp_path: Path) -> None:
    image = _image(tmp_path / "a.tif", "EPSG:32632", 1.0)
    square = Polygon([(500_010, 5_299_990), (500_020, 5_299_990), (500_020, 5_299_980), (500_010, 5_299_980)])
    empty = _shapes(tmp_path / "a.gpkg", [Polygon(), None], "EPSG:32632")
    for buffer in (0.0, 3.0):
        assert not truth_of(_data(tmp_path, ".gpkg", buffer=buffer), Pair("a", image, empty)).any()
    shapes, names = [square, square.buffer(2)], ["road", None]
    mixed = _shapes(tmp_path / "b.gpkg", shapes, "EPSG:32632", kind=names)
    assert truth_of(_data(tmp_path, ".gpkg", column="kind"), Pair("b", image, mixed)).sum() == 100
    (tmp_path / "c.geojson").write_text('{"type": "FeatureCollection", "features": []}')
    nothing = Pair("c", image, str(tmp_path / "c.geojson"))
    assert not truth_of(_data(tmp_path, ".geojson", column="kind", buffer=1.0), nothing).any()


@pytest.mark.parametrize("more", [{"code": "shapes"}, {"code": "binary"}])
def test_one_label_alone_is_refused(more: dict[str, Any], tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="has two labels or more"):
        _data(tmp_path, ".geojson", labels=["road"], **more)


def test_names_beside_a_shapefile_are_a_part_of_it(tmp_path: Path) -> None:
    image = _image(tmp_path / "a.tif", "EPSG:32632", 1.0)
    pair = Pair("a", image, _shapes(tmp_path / "a.shp", [ROAD], "EPSG:32632", kind=["road"]))
    before = digest_of(pair), hash_of([pair], (str(tmp_path), str(tmp_path)))
    (tmp_path / "a.dbf").write_bytes((tmp_path / "a.dbf").read_bytes().replace(b"road", b"path"))
    assert digest_of(pair) != before[0]
    (tmp_path / "a.prj").unlink()
    assert hash_of([pair], (str(tmp_path), str(tmp_path))) != before[1]
