"""`geoovseg preview`."""

from __future__ import annotations

from typing import Annotated

import typer

from geoovseg.cli import options as o
from geoovseg.cli.output import data
from geoovseg.network import access
from geoovseg.settings.choice import bands as read_bands


def command(
    scene: o.SceneArg,
    labels: o.LabelsArg,
    picture: Annotated[str, typer.Argument(help="The picture to write, .png or .jpg.", metavar="OUT.png")],
    bands: Annotated[str | None, o.of("bands")] = None,
    scale: Annotated[str, o.of("scale")] = "auto",
    offline: Annotated[bool, o.of("offline")] = False,
    size: Annotated[int, typer.Option(help="Longer side of a pane in pixels.", min=64)] = 1200,
) -> None:
    """Draw labels over their scene.

    With a legend and a scale bar; an existing picture is replaced.

    geoovseg preview scene.tif scene_labels.tif preview.png
    """
    from geoovseg.labels.preview import preview

    with access(offline=offline):
        drawn = preview(
            scene,
            labels,
            picture,
            bands=None if bands is None else read_bands("--bands", bands),
            scale=scale,
            size=size,
        )
    data(drawn)
