"""The scenes of `geoovseg segment`: where their labels go, tiles as one, and one after the other."""

from __future__ import annotations

import json as jsonlib
import os
import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from geoovseg.cli.listing import listed
from geoovseg.cli.output import data, talk
from geoovseg.errors import GeoOVSegError, InterruptedRunError, NobodyListensError, UsageError, first_line, some
from geoovseg.settings import Settings

PARTLY = 3
"""Exit code of a scene with windows that could not be read."""


@dataclass(frozen=True, kw_only=True)
class Asked:
    """What the options say."""

    settings: Settings
    per_tile: str | None
    mosaic: bool
    dry_run: bool

    @property
    def output(self) -> str | None:
        """The label raster, or a folder."""
        return None if self.settings.output is None else os.fspath(self.settings.output)

    def check(self) -> None:
        """Refuse combinations that cannot work, before anything is opened. Raises UsageError."""
        if self.per_tile is None:
            return
        if not self.mosaic:
            raise UsageError("--per-tile cuts the labels of a mosaic; add --mosaic, or leave it away")
        if self.settings.shard is not None:
            raise UsageError("--per-tile needs whole labels: give it to `geoovseg merge`")
        if self.settings.view["gsd"] is not None:
            raise UsageError("--per-tile cuts on the tiles' own grids: with --gsd, add --grid scene")


@dataclass(frozen=True, kw_only=True)
class Task:
    """A scene to segment."""

    scene: str
    output: str | None
    overwrite: bool
    labels: str | None = None
    """where these will be, if `output` is only where a dry run looks whether that is possible"""
    tiles: tuple[str, ...] = ()
    """what the scene is made of, with --mosaic"""


@contextmanager
def tasks(arguments: Sequence[str], asked: Asked, *, quiet: bool = False) -> Iterator[list[Task]]:
    """What to segment, and into which label rasters: all of it settled, and refused, before the first scene.

    Raises UsageError, and for a mosaic what `as_one` raises.
    """
    asked.check()
    scenes = listed(arguments, quiet=quiet)
    if asked.mosaic:
        with _mosaic(scenes, asked) as task:
            yield [task]
    elif scenes == list(arguments) and len(scenes) == 1:
        yield [Task(scene=scenes[0], output=asked.output, overwrite=asked.settings.overwrite)]
    else:
        yield _several(scenes, asked)


def _several(scenes: Sequence[str], asked: Asked) -> list[Task]:
    """Tasks of scenes, each with labels of its own. Raises UsageError."""
    if asked.settings.confidence is not None:
        raise UsageError("--confidence names one file; with several scenes run them one by one")
    if asked.settings.vectors is not None:
        raise UsageError("--vectors names one file; with several scenes run them one by one, or `geoovseg vectorize`")
    if _is_file(asked.output):
        raise UsageError(f"-o {asked.output}: with several scenes, or a folder of them, the output is a folder")
    from geoovseg.labels.names import label_names

    folder, fresh = _folder(asked.output, asked.dry_run)
    overwrite = asked.settings.overwrite or fresh
    return [
        Task(scene=scene, output=str(Path(folder or name.parent, name.name)), overwrite=overwrite, labels=str(name))
        for scene, name in zip(scenes, label_names(scenes, asked.output), strict=True)
    ]


@contextmanager
def _mosaic(scenes: Sequence[str], asked: Asked) -> Iterator[Task]:
    """The tiles as one scene. Its VRT stays while parts of a run that did not finish need it."""
    from geoovseg.labels.names import output_names
    from geoovseg.tiles.cut import check_per_tile
    from geoovseg.tiles.join import as_one, vrt_of

    labels, fresh = _mosaic_labels(scenes, asked)
    vrt = vrt_of(labels)
    outputs = output_names(str(vrt), labels, asked.settings.confidence, asked.settings.work_dir)
    outputs.check(scenes, overwrite=asked.settings.overwrite or fresh, resume=True)
    if asked.per_tile is not None and not _folder(asked.per_tile, asked.dry_run, "--per-tile")[1]:
        check_per_tile(scenes, asked.per_tile, outputs.rasters, overwrite=asked.settings.overwrite)
    with tempfile.TemporaryDirectory() as passing:
        if asked.dry_run:
            vrt = Path(passing, vrt.name)
        mine = not vrt.exists()  # else another run may be reading it
        try:
            yield Task(
                scene=as_one(scenes, vrt),
                output=str(labels),
                overwrite=asked.settings.overwrite or fresh,
                labels=str(Path(asked.output or "", labels.name)) if fresh else None,
                tiles=tuple(scenes),
            )
            mine = True
        finally:
            if mine and not (asked.settings.shard or outputs.parts.exists()):
                vrt.unlink(missing_ok=True)


def _mosaic_labels(scenes: Sequence[str], asked: Asked) -> tuple[Path, bool]:
    """Where the labels of a mosaic go, and whether that folder is yet to be made."""
    if asked.output is not None and _is_file(asked.output):
        return Path(asked.output), False
    folder, fresh = _folder(asked.output, asked.dry_run)
    beside = Path(scenes[0]).parent if os.path.exists(scenes[0]) else Path()
    return Path(folder or beside) / "mosaic_labels.tif", fresh


def _is_file(output: str | None) -> bool:
    return output is not None and output.lower().endswith((".tif", ".tiff")) and not os.path.isdir(output)


def _folder(output: str | None, dry_run: bool, option: str = "-o") -> tuple[str | None, bool]:
    """The folder of outputs, made if it is not there, and whether it is yet to be made.

    That is so in a dry run, which then judges by where it would be made. Raises UsageError where it cannot be.
    """
    if output is None or os.path.isdir(output):
        return output, False
    if not dry_run:
        made_folder(output, option)
        return output, False
    there = Path(os.path.abspath(output))
    while not there.exists():
        there = there.parent
    if not there.is_dir():
        raise UsageError(f"{option} {output}: cannot make this folder, since {there} is a file")
    return str(there), True


def made_folder(path: str, option: str) -> None:
    """Make a folder that an option names, if it is not there. Raises UsageError."""
    try:
        os.makedirs(path, exist_ok=True)
    except OSError as error:
        raise UsageError(f"{option} {path}: cannot make this folder: {first_line(error)}") from error


def each(
    todo: Sequence[Task],
    run: Callable[[Task], int],
    *,
    json: bool,
    quiet: bool,
    announce: bool = True,
    done: Callable[[int], str] = "{} done".format,
) -> int:
    """Run on every scene; an error of one does not keep the others from it. Returns the first code that is not 0.

    Several are announced one by one, and end with a summary, unless it would say that all is well and nobody wants to
    hear that; `done` says in it how many are.
    """
    codes = []
    for number, task in enumerate(todo, start=1):
        if len(todo) > 1:
            talk(f"scene {number} of {len(todo)}: {task.scene}", quiet=quiet or not announce)
        codes.append(_one(task, run, json=json, alone=len(todo) == 1))
    worst = next(filter(None, codes), 0)
    if len(todo) > 1:
        talk(_summary(todo, codes, done(codes.count(0))), quiet=quiet and not worst)
    return worst


def _one(task: Task, run: Callable[[Task], int], *, json: bool, alone: bool) -> int:
    try:
        return run(task)
    except (InterruptedRunError, NobodyListensError):
        raise
    except GeoOVSegError as error:
        error.scene = task.scene
        if alone:
            raise
        if json:
            said = {"scene": task.scene, "error": str(error), "exit_code": error.exit_code}
            data(jsonlib.dumps(said, ensure_ascii=False))
        talk(f"error: {error}" if task.scene in str(error) else f"error: {task.scene}: {error}")
        return error.exit_code


def _summary(todo: Sequence[Task], codes: Sequence[int], done: str) -> str:
    """`7 scenes: 6 done, 1 failed: bad.tif`."""
    partly = [task.scene for task, code in zip(todo, codes, strict=True) if code == PARTLY]
    failed = [task.scene for task, code in zip(todo, codes, strict=True) if code not in (0, PARTLY)]
    said = [f"{len(todo)} scenes: {done}"]
    said += [f"{len(partly)} with unreadable windows: {some(partly)}"] if partly else []
    said += [f"{len(failed)} failed: {some(failed)}"] if failed else []
    return ", ".join(said)
