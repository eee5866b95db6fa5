"""A run whose parts become a store of features."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from geoovseg.errors import OutputError, SceneError, UsageError, in_short
from geoovseg.features.store import FEATURES as ARRAY
from geoovseg.features.store import REGIONS as IDS
from geoovseg.features.store import SIDE, VALID, VALID_SIDE, About, about_of, create, finish
from geoovseg.files import BESIDE, STORE, StrPath, bench, is_store, placed
from geoovseg.labels.names import Outputs, writing
from geoovseg.labels.parts import PartStore
from geoovseg.labels.profile import LabelProfile
from geoovseg.labels.scene_names import FEATURES, place_of
from geoovseg.run.feature_parts import MASK, REGIONS, chunk_of, mask_of, pixels_of, regions_of
from geoovseg.run.finished import chosen
from geoovseg.run.state import Run, as_written, merging, outputs_of
from geoovseg.run.stored import below_of
from geoovseg.settings import Settings
from geoovseg.windows.plan import Part, parts_of


@dataclass(frozen=True)
class FeatureOutputs(Outputs):
    """Where features go; `labels` is the store."""

    @property
    def are_there(self) -> bool:
        """Whether an earlier run came to its end."""
        return self.labels.exists() and not self.parts.exists()

    def check(self, sources: Sequence[str], *, overwrite: bool, resume: bool = False, finished: bool = False) -> None:
        """Refuse what would lose something, and what cannot be written. Raises UsageError and OutputError."""
        with writing(self.labels):
            if self.labels.suffix.lower() != STORE:
                raise UsageError(f"the output {self.labels} must end in {STORE}")
            if not self.labels.parent.is_dir() or not os.access(self.labels.parent, os.W_OK):
                raise OutputError(f"the folder {self.labels.parent} does not exist, or cannot be written to")
            if self.labels.exists() and not (overwrite or finished):
                raise OutputError(f"{self.labels} exists; add --overwrite to replace it, or choose another -o")
            if self.labels.exists() and not is_store(self.labels):
                raise OutputError(f"{self.labels} is no store of features; choose another name with -o")
            self._check_parts(overwrite=overwrite, resume=resume)


def feature_names(scene: str, output: StrPath | None = None, work_dir: StrPath | None = None) -> FeatureOutputs:
    """`<stem>_features.zarr` beside the scene or in the folder `output`, or the store `output`."""
    folder, stem = place_of(scene)
    name = f"{stem}{FEATURES}{STORE}"
    return FeatureOutputs(placed(output or BESIDE, folder / stem, name), None, Path(work_dir) if work_dir else None)


def kept_on_the_way(scene: str, labels: Path, settings: Settings) -> Path:
    """Where `--features` keeps those of a scene whose labels go there."""
    return placed(settings.features or BESIDE, labels, feature_names(scene).labels.name)


def are_made_of(store: Path, wanted: About, settings: Settings) -> bool:
    """Whether the features that are there are what a run would make; others may be replaced with `overwrite`.

    Raises OutputError where they may not, which says why.
    """
    try:
        _check_made_of(store, wanted, "--features" if settings.features is not None else "-o")
    except OutputError:
        if settings.overwrite:
            return False
        raise
    return True


def _check_made_of(store: Path, wanted: About, option: str) -> None:
    try:
        found = about_of(store)
    except SceneError as error:
        raise OutputError(f"{error}; or add --overwrite to replace it") from error
    there, made = ({**asdict(about), "failed_windows": 0} for about in (found, wanted))
    if (old := _chosen(there)) != (new := _chosen(made)):
        name = next(name for name in new if old.get(name) != new[name])
        raise OutputError(
            f"{store} is there, but is not what this run would make: {name} was {in_short(old.get(name))} and is now "
            f"{in_short(new[name])}; add --overwrite to replace it, or choose another name with {option}"
        )


def _chosen(said: dict[str, Any]) -> dict[str, Any]:
    """What decided features, as JSON has it."""
    record, _ = said.pop("record"), said.pop("scale")
    own = {name: value for name, value in record["settings"].items() if name not in below_of(record["method"])}
    return chosen(json.loads(json.dumps({**record, **said, "settings": own})))


@dataclass(kw_only=True)
class FeatureRun(Run):
    """All parts of a run that keeps features."""

    about: About

    def assemble(self) -> None:
        """Put the store together. Raises OutputError when parts are missing."""
        self._check_whole()
        target = self.outputs.labels
        said = replace(self.about, failed_windows=self.totals()["failed"])
        with writing(target), bench(target) as work:
            folder = work / target.name
            root = create(folder, said)
            self._place_chunks(folder)
            self._write(root[VALID], said, MASK, mask_of)
            if said.regions:
                self._write(root[IDS], said, REGIONS, regions_of)
            finish(root, folder, said)
            if target.exists():
                target.rename(work / "old")
            folder.rename(target)
        self.assembled = True

    def _place_chunks(self, folder: Path) -> None:
        """Give the chunks of all parts a second name in the store; where links cannot be, copy them."""
        for part in self.parts:
            for end in self.store.summary(part)["sha256"]:
                if end in (MASK, REGIONS):
                    continue
                place = folder / chunk_of(end)
                if not place.resolve().is_relative_to((folder / ARRAY).resolve()):
                    raise OutputError(f"{self.store.folder} is damaged: it has a chunk called {chunk_of(end)}")
                place.parent.mkdir(parents=True, exist_ok=True)
                try:
                    os.link(self.store.raster(part, end), place)
                except OSError:
                    shutil.copyfile(self.store.raster(part, end), place)

    def _write(self, array: Any, said: About, name: str, read: Callable[[Part, bytes], NDArray[Any]]) -> None:
        """Write what parts know of pixels, a row of chunks of a panel at a time."""
        pixels = {part: pixels_of(part, said) for part in self.parts}
        for panel in dict.fromkeys(here.panel for here in pixels.values()):
            columns = slice(panel.col_off, panel.col_off + panel.width)
            for top in range(0, said.height, VALID_SIDE):
                band = np.zeros((min(VALID_SIDE, said.height - top), panel.width), array.dtype)
                for part, here in pixels.items():
                    first, last = max(here.row_off, top), min(here.end, top + len(band))
                    if here.panel == panel and first < last:
                        known = read(here, self.store.raster(part, name).read_bytes())
                        band[first - top : last - top] = known[first - here.row_off : last - here.row_off]
                array[top : top + len(band), columns] = band


@contextmanager
def open_finished_features(folder: Path, output: Path | None, *, overwrite: bool = False) -> Iterator[FeatureRun]:
    """The run in a folder of parts of features, to be put together without its scene; see `state.open_finished`."""
    folder = folder.resolve()
    store = PartStore(folder)
    with as_written(folder):
        said, stated = store.journal, outputs_of(store, output)
        about = About.of(said["features"], str(folder))
        parts = parts_of(about.rows, store.panels(about.columns), SIDE)
        profile = LabelProfile(store.grid((about.height, about.width)), ())
    outputs = FeatureOutputs(stated.labels, None, stated.work_dir)
    run = FeatureRun(outputs=outputs, store=store, profile=profile, parts=parts, mine=parts, kept=parts, about=about)
    with merging(run, overwrite=overwrite):
        yield run


def holds_features(folder: Path) -> bool:
    """Whether parts are of features. Raises OutputError where the folder holds no run."""
    return "features" in PartStore(folder).journal
