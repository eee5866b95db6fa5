"""Class names in files, in every way that GDAL lets a raster say them, and names with commas as users write them."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import geopandas
import numpy as np
import pandas
import pyogrio
import pytest
import rasterio
import rasterio.shutil
from conftest import TRANSFORM, zipped
from rasterio.io import MemoryFile
from rasterio.vrt import WarpedVRT

from geoovseg.errors import GeoOVSegWarning, SceneError, UsageError
from geoovseg.labels.categories import category_names, split_names, split_pairs
from geoovseg.labels.record import RUN_TAG
from geoovseg.vectors.vectorize import vectorize

Write = Callable[..., str]
NAMES = {11: "Open Water", 21: "Developed, Open Space"}
CODES = np.array([[11, 11, 21, 21]] * 2, np.uint8)[None]


def _table(value: int = 5, name: int = 2, codes: str = "Value", kind: str = "thematic") -> str:
    """A raster attribute table of two classes; usages of the columns of codes and of names."""
    columns = ((codes, 0, value), ("Count", 1, 1), ("NLCD_Land", 2, name), ("Red", 0, 6))
    fields = "".join(
        f'<FieldDefn index="{n}"><Name>{name}</Name><Type>{kind}</Type><Usage>{usage}</Usage></FieldDefn>'
        for n, (name, kind, usage) in enumerate(columns)
    )
    rows = "".join(
        f'<Row index="{n}"><F>{code}</F><F>4</F><F>{name}</F><F>9</F></Row>'
        for n, (code, name) in enumerate(NAMES.items())
    )
    return f'<GDALRasterAttributeTable tableType="{kind}">{fields}{rows}</GDALRasterAttributeTable>'


def _categories() -> str:
    items = (f"<Category>{NAMES.get(code, '')}</Category>" for code in range(max(NAMES) + 1))
    return f"<CategoryNames>{''.join(items)}</CategoryNames>"


def _beside(path: str, said: str) -> str:
    """Write GDAL's side file of a raster."""
    Path(f"{path}.aux.xml").write_text(f'<PAMDataset><PAMRasterBand band="1">{said}</PAMRasterBand></PAMDataset>')
    return path


def _vrt(path: Path, sources: list[str], said: str = "") -> str:
    """Rasters one above the other, as gdalbuildvrt puts them together: without what they say of their classes."""
    parts = "".join(
        f'<SimpleSource><SourceFilename relativeToVRT="0">{source}</SourceFilename><SourceBand>1</SourceBand>'
        '<SrcRect xOff="0" yOff="0" xSize="4" ySize="2"/>'
        f'<DstRect xOff="0" yOff="{2 * n}" xSize="4" ySize="2"/></SimpleSource>'
        for n, source in enumerate(sources)
    )
    place = ",".join(map(str, TRANSFORM.to_gdal()))
    path.write_text(
        f'<VRTDataset rasterXSize="4" rasterYSize="{2 * len(sources)}"><SRS>EPSG:32632</SRS><GeoTransform>{place}'
        f'</GeoTransform><VRTRasterBand dataType="Byte" band="1">{said}{parts}</VRTRasterBand></VRTDataset>'
    )
    return str(path)


def _names(path: str) -> dict[int, str]:
    with rasterio.open(path) as src:
        return category_names(src)


@pytest.mark.parametrize(
    "said",
    [_categories(), _table(), _table(3, 2), _table(0, 0), _table(0, 0, "OBJECT"), _table(0, 0, kind="athematic")],
    ids=["categories", "usages", "lowest", "by column names", "the only whole numbers", "athematic"],
)
def test_names_of_a_side_file_are_known(write_raster: Write, said: str) -> None:
    assert _names(_beside(write_raster(CODES, "l.tif"), said)) == NAMES


@pytest.mark.parametrize("driver", ["HFA", "PNG", "VRT", "COG", "ENVI", "RST", "PCIDSK"])
def test_names_inside_other_formats_are_known(write_raster: Write, tmp_path: Path, driver: str) -> None:
    path, copy = _beside(write_raster(CODES, "l.tif"), _table()), tmp_path / f"copy.{driver.lower()}"
    rasterio.shutil.copy(path, copy, driver=driver)
    os.remove(f"{path}.aux.xml")
    if driver == "VRT":
        shutil.copy(path, tmp_path / "other.tif")
    assert _names(str(copy)) == NAMES


def test_a_table_in_ranges_names_every_code_of_them(write_raster: Write) -> None:
    columns = (("low", 0, 3), ("high", 0, 4), ("name", 2, 2))
    fields = "".join(
        f"<FieldDefn><Name>{n}</Name><Type>{t}</Type><Usage>{u}</Usage></FieldDefn>" for n, t, u in columns
    )
    rows = '<Row index="0"><F>10</F><F>12</F><F>wet</F></Row><Row index="1"><F>20</F><F>21</F><F>dry</F></Row>'
    said = f"<GDALRasterAttributeTable>{fields}{rows}</GDALRasterAttributeTable>"
    found = _names(_beside(write_raster(CODES, "l.tif"), said))
    assert found == {**dict.fromkeys((10, 11, 12), "wet"), **dict.fromkeys((20, 21), "dry")}


def test_rows_of_a_table_may_stand_for_codes_by_their_order(write_raster: Write) -> None:
    columns = (("Histogram", 1, 1), ("OBJECT", 0, 0), ("Class_Names", 2, 2))
    fields = "".join(
        f"<FieldDefn><Name>{n}</Name><Type>{t}</Type><Usage>{u}</Usage></FieldDefn>" for n, t, u in columns
    )
    rows = "".join(
        f'<Row index="{n}"><F>1</F><F>{n + 7}</F><F>{name}</F></Row>' for n, name in enumerate(["", "wet", "dry"])
    )
    for start, found in ((0, {1: "wet", 2: "dry"}), (10, {11: "wet", 12: "dry"})):
        said = f'<GDALRasterAttributeTable Row0Min="{start}" BinSize="1">{fields}{rows}</GDALRasterAttributeTable>'
        assert _names(_beside(write_raster(CODES, "l.tif"), said)) == found


def test_a_table_without_names_or_codes_names_nothing(write_raster: Write) -> None:
    columns = (("Histogram", 1, 1), ("Red", 0, 6))
    fields = "".join(
        f"<FieldDefn><Name>{n}</Name><Type>{t}</Type><Usage>{u}</Usage></FieldDefn>" for n, t, u in columns
    )
    said = f"<GDALRasterAttributeTable>{fields}<Row><F>3</F><F>4</F></Row></GDALRasterAttributeTable>"
    assert _names(_beside(write_raster(CODES, "l.tif"), said)) == {}


@pytest.mark.parametrize("name", ["l.tif.vat.dbf", "l.vat.dbf"])
def test_the_table_of_arcgis_is_known(write_raster: Write, tmp_path: Path, name: str) -> None:
    path = write_raster(CODES, "l.tif")
    table = pandas.DataFrame({"VALUE": [*NAMES], "COUNT": [4.0, 4.0], "NLCD_Land": [*NAMES.values()]})
    pyogrio.write_dataframe(table, tmp_path / "t.dbf", driver="ESRI Shapefile")
    (tmp_path / "t.dbf").rename(tmp_path / name)
    assert _names(path) == NAMES
    assert _names(f"/vsizip/{zipped(tmp_path)}/l.tif") == NAMES


def test_flags_of_netcdf_are_names(write_raster: Write) -> None:
    path = write_raster(CODES, "l.tif")
    with rasterio.open(path, "r+") as dst:
        dst.update_tags(1, flag_values="{11,21}", flag_meanings="open_water developed")
    assert _names(path) == {11: "open_water", 21: "developed"}


def test_a_vrt_has_the_names_of_what_it_is_made_of(write_raster: Write, tmp_path: Path) -> None:
    record = {"classes": [["road", ["road"], "#000000"]], "threshold": None, "background": []}
    ours = write_raster(np.ones((1, 2, 4), np.uint8), "ours.tif", tags={RUN_TAG: json.dumps(record)})
    theirs = _beside(write_raster(CODES, "theirs.tif"), _table())
    assert _names(_vrt(tmp_path / "one.vrt", [theirs])) == NAMES
    both = _vrt(tmp_path / "both.vrt", [theirs, ours])
    assert _names(both) == {**NAMES, 1: "road"}
    assert _names(_vrt(tmp_path / "nested.vrt", [both])) == {**NAMES, 1: "road"}
    assert _names(_vrt(tmp_path / "own.vrt", [theirs], _categories().replace("Open Water", "lake"))) == {
        **NAMES,
        11: "lake",
    }


def test_a_warped_vrt_has_the_names_of_its_source(write_raster: Write, tmp_path: Path) -> None:
    path = _beside(write_raster(CODES, "l.tif"), _categories())
    with rasterio.open(path) as src, WarpedVRT(src, crs="EPSG:3857") as warped:
        rasterio.shutil.copy(warped, tmp_path / "w.vrt", driver="VRT")
    assert _names(str(tmp_path / "w.vrt")) == NAMES


def test_sources_of_a_vrt_that_disagree_are_told(write_raster: Write, tmp_path: Path) -> None:
    one = _beside(write_raster(CODES, "one.tif"), _table())
    two = _beside(write_raster(CODES, "two.tif"), _table().replace("Open Water", "Sand"))
    with pytest.warns(GeoOVSegWarning, match="made of rasters that name the codes 11 differently"):
        assert _names(_vrt(tmp_path / "both.vrt", [one, two])) == {21: NAMES[21]}


def test_names_are_known_in_archives_and_over_http(write_raster: Write, tmp_path: Path, served: str) -> None:
    _beside(write_raster(CODES, "l.tif"), _table())
    archive = zipped(tmp_path)
    for path in (f"/vsizip/{archive}/l.tif", f"zip://{archive}!/l.tif", f"{served}/l.tif", f"/vsicurl/{served}/l.tif"):
        assert _names(path) == NAMES


def test_a_raster_in_memory_without_names_has_none(write_raster: Write) -> None:
    with MemoryFile(Path(write_raster(CODES, "l.tif")).read_bytes()) as file, file.open() as src:
        assert category_names(src) == {}


def test_a_damaged_side_file_is_refused(write_raster: Write) -> None:
    path = write_raster(CODES, "l.tif")
    Path(f"{path}.aux.xml").write_text("<PAMDataset><PAM")
    with pytest.raises(SceneError, match="cannot read the class names in"):
        _names(path)


@pytest.mark.parametrize(
    ("texts", "found"),
    [
        ("Developed, Open Space", ["Developed, Open Space"]),
        ("road,Developed, Open Space,water", ["road", "Developed, Open Space", "water"]),
        (["Developed,Open Space", "road"], ["Developed, Open Space", "road"]),
        ("road, Open Space", ["road", "Open Space"]),
        ("Developed", ["Developed"]),
    ],
)
def test_names_with_commas_are_split_where_names_end(texts: Any, found: list[str]) -> None:
    assert split_names(texts, ["road", "water", "Developed, Open Space"]) == found


@pytest.mark.parametrize(
    ("text", "pairs"),
    [
        ("a, b=c, d", {"a, b": "c, d"}),
        ("x=y,a, b=c, d", {"x": "y", "a, b": "c, d"}),
        ("a, b=y,x=c, d", {"a, b": "y", "x": "c, d"}),
        ("e=f=y", {"e=f": "y"}),
        ("unknown=q,x=y", {"unknown": "q", "x": "y"}),
        ("un, known=q", {"un, known": "q"}),
    ],
)
def test_pairs_of_names_with_commas_are_split_where_names_end(text: str, pairs: dict[str, str]) -> None:
    known = ("a, b", "x", "e=f").__contains__, ("c, d", "y").__contains__
    assert split_pairs([text], "--map", "truth=label", *known) == pairs
    with pytest.raises(UsageError, match="--map x: write truth=label"):
        split_pairs(["x"], "--map", "truth=label", *known)


def test_classes_with_commas_become_polygons(write_raster: Write, tmp_path: Path, geoovseg: Callable[..., Any]) -> None:
    path, out = _beside(write_raster(CODES, "l.tif"), _table()), tmp_path / "out.gpkg"
    for given, names in (
        (("Developed, Open Space",), {NAMES[21]}),
        (("Open Water,Developed, Open Space",), {*NAMES.values()}),
    ):
        options = [part for text in given for part in ("--classes", text)]
        code, _, err = geoovseg("vectorize", path, out, *options, "--overwrite", "--workers", "1")
        assert code == 0, err
        assert {*geopandas.read_file(out, layer="classes").class_name} == names
    code, _, err = geoovseg("vectorize", path, out, "--classes", "Developed", "--overwrite")
    assert code == 2
    assert "has no class 'Developed'; it has Open Water, Developed, Open Space" in err


def test_codes_without_names_are_told_and_can_be_named_with_commas(
    write_raster: Write, tmp_path: Path, geoovseg: Callable[..., Any]
) -> None:
    path, out = write_raster(CODES, "l.tif"), tmp_path / "out.gpkg"
    _, _, err = geoovseg("vectorize", path, out, "--workers", "1")
    assert "2 codes have no name in the raster and are called by number, as class 11" in err
    named = "11=Open Water,21=Developed, Open Space"
    _, _, err = geoovseg("vectorize", path, out, "--names", named, "--overwrite", "--workers", "1")
    assert "no name" not in err
    assert {*geopandas.read_file(out, layer="classes").class_name} == {*NAMES.values()}
    assert vectorize(path, out, names=NAMES, overwrite=True, workers=1).unnamed == ()
