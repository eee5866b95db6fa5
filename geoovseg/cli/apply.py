"""`geoovseg apply`."""

from __future__ import annotations

from typing import Annotated

import typer

from geoovseg.cli import options as o
from geoovseg.cli.output import data, talk
from geoovseg.errors import some
from geoovseg.network import access


def command(
    labels: o.LabelsArg,
    edits: Annotated[str, typer.Argument(help="Polygons that were edited, or drawn.", metavar="EDITS")],
    output: Annotated[str, typer.Option("-o", "--output", help="Label raster to write.", metavar="LABELS.tif")],
    field: Annotated[str, typer.Option(help="Column of class names.", metavar="NAME")] = "class_name",
    layer: Annotated[str | None, typer.Option(help="Layer of EDITS; default: its first.", metavar="NAME")] = None,
    outside: Annotated[
        str | None, typer.Option(help="Class of pixels in no polygon; default: they stay as they are.", metavar="NAME")
    ] = None,
    offline: Annotated[bool, o.of("offline")] = False,
    overwrite: Annotated[bool, o.of("overwrite")] = False,
    json: o.JsonOpt = False,
    quiet: o.QuietOpt = False,
) -> None:
    """Put polygons that were edited in QGIS back into labels.

    Pixels in a polygon take its class. A name that the labels lack becomes a new class.

    geoovseg apply scene_labels.tif scene_classes.gpkg -o corrected_labels.tif
    """
    from geoovseg.vectors.corrections import apply

    with access(offline=offline):
        result = apply(labels, edits, output, field=field, layer=layer, outside=outside, overwrite=overwrite)
    data(result.to_json() if json else result.labels, names=not json)
    talk(f"{result.polygons} polygons; {result.changed} pixels have another class", quiet=quiet or json)
    if result.added:
        talk(f"new classes: {some(result.added)}", quiet=quiet or json)
    if result.without_class:
        talk(f"{result.without_class} polygons have no class in {field} and were left out")
