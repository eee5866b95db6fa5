"""`geoovseg segment --dry-run`: what runs would take, scene by scene and all together."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from geoovseg.cli.output import data, talk
from geoovseg.cli.scenes import Task, each
from geoovseg.usage import duration

if TYPE_CHECKING:
    from geoovseg.run.estimate import Estimate


def dry_runs(
    todo: Sequence[Task], arguments: Callable[[Task], dict[str, Any]], *, partial: bool, json: bool, quiet: bool
) -> int:
    """Say what each scene would take, and of several also how long all would. Returns the exit code.

    `partial` is a run that would be only a share of that, or be shared out.
    """
    plans: list[Estimate] = []
    if partial:
        talk("these are figures of the whole run in one process: all shards, workers and parts", quiet=quiet)

    def plan(task: Task) -> int:
        plans.append(_planned(task, arguments(task)))
        text = plans[-1].to_json() if json else plans[-1].to_text()
        data(text if json or len(todo) == 1 else f"{task.scene}: {text}")
        return 0

    return each(todo, plan, json=json, quiet=quiet, announce=False, done=lambda count: _in_all(count, plans))


def _planned(task: Task, arguments: dict[str, Any]) -> Estimate:
    from geoovseg.run.estimate import dry_run

    found = dry_run(task.scene, **arguments)
    found = replace(found, labels=task.labels or found.labels)
    if not task.tiles:
        return found
    from geoovseg.tiles import vrt_of  # the one of a dry run has a passing place

    return replace(found, scene=str(vrt_of(Path(found.labels))))


def _in_all(count: int, plans: Sequence[Estimate]) -> str:
    """`6 can be done in about 12 min`."""
    if not plans:
        return "none can be done"
    return f"{count} can be done in about {duration(sum(plan.estimated_seconds for plan in plans))}"
