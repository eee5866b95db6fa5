"""`geoovseg vectorize`."""

from __future__ import annotations

from typing import Annotated

import typer

from geoovseg.cli import options as o
from geoovseg.cli.output import data, talk
from geoovseg.errors import UsageError
from geoovseg.settings.choice import read_pairs


def command(
    labels: o.LabelsArg,
    output: Annotated[str, typer.Argument(help="A .gpkg, .fgb, .parquet, .geojson or .geojsonl.", metavar="OUT")],
    classes: Annotated[
        str | None, typer.Option(help="Write only these classes, by name; default: all but background.")
    ] = None,
    names: Annotated[
        list[str] | None,
        typer.Option(help="Name of a code, where the raster has none; may be repeated.", metavar="CODE=NAME"),
    ] = None,
    confidence: Annotated[str | None, typer.Option(help="A confidence raster; polygons get its mean.")] = None,
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
    overwrite: Annotated[bool, o.of("overwrite")] = False,
    json: o.JsonOpt = False,
) -> None:
    """Make polygons of a label raster: one clean coverage, named and coloured in QGIS.

    geoovseg vectorize scene_labels.tif scene_classes.gpkg --simplify 1
    """
    from geoovseg.vectors.vectorize import vectorize

    result = vectorize(
        labels,
        output,
        classes=None if classes is None else [name.strip() for name in classes.split(",")],
        names=_names(names or []),
        confidence=confidence,
        min_area=min_area,
        simplify=simplify,
        split_grid=split_grid,
        workers=workers,
        overwrite=overwrite,
    )
    if min_area:
        talk(f"{result.given_away} small regions were merged into their neighbours")
    if not result.polygons:
        talk("no polygon was made: no pixel has one of the classes")
    if result.hint:
        talk(result.hint)
    data(result.to_json() if json else result.vectors)


def _names(items: list[str]) -> dict[int, str]:
    pairs = read_pairs(items, "--names", "code=name")
    try:
        return {int(code): name for code, name in pairs.items()}
    except ValueError as error:
        raise UsageError(f"--names {items[0]}: write code=name, as in 3=road") from error
