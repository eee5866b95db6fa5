"""Scenes behind a server: it is asked again where it is busy, and what it answered is told."""

from __future__ import annotations

import json
import logging
import subprocess
import sys
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
import rasterio
from rasterio.env import getenv
from rasterio.windows import Window

from geoovseg.errors import SceneError
from geoovseg.rasters.http import PATIENCE
from geoovseg.rasters.open import raster_env
from geoovseg.scene.scene import Scene, open_scene

Write = Callable[..., str]
WINDOW = Window(0, 0, 64, 64)
RNG = np.random.default_rng(3)
SERVER = """
import http.server, json, os, sys
answers, asked = [], []
class Handler(http.server.BaseHTTPRequestHandler):
    def do_HEAD(self): self.answer(b"")
    def do_GET(self):
        if self.path.startswith("/next/"):
            status, times = map(int, self.path.split("/")[2:])
            answers[:] = [status] * times
            said = json.dumps(asked).encode()
            asked.clear()
            return self.send(200, said)
        self.answer(None)
    def answer(self, body):
        asked.append(self.path)
        path = os.path.join(sys.argv[1], os.path.basename(self.path.split("?")[0]))
        if answers: return self.send(answers.pop(), b"")
        if not os.path.isfile(path): return self.send(404, b"")
        whole = open(path, "rb").read()
        first, last = 0, len(whole) - 1
        if wanted := self.headers.get("Range"):
            first, last = map(int, wanted.split("=")[1].split("-"))
        part = whole[first : last + 1]
        place = f"bytes {first}-{last}/{len(whole)}"
        self.send(206 if wanted else 200, part if body is None else body, len(part), place)
    def send(self, status, body, length=None, place=None):
        self.send_response(status)
        self.send_header("Content-Length", str(len(body) if length is None else length))
        self.send_header("Accept-Ranges", "bytes")
        if status == 206: self.send_header("Content-Range", place)
        self.end_headers()
        self.wfile.write(body)
    def log_message(self, *args): pass
server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
print(server.server_port, flush=True)
server.serve_forever()
"""


class Server:
    """A folder on a server of this machine that can be told what to answer next."""

    def __init__(self, folder: Path, port: str) -> None:
        self.folder, self.root = folder, f"http://127.0.0.1:{port}"

    def next(self, status: int = 200, times: int = 0) -> list[str]:
        """Answer so many requests with a status; returns what was asked for before."""
        with urllib.request.urlopen(f"{self.root}/next/{status}/{times}") as found:
            return list(json.load(found))


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    folder = tmp_path_factory.mktemp("served")
    process = subprocess.Popen([sys.executable, "-c", SERVER, folder], stdout=subprocess.PIPE, text=True)
    try:
        assert process.stdout is not None
        yield Server(folder, process.stdout.readline().strip())
    finally:
        process.kill()
        process.communicate()


@pytest.fixture
def url(server: Server, write_raster: Write, monkeypatch: pytest.MonkeyPatch) -> str:
    """A scene on the server: larger than what GDAL reads of a file at first."""
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    monkeypatch.setenv("GDAL_HTTP_RETRY_DELAY", "0.01")
    server.next()
    name = f"{RNG.integers(1 << 40)}.tif"  # GDAL remembers what it read of a name
    Path(write_raster(RNG.integers(1, 256, (3, 128, 128), dtype=np.uint8))).rename(server.folder / name)
    return f"{server.root}/{name}"


def _read(scene: Scene) -> np.ndarray:
    return scene.read(WINDOW)[0]


def test_a_server_that_is_busy_for_a_moment_is_asked_again(server: Server, url: str) -> None:
    server.next(503, 3)
    with open_scene(url) as scene:
        server.next(503, 4)
        seen = _read(scene)
    with rasterio.open(server.folder / url.rpartition("/")[2]) as src:
        np.testing.assert_allclose(seen, src.read(window=WINDOW) / 255, atol=1e-6)


@pytest.mark.parametrize(
    ("status", "said"),
    [
        (503, r"the server answered 503 \(Service Unavailable\) each time it was asked; it is busy or down"),
        (403, r"the server answered 403 \(Forbidden\); it wants other credentials, or a signed URL has expired"),
        (404, r"the server answered 404 \(Not Found\); there is no such file"),
    ],
)
def test_what_a_server_answered_is_told_and_not_called_damage(
    server: Server, url: str, monkeypatch: pytest.MonkeyPatch, status: int, said: str
) -> None:
    monkeypatch.setenv("GDAL_HTTP_MAX_RETRY", "1")
    with open_scene(url) as scene:
        server.next(status, 1000)
        with pytest.raises(SceneError, match=rf"cannot read rows 0\.\.64 .*: {said}") as caught:
            _read(scene)
        assert "damaged" not in str(caught.value)
        assert len(server.next()) <= (6 if status == 503 else 3)  # GDAL itself tries three ways
        assert _read(scene).any()
    server.next(status, 1000)
    with pytest.raises(SceneError, match=f"cannot open .*: {said}"), open_scene(f"{url}?anew"):
        pass


def test_what_is_forbidden_is_asked_for_once(server: Server, url: str) -> None:
    server.next(403, 1000)
    with pytest.raises(SceneError, match="answered 403"), open_scene(url):
        pass
    assert len([path for path in server.next() if path.endswith(".tif")]) == 1


def test_a_damaged_file_is_called_that_also_behind_a_server(server: Server, url: str) -> None:
    path = server.folder / url.rpartition("/")[2]
    path.write_bytes(path.read_bytes()[:30_000])
    with (
        open_scene(url) as scene,
        pytest.raises(SceneError, match="broken off, or the file is cut short or damaged"),
    ):
        scene.read(Window(0, 0, 128, 128))
    with (
        open_scene(path) as scene,
        pytest.raises(SceneError, match="the file may be cut short or damaged"),
    ):
        scene.read(Window(0, 0, 128, 128))


def test_what_the_user_set_of_gdal_is_left_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    for key in PATIENCE:
        monkeypatch.delenv(key, raising=False)
    with raster_env():
        assert {key: getenv()[key] for key in PATIENCE} == PATIENCE
    monkeypatch.setenv("GDAL_HTTP_MAX_RETRY", "0")
    with rasterio.Env(GDAL_HTTP_TIMEOUT=7), raster_env():
        assert "GDAL_HTTP_MAX_RETRY" not in getenv()
        assert getenv()["GDAL_HTTP_TIMEOUT"] == 7


def test_listening_to_servers_leaves_the_log_as_it_was(
    url: str, server: Server, caplog: pytest.LogCaptureFixture
) -> None:
    log = logging.getLogger("rasterio._err")
    before = log.level, list(log.filters)
    with open_scene(url) as scene:
        server.next(403, 1000)
        with caplog.at_level(logging.INFO, "rasterio"), pytest.raises(SceneError):
            _read(scene)
    assert (log.level, list(log.filters)) == before
    assert not [record for record in caplog.records if record.levelno < logging.INFO]
