"""Outputs that are there already: whether they are what a run would make, so that it has nothing to do."""

from __future__ import annotations

import json
import os
from typing import Any, NamedTuple

from rasterio.windows import Window

from geoovseg.errors import OutputError
from geoovseg.labels.areas import Piece
from geoovseg.labels.names import Outputs
from geoovseg.labels.read import counted, open_labels
from geoovseg.labels.record import RunRecord
from geoovseg.run.job import Job
from geoovseg.scene.scene import Scene

NOT_CHOSEN = (
    "version",
    "versions",
    "windows",
    "skipped_windows",
    "notes",
    "device",
    "precision",
    "scene_checked_by",
    "threads",
)
"""What a record says besides what was chosen: of finished labels it may differ."""


class Finished(NamedTuple):
    """Labels that were there."""

    record: RunRecord
    pieces: list[Piece]
    """with the pixels that each class has now"""


def finished(outputs: Outputs, scene: Scene, job: Job) -> Finished:
    """The labels that are there. Raises OutputError where a run would make others, which says why."""
    with open_labels(outputs.labels) as src:
        record, profile = RunRecord.of(src), job.profile(scene)
        reason = "it was not made by geoovseg segment" if record is None else _difference(record, job.record(scene))
        grid = job.output_grid(scene)
        if (src.shape, src.transform, src.crs) != ((grid.height, grid.width), grid.transform, grid.crs):
            reason = "it lies on another grid than the scene"
        if _newest(scene) > os.stat(outputs.labels).st_mtime:
            reason = "the scene has changed since"
        if record is None or reason is not None:
            raise OutputError(
                f"{outputs.labels} is there, but is not what this run would make: {reason}; add --overwrite to replace "
                "it, or choose another name with -o"
            )
        return Finished(record, counted(src, Window(0, 0, src.width, src.height), profile))


def _difference(old: RunRecord, new: RunRecord) -> str | None:
    """What was chosen otherwise, if anything was."""
    before, now = (_chosen(record) for record in (old, new))
    differing = (name for name in now if before.get(name) != now[name])
    name = next(differing, None)
    return None if name is None else f"{name} was {_short(before.get(name))} and is now {_short(now[name])}"


def _chosen(record: RunRecord) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(record.to_json())
    return {name: value for name, value in found.items() if name not in NOT_CHOSEN}


def _short(value: Any) -> str:
    text = json.dumps(value, ensure_ascii=False)
    return text if len(text) < 80 else f"{text[:77]}..."


def _newest(scene: Scene) -> float:
    """When the newest of a scene's files was changed; never, where that is not known."""
    files = (file for file in scene.files if not file.endswith(".aux.xml"))  # viewers write statistics into these
    return max((os.stat(file).st_mtime for file in files if os.path.isfile(file)), default=0.0)
