"""A web server for tests: files of a folder, in ranges, with the answers that a test asks for.

It is a process of its own: GDAL opens files without letting other threads of Python work.
"""

from __future__ import annotations

import http.server
import json
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

NOTES = ".web.json", ".asked", ".connected"
"""In the folder: how to answer, what was asked for, and a line for each connection."""


@dataclass
class Web:
    """A folder that is served; `url` is where. What is set here holds from `tell` on."""

    folder: Path
    url: str = ""
    wanted: dict[str, str] = field(default_factory=dict)
    """headers without which the answer is 401"""
    failures: list[int] = field(default_factory=list)
    """answers to give before anything else"""
    silent: bool = False
    """tell no ETag and no time"""

    def tell(self) -> None:
        """Let the server answer so."""
        (self.folder / NOTES[0]).write_text(json.dumps({**asdict(self), "folder": ""}))
        for name in NOTES[1:]:
            (self.folder / name).write_text("")

    @property
    def asked(self) -> list[str]:
        """Methods, and paths with queries, that were asked for since."""
        return (self.folder / NOTES[1]).read_text().splitlines()

    @property
    def connections(self) -> int:
        """How often somebody connected since, whatever was asked for then."""
        return len((self.folder / NOTES[2]).read_text().splitlines())


@contextmanager
def serving(folder: Path) -> Iterator[Web]:
    """Serve a folder on the loopback device."""
    web = Web(folder)
    web.tell()
    with subprocess.Popen([sys.executable, __file__, folder], stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        web.url = f"http://127.0.0.1:{process.stdout.readline().strip()}"
        try:
            yield web
        finally:
            process.kill()


class _Handler(http.server.BaseHTTPRequestHandler):
    folder: Path
    answered = 0
    """failures that were given"""
    protocol_version = "HTTP/1.1"

    def do_HEAD(self) -> None:
        self._answer(body=False)

    def do_GET(self) -> None:
        self._answer(body=True)

    def _code(self, said: dict[str, object], path: Path) -> int:
        wanted, failures = said["wanted"], said["failures"]
        assert isinstance(wanted, dict)
        assert isinstance(failures, list)
        if type(self).answered < len(failures):
            type(self).answered += 1
            return int(failures[type(self).answered - 1])
        lacking = any(self.headers.get(name) != value for name, value in wanted.items())
        return 401 if lacking else 200 if path.is_file() else 404

    def _answer(self, *, body: bool) -> None:
        said = json.loads((self.folder / NOTES[0]).read_text())
        with (self.folder / NOTES[1]).open("a") as log:
            log.write(f"{self.command} {self.path}\n")
        path = self.folder / self.path.partition("?")[0].lstrip("/")
        code = self._code(said, path)
        content = path.read_bytes() if code == 200 else b""
        size, first = len(content), 0
        if code == 200 and (asked := self.headers.get("Range")):
            start, _, end = asked.removeprefix("bytes=").partition("-")
            first, content = int(start), content[int(start) : int(end) + 1 if end else None]
            code = 206 if content else 416
        self.send_response(code)
        if code == 206:
            self.send_header("Content-Range", f"bytes {first}-{first + len(content) - 1}/{size}")
        if code in (200, 206):
            self.send_header("Accept-Ranges", "bytes")
            if not said["silent"]:
                self.send_header("ETag", f'"{path.stat().st_mtime_ns:x}"')
                self.send_header("Last-Modified", self.date_time_string(int(path.stat().st_mtime)))
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        if body:
            self.wfile.write(content)

    def log_message(self, format: str, *args: object) -> None:
        pass


class _Server(http.server.ThreadingHTTPServer):
    def process_request(self, request: Any, address: Any) -> None:
        with (_Handler.folder / NOTES[2]).open("a") as log:
            log.write(f"{address}\n")
        super().process_request(request, address)


if __name__ == "__main__":
    _Handler.folder = Path(sys.argv[1])
    with _Server(("127.0.0.1", 0), _Handler) as server:
        print(server.server_port, flush=True)
        server.serve_forever()
