"""The scenes of `geoovseg segment`: where their labels go, tiles as one, and one after the other."""

from __future__ import annotations

import json as jsonlib
import os
import warnings
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from contextvars import copy_context
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from geoovseg.cli.listing import as_given, listed
from geoovseg.cli.output import data, talk
from geoovseg.errors import (
    GeoOVSegError,
    GeoOVSegWarning,
    InterruptedRunError,
    NobodyListensError,
    UsageError,
    printable,
    some,
)
from geoovseg.files import BESIDE, StrPath, is_folder, is_object, made_folder, names_folder
from geoovseg.network import public
from geoovseg.settings import Settings

PARTLY = 3
"""Exit code of a scene with windows that could not be read."""


@dataclass(frozen=True, kw_only=True)
class Asked:
    """What the options say."""

    settings: Settings
    per_tile: str | None
    mosaic: bool
    stack: bool
    dry_run: bool
    assets: tuple[str, ...] = ()
    """of STAC items"""
    stac: str | None = None
    """the folder that items of labels go to"""

    @property
    def output(self) -> str | None:
        """The label raster, or a folder."""
        return None if self.settings.output is None else os.fspath(self.settings.output)

    def check(self) -> None:
        """Refuse combinations that cannot work, before anything is opened. Raises UsageError."""
        if self.assets and (self.mosaic or self.stack):
            raise UsageError("--asset names what items of STAC have; leave --mosaic and --stack away")
        if self.stac is not None and self.settings.shard is not None:
            raise UsageError("--stac needs whole labels: leave --shard away")
        if self.mosaic and self.stack:
            raise UsageError("--mosaic joins tiles and --stack joins bands; choose one of them")
        if self.per_tile is None:
            return
        if not self.mosaic:
            raise UsageError("--per-tile cuts the labels of a mosaic; add --mosaic, or leave it away")
        if self.settings.shard is not None:
            raise UsageError("--per-tile needs whole labels: give it to `geoovseg merge`")
        if self.settings.crop:
            raise UsageError("--per-tile cuts whole labels; leave --crop away")
        if self.settings.gsd is not None and self.settings.grid == "working":
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
    bands: tuple[str, ...] = ()
    """what it is made of, with --stack"""
    item: Mapping[str, Any] | None = None
    """what a STAC item says of it"""
    named: str | None = None
    """the scene of tiles or bands, if `scene` has a passing place in a dry run"""


@contextmanager
def tasks(arguments: Sequence[str], asked: Asked, *, quiet: bool = False) -> Iterator[list[Task]]:
    """What to segment, and into which label rasters: all of it settled, and refused, before the first scene.

    Raises UsageError, and for a mosaic what `as_one` raises.
    """
    asked.check()
    if asked.assets or any(_holds_items(argument) for argument in arguments):
        from geoovseg.cli.catalogues import item_tasks

        with item_tasks(arguments, asked) as todo:
            yield todo
        return
    scenes = as_given(arguments) if asked.stack else listed(arguments, quiet=quiet)
    if not asked.stack:
        _question(scenes)
    if asked.mosaic or asked.stack:
        from geoovseg.cli.together import together

        with together(scenes, asked) as task:
            yield [task]
    elif scenes == list(arguments) and len(scenes) == 1:
        yield [_alone(scenes[0], asked)]
    else:
        yield _several(scenes, asked)


def _holds_items(argument: str) -> bool:
    """Whether an argument is a file of STAC items."""
    if not argument.lower().endswith((".json", ".geojson", ".parquet")):
        return False
    from geoovseg.scene.items import holds_items

    return holds_items(argument)


def _question(scenes: Sequence[str]) -> None:
    """Warn of scenes that look like the bands of one."""
    if len(scenes) < 2:
        return
    from geoovseg.tiles.bands import bands_apart

    if apart := bands_apart(scenes):
        message = (
            f"{some(apart)} have one band each and show the same ground, and each is seen by itself, in grey; if they "
            "are bands of one scene, add --stack"
        )
        warnings.warn(message, GeoOVSegWarning, 2)


def _alone(scene: str, asked: Asked) -> Task:
    """The task of one scene; its output may be a folder that is yet to be made."""
    output, overwrite = asked.output, asked.settings.overwrite
    if output is None or is_object(output) or not names_folder(output):
        return Task(scene=scene, output=output, overwrite=overwrite)
    from geoovseg.labels.names import output_names

    name = output_names(scene).labels.name
    folder, fresh = ready_folder(output, asked.dry_run)
    labels = str(Path(output, name))
    return Task(scene=scene, output=str(Path(folder or "", name)), overwrite=overwrite or fresh, labels=labels)


def _several(scenes: Sequence[str], asked: Asked) -> list[Task]:
    """Tasks of scenes, each with labels of its own. Raises UsageError."""
    if is_raster(asked.output):
        raise UsageError(f"-o {asked.output}: with several scenes, or a folder of them, the output is a folder")
    from geoovseg.labels.names import label_names

    folder, fresh = ready_folder(asked.output, asked.dry_run)
    overwrite = asked.settings.overwrite or fresh
    names = label_names(scenes, asked.output)
    for option in ("confidence", "scores", "vectors"):
        _check_folder(option, getattr(asked.settings, option), names, asked.dry_run)
    return [
        Task(scene=scene, output=_in(folder or name.parent, name.name), overwrite=overwrite, labels=str(name))
        for scene, name in zip(scenes, names, strict=True)
    ]


def _in(folder: StrPath, name: str) -> str:
    """A name in a folder, or below an address."""
    return f"{os.fspath(folder).rstrip('/')}/{name}" if is_object(folder) else str(Path(folder, name))


def _check_folder(option: str, given: StrPath | None, labels: Sequence[Path], dry_run: bool) -> None:
    """Refuse what is no folder for an output of each of several scenes, or would get two of one name."""
    if given is None or given == BESIDE or is_object(given):
        return
    if not is_folder(given):
        raise UsageError(
            f"--{option} {given}: with several scenes give a folder, as in {given}/, or --{option} alone for files "
            "beside the labels"
        )
    ready_folder(os.fspath(given), dry_run, f"--{option}")
    twice = [name for name, count in Counter(path.name for path in labels).items() if count > 1]
    if twice:
        raise UsageError(f"--{option} {given}: several scenes have labels called {twice[0]}; run them one by one")


def is_raster(output: str | None) -> bool:
    """Whether an output is to be a raster, not a folder of them."""
    return output is not None and output.lower().endswith((".tif", ".tiff")) and not os.path.isdir(output)


def ready_folder(output: str | None, dry_run: bool, option: str = "-o") -> tuple[str | None, bool]:
    """The folder of outputs, made if it is not there, and whether it is yet to be made.

    That is so in a dry run, which then judges by where it would be made. Raises UsageError where it cannot be.
    """
    if output is None or os.path.isdir(output) or is_object(output):
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


def each(
    todo: Sequence[Task],
    run: Callable[[Task], int],
    *,
    json: bool,
    quiet: bool,
    announce: bool = True,
    noun: str = "scene",
    done: Callable[[int], str] = "{} done".format,
    at_once: int = 1,
    give_up: Callable[[], None] = lambda: None,
) -> int:
    """Run on every scene; an error of one does not keep the others from it. Returns the first code that is not 0.

    Several are announced one by one, and end with a summary, unless it would say that all is well and nobody wants to
    hear that; `done` says in it how many are, and `noun` what they are. With `at_once` so many are run from threads;
    `give_up` ends what these do, where that is to end at once.
    """

    def one(number: int) -> int:
        if len(todo) > 1:
            talk(f"{noun} {number + 1} of {len(todo)}: {todo[number].scene}", quiet=quiet or not announce)
        return _one(todo[number], run, json=json, alone=len(todo) == 1)

    codes = _at_a_time(one, len(todo), at_once, give_up)
    worst = next(filter(None, codes), 0)
    if len(todo) > 1:
        talk(_summary(todo, codes, done(codes.count(0)), noun), quiet=quiet and not worst)
    return worst


def _at_a_time(one: Callable[[int], int], count: int, at_once: int, give_up: Callable[[], None]) -> list[int]:
    """What `one` gives for all numbers below a count; where it raises, no more are begun."""
    if at_once == 1 or count == 1:
        return [one(number) for number in range(count)]
    with ThreadPoolExecutor(at_once) as pool:
        todo = [pool.submit(copy_context().run, one, number) for number in range(count)]
        try:
            return [each.result() for each in todo]
        except BaseException as error:
            pool.shutdown(wait=False, cancel_futures=True)
            if not isinstance(error, Exception):
                give_up()
            raise


def _one(task: Task, run: Callable[[Task], int], *, json: bool, alone: bool) -> int:
    try:
        return run(task)
    except (InterruptedRunError, NobodyListensError):
        raise
    except GeoOVSegError as error:
        error.scene = public(task.scene)
        if alone:
            raise
        if json:
            said = {"scene": public(task.scene), "error": str(error), "exit_code": error.exit_code}
            data(jsonlib.dumps(said, ensure_ascii=False))
        talk(f"error: {error}" if printable(public(task.scene)) in str(error) else f"error: {task.scene}: {error}")
        return error.exit_code


def _summary(todo: Sequence[Task], codes: Sequence[int], done: str, noun: str) -> str:
    """`7 scenes: 6 done, 1 failed: bad.tif`."""
    partly = [task.scene for task, code in zip(todo, codes, strict=True) if code == PARTLY]
    failed = [task.scene for task, code in zip(todo, codes, strict=True) if code not in (0, PARTLY)]
    said = [f"{len(todo)} {noun}s: {done}"]
    said += [f"{len(partly)} with unreadable windows: {some(partly)}"] if partly else []
    said += [f"{len(failed)} failed: {some(failed)}"] if failed else []
    return ", ".join(said)
