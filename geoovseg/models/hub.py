"""Files of the model hub: fetched resumably by ourselves, held against the hub's own digest, laid in its cache.

The cache is that of huggingface_hub, so other programs find them too. Nothing is asked of the hub but what a file is,
by HEAD, and its bytes; its chunk store (Xet) is not used.
"""

from __future__ import annotations

import http.client
import os
import shutil
import urllib.error
import urllib.request
import warnings
from dataclasses import dataclass
from email.message import Message
from pathlib import Path
from typing import IO, Any
from urllib.parse import quote, urljoin, urlsplit

from geoovseg.errors import GeoOVSegError, GeoOVSegWarning
from geoovseg.models.download import GIT, TIMEOUT, Progress, download
from geoovseg.models.refusals import refused, unreachable

MAIN = "main"
"""The newest commit of a repository."""
SHA256 = 64
"""Letters of such a digest."""
REDIRECTS = 5
"""Within the hub, before it gives a file or the address of one."""


@dataclass(frozen=True)
class Told:
    """What the hub tells of a file."""

    commit: str
    """of the repository"""
    etag: str
    """SHA-256 of a large file, git's digest of a small one"""
    address: str
    """where its bytes are"""


class _Still(urllib.request.HTTPRedirectHandler):
    """Follows no redirect: a token must not go to another host."""

    def redirect_request(
        self, req: urllib.request.Request, fp: IO[bytes], code: int, msg: str, headers: Any, newurl: str
    ) -> None:
        return None


def ask(repo: str, file: str, revision: str = MAIN) -> Told | None:
    """What the hub tells of a file; none where the repository has no such one. Of a commit that is gone, of the newest.

    Raises GeoOVSegError, which says why, where it does not answer or refuses.
    """
    from huggingface_hub import constants

    if constants.HF_HUB_OFFLINE:
        raise GeoOVSegError(f"{repo} is not fetched: HF_HUB_OFFLINE forbids the network; unset it")
    url = f"{constants.ENDPOINT}/{repo}/resolve/{quote(revision, safe='')}/{quote(file)}"
    headers: Message = Message()
    for _ in range(REDIRECTS):
        code, headers = _head(url, repo)
        if code == 404 and headers.get("X-Error-Code") == "EntryNotFound":
            return None
        if code == 404 and headers.get("X-Error-Code") == "RevisionNotFound" and revision != MAIN:
            message = (
                f"{repo} no longer has its commit {revision[:12]}, so its newest is taken; what it holds may differ"
            )
            warnings.warn(message, GeoOVSegWarning, 4)
            return ask(repo, file)
        place = urljoin(url, headers.get("Location") or url)
        if code >= 400:
            raise refused(url, code, repo=repo, why=headers.get("X-Error-Code"))
        if code < 300 or headers.get("X-Linked-Etag") or urlsplit(place).netloc != urlsplit(url).netloc:
            return _told(url, place, headers)
        url = place
    raise GeoOVSegError(f"{url} leads from one address to another without an end")


def _told(url: str, place: str, headers: Message) -> Told:
    etag = (headers.get("X-Linked-Etag") or headers.get("ETag") or "").removeprefix("W/").strip('"')
    commit = headers.get("X-Repo-Commit") or ""
    if not (etag and commit and etag.isalnum() and commit.isalnum()):
        raise GeoOVSegError(f"{url} does not answer as the model hub does; is HF_ENDPOINT right, or a proxy between?")
    return Told(commit, etag, place)


def _head(url: str, repo: str) -> tuple[int, Message]:
    """Status and headers of an address, without following where it leads."""
    request = urllib.request.Request(url, headers={"Accept-Encoding": "identity", **_token(url)}, method="HEAD")
    try:
        with urllib.request.build_opener(_Still).open(request, timeout=TIMEOUT) as answer:
            return answer.status, answer.headers
    except urllib.error.HTTPError as error:
        with error:
            return error.code, error.headers
    except (OSError, http.client.HTTPException) as error:
        raise unreachable(url, error, f"{repo} on the model hub") from error


def _token(url: str) -> dict[str, str]:
    """What tells the hub who asks; nobody else is told."""
    from huggingface_hub import constants, get_token

    if urlsplit(url).netloc != urlsplit(constants.ENDPOINT).netloc or not (token := get_token()):
        return {}
    return {"Authorization": f"Bearer {token}"}


def fetch_file(repo: str, file: str, progress: Progress | None = None, *, revision: str | None = None) -> Path | None:
    """A file of the hub, in the hub's cache; none where the repository has no such one. Raises GeoOVSegError."""
    home = home_of(repo)
    if (told := ask(repo, file, revision or MAIN)) is None:
        return None
    blob = home / "blobs" / told.etag
    if not blob.is_file():
        known = told.etag if len(told.etag) in (GIT, SHA256) else None  # a mirror may tell others
        download(told.address, blob, digest=known, progress=progress, headers=_token(told.address))
    found = home / "snapshots" / told.commit / file
    _link(blob, found)
    if told.commit != revision:
        (home / "refs").mkdir(exist_ok=True)
        (home / "refs" / MAIN).write_text(told.commit)
    return found


def home_of(repo: str) -> Path:
    """The folder of a repository in the hub's cache. Raises GeoOVSegError where there is no place for one."""
    from huggingface_hub import constants

    if constants.HF_HUB_CACHE.startswith("~"):
        raise GeoOVSegError("this user has no home folder to keep weights in: set HF_HOME to a folder, or HOME")
    return Path(constants.HF_HUB_CACHE) / f"models--{repo.replace('/', '--')}"


def _link(blob: Path, name: Path) -> None:
    """Give a file its name in a snapshot; where there are no links, copy it."""
    name.parent.mkdir(parents=True, exist_ok=True)
    name.unlink(missing_ok=True)
    try:
        name.symlink_to(os.path.relpath(blob, name.parent))
    except OSError:
        shutil.copyfile(blob, name)


def etag_of(path: Path) -> str | None:
    """The digest that the hub gave a file in its cache, by what the file behind its name is called."""
    blob = path.resolve()
    return blob.name if blob.parent.name == "blobs" and len(blob.name) in (GIT, SHA256) else None


def forget(path: Path) -> None:
    """Remove a file from the hub's cache, with what is behind its name."""
    blob = path.resolve()
    path.unlink(missing_ok=True)
    if blob.parent.name == "blobs":
        blob.unlink(missing_ok=True)
