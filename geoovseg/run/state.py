"""A run on disk: its outputs, its parts, which of them are finished, and how it comes to an end."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from rasterio.errors import RasterioError
from safetensors import SafetensorError

from geoovseg.errors import GeoOVSegError, OutputError, first_line
from geoovseg.files import sweep
from geoovseg.labels.areas import Piece
from geoovseg.labels.journal import check_place
from geoovseg.labels.names import Outputs, writing
from geoovseg.labels.parts import FinishedPart, PartStore, open_store, remove_store
from geoovseg.labels.profile import LabelProfile
from geoovseg.labels.record import VERSION, RunRecord
from geoovseg.labels.write import assemble, pieces_of
from geoovseg.prompts import digest
from geoovseg.rasters.ground import Box, wkt_of
from geoovseg.run.feature_parts import about_of_job
from geoovseg.run.job import Job, known_by, notes_of
from geoovseg.scene.scene import Scene
from geoovseg.windows.plan import Part, parts_of, runs, share

DAMAGE = (
    ValueError, LookupError, TypeError, AttributeError, RecursionError, FileNotFoundError, RasterioError,
    SafetensorError,
)  # fmt: skip
"""What reading a folder of parts raises when it is not as it was written."""
COUNTED = ("version", "windows", "skipped_windows", "threads")
"""What a run record says only when the run is over, or says only of itself."""


@dataclass(kw_only=True)
class Run:
    """All parts of a run, and the ones to compute here."""

    outputs: Outputs
    store: PartStore
    profile: LabelProfile
    parts: tuple[Part, ...]
    mine: tuple[Part, ...]
    """the share of this process and its workers"""
    kept: tuple[Part, ...]
    """parts of it that were finished before"""
    shared: bool = False
    """whether others compute other parts, so that `merge` makes the outputs"""
    assembled: bool = False

    @property
    def todo(self) -> list[tuple[Part, ...]]:
        """Runs of neighbouring parts to compute."""
        return runs(part for part in self.mine if part not in self.kept)

    def groups(self, workers: int) -> list[tuple[Part, ...]]:
        """What to hand out: runs of neighbouring parts, one for each worker; who is done first takes of the others'."""
        if workers == 1:
            return self.todo
        size = max(1, -(-sum(map(len, self.todo)) // workers))
        return [run[n : n + size] for run in self.todo for n in range(0, len(run), size)]

    def keep(self, done: FinishedPart) -> None:
        """Keep a finished part. Raises OutputError."""
        with writing(self.outputs.labels):
            self.store.commit(done)

    def keep_prepared(self, found: bytes) -> bytes:
        """Keep what the method learned from the scene; returns what the first of several shards kept."""
        with writing(self.outputs.labels):
            return self.store.keep_prepared(found)

    @property
    def finished(self) -> list[Part]:
        """Parts of this share that are there."""
        return [part for part in self.mine if self.store.has(part)]

    def totals(self) -> dict[str, int]:
        """Windows of the finished parts of this share: all, without data, outside the area, that cannot be read."""
        summaries = [self.store.summary(part) for part in self.finished]
        return {key: sum(s.get(key, 0) for s in summaries) for key in ("windows", "skipped", "outside", "failed")}

    def pieces(self) -> list[Piece]:
        """How many pixels of the finished parts of this share have each code."""
        return pieces_of(self.store, self.finished)

    def assemble(self) -> None:
        """Put the outputs together. Raises OutputError when parts are missing."""
        self._check_whole()
        with as_written(self.store.folder):
            record, box = self._record(), self.store.journal.get("box")
            written = Box(*map(int, box)) if box else None
        assemble(self.outputs, self.profile, self.store, record.to_json(), self.parts, written)
        self.assembled = True

    def _check_whole(self) -> None:
        """Refuse to go on without parts. Raises OutputError."""
        missing = [part for part in self.parts if not self.store.has(part)]
        if missing:
            raise OutputError(
                f"{len(missing)} of {len(self.parts)} parts are missing in {self.store.folder}, the first "
                f"{missing[0].name}; compute them with --resume or the shards they belong to"
            )

    def _record(self) -> RunRecord:
        """The run record, now that all is counted."""
        totals = self.totals()
        record = RunRecord.from_json(json.dumps(self.store.journal["record"]), str(self.store.folder))
        counted: dict[str, Any] = {"windows": totals["windows"], "skipped_windows": totals["skipped"]}
        notes = (*record.notes, *notes_of(self.store.prepared))
        return replace(record, version=VERSION, threads=self._threads(), notes=notes, **counted)

    def _threads(self) -> tuple[int, ...]:
        """Numbers of threads that parts were computed with; parts of older versions do not say."""
        said = (self.store.summary(part).get("threads") for part in self.parts)
        return tuple(sorted({int(number) for number in said if number is not None}))


@contextmanager
def open_run(outputs: Outputs, scene: Scene, job: Job, kind: Callable[..., Run] = Run) -> Iterator[Run]:
    """The run of a job, of some kind: new, or with `resume` or `shard` the one whose parts are there.

    Leaving it before its outputs are whole keeps finished parts; if there is none, nothing is left. `overwrite` removes
    the parts of a run that did not finish, unless this one joins them.
    """
    ours = not outputs.parts.exists()
    try:
        with _store(outputs, scene, job) as store:
            run, ours = _run(outputs, scene, job, store, kind), True
            yield run
            if run.assembled or not (run.shared or run.finished):
                store.remove()
    except BaseException:  # an interrupt too, whenever it comes
        if ours and job.settings.shard is None and not any(outputs.parts.glob("part_*.json")):
            with suppress(OSError):  # another process may be at work in it now
                remove_store(outputs.parts)
        raise


def clear(outputs: Outputs) -> None:
    """Remove what a run left that was killed when its labels had their names."""
    for target in (outputs.labels, outputs.parts):
        sweep(target)
    if outputs.parts.exists():
        with suppress(OutputError):  # another process is at work in it, or it is none of ours
            remove_store(outputs.parts)


def _run(outputs: Outputs, scene: Scene, job: Job, store: PartStore, kind: Callable[..., Run]) -> Run:
    """The run whose parts are in a store, with what `merge` needs kept there."""
    profile, shard = job.profile(scene), job.settings.shard
    with writing(outputs.labels):
        store.keep_grid(profile.grid)
    with writing(outputs.labels), as_written(store.folder):
        parts = job.parts(store.fix_panels(job.layout.panels))
    mine = parts if shard is None else share(parts, *shard)
    kept = tuple(part for part in mine if store.has(part))
    return kind(
        outputs=outputs, store=store, profile=profile, parts=parts, mine=mine, kept=kept, shared=shard is not None
    )


@contextmanager
def _store(outputs: Outputs, scene: Scene, job: Job) -> Iterator[PartStore]:
    """The locked store of a run; what goes wrong with it is an OutputError, but not what goes wrong in its use."""
    shared = job.settings.shard is not None
    join = job.settings.resume or shared
    with ExitStack() as stack:
        with writing(outputs.labels), as_written(outputs.parts):
            if job.settings.overwrite and not join and outputs.parts.exists():
                remove_store(outputs.parts)
            said = journal(outputs, scene, job)
            store = stack.enter_context(open_store(outputs.parts, said, resume=join, shared=shared))
        yield store


@contextmanager
def open_finished(
    folder: Path,
    *,
    output: Path | None = None,
    confidence: Path | None = None,
    scores: Path | None = None,
    overwrite: bool = False,
) -> Iterator[Run]:
    """The run in a folder of parts, to be put together without its scene.

    Outputs go beside the folder, under the names that it states, or where they are said to go. Raises OutputError where
    there is no run, or its outputs would go elsewhere.
    """
    folder = folder.resolve()  # its parent is where the outputs go, also when it is given as `.` or by a link
    store = PartStore(folder)
    with as_written(folder):
        outputs = outputs_of(store, output, confidence, scores)
        profile, parts = _finished(store)
    run = Run(outputs=outputs, store=store, profile=profile, parts=parts, mine=parts, kept=parts)
    with merging(run, overwrite=overwrite):
        yield run


@contextmanager
def merging(run: Run, *, overwrite: bool) -> Iterator[None]:
    """In here a run whose parts are finished is put together, by nobody else; then its parts go."""
    run.outputs.check([], overwrite=overwrite, resume=True)
    with run.store.locked():
        yield
        if run.assembled:
            run.store.remove()


@contextmanager
def as_written(folder: Path) -> Iterator[None]:
    """What cannot be understood in here is damage to the folder of parts."""
    try:
        yield
    except GeoOVSegError:
        raise
    except DAMAGE as error:
        raise OutputError(
            f"{folder} is damaged: {first_line(error)}; remove that folder and compute the run again"
        ) from error


def outputs_of(
    store: PartStore, output: Path | None, confidence: Path | None = None, scores: Path | None = None
) -> Outputs:
    """Where the outputs of a folder of parts go. Raises OutputError where its word alone would lead elsewhere."""
    named, home = store.journal["outputs"], store.folder.parent
    stated = Path(named["path"] or home / named["labels"])
    labels = output or _beside(home, stated, "-o")
    found: dict[str, Path | None] = {}
    for name, given in (("confidence", confidence), ("scores", scores)):
        if said := named.get(name):
            path = Path(os.path.normpath(stated.parent / said))
            found[name] = given or _beside(stated.parent if output else home, path, f"--{name}")
    return Outputs(labels, work_dir=home if named["path"] else None, **found)


def _beside(home: Path, stated: Path, option: str) -> Path:
    """A path that a folder of parts states, if it leads beside that folder."""
    if stated.parent.resolve() != home.resolve():
        raise OutputError(
            f"the run wants to write {stated}, which is not beside its parts; say so with {option} {stated}, or choose "
            "another name"
        )
    return stated


def _finished(store: PartStore) -> tuple[LabelProfile, tuple[Part, ...]]:
    """What a folder of parts says of itself."""
    folder, said = store.folder, store.journal
    record = RunRecord.from_json(json.dumps(said["record"]), str(folder))
    grid = store.grid((said["scene"]["height"], said["scene"]["width"]))
    check_place(grid, said["scene"])
    profile = LabelProfile(grid, record.colours, bool(record.background))
    return profile, parts_of(grid.height, store.panels(grid.width))


def journal(outputs: Outputs, scene: Scene, job: Job) -> dict[str, Any]:
    """What must be the same for parts to be of one run: words, weights, settings, versions, batches, and the scene."""
    files, checked_by, own_digest = known_by(scene)
    said = replace(job.record(scene), scene_checked_by=checked_by, scene_identity=own_digest)
    record = json.loads(said.to_json())
    height, width = scene.outputs.shape
    return {
        "scene": {
            "files": files,
            "height": height,
            "width": width,
            "crs": wkt_of(scene.crs),
            "transform": list(scene.outputs.transform)[:6],
        },
        "outputs": {
            "labels": outputs.labels.name,
            "path": str(outputs.labels.resolve()) if outputs.work_dir else None,
            "confidence": _from_here(outputs.confidence, outputs.labels) if outputs.confidence else None,
            "scores": _from_here(outputs.scores, outputs.labels) if outputs.scores else None,
        },
        "box": None if job.features else job.box(scene),
        "batch": job.facts.planned,
        "record": {key: value for key, value in record.items() if key not in COUNTED},
        "sentences": "" if job.features else digest(job.settings.templates)[:16],
        **({"features": asdict(about_of_job(scene, job, outputs.labels))} if job.features else {}),
    }


def _from_here(path: Path, labels: Path) -> str:
    """A path as seen from the labels, so that all can be moved together."""
    return os.path.relpath(path.resolve(), labels.parent.resolve())
