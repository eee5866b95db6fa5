"""What a raster is known by: that it has not changed between two parts of a run, and names that hold no secrets."""

from __future__ import annotations

import json
import os
import shutil
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import rasterio
from web import serving

from geoovseg import merge, segment
from geoovseg.errors import GeoOVSegError, GeoOVSegWarning, ResumeError, SceneError
from geoovseg.labels.record import RUN_TAG
from geoovseg.network import public
from geoovseg.rasters.remote import file_of, stamp

WriteRaster = Callable[..., str]
SIZE = 1040
"""Rows: three parts, for two shards."""


@pytest.mark.parametrize(
    ("name", "shown"),
    [
        ("https://a.b/c/scene.tif?sv=1&sig=SECRET", "https://a.b/c/scene.tif"),
        ("https://user:SECRET@a.b/scene.tif", "https://a.b/scene.tif"),
        ("/vsicurl/https://SECRET@a.b/scene.tif?SECRET", "/vsicurl/https://a.b/scene.tif"),
        ("/vsizip//vsicurl/https://a.b/s.zip?SECRET/scene.tif", "/vsizip//vsicurl/https://a.b/s.zip"),
        ("/vsicurl?max_retry=3&url=https%3A%2F%2Fa.b%2Fx.tif%3Fsig%3DSECRET", "/vsicurl/https://a.b/x.tif"),
        ("GTIFF_DIR:1:/vsicurl/https://a.b/scene.tif?SECRET", "GTIFF_DIR:1:/vsicurl/https://a.b/scene.tif"),
        ("s3://key:SECRET@bucket/scene.tif", "s3://bucket/scene.tif"),
        ("cannot read 'https://a.b/x.tif?SECRET': gone", "cannot read 'https://a.b/x.tif': gone"),
        ("see https://a.b/x.tif?SECRET; then go", "see https://a.b/x.tif; then go"),
        ("HTTP://a.b/x.tif?SECRET", "HTTP://a.b/x.tif"),
        ("http:/a.b/x.tif?SECRET", "http:/a.b/x.tif"),
        ("http://user:SEC@RET@a.b/x.tif", "http://a.b/x.tif"),
        ("https://a.b/x.tif?sig='SECRET'", "https://a.b/x.tif"),
        ("cannot open 'https://a.b/x.tif?sig=SECRET=' as 'y'", "cannot open 'https://a.b/x.tif' as 'y'"),
        ("abfss://a@b/x.tif?sig=SECRET", "abfss://b/x.tif"),
        ("/vsiaz/c/x.tif?sig=SECRET", "/vsiaz/c/x.tif"),
        ("PG:dbname=x password=SECRET", "PG:dbname=x password=..."),
        ("<UserPwd>a:SECRET</UserPwd>", "<UserPwd>...</UserPwd>"),
        ("what?is=this.tif", "what?is=this.tif"),
        ("me@home.tif", "me@home.tif"),
    ],
)
def test_public_names_hold_no_secrets(name: str, shown: str) -> None:
    assert public(name) == shown


@pytest.mark.parametrize("kind", [SceneError, GeoOVSegError, GeoOVSegWarning])
def test_messages_hold_no_secrets(kind: type[Exception]) -> None:
    assert str(kind("cannot open https://u:p@a.b/x.tif?sig=SECRET: gone")) == "cannot open https://a.b/x.tif: gone"


def _zip(folder: Path, scene: str) -> str:
    with zipfile.ZipFile(folder / "s.zip", "w") as file:
        file.write(scene, "scene.tif")
    return f"/vsizip/{folder}/s.zip/scene.tif"


@pytest.mark.parametrize(
    "name",
    [
        "/vsizip/{folder}/s.zip/scene.tif", "zip://{folder}/s.zip!scene.tif", "GTIFF_DIR:1:{folder}/scene.tif",
        'NETCDF:"{folder}/scene.tif":v', "/vsizip/{{{folder}/s.zip}}/scene.tif", "{folder}/scene.tif",
        "file://{folder}/scene.tif", "/vsisubfile/0_9,{folder}/scene.tif", "/vsigzip/{folder}/s.zip",
    ],
)  # fmt: skip
def test_what_lies_in_a_file_changes_with_it(write_raster: WriteRaster, tmp_path: Path, name: str) -> None:
    _zip(tmp_path, write_raster(np.zeros((3, 8, 8), np.uint8)))
    name = name.format(folder=tmp_path)
    before = stamp(name)
    assert before is not None
    os.utime(str(file_of(name)), ns=(1, 1))
    assert stamp(name) != before


def test_names_of_nothing_have_no_stamp(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.chdir(tmp_path)
    for name in ("/vsimem/x.tif", "nowhere.tif", "/vsizip/no.zip/scene.tif", "s3://bucket/scene.tif", ":", ""):
        assert stamp(name) is None


def _scene(write_raster: WriteRaster, seed: int, name: str = "scene.tif") -> str:
    return write_raster(np.random.default_rng(seed).integers(1, 255, (3, SIZE, 64), dtype=np.uint8), name)


def _shard(scene: str, number: int, folder: Path) -> Any:
    return segment(scene, "road", model="demo", output=folder / "labels.tif", shard=(number, 2))


def test_a_scene_in_an_archive_must_not_change_between_shards(write_raster: WriteRaster, tmp_path: Path) -> None:
    scene = _zip(tmp_path, _scene(write_raster, 1))
    _shard(scene, 1, tmp_path)
    _zip(tmp_path, _scene(write_raster, 2))
    with pytest.raises(ResumeError, match="is of another run: scene files"):
        _shard(scene, 2, tmp_path)


def _folders(tmp_path: Path) -> tuple[Path, Path]:
    """A folder to serve, and one for outputs."""
    found = tmp_path / "served", tmp_path / "out"
    for folder in found:
        folder.mkdir()
    return found


@pytest.mark.parametrize("silent", [False, True])
def test_a_scene_on_a_server_must_not_change_between_shards(
    write_raster: WriteRaster, tmp_path: Path, silent: bool
) -> None:
    folder, _ = _folders(tmp_path)
    with serving(folder) as web:
        web.silent = silent
        web.tell()
        shutil.copy(_scene(write_raster, 1), folder / "scene.tif")
        _shard(f"{web.url}/scene.tif?sig=one", 1, tmp_path)
        _shard(f"{web.url}/scene.tif?sig=two", 1, tmp_path)
        shutil.copy(_scene(write_raster, 2), folder / "scene.tif")
        with pytest.raises(ResumeError, match="is of another run: scene files"):
            _shard(f"{web.url}/scene.tif?sig=three", 2, tmp_path)
        said = json.loads((tmp_path / "labels.tif.parts" / "run.json").read_text())
    assert said["record"]["scene_checked_by"] == ("sample" if silent else "server")


def test_a_signature_is_written_nowhere_and_may_be_renewed(
    write_raster: WriteRaster, tmp_path: Path, geoovseg: Callable[..., Any]
) -> None:
    folder, out = _folders(tmp_path)
    shutil.copy(_scene(write_raster, 1), folder / "scene.tif")
    options = ["-c", "road", "--model", "demo", "-o", out / "labels.tif", "--json"]
    with serving(folder) as web:
        for number in (1, 2):
            scene = f"{web.url}/scene.tif?sig=SECRET{number}"
            code, said, err = geoovseg("segment", scene, *options, "--shard", f"{number}/2")
            assert code == 0, err
            assert "SECRET" not in said + err
            for path in out.rglob("*"):
                assert path.is_dir() or b"SECRET" not in path.read_bytes()
        code, said, err = geoovseg("segment", f"{web.url}/none.tif?sig=SECRET", *options, "--overwrite")
        assert code == 4
        assert "SECRET" not in said + err
    merge(out / "labels.tif.parts")
    with rasterio.open(out / "labels.tif") as src:
        assert json.loads(src.tags()[RUN_TAG])["scene"] == "scene.tif"


def test_tiles_of_a_mosaic_may_have_renewed_signatures(
    write_raster: WriteRaster, tmp_path: Path, geoovseg: Callable[..., Any]
) -> None:
    folder, out = _folders(tmp_path)
    shutil.copy(_scene(write_raster, 1), folder / "a.tif")
    options = ["--mosaic", "-c", "road", "--model", "demo", "-o", out / "labels.tif", "--json"]
    with serving(folder) as web:
        for number in (1, 2):
            tile = f"{web.url}/a.tif?sig=SECRET{number}"
            code, said, err = geoovseg("segment", tile, *options, "--shard", f"{number}/2")
            assert code == 0, err
            assert "SECRET" not in said + err
    assert (out / "labels.tif.mosaic.vrt").stat().st_mode & 0o077 == 0
