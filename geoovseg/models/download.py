"""One file from elsewhere: resumed where an earlier try broke off, checked, under its name only when it is whole."""

from __future__ import annotations

import hashlib
import http.client
import shutil
import urllib.error
import urllib.request
import zipfile
import zlib
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from types import MappingProxyType
from typing import IO

from geoovseg.errors import GeoOVSegError, first_line
from geoovseg.files import try_lock
from geoovseg.models.refusals import refused, unreachable, web_page
from geoovseg.network import is_offline, public

PIECE = 1 << 20
"""Bytes read at once."""
TIMEOUT = 60
"""Seconds without an answer."""
GIT = 40
"""Letters of a digest of git."""
PAGES = (b"<!doctype html", b"<html")
_BROKEN = (zipfile.BadZipFile, zlib.error, EOFError, RuntimeError, ValueError)
"""What a damaged, encrypted or odd ZIP makes zipfile raise."""
Progress = Callable[[int, int], None]
"""Called with (bytes here, bytes in all; 0 if not known)."""


def download(
    url: str,
    target: Path,
    *,
    digest: str | None = None,
    progress: Progress | None = None,
    headers: Mapping[str, str] = MappingProxyType({}),
) -> Path:
    """Fetch `url` to `target`; what an earlier try left beside it is gone on with.

    Raises GeoOVSegError when it cannot be reached, breaks off, is too short, is a web page, or has another digest than
    `digest`, its SHA-256 or git's; and where the network is forbidden.
    """
    if is_offline():
        raise GeoOVSegError(f"{url} is not fetched: --offline or GEOOVSEG_OFFLINE forbid the network")
    part = target.with_name(f"{target.name}.part")
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        with _alone(part) as file:
            _fetch(url, file, progress or (lambda here, whole: None), headers)
            check(part, digest, public(url))
            part.replace(target)
    except urllib.error.HTTPError as error:
        raise refused(public(url), error.code) from error
    except (OSError, http.client.HTTPException) as error:
        raise unreachable(public(url), error, target.name) from error
    return target


@contextmanager
def _alone(part: Path) -> Iterator[IO[bytes]]:
    """The unfinished file, kept from other processes; nothing is left of it if nothing came."""
    lock = part.with_name(f"{part.name}.lock")
    with try_lock(lock, f"another process is downloading {part}; wait for it"), part.open("ab") as file:
        try:
            yield file
        finally:
            lock.unlink(missing_ok=True)
            if part.exists() and not part.stat().st_size:
                part.unlink()


def _fetch(url: str, file: IO[bytes], progress: Progress, headers: Mapping[str, str]) -> None:
    """The rest of a file, or all of it where the server does not do parts."""
    here = file.tell()
    request = urllib.request.Request(url, headers={**headers, **({"Range": f"bytes={here}-"} if here else {})})
    try:
        answer = urllib.request.build_opener().open(request, timeout=TIMEOUT)
    except urllib.error.HTTPError as error:
        if error.code != 416:
            raise
        if error.headers.get("Content-Range", "").rpartition("/")[2] not in (str(here), ""):
            file.seek(0)
            file.truncate()  # what is here is longer than the file, so it is another
            _fetch(url, file, progress, headers)
        return  # nothing is left to send
    with answer:
        if here and getattr(answer, "status", 200) != 206:
            file.truncate(0)
            here = 0
        whole = here + int(answer.headers.get("Content-Length") or 0)
        while piece := answer.read(PIECE):
            if not here and _is_page(answer.headers.get("Content-Type"), piece):
                raise web_page(public(url))
            file.write(piece)
            here += len(piece)
            progress(here, max(whole, 0))
    file.flush()
    if here < whole:
        raise OSError(f"the connection broke after {here} of {whole} bytes")


def _is_page(kind: str | None, start: bytes) -> bool:
    """Whether an answer is a page for people, by what it says it is, and how it starts."""
    return (kind or "").startswith("text/html") or start.lstrip()[:14].lower().startswith(PAGES)


def unpack(archive: Path, member: str, target: Path) -> Path:
    """Take the one file called `member`, in whatever folder, out of a ZIP, to `target`.

    Raises GeoOVSegError for a ZIP that is damaged or has not exactly one such file, which is removed; and where there
    is no room, with the ZIP kept.
    """
    part = target.with_name(f"{target.name}.part")
    try:
        with zipfile.ZipFile(archive) as found, _alone(part) as file:
            _extract(found, member, file, part)
            part.replace(target)
    except _BROKEN as error:
        archive.unlink(missing_ok=True)
        raise GeoOVSegError(
            f"{archive.name} cannot be used: {first_line(error)}; it was removed. Fetch it again, or give a checkpoint "
            "you have, as ARCH@FILE"
        ) from error
    except OSError as error:
        raise GeoOVSegError(
            f"cannot unpack {archive}: {first_line(error)}. Make room; the same command goes on without a download"
        ) from error
    return target


def _extract(found: zipfile.ZipFile, member: str, file: IO[bytes], part: Path) -> None:
    """Copy it in pieces, which also checks it; nothing is left of it if that fails."""
    named = [i for i in found.infolist() if not i.is_dir() and i.filename.rpartition("/")[2] == member]
    if len(named) != 1:
        raise zipfile.BadZipFile(f"it holds {len(named)} files named {member}, not one")
    try:
        file.truncate(0)
        with found.open(named[0]) as source:
            shutil.copyfileobj(source, file, PIECE)
        file.flush()
    except BaseException:
        part.unlink(missing_ok=True)
        raise


def file_sha256(path: Path) -> str:
    """The digest of a file, for the run record."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def git_blob(path: Path) -> str:
    """The digest that git has for a file."""
    digest = hashlib.sha1(f"blob {path.stat().st_size}\0".encode(), usedforsecurity=False)
    with path.open("rb") as file:
        while piece := file.read(PIECE):
            digest.update(piece)
    return digest.hexdigest()


def is_as_known(path: Path, digest: str) -> bool:
    """Whether a file has a digest: its SHA-256 (64 letters), or git's (40)."""
    return digest == (git_blob(path) if len(digest) == GIT else file_sha256(path))


def check(path: Path, digest: str | None, source: str) -> None:
    """Compare a file with its digest where that is known; one that differs is removed. Raises GeoOVSegError."""
    if digest is None or is_as_known(path, digest):
        return
    kind, found = ("git digest", git_blob(path)) if len(digest) == GIT else ("sha256", file_sha256(path))
    path.unlink()
    raise GeoOVSegError(f"{source} has the {kind} {found}, not {digest}; it was removed: fetch it again")
