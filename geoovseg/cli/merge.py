"""`geoovseg merge`."""

from __future__ import annotations

import json as jsonlib
from pathlib import Path
from typing import Annotated

import typer

from geoovseg.cli import options as o
from geoovseg.cli.output import data, talk
from geoovseg.files import made_folder


def command(
    parts: Annotated[Path, typer.Argument(help="The folder of parts that the shards computed.", metavar="PARTS_DIR")],
    output: Annotated[
        str | None, typer.Option("-o", "--output", help="Label raster; default: beside the folder, as the run says.")
    ] = None,
    confidence: Annotated[
        str | None, typer.Option(help="Confidence raster of a run that makes one; default: beside the labels.")
    ] = None,
    scores: Annotated[
        str | None, typer.Option(help="Scores of a run that makes some; default: beside the labels.")
    ] = None,
    overwrite: Annotated[bool, o.of("overwrite")] = False,
    per_tile: o.PerTileOpt = None,
    json: o.JsonOpt = False,
) -> None:
    """Put the parts of all shards together: geoovseg merge scene_labels.tif.parts."""
    from geoovseg.pipeline import merge

    if per_tile is not None:
        made_folder(per_tile, "--per-tile")
    merged = merge(parts, output=output, confidence=confidence, scores=scores, overwrite=overwrite, per_tile=per_tile)
    data(*((jsonlib.dumps(merged._asdict()),) if json else (merged.labels, *merged.per_tile)), names=not json)
    if merged.failed_windows:
        talk(f"{merged.failed_windows} windows could not be read; areas that no other window covers have no data")
        raise typer.Exit(3)
