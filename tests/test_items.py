"""STAC: items as scenes, named by their ids, and labels as items that other programs read."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pystac
import pytest
import rasterio
from pyarrow import parquet
from pystac.extensions.classification import ClassificationExtension
from pystac.extensions.projection import ProjectionExtension
from rasterio.warp import transform_bounds

from geoovseg.errors import SceneError, UsageError
from geoovseg.scene.items import holds_items, items_of

Run = Callable[..., tuple[int, str, str]]
COMMAND = ("segment", "-c", "building,road", "--model", "demo", "--quiet")


def _item(name: str, **assets: str) -> dict[str, Any]:
    """An item as search results have them."""
    return {
        "type": "Feature", "stac_version": "1.0.0", "id": name, "geometry": None, "bbox": None,
        "properties": {"datetime": "2023-07-01T10:00:00Z"},
        "links": [{"rel": "self", "href": f"https://example.org/items/{name}"}],
        "assets": {
            **{key: {"href": href, "type": "image/tiff; application=geotiff"} for key, href in assets.items()},
            "thumbnail": {"href": "t.jpg", "type": "image/jpeg", "roles": ["thumbnail"]},
            "metadata": {"href": "m.xml", "type": "application/xml"},
        },
    }  # fmt: skip


@pytest.fixture
def folder(demo_scene: str, tmp_path: Path) -> Path:
    """Two images, and their bands."""
    (tmp_path / "in").mkdir()
    for name in "ab":
        shutil.copy(demo_scene, tmp_path / "in" / f"{name}.tif")
    with rasterio.open(demo_scene) as src:
        for number, band in enumerate(("red", "green", "blue"), start=1):
            profile = {**src.profile, "count": 1, "photometric": "minisblack"}
            with rasterio.open(tmp_path / "in" / f"{band}.tif", "w", **profile) as dst:
                dst.write(src.read(number), 1)
                dst.update_tags(**src.tags())
    return tmp_path


def _found(*items: dict[str, Any]) -> dict[str, Any]:
    return {"type": "FeatureCollection", "features": [*items]}


def test_a_search_result_is_segmented_item_by_item(folder: Path, geoovseg: Run) -> None:
    path = folder / "items.json"
    path.write_text(json.dumps(_found(_item("tile/1", visual="in/a.tif"), _item("tile 2", visual="in/b.tif"))))
    code, out, err = geoovseg(*COMMAND, path, "-o", f"{folder}/out/", "--stac", folder / "stac")
    assert code == 0, err
    assert out.split() == [f"{folder}/out/tile_1_labels.tif", f"{folder}/out/tile_2_labels.tif"]
    code, _, _ = geoovseg(*COMMAND, folder / "in/a.tif", "-o", folder / "one.tif")
    with rasterio.open(folder / "one.tif") as a, rasterio.open(folder / "out/tile_1_labels.tif") as b:
        np.testing.assert_array_equal(a.read(), b.read())


def test_labels_are_items_that_pystac_reads(folder: Path, geoovseg: Run) -> None:
    path = folder / "items.json"
    path.write_text(json.dumps(_item("tile1", visual="in/a.tif", other="in/b.tif")))
    more = ("--confidence", "--vectors", "--threshold", "0.1")
    code, _, err = geoovseg(*COMMAND, path, "-o", f"{folder}/out/", "--stac", folder / "stac", *more)
    assert code == 0, err
    catalogue = pystac.Catalog.from_file(str(folder / "stac" / "catalog.json"))
    (item,) = catalogue.get_items()
    plain = item.clone()
    plain.stac_extensions = []  # whose schemas lie on a server
    plain.validate()
    catalogue.validate()
    assert item.datetime is not None
    assert item.datetime.year == 2023
    assert item.get_links("derived_from")[0].href == "https://example.org/items/tile1"
    assert item.properties["processing:software"]["geoovseg"]
    labels = folder / "out/tile1_labels.tif"
    for name, there in item.assets.items():
        assert Path(str(item.get_assets()[name].get_absolute_href())).is_file(), (name, there)
    assert set(item.assets) == {"labels", "confidence", "vectors"}
    with rasterio.open(labels) as src:
        place = ProjectionExtension.ext(item)
        assert place.code == f"EPSG:{src.crs.to_epsg()}"
        assert place.shape == list(src.shape)
        np.testing.assert_allclose(place.transform, tuple(src.transform))
        np.testing.assert_allclose(item.bbox, transform_bounds(src.crs, "EPSG:4326", *src.bounds), atol=1e-5)
    classes = ClassificationExtension.ext(item.assets["labels"]).classes
    assert [(c.value, c.name) for c in classes] == [(0, "background"), (1, "building"), (2, "road"), (255, "nodata")]
    assert classes[1].color_hint == "C0392B"


def test_three_assets_are_the_bands_of_an_image(folder: Path, geoovseg: Run) -> None:
    path = folder / "items.json"
    path.write_text(json.dumps(_found(_item("s2", red="in/red.tif", green="in/green.tif", blue="in/blue.tif"))))
    code, out, err = geoovseg(*COMMAND, path, "--asset", "red,green,blue", "-o", folder / "bands.tif")
    assert (code, out.strip()) == (0, str(folder / "bands.tif")), err
    assert geoovseg(*COMMAND, folder / "in/a.tif", "-o", folder / "one.tif")[0] == 0
    with rasterio.open(folder / "one.tif") as a, rasterio.open(folder / "bands.tif") as b:
        np.testing.assert_array_equal(a.read(), b.read())
    assert not list(folder.glob("*.vrt"))


def test_geoparquet_of_items_is_read(folder: Path) -> None:
    items = [_item("x", image=str(folder / "in/a.tif")), _item("y", image="s3://bucket/y.tif")]
    rows = [{"id": item["id"], "assets": item["assets"]} for item in items]
    parquet.write_table(pa.Table.from_pylist(rows), folder / "items.parquet")
    assert holds_items(str(folder / "items.parquet"))
    found = items_of(str(folder / "items.parquet"))
    assert [item.assets for item in found] == [(str(folder / "in/a.tif"),), ("s3://bucket/y.tif",)]


def test_what_an_item_does_not_say_is_asked(folder: Path, geoovseg: Run) -> None:
    path = folder / "items.json"
    path.write_text(json.dumps(_item("x", a="in/a.tif", b="in/b.tif")))
    with pytest.raises(UsageError, match="has several images; name one, or three bands, by --asset: a, b, thumbnail"):
        items_of(str(path))
    with pytest.raises(UsageError, match="has no asset nir; name one"):
        items_of(str(path), ["nir"])
    path.write_text(json.dumps(_found(_item("x/", visual="in/a.tif"), _item("x?", visual="in/b.tif"))))
    with pytest.raises(UsageError, match="several items called x"):
        items_of(str(path))
    path.write_text('{"stac_version": "1.0.0", "type": "Feature"}')
    with pytest.raises(SceneError, match="holds no STAC items"):
        items_of(str(path))
    code, _, err = geoovseg(*COMMAND, path, folder / "in/a.tif")
    assert (code, "cannot be mixed" in err) == (2, True)


def test_a_geojson_of_shapes_is_no_file_of_items(tmp_path: Path) -> None:
    path = tmp_path / "shapes.geojson"
    path.write_text('{"type": "FeatureCollection", "features": []}')
    assert not holds_items(str(path))
