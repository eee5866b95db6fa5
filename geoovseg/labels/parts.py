"""The parts of a run: finished bands of rows on disk, each whole or not at all, and a journal of what they are."""

from __future__ import annotations

import errno
import fcntl
import json
import os
import shutil
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

from geoovseg.errors import OutputError, ResumeError
from geoovseg.windows.plan import Part

JOURNAL = "run.json"
LOCK = "lock"
NO_LINKS = (errno.EPERM, errno.ENOTSUP, errno.EOPNOTSUPP, errno.ENOSYS, errno.EMLINK)
"""What file systems without hard links answer."""


@dataclass(frozen=True)
class PartStore:
    """The folder of a run's parts.

    A part is finished when its summary is there, which is written last; every file appears by renaming.
    """

    folder: Path

    def has(self, part: Part) -> bool:
        """Whether a part is finished: its summary can be read, and its files have the sizes that it states."""
        try:
            said = self.summary(part)
            files = {self.folder / f"{part.name}{end}": size for end, size in said["files"].items()}
            return "counts" in said and all(file.stat().st_size == size for file, size in files.items())
        except (OSError, ValueError, KeyError, TypeError, AttributeError):
            return False

    def commit(self, part: Part, rasters: Mapping[str, bytes], summary: Mapping[str, Any]) -> None:
        """Keep a finished part: its rasters by suffix, then its summary."""
        for suffix, content in rasters.items():
            self.write(f"{part.name}{suffix}", content)
        sizes = {suffix: len(content) for suffix, content in rasters.items()}
        self.write(f"{part.name}.json", json.dumps({**summary, "files": sizes}).encode())

    def summary(self, part: Part) -> dict[str, Any]:
        """What was said of a finished part."""
        found: dict[str, Any] = json.loads((self.folder / f"{part.name}.json").read_text())
        return found

    def write(self, name: str, content: bytes) -> None:
        """A file, on disk and complete before it has its name."""
        with self._written(name, content) as part:
            part.replace(self.folder / name)

    def write_once(self, name: str, content: bytes) -> bytes:
        """Write a file unless another process was faster; returns what is in it."""
        path = self.folder / name
        if not path.exists():
            with self._written(name, content) as part:
                try:
                    os.link(part, path)
                except FileExistsError:
                    pass
                except OSError as error:
                    if error.errno not in NO_LINKS:
                        raise
                    part.replace(path)
        return path.read_bytes()

    @contextmanager
    def _written(self, name: str, content: bytes) -> Iterator[Path]:
        """A file on disk and complete, under a passing name."""
        part = self.folder / f"{name}.{os.getpid()}.tmp"
        try:
            with part.open("wb") as file:
                file.write(content)
                file.flush()
                os.fsync(file.fileno())
            yield part
        finally:
            part.unlink(missing_ok=True)

    @property
    def journal(self) -> dict[str, Any]:
        """What the run is. Raises OutputError where the folder holds no run."""
        try:
            found: dict[str, Any] = json.loads((self.folder / JOURNAL).read_text(encoding="utf-8"))
        except (OSError, ValueError) as error:
            raise OutputError(f"{self.folder} holds no run of geoovseg segment") from error
        return found

    @contextmanager
    def claimed(self, number: int) -> Iterator[bool]:
        """Whether this process may work on a group of parts now; a process that dies loses its claims."""
        with (self.folder / f"claim_{number}").open("w") as file:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                yield False
            except OSError as error:
                raise OutputError(f"{self.folder} is on a file system without locks, which workers need") from error
            else:
                yield True

    @contextmanager
    def locked(self, *, shared: bool = False) -> Iterator[None]:
        """Keep others from the same work, or with `shared` from all but shared work; a killed process loses its lock.

        Raises OutputError where others are at work, or have removed the folder.
        """
        with self._lock(fcntl.LOCK_SH if shared else fcntl.LOCK_EX):
            yield

    def _lock(self, kind: int) -> IO[str]:
        """The open lock file, which keeps the lock until it is closed."""
        file = None
        try:
            file = (self.folder / LOCK).open("w")
            _try_lock(file, kind)
            if os.path.samestat(os.fstat(file.fileno()), (self.folder / LOCK).stat()):
                return file
        except (BlockingIOError, FileNotFoundError):
            pass
        if file is not None:
            file.close()
        raise OutputError(f"another process is working in {self.folder}; wait for it, or stop it")

    def remove(self) -> None:
        """Remove the folder; at once, for others that look: it loses its name first."""
        gone = self.folder.with_name(f"{self.folder.name}.{os.getpid()}.tmp")
        try:
            self.folder.rename(gone)
        except OSError:
            gone = self.folder
        shutil.rmtree(gone, ignore_errors=True)


def _try_lock(file: IO[str], kind: int) -> None:
    """Lock at once, or raise BlockingIOError; a file system without locks has none to take."""
    try:
        fcntl.flock(file, kind | fcntl.LOCK_NB)
    except BlockingIOError:
        raise
    except OSError:
        pass


def remove_store(folder: Path) -> None:
    """Remove the parts of a run that did not finish. Raises OutputError while a process works on them."""
    with PartStore(folder).locked():
        PartStore(folder).remove()


@contextmanager
def open_store(folder: Path, journal: Mapping[str, Any], *, resume: bool, shared: bool) -> Iterator[PartStore]:
    """The store of this run, locked: a new one, or with `resume` the one that is there if it is of the same run.

    With `shared`, other processes may compute other parts meanwhile.

    Raises ResumeError, which says what changed, and OutputError while others are at work.
    """
    store, said = PartStore(folder), json.loads(json.dumps(journal))
    if not (folder.exists() and resume):
        _make(folder, said)
    with store.locked(shared=shared):
        _check_same(store.journal, said, folder)
        yield store


def _make(folder: Path, journal: Mapping[str, Any]) -> None:
    """A folder with a journal, unless another process was faster.

    It is made under another name: processes that start together must not see a folder without its journal.
    """
    fresh = folder.with_name(f"{folder.name}.{os.getpid()}.tmp")
    fresh.mkdir()
    try:
        PartStore(fresh).write(JOURNAL, json.dumps(journal, indent=1, ensure_ascii=False).encode())
        fresh.rename(folder)
    except OSError:
        if not (folder / JOURNAL).exists():
            raise
    finally:
        shutil.rmtree(fresh, ignore_errors=True)


def _check_same(old: Mapping[str, Any], new: Mapping[str, Any], folder: Path) -> None:
    changed = list(_changes(old, new, ()))
    if changed:
        where, before, now = changed[0]
        more = f" (and {len(changed) - 1} more)" if len(changed) > 1 else ""
        raise ResumeError(
            f"{folder} is of another run: {where} was {_short(before)} and is now {_short(now)}{more}; run it as "
            "before to go on, or remove that folder to start again"
        )


def _changes(old: Any, new: Any, path: Sequence[str]) -> Iterator[tuple[str, Any, Any]]:
    """Where two journals differ: (name, before, now)."""
    if isinstance(old, dict) and isinstance(new, dict):
        for key in {**old, **new}:
            yield from _changes(old.get(key), new.get(key), (*path, key))
    elif old != new:
        yield " ".join(path), old, new


def _short(value: Any) -> str:
    text = json.dumps(value, ensure_ascii=False)
    return text if len(text) < 80 else f"{text[:77]}..."
