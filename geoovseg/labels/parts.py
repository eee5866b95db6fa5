"""The parts of a run: finished bands of rows on disk, each whole or not at all, and a journal of what they are.

This module alone knows the files of such a folder; only the process that drives a run writes them.
"""

from __future__ import annotations

import errno
import hashlib
import json
import os
import shutil
import uuid
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

from rasterio.errors import NotGeoreferencedWarning
from rasterio.io import MemoryFile

from geoovseg.errors import OutputError, hushed
from geoovseg.files import LARGEST_TEXT, LOCK, bench, bytes_of, fresh_name, sweep, to_disk, try_lock
from geoovseg.labels.journal import check_same
from geoovseg.labels.profile import crs_for_side_file
from geoovseg.labels.styles import crs_aux_xml
from geoovseg.network import sealed
from geoovseg.rasters.ground import RasterGrid
from geoovseg.rasters.open import plain_open
from geoovseg.windows.plan import Panel, Part

JOURNAL, PANELS, GRID = "run.json", "panels.json", "grid.tif"
"""What the run is; how its columns are cut; one pixel with the scene's place, exactly as GDAL keeps it."""
PREPARED, NAMED = "prepared.safetensors", "named.json"
"""What the method learned from the scene before the first window; what outputs are about to get their names."""
ENTERING = 5.0
"""Seconds for several shards to begin one after the other."""
COUNTS = ("windows", "skipped", "outside", "failed", "threads")
"""Numbers in what is said of a part."""
NO_LINKS = (errno.EPERM, errno.ENOTSUP, errno.EOPNOTSUPP, errno.ENOSYS, errno.EMLINK)
"""What file systems without hard links answer."""


@dataclass(frozen=True)
class FinishedPart:
    """A part as it is kept: its rasters by the ends of their names, and what is to be said of it."""

    part: Part
    rasters: Mapping[str, bytes]
    summary: Mapping[str, Any]


@dataclass(frozen=True)
class PartStore:
    """The folder of a run's parts.

    A part is finished when its summary is there, which is written last; every file appears by renaming.
    """

    folder: Path

    def has(self, part: Part) -> bool:
        """Whether a part is finished: its summary is a part's, this part's, and its files are what it states."""
        try:
            said = self.summary(part)
            files = {self.raster(part, end): digest for end, digest in said["sha256"].items()}
            return _is_summary(said, part) and all(_digest_of(file) == digest for file, digest in files.items())
        except (OSError, ValueError, LookupError, TypeError, AttributeError, RecursionError):
            return False

    def raster(self, part: Part, end: str) -> Path:
        """The file of a finished part's raster."""
        return self.folder / f"{part.name}{end}"

    def commit(self, done: FinishedPart) -> None:
        """Keep a finished part: its rasters, then its summary."""
        for end, content in done.rasters.items():
            self.write(f"{done.part.name}{end}", content)
        digests = {end: hashlib.sha256(content).hexdigest() for end, content in done.rasters.items()}
        said = {**done.summary, "part": done.part.name, "sha256": digests}
        self.write(f"{done.part.name}.json", json.dumps(said).encode())

    def summary(self, part: Part) -> dict[str, Any]:
        """What was said of a finished part."""
        found: dict[str, Any] = json.loads((self.folder / f"{part.name}.json").read_text())
        return found

    def write(self, name: str, content: bytes) -> None:
        """A file, on disk and complete before it has its name."""
        path = self.folder / name
        with self._complete(path, content) as part:  # which goes with this folder if nobody comes to remove it
            part.replace(path)

    def write_once(self, name: str, content: bytes) -> bytes:
        """Write a file unless the driver of another share was faster; returns what is in it."""
        path = self.folder / name
        if not path.exists():
            with self._complete(path, content) as part:
                _link(part, path)
        return path.read_bytes()

    @staticmethod
    @contextmanager
    def _complete(path: Path, content: bytes) -> Iterator[Path]:
        """A file that is on the disk, under a passing name."""
        part = fresh_name(path)
        try:
            part.write_bytes(content)
            to_disk(part)
            yield part
        finally:
            part.unlink(missing_ok=True)

    @property
    def journal(self) -> dict[str, Any]:
        """What the run is. Raises OutputError where the folder holds no run."""
        try:
            found: dict[str, Any] = dict(json.loads((self.folder / JOURNAL).read_text(encoding="utf-8")))
        except (OSError, ValueError, TypeError, RecursionError) as error:
            raise OutputError(f"{self.folder} holds no run of geoovseg segment") from error
        return found

    def fix_panels(self, panels: Sequence[Panel]) -> tuple[Panel, ...]:
        """The panels of whoever came first, which follow from its memory."""
        said = json.dumps([[panel.col_off, panel.width] for panel in panels]).encode()
        return _panels(self.write_once(PANELS, said), panels[-1].col_off + panels[-1].width)

    def panels(self, width: int) -> tuple[Panel, ...]:
        """The panels that were kept, of a scene of so many columns. Raises ValueError for what cannot be that."""
        return _panels((self.folder / PANELS).read_bytes(), width)

    @property
    def prepared(self) -> bytes | None:
        """What the method learned from the scene, if it was kept."""
        path = self.folder / PREPARED
        return path.read_bytes() if path.exists() else None

    def keep_prepared(self, found: bytes) -> bytes:
        """Keep that, unless it was kept before; returns what is kept."""
        return self.write_once(PREPARED, found)

    def keep_grid(self, grid: RasterGrid) -> None:
        """Keep a grid, for whoever puts the parts together, unless it was kept before."""
        if (self.folder / GRID).exists():
            return
        profile = {"driver": "GTiff", "height": 1, "width": 1, "count": 1, "dtype": "uint8"}
        with MemoryFile() as file:
            with hushed(NotGeoreferencedWarning):
                file.open(crs=grid.crs, transform=grid.transform, **profile).close()
            if (wkt := crs_for_side_file(file.name, grid)) is not None:
                self.write(f"{GRID}.aux.xml", crs_aux_xml(wkt).encode())
            self.write(GRID, bytes(file.getbuffer()))

    def grid(self, shape: tuple[int, int]) -> RasterGrid:
        """The grid that was kept, of so many rows and columns."""
        with sealed(), plain_open(self.folder / GRID) as src:
            return RasterGrid(height=shape[0], width=shape[1], crs=src.crs, transform=src.transform)

    @contextmanager
    def locked(self, *, shared: bool = False) -> Iterator[None]:
        """Keep others from the same work, or with `shared` from all but shared work; a killed process loses its lock.

        Raises OutputError where others are at work, or have removed the folder.
        """
        gate = self.folder / LOCK
        busy = OutputError(f"another process is working in {self.folder}; wait for it, or stop it")
        if not self.folder.is_dir():
            raise busy
        with ExitStack() as stack:
            with ExitStack() as entering:
                entering.enter_context(try_lock(gate, wait=ENTERING if shared else 0))
                if shared:
                    mine = self.folder / f"{LOCK}.{uuid.uuid4().hex[:12]}"
                    stack.callback(mine.unlink, missing_ok=True)
                    stack.enter_context(try_lock(mine))
                else:
                    for other in self.folder.glob(f"{LOCK}.*"):
                        with try_lock(other):
                            pass
                        other.unlink(missing_ok=True)  # of one that died
                    stack.push(entering.pop_all())
            yield

    def keep_named(self, ready: Iterable[tuple[Path, Path]]) -> None:
        """Say which files will have which names, so that a run that is killed meanwhile knows them for its own."""
        self.write(NAMED, json.dumps({os.path.realpath(name): _known_by(file) for file, name in ready}).encode())

    def named(self, path: Path) -> bool:
        """Whether a file that has its name is one that this run gave it."""
        try:
            said = json.loads(bytes_of(self.folder / NAMED, LARGEST_TEXT, follow=False))
            return bool(said[os.path.realpath(path)] == _known_by(path))
        except (OSError, ValueError, LookupError, TypeError, RecursionError):
            return False

    def remove(self) -> None:
        """Remove the folder; at once, for others that look: it loses its name first."""
        sweep(self.folder)
        gone = fresh_name(self.folder)
        try:
            self.folder.rename(gone)
        except OSError:
            gone = self.folder
        shutil.rmtree(gone, ignore_errors=True)


def _panels(said: bytes, width: int) -> tuple[Panel, ...]:
    """Panels as they were kept. Raises ValueError unless they lie side by side and are as wide as the scene."""
    panels = tuple(Panel(int(first), int(columns)) for first, columns in json.loads(said))
    ends = [0, *(panel.col_off + panel.width for panel in panels)]
    if not panels or ends[-1] != width or any(p.col_off != end for p, end in zip(panels, ends, strict=False)):
        raise ValueError(f"{PANELS} does not cut {width} columns")
    return panels


def _is_summary(said: dict[str, Any], part: Part) -> bool:
    """Whether this is what is said of a finished part, by its name and the types of its numbers."""
    numbers = [*said["counts"].values(), *(said[key] for key in COUNTS if key in said), *said.get("won", ())]
    whole = all(isinstance(number, int) and number >= 0 for number in numbers)
    return bool(
        said["part"] == part.name and whole and all(code.isdecimal() for code in said["counts"]) and said["sha256"]
    )


def _known_by(file: Path) -> list[int]:
    """What a file keeps when it gets another name. Raises OSError."""
    found = file.stat()
    return [found.st_size, found.st_mtime_ns]


def _digest_of(file: Path) -> str:
    """SHA-256 of a file. Raises OSError."""
    found = file.stat()
    return _digest(file, found.st_size, found.st_mtime_ns)


@lru_cache(maxsize=1 << 14)
def _digest(file: Path, size: int, time: int) -> str:
    return hashlib.sha256(file.read_bytes()).hexdigest()


def _link(part: Path, path: Path) -> None:
    """Give a file its name unless another one has it."""
    try:
        os.link(part, path)
    except FileExistsError:
        pass
    except OSError as error:
        if error.errno not in NO_LINKS:
            raise
        part.replace(path)


def remove_store(folder: Path) -> None:
    """Remove the parts of a run that did not finish.

    Raises OutputError while a process works on them, and for a folder that is none of parts.
    """
    try:
        ours = not folder.is_symlink() and {"record", "outputs"} <= set(PartStore(folder).journal)
    except OutputError:
        ours = False
    if not ours:
        raise OutputError(f"{folder} is no folder of parts, so --overwrite does not remove it; move it away")
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
        check_same(store.journal, said, folder)
        yield store


def _make(folder: Path, journal: Mapping[str, Any]) -> None:
    """A folder with a journal, unless another process was faster.

    It is made under another name: processes that start together must not see a folder without its journal.
    """
    with bench(folder) as work:
        (fresh := work / "parts").mkdir()
        try:
            PartStore(fresh).write(JOURNAL, json.dumps(journal, indent=1, ensure_ascii=False).encode())
            fresh.rename(folder)
        except OSError:
            if not (folder / JOURNAL).exists():
                raise
