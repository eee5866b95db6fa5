"""`geoovseg vectorize`."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from geoovseg import numerals
from geoovseg.cli import options as o
from geoovseg.cli.listing import named
from geoovseg.cli.output import data, talk
from geoovseg.cli.scenes import Task, each
from geoovseg.errors import UsageError
from geoovseg.files import made_folder
from geoovseg.network import access
from geoovseg.settings.choice import read_pairs

if TYPE_CHECKING:
    from geoovseg.vectors.vectorize import VectorResult


def command(
    labels: o.ManyLabelsArg,
    output: Annotated[
        str,
        typer.Argument(
            help="A .gpkg, .fgb, .parquet, .geojson or .geojsonl file; of several labels a folder.", metavar="OUT"
        ),
    ],
    classes: Annotated[
        list[str] | None,
        typer.Option(
            help="Write only these classes, by name and separated by commas; may be repeated. Default: all but code 0.",
            metavar="CLASSES",
        ),
    ] = None,
    names: Annotated[
        list[str] | None,
        typer.Option(help="Name of a code, where the raster has none; may be repeated.", metavar="CODE=NAME"),
    ] = None,
    confidence: Annotated[
        str | None,
        typer.Option(
            help="A confidence raster; polygons get its mean. Of several labels the folder of <name>_confidence.tif."
        ),
    ] = None,
    min_area: Annotated[
        float,
        typer.Option(
            help="Square metres; smaller regions go to the neighbour with the longest border, before --simplify."
        ),
    ] = 0.0,
    simplify: Annotated[
        float, typer.Option(help="Move corners by at most this many metres; shared borders stay shared.")
    ] = 0.0,
    split_grid: Annotated[float | None, typer.Option(help="Cut polygons along a grid of this many metres.")] = None,
    workers: Annotated[int, typer.Option(help="Number of processes; 0 means one per core.", min=0)] = 0,
    offline: Annotated[bool, o.of("offline")] = False,
    overwrite: Annotated[bool, o.of("overwrite")] = False,
    json: o.JsonOpt = False,
) -> None:
    """Make polygons of label rasters: one clean coverage each, named and coloured in QGIS.

    geoovseg vectorize scene_labels.tif scene_classes.gpkg --simplify 1

    Several: geoovseg vectorize a_labels.tif b_labels.tif polygons/
    """
    how: dict[str, Any] = {
        "classes": classes or None,
        "names": _names(names or []),
        "min_area": min_area,
        "simplify": simplify,
        "split_grid": split_grid,
        "workers": workers,
    }

    def run(task: Task) -> int:
        from geoovseg.vectors.vectorize import vectorize

        beside = _confidence(task, confidence)
        result = vectorize(task.scene, str(task.output), confidence=beside, overwrite=task.overwrite, **how)
        for line in _remarks(result, min_area):
            talk(line)
        data(result.to_json() if json else result.vectors, names=not json)
        return 0

    with access(offline=offline):
        todo = _tasks(labels, output, overwrite)
        if len(todo) > 1 and confidence is not None and not os.path.isdir(confidence):
            raise UsageError(f"--confidence {confidence}: of several labels give the folder of their confidence")
        code = each(todo, run, json=json, quiet=False, noun="label raster")
    raise typer.Exit(code)


def _tasks(arguments: Sequence[str], output: str, overwrite: bool) -> list[Task]:
    """Labels with the file that each is to become. Raises UsageError."""
    from geoovseg.labels.folders import label_files
    from geoovseg.vectors.targets import DRIVERS, vector_names

    given = [path for argument in arguments for path in named(argument)]
    labels = list(dict.fromkeys(label_files(given)))
    is_folder = os.path.isdir(output) or output.endswith(("/", os.sep))
    if len(labels) == 1 and not is_folder:
        return [Task(scene=labels[0], output=output, overwrite=overwrite)]
    if not is_folder and Path(output).suffix.lower() in DRIVERS:
        raise UsageError(f"{output}: with several label rasters the output is a folder")
    targets = vector_names(labels, output)
    made_folder(output, "OUT")
    return [
        Task(scene=path, output=str(target), overwrite=overwrite) for path, target in zip(labels, targets, strict=True)
    ]


def _confidence(task: Task, given: str | None) -> str | None:
    """The confidence that belongs to labels: a file, or that of their name in a folder."""
    if given is None or not os.path.isdir(given):
        return given
    from geoovseg.labels.folders import MEASURES, stem_of

    return os.path.join(given, f"{stem_of(task.scene)}{MEASURES[0]}.tif")


def _remarks(result: VectorResult, min_area: float) -> Iterator[str]:
    """What a person should know about polygons."""
    if min_area:
        yield f"{result.given_away} small regions were merged into their neighbours"
    if not result.polygons:
        yield "no polygon was made: no pixel has one of the classes"
    if result.unnamed:
        code = result.unnamed[0]
        yield (
            f"{len(result.unnamed)} codes have no name in the raster and are called by number, as class {code}; name "
            f"them with --names {code}=NAME"
        )
    if result.hint:
        yield result.hint


def _names(items: Sequence[str]) -> dict[int, str]:
    """`3=road`; a comma separates where another code and = follow it, as names may have commas. Raises UsageError."""
    parts = [part for item in items for part in re.split(r",(?=\s*\d+\s*=)", item)]
    pairs: Any = read_pairs(parts, "--names", "code=name")
    try:
        return {numerals.whole(code): name for code, name in pairs.items()}
    except ValueError as error:
        raise UsageError(f"--names {items[0]}: write code=name, as in 3=road") from error
