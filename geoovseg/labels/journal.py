"""What must be the same for parts to be of one run."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from geoovseg.errors import ResumeError, in_short
from geoovseg.rasters.ground import RasterGrid, is_older_form, wkt_of


def check_same(old: Mapping[str, Any], new: Mapping[str, Any], folder: Path) -> None:
    """Refuse parts of another run. Raises ResumeError, which says what changed."""
    changed = list(_changes(old, new, ()))
    if changed:
        where, before, now = changed[0]
        more = f" (and {len(changed) - 1} more)" if len(changed) > 1 else ""
        as_before = f"add --precision {before}" if where == "record precision" else "run it as before"
        raise ResumeError(
            f"{folder} is of another run: {where} was {in_short(before)} and is now {in_short(now)}{more}; {as_before} "
            "to go on, or remove that folder to start again"
        )


def _changes(old: Any, new: Any, path: Sequence[str]) -> Iterator[tuple[str, Any, Any]]:
    """Where two journals differ: (name, before, now)."""
    if isinstance(old, dict) and isinstance(new, dict):
        for key in {**old, **new}:
            if path != ("record",) or key in old:  # an older version kept less of it
                yield from _changes(old.get(key), new.get(key), (*path, key))
    elif old != new and not (path == ("scene", "crs") and is_older_form(old, new)):
        yield " ".join(path), old, new


def check_place(grid: RasterGrid, said: Mapping[str, Any]) -> None:
    """Compare the grid that was kept with what the journal says of it. Raises ValueError."""
    wkt, place = wkt_of(grid.crs), list(grid.transform)[:6]
    if place != said["transform"] or not (wkt == said["crs"] or is_older_form(said["crs"], wkt)):
        raise ValueError("its grid lies elsewhere than its journal says")
