"""What the arguments of `geoovseg segment` list: scenes, folders of them, paths on standard input."""

from __future__ import annotations

import os
import shlex
import sys
from collections.abc import Sequence
from pathlib import Path, PurePath

from geoovseg.cli.output import talk
from geoovseg.errors import SceneError, UsageError, first_line
from geoovseg.labels.record import RUN_TAG

SUFFIXES = (".tif", ".tiff", ".vrt", ".jp2", ".img", ".png", ".jpg", ".jpeg")
"""Of the rasters in a folder."""
OURS = ("_labels.tif", "_confidence.tif", ".mosaic.vrt", "_labels.png", "_labels.jpg", "_labels.jpeg")
"""Ends of the names of what we write, labels and pictures of them, which is not to be segmented in turn."""
TAGGED = (".tif", ".tiff", ".png")
"""Of files that may say inside, whatever their names, that we wrote them."""


def listed(arguments: Sequence[str], *, quiet: bool = False) -> list[str]:
    """The scenes that arguments name: themselves, the rasters in folders, and with `-` the lines of standard input.

    A scene that is named twice is there once. Raises UsageError where a folder or standard input has none, and for a
    number that is no file.
    """
    found = (scene for argument in arguments for scene in (_lines() if argument == "-" else [_named(argument)]))
    scenes = [path for scene in found for path in (_rasters(scene, quiet) if os.path.isdir(scene) else [scene])]
    first = {os.path.abspath(scene): scene for scene in reversed(scenes)}
    return list(dict.fromkeys(first[os.path.abspath(scene)] for scene in scenes))


def _named(argument: str) -> str:
    """An argument, unless it is a number that an option was to take. Raises UsageError."""
    if argument.replace(".", "", 1).isdecimal() and not os.path.exists(argument):
        raise UsageError(
            f"there is no scene named {argument}; if it belongs to an option, numbers are written with commas, as in "
            "--bands 3,2,1"
        )
    return argument


def named(argument: str) -> list[str]:
    """What an argument names: itself, or with `@FILE` the paths in the lines of a file. Raises UsageError."""
    if not argument.startswith("@") or os.path.exists(argument):
        return [argument]
    try:
        text = Path(argument[1:]).read_text(encoding="utf-8-sig")
    except (OSError, UnicodeError) as error:
        raise UsageError(f"{argument}: cannot read this list of paths: {first_line(error)}") from error
    if not (found := [line.strip() for line in text.splitlines() if line.strip()]):
        raise UsageError(f"{argument}: there is no path in this list")
    return found


def _lines() -> list[str]:
    try:
        lines = [line.rstrip("\r\n") for line in sys.stdin]
    except UnicodeDecodeError as error:
        raise UsageError(f"standard input is no list of paths: {error}") from error
    if any("\0" in line for line in lines):
        raise UsageError("- reads one path a line from standard input: use find -print, not -print0")
    if not any(line.strip() for line in lines):
        raise UsageError("- reads paths of scenes from standard input, one a line; there was none")
    return [line for line in lines if line.strip()]


def _rasters(folder: str, quiet: bool) -> list[str]:
    """The rasters in a folder by name, but not ours and not those of its folders; or itself, if GDAL opens it."""
    try:
        names = sorted(entry.name for entry in os.scandir(folder) if entry.is_file())
    except OSError as error:
        raise SceneError(f"cannot list the folder {folder}: {first_line(error)}") from error
    rasters = [os.path.join(folder, n) for n in names if n.lower().endswith(SUFFIXES) and not n.startswith(".")]
    found = [path for path in rasters if not _is_ours(path)]
    if not found:
        return [_as_raster(folder, len(rasters))]
    if len(found) < len(rasters):
        talk(f"{folder}: left out {_wrote(len(rasters) - len(found))}; name a file itself to take it", quiet=quiet)
    return found


def _is_ours(path: str) -> bool:
    """Whether a raster is something that we wrote, by its name or by what it says inside.

    One that cannot be opened is not, so that its error is told when its turn comes.
    """
    if path.lower().endswith(OURS):
        return True
    if not path.lower().endswith(TAGGED):
        return False
    from geoovseg.rasters.open import opened

    try:
        with opened(path, path) as src:
            return RUN_TAG in src.tags()
    except SceneError:
        return False


def _wrote(count: int) -> str:
    """`2 rasters that geoovseg wrote`."""
    return f"{count} raster{'s' * (count != 1)} that geoovseg wrote"


def _as_raster(folder: str, ours: int) -> str:
    from geoovseg.rasters.open import opened

    try:
        with opened(folder, folder):
            return folder
    except SceneError as error:
        besides = f" besides {_wrote(ours)}" if ours else ""
        kinds = ", ".join(SUFFIXES)
        raise UsageError(f"the folder {folder} has no raster ({kinds}){besides}{_deeper(folder)}") from error


def _deeper(folder: str) -> str:
    """What to do where the rasters may lie in folders of a folder."""
    with os.scandir(folder) as entries:
        if not any(entry.is_dir() and not entry.name.startswith(".") for entry in entries):
            return ""
    place = shlex.quote(str(PurePath(folder)))
    return f"; its subfolders are not searched: find {place} -name '*.tif' | geoovseg segment - ..."
