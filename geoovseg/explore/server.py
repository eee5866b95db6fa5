"""The page and what it asks for, over HTTP on this machine."""

from __future__ import annotations

import json
import secrets
import socket
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from functools import cache
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import uvicorn
from starlette.applications import Starlette
from starlette.concurrency import run_in_threadpool
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from geoovseg.errors import GeoOVSegError, UsageError
from geoovseg.explore.asked import asked_of
from geoovseg.explore.guard import SAFE, Guard, hosts_of
from geoovseg.explore.session import Session

PAGE = Path(__file__).parent / "page"
LARGEST_BODY = 1 << 20
"""Bytes of a request."""
FILES = {
    "index.html": "text/html; charset=utf-8", "explore.js": "text/javascript", "explore.css": "text/css",
    "maplibre-gl.js": "text/javascript", "maplibre-gl.css": "text/css",
}  # fmt: skip
"""What the page is made of."""
WAITING = 128
"""Requests that wait until it is served."""
Endpoint = Callable[[Request], Any]


@dataclass(frozen=True)
class Pages:
    """What is answered; every method is called by one of several threads."""

    session: Session
    token: str

    def file(self, request: Request) -> Response:
        """The page, and what it is made of."""
        name = request.path_params.get("name", "index.html")
        if name not in FILES:
            return Response("", 404, headers=SAFE)
        content = _content(name)
        if name == "index.html":
            content = content.replace(b"{{token}}", self.token.encode())
        return Response(content, media_type=FILES[name], headers=SAFE)

    def tile(self, request: Request) -> Response:
        """A tile of the scene or of labels; its address changes when it does."""
        z, x, y = (_number(request.path_params[part]) for part in ("z", "x", "y"))
        if request.path_params["what"] == "scene":
            content = self.session.scene_tile(z, x, y)
        else:
            content = self.session.label_tile(z, x, y, outlines=request.query_params.get("outlines") == "1")
        return Response(content, media_type="image/png", headers={**SAFE, "Cache-Control": "private, max-age=3600"})

    def state(self, request: Request) -> Any:
        """Everything the page has to know."""
        return self.session.state()

    def saving(self, request: Request) -> Any:
        """How far what is saved is."""
        return self.session.saving.state() if self.session.saving else {}

    def at(self, request: Request) -> Any:
        """What is at a pixel. Raises UsageError."""
        try:
            col, row = (float(request.query_params[name]) for name in ("col", "row"))
        except (KeyError, ValueError) as error:
            raise UsageError(f"col and row are numbers: {error}") from error
        return self.session.at(col, row)

    def ask(self, said: dict[str, Any]) -> Any:
        """Other words. Raises UsageError, and what asking raises."""
        threshold = said.get("threshold")
        if threshold is not None and not isinstance(threshold, int | float):
            raise UsageError(f"the threshold {threshold!r} is no number")
        self.session.ask(asked_of(said.get("classes")), str(said.get("background", "auto")), threshold)
        return self.session.state(cover=False)

    def save(self, said: dict[str, Any]) -> Any:
        """Begin to write what is seen. Raises UsageError, OutputError."""
        return self.session.save(str(said.get("name", "")))


def application(session: Session, token: str, hosts: tuple[str, ...]) -> Guard:
    """The whole as an ASGI application."""
    pages = Pages(session, token)
    routes = [
        Route("/", _answering(pages.file)),
        Route("/page/{name}", _answering(pages.file)),
        Route("/tiles/{what:str}/{z}/{x}/{y}.png", _answering(pages.tile)),
        Route("/state", _answering(pages.state)),
        Route("/saving", _answering(pages.saving)),
        Route("/at", _answering(pages.at)),
        Route("/ask", _posted(pages.ask), methods=["POST"]),
        Route("/save", _posted(pages.save), methods=["POST"]),
    ]
    return Guard(Starlette(routes=routes), token, hosts)


def _answering(make: Endpoint) -> Callable[[Request], Response]:
    """What a method finds as an answer; an error for the user is one too."""

    def answered(request: Request) -> Response:
        return _answer(lambda: make(request))

    return answered


def _answer(make: Callable[[], Any]) -> Response:
    try:
        found = make()
    except GeoOVSegError as error:
        return JSONResponse({"error": str(error)}, 422, headers=SAFE)
    return found if isinstance(found, Response) else JSONResponse(found, headers=SAFE)


def _posted(make: Callable[[dict[str, Any]], Any]) -> Callable[[Request], Awaitable[Response]]:
    """The same of a method that is given the JSON object of a request."""

    async def answered(request: Request) -> Response:
        body = b""
        async for piece in request.stream():
            body += piece
            if len(body) > LARGEST_BODY:
                return JSONResponse({"error": "the request is too large"}, 413, headers=SAFE)
        return await run_in_threadpool(_answer, lambda: make(_object(body)))

    return answered


def _number(text: str) -> int:
    """Raises UsageError."""
    if not (text.isascii() and text.isdigit() and len(text) < 10):
        raise UsageError(f"{text[:40]!r} is no number of a tile")
    return int(text)


def _object(body: bytes) -> dict[str, Any]:
    """Raises UsageError for what is no JSON object."""
    try:
        found = json.loads(body)
    except (ValueError, RecursionError) as error:
        raise UsageError(f"the request is no JSON: {error}") from error
    if not isinstance(found, dict):
        raise UsageError("the request is no JSON object")
    return found


@cache
def _content(name: str) -> bytes:
    folder = _maplibre() if name.startswith("maplibre") else PAGE
    return (folder / name).read_bytes()


def _maplibre() -> Path:
    """The folder of the map's own files, which the package maplibre brings. Raises ImportError without it."""
    found = find_spec("maplibre")
    if found is None or not found.submodule_search_locations:
        raise ImportError("no module named maplibre")
    return Path(next(iter(found.submodule_search_locations))) / "srcjs"


def serve(session: Session, host: str, port: int, ready: Callable[[str], None]) -> None:
    """Serve until Ctrl-C; `ready` is told the address once it listens. Raises UsageError for a port that is taken."""
    _content("maplibre-gl.js")
    token = secrets.token_urlsafe(24)
    with socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET) as listening:
        listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            listening.bind((host, port))
            listening.listen(WAITING)  # whoever is told the address can ask at once
        except OSError as error:
            raise UsageError(f"--host {host} --port {port}: {error.strerror}; choose others, or --port 0") from error
        own = listening.getsockname()[1]
        app = application(session, token, hosts_of(host, own))
        config = uvicorn.Config(app, log_level="critical", access_log=False, lifespan="off", server_header=False)
        ready(f"http://{f'[{host}]' if ':' in host else host}:{own}/?token={token}")
        uvicorn.Server(config).run(sockets=[listening])
