"""`geoovseg segment --dry-run`: what runs would take, scene by scene and all together."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from geoovseg.cli.output import data, talk
from geoovseg.cli.scenes import Task, each
from geoovseg.network import public
from geoovseg.settings import Settings
from geoovseg.usage import duration
from geoovseg.vocabulary import read_classes

if TYPE_CHECKING:
    from geoovseg.run.estimate import Estimate


def dry_runs(todo: Sequence[Task], classes: Any, settings: Settings, *, json: bool, quiet: bool) -> int:
    """Say what each scene would take, and of several also how long all would. Returns the exit code."""
    plans: list[Estimate] = []
    if settings.shard or settings.resume or settings.workers > 1:
        talk("these are figures of the whole run in one process: all shards, workers and parts", quiet=quiet)

    def plan(task: Task) -> int:
        plans.append(_planned(task, classes, settings))
        text = plans[-1].to_json() if json else plans[-1].to_text()
        data(text if json or len(todo) == 1 else f"{public(task.scene)}: {text}")
        return 0

    return each(todo, plan, json=json, quiet=quiet, announce=False, done=lambda count: _in_all(count, plans))


def _planned(task: Task, classes: Any, settings: Settings) -> Estimate:
    from geoovseg.run.estimate import estimate

    asked = replace(settings, output=task.output, overwrite=task.overwrite)
    found = estimate(task.scene, read_classes(classes, settings.vocabulary), asked)
    found = replace(found, labels=task.labels or found.labels)
    return replace(found, scene=task.named or found.scene)  # in a dry run a VRT has a passing place


def _in_all(count: int, plans: Sequence[Estimate]) -> str:
    """`6 can be done in about 12 min`."""
    if not plans:
        return "none can be done"
    return f"{count} can be done in about {duration(sum(plan.estimated_seconds for plan in plans))}"
