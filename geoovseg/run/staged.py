"""Outputs on object stores: a run makes them in a folder here, whole, and then they are put there, labels last."""

from __future__ import annotations

import hashlib
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from geoovseg.errors import OutputError, UsageError
from geoovseg.features.store import moved
from geoovseg.files import BESIDE, is_object
from geoovseg.labels.folders import stem_of
from geoovseg.labels.names import output_names, side_files
from geoovseg.models.weights import cache_dir
from geoovseg.rasters.objects import parted, put_all, read, refuse, told, tree
from geoovseg.run.feature_run import feature_names
from geoovseg.run.result import EncodeResult, SegmentResult
from geoovseg.settings import Settings

KINDS = ("output", "confidence", "scores", "vectors")
"""Choices that may be addresses on a store."""


@dataclass
class Stage:
    """Where the outputs of a run are made, and where they go from there."""

    settings: Settings
    """with names here in place of addresses"""
    places: dict[Path, str] = field(default_factory=dict)
    """folders on stores by folders here"""
    fetched: dict[Path, tuple[int, int]] = field(default_factory=dict)
    """what was there already, and is here to be looked at; with the time and size it came with"""

    def published(self, result: SegmentResult) -> SegmentResult:
        """Put all outputs that belong on stores there; the labels last, whose name stands for all."""
        if not self.places:
            return result
        labels = Path(result.labels)
        files = [(path, f"{url}/{path.name}") for folder, url in self.places.items() for path in _files(folder)]
        files = [(path, url) for path, url in files if self.fetched.get(path) != _stamp(path)]
        put_all(sorted(files, key=lambda file: file[0] == labels))
        named: dict[str, Any] = {key: getattr(result, key) for key in ("labels", "confidence", "scores", "vectors")}
        return replace(result, **{key: self._there(path) for key, path in named.items()})

    def published_store(self, result: EncodeResult) -> EncodeResult:
        """Put a store there, the file that makes it one last."""
        folder = Path(result.features)
        for here, url in self.places.items():
            moved(folder, os.path.abspath(result.scene) if os.path.exists(result.scene) else result.scene)
            put_all(tree(folder, f"{url}/{folder.name}", "zarr.json"))
            return replace(result, features=f"{url}/{folder.relative_to(here)}")
        return result

    def _there(self, path: str | None) -> Any:
        """Where an output is in the end."""
        url = None if path is None else self.places.get(Path(path).parent)
        return path if url is None or path is None else f"{url}/{Path(path).name}"

    def fetch(self, here: Path, url: str) -> None:
        """Bring an output of an earlier run here, with what lies beside it, for the run to see whether it is done."""
        for path in (here, *side_files(here)[:2]):
            with suppress(FileNotFoundError):
                path.write_bytes(read(f"{url}/{path.name}"))
                self.fetched[path] = _stamp(path)


def _stamp(path: Path) -> tuple[int, int]:
    about = path.stat()
    return about.st_mtime_ns, about.st_size


def _files(folder: Path) -> Iterator[Path]:
    return (path for path in sorted(folder.iterdir()) if path.is_file())


@contextmanager
def staged(scene: str, settings: Settings, *, features: bool = False) -> Iterator[Stage]:
    """A folder for the outputs that belong on stores, kept with its parts where the run does not come to its end.

    Raises OutputError where one is there already, UsageError for what cannot be there.
    """
    refuse("--work-dir", settings.work_dir)
    there = {kind: str(value) for kind in KINDS if is_object(str(value := getattr(settings, kind) or ""))}
    if not there:
        yield Stage(settings)
        return
    _check(settings, features=features)
    home = cache_dir() / "staged" / hashlib.sha256(repr(sorted(there.items())).encode()).hexdigest()[:16]
    stage = Stage(settings)
    own: dict[str, Any] = {}
    for kind, url in there.items():
        folder, name = parted(url) if Path(url).suffix else (url.rstrip("/"), _usual(scene, kind, features))
        exists = not settings.overwrite and told(f"{folder}/{name}/zarr.json" if features else f"{folder}/{name}")
        if exists and not settings.skip_finished:
            raise OutputError(f"{folder}/{name} exists; add --overwrite, or choose another name")
        (home / kind).mkdir(parents=True, exist_ok=True)
        if exists:
            stage.fetch(home / kind / name, folder)
        stage.places[home / kind] = folder
        own[kind] = str(home / kind / name)
    stage.settings = replace(settings, **own)
    yield stage
    shutil.rmtree(home, ignore_errors=True)


def _check(settings: Settings, *, features: bool) -> None:
    """Refuse ways of going on that need the outputs here. Raises UsageError."""
    if settings.shard is not None or (features and settings.skip_finished):
        option = "--shard" if settings.shard is not None else "--skip-finished"
        raise UsageError(f"{option} needs outputs on this machine, and these are to go to an object store")
    if settings.features is not None and settings.features != BESIDE:
        refuse("--features", settings.features)


def _usual(scene: str, kind: str, features: bool) -> str:
    """What an output is called where only its folder is said."""
    if features:
        return feature_names(scene).labels.name
    beside = output_names(scene, confidence=BESIDE, scores=BESIDE)
    if kind == "vectors":
        return f"{stem_of(str(beside.labels))}_classes.gpkg"
    return str(getattr(beside, "labels" if kind == "output" else kind).name)
