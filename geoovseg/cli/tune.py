"""`geoovseg tune`."""

from __future__ import annotations

from typing import Annotated

import typer

from geoovseg.cli import options as o
from geoovseg.cli.output import data, talk
from geoovseg.errors import some
from geoovseg.network import access
from geoovseg.settings import Settings


def command(
    features: Annotated[str, typer.Argument(help="Features that geoovseg encode kept.", metavar="FEATURES")],
    edits: Annotated[str, typer.Argument(help="Polygons with the right classes.", metavar="EDITS")],
    output: Annotated[str, typer.Option("-o", "--output", help="Class file to write.", metavar="CLASSES.txt")],
    classes: o.ClassesOpt = None,
    vocabulary: Annotated[str | None, o.of("vocabulary")] = None,
    background: Annotated[str, o.of("background")] = Settings().background,
    templates: Annotated[str, o.of("templates")] = Settings().templates,
    field: Annotated[str, typer.Option(help="Column of class names.", metavar="NAME")] = "class_name",
    layer: Annotated[str | None, typer.Option(help="Layer of EDITS; default: its first.", metavar="NAME")] = None,
    offline: Annotated[bool, o.of("offline")] = False,
    overwrite: Annotated[bool, o.of("overwrite")] = False,
    json: o.JsonOpt = False,
    quiet: o.QuietOpt = False,
) -> None:
    """Learn from corrected polygons how much to favour each class.

    One number a class, tried on polygons it was not learned from; without a gain nothing is written.

    geoovseg tune scene_features.zarr edits.gpkg -c building,road,water -o tuned.txt
    """
    from geoovseg.evaluation.tune import asked_again, tune

    with access(offline=offline):
        result = tune(
            features, edits, classes, output, vocabulary=vocabulary, background=background, field=field, layer=layer,
            templates=templates, overwrite=overwrite,
        )  # fmt: skip
    data(result.to_json() if json else result.classes_file, names=not json)
    low, high = result.interval
    spread = f"gain {result.gain:+.3f} (95 % {low:+.3f} to {high:+.3f})"
    talk(
        f"mean IoU of held-out polygons {result.before:.3f} before, {result.after:.3f} with offsets: {spread}; "
        f"{result.polygons} polygons, {result.cells} cells",
        quiet=quiet or json,
    )
    if result.left_out:
        talk(f"{some(result.left_out)}: no class of these, so its polygons taught nothing", quiet=quiet)
    talk(f"use it: {asked_again(result, features, background, templates)}", quiet=quiet or json)
