"""The network: whether it may be used, what names say of it, and where weights may lie besides."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from pathlib import Path
from urllib.parse import parse_qs

_SCHEMES = "https?|ftp|s3|gs|az|abfss?|wasbs?|webdavs?|oss|adls|hdfs|swift"
_BUCKETS = "s3|gs|az|adls|oss|swift|hdfs|webhdfs"
_REMOTE = re.compile(rf"({_SCHEMES}):/|/vsi(curl|{_BUCKETS})", re.IGNORECASE)
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


@contextmanager
def access(*, offline: bool = False, model_dir: str | None = None) -> Iterator[None]:
    """In here, in this thread, the network is forbidden with `offline`, and weights may also lie in `model_dir`."""
    tokens = _OFFLINE.set(offline or _OFFLINE.get()), _MODEL_DIR.set(model_dir or _MODEL_DIR.get())
    try:
        yield
    finally:
        _OFFLINE.reset(tokens[0])
        _MODEL_DIR.reset(tokens[1])


def is_offline() -> bool:
    """Whether the network is forbidden, by `access` or $GEOOVSEG_OFFLINE."""
    return _OFFLINE.get() or os.environ.get("GEOOVSEG_OFFLINE", "").lower() in ("1", "true", "yes", "on")


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
