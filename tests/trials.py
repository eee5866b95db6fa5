"""Commands that are killed, or that find a full disk, at moments all over their work, and given again.

`python tests/trials.py kills|disks FOLDER COUNT SEED COMMAND...`, where a word `{}` of the command stands for a folder
of its own. A line of JSON for every trial; the first is of a run that nothing disturbed. A command of segment or encode
is given again with --resume.

Every other kill is before a call that makes, names or removes a file in that folder; the others are at times, for what
libraries do without telling Python, and most of these after there are labels, if there are any. Disks are of COUNT
sizes, up to more than the command needs; for them this needs the right to mount (`unshare -rm` gives it). All run in
processes forked from here, where everything is loaded.
"""

from __future__ import annotations

import hashlib
import json
import os
import random
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pyogrio
import rasterio
import torch

import geoovseg.run.worker
import geoovseg.vectors.vectorize  # noqa: F401  # so that no process loads it anew
from geoovseg import cli

CHANGES = ("os.rename", "os.mkdir", "os.remove", "os.rmdir", "os.link", "os.truncate")
"""Events of the interpreter after which other files are there than before; `open` for writing is one more."""
LABELS = "labels.tif"
LATE = 0.1
"""Of the time of a command, what is left of it when there are labels."""
PATIENCE = 20
"""Seconds to wait for processes to end that should have ended."""
Found = dict[str, Any]
Told = tuple[int, list[str]]
"""Exit code, and what was done to files."""


def command(words: Sequence[str]) -> int:
    """Run a command in this process; returns its exit code."""
    sys.argv = ["geoovseg", *words]
    try:
        cli.main()
    except SystemExit as end:
        return int(end.code or 0)


def _changes(event: str, args: tuple[Any, ...], folder: str) -> bool:
    """Whether an event changes which files are in a folder."""
    if event == "open":
        writes = isinstance(args[2], int) and args[2] & (os.O_WRONLY | os.O_RDWR)
        return bool(writes) and str(args[0]).startswith(folder)
    return event in CHANGES and any(str(arg).startswith(folder) for arg in args)


def _tell(folder: Path, last: int, answer: int) -> None:
    """Tell each change in a folder, and die before the one after the last."""
    count = 0

    def hook(event: str, args: tuple[Any, ...]) -> None:
        nonlocal count
        if _changes(event, args, str(folder)):
            if count == last:
                os.kill(os.getpid(), signal.SIGKILL)
            count += 1
            os.write(answer, f"{event} {Path(str(args[0])).name}\n".encode())

    sys.addaudithook(hook)


def forked(words: Sequence[str], folder: Path, last: int = -1) -> tuple[int, int]:
    """A process of the command, and a pipe that tells what it does in the folder."""
    ours, theirs = os.pipe()
    if (child := os.fork()) == 0:
        os.close(ours)
        os.setsid()
        try:
            out = os.open(_said(folder), os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
            os.dup2(out, 1)
            os.dup2(out, 2)
            _tell(folder, last, theirs)
            os._exit(command([word.replace("{}", str(folder)) for word in words]))
        finally:
            os._exit(99)
    os.close(theirs)
    return child, ours


def ended(child: int, pipe: int) -> Told:
    """Exit code and changes of a process, waited for."""
    code = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    os.set_blocking(pipe, False)  # its own processes may hold the other end
    with os.fdopen(pipe, "rb") as file:
        return code, (file.read() or b"").decode(errors="replace").splitlines()


def _said(folder: Path) -> Path:
    """Where a command's talk goes."""
    return folder.parent / f"{folder.name}.err"


def _again(words: Sequence[str], folder: Path) -> Found:
    """What comes of giving the command again."""
    code, _ = ended(*forked([*words, "--resume"] if words[0] in ("segment", "encode") else words, folder))
    return {"again": code, "files": content(folder), "said": _said(folder).read_text()}


def alive(session: int) -> list[str]:
    """Processes of a session that are not zombies."""
    found = []
    for stat in Path("/proc").glob("[0-9]*/stat"):
        try:
            state, _, _, sid = stat.read_text().rpartition(")")[2].split()[:4]
            if int(sid) == session and state not in "ZX":
                found.append((stat.parent / "cmdline").read_text().replace("\0", " "))
        except OSError:
            continue
    return found


def content(folder: Path) -> Found:
    """What is in a folder, by name: pixels of rasters, rows of polygons, bytes of all else."""
    return {str(path.relative_to(folder)): _content(path) for path in sorted(folder.rglob("*")) if path.is_file()}


def _content(path: Path) -> str:
    try:
        return hashlib.sha256(_said_by(path)).hexdigest()[:16]
    except Exception as error:  # whatever it is: it is no whole file
        return f"{type(error).__name__}: {error}"


def _said_by(path: Path) -> bytes:
    if path.suffix == ".tif":
        with rasterio.open(path) as src:
            return bytes(src.read().tobytes() + repr(sorted(src.tags().items())).encode())
    if path.suffix in (".gpkg", ".fgb", ".parquet", ".geojson"):
        layer = "classes" if path.suffix == ".gpkg" else None
        _, _, shapes, columns = pyogrio.raw.read(path, layer=layer)
        return repr(sorted(zip(map(bytes, shapes), *(map(str, column) for column in columns), strict=True))).encode()
    return path.read_bytes()


def kills(words: Sequence[str], folder: Path, count: int, seed: int) -> Iterator[Found]:
    """Kill the command before a change, or after a time, and give it again."""
    whole, start, chance = folder / "whole", time.monotonic(), random.Random(seed)
    whole.mkdir(parents=True)
    code, done = ended(*forked(words, whole))
    seconds = time.monotonic() - start
    yield {"again": code, "changes": len(done), "seconds": round(seconds, 2), "files": content(whole)}
    for number in range(count):
        last = number * len(done) // count if number % 2 else -1
        late = number % 2 == 0 and number % 8 != 0 and (whole / LABELS).exists()
        yield _killed(words, folder / str(number), last, chance.uniform(0, seconds * (LATE if late else 1)), late=late)


def _killed(words: Sequence[str], folder: Path, last: int, seconds: float, *, late: bool) -> Found:
    """Kill a command before a change, or after a time, which begins when there are labels if it is `late`."""
    folder.mkdir()
    child, pipe = forked(words, folder, last)
    if last < 0:
        give_up = time.monotonic() + 3 * PATIENCE
        while late and not (folder / LABELS).exists() and time.monotonic() < give_up:
            time.sleep(0.001)
        time.sleep(seconds)
        os.kill(child, signal.SIGKILL)
    code, done = ended(child, pipe)
    start = time.monotonic()
    while (left := alive(child)) and time.monotonic() < start + PATIENCE:
        time.sleep(0.01)
    found = {"killed": code, "after": done[-1:], "labels": (folder / LABELS).exists(), "alive": left}
    found["gone"], found["heard"] = round(time.monotonic() - start, 2), _said(folder).read_text()
    return {**found, **_again(words, folder)}


def disks(words: Sequence[str], folder: Path, count: int, seed: int) -> Iterator[Found]:
    """Run the command on disks of several sizes, and again when there is room."""
    with disk(folder / "whole", 1 << 30) as whole, _most_used(whole) as most:
        code, done = ended(*forked(words, whole))
        found = {"again": code, "changes": len(done), "files": content(whole)}
    yield {**found, "bytes": most[0]}
    for number in range(count):
        size = max(4096, int(most[0] * 1.3 * (number + 1) / count))
        with disk(folder / str(number), size) as small:
            code, done = ended(*forked(words, small))
            found = {"code": code, "bytes": size, "after": done[-1:], "left": content(small)}
            found["heard"] = _said(small).read_text()
            subprocess.run(["mount", "-o", f"remount,size={1 << 30}", small], check=True)
            yield {**found, **_again(words, small)}


@contextmanager
def disk(folder: Path, size: int) -> Iterator[Path]:
    """A disk of so many bytes."""
    folder.mkdir(parents=True)
    subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={size}", "trial", folder], check=True)
    try:
        yield folder
    finally:
        subprocess.run(["umount", "-l", folder], check=True)


@contextmanager
def _most_used(folder: Path) -> Iterator[list[int]]:
    """The most that is used of a disk while the block runs, in bytes."""
    most, over = [0], threading.Event()

    def look() -> None:
        while not over.wait(0.003):
            found = os.statvfs(folder)
            most[0] = max(most[0], (found.f_blocks - found.f_bfree) * found.f_frsize)

    thread = threading.Thread(target=look)
    thread.start()
    try:
        yield most
    finally:
        over.set()
        thread.join()


TRIALS: dict[str, Callable[[Sequence[str], Path, int, int], Iterator[Found]]] = {"kills": kills, "disks": disks}


def main() -> None:
    torch.set_num_threads(1)  # no thread must be left that children would wait for
    for found in TRIALS[sys.argv[1]](sys.argv[5:], Path(sys.argv[2]), int(sys.argv[3]), int(sys.argv[4])):
        print(json.dumps(found), flush=True)


if __name__ == "__main__":
    main()
