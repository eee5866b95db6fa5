"""Files that appear under their names only when they are whole, and locks that end with their process."""

from __future__ import annotations

import errno
import os
import shutil
import stat
import uuid
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout

from geoovseg.errors import OutputError, UsageError, first_line

StrPath = str | os.PathLike[str]
"""A file or folder."""
RASTERS = (".tif", ".tiff", ".vrt", ".jp2", ".img", ".png", ".jpg", ".jpeg")
"""Suffixes of the rasters in a folder."""
BESIDE = "beside"
"""What stands for an output beside the labels, named after them."""
STORE = ".zarr"
"""Suffix of a folder of features that were kept."""
LARGEST_TEXT = 4 << 20
"""Bytes of a list of classes, colours or sentences; 65534 classes with 64 letters each."""
LARGEST_LIST = 16 << 20
"""Bytes of a list of paths."""
LARGEST_SIDE = 64 << 20
"""Bytes of a file that is read together with a raster and told nothing of by its own name."""
ATTEMPTS = 5
"""To make a folder that nobody else takes for a left-over."""
LOCK = "lock"
"""Name of the file in a folder by which a process says that it works there."""


def as_path(given: Any, what: str) -> Path:
    """What a caller gave as the name of a file or folder. Raises UsageError for what is none."""
    text = os.fspath(given) if isinstance(given, str | os.PathLike) else b""
    if not text or isinstance(text, bytes) or "\0" in text:
        raise UsageError(f"{what} {given!r} is no name of a file")
    return Path(text)


def fresh_name(path: Path) -> Path:
    """A hidden name beside a path that no other process has, on this machine or another one."""
    return path.with_name(f".{path.name}.{uuid.uuid4().hex[:12]}.tmp")


def behind_link(path: Path) -> Path:
    """Where a file really goes: a link is followed, not replaced, for it may lead to another disk."""
    return Path(os.path.realpath(path)) if path.is_symlink() else path


@contextmanager
def whole(path: Path) -> Iterator[Path]:
    """A place to write a file in; when the block ends well, it is on the disk and takes its own name."""
    path = behind_link(path)
    with bench(path) as work:
        part = work / path.name
        yield part
        to_disk(part)
        os.replace(part, path)


def write_whole(path: Path, content: bytes | str) -> None:
    """Write a file that is there only when it is whole; text in UTF-8."""
    with whole(path) as part:
        part.write_bytes(content.encode() if isinstance(content, str) else content)


def names_store(path: StrPath) -> bool:
    """Whether a path is that of a store of features by its name, there or not."""
    return os.fspath(path).rstrip("/" + os.sep).lower().endswith(STORE)


OBJECTS = ("s3://", "gs://", "az://", "abfs://", "abfss://")
"""How addresses on object stores begin."""


def is_object(name: StrPath) -> bool:
    """Whether a name is an address on an object store."""
    return os.fspath(name).startswith(OBJECTS)


def is_store(path: StrPath) -> bool:
    """Whether a path is that of a store of features, finished or not; of one on an object store by its name."""
    return names_store(path) and (is_object(path) or os.path.isdir(path))


def names_folder(output: StrPath | None) -> bool:
    """Whether an output is a folder by its name, which ends in a separator, there or not."""
    return output is not None and os.fspath(output).endswith(("/", os.sep))


def is_folder(output: StrPath) -> bool:
    """Whether an output is a folder: one that is there, or one by its name."""
    return os.path.isdir(output) or names_folder(output)


def placed(given: StrPath, beside: Path, name: str) -> Path:
    """An output by what was given: a file, a folder that gets one of this name, or `beside` another output."""
    if given == BESIDE:
        return beside.with_name(name)
    return Path(given, name) if is_folder(given) and not names_store(given) else Path(given)


def made_folder(path: StrPath, option: str) -> None:
    """Make a folder that an option names, if it is not there. Raises UsageError."""
    try:
        os.makedirs(path, exist_ok=True)
    except OSError as error:
        raise UsageError(f"{option} {path}: cannot make this folder: {first_line(error)}") from error


def private_folder(path: Path) -> None:
    """Make a folder that is only for the user, if it is not there. Raises OSError."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.mkdir(mode=0o700, exist_ok=True)


def bytes_of(path: Path, most: int, *, follow: bool = True) -> bytes:
    """All of a file, of a pipe or device too, if it is no more than so many bytes; without `follow` a plain file only.

    Raises OSError for what is larger, before it is read where its size is known.
    """
    plain = 0 if follow else getattr(os, "O_NOFOLLOW", 0)
    handle = os.open(path, os.O_RDONLY | getattr(os, "O_BINARY", 0) | getattr(os, "O_NONBLOCK", 0) | plain)
    with open(handle, "rb", buffering=0) as file:
        found = os.fstat(handle)
        if not (follow or stat.S_ISREG(found.st_mode)):
            raise OSError(errno.EINVAL, "it is no file")
        if found.st_size > most:
            raise _too_large(most)
        os.set_blocking(handle, True)  # a pipe that nobody writes was to be opened, not waited for
        return within(file, most)


def within(file: Any, most: int, head: bytes = b"") -> bytes:
    """The rest of an open file behind its head, if all is no more than so many bytes. Raises OSError."""
    content = bytearray(head)
    while piece := file.read(min(most + 1 - len(content), 1 << 20)):
        content += piece
        if len(content) > most:
            raise _too_large(most)
    return bytes(content)


def check_plain(path: StrPath, most: int | None = None) -> None:
    """Refuse a pipe or a device, which others wait for without end, and a file of more bytes. Raises OSError.

    What is not there, or is a folder, is left to who reads it.
    """
    try:
        found = os.stat(path)
    except (OSError, ValueError):
        return
    if not (stat.S_ISREG(found.st_mode) or stat.S_ISDIR(found.st_mode)):
        raise OSError(errno.EINVAL, "it is a pipe or a device, not a file")
    if most is not None and found.st_size > most and stat.S_ISREG(found.st_mode):
        raise _too_large(most)


def _too_large(most: int) -> OSError:
    return OSError(errno.EFBIG, f"it is larger than {sized(most)}, the most that is read of it")


def sized(count: int) -> str:
    """`4 MB`, as of a limit."""
    return f"{count >> 20} MB" if count >= 1 << 20 else f"{count >> 10} kB"


def text_of(content: bytes) -> str:
    """Text in UTF-8 or UTF-16, whether a byte order mark says so or not. Raises UnicodeDecodeError."""
    if content.startswith((b"\xff\xfe", b"\xfe\xff")):
        return content.decode("utf-16")
    for order, high, low in (
        ("utf-16-le", content[1:64:2], content[0:64:2]),
        ("utf-16-be", content[0:64:2], content[1:64:2]),
    ):
        if high and not any(high) and all(low):
            return content.decode(order)
    return content.decode("utf-8-sig")


def to_disk(path: Path) -> None:
    """Wait until a file is on the disk, so that no crash leaves a name without its content."""
    with path.open("rb+") as file:
        os.fsync(file.fileno())


@contextmanager
def bench(target: Path) -> Iterator[Path]:
    """A folder of its own beside a target, to put it together in; gone in the end, as those of killed runs are."""
    sweep(target)
    with ExitStack() as stack:
        folder = _own_folder(target, stack)
        stack.callback(shutil.rmtree, folder, ignore_errors=True)
        yield folder


def _own_folder(target: Path, stack: ExitStack) -> Path:
    """A fresh folder that is locked while the stack lasts."""
    for attempt in range(ATTEMPTS):
        folder = fresh_name(target)
        folder.mkdir()
        try:
            stack.enter_context(try_lock(folder / LOCK))
            break
        except (OutputError, FileNotFoundError):  # who swept here took it for a left-over before it was locked
            shutil.rmtree(folder, ignore_errors=True)
            if attempt == ATTEMPTS - 1:
                raise
    return folder


def sweep(target: Path) -> None:
    """Remove the benches of a target whose processes died."""
    for folder in target.parent.glob(f".{_literal(target.name)}.????????????.tmp"):
        with suppress(OSError):  # another process is at work in it
            if folder.is_dir() and not folder.is_symlink():
                with try_lock(folder / LOCK):
                    shutil.rmtree(folder, ignore_errors=True)


def _literal(name: str) -> str:
    """A name that stands for itself in a pattern."""
    return "".join(f"[{c}]" if c in "*?[" else c for c in name)


@contextmanager
def try_lock(path: Path, message: str | None = None, *, wait: float = 0) -> Iterator[None]:
    """The lock that a file stands for, held until the block ends; a process that dies loses it.

    Raises OutputError with the message, after so many seconds, where another process has it, and where the path is a
    link or lies in a folder that was replaced meanwhile.
    """
    busy = OutputError(message or f"another process is working in {path.parent}; wait for it, or stop it")
    if path.is_symlink():
        raise OutputError(f"{path} is a link, not a lock of geoovseg; remove it")
    held = FileLock(path, timeout=wait, thread_local=False)
    try:
        held.acquire()
    except Timeout as error:
        raise busy from error
    except NotImplementedError:  # a file system without locks has none to take
        yield
        return
    try:
        if _is_free(path):
            raise busy
        yield
    finally:
        held.release()


def _is_free(path: Path) -> bool:
    """Whether a lock could be taken, or its folder is gone."""
    other = FileLock(path, timeout=0, thread_local=False)
    try:
        with other:
            return True
    except Timeout:
        return False
    except FileNotFoundError:
        return True
