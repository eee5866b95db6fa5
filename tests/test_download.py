"""Downloads go on where they broke off, are checked, and never happen behind the user's back."""

from __future__ import annotations

import errno
import hashlib
import http.server
import io
import random
import shutil
import socket
import threading
import zipfile
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import IO, Any

import pytest

from geoovseg.errors import GeoOVSegError, OutputError, SceneError
from geoovseg.files import try_lock
from geoovseg.models.cards import MODELS, ModelCard, model_card
from geoovseg.models.download import download
from geoovseg.models.weights import bundle, cache_dir, fetch_weights, find_weights, local_weights, verify
from geoovseg.scene.scene import open_scene

CONTENT = bytes(range(256)) * 20_000
SHA256 = hashlib.sha256(CONTENT).hexdigest()


class Server(http.server.ThreadingHTTPServer):
    """Serves bytes; may break off after some of them, and may not know of parts."""

    content = CONTENT
    break_after: int | None = None
    knows_parts = True
    asked: list[str | None]


class Handler(http.server.BaseHTTPRequestHandler):
    server: Server

    def do_GET(self) -> None:
        asked = self.headers.get("Range")
        self.server.asked.append(asked)
        start = int(asked.removeprefix("bytes=").rstrip("-")) if asked and self.server.knows_parts else 0
        if start >= len(self.server.content):
            self.send_response(416)
            self.send_header("Content-Range", f"bytes */{len(self.server.content)}")
            self.send_header("Content-Length", "0")
            self.end_headers()
            return
        self.send_response(206 if start else 200)
        body = self.server.content[start:]
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body if self.server.break_after is None else body[: self.server.break_after])

    def log_message(self, *args: Any) -> None:
        pass


@pytest.fixture
def server() -> Iterator[Server]:
    found = Server(("127.0.0.1", 0), Handler)
    found.asked = []
    threading.Thread(target=found.serve_forever, args=(0.02,), daemon=True).start()
    yield found
    found.shutdown()
    found.server_close()


def _url(server: Server, name: str = "weights.ckpt") -> str:
    return f"http://127.0.0.1:{server.server_port}/{name}"


def test_a_file_is_fetched_and_its_progress_told(server: Server, tmp_path: Path) -> None:
    told: list[tuple[int, int]] = []
    path = download(_url(server), tmp_path / "w", digest=SHA256, progress=lambda *n: told.append(n))
    assert path.read_bytes() == CONTENT
    assert told[-1] == (len(CONTENT), len(CONTENT))
    assert [p.name for p in tmp_path.iterdir()] == ["w"]


@pytest.mark.parametrize("knows_parts", [True, False])
def test_what_broke_off_halfway_is_gone_on_with(server: Server, tmp_path: Path, knows_parts: bool) -> None:
    server.break_after, server.knows_parts = len(CONTENT) // 2, knows_parts
    with pytest.raises(GeoOVSegError, match="the same command goes on|The same command goes on"):
        download(_url(server), tmp_path / "w", digest=SHA256)
    assert not (tmp_path / "w").exists()
    half = (tmp_path / "w.part").stat().st_size
    assert 0 < half < len(CONTENT)
    server.break_after = None
    assert download(_url(server), tmp_path / "w", digest=SHA256).read_bytes() == CONTENT
    assert server.asked == [None, f"bytes={half}-"]


def test_a_part_that_is_whole_already_is_only_checked(server: Server, tmp_path: Path) -> None:
    (tmp_path / "w.part").write_bytes(CONTENT)
    assert download(_url(server), tmp_path / "w", digest=SHA256).read_bytes() == CONTENT


def test_a_wrong_digest_is_refused_and_nothing_is_kept(server: Server, tmp_path: Path) -> None:
    with pytest.raises(GeoOVSegError, match=f"has the sha256 {SHA256}, not 00ff; it was removed"):
        download(_url(server), tmp_path / "w", digest="00ff")
    assert list(tmp_path.iterdir()) == []


def test_a_server_that_says_no_or_is_not_there_is_one_message(server: Server, tmp_path: Path) -> None:
    server.server_close()
    server.shutdown()
    with pytest.raises(GeoOVSegError, match="cannot download .*HTTPS_PROXY"):
        download(_url(server), tmp_path / "w")
    assert list(tmp_path.iterdir()) == []


def test_two_processes_do_not_write_one_file(server: Server, tmp_path: Path) -> None:
    with try_lock(tmp_path / "w.part.lock"):
        with pytest.raises(GeoOVSegError, match="another process is downloading"):
            download(_url(server), tmp_path / "w")
    assert download(_url(server), tmp_path / "w").exists()


def _card(server: Server, **changed: Any) -> ModelCard:
    return replace(MODELS["jbu_one"], url=_url(server), **{"git_blob": None, **changed})


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


def _zip(*names: str, content: bytes = CONTENT) -> bytes:
    """A ZIP of files with the same content, compressed."""
    held = io.BytesIO()
    with zipfile.ZipFile(held, "w", zipfile.ZIP_DEFLATED) as file:
        for name in names:
            file.writestr(name, content)
    return held.getvalue()


PACKED = ("Sky_B32/", "Sky_B32/params.txt", "Sky_B32/epoch_20.pt", "__MACOSX/Sky_B32/._epoch_20.pt")


@pytest.fixture
def packed(server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> ModelCard:
    """The card of a checkpoint in a ZIP, with an empty cache."""
    monkeypatch.setenv("GEOOVSEG_CACHE", str(tmp_path / "cache"))
    server.content = _zip(*PACKED)
    return replace(MODELS["SkyCLIP-ViT-B-32-top50pct"], url=_url(server, "Sky_B32.zip"))


def _kept() -> list[str]:
    return sorted(p.name for p in (cache_dir() / "weights").iterdir())


def test_of_a_zip_only_the_checkpoint_is_kept(server: Server, packed: ModelCard, tmp_path: Path) -> None:
    assert local_weights(packed) is None
    path = fetch_weights(packed)
    assert path.read_bytes() == CONTENT
    assert path == find_weights(packed)
    assert _kept() == ["Sky_B32.pt"]
    assert server.asked == [None]


def test_a_zip_that_broke_off_is_gone_on_with(server: Server, packed: ModelCard) -> None:
    server.break_after = half = len(server.content) // 2
    with pytest.raises(GeoOVSegError, match="The same command goes on"):
        fetch_weights(packed)
    server.break_after = None
    assert fetch_weights(packed).read_bytes() == CONTENT
    assert server.asked == [None, f"bytes={half}-"]


def test_a_checkpoint_of_a_zip_is_carried(packed: ModelCard, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    fetch_weights(packed)
    (copied,) = bundle(packed, tmp_path / "carried")
    assert copied == tmp_path / "carried" / packed.name / "Sky_B32.pt"
    monkeypatch.setenv("GEOOVSEG_CACHE", str(tmp_path / "another machine"))
    monkeypatch.setenv("GEOOVSEG_MODEL_DIR", str(tmp_path / "carried"))
    assert find_weights(packed) == copied


def _flipped(content: bytes) -> bytes:
    at = content.index(b"epoch_20.pt") + 5000
    return content[:at] + bytes([content[at] ^ 255]) + content[at + 1 :]


DAMAGED = {
    "cut": (_zip(*PACKED)[:-30], "not a zip file"),
    "a text": (b"weights", "not a zip file"),
    "flipped": (_flipped(_zip("a/epoch_20.pt", content=random.Random(0).randbytes(20_000))), "Bad CRC-32 for file"),
    "none": (_zip("a/epoch_19.pt"), "holds 0 files named epoch_20.pt, not one"),
    "a folder": (_zip("epoch_20.pt/", content=b""), "holds 0 files named epoch_20.pt, not one"),
    "two": (_zip("a/epoch_20.pt", "b/epoch_20.pt"), "holds 2 files named epoch_20.pt, not one"),
}


@pytest.mark.parametrize(("content", "said"), DAMAGED.values(), ids=DAMAGED)
def test_a_zip_without_a_sound_checkpoint_is_refused_and_removed(
    server: Server, packed: ModelCard, content: bytes, said: str
) -> None:
    server.content = content
    with pytest.raises(GeoOVSegError, match=rf"Sky_B32.zip cannot be used: .*({said}).*removed. Fetch it again, or"):
        fetch_weights(packed)
    assert _kept() == []
    assert local_weights(packed) is None


def test_a_zip_that_finds_no_room_is_kept_for_the_next_try(
    server: Server, packed: ModelCard, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(source: IO[bytes], file: IO[bytes], length: int) -> None:
        file.write(source.read(100))
        raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(shutil, "copyfileobj", full)
        with pytest.raises(GeoOVSegError, match="cannot unpack .*No space left on device. Make room"):
            fetch_weights(packed)
    assert _kept() == ["Sky_B32.zip"]
    assert fetch_weights(packed).read_bytes() == CONTENT
    assert len(server.asked) == 1
    assert _kept() == ["Sky_B32.pt"]


def test_the_digest_of_a_packed_checkpoint_is_checked(packed: ModelCard) -> None:
    assert fetch_weights(replace(packed, sha256=SHA256)).read_bytes() == CONTENT
    with pytest.raises(GeoOVSegError, match="it was removed: fetch it again"):
        fetch_weights(replace(packed, sha256="00ff"))
    assert _kept() == []


TERMS = {
    "dinov3_vitb16": "no military use",
    "sd2": "uses that are not allowed",
    "RemoteCLIP-ViT-B-32": "no licence is stated",
    "SkyCLIP-ViT-B-32-top50pct": "no licence is stated",
    "ViT-B-32/openai": None,
}


@pytest.mark.parametrize(("name", "terms"), TERMS.items())
@pytest.mark.parametrize("quiet", [[], ["--quiet"]])
def test_terms_are_shown_before_the_first_byte(
    name: str,
    terms: str | None,
    quiet: list[str],
    geoovseg: Callable[..., Any],
    monkeypatch: pytest.MonkeyPatch,
    capsys: Any,
) -> None:
    said: list[str] = []

    def fetched(card: ModelCard, progress: Any, *, anew: bool) -> Path:
        said.append(capsys.readouterr().err)
        return Path("weights")

    monkeypatch.setattr("geoovseg.cli.models.fetch_weights", fetched)
    code, out, _ = geoovseg("models", "fetch", name, *quiet)
    assert (code, out) == (0, "weights\n")
    assert bool(said[0]) == bool(terms or not quiet)
    assert (f"licence: {MODELS[name].licence}" in said[0]) == bool(said[0])
    assert (terms or "") in said[0]
    assert terms is None or terms in geoovseg("models", "show", name)[1]


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
    for name in ("ViT-B-16/openai", "jbu_one", "sd2", "sam_vit_b", "SkyCLIP-ViT-B-32-top50pct"):
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
    assert "as known" in out
    code, out, _ = geoovseg("models", "fetch", "demo", "--bundle", tmp_path)
    assert code == 0
    assert (tmp_path / "demo" / "model.safetensors").exists()
    monkeypatch.setitem(MODELS, "demo", replace(MODELS["demo"], sha256="0"))
    code, out, _ = geoovseg("models", "verify")
    assert (code, "NOT AS KNOWN" in out) == (1, True)


def test_a_page_for_people_is_no_file(server: Server, tmp_path: Path) -> None:
    """As the login page of a network, which answers everything."""
    server.content = b"\n<!DOCTYPE html>\n<html><body>Welcome to the airport</body></html>"
    with pytest.raises(GeoOVSegError, match="answers with a web page instead of a file"):
        download(_url(server), tmp_path / "w")
    assert not list(tmp_path.iterdir())


def test_a_digest_of_git_is_one_too(server: Server, tmp_path: Path) -> None:
    git = hashlib.sha1(f"blob {len(CONTENT)}\0".encode() + CONTENT).hexdigest()
    assert download(_url(server), tmp_path / "w", digest=git).read_bytes() == CONTENT
    with pytest.raises(GeoOVSegError, match=f"has the git digest {git}, not {'0' * 40}; it was removed"):
        download(_url(server), tmp_path / "v", digest="0" * 40)


def test_what_is_longer_than_the_file_is_fetched_anew(server: Server, tmp_path: Path) -> None:
    (tmp_path / "w.part").write_bytes(CONTENT + b"left from another file")
    assert download(_url(server), tmp_path / "w").read_bytes() == CONTENT


def test_what_is_whole_already_is_not_fetched_again(server: Server, tmp_path: Path) -> None:
    (tmp_path / "w.part").write_bytes(CONTENT)
    assert download(_url(server), tmp_path / "w").read_bytes() == CONTENT
    assert len(server.asked) == 1


def test_an_answer_in_chunks_that_breaks_off_is_refused(tmp_path: Path) -> None:
    listener = socket.create_server(("127.0.0.1", 0))

    def answer() -> None:
        connection, _ = listener.accept()
        connection.recv(4096)
        connection.sendall(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nabcde\r\nfff\r\nabc")
        connection.close()

    threading.Thread(target=answer, daemon=True).start()
    with pytest.raises(GeoOVSegError, match="cannot download"):
        download(f"http://127.0.0.1:{listener.getsockname()[1]}/w", tmp_path / "w")
    assert not (tmp_path / "w").exists()
    listener.close()


def test_a_bundle_that_cannot_be_written_is_refused(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(OutputError, match="cannot copy"):
        bundle(model_card("demo"), tmp_path / "file")
