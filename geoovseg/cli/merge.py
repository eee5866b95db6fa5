"""`geoovseg merge`."""

from __future__ import annotations

import json as jsonlib
from pathlib import Path
from typing import Annotated

import typer

from geoovseg.cli import options as o
from geoovseg.cli.output import data, talk


def command(
    parts: Annotated[Path, typer.Argument(help="The folder of parts that the shards computed.", metavar="PARTS_DIR")],
    overwrite: o.OverwriteOpt = False,
    json: o.JsonOpt = False,
) -> None:
    """Put the parts of all shards together: geoovseg merge scene_labels.tif.parts."""
    from geoovseg.pipeline import merge

    merged = merge(parts, overwrite=overwrite)
    data(jsonlib.dumps(merged._asdict()) if json else merged.labels)
    if merged.failed_windows:
        talk(f"{merged.failed_windows} windows could not be read; where no other covers them there is no data")
        raise typer.Exit(3)
