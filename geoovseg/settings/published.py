"""`--as-published`: what a method's release chooses, for choices that a user leaves open."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from geoovseg.errors import UsageError
from geoovseg.methods import METHODS, card

OF_SAM = ("sam", "settings")
"""Choices that matter only for regions by Segment Anything."""


def as_published(method: str, own: Mapping[str, Any], usual: Mapping[str, Any]) -> dict[str, Any]:
    """The release's choices by name, where a run's own are as usual. Raises UsageError where no release is known."""
    released = dict(card(method).published)
    if not released:
        able = ", ".join(name for name, each in METHODS.items() if each.published)
        raise UsageError(f"--as-published: {method} has no release that is known here; these have: {able}")
    if own["regions"] not in (None, "sam"):
        released = {name: value for name, value in released.items() if name not in OF_SAM}
    settings = {**released.pop("settings", {}), **own["settings"]}
    return {"settings": settings, **{name: v for name, v in released.items() if own[name] == usual[name]}}
