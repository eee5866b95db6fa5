"""What methods found on a data set, image by image: in memory, and in files that grow while they run."""

from __future__ import annotations

import glob
import hashlib
import json
import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from geoovseg.errors import OutputError, in_short, some
from geoovseg.evaluation.datasets import UNKNOWN, DataSet
from geoovseg.files import made_folder, whole

Counts = NDArray[np.int64]


class Counted(NamedTuple):
    """What was found on some images that were seen together."""

    each: list[Counts]
    """confusion of every image, at the release's threshold"""
    swept: list[Counts]
    """of all of them, at every other threshold"""
    seconds: float
    pixels: int
    digests: list[str]
    """SHA-256 of every image and its truth, as read"""


@dataclass(frozen=True, kw_only=True)
class Found:
    """What a method found on a data set; the table is made of several of these."""

    method: str
    protocol: str
    header: dict[str, Any]
    """everything that could change a number"""
    confusions: Counts
    """(images, classes, classes + 1): rows truth, columns labels, the last one for none of the classes"""
    seconds: float
    pixels: int
    sweep: dict[float, Counts]
    """by threshold: (classes, classes + 1) of all images"""
    files: str = ""
    """SHA-256 of what all images and truths hold"""


def confusion(truth: NDArray[np.uint8], given: NDArray[Any], classes: int) -> Counts:
    """Pixels (C, C + 1): rows truth, columns labels, the last one for what is none of the classes."""
    known = truth != UNKNOWN
    labels = np.minimum(given[known].astype(np.int64), classes)
    pairs = truth[known].astype(np.int64) * (classes + 1) + labels
    return np.bincount(pairs, minlength=classes * (classes + 1)).reshape(classes, classes + 1)


class Kept:
    """A file of results: a header, then a line for every group of images, which a later run goes on with."""

    def __init__(
        self, folder: Path, data: DataSet, method: str, protocol: str, header: dict[str, Any], *, overwrite: bool
    ) -> None:
        made_folder(folder, "-o")
        self.path = folder / f"{data.name}_{method}_{protocol}.jsonl"
        self._header = header
        self._lines: dict[tuple[str, ...], dict[str, Any]] = {}
        self._weighed = False
        if self.path.exists() and not overwrite:
            self._take(read_lines(self.path))

    def _take(self, found: list[dict[str, Any]]) -> None:
        """Go on with what an earlier run found, if it found anything. Raises OutputError for another run's."""
        if len(found) < 2:
            return
        before = found[0]
        if other := [key for key in self._header if key != "weights" and before.get(key) != self._header[key]]:
            raise OutputError(
                f"{self.path} is of another run: {other[0]} was {in_short(before.get(other[0]))}, and is now "
                f"{in_short(self._header[other[0]])}; add --overwrite, or choose another -o"
            )
        self._header["weights"] = before.get("weights")
        self._lines = {tuple(line["images"]): line for line in found[1:]}

    def weigh(self, weights: dict[str, str | None]) -> None:
        """Keep the digests of loaded weights; what was there of another run is replaced only now.

        Raises OutputError where earlier images were seen with others.
        """
        if (self._lines or self._weighed) and self._header["weights"] != weights:
            raise OutputError(f"{self.path} was made with other weights; add --overwrite, or choose another -o")
        if not self._weighed:
            self._header["weights"], self._weighed = weights, True
            self._write()

    def _write(self) -> None:
        with whole(self.path) as part:
            part.write_text("".join(json.dumps(line) + "\n" for line in (self._header, *self._lines.values())))

    def has(self, names: Sequence[str]) -> bool:
        """Whether some images have been seen."""
        return tuple(names) in self._lines

    def check(self, names: Sequence[str], digests: Sequence[str]) -> None:
        """Refuse images or truth that have changed since they were seen. Raises OutputError."""
        before = self._lines[tuple(names)]["digests"]
        if changed := [name for name, one, other in zip(names, before, digests, strict=True) if one != other]:
            raise OutputError(
                f"{some(changed, 3)} has changed since {self.path} was made; add --overwrite, or choose another -o"
            )

    def add(self, names: Sequence[str], counted: Counted) -> None:
        """Keep what was found of some images."""
        line = {
            "images": list(names),
            "confusion": [_sparse(counts) for counts in counted.each],
            "sweep": [_sparse(counts) for counts in counted.swept],
            "seconds": round(counted.seconds, 3),
            "pixels": counted.pixels,
            "digests": counted.digests,
        }
        self._lines[tuple(names)] = line
        with self.path.open("a", encoding="utf-8") as file:
            file.write(json.dumps(line) + "\n")
            file.flush()
            os.fsync(file.fileno())

    def found(self, data: DataSet) -> Found:
        """All of it."""
        return _found(self._header, list(self._lines.values()), len(data.labels))


def _sparse(counts: Counts) -> list[list[int]]:
    """Rows, columns and numbers of what is not 0."""
    rows, cols = np.nonzero(counts)
    return [rows.tolist(), cols.tolist(), counts[rows, cols].tolist()]


def _dense(sparse: Sequence[Sequence[int]], classes: int) -> Counts:
    found = np.zeros((classes, classes + 1), np.int64)
    found[sparse[0], sparse[1]] = sparse[2]
    return found


def _found(header: dict[str, Any], lines: Sequence[dict[str, Any]], classes: int) -> Found:
    each = [_dense(sparse, classes) for line in lines for sparse in line["confusion"]]
    swept = {
        threshold: np.sum([_dense(line["sweep"][k], classes) for line in lines], axis=0)
        for k, threshold in enumerate(header["sweep"])
    }
    return Found(
        method=header["method"],
        protocol=header["protocol"],
        header=header,
        confusions=np.array(each),
        seconds=sum(line["seconds"] for line in lines),
        pixels=sum(line["pixels"] for line in lines),
        sweep=swept,
        files=hashlib.sha256("".join(d for line in lines for d in line["digests"]).encode()).hexdigest(),
    )


def read_lines(path: Path) -> list[dict[str, Any]]:
    """What a file of results holds, header first; a last line that a killed run left is not. Raises OutputError."""
    try:
        lines = path.read_text(encoding="utf-8").splitlines(keepends=True)
        found = [json.loads(line) for line in lines if line.endswith("\n")]
        wrong = not all(isinstance(each, dict) for each in found) or not all("images" in each for each in found[1:])
    except (OSError, ValueError):
        wrong = True
    if wrong:
        raise OutputError(f"{path} is damaged, or not ours; remove it, or choose another -o")
    return found


def results(folder: str | os.PathLike[str], data: DataSet) -> list[Found]:
    """What is there of a data set in a folder, of all methods. Raises OutputError."""
    found = []
    for path in sorted(Path(folder).glob(f"{glob.escape(data.name)}_*.jsonl")):
        lines = read_lines(path)
        same = len(lines) > 1 and lines[0].get("data_set") == data.name
        if same and lines[0].get("labels") == list(data.labels):
            once = {tuple(line["images"]): line for line in lines[1:]}
            found.append(_found(lines[0], list(once.values()), len(data.labels)))
    return found


def fingerprint(found: Found) -> str:
    """A short name of everything that could change a number."""
    return hashlib.sha256(f"{json.dumps(found.header, sort_keys=True)}{found.files}".encode()).hexdigest()[:12]
