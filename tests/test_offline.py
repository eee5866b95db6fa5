"""Offline nothing connects: a server of this machine counts, over every way by which a GDAL here knows a server."""

from __future__ import annotations

import json
import os
import threading
import urllib.error
import urllib.request
import zipfile
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path

import numpy as np
import pyogrio
import pytest
import rasterio
from rasterio.transform import from_origin
from web import Web, serving

from geoovseg import evaluate
from geoovseg.errors import GeoOVSegError, GeoOVSegWarning, SceneError
from geoovseg.models.download import download
from geoovseg.network import FORBIDDEN, NOWHERE, access, is_remote
from geoovseg.rasters.open import opened, raster_env
from geoovseg.rasters.remote import stamp
from geoovseg.run.executors.pool import in_processes
from geoovseg.scene.scene import open_scene
from geoovseg.scene.shapes import Choice, pyogrio_env, read_shapes, read_table
from geoovseg.vectors.info import info

pytestmark = pytest.mark.filterwarnings("ignore::rasterio.errors.NotGeoreferencedWarning")
Names = dict[str, str]


@pytest.fixture
def web(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Web]:
    """A server that counts, and that every store on the network is said to be, also by the user's settings."""
    folder = tmp_path / "served"
    folder.mkdir()
    with serving(folder) as server:
        host = server.url.removeprefix("http://")
        account = f"DefaultEndpointsProtocol=http;AccountName=a;AccountKey=YWJj;BlobEndpoint={server.url}/a"
        settings = {
            "AWS_S3_ENDPOINT": host,
            "AWS_HTTPS": "NO",
            "AWS_VIRTUAL_HOSTING": "FALSE",
            "AWS_NO_SIGN_REQUEST": "YES",
            "CPL_GS_ENDPOINT": f"{server.url}/",
            "GS_NO_SIGN_REQUEST": "YES",
            "AZURE_STORAGE_CONNECTION_STRING": account,
            "OSS_ENDPOINT": host,
            "OSS_HTTPS": "NO",
            "OSS_VIRTUAL_HOSTING": "NO",
            "OSS_ACCESS_KEY_ID": "a",
            "OSS_SECRET_ACCESS_KEY": "b",
            "SWIFT_STORAGE_URL": f"{server.url}/a",
            "SWIFT_AUTH_TOKEN": "a",
            "EEDA_BEARER": "a",
            "EEDA_URL": f"{server.url}/",
            "PL_API_KEY": "a",
            "GDAL_HTTP_TIMEOUT": "3",
            "PROJ_NETWORK": "ON",
            "no_proxy": "127.0.0.1,localhost",
        }
        for key, value in settings.items():
            monkeypatch.setenv(key, value)
        yield server


def _vrt(source: str) -> str:
    return (
        '<VRTDataset rasterXSize="8" rasterYSize="8"><SRS>EPSG:32632</SRS>'
        "<GeoTransform>480000, 1, 0, 5460000, 0, -1</GeoTransform>"
        '<VRTRasterBand dataType="Byte" band="1"><SimpleSource>'
        f'<SourceFilename relativeToVRT="0">{source}</SourceFilename><SourceBand>1</SourceBand>'
        '<SourceProperties RasterXSize="8" RasterYSize="8" DataType="Byte" BlockXSize="8" BlockYSize="8"/>'
        "</SimpleSource></VRTRasterBand></VRTDataset>"
    )


def _tiled(service: str) -> str:
    return (
        f"<GDAL_WMS>{service}<DataWindow><UpperLeftX>0</UpperLeftX><UpperLeftY>8</UpperLeftY>"
        "<LowerRightX>8</LowerRightX><LowerRightY>0</LowerRightY><SizeX>8</SizeX><SizeY>8</SizeY>"
        "<TileLevel>0</TileLevel></DataWindow><BandsCount>1</BandsCount><BlockSizeX>8</BlockSizeX>"
        "<BlockSizeY>8</BlockSizeY></GDAL_WMS>"
    )


def _ogr_vrt(source: str) -> str:
    return (
        f'<OGRVRTDataSource><OGRVRTLayer name="a"><SrcDataSource>{source}</SrcDataSource></OGRVRTLayer>'
        "</OGRVRTDataSource>"
    )


def _numbered(text: str, number: int) -> str:
    """A text in which files have folders of their own: what a server said of one is remembered."""
    return text.replace("/a.", f"/{number}/a.", 1).replace("/b/a.", f"/b/{number}/a.")


@pytest.fixture
def rasters(web: Web, tmp_path: Path, write_raster: Callable[..., str]) -> Names:
    """Names of rasters that make a GDAL connect, by what they are."""
    u, far = web.url, f"/vsicurl/{web.url}/a.tif"
    proxy = f"/vsicurl?proxy={u.replace(':', '%3A').replace('/', '%2F')}&amp;url=http%3A%2F%2Fhost.invalid%2Fa.tif"
    tms = f'<Service name="TMS"><ServerUrl>{u}/${{z}}/${{x}}/${{y}}.png</ServerUrl></Service>'
    wms = f'<Service name="WMS"><ServerUrl>{u}/?</ServerUrl><Layers>a</Layers></Service>'
    item = {"stac_version": "1.0.0", "stac_extensions": ["https://stac-extensions.github.io/tiled-assets/v1.0.0/s"]}
    files = {
        "vrt.vrt": _vrt(f"{u}/a.tif"),
        "curl.vrt": _vrt(far),
        "odd.vrt": _vrt(f"/vsicurl/{u}/a.tif?{{offline}}"),
        "proxy.vrt": _vrt(proxy),
        "netcdf.vrt": _vrt(f'NETCDF:"{u}/a.nc":v'),
        "nested.vrt": _vrt(str(tmp_path / "vrt.vrt")),
        "s3.vrt": _vrt("/vsis3/b/a.tif"),
        "inline.vrt": _vrt(_tiled(tms).replace("<", "&lt;")),
        "tms.xml": _tiled(tms),
        "wms.xml": _tiled(wms),
        "wmts.xml": f"<GDAL_WMTS><GetCapabilitiesUrl>{u}/c.xml</GetCapabilitiesUrl><Layer>a</Layer></GDAL_WMTS>",
        "wcs.xml": f"<WCS_GDAL><ServiceURL>{u}/?</ServiceURL><Version>1.0.0</Version><CoverageName>a</CoverageName>"
        "</WCS_GDAL>",
        "a.gti": f"<GDALTileIndexDataset><IndexDataset>/vsicurl/{u}/a.gpkg</IndexDataset></GDALTileIndexDataset>",
        "stacit.json": json.dumps({**item, "type": "FeatureCollection", "features": [], "href": f"{u}/a.tif"}),
    }
    for number, (name, text) in enumerate(files.items()):
        (tmp_path / name).write_text(_numbered(text, number))
    image = write_raster(np.zeros((1, 8, 8), np.uint8), "overview.tif")
    side = f'<PAMDataset><Metadata domain="OVERVIEWS"><MDI key="OVERVIEW_FILE">{far}</MDI></Metadata></PAMDataset>'
    Path(f"{image}.aux.xml").write_text(_numbered(side, 99))
    direct = {
        "http": f"{u}/a.tif",
        "upper case": f"HTTP{u.removeprefix('http')}/a.tif",
        "cog": f"{u}/a.tif?x=.cog",
        "vsicurl": far,
        "odd": f"/vsicurl/{u}/a.tif?{{offline}}",
        "proxy": proxy.replace("&amp;", "&"),
        "streaming": f"/vsicurl_streaming/{u}/a.tif",
        "s3": "s3://b/a.tif",
        "vsis3": "/vsis3/b/a.tif",
        "vsis3_streaming": "/vsis3_streaming/b/a.tif",
        "gs": "gs://b/a.tif",
        "vsigs": "/vsigs/b/a.tif",
        "vsiaz": "/vsiaz/b/a.tif",
        "vsiadls": "/vsiadls/b/a.tif",
        "vsioss": "/vsioss/b/a.tif",
        "vsiswift": "/vsiswift/b/a.tif",
        "webhdfs": f"/vsiwebhdfs/{u}/webhdfs/v1/a.tif",
        "zip": f"/vsizip//vsicurl/{u}/a.zip/a.tif",
        "gzip": f"/vsigzip//vsicurl/{u}/a.gz",
        "netcdf": f'NETCDF:"{u}/a.nc":v',
        "netcdf bytes": f'NETCDF:"{u}/a.nc#mode=bytes":v',
        "zarr": f'ZARR:"/vsicurl/{u}/a.zarr"',
        "wms": f"WMS:{u}/?SERVICE=WMS",
        "wmts": f"WMTS:{u}/c.xml",
        "wcs": f"WCS:{u}/?SERVICE=WCS&coverage=a",
        "iip": f"IIP:{u}/a",
        "daas": f"DAAS:{u}/a",
        "plmosaic": "PLMosaic:api_key=a,mosaic=b",
        "eedai": "EEDAI:image",
        "stacta": f'STACTA:"{u}/a.json"',
        "stacit": f'STACIT:"{u}/a.json"',
        "gti": f"GTI:/vsicurl/{u}/a.gpkg",
        "inline vrt": _vrt(far),
    }
    numbered = {what: _numbered(name, 100 + number) for number, (what, name) in enumerate(direct.items())}
    return {**numbered, **{name: str(tmp_path / name) for name in files}, "overview": image}


@pytest.fixture
def tables(web: Web, tmp_path: Path) -> Names:
    """Names of shapes that make a GDAL connect, by what they are."""
    u = web.url
    files = {
        "far.vrt": _ogr_vrt(f"{u}/a.geojson"),
        "curl_far.vrt": _ogr_vrt(f"/vsicurl/{u}/a.gpkg"),
        "wfs_far.vrt": _ogr_vrt(f"WFS:{u}/wfs"),
        "nested_far.vrt": _ogr_vrt(str(tmp_path / "far.vrt")),
        "wfs.xml": f"<OGRWFSDataSource><URL>{u}/wfs</URL></OGRWFSDataSource>",
        "csw.xml": f"<OGRCSWDataSource><URL>{u}/csw</URL></OGRCSWDataSource>",
        "far.gdalg.json": json.dumps(
            {"type": "gdal_streamed_alg", "command_line": f"gdal vector edit {u}/a.geojson --output-format stream"}
        ),
    }
    for number, (name, text) in enumerate(files.items()):
        (tmp_path / name).write_text(_numbered(text, 200 + number))
    direct = {
        "geojson": f"{u}/a.geojson",
        "gpkg": f"/vsicurl/{u}/a.gpkg",
        "parquet": f"{u}/a.parquet",
        "s3 parquet": "s3://b/a.parquet",
        "zipped shp": f"/vsizip//vsicurl/{u}/a.zip/a.shp",
        "s3 shapes": "/vsis3/b/a.gpkg",
        "wfs": f"WFS:{u}/wfs",
        "oapif": f"OAPIF:{u}/o",
        "csw": f"CSW:{u}/c",
        "elasticsearch": f"ES:{u}",
        "carto": "CARTO:a",
        "amigocloud": "AMIGOCLOUD:a",
        "plscenes": "PLSCENES:api_key=a",
        "ngw": f"NGW:{u}/resource/1",
        "ogcapi": f"OGCAPI:{u}/o",
        "eeda": "EEDA:image",
        "postgresql": "PG:host=127.0.0.1",
        "mysql": "MYSQL:a,host=127.0.0.1",
    }
    numbered = {what: _numbered(name, 300 + number) for number, (what, name) in enumerate(direct.items())}
    return {**numbered, **{name: str(tmp_path / name) for name in files}}


def _pixels(name: str) -> None:
    with rasterio.open(name) as src:
        src.read(1)


def test_these_names_make_gdal_connect_where_it_may(web: Web, rasters: Names, tables: Names) -> None:
    """Else the tests below show nothing; some builds of GDAL lack some drivers, and some names are of other hosts."""
    connected = set()
    for reads, names in ((_pixels, rasters), (pyogrio.read_dataframe, tables)):
        for what, name in names.items():
            before = web.connections + len(web.asked)  # one connection is used again
            with suppress(Exception):  # of any kind: the server has none of these
                reads(name)
            if web.connections + len(web.asked) > before:
                connected.add(what)
    assert len(rasters | tables) >= 70
    assert len(connected) >= 50, " ".join(sorted({*rasters, *tables} - connected))


@pytest.fixture(params=["--offline", "GEOOVSEG_OFFLINE"])
def forbidden(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Both ways of forbidding the network; arguments of commands."""
    if request.param == "--offline":
        return ["--offline"]
    monkeypatch.setenv("GEOOVSEG_OFFLINE", "1")
    return []


def _light(name: str) -> None:
    with open_scene(name) as scene:
        scene.measured()


def _regions(name: str, scene: str) -> None:
    with open_scene(scene, regions=name):
        pass


def test_offline_nothing_connects(
    web: Web, rasters: Names, tables: Names, write_raster: Callable[..., str], forbidden: list[str]
) -> None:
    """By each way of reading something that may be on the network; every one is refused by an error of ours."""
    here = write_raster(np.ones((1, 8, 8), np.uint8), "here.tif")
    ways: dict[str, Callable[[str], object]] = {
        "scene": _light,
        "regions": lambda name: _regions(name, here),
        "shapes": lambda name: read_shapes(name, Choice()),
        "info": info,
        "labels": lambda name: evaluate(name, here),
        "truth": lambda name: evaluate(here, name),
        "stamp": stamp,
        "table": read_table,
    }
    read = []
    with access(offline=bool(forbidden)):
        for way, reads in ways.items():
            for what, name in (rasters | tables).items():
                with suppress(GeoOVSegError):
                    reads(name)
                    read.append((way, what))
    assert web.connections == 0
    assert {(way, what) for way, what in read if way not in ("stamp", "table")} <= AS_SHAPES, read


COMMANDS = (
    "segment NAME -c a,b --model demo -o OUT.tif",
    "segment HERE -c a,b --model demo -o OUT.tif --aoi NAME",
    "vectorize NAME OUT.gpkg",
    "evaluate NAME LABELS",
    "evaluate LABELS NAME",
    "preview NAME LABELS OUT.png",
    "preview HERE NAME OUT.png",
    "info NAME",
)
AS_SHAPES = {("info", "stacit.json"), ("shapes", "stacit.json"), ("truth", "stacit.json")}
"""Read without a connection: as a table of shapes, a STAC item leads nowhere."""


def test_offline_no_command_connects(
    web: Web,
    rasters: Names,
    tables: Names,
    geoovseg: Callable[..., tuple[int, str, str]],
    write_raster: Callable[..., str],
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
    forbidden: list[str],
) -> None:
    """Each name with the next of the commands, so that each has several; a clear error, and no traceback."""
    write_raster(np.zeros((3, 8, 8), np.uint8), "HERE")
    write_raster(np.ones((1, 8, 8), np.uint8), "LABELS")
    monkeypatch.chdir(tmp_path)
    names = {what: name for what, name in (rasters | tables).items() if what != "stacit.json"}
    wrong = {}
    for number, (what, name) in enumerate(names.items()):
        command = COMMANDS[number % len(COMMANDS)]
        code, _, err = geoovseg(*[name if word == "NAME" else word for word in command.split()], *forbidden)
        if code not in (2, 4) or "Traceback" in err or NOWHERE in err:
            wrong[what] = command, code, err
    assert wrong == {}
    assert web.connections == 0


def test_offline_gdal_itself_cannot_connect(web: Web, rasters: Names, tables: Names) -> None:
    """Whatever is opened in a way that was not thought of: here nothing looks at names before GDAL does."""
    with access(offline=True), raster_env(), pyogrio_env():
        for name in (rasters | tables).values():
            for reads in (_pixels, pyogrio.read_dataframe):
                with suppress(Exception):  # of any kind
                    reads(name)
            thread = threading.Thread(target=_quietly, args=(name,))
            thread.start()
            thread.join()
    assert web.connections == 0


def _quietly(name: str) -> None:
    with suppress(Exception):
        _pixels(name)


def test_offline_worker_processes_cannot_connect_either(web: Web) -> None:
    with access(offline=True), in_processes(os.getenv, ("GDAL_HTTP_PROXY", "http_proxy", "no_proxy"), 2) as found:
        assert list(found) == [NOWHERE, NOWHERE, ""]


def test_offline_urls_of_our_own_are_not_asked(web: Web, tmp_path: Path) -> None:
    with access(offline=True):
        with pytest.raises(GeoOVSegError, match="forbid the network"):
            download(f"{web.url}/weights", tmp_path / "weights")
        assert stamp(f"{web.url}/a.tif") is None
        with pytest.raises(urllib.error.URLError):
            urllib.request.build_opener().open(f"{web.url}/a.tif", timeout=3)
    assert web.connections == 0


def test_after_an_offline_run_the_network_is_as_it_was(
    web: Web, monkeypatch: pytest.MonkeyPatch, write_raster: Callable[..., str]
) -> None:
    """Also where the user has settings of their own, threads leave in another order, and a run fails."""
    monkeypatch.setenv("https_proxy", "http://proxy.invalid:3128")
    pyogrio.set_gdal_config_options({"GDAL_HTTPS_PROXY": "proxy.invalid"})
    before = dict(os.environ), {key: pyogrio.get_gdal_config_option(key) for key in FORBIDDEN}
    try:
        with access(offline=True):
            one, other = pyogrio_env(), pyogrio_env()
            one.__enter__()
            with pytest.raises(SceneError), opened("/vsis3/b/a.tif", "it"):
                pass
            with raster_env():
                _quietly(f"{web.url}/a.tif")
            other.__enter__()
            one.__exit__(None, None, None)
            assert os.environ["GDAL_HTTP_PROXY"] == pyogrio.get_gdal_config_option("GDAL_HTTPS_PROXY") == NOWHERE
            other.__exit__(None, None, None)
        assert (dict(os.environ), {key: pyogrio.get_gdal_config_option(key) for key in FORBIDDEN}) == before
    finally:
        pyogrio.set_gdal_config_options({"GDAL_HTTPS_PROXY": None})
    write_raster(np.full((1, 8, 8), 7, np.uint8), "served/a.tif")
    with opened(f"{web.url}/a.tif", "it") as src:
        assert (src.read(1) == 7).all()
    assert web.connections


def test_what_only_a_file_says_of_the_network_is_told(
    web: Web, write_raster: Callable[..., str], geoovseg: Callable[..., tuple[int, str, str]], tmp_path: Path
) -> None:
    """In one line, for a VRT of a VRT and one in an archive too; not where a name says so, nor for what is all here."""
    image = write_raster(np.full((1, 8, 8), 1, np.uint8), "served/a.tif", transform=from_origin(480000, 5460000, 1, 1))
    far, nested, near, archive = (tmp_path / name for name in ("far.vrt", "nested.vrt", "near.vrt", "all.zip"))
    far.write_text(_vrt(f"/vsicurl/{web.url}/a.tif"))
    nested.write_text(_vrt(str(far)))
    near.write_text(_vrt(image))
    with zipfile.ZipFile(archive, "w") as file:
        file.write(far, "far.vrt")
    for name in (far, nested, f"/vsizip/{archive}/far.vrt"):
        code, _, err = geoovseg("info", name)
        assert code == 0, err
        assert [line for line in err.splitlines() if line.startswith("warning: ")] == [
            f"warning: {name} lies here, but is read over the network, from {web.url}"
        ]
    for name in (near, f"{web.url}/a.tif"):
        assert geoovseg("info", name)[2] == ""


def test_a_vrt_of_shapes_elsewhere_is_told(web: Web, tmp_path: Path) -> None:
    place = {"type": "Feature", "properties": {}, "geometry": {"type": "Point", "coordinates": [1, 2]}}
    (tmp_path / "served" / "a.geojson").write_text(json.dumps({"type": "FeatureCollection", "features": [place]}))
    (tmp_path / "far.vrt").write_text(_ogr_vrt(f"/vsicurl/{web.url}/a.geojson").replace('"a"', '"a"'))
    with pytest.warns(GeoOVSegWarning, match=f"lies here, but is read over the network, from {web.url}"):
        assert len(read_shapes(str(tmp_path / "far.vrt"), Choice())) == 1


@pytest.mark.parametrize("name", ["es.tif", "./wms:a.tif", "C:/wms/a.tif", "pg/a.tif", "my:a.tif", "http/a.tif"])
def test_names_of_files_are_no_names_of_servers(name: str) -> None:
    assert not is_remote(name)


def test_offline_shapes_and_pixels_that_are_here_are_read(
    tmp_path: Path, write_raster: Callable[..., str], forbidden: list[str]
) -> None:
    """Also where they hold addresses that nobody opens: of a licence, of a name space, in a property."""
    image = write_raster(np.ones((1, 8, 8), np.uint8), tags={"LICENCE": "https://licence.invalid/"})
    licence = '<Metadata><MDI key="L">https://licence.invalid/</MDI></Metadata><SRS>'
    (tmp_path / "here.vrt").write_text(_vrt(image).replace("<SRS>", licence))
    place = {"type": "Point", "coordinates": [1, 2]}
    item = {"stac_version": "1.0.0", "type": "Feature", "properties": {}, "links": [], "geometry": place}
    (tmp_path / "item.json").write_text(json.dumps({**item, "assets": {"a": {"href": "https://asset.invalid/a.tif"}}}))
    with access(offline=bool(forbidden)):
        for name in (image, str(tmp_path / "here.vrt")):
            with opened(name, name) as src:
                assert (src.read(1) == 1).all()
        assert len(read_shapes(str(tmp_path / "item.json"), Choice())) == 1
