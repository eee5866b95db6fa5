"""Files of labels in folders: which they are, by their names."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path, PurePath

from geoovseg.errors import SceneError, UsageError, first_line
from geoovseg.files import StrPath

RASTERS = (".tif", ".tiff", ".vrt", ".img", ".png", ".jp2")
"""Suffixes of rasters that are looked for in folders."""
LABELS, MEASURES = "_labels", ("_confidence", "_scores")
"""What the names of labels end with, before the suffix, and of their confidence and scores."""


def label_files(paths: StrPath | Sequence[StrPath]) -> list[str]:
    """Files, and those in folders: what is named `*_labels`, or where nothing is, every raster but confidence.

    Raises UsageError for a folder without any, SceneError for one that cannot be listed.
    """
    if not isinstance(paths, str | os.PathLike):
        return [found for path in paths for found in label_files(path)]
    if not os.path.isdir(paths):
        return [os.fspath(paths)]
    files = rasters_in(paths)
    if not files:
        raise UsageError(f"the folder {os.fspath(paths)} has no labels ({', '.join(RASTERS)})")
    return [file for file in files if PurePath(file).stem.endswith(LABELS)] or files


def rasters_in(folder: StrPath, more: Sequence[str] = ()) -> list[str]:
    """Rasters in a folder by name, and files with more suffixes, but no confidence or scores. Raises SceneError."""
    try:
        found = sorted(entry for entry in Path(folder).iterdir() if entry.is_file() and not entry.name.startswith("."))
    except OSError as error:
        raise SceneError(f"cannot list the folder {os.fspath(folder)}: {first_line(error)}") from error
    return [str(path) for path in found if path.suffix.lower() in (*RASTERS, *more) and _is_shown(path)]


def _is_shown(path: Path) -> bool:
    """Whether a raster is no confidence, no scores and no picture of labels that lie beside it."""
    picture = path.suffix.lower() in (".png", ".jpg") and path.with_suffix(".tif").exists()
    return not (path.stem.endswith(MEASURES) or picture)


def stem_of(labels: str) -> str:
    """The name of labels, or of their address, without suffix and `_labels`."""
    return PurePath(labels.split("?")[0] if "://" in labels else labels).stem.removesuffix(LABELS)
