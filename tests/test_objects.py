"""Outputs and features on an object store: whole or not there, and read back; a store pretended by moto."""

from __future__ import annotations

import json
import subprocess
import sys
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import obstore
import pytest
import rasterio
from obstore.store import from_url

from geoovseg import encode, open_features, segment
from geoovseg.errors import OutputError, UsageError
from geoovseg.models.weights import cache_dir
from geoovseg.rasters import objects

Run = Callable[..., tuple[int, str, str]]
COMMAND = ("segment", "-c", "building,road", "--model", "demo", "--json", "--quiet")
SERVER = """
import sys
from moto.server import ThreadedMotoServer
server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
server.start()
print(server.get_host_and_port()[1], flush=True)
sys.stdin.read()
"""


@pytest.fixture(scope="module")
def port() -> Iterator[int]:
    """Of a store in a process of its own: GDAL lets no other thread run while it opens files."""
    pipes: dict[str, Any] = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "stderr": subprocess.DEVNULL}
    with subprocess.Popen([sys.executable, "-c", SERVER], text=True, **pipes) as server:
        assert server.stdout is not None
        yield int(server.stdout.readline())
        server.kill()


@pytest.fixture
def bucket(port: int, monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest) -> str:
    """An empty bucket."""
    found = {
        "AWS_ACCESS_KEY_ID": "me", "AWS_SECRET_ACCESS_KEY": "secret", "AWS_REGION": "us-east-1",
        "AWS_ENDPOINT_URL": f"http://127.0.0.1:{port}", "AWS_ALLOW_HTTP": "true",
        "AWS_S3_ENDPOINT": f"127.0.0.1:{port}", "AWS_HTTPS": "NO", "AWS_VIRTUAL_HOSTING": "FALSE",
    }  # fmt: skip
    for name, value in found.items():
        monkeypatch.setenv(name, value)
    name = f"b{abs(hash(request.node.name))}"
    urllib.request.urlopen(urllib.request.Request(f"http://127.0.0.1:{port}/{name}", method="PUT")).close()
    return f"s3://{name}"


def _there(bucket: str) -> list[str]:
    return sorted(found["path"] for page in obstore.list(from_url(bucket)) for found in page)


def _read(name: str) -> np.ndarray:
    with rasterio.open(name) as src:
        return src.read(1)


def test_labels_polygons_and_side_files_are_put_when_all_is_whole(
    bucket: str, demo_scene: str, tmp_path: Path, geoovseg: Run
) -> None:
    objects.put_all([(Path(demo_scene), f"{bucket}/in/scene.tif")])
    here = segment(demo_scene, "building,road", model="demo", output=tmp_path / "here.tif")
    args = ("-o", f"{bucket}/out/labels.tif", "--vectors", f"{bucket}/out/classes.gpkg", "--confidence")
    code, out, err = geoovseg(*COMMAND, f"{bucket}/in/scene.tif", *args)
    assert code == 0, err
    said = json.loads(out)
    assert said["labels"] == f"{bucket}/out/labels.tif"
    assert said["vectors"] == f"{bucket}/out/classes.gpkg"
    assert said["confidence"] == f"{bucket}/out/labels_confidence.tif"
    assert {Path(path).suffix for path in _there(bucket) if path.startswith("out/")} >= {".tif", ".gpkg", ".qml"}
    np.testing.assert_array_equal(_read(said["labels"]), _read(here.labels))
    assert not list((cache_dir() / "staged").iterdir())
    code, _, err = geoovseg(*COMMAND, demo_scene, "-o", f"{bucket}/out/labels.tif")
    assert (code, "exists; add --overwrite" in err) == (1, True), err
    assert geoovseg(*COMMAND, demo_scene, "-o", f"{bucket}/out/labels.tif", "--overwrite")[0] == 0


def test_several_scenes_go_below_an_address(bucket: str, demo_scene: str, tmp_path: Path, geoovseg: Run) -> None:
    for name in "ab":
        (tmp_path / f"{name}.tif").write_bytes(Path(demo_scene).read_bytes())
    code, out, err = geoovseg(*COMMAND, tmp_path / "a.tif", tmp_path / "b.tif", "-o", f"{bucket}/many/")
    assert code == 0, err
    assert [json.loads(line)["labels"] for line in out.splitlines()] == [
        f"{bucket}/many/{name}_labels.tif" for name in "ab"
    ]
    assert "many/a_labels.tif" in _there(bucket)


def test_features_are_put_and_asked_where_they_are(bucket: str, demo_scene: str, tmp_path: Path) -> None:
    kept = encode(demo_scene, model="demo", output=f"{bucket}/x.zarr")
    assert kept.features == f"{bucket}/x.zarr"
    assert "x.zarr/zarr.json" in _there(bucket)
    for given in ({}, {"upsample": "bilinear"}):
        here = segment(demo_scene, "building,road", model="demo", output=tmp_path / "a.tif", overwrite=True, **given)
        there = segment(kept.features, "building,road", output=tmp_path / "b.tif", overwrite=True, **given)
        np.testing.assert_array_equal(_read(here.labels), _read(there.labels))
    assert open_features(kept.features).crs is not None


def test_a_put_that_fails_leaves_no_name_and_keeps_what_was_made(
    bucket: str, demo_scene: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    real, tried = obstore.put, []

    def put(store: Any, name: str, content: Any) -> Any:
        tried.append(name)
        if name.endswith(".tif"):
            raise OSError("the store is full")
        return real(store, name, content)

    monkeypatch.setattr(obstore, "put", put)
    with pytest.raises(OutputError, match="cannot put s3://.*labels.tif: the store is full; what was made is kept in"):
        segment(demo_scene, "building,road", model="demo", output=f"{bucket}/labels.tif")
    assert tried[-1] == "labels.tif", "labels come last"
    assert _there(bucket) == []
    assert list((cache_dir() / "staged").rglob("labels.tif"))


def test_a_busy_store_is_tried_again(bucket: str, demo_scene: str, port: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Behind a server that is busy three times."""
    busy = subprocess.Popen([sys.executable, "-c", BUSY, str(port)], text=True, stdout=subprocess.PIPE)
    try:
        assert busy.stdout is not None
        monkeypatch.setenv("AWS_ENDPOINT_URL", f"http://127.0.0.1:{int(busy.stdout.readline())}")
        objects.put_all([(Path(demo_scene), f"{bucket}/scene.tif")])
        assert objects.read(f"{bucket}/scene.tif") == Path(demo_scene).read_bytes()
    finally:
        busy.kill()
        busy.communicate()


BUSY = """
import http.server, sys, urllib.request
left = [3]
class Handler(http.server.BaseHTTPRequestHandler):
    def _pass(self):
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        if self.command == "PUT" and left[0]:
            left[0] -= 1
            self.send_response(503); self.send_header("Content-Length", "0"); self.end_headers()
            return
        request = urllib.request.Request(f"http://127.0.0.1:{sys.argv[1]}{self.path}", data=body or None,
            headers={"Content-Type": "image/tiff", **{k: v for k, v in self.headers.items() if k.lower() != "host"}},
            method=self.command)
        with urllib.request.urlopen(request) as answer:
            content = answer.read()
            self.send_response(answer.status)
            for key, value in answer.headers.items():
                if key.lower() not in ("transfer-encoding", "connection", "content-length"):
                    self.send_header(key, value)
            self.send_header("Content-Length", str(len(content))); self.end_headers()
            self.wfile.write(content)
    do_GET = do_PUT = do_HEAD = do_POST = _pass
    def log_message(self, *args): pass
server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
print(server.server_port, flush=True)
server.serve_forever()
"""


def test_what_needs_outputs_here_is_refused(bucket: str, demo_scene: str) -> None:
    with pytest.raises(UsageError, match="--skip-finished needs outputs on this machine"):
        encode(demo_scene, model="demo", output=f"{bucket}/x.zarr", skip_finished=True)
    with pytest.raises(UsageError, match="--work-dir s3://.*only a file or folder on this machine"):
        segment(demo_scene, "road", model="demo", work_dir=f"{bucket}/parts")


def test_without_obstore_the_extra_is_named(monkeypatch: pytest.MonkeyPatch, demo_scene: str) -> None:
    for name in ("obstore", "obstore.store"):
        monkeypatch.setitem(sys.modules, name, None)
    with pytest.raises(UsageError, match=r"pip install 'geoovseg\[cloud\]'"):
        segment(demo_scene, "road", model="demo", output="s3://bucket/x.tif")


def test_finished_labels_on_a_store_are_not_made_again(bucket: str, demo_scene: str, geoovseg: Run) -> None:
    args = (*COMMAND, demo_scene, "-o", f"{bucket}/out/labels.tif", "--skip-finished")

    def put() -> dict[str, Any]:
        return {found["path"]: found["last_modified"] for page in obstore.list(from_url(bucket)) for found in page}

    assert json.loads(geoovseg(*args)[1])["was_there"] is False
    before = put()
    code, out, err = geoovseg(*args, "--vectors", f"{bucket}/out/classes.gpkg")
    assert code == 0, err
    assert json.loads(out)["was_there"] is True
    after = put()
    assert after.pop("out/classes.gpkg")
    assert after == before
    code, _, err = geoovseg(*args, "--threshold", ".5")
    assert (code != 0, "is not what this run would make: threshold was" in err) == (True, True)
    assert not [*(cache_dir() / "staged").rglob("*.tif")] or code
