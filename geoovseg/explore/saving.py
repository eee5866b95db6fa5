"""What is seen becomes files: by the very command that is shown, in a process of its own."""

from __future__ import annotations

import re
import shlex
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from threading import Lock
from typing import IO, Any

from geoovseg.errors import OutputError, UsageError, first_line
from geoovseg.explore.asked import Asked, write_classes
from geoovseg.explore.opened import Opened

_NAME = re.compile(r"[\w][\w .-]{0,99}")


@dataclass
class Saving:
    """A run that writes labels, polygons and the class file."""

    command: list[str]
    labels: Path
    vectors: Path
    asked: list[Path]
    """the class file, and files of examples"""
    process: subprocess.Popen[bytes]
    heard: IO[str]
    """what it says"""
    began: float = field(default_factory=time.monotonic)
    _ended: float | None = None
    _said: str = ""
    _lock: Lock = field(default_factory=Lock)

    @classmethod
    def begin(cls, opened: Opened, folder: Path, name: str, classes: Sequence[Asked], more: Sequence[str]) -> Saving:
        """Write the class file and start the command. Raises UsageError for names, OutputError for what is there."""
        if not _NAME.fullmatch(name):
            raise UsageError(f"{name!r} is no name for files: letters, digits, - and _")
        labels, vectors = folder / f"{name}_labels.tif", folder / f"{name}_classes.gpkg"
        for path in (labels, vectors, folder / f"{name}_classes.txt", *folder.glob(f"{name}_examples_*.gpkg")):
            if path.exists():
                raise OutputError(f"{path} exists already; choose another name")
        try:
            folder.mkdir(parents=True, exist_ok=True)
            asked = write_classes(folder, name, classes, opened)
        except OSError as error:
            raise OutputError(f"cannot write into {folder}: {first_line(error)}") from error
        assert opened.store is not None
        outputs = ["-o", str(labels), "--vectors", str(vectors)]
        command = ["segment", opened.store.path, "--vocabulary", str(asked[0]), *more, *outputs]
        heard = tempfile.TemporaryFile("w+", encoding="utf-8", errors="replace")  # noqa: SIM115 - `state` closes it
        process = subprocess.Popen(
            [sys.executable, "-m", "geoovseg", *command, "--quiet"],
            stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=heard,
        )  # fmt: skip
        return cls(command, labels, vectors, asked, process, heard)

    @property
    def running(self) -> bool:
        """Whether it is not done yet."""
        return self.process.poll() is None

    def state(self) -> dict[str, Any]:
        """How far it is, for a page."""
        with self._lock:
            self._settle()
        done = self._ended is not None and self.process.returncode == 0
        error = self._said.splitlines()[-1:] if self._ended is not None and not done else []
        return {
            "command": shlex.join(["geoovseg", *self.command]),
            "running": self._ended is None,
            "done": done,
            "error": error[0] if error else (None if done or self._ended is None else "it failed without a word"),
            "seconds": round((self._ended or time.monotonic()) - self.began, 1),
            "files": [str(path) for path in (self.labels, self.vectors, *self.asked)] if done else [],
        }

    def _settle(self) -> None:
        """Note once what came of it; of a run that failed no class file stays, so that the name is free."""
        if self.running or self._ended is not None:
            return
        self._ended = time.monotonic()
        with self.heard:
            self.heard.seek(0)
            self._said = self.heard.read().strip()
        if self.process.returncode:
            for path in self.asked:
                path.unlink(missing_ok=True)

    def stop(self) -> None:
        """End it, if it still runs; nothing half-written stays."""
        if self.running:
            self.process.terminate()
            self.process.wait()
        self.state()
