"""What a run of `geoovseg segment` found, and what a person should know about it, line by line."""

from __future__ import annotations

import os
import shlex
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from geoovseg.cli.scenes import Task
from geoovseg.errors import NAMED, some
from geoovseg.files import is_object, is_store
from geoovseg.network import public
from geoovseg.settings import Settings
from geoovseg.usage import duration
from geoovseg.vocabulary import BACKGROUND

if TYPE_CHECKING:
    from geoovseg.pipeline import SegmentResult

LISTED = 20
"""Classes in the table of what was found, the most frequent."""


def found(result: SegmentResult) -> Iterator[str]:
    """Classes with their pixels, shares and hectares, those of which there is nothing, and how long it took."""
    pixels = {name: said["pixels"] for name, said in result.classes.items()}
    total, there = sum(pixels.values()), sorted((n for n in pixels if pixels[n]), key=lambda name: -pixels[name])
    shown = there[:LISTED]
    width = max(map(len, shown), default=0)
    for name in shown:
        hectares = result.classes[name]["hectares"]
        ground = "" if hectares is None else f"{hectares:>14,.2f} ha"
        yield f"  {name:<{width}}{pixels[name]:>16,} px{pixels[name] / total:>8.1%}{ground}"
    if len(there) > LISTED:
        yield f"  and {len(there) - LISTED} classes more"
    if missing := [name for name in pixels if not pixels[name] and name != BACKGROUND]:
        yield f"nothing found of: {some(missing)}"
    if not result.was_there:
        yield f"done in {duration(result.seconds['total'])}"


def hints(result: SegmentResult, task: Task, settings: Settings) -> Iterator[str]:
    """What to do next."""
    if result.parts_dir:
        yield f"when all shards are done: geoovseg merge {shlex.join(_merged(result, result.parts_dir))}"
    elif is_object(result.labels):
        return  # pictures are made of files here
    elif len(task.tiles) <= NAMED and not task.bands and not (settings.crop and _lies_between(task, settings)):
        scenes = task.tiles or _pixels_of(task.scene)
        if scenes and tuple(map(public, scenes)) == scenes:  # a command must not hold secrets
            yield f"see it: geoovseg preview {shlex.join(_pictured(scenes, result.labels, settings))}"


def _lies_between(task: Task, settings: Settings) -> bool:
    """Whether a crop may begin between the pixels of what would be shown."""
    return bool(task.tiles) or settings.gsd is not None or is_store(task.scene)


def _pixels_of(scene: str) -> tuple[str, ...]:
    """What can be shown of a scene: itself, or where kept features are of, if that is there."""
    if not is_store(scene):
        return (scene,)
    from geoovseg.features.store import about_of

    path = about_of(scene).scene_of(scene)
    return (path,) if path and os.path.exists(path) else ()


def _merged(result: SegmentResult, parts: str) -> Iterator[str]:
    """Arguments of `merge`: outputs that do not lie beside the parts must be named."""
    yield parts
    home = os.path.realpath(os.path.dirname(os.path.abspath(parts)))
    for option, path in (("-o", result.labels), ("--confidence", result.confidence), ("--scores", result.scores)):
        if path is not None and os.path.realpath(os.path.dirname(os.path.abspath(path))) != home:
            yield from (option, path)


def _pictured(scenes: Sequence[str], labels: str, settings: Settings) -> Iterator[str]:
    """Arguments of `preview` for a scene as this run saw it, with a picture beside the labels and named after them."""
    picture = Path(labels).with_suffix(".png")
    if os.path.abspath(picture) in map(os.path.abspath, scenes):
        picture = picture.with_name(f"{picture.stem}_preview.png")
    yield from (*scenes, labels, str(picture))
    if settings.bands is not None:
        yield from ("--bands", ",".join(map(str, settings.bands)))
    if settings.scale != "auto":
        yield from ("--scale", settings.scale)


def remarks(result: SegmentResult) -> Iterator[str]:
    """What a person should know about a run."""
    if result.was_there:
        yield f"{result.labels} was finished before, with the same settings"
        return
    yield from _seen(result)
    if result.background:
        won = [f"{word} {share:.0%}" for word, share in result.background_won.items()]
        idle = [word for word in result.background if word not in result.background_won]
        yield f"code 0 (background): {some([*won, *idle], 20)}"
    if result.dropped_background:
        yield f"left out of the background, too similar to your words: {some(result.dropped_background, 20)}"
    if result.skipped_windows:
        yield f"{result.skipped_windows} of {result.windows} windows have no data and were skipped"
    if result.outside_windows:
        yield f"{result.outside_windows} of {result.windows} windows lie outside the area of interest"
    if result.parts_kept:
        yield (
            f"{result.parts_kept} of {result.parts} parts were finished before; {result.redone_windows} windows at "
            "their borders were computed again"
        )


def _seen(result: SegmentResult) -> Iterator[str]:
    """How pixels became light, where that is no matter of course."""
    bands = ", ".join(map(str, result.bands))
    what = f"bands {bands} seen as red, green, blue" if len(set(result.bands)) > 1 else f"band {result.bands[0]} seen"
    if result.scale is not None and result.scale != (0, 255):
        yield f"{what}; {result.scale[0]:.6g} as black, {result.scale[1]:.6g} as white"
    elif len(set(result.bands)) > 1 and result.bands != (1, 2, 3):
        yield what
