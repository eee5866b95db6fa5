"""Files of shapes: their layers, conditions, and where they may lie."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import geopandas
import numpy as np
import pyogrio
import pytest
import rasterio
from conftest import TRANSFORM, zipped
from pyogrio.errors import DataSourceError
from shapely.geometry import box

from geoovseg.errors import GeoOVSegWarning, SceneError, UsageError
from geoovseg.scene.area import read_area
from geoovseg.scene.shapes import Choice, read_shapes
from geoovseg.vectors.vectorize import vectorize

NONE = Choice()
FORMATS = [".gpkg", ".fgb", ".parquet", ".geojson", ".geojsonl"]


def _squares(first: int, last: int) -> geopandas.GeoDataFrame:
    """Squares side by side, one metre wide."""
    left, top = TRANSFORM.c, TRANSFORM.f
    shapes = [box(left + n, top - 1, left + n + 1, top) for n in range(first, last)]
    kinds = ["park" if n % 2 else "road" for n in range(first, last)]
    return geopandas.GeoDataFrame({"kind": kinds, "geometry": shapes}, crs="EPSG:32632")


def _area(text: str, **more: Any) -> Any:
    given = {"crs": rasterio.crs.CRS.from_epsg(32632), "transform": TRANSFORM, "shape": (20, 40)}
    return read_area(text, None, **more, **given)


@pytest.fixture
def written(tmp_path: Path) -> Callable[[str], Path]:
    """Four squares in a file of some format."""

    def write(suffix: str) -> Path:
        path = tmp_path / f"squares{suffix}"
        table = _squares(0, 4) if "json" not in suffix else _squares(0, 4).to_crs(4326)
        table.to_parquet(path) if suffix == ".parquet" else table.to_file(path)
        return path

    return write


@pytest.mark.parametrize("suffix", FORMATS)
@pytest.mark.parametrize("place", ["here", "zip", "zip url", "http", "zip over http"])
def test_shapes_are_read_wherever_they_lie(
    written: Callable[[str], Path], tmp_path: Path, served: str, suffix: str, place: str
) -> None:
    path = written(suffix)
    name = {
        "here": str(path),
        "zip": f"/vsizip/{zipped(tmp_path)}/{path.name}",
        "zip url": f"zip://{zipped(tmp_path)}!/{path.name}",
        "http": f"{served}/{path.name}",
        "zip over http": f"/vsizip/vsicurl/{served}/{zipped(tmp_path).name}/{path.name}",
    }[place]
    assert len(read_shapes(name, NONE)) == 4
    parks = read_shapes(name, Choice(where="kind = 'park'"))
    assert [*parks.kind] == ["park", "park"]
    assert _area(name, where="kind = 'park'").polygon.area == pytest.approx(2, rel=5e-3)


@pytest.mark.parametrize("suffix", [".gpkg", ".fgb", ".parquet", ".geojsonl"])
def test_our_own_polygons_are_an_area(write_raster: Callable[..., str], tmp_path: Path, suffix: str) -> None:
    codes = np.zeros((1, 20, 40), np.uint8)
    codes[0, :10, :10] = 1
    labels, path = write_raster(codes, "labels.tif"), tmp_path / f"area{suffix}"
    vectorize(labels, path, workers=1)
    assert _area(str(path)).polygon.area == pytest.approx(25, rel=5e-3)
    assert _area(str(path), where="area_m2 > 1").polygon.area == pytest.approx(25, rel=5e-3)
    with pytest.raises(UsageError, match=r"has no polygons with --aoi-where area_m2 > 100"):
        _area(str(path), where="area_m2 > 100")


@pytest.fixture
def layers(tmp_path: Path) -> str:
    """A GeoPackage of two layers, of one square and of three."""
    path = tmp_path / "layers.gpkg"
    _squares(0, 1).to_file(path, layer="one")
    _squares(1, 4).to_file(path, layer="three")
    return str(path)


def test_a_layer_can_be_chosen_and_without_a_choice_the_others_are_told(layers: str) -> None:
    assert len(read_shapes(layers, Choice("three"))) == 3
    with pytest.warns(GeoOVSegWarning, match="has the layers one, three; one is used: choose by --aoi-layer"):
        assert _area(layers).polygon.area == pytest.approx(1)
    assert _area(layers, layer="three").polygon.area == pytest.approx(3)
    with pytest.raises(UsageError, match=r"--aoi-layer thre: no such layer in .*did you mean three.*it has one, three"):
        _area(layers, layer="thre")


def test_choices_that_cannot_work_are_refused(layers: str, written: Callable[[str], Path]) -> None:
    for name in (layers, str(written(".parquet"))):
        with pytest.raises(UsageError, match="--where nonsense <"):
            read_shapes(name, Choice("one" if name == layers else None, "nonsense <"))
    with pytest.raises(UsageError, match="GeoParquet, which has no layers"):
        read_shapes(str(written(".parquet")), Choice("one"))
    with pytest.raises(UsageError, match="choose shapes of a file, and --aoi 1,2,3,4 is none"):
        _area("1,2,3,4", layer="one")


def test_what_is_no_shape_is_refused(tmp_path: Path, served: str) -> None:
    (tmp_path / "t.csv").write_text("a,b\n1,2\n")
    (tmp_path / "broken.gpkg").write_text("nothing")
    for name, said in (("t.csv", "holds no shapes"), ("broken.gpkg", "cannot read")):
        with pytest.raises(SceneError, match=said):
            read_shapes(str(tmp_path / name), NONE)
    with pytest.raises(SceneError, match="404"):
        read_shapes(f"{served}/none.gpkg", NONE)


@pytest.mark.parametrize("suffix", [".gpkg", ".parquet"])
def test_offline_nothing_is_fetched(
    written: Callable[[str], Path], served: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, suffix: str
) -> None:
    path = written(suffix)
    monkeypatch.setenv("GEOOVSEG_OFFLINE", "1")
    with pytest.raises(SceneError, match="is not on this machine"):
        read_shapes(f"{served}/{path.name}", NONE)
    (tmp_path / "far.vrt").write_text(
        '<OGRVRTDataSource><OGRVRTLayer name="squares"><SrcDataSource>/vsicurl/'
        f"{served}/{path.name}</SrcDataSource></OGRVRTLayer></OGRVRTDataSource>"
    )
    with pytest.raises(SceneError, match="forbid the network"):
        read_shapes(str(tmp_path / "far.vrt"), NONE)
    monkeypatch.setenv("GEOOVSEG_OFFLINE", "0")
    assert len(read_shapes(f"{served}/{path.name}", NONE)) == 4


def test_a_server_that_gives_whole_files_only_will_do(
    written: Callable[[str], Path], served: str, monkeypatch: Any
) -> None:
    path = written(".gpkg")
    monkeypatch.setattr("geoovseg.scene.shapes.pyogrio.list_layers", _only_here())
    assert len(read_shapes(f"{served}/{path.name}", NONE)) == 4


def _only_here() -> Callable[[Any], Any]:
    """list_layers, as it is where GDAL cannot read parts of a file."""
    whole = pyogrio.list_layers

    def layers(source: Any) -> Any:
        if source.startswith("/vsicurl/"):
            raise DataSourceError("Range downloading not supported by this server!")
        return whole(source)

    return layers


def test_the_command_line_takes_layer_and_condition(
    geoovseg: Callable[..., Any], demo_scene: str, layers: str, tmp_path: Path
) -> None:
    common = ("segment", demo_scene, "-c", "road", "--model", "demo", "--quiet", "-o", tmp_path / "l.tif")
    code, _, err = geoovseg(*common, "--aoi", layers, "--aoi-layer", "three", "--aoi-where", "kind = 'park'")
    assert code == 0, err
    with rasterio.open(tmp_path / "l.tif") as src:
        assert (src.read(1) != src.nodata).sum() == 2 * 4
    for option in ("--aoi-layer", "--aoi-where"):
        code, _, err = geoovseg(*common, option, "x", "--overwrite")
        assert code == 2
        assert f"{option} x needs --aoi" in err
