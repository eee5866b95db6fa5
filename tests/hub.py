"""A model hub for tests: answers as the real one does, and as it does when something is wrong."""

from __future__ import annotations

import hashlib
import http.server
import ssl
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from huggingface_hub import constants

COMMIT = "c0ffee" + "0" * 34
LARGE = 100
"""Bytes from which a file is kept elsewhere, and known by its SHA-256."""


class Hub(http.server.ThreadingHTTPServer):
    """Repositories of files; large ones are redirected to another host, as to the real hub's stores."""

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.files: dict[str, bytes] = {}
        """by `repo/file`, and `plain/file` of a server that is no hub"""
        self.failure: tuple[int, str] | None = None
        """a code to answer, and what the hub calls it"""
        self.newest_only = False
        """whether it forgot all commits but the newest"""
        self.page = False
        """answer everything with a page for people"""
        self.break_after: int | None = None
        """bytes after which a store breaks off"""
        self.asked: list[tuple[str, str, dict[str, str]]] = []
        """method, path, and headers"""
        self.scheme = "http"
        self.folder = Path()
        """the cache of whoever is connected"""

    @property
    def url(self) -> str:
        """Where it is."""
        return f"{self.scheme}://127.0.0.1:{self.server_port}"

    def put(self, repo: str, file: str, content: bytes) -> None:
        """Have a file."""
        self.files[f"{repo}/{file}"] = content

    def trust(self, key: Path, certificate: Path) -> None:
        """Speak by a certificate that nobody trusts."""
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(certificate, key)
        self.socket = context.wrap_socket(self.socket, server_side=True)
        self.scheme = "https"


class _Handler(http.server.BaseHTTPRequestHandler):
    server: Hub

    def do_HEAD(self) -> None:
        self._answer()

    def do_GET(self) -> None:
        self._answer()

    def _answer(self) -> None:
        self.server.asked.append((self.command, self.path, dict(self.headers)))
        path = self.path.partition("?")[0].lstrip("/")
        if self.server.page:
            self._send(200, b"<!DOCTYPE html><html>Log in, please</html>", {"Content-Type": "text/html"})
        elif self.server.failure:
            code, why = self.server.failure
            self._send(code, b"", {"X-Error-Code": why} if why else {})
        elif path.startswith("plain/"):
            content = self.server.files[path]
            self._send(200, content, {"Content-Length": str(len(content))})
        elif path.startswith("store/"):
            self._stored(path.removeprefix("store/"))
        else:
            self._resolved(path)

    def _resolved(self, path: str) -> None:
        repo, _, rest = path.partition("/resolve/")
        revision, _, file = rest.partition("/")
        name = f"{repo}/{file}"
        if revision != "main" and self.server.newest_only:
            self._send(404, b"", {"X-Error-Code": "RevisionNotFound"})
            return
        if name not in self.server.files:
            known = any(file.startswith(f"{repo}/") for file in self.server.files)
            self._send(404 if known else 401, b"", {"X-Error-Code": "EntryNotFound" if known else "RepoNotFound"})
            return
        commit = COMMIT if revision == "main" else revision
        content, said = self.server.files[name], {"X-Repo-Commit": commit}
        if len(content) < LARGE:
            git = hashlib.sha1(f"blob {len(content)}\0".encode() + content).hexdigest()
            self._send(200, content, {**said, "ETag": f'"{git}"'})
            return
        sha = hashlib.sha256(content).hexdigest()
        place = f"{self.server.scheme}://localhost:{self.server.server_port}/store/{sha}?Signature=secret"
        self._send(
            302, b"", {**said, "X-Linked-Etag": f'"{sha}"', "X-Linked-Size": str(len(content)), "Location": place}
        )

    def _stored(self, sha: str) -> None:
        content = next(c for c in self.server.files.values() if hashlib.sha256(c).hexdigest() == sha)
        asked = self.headers.get("Range")
        start = int(asked.removeprefix("bytes=").rstrip("-")) if asked else 0
        headers = {"Content-Length": str(len(content) - start)}
        self._send(206 if start else 200, content[start:][: self.server.break_after], headers)

    def _send(self, code: int, body: bytes, headers: dict[str, str]) -> None:
        self.send_response(code)
        for key, value in {"Content-Length": str(len(body)), **headers}.items():
            self.send_header(key, value)
        self.end_headers()
        if self.command == "GET":
            self.wfile.write(body)

    def log_message(self, *args: Any) -> None:
        pass


@contextmanager
def serving() -> Iterator[Hub]:
    """A hub on the loopback device."""
    hub = Hub()
    threading.Thread(target=hub.serve_forever, args=(0.02,), daemon=True).start()
    try:
        yield hub
    finally:
        hub.shutdown()
        hub.server_close()


@contextmanager
def connected(folder: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Hub]:
    """A hub that is asked in place of the real one, with a cache in a folder."""
    with serving() as hub:
        hub.folder = folder
        for name, value in (("ENDPOINT", hub.url), ("HF_HUB_CACHE", str(folder)), ("HF_HUB_OFFLINE", False)):
            monkeypatch.setattr(constants, name, value)
        monkeypatch.setattr("huggingface_hub.file_download.HF_HUB_CACHE", str(folder), raising=False)
        monkeypatch.setattr("huggingface_hub.get_token", lambda: None)
        yield hub
