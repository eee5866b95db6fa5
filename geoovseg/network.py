"""The network: whether it may be used, what names say of it, and where weights may lie besides."""

from __future__ import annotations

import os
import re
import secrets
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs

_SCHEMES = "https?|ftp|s3|gs|az|abfss?|wasbs?|webdavs?|oss|adls|hdfs|swift"
_BUCKETS = "s3|gs|az|adls|oss|swift|hdfs|webhdfs"
_SERVICES = (
    "wms|wmts|wcs|iip|plmosaic|plscenes|eeda|eedai|ngw|daas|ogcapi|oapif|oapif_collection|wfs|wfs3|csw|es|carto|"
    "amigocloud|couchdb|cloudant|pg|postgresql|mysql|mssql|oci|georaster|odbc|mongodbv3|hana|ods_sql|rasdaman|jpip|ecwp"
)
"""Beginnings of names by which GDAL's drivers know a server of their own, in whatever build of it."""
_REMOTE = re.compile(rf"({_SCHEMES}):/|/vsi(curl|{_BUCKETS})|^\s*({_SERVICES}):(?![\\/][^\\/])", re.IGNORECASE)
"""In names of scenes that are read over the network; also within an archive, or a part of a file."""
_END = r"""(?=[;:,.)]*(?:[\s'"<>]|$))"""
_QUERY = rf"""(?:\?(?:[^\s'"<>]|(?<==)['"][^'"\s]*['"])*?(?<!=){_END}|\?[^\s'"<>]*?{_END})"""
_SECRET = re.compile(
    rf"""/vsicurl(?:_streaming)?{_QUERY}"""
    rf"""|(?P<at>(?:{_SCHEMES}):/+)(?:[^\s/'"<>]*@)?(?P<name>[^\s?'"<>]*)(?:{_QUERY})?"""
    rf"""|(?P<store>/vsi(?:{_BUCKETS})[a-z_]*/[^\s?'"<>]*){_QUERY}"""
    r"""|(?P<key>\b(?:password|passwd|pwd)=|<(?:UserPwd|Password|Token|ApiKey)>)[^\s<>;&'"]*""",
    re.IGNORECASE,
)
"""What may hold a password or a signature: users and queries of addresses, and options of GDAL's own kind of them."""
_OFFLINE = ContextVar("offline", default=False)
_MODEL_DIR: ContextVar[str | None] = ContextVar("model_dir", default=None)
NOWHERE = "offline://forbidden"
"""A proxy of a kind there is none of: libcurl refuses it before it looks up a name or opens a connection."""
_NO_NAME = f"{{{secrets.token_hex(16)}}}"
"""What no address ends with: nobody can know it. An address may bring a proxy of its own, so this is needed too."""
FORBIDDEN = {
    "CPL_VSIL_CURL_ALLOWED_EXTENSIONS": _NO_NAME,
    "CPL_VSIL_CURL_ALLOWED_FILENAME": _NO_NAME,
    "GDAL_HTTP_PROXY": NOWHERE,
    "GDAL_HTTPS_PROXY": NOWHERE,
}
"""Settings by which a GDAL opens no connection, whatever the driver: they all use libcurl."""
_PROXIES = tuple(f"{kind}_proxy" for kind in ("http", "https", "ftp", "all"))
_SEALED = {
    **FORBIDDEN,
    **dict.fromkeys((*_PROXIES, *map(str.upper, _PROXIES)), NOWHERE),
    "PROJ_NETWORK": "OFF",
    "NCRCENV_IGNORE": "1",
    "no_proxy": "",
    "NO_PROXY": "",
}
"""The environment that keeps every library here from the network: other GDALs, their threads, netCDF, PROJ, Python.

No address may go round the proxy, and a folder's .ncrc sets none.
"""


class Seal:
    """Settings of the whole process that are as they have to be, until as many threads have left as have come."""

    def __init__(
        self, closed: Mapping[str, str], read: Callable[[str], Any], write: Callable[[str, str | None], None]
    ) -> None:
        self._closed, self._read, self._write = closed, read, write
        self._lock, self._users, self._before = threading.Lock(), 0, dict[str, Any]()

    def __enter__(self) -> None:
        with self._lock:
            self._users += 1
            if self._users == 1:
                self._before = {key: self._read(key) for key in self._closed}
                for key, value in self._closed.items():
                    self._write(key, value)

    def __exit__(self, *error: object) -> None:
        with self._lock:
            self._users -= 1
            if self._users == 0:
                for key, value in self._before.items():
                    self._write(key, None if value == self._closed[key] else value)


def _put(key: str, value: str | None) -> None:
    if value is None:
        os.environ.pop(key, None)
    else:
        os.environ[key] = value


_SEAL = Seal(_SEALED, os.environ.get, _put)


@contextmanager
def access(*, offline: bool = False, model_dir: str | None = None) -> Iterator[None]:
    """In here, in this thread, the network is forbidden with `offline`, and weights may also lie in `model_dir`."""
    tokens = _OFFLINE.set(offline or _OFFLINE.get()), _MODEL_DIR.set(model_dir or _MODEL_DIR.get())
    try:
        with sealed():
            yield
    finally:
        _OFFLINE.reset(tokens[0])
        _MODEL_DIR.reset(tokens[1])


def is_offline() -> bool:
    """Whether the network is forbidden, by `access` or $GEOOVSEG_OFFLINE."""
    return _OFFLINE.get() or os.environ.get("GEOOVSEG_OFFLINE", "").lower() in ("1", "true", "yes", "on")


@contextmanager
def sealed() -> Iterator[None]:
    """In here, where the network is forbidden, no library of this process opens a connection or looks up a name."""
    if not is_offline():
        yield
        return
    with _SEAL:
        yield


def model_dir() -> Path | None:
    """A folder of weights made by `models fetch --bundle`, by `access` or $GEOOVSEG_MODEL_DIR."""
    found = _MODEL_DIR.get() or os.environ.get("GEOOVSEG_MODEL_DIR")
    return Path(found) if found else None


def public(text: str) -> str:
    """A name, or a text with names in it, without users, passwords and queries: these may be secrets that expire."""
    return _SECRET.sub(_without_secret, text)


def _without_secret(found: re.Match[str]) -> str:
    if found["at"]:
        return found["at"] + found["name"]
    if found["store"] or found["key"]:
        return found["store"] or f"{found['key']}..."
    address = parse_qs(found[0].partition("?")[2]).get("url", [""])[0]
    return f"/vsicurl/{public(address)}" if address else "/vsicurl/..."


def is_remote(path: str) -> bool:
    """Whether a scene is read over the network, by its name."""
    return _REMOTE.search(path) is not None
