"""Rasters behind a server: how patiently GDAL asks it, and what it answered where that was no pixels."""

from __future__ import annotations

import logging
import re
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from functools import lru_cache
from http import HTTPStatus

from geoovseg.network import NOWHERE, is_remote

PATIENCE = {
    "GDAL_HTTP_MAX_RETRY": 4,
    "GDAL_HTTP_RETRY_DELAY": 0.5,
    "GDAL_HTTP_CONNECTTIMEOUT": 15,
    "GDAL_HTTP_TIMEOUT": 120,
}
"""GDAL's own settings: it asks again where a server is busy or down (429, 5xx), each time after twice as many seconds.

So one request outlasts ten seconds without service. What is forbidden or missing (401, 403, 404) it asks for once.
"""
TALKATIVE = {"CPL_DEBUG": "VSICURL,S3,GS,AZURE,ADLS,OSS,SWIFT,WEBHDFS"}
"""Lets GDAL say what a server answered to each request: its errors of reading do not."""
UNREACHED = "it leads to another machine, and --offline or GEOOVSEG_OFFLINE forbid the network"
_OPENING = re.compile(r"HTTP response code: (\d{3})\b")
_ASKING = re.compile(r"\bGot response_code=(\d{3})\b|\bHTTP error code: (\d{3})\b")
_LOG = logging.getLogger("rasterio._err")
"""Where rasterio puts what GDAL says."""


class _Listener(logging.Filter):
    """Remembers, thread by thread, what a server answered last; of what is only said for it, nothing goes on."""

    def __init__(self) -> None:
        super().__init__()
        self.last, self.level, self.lock, self.users = threading.local(), logging.NOTSET, threading.Lock(), 0

    def filter(self, record: logging.LogRecord) -> bool:
        """Whether a record would be there without us."""
        if found := _ASKING.search(record.getMessage()):
            self.last.status = int(found[1] or found[2])
        return record.levelno >= self.level

    def start(self) -> None:
        """Listen, until as many have stopped as have started."""
        with self.lock:
            self.users += 1
            if self.users == 1:
                self.level, self.own = _LOG.getEffectiveLevel(), _LOG.level
                _LOG.setLevel(logging.DEBUG)
                _LOG.addFilter(self)

    def stop(self) -> None:
        """Leave the log as it was."""
        with self.lock:
            self.users -= 1
            if self.users == 0:
                _LOG.removeFilter(self)
                _LOG.setLevel(self.own)


_LISTENER = _Listener()


@contextmanager
def listening(files: tuple[str, ...]) -> Iterator[None]:
    """In here, it is known what servers answer to this thread, where some of the files are behind one."""
    if not _any_remote(files):
        yield
        return
    _LISTENER.last.status = None
    _LISTENER.start()
    try:
        yield
    finally:
        _LISTENER.stop()


def unreadable(reason: str, files: tuple[str, ...]) -> str:
    """Why pixels could not be read in `listening`, and what to do about it; `reason` is what GDAL says."""
    if NOWHERE in reason:
        return UNREACHED
    if not _any_remote(files):
        return f"{reason}; the file may be cut short or damaged"
    status = getattr(_LISTENER.last, "status", None)
    if status is not None and status >= 400:
        return _said(status)
    return f"{reason}; the connection may have broken off, or the file is cut short or damaged"


def unopened(reason: str) -> str:
    """Why a file could not be opened: what a server answered and what to do, else what GDAL says."""
    if NOWHERE in reason:
        return UNREACHED
    found = _OPENING.search(reason)
    return _said(int(found[1])) if found else reason


@lru_cache(maxsize=16)
def _any_remote(files: tuple[str, ...]) -> bool:
    return any(map(is_remote, files))


def _said(status: int) -> str:
    return f"the server answered {status}{_meaning(status)}{_advice(status)}"


def _meaning(status: int) -> str:
    """` (Forbidden)`."""
    return f" ({HTTPStatus(status).phrase})" if status in {known.value for known in HTTPStatus} else ""


def _advice(status: int) -> str:
    if status in (401, 403):
        return "; it wants other credentials, or a signed URL has expired (docs/remote.md)"
    if status in (404, 410):
        return "; there is no such file any more, or the name is wrong"
    if status == 429 or status >= 500:
        return " each time it was asked; it is busy or down, so try again later, or raise GDAL_HTTP_MAX_RETRY"
    return ""
