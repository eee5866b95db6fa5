"""What `geoovseg info` says of files: figures of pixels and shapes, whatever tables say."""

from __future__ import annotations

import json
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import geopandas
import numpy as np
import pyogrio
import pyproj
import pytest
import rasterio
import shapely
from rasterio.transform import from_origin

from geoovseg import info, segment
from geoovseg.errors import SceneError, UsageError
from geoovseg.labels import contents
from geoovseg.vectors.vectorize import vectorize

Write = Callable[..., str]
Run = Callable[..., tuple[int, str, str]]


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Labels and confidence of a run, and their polygons."""
    folder = tmp_path_factory.mktemp("made")
    profile = {"driver": "GTiff", "height": 70, "width": 90, "count": 3, "dtype": "uint8", "crs": "EPSG:32632"}
    pixels = np.random.default_rng(0).integers(60, 200, (3, 7, 9), np.uint8).repeat(10, 1).repeat(10, 2)
    with rasterio.open(folder / "s.tif", "w", transform=from_origin(480_000, 5_460_000, 2, 2), **profile) as dst:
        dst.write(pixels)
    given: dict[str, Any] = {"model": "demo", "confidence": folder / "c.tif", "vectors": folder / "v.gpkg"}
    segment(folder / "s.tif", "road,water=lake+sea", output=folder / "l.tif", templates="plain", **given)
    return folder


def test_labels_of_ours_tell_their_run_grid_classes_and_areas(made: Path) -> None:
    found = info(made / "l.tif")
    with rasterio.open(made / "l.tif") as src:
        codes = src.read(1)
    assert (found.kind, found.crs_name, found.nodata) == ("labels", "EPSG:32632", 0)
    assert found.crs is not None
    assert found.crs.startswith("PROJCRS[")
    assert found.run is not None
    assert (found.run["method"], found.run["model"], found.run["scene"]) == ("segearth", "demo", "s.tif")
    assert found.grid is not None
    assert (found.grid["height"], found.grid["width"], found.grid["dtype"]) == (70, 90, "uint8")
    assert found.grid["pixel_m"] == pytest.approx([2, 2], rel=1e-3)
    assert list(found.classes) == ["background", "road", "water"]
    for code, said in enumerate(found.classes.values()):
        assert (said["code"], said["pixels"]) == (code, int((codes == code).sum()))
        assert said["share"] == pytest.approx((codes == code).mean())
        assert said["hectares"] == pytest.approx(said["pixels"] * 4 / 10_000, rel=1e-3)
    assert found.classes["water"]["words"] == ["lake", "sea"]
    assert found.differs == {}


def test_areas_are_geodesic(write_raster: Write) -> None:
    place = from_origin(9, 60, 0.01, 0.01)
    found = info(write_raster(np.ones((1, 20, 30), np.uint8), "l.tif", crs="EPSG:4326", transform=place))
    box = shapely.box(9, 59.8, 9.3, 60).segmentize(0.001)
    area = abs(pyproj.Geod(ellps="WGS84").geometry_area_perimeter(box)[0])
    assert found.hectares == pytest.approx(area / 10_000, rel=1e-5)
    assert info(write_raster(np.ones((1, 4, 4), np.uint8), "n.tif", crs=None)).hectares is None


def test_counts_are_those_of_the_pixels_after_edits(made: Path, tmp_path: Path) -> None:
    """As when an editor paints over labels, which leaves the table as it was."""
    for name in ("l.tif", "l.tif.aux.xml"):
        (tmp_path / name).write_bytes((made / name).read_bytes())
    before = info(tmp_path / "l.tif")
    with rasterio.open(tmp_path / "l.tif", "r+", IGNORE_COG_LAYOUT_BREAK="YES") as dst:
        codes = dst.read(1)
        codes[:10, :10] = 2
        dst.write(codes, 1)
    after = info(tmp_path / "l.tif")
    assert after.classes["water"]["pixels"] == int((codes == 2).sum())
    assert after.differs["water"] == {
        "stored": before.classes["water"]["pixels"], "counted": after.classes["water"]["pixels"],
    }  # fmt: skip


def test_counts_do_not_depend_on_pixel_type_mask_or_pieces(
    write_raster: Write, monkeypatch: pytest.MonkeyPatch
) -> None:
    codes = np.random.default_rng(0).integers(0, 5, (1, 70, 90))
    monkeypatch.setattr(contents, "AT_ONCE", 500)
    for kind in ("uint8", "uint16", "int16", "int32", "int64"):
        found = info(write_raster(codes.astype(kind), f"{kind}.tif", nodata=4))
        pixels = {said["code"]: said["pixels"] for said in found.classes.values()}
        assert pixels == {code: int((codes == code).sum()) for code in range(4)}
        assert found.nodata == (codes == 4).sum()
        assert found.hectares == pytest.approx((codes < 4).sum() * 0.25 / 10_000, rel=1e-3)


def test_confidence_is_told_by_its_figures(made: Path, write_raster: Write) -> None:
    found = info(made / "c.tif")
    with rasterio.open(made / "c.tif") as src:
        values = src.read(1) / 250
    assert (found.kind, found.classes) == ("confidence", {})
    assert found.confidence is not None
    assert found.confidence["mean"] == pytest.approx(values.mean())
    assert (found.confidence["least"], found.confidence["most"]) == pytest.approx((values.min(), values.max()))
    assert sum(found.confidence["tenths"]) == pytest.approx(1)
    theirs = info(write_raster(np.array([[[0, 0.35, 1, np.nan]]], np.float32), "f.tif"))
    assert theirs.confidence is not None
    assert theirs.nodata == 1
    assert [n for n, share in enumerate(theirs.confidence["tenths"]) if share] == [0, 3, 9]
    empty = info(write_raster(np.full((1, 2, 2), np.nan, np.float32), "e.tif"))
    assert empty.confidence == {"tenths": [0.0] * 10}


@pytest.mark.parametrize("suffix", [".gpkg", ".fgb", ".parquet", ".geojson", ".geojsonl"])
def test_polygons_are_counted_and_measured_by_class(made: Path, tmp_path: Path, suffix: str) -> None:
    written = vectorize(made / "l.tif", tmp_path / f"v{suffix}")
    found = info(tmp_path / f"v{suffix}")
    assert found.kind == "polygons"
    assert {name: said["code"] for name, said in found.classes.items()} == {"road": 1, "water": 2}
    assert sum(said["polygons"] for said in found.classes.values()) == written.polygons
    for name, area in written.area_m2.items():
        assert found.classes[name]["hectares"] == pytest.approx(area / 10_000, rel=1e-2)  # type: ignore[operator]
    assert found.differs == {}
    assert found.crs_name == ("EPSG:4326" if "json" in suffix else "EPSG:32632")


def test_areas_are_those_of_the_shapes_after_edits(made: Path, tmp_path: Path) -> None:
    table = geopandas.read_file(made / "v.gpkg", layer="classes")
    gone = table[table.class_name == "road"].area_m2.sum()
    table.loc[table.class_name == "road", "geometry"] = table.geometry.scale(0.5, 0.5)
    table.to_file(tmp_path / "v.gpkg", layer="classes")
    found = info(tmp_path / "v.gpkg")
    assert found.differs["road"]["stored"] == pytest.approx(gone)
    assert found.differs["road"]["counted"] == pytest.approx(gone / 4, rel=0.01)
    assert "water" not in found.differs


def test_anybodys_polygons_are_told_by_the_column_that_is_named(tmp_path: Path) -> None:
    shapes = [shapely.box(0, 0, 1, 1), shapely.MultiPolygon([shapely.box(2, 0, 3, 1), shapely.box(4, 0, 5, 1)]), None]
    table = geopandas.GeoDataFrame({"kind": ["a", "b", "b"]}, geometry=shapes, crs="EPSG:32632")
    table.to_file(tmp_path / "x.gpkg", layer="first")
    table.to_file(tmp_path / "x.gpkg", layer="second", mode="a")
    plain = info(tmp_path / "x.gpkg")
    assert (plain.layer, plain.columns) == ("first", ("kind",))
    assert plain.classes["all"]["polygons"] == 3
    by_kind = info(tmp_path / "x.gpkg", layer="second", field="kind")
    assert by_kind.layer == "second"
    assert {k: v["polygons"] for k, v in by_kind.classes.items()} == {"a": 1, "b": 2}
    areas = [said["hectares"] for said in by_kind.classes.values()]
    assert areas[1] == pytest.approx(2 * areas[0], rel=1e-3)
    with pytest.raises(UsageError, match="--field none: .* has the columns kind"):
        info(tmp_path / "x.gpkg", field="none")
    with pytest.raises(UsageError, match="--layer third: .* has first, second"):
        info(tmp_path / "x.gpkg", layer="third")


def test_a_polygon_with_a_corner_that_is_nowhere_is_refused(tmp_path: Path) -> None:
    shapes = [shapely.box(0, 0, 1, 1), shapely.Polygon([(0, 0), (1e82, 0), (1, 1), (0, 0)])]
    table = geopandas.GeoDataFrame({"class_name": ["a", "b"]}, geometry=shapes, crs="EPSG:32632")
    table.to_file(tmp_path / "x.fgb")
    with pytest.raises(SceneError, match="a polygon of b in .*x.fgb has a corner that is nowhere"):
        info(tmp_path / "x.fgb")


def test_what_is_neither_is_refused(write_raster: Write, tmp_path: Path) -> None:
    (tmp_path / "x.txt").write_text("text")
    (tmp_path / "x.parquet").write_text("text")
    pyogrio.write_dataframe(geopandas.pd.DataFrame({"a": [1]}), tmp_path / "table.gpkg")
    wrong = {
        write_raster(np.ones((3, 4, 4), np.uint8), "rgb.tif"): "3 bands, as images have",
        write_raster(np.full((1, 4, 4), 7.5, np.float32), "f.tif"): "values from 7.5 to 7.5, neither class codes",
        str(tmp_path / "none.tif"): "cannot open .*none.tif",
        str(tmp_path / "none.fgb"): "cannot read .*none.fgb",
        str(tmp_path / "x.txt"): "cannot open .*x.txt",
        str(tmp_path / "x.parquet"): "cannot read .*x.parquet",
        str(tmp_path / "table.gpkg"): "holds no shapes",
    }
    for name, message in wrong.items():
        with pytest.raises(SceneError, match=message):
            info(name)


def test_files_in_an_archive_are_read(made: Path, tmp_path: Path, geoovseg: Run) -> None:
    vectorize(made / "l.tif", tmp_path / "v.fgb")
    with zipfile.ZipFile(tmp_path / "all.zip", "w") as archive:
        for name in (made / "l.tif", made / "l.tif.aux.xml", tmp_path / "v.fgb"):
            archive.write(name, name.name)
    for name, kind in (("l.tif", "labels"), ("v.fgb", "polygons")):
        code, out, _ = geoovseg("info", f"/vsizip/{tmp_path}/all.zip/{name}", "--json")
        assert code == 0
        assert json.loads(out)["kind"] == kind
        assert json.loads(out)["differs"] == {}


def test_the_command_prints_a_table(made: Path, tmp_path: Path, geoovseg: Run) -> None:
    out = geoovseg("info", made / "l.tif")[1]
    assert "scene s.tif, method segearth, model demo" in out
    (row,) = (line for line in out.splitlines() if " water " in line)
    said = info(made / "l.tif").classes["water"]
    assert row.split()[:3] == ["2", "water", str(said["pixels"])]
    assert row.endswith("lake, sea")
    assert "mean 0." in geoovseg("info", made / "c.tif")[1]
    assert "in the layer classes" in geoovseg("info", made / "v.gpkg")[1]
    json.loads(geoovseg("info", made / "v.gpkg", "--json")[1])
