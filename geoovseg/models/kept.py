"""Small things that were computed, kept between runs in a folder that only the user can write."""

from __future__ import annotations

import os
import shlex
import stat
import warnings
from contextlib import suppress
from functools import cache
from pathlib import Path

from geoovseg.errors import GeoOVSegWarning
from geoovseg.files import bytes_of, private_folder, whole
from geoovseg.models.weights import cache_dir

MOST = 1 << 20
"""Bytes of one of them."""


def kept(room: str, name: str) -> bytes | None:
    """What was kept under a name in a room of the cache; none where nothing is, or it cannot be trusted or read."""
    with suppress(OSError, RuntimeError):
        folder = cache_dir() / room
        if _is_ours(folder):
            return bytes_of(folder / name, MOST, follow=False)
    return None


def keep(room: str, name: str, content: bytes) -> None:
    """Keep it for later runs. A folder that cannot be written, or that others can write, costs time later."""
    with suppress(OSError, RuntimeError):
        folder = cache_dir() / room
        private_folder(cache_dir())
        private_folder(folder)
        if _is_ours(folder):
            _clear(folder / name)
            with whole(folder / name) as part:
                part.write_bytes(content)


def _clear(path: Path) -> None:
    """Take away what would be in the way of a file: a link, which is not to be followed, or an empty folder."""
    with suppress(FileNotFoundError):
        if path.is_dir() and not path.is_symlink():
            path.rmdir()
        elif not path.is_file() or path.is_symlink():
            path.unlink()


def _is_ours(folder: Path) -> bool:
    """Whether nobody else can write a room of the cache, or the cache; warns, once, where others can."""
    if os.name != "posix":  # elsewhere bits do not say who may write
        return True
    for place in (folder.parent, folder):
        found = place.stat()
        if found.st_uid not in (0, os.getuid()) or found.st_mode & (stat.S_IWGRP | stat.S_IWOTH):
            _warn(place)
            return False
    return True


@cache
def _warn(folder: Path) -> None:
    message = (
        f"others can write the folder {folder}, so nothing that is kept there is used, and runs take longer; keep them "
        f"out (chmod go-w {shlex.quote(str(folder))}), or set GEOOVSEG_CACHE to a folder of your own"
    )
    warnings.warn(message, GeoOVSegWarning, 6)
