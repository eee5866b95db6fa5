"""Downloads go on where they broke off, are checked, and never happen behind the user's back."""

from __future__ import annotations

import hashlib
import http.server
import socket
import threading
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from geoovseg.errors import GeoOVSegError, SceneError
from geoovseg.models.cards import MODELS, ModelCard, model_card
from geoovseg.models.download import download
from geoovseg.models.weights import bundle, fetch_weights, find_weights, local_weights, verify
from geoovseg.scene import open_scene

CONTENT = bytes(range(256)) * 20_000
SHA256 = hashlib.sha256(CONTENT).hexdigest()


class Server(http.server.ThreadingHTTPServer):
    """Serves CONTENT; may break off after some bytes, and may not know of parts."""

    break_after: int | None = None
    knows_parts = True
    asked: list[str | None]


class Handler(http.server.BaseHTTPRequestHandler):
    server: Server

    def do_GET(self) -> None:
        asked = self.headers.get("Range")
        self.server.asked.append(asked)
        start = int(asked.removeprefix("bytes=").rstrip("-")) if asked and self.server.knows_parts else 0
        if start >= len(CONTENT):
            self.send_error(416)
            return
        self.send_response(206 if start else 200)
        body = CONTENT[start:]
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body if self.server.break_after is None else body[: self.server.break_after])

    def log_message(self, *args: Any) -> None:
        pass


@pytest.fixture
def server() -> Iterator[Server]:
    found = Server(("127.0.0.1", 0), Handler)
    found.asked = []
    threading.Thread(target=found.serve_forever, daemon=True).start()
    yield found
    found.shutdown()
    found.server_close()


def _url(server: Server) -> str:
    return f"http://127.0.0.1:{server.server_port}/weights.ckpt"


def test_a_file_is_fetched_and_its_progress_told(server: Server, tmp_path: Path) -> None:
    told: list[tuple[int, int]] = []
    path = download(_url(server), tmp_path / "w", sha256=SHA256, progress=lambda *n: told.append(n))
    assert path.read_bytes() == CONTENT
    assert told[-1] == (len(CONTENT), len(CONTENT))
    assert [p.name for p in tmp_path.iterdir()] == ["w"]


@pytest.mark.parametrize("knows_parts", [True, False])
def test_what_broke_off_halfway_is_gone_on_with(server: Server, tmp_path: Path, knows_parts: bool) -> None:
    server.break_after, server.knows_parts = len(CONTENT) // 2, knows_parts
    with pytest.raises(GeoOVSegError, match="the same command goes on|The same command goes on"):
        download(_url(server), tmp_path / "w", sha256=SHA256)
    assert not (tmp_path / "w").exists()
    half = (tmp_path / "w.part").stat().st_size
    assert 0 < half < len(CONTENT)
    server.break_after = None
    assert download(_url(server), tmp_path / "w", sha256=SHA256).read_bytes() == CONTENT
    assert server.asked == [None, f"bytes={half}-"]


def test_a_part_that_is_whole_already_is_only_checked(server: Server, tmp_path: Path) -> None:
    (tmp_path / "w.part").write_bytes(CONTENT)
    assert download(_url(server), tmp_path / "w", sha256=SHA256).read_bytes() == CONTENT


def test_a_wrong_digest_is_refused_and_nothing_is_kept(server: Server, tmp_path: Path) -> None:
    with pytest.raises(GeoOVSegError, match=f"has the sha256 {SHA256}, not 00ff; it was removed"):
        download(_url(server), tmp_path / "w", sha256="00ff")
    assert list(tmp_path.iterdir()) == []


def test_a_server_that_says_no_or_is_not_there_is_one_message(server: Server, tmp_path: Path) -> None:
    server.server_close()
    server.shutdown()
    with pytest.raises(GeoOVSegError, match="cannot download .*HTTPS_PROXY"):
        download(_url(server), tmp_path / "w")
    assert list(tmp_path.iterdir()) == []


def test_two_processes_do_not_write_one_file(server: Server, tmp_path: Path) -> None:
    import fcntl

    with (tmp_path / "w.part").open("ab") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        with pytest.raises(GeoOVSegError, match="another process is downloading"):
            download(_url(server), tmp_path / "w")


def _card(server: Server, **changed: Any) -> ModelCard:
    return replace(MODELS["jbu_one"], url=_url(server), **changed)


def test_weights_carried_in_a_folder_are_found(server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GEOOVSEG_CACHE", str(tmp_path / "this machine"))
    card = _card(server, sha256=SHA256)
    fetch_weights(card)
    assert verify(card) == (SHA256, True)
    assert verify(replace(card, sha256=None)) == (SHA256, None)
    assert verify(replace(card, sha256="0")) == (SHA256, False)
    (copied,) = bundle(card, tmp_path / "carried")
    monkeypatch.setenv("GEOOVSEG_CACHE", str(tmp_path / "another machine"))
    assert local_weights(card) is None
    monkeypatch.setenv("GEOOVSEG_MODEL_DIR", str(tmp_path / "carried"))
    assert find_weights(card) == copied
    assert copied.read_bytes() == CONTENT


def test_all_files_of_a_model_are_carried(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    card = model_card("sd2", "vfm")
    here = tmp_path / "here" / "sd2"
    for name in (*card.files, *card.also):
        (here / name).parent.mkdir(parents=True, exist_ok=True)
        (here / name).write_text(name)
    monkeypatch.setenv("GEOOVSEG_MODEL_DIR", str(tmp_path / "here"))
    bundle(card, tmp_path / "there")
    monkeypatch.setenv("GEOOVSEG_MODEL_DIR", str(tmp_path / "there"))
    assert find_weights(card).read_text() == card.files[0]
    for name in card.also:
        assert (tmp_path / "there" / "sd2" / name).read_text() == name


@pytest.fixture
def no_sockets(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*args: Any, **more: Any) -> None:
        raise AssertionError("a connection was opened")

    for name in ("connect", "connect_ex", "sendto", "bind"):
        monkeypatch.setattr(socket.socket, name, refuse)
    monkeypatch.setattr(socket, "getaddrinfo", refuse)


@pytest.mark.usefixtures("no_sockets")
def test_offline_no_connection_is_opened(
    demo_scene: str, tmp_path: Path, geoovseg: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("GEOOVSEG_OFFLINE", "1")
    for name in ("ViT-B-16/openai", "jbu_one", "sd2"):
        code, _, err = geoovseg("models", "fetch", name)
        assert (code, "cannot be fetched: GEOOVSEG_OFFLINE is set" in err) == (1, True), err
    common = ["--vocabulary", "demo", "--offline", "-o", tmp_path / "l.tif"]
    code, _, err = geoovseg("segment", demo_scene, "--model", "demo", *common)
    assert code == 0, err
    code, _, err = geoovseg("segment", demo_scene, *common, "--overwrite")
    assert code == 5, err
    with pytest.raises(SceneError, match="forbid the network"), open_scene("https://example.org/scene.tif"):
        pass
    assert geoovseg("models", "list")[0] == 0


def test_models_can_be_verified_and_carried_from_the_command_line(
    tmp_path: Path, geoovseg: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    code, out, _ = geoovseg("models", "verify", "demo")
    assert code == 0
    assert "no digest is known" in out
    code, out, _ = geoovseg("models", "fetch", "demo", "--bundle", tmp_path)
    assert code == 0
    assert (tmp_path / "demo" / "model.safetensors").exists()
    monkeypatch.setitem(MODELS, "demo", replace(MODELS["demo"], sha256="0"))
    code, out, _ = geoovseg("models", "verify")
    assert (code, "NOT AS KNOWN" in out) == (1, True)
