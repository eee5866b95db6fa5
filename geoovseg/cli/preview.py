"""`geoovseg preview`."""

from __future__ import annotations

from typing import Annotated

import typer

from geoovseg.cli import options as o
from geoovseg.cli.listing import listed
from geoovseg.cli.output import data
from geoovseg.errors import UsageError, some
from geoovseg.network import access
from geoovseg.settings.choice import bands as read_bands


def command(
    scenes: Annotated[
        list[str],
        typer.Argument(
            help="A georeferenced image, or the tiles of a --mosaic (or their folder).",
            metavar="SCENE",
        ),
    ],
    labels: o.LabelsArg,
    picture: Annotated[str, typer.Argument(help="The picture to write, .png or .jpg.", metavar="OUT.png")],
    bands: Annotated[str | None, o.of("bands")] = None,
    scale: Annotated[str, o.of("scale")] = "auto",
    offline: Annotated[bool, o.of("offline")] = False,
    size: Annotated[int, typer.Option(help="Longer side of a pane in pixels.", min=64)] = 1200,
    confidence: Annotated[
        bool, typer.Option("--confidence", help="LABELS is a raster of confidence: draw its shades.")
    ] = False,
    overlay: Annotated[bool, typer.Option("--overlay", help="One pane only: the labels over the image.")] = False,
    beside: Annotated[
        str | None, typer.Option(help="Other labels next to these, as of another date.", metavar="LABELS")
    ] = None,
    beside_scene: Annotated[str | None, typer.Option(help="The image of these other labels.", metavar="SCENE")] = None,
    json: o.JsonOpt = False,
) -> None:
    """Draw labels over their scene.

    With a legend, shares of the classes and a scale bar; an existing picture is replaced.

    geoovseg preview scene.tif scene_labels.tif preview.png

    geoovseg preview tiles/*.tif mosaic_labels.tif preview.png

    geoovseg preview 2020.tif 2020_labels.tif change.png --beside 2025_labels.tif --beside-scene 2025.tif
    """
    from geoovseg.labels.preview import preview
    from geoovseg.tiles.bands import bands_apart
    from geoovseg.tiles.join import one_scene

    paths = listed(scenes)
    if len(paths) > 1 and bands_apart(paths):
        raise UsageError(f"{some(paths)} are bands, not tiles; preview a VRT of them, as geoovseg.tiles.as_stack makes")
    chosen = None if bands is None else read_bands("--bands", bands)
    with access(offline=offline), one_scene(paths) as scene:
        result = preview(
            scene,
            labels,
            picture,
            bands=chosen,
            scale=scale,
            size=size,
            confidence=confidence,
            overlay=overlay,
            beside=beside,
            beside_scene=beside_scene,
        )
    data(result.to_json() if json else result.picture, names=not json)
