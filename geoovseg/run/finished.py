"""Outputs that are there already: whether they are what a run would make, so that it has nothing to do."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any, NamedTuple

from rasterio.windows import Window

from geoovseg.errors import OutputError, SceneError, UsageError, in_short
from geoovseg.labels.areas import Piece
from geoovseg.labels.names import Outputs
from geoovseg.labels.read import check_confidence, counted, open_labels
from geoovseg.labels.record import RunRecord
from geoovseg.run.job import Job, known_by
from geoovseg.run.state import COUNTED
from geoovseg.scene.scene import Scene

NOT_CHOSEN = (*COUNTED, "versions", "notes", "device", "precision", "scene_checked_by")
"""What a record says besides what was chosen: of finished labels it may differ."""
EIGHT_BITS = "int8"
"""The precision that no machine chooses by itself."""


class Finished(NamedTuple):
    """Labels that were there."""

    record: RunRecord
    pieces: list[Piece]
    """with the pixels that each class has now"""


def finished(outputs: Outputs, scene: Scene, job: Job) -> Finished:
    """The labels that are there. Raises OutputError where a run would make others, which says why."""
    new = replace(job.record(scene), scene_identity=known_by(scene)[2])
    try:
        with open_labels(outputs.labels) as src:
            record = _same(src, scene, job, new)
            pieces = counted(src, Window(0, 0, src.width, src.height), job.profile(scene))
        for measure in outputs.rasters[1:]:
            with open_labels(measure) as src:
                _same(src, scene, job, new)
                if measure == outputs.confidence:
                    check_confidence(src, str(measure))
                elif src.descriptions != job.profile(scene).channels:
                    raise SceneError(f"{measure} is there, but has no scores of these classes")
    except (SceneError, UsageError) as error:
        raise OutputError(f"{error}; add --overwrite to replace it, or choose another name with -o") from error
    return Finished(record, pieces)


def _same(src: Any, scene: Scene, job: Job, new: RunRecord) -> RunRecord:
    """The record of an output that is what a run would make. Raises SceneError for another one, which says why."""
    record, grid = RunRecord.of(src), job.output_grid(scene)
    reason = "it was not made by geoovseg segment" if record is None else _difference(record, new)
    if (src.shape, src.transform, src.crs) != ((grid.height, grid.width), grid.transform, grid.crs):
        reason = "it lies on another grid than the scene"
    if record is None or reason is not None:
        raise SceneError(f"{src.name} is there, but is not what this run would make: {reason}")
    return record


def _difference(old: RunRecord, new: RunRecord) -> str | None:
    """What was chosen otherwise, if anything was."""
    before, now = (_chosen(record) for record in (old, new))
    if before["scene_identity"] != now["scene_identity"]:
        return "it is of another image, or this one has changed since"
    differing = (name for name in now if before.get(name) != now[name])
    name = next(differing, None)
    return None if name is None else f"{name} was {in_short(before.get(name))} and is now {in_short(now[name])}"


def _chosen(record: RunRecord) -> dict[str, Any]:
    return chosen(json.loads(record.to_json()))


def chosen(said: dict[str, Any]) -> dict[str, Any]:
    """What was chosen, of what a record says."""
    found = {name: value for name, value in said.items() if name not in NOT_CHOSEN}
    return {**found, "precision": EIGHT_BITS if said.get("precision") == EIGHT_BITS else "float"}
