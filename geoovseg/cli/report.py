"""`geoovseg report`."""

from __future__ import annotations

from typing import Annotated

import typer

from geoovseg.cli import options as o
from geoovseg.cli.output import data
from geoovseg.network import access


def command(
    labels: o.LabelsArg,
    output: Annotated[str, typer.Option("-o", "--output", help="Page to write, .html.", metavar="REPORT.html")],
    scene: Annotated[
        str | None, typer.Option(help="The image; default: that of the labels' record, beside them.", metavar="SCENE")
    ] = None,
    confidence: Annotated[
        str | None, typer.Option(help="Raster of confidence; default: the one beside the labels.", metavar="CONF.tif")
    ] = None,
    title: Annotated[str | None, typer.Option(help="Heading; default: the labels' name.", metavar="TEXT")] = None,
    offline: Annotated[bool, o.of("offline")] = False,
    overwrite: Annotated[bool, o.of("overwrite")] = False,
) -> None:
    """Write one page about labels: picture, areas, confidence, what decided them, what to cite.

    geoovseg report scene_labels.tif -o report.html
    """
    from geoovseg.evaluation.report import report

    with access(offline=offline):
        result = report(
            labels, output, scene=scene, confidence=confidence, title=title, overwrite=overwrite
        )  # fmt: skip
    data(result.report, names=True)
