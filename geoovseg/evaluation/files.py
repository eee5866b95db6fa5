"""Which labels belong to which truth: of folders by the names of their files."""

from __future__ import annotations

import os
import re
import warnings
from collections.abc import Sequence
from pathlib import PurePath

from geoovseg.errors import GeoOVSegWarning, UsageError, some
from geoovseg.files import StrPath
from geoovseg.labels.folders import LABELS, RASTERS, label_files, rasters_in
from geoovseg.scene.shapes import VECTORS

_TRUTH = re.compile(r"_(labels?|truth|masks?|gt|ground_?truth|classes|annotations?|instance_color_rgb)$", re.IGNORECASE)
"""What the names of truth may end with."""


def pairs(labels: StrPath | Sequence[StrPath], truth: StrPath | Sequence[StrPath]) -> list[tuple[str, str]] | None:
    """Labels with their truth, where there are several; none where both are one file.

    Lists of files belong together in their order; one file of truth is for all labels; in folders files belong together
    by their names without suffix, `_labels`, `_truth`, `_mask` and the like. Raises UsageError where one has no truth
    or several, and warns of truth without labels.
    """
    if not _is_many(labels) and not _is_many(truth):
        return None
    found = label_files(labels)
    if isinstance(truth, str | os.PathLike) and not os.path.isdir(truth):
        return [(path, os.fspath(truth)) for path in found]
    others = _truths(truth)
    if not isinstance(truth, str | os.PathLike) and not isinstance(labels, str | os.PathLike):
        if len(found) != len(others):
            raise UsageError(f"{len(found)} labels and {len(others)} truths: lists belong together one by one")
        return list(zip(found, others, strict=True))
    return _by_name(found, others)


def _is_many(paths: StrPath | Sequence[StrPath]) -> bool:
    return not isinstance(paths, str | os.PathLike) or (os.path.isdir(paths) and bool(_truth_files(paths)))


def _truth_files(folder: StrPath) -> list[str]:
    return rasters_in(folder, VECTORS)


def _truths(paths: StrPath | Sequence[StrPath]) -> list[str]:
    """Files, and those in folders. Raises UsageError."""
    if not isinstance(paths, str | os.PathLike):
        return [found for path in paths for found in _truths(path)]
    if not os.path.isdir(paths):
        return [os.fspath(paths)]
    if not (found := _truth_files(paths)):
        raise UsageError(f"the folder {os.fspath(paths)} has no truth ({', '.join((*RASTERS, *VECTORS))})")
    return found


def _by_name(labels: Sequence[str], truths: Sequence[str]) -> list[tuple[str, str]]:
    found = []
    for path in labels:
        stem = PurePath(path).stem
        fits = _fitting({stem, stem.removesuffix(LABELS)}, truths)
        if len(fits) != 1:
            what = f"several truths: {some(fits)}" if fits else f"no truth of its name among {some(truths)}"
            raise UsageError(f"{path} has {what}; rename one, or give labels and truth as two lists")
        found.append((path, fits[0]))
    if left := [path for path in truths if path not in {truth for _, truth in found}]:
        warnings.warn(f"without labels, and left out: {some(left)}", GeoOVSegWarning, 4)
    return found


def _fitting(stems: set[str], truths: Sequence[str]) -> list[str]:
    """Truth of exactly one of these names, else of one with an end as truth has."""
    same = [path for path in truths if PurePath(path).stem in stems]
    return same or [path for path in truths if _TRUTH.sub("", PurePath(path).stem) in stems]
