"""`geoovseg encode`."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import closing
from functools import partial
from typing import TYPE_CHECKING, Any

import typer

from geoovseg.cli import options as o
from geoovseg.cli.listing import listed
from geoovseg.cli.output import data, talk
from geoovseg.cli.profile import profiled
from geoovseg.cli.progress import Progress
from geoovseg.cli.scenes import PARTLY, Task, each, ready_folder
from geoovseg.errors import InterruptedRunError, UsageError
from geoovseg.settings import Settings, Watch
from geoovseg.signals import StopSignals
from geoovseg.trace import stretch

if TYPE_CHECKING:
    from geoovseg.run.result import EncodeResult

BELOW = (
    "vocabulary", "templates", "background", "threshold", "upsample", "grid", "aoi", "aoi_crs", "aoi_layer",
    "aoi_where", "crop", "vectors", "confidence", "scores", "features",
)  # fmt: skip
"""Settings that speak of words and outputs, which are said when features are asked."""


def command(
    scenes: o.ScenesArg,
    *,
    dry_run: o.DryRunOpt = False,
    json: o.JsonOpt = False,
    quiet: o.QuietOpt = False,
    progress: o.ProgressOpt = "auto",
    profile: o.ProfileOpt = None,
    **given: Any,
) -> None:
    """Keep the features of images, to ask them for any words in seconds.

    geoovseg encode scene.tif, then geoovseg segment scene_features.zarr -c building,road
    """
    settings = Settings(**given, background="none")
    found = listed(scenes, quiet=quiet)
    if len(found) > 1 and settings.output is not None:
        if str(settings.output).endswith(".zarr"):
            raise UsageError(f"-o {settings.output}: of several scenes give a folder, with a / at its end")
        ready_folder(str(settings.output), dry_run)
    todo = [Task(scene=scene, output=None, overwrite=settings.overwrite) for scene in found]
    if dry_run:
        raise typer.Exit(each(todo, partial(_would, settings, json), json=json, quiet=quiet))
    with profiled(profile, settings, quiet=quiet):
        code = _all(todo, settings, json, quiet)
    raise typer.Exit(code)


def _all(todo: list[Task], settings: Settings, json: bool, quiet: bool) -> int:
    """Keep the features of scenes, one after the other; returns the exit code."""
    with stretch("import"):
        from geoovseg.segmenter import encoding

    shown = Progress([task.scene for task in todo], quiet=quiet)
    with StopSignals(lambda text: talk(text, quiet=quiet)) as stop, closing(shown), encoding(settings) as encode:
        one = partial(_encode, encode, json, quiet, shown, stop)
        return each(todo, one, json=json, quiet=quiet)


def _would(settings: Settings, json: bool, task: Task) -> int:
    """Say what a run would do and take."""
    from geoovseg.run.estimate import estimate_features

    found = estimate_features(task.scene, settings)
    data(found.to_json() if json else found.to_text())
    return 0


def _encode(
    encode: Callable[[str, Watch], EncodeResult],
    json: bool,
    quiet: bool,
    progress: Progress,
    stop: StopSignals,
    task: Task,
) -> int:
    """Keep the features of a scene; returns the exit code."""
    with progress.of(task.scene) as tell:
        result = encode(task.scene, Watch(tell, stop, partial(talk, quiet=quiet)))
    data(result.to_json() if json else result.parts_dir or result.features, names=not json)
    if result.was_there:
        talk(f"the features were there: {result.features}", quiet=quiet or json)
    else:
        asked = f"ask them: geoovseg segment {result.features} -c building,road,water"
        talk(f"{result.megabytes:.0f} MB of features; {asked}", quiet=quiet or json)
    if result.failed_windows:
        talk(f"{result.failed_windows} windows could not be read; areas that no other window covers have no data")
    if stop.signal:
        raise InterruptedRunError(f"{task.scene} was finished first", stop.signal)
    return PARTLY if result.failed_windows else 0


command = o.taking_settings(command, BELOW)
