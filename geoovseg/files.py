"""Files that appear under their names only when they are whole, and locks that end with their process."""

from __future__ import annotations

import os
import shutil
import uuid
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO, Any

import portalocker
from portalocker import LockFlags

from geoovseg.errors import OutputError

LOCK = "lock"
"""Name of the file in a folder by which a process says that it works there."""


def fresh_name(path: Path, suffix: str = ".tmp") -> Path:
    """A hidden name beside a path that no other process has, on this machine or another one."""
    return path.with_name(f".{path.name}.{uuid.uuid4().hex[:12]}{suffix}")


@contextmanager
def whole(path: Path, suffix: str = ".tmp") -> Iterator[Path]:
    """A name to write a file under; when the block ends well, it is on the disk and takes its own name.

    `suffix` is for writers that go by the end of a name.
    """
    part = fresh_name(path, suffix)
    try:
        yield part
        to_disk(part)
        os.replace(part, path)
    finally:
        with suppress(OSError):  # of what could not even be begun there is nothing to remove
            part.unlink(missing_ok=True)


def write_whole(path: Path, content: bytes | str) -> None:
    """Write a file that is there only when it is whole; text in UTF-8."""
    with whole(path) as part:
        part.write_bytes(content.encode() if isinstance(content, str) else content)


def to_disk(path: Path) -> None:
    """Wait until a file is on the disk, so that no crash leaves a name without its content."""
    with path.open("rb+") as file:
        os.fsync(file.fileno())


@contextmanager
def bench(target: Path) -> Iterator[Path]:
    """A folder of its own beside a target, to put it together in; gone in the end, as those of killed runs are."""
    sweep(target)
    folder = fresh_name(target)
    folder.mkdir()
    try:
        with try_lock(folder / LOCK):
            yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def sweep(target: Path) -> None:
    """Remove the benches of a target whose processes died."""
    for folder in target.parent.glob(f".{_literal(target.name)}.????????????.tmp"):
        with suppress(OSError, OutputError), try_lock(folder / LOCK, create=False):
            shutil.rmtree(folder, ignore_errors=True)


def _literal(name: str) -> str:
    """A name that stands for itself in a pattern."""
    return "".join(f"[{c}]" if c in "*?[" else c for c in name)


@contextmanager
def try_lock(path: Path, *, shared: bool = False, create: bool = True) -> Iterator[IO[str]]:
    """The lock of a file, or at once OutputError where another process has it.

    A process that dies loses its locks. With `shared`, others that ask for that may have it too. On a file system
    without locks everybody has it. With `create` the file is made if it is not there; its content stays.
    """
    flags = os.O_RDWR | (os.O_CREAT if create else 0) | getattr(os, "O_NOFOLLOW", 0)
    with os.fdopen(os.open(path, flags, 0o666), "r+") as file:
        lock(file, f"another process is working in {path.parent}; wait for it, or stop it", shared=shared)
        yield file


def lock(file: IO[Any], message: str, *, shared: bool = False) -> None:
    """Lock an open file until it is closed. Raises OutputError with the message where another process has the lock."""
    try:
        portalocker.lock(file, (LockFlags.SHARED if shared else LockFlags.EXCLUSIVE) | LockFlags.NON_BLOCKING)
    except portalocker.AlreadyLocked as error:
        raise OutputError(message) from error
    except (portalocker.LockException, ImportError):
        pass  # a file system without locks; shared ones on Windows need one more package
