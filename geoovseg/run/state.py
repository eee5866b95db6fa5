"""A run on disk: its outputs, its parts, which of them are finished, and how it comes to an end."""

from __future__ import annotations

import hashlib
import json
import os
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rasterio.errors import RasterioError
from rasterio.windows import Window
from safetensors import SafetensorError
from safetensors.torch import load, save

from geoovseg.errors import GeoOVSegError, OutputError, first_line
from geoovseg.labels.kept_grid import keep_grid, kept_grid
from geoovseg.labels.names import Outputs, writing
from geoovseg.labels.parts import PartStore, open_store, remove_store
from geoovseg.labels.profile import LabelProfile
from geoovseg.labels.styles import LegendEntry
from geoovseg.labels.write import LabelWriter
from geoovseg.methods import Method
from geoovseg.prompts import templates
from geoovseg.rasters.ground import RasterGrid
from geoovseg.run.job import Job
from geoovseg.scene.scene import Scene
from geoovseg.windows.batch import TileBatch
from geoovseg.windows.plan import Panel, Part, TilePlan, runs, share

CLAIMS = 4
"""Groups of parts for every process of a crew: fewer borders to compute twice, or work shared out more evenly."""
WAIT = 0.5
"""Seconds between looks at what the others of a crew have finished."""
PREPARED = "prepared.safetensors"
"""What the method learned from the scene before the first window."""
PANELS = "panels.json"
DAMAGE = (
    json.JSONDecodeError, UnicodeDecodeError, KeyError, TypeError, FileNotFoundError, RasterioError, SafetensorError,
)  # fmt: skip
"""What reading a folder of parts raises when it is not as it was written."""
COUNTED = ("windows", "skipped_windows")
"""What a run record says only when the run is over."""


@dataclass(frozen=True, kw_only=True)
class Run:
    """All parts of a run, and the ones to compute here."""

    outputs: Outputs
    store: PartStore
    writer: LabelWriter
    parts: tuple[Part, ...]
    mine: tuple[Part, ...]
    """the share of this process"""
    kept: tuple[Part, ...]
    """parts of it that were finished before"""
    together: bool = False
    """whether other processes compute other parts, so that `merge` or another one makes the outputs"""
    crew: int = 0
    """how many processes share the parts among themselves; none if this one is alone"""

    @property
    def todo(self) -> list[tuple[Part, ...]]:
        """Runs of parts to compute in one go each."""
        return runs(part for part in self.mine if part not in self.kept)

    def claims(self) -> Iterator[tuple[Part, ...]]:
        """Runs of parts, one after the other: all that are to do, or in a crew those that no other has taken.

        A crew's member waits until all parts are finished, and takes over what another left unfinished by dying;
        while it waits, an empty run now and then lets it be stopped.
        """
        if not self.crew:
            yield from self.todo
            return
        size = -(-len(self.mine) // (CLAIMS * self.crew))
        groups = [self.mine[n : n + size] for n in range(0, len(self.mine), size)]
        while not all(self.store.has(part) for part in self.mine):
            worked = False
            for number, group in enumerate(groups):
                if all(self.store.has(part) for part in group):
                    continue
                with self.store.claimed(number) as granted:
                    if granted:
                        worked = True
                        yield from runs(part for part in group if not self.store.has(part))
            if not worked:
                time.sleep(WAIT)
                yield ()

    def prepare(self, method: Method, read: Callable[[Window], TileBatch], shape: tuple[int, int]) -> None:
        """Let a method look at the scene, once for all processes and resumptions of the run."""
        if not (self.store.folder / PREPARED).exists():
            found = save(dict(method.prepare(read, shape)))
            with writing(self.outputs.labels):
                self.store.write_once(PREPARED, found)
        with _whole(self.store.folder):
            method.use(load((self.store.folder / PREPARED).read_bytes()))

    def totals(self) -> dict[str, int]:
        """Windows of the finished parts of this share: all, without data, outside the area, that cannot be read."""
        summaries = [self.store.summary(part) for part in self.mine if self.store.has(part)]
        return {key: sum(s.get(key, 0) for s in summaries) for key in ("windows", "skipped", "outside", "failed")}

    def legend(self) -> list[LegendEntry]:
        """Codes, names, colours and pixels."""
        return self.writer.legend([part for part in self.mine if self.store.has(part)])

    def commit(self) -> None:
        """Put the outputs together and remove the parts. Raises OutputError when some are missing."""
        missing = [part for part in self.parts if not self.store.has(part)]
        if missing:
            raise OutputError(
                f"{len(missing)} of {len(self.parts)} parts are missing in {self.store.folder}, the first "
                f"{missing[0].name}; compute them with --resume or the shards they belong to"
            )
        totals = self.totals()
        record = {**self.store.journal["record"], "windows": totals["windows"], "skipped_windows": totals["skipped"]}
        self.writer.commit(json.dumps(record, ensure_ascii=False), self.parts)


@contextmanager
def open_run(
    outputs: Outputs,
    scene: Scene,
    job: Job,
    *,
    resume: bool,
    overwrite: bool,
    shard: tuple[int, int] | None = None,
    crew: int = 0,
) -> Iterator[Run]:
    """The run of a job: new, or with `resume`, `shard` or `crew` the one whose parts are there.

    Leaving it before its outputs are whole keeps finished parts; if there is none, nothing is left. `overwrite` removes
    the parts of a run that did not finish, unless this one joins them.
    """
    together = shard is not None or crew > 0
    with _store(outputs, scene, job, join=resume or together, overwrite=overwrite, shared=together) as store:
        layout = LabelProfile(_grid(scene), tuple((c.name, c.colour) for c in job.vocabulary.classes))
        parts = job.plan.parts(_fixed(store, layout.grid, job.panels, outputs))
        mine = parts if shard is None else share(parts, *shard)
        kept = tuple(part for part in mine if store.has(part))
        writer = LabelWriter(outputs, layout, store)
        run = Run(
            outputs=outputs, store=store, writer=writer, parts=parts, mine=mine, kept=kept, together=together, crew=crew
        )
        try:
            yield run
        finally:
            writer.close()
            if writer.finished or (not together and not any(store.has(part) for part in parts)):
                store.remove()


@contextmanager
def _store(
    outputs: Outputs, scene: Scene, job: Job, *, join: bool, overwrite: bool, shared: bool
) -> Iterator[PartStore]:
    """The locked store of a run; what goes wrong with it is an OutputError, but not what goes wrong in its use."""
    with ExitStack() as stack:
        with writing(outputs.labels), _whole(outputs.parts):
            if overwrite and not join and outputs.parts.exists():
                remove_store(outputs.parts)
            said = journal(outputs, scene, job)
            store = stack.enter_context(open_store(outputs.parts, said, resume=join, shared=shared))
        yield store


def _fixed(store: PartStore, grid: RasterGrid, panels: Sequence[Panel], outputs: Outputs) -> tuple[Panel, ...]:
    """Keep with the parts what `merge` needs; returns the panels of whoever came first, which follow from memory."""
    with writing(outputs.labels), _whole(store.folder):
        keep_grid(store, grid)
        said = json.dumps([[panel.col_off, panel.width] for panel in panels]).encode()
        return tuple(Panel(*panel) for panel in json.loads(store.write_once(PANELS, said)))


@contextmanager
def open_finished(folder: Path, *, overwrite: bool) -> Iterator[Run]:
    """The run in a folder of parts, to be put together without its scene. Raises OutputError where there is none."""
    folder = folder.resolve()  # its parent is where the outputs go, also when it is given as `.` or by a link
    store = PartStore(folder)
    with _whole(folder):
        outputs, layout, parts = _finished(store)
    outputs.check([], overwrite=overwrite, resume=True)
    writer = LabelWriter(outputs, layout, store)
    with store.locked():
        yield Run(outputs=outputs, store=store, writer=writer, parts=parts, mine=parts, kept=parts)
        if writer.finished:
            store.remove()


@contextmanager
def _whole(folder: Path) -> Iterator[None]:
    """What cannot be understood in here is damage to the folder of parts."""
    try:
        yield
    except GeoOVSegError:
        raise
    except DAMAGE as error:
        raise OutputError(
            f"{folder} is damaged: {first_line(error)}; remove that folder and compute the run again"
        ) from error


def _finished(store: PartStore) -> tuple[Outputs, LabelProfile, tuple[Part, ...]]:
    """What a folder of parts says of itself."""
    folder, said = store.folder, store.journal
    named = said["outputs"]
    labels = Path(named["path"]) if named["path"] else folder.parent / named["labels"]
    confidence = Path(os.path.normpath(labels.parent / named["confidence"])) if named["confidence"] else None
    outputs = Outputs(labels, confidence, folder.parent if named["path"] else None)
    shape = (said["scene"]["height"], said["scene"]["width"])
    layout = LabelProfile(kept_grid(store, shape), tuple((n, c) for n, _, c in said["record"]["classes"]))
    plan = TilePlan(
        height=layout.grid.height,
        width=layout.grid.width,
        tile=tuple(said["record"]["tile"]),
        stride=said["record"]["stride"],
    )
    parts = plan.parts(Panel(*p) for p in json.loads((folder / PANELS).read_text()))
    return outputs, layout, parts


def journal(outputs: Outputs, scene: Scene, job: Job) -> dict[str, Any]:
    """What must be the same for parts to be of one run: words, weights, settings, versions, batches, and the scene."""
    record = json.loads(job.record(scene, skipped=0).to_json())
    height, width = scene.shape
    return {
        "scene": {
            "files": {
                os.path.relpath(file, os.path.dirname(scene.path) or "."): _stamp(file) for file in _pixels_of(scene)
            },
            "height": height,
            "width": width,
            "crs": scene.crs.to_wkt() if scene.crs else None,
            "transform": list(scene.transform)[:6],
        },
        "outputs": {
            "labels": outputs.labels.name,
            "path": str(outputs.labels.resolve()) if outputs.work_dir else None,
            "confidence": _from_here(outputs.confidence, outputs.labels) if outputs.confidence else None,
        },
        "batch": job.in_flight.planned,
        "aoi": job.area.digest if job.area else None,
        "record": {key: value for key, value in record.items() if key not in COUNTED},
        "sentences": hashlib.sha256("\n".join(templates(job.settings.templates)).encode()).hexdigest()[:16],
    }


def _pixels_of(scene: Scene) -> list[str]:
    """The files of a scene, without those that viewers write statistics into."""
    return sorted(file for file in set(scene.files) if not file.endswith(".aux.xml"))


def _stamp(file: str) -> list[int] | None:
    """Size and time of a file on disk."""
    try:
        found = os.stat(file)
    except OSError:  # remote
        return None
    return [found.st_size, found.st_mtime_ns]


def _from_here(path: Path, labels: Path) -> str:
    """A path as seen from the labels, so that all can be moved together."""
    return os.path.relpath(path.resolve(), labels.parent.resolve())


def _grid(scene: Scene) -> RasterGrid:
    height, width = scene.shape
    return RasterGrid(height=height, width=width, crs=scene.crs, transform=scene.transform)
