"""A server of a folder that gives parts of files too, as stores of rasters do; it says its port and serves till killed.

A process of its own: libraries that wait for an answer do not always let other threads run meanwhile.
"""

from __future__ import annotations

import re
import sys
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path


class Ranges(SimpleHTTPRequestHandler):
    """Answers with the part that is asked for."""

    def log_message(self, format: str, *args: object) -> None:
        """Say nothing."""

    def do_GET(self) -> None:
        """Send a file, or a part of it."""
        asked, path = (
            re.match(r"bytes=(\d+)-(\d*)", self.headers.get("Range", "")),
            Path(self.translate_path(self.path)),
        )
        if asked is None or not path.is_file():
            super().do_GET()
            return
        content, first = path.read_bytes(), int(asked[1])
        part = content[first : int(asked[2] or len(content)) + 1]
        self.send_response(206 if part else 416)
        self.send_header("Content-Range", f"bytes {first}-{first + len(part) - 1}/{len(content)}")
        self.send_header("Content-Length", str(len(part)))
        self.end_headers()
        self.wfile.write(part)


if __name__ == "__main__":
    with ThreadingHTTPServer(("127.0.0.1", 0), partial(Ranges, directory=sys.argv[1])) as server:
        print(server.server_port, flush=True)
        server.serve_forever()
