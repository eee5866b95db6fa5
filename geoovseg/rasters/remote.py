"""Whether a raster is still the one it was: by its file, its archive, its server, or some of its pixels."""

from __future__ import annotations

import hashlib
import os
import re
from collections.abc import Iterable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any
from urllib.error import URLError
from urllib.request import Request, build_opener

import numpy as np
from rasterio.windows import Window

from geoovseg.errors import GeoOVSegError
from geoovseg.files import is_object
from geoovseg.network import is_offline, is_remote, public
from geoovseg.rasters.objects import told
from geoovseg.rasters.open import GDAL_ERRORS, gdal_settings

Stamp = list[Any]
"""What changes when a file does, so that JSON can hold it."""
_BEGINNINGS = re.compile(r"""^|[:"'{!,]|/vsi[a-z0-9_]+/|://""")
_ENDS = re.compile(r"""$|[:"'}!/]""")
"""Where a file's name may begin and end within one of GDAL's."""
_ARCHIVE = re.compile(r"/vsi(?:zip|tar|gzip|7z|rar)/.*?(https?://.*?\.(?:zip|kmz|tar|tgz|gz|7z|rar))(?=/|$)")
SECONDS = 10
LARGEST_VRT = 1 << 26
"""Bytes of a VRT that is looked into."""


def file_of(name: str) -> str | None:
    """The file on disk that a name leads to: itself, an archive around it, a file of which it is a part."""
    if os.path.exists(name):
        return name
    if is_remote(name):
        return None
    begins = [found.end() for found in _BEGINNINGS.finditer(name)]
    ends = sorted((found.start() for found in _ENDS.finditer(name)), reverse=True)
    within = (name[begin:end] for begin in begins for end in ends if begin < end)
    return next((text for text in within if os.path.isfile(text)), None)


def stamp(name: str) -> Stamp | None:
    """Size and time of a file or its archive, what a server tells of it, or none where nothing can be known."""
    file = file_of(name)
    if file is None:
        return _told(name)
    if file.lower().endswith(".vrt") and (digest := _signed(file)):
        return [digest]
    found = os.stat(file)
    return [found.st_size, found.st_mtime_ns]


def _signed(vrt: str) -> str | None:
    """A digest of a VRT without the secrets in it, which may be renewed; none where there are none."""
    if os.path.getsize(vrt) > LARGEST_VRT:
        return None
    text = Path(vrt).read_text(errors="replace")
    return None if public(text) == text else hashlib.sha256(public(text).encode()).hexdigest()


def _told(name: str) -> Stamp | None:
    """ETag, time and size that a web server tells, asked as GDAL would ask; of one byte where it wants no more."""
    if is_offline():
        return None
    if is_object(name):
        with suppress(GeoOVSegError):
            return told(name)
        return None
    found = _ARCHIVE.search(name) or re.search(r"(https?://.*)", name)
    if found is None:
        return None
    for method, headers in (("HEAD", {}), ("GET", {"Range": "bytes=0-0"})):
        with suppress(URLError, OSError, ValueError):
            request = Request(found[1], headers={**_headers(), **headers}, method=method)
            with build_opener().open(request, timeout=SECONDS) as answer:  # by the proxies of now
                length = answer.headers.get("Content-Range", "").rpartition("/")[2] or answer.headers["Content-Length"]
                said = [answer.headers["ETag"], answer.headers["Last-Modified"], length]
                return said if any(said[:2]) else None
    return None


def _headers() -> dict[str, str]:
    """What GDAL is to send along."""
    given = {**os.environ, **gdal_settings()}
    lines = (line.partition(":") for line in re.split(r"\r?\n", given.get("GDAL_HTTP_HEADERS", "")))
    bearer = {"Authorization": f"Bearer {given['GDAL_HTTP_BEARER']}"} if given.get("GDAL_HTTP_BEARER") else {}
    return {**bearer, **{name.strip(): value.strip() for name, colon, value in lines if colon}}


def sample(src: Any) -> str | None:
    """A digest of some pixels of an open raster: its first block, one in the middle, its last one.

    None where they cannot be read.
    """
    digest = hashlib.sha256()
    try:
        for window in _some_blocks(src):
            digest.update(np.ascontiguousarray(src.read(window=window)).tobytes())
    except GDAL_ERRORS:
        return None
    return digest.hexdigest()[:16]


def _some_blocks(src: Any) -> Iterator[Window]:
    for share in (0.0, 0.5, 1.0):
        size = [min(side, whole, 512) for side, whole in zip(src.block_shapes[0], src.shape, strict=True)]
        row, col = (int(share * (whole - side)) for side, whole in zip(size, src.shape, strict=True))
        yield Window(col, row, size[1], size[0])


def identity(files: Iterable[str], src: Any, folder: str) -> tuple[dict[str, Any], str]:
    """What tells whether an open raster is still the one it was, by its files and their names from a folder.

    Also says in a word by what that is: `file`, `server`, `sample` (some pixels, where nothing else is known), or
    `none`.
    """
    stamps = {name: stamp(name) for name in files}
    said: dict[str, Any] = {_called(name, folder): found for name, found in stamps.items()}
    if None not in stamps.values():
        return said, "file" if all(map(file_of, stamps)) else "server"
    pixels = sample(src)
    return {**said, "pixels": pixels}, "none" if pixels is None else "sample"


def _called(name: str, folder: str) -> str:
    """A name as it is seen from a folder, if it is a file's, so that all can be moved together; without secrets."""
    return os.path.relpath(name, folder or ".") if os.path.exists(name) else public(name)
