"""Offline nothing connects: a server of this machine counts, over every way by which a GDAL here knows a server."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pyogrio
import pytest
import rasterio
from web import Web, serving

from geoovseg.network import NOWHERE

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
    for name, text in files.items():
        (tmp_path / name).write_text(text)
    image = write_raster(np.zeros((1, 8, 8), np.uint8), "overview.tif")
    side = f'<PAMDataset><Metadata domain="OVERVIEWS"><MDI key="OVERVIEW_FILE">{far}</MDI></Metadata></PAMDataset>'
    Path(f"{image}.aux.xml").write_text(side)
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
    return {**direct, **{name: str(tmp_path / name) for name in files}, "overview": image}


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
    for name, text in files.items():
        (tmp_path / name).write_text(text)
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
    return {**direct, **{name: str(tmp_path / name) for name in files}}


def _pixels(name: str) -> None:
    with rasterio.open(name) as src:
        src.read(1)


def test_these_names_make_gdal_connect_where_it_may(web: Web, rasters: Names, tables: Names) -> None:
    """Else the tests below show nothing; some builds of GDAL lack some drivers, and some names are of other hosts."""
    connected = set()
    for reads, names in ((_pixels, rasters), (pyogrio.read_dataframe, tables)):
        for what, name in names.items():
            before = web.connections
            try:
                reads(name)
            except Exception:  # of any kind: the server has none of these
                pass
            if web.connections > before:
                connected.add(what)
    assert len(rasters | tables) >= 70
    assert len(connected) >= 50, sorted({*rasters, *tables} - connected)


@pytest.fixture(params=["--offline", "GEOOVSEG_OFFLINE"])
def forbidden(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Both ways of forbidding the network; arguments of commands."""
    if request.param == "--offline":
        return ["--offline"]
    monkeypatch.setenv("GEOOVSEG_OFFLINE", "1")
    return []


@pytest.mark.parametrize(
    "command",
    [
        ["segment", "NAME", "-c", "a,b", "--model", "demo", "-o", "OUT.tif"],
        ["segment", "HERE", "-c", "a,b", "--model", "demo", "-o", "OUT.tif", "--aoi", "NAME"],
        [
            "segment",
            "HERE",
            "-c",
            "a,b",
            "--model",
            "demo",
            "-o",
            "OUT.tif",
            "--method",
            "corrclip",
            "--regions",
            "NAME",
        ],
        ["vectorize", "NAME", "OUT.gpkg"],
        ["evaluate", "NAME", "LABELS"],
        ["evaluate", "LABELS", "NAME"],
        ["preview", "NAME", "LABELS", "OUT.png"],
        ["preview", "HERE", "NAME", "OUT.png"],
        ["info", "NAME"],
    ],
    ids=lambda words: " ".join(words[:2] + words[-1:]),
)
def test_offline_no_command_connects(
    web: Web,
    rasters: Names,
    tables: Names,
    geoovseg: Callable[..., tuple[int, str, str]],
    write_raster: Callable[..., str],
    tmp_path: Path,
    forbidden: list[str],
    command: list[str],
) -> None:
    here = write_raster(np.zeros((3, 8, 8), np.uint8), "here.tif")
    labels = write_raster(np.ones((1, 8, 8), np.uint8), "labels.tif")
    places = {"HERE": here, "LABELS": labels, **{f"OUT.{end}": str(tmp_path / f"out.{end}") for end in ("tif", "png")}}
    places["OUT.gpkg"] = str(tmp_path / "out.gpkg")
    wrong = {}
    for what, name in (rasters | tables).items():
        code, out, err = geoovseg(*[name if word == "NAME" else places.get(word, word) for word in command], *forbidden)
        if code not in (2, 4) or "Traceback" in err or NOWHERE in err:
            wrong[what] = code, err
    assert wrong == {}
    assert web.connections == 0
