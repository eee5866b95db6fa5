"""What the arguments of `geoovseg segment` list: scenes, folders of them, paths on standard input."""

from __future__ import annotations

import io
import os
import shlex
import sys
from collections.abc import Sequence
from pathlib import Path, PurePath

from geoovseg.cli.output import talk
from geoovseg.errors import SceneError, UsageError, first_line
from geoovseg.files import LARGEST_LIST, RASTERS, bytes_of, is_store, text_of, within
from geoovseg.labels.ours import is_ours

HEAD = 4096
"""Bytes by which a list is told from the content of a file."""


def listed(arguments: Sequence[str], *, quiet: bool = False) -> list[str]:
    """The scenes that arguments name: themselves, the rasters in folders, and with `-` the lines of standard input.

    A scene that is named twice is there once. Raises UsageError where a folder or standard input has none, and for a
    number that is no file.
    """
    found = as_given(arguments)
    scenes = [path for scene in found for path in (_rasters(scene, quiet) if _is_folder(scene) else [scene])]
    first = {os.path.abspath(scene): scene for scene in reversed(scenes)}
    return list(dict.fromkeys(first[os.path.abspath(scene)] for scene in scenes))


def _is_folder(scene: str) -> bool:
    """Whether a name is that of a folder of scenes, and not of features that were kept."""
    return os.path.isdir(scene) and not is_store(scene)


def as_given(arguments: Sequence[str]) -> list[str]:
    """What arguments name, folders as such; for `-` the lines of standard input. Raises UsageError as `listed`."""
    return [name for argument in arguments for name in (_lines() if argument == "-" else [_named(argument)])]


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
        text = bytes_of(Path(argument[1:]), LARGEST_LIST).decode("utf-8-sig")
    except (OSError, UnicodeError) as error:
        raise UsageError(f"{argument}: cannot read this list of paths: {first_line(error)}") from error
    if not (found := [line.strip() for line in text.splitlines() if line.strip()]):
        raise UsageError(f"{argument}: there is no path in this list")
    return found


def _lines() -> list[str]:
    """The lines of standard input, one path each. Raises UsageError for what is no such list."""
    lines = [line.rstrip("\r") for line in _standard_input().split("\n")]
    if not any(line.strip() for line in lines):
        raise UsageError("- reads paths of scenes from standard input, one a line; there was none")
    return [line for line in lines if line.strip()]


def _standard_input() -> str:
    """What is piped in, of which only the start is read where that is no text. Raises UsageError."""
    source = getattr(sys.stdin, "buffer", None) or io.BytesIO(sys.stdin.read().encode() if sys.stdin else b"")
    head = source.read(HEAD)
    _check_list(_decoded(head[: len(head) // 2 * 2]))
    try:
        return _decoded(within(source, LARGEST_LIST, head))
    except OSError as error:
        raise UsageError(
            f"- reads a list of paths from standard input, and cannot: {first_line(error)}; list fewer at once"
        ) from error


def _decoded(content: bytes) -> str:
    """Text; bytes that are none stay what they are, as in names of files on other systems."""
    try:
        return text_of(content)
    except UnicodeDecodeError:
        return content.decode(errors="surrogateescape")


def _check_list(text: str) -> None:
    """Refuse what is no list of paths, by how it starts. Raises UsageError."""
    names = text.split("\0")
    if any(ord(sign) < 32 and sign not in "\t\r\n" for name in names for sign in name):
        raise UsageError(
            "- reads a list of names from standard input, one path a line, and this is the content of a file; give the "
            "file's name instead: geoovseg segment scene.tif, or for many: ls *.tif | geoovseg segment -"
        )
    if len(names) > 1:
        raise UsageError("- reads one path a line from standard input: use find -print, not -print0")


def _rasters(folder: str, quiet: bool) -> list[str]:
    """The rasters in a folder by name, but not ours and not those of its folders; or itself, if GDAL opens it.

    Of a folder without rasters, the features that are kept in it.
    """
    try:
        entries = sorted((entry.name, entry.is_file()) for entry in os.scandir(folder))
    except OSError as error:
        raise SceneError(f"cannot list the folder {folder}: {first_line(error)}") from error
    names = [name for name, is_file in entries if is_file]
    rasters = [os.path.join(folder, n) for n in names if n.lower().endswith(RASTERS) and not n.startswith(".")]
    found = [path for path in rasters if not is_ours(path)]
    kept = [path for name, is_file in entries if not is_file and is_store(path := os.path.join(folder, name))]
    if not found and kept:
        return kept
    if not found:
        return [_as_raster(folder, len(rasters))]
    if len(found) < len(rasters):
        talk(f"{folder}: left out {_wrote(len(rasters) - len(found))}; name a file itself to take it", quiet=quiet)
    return found


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
        kinds = ", ".join(RASTERS)
        raise UsageError(f"the folder {folder} has no raster ({kinds}){besides}{_deeper(folder)}") from error


def _deeper(folder: str) -> str:
    """What to do where the rasters may lie in folders of a folder."""
    if os.path.isdir(os.path.join(folder, "GRANULE")):
        return "; it is a Sentinel-2 product: add --stack to see its bands as one scene"
    with os.scandir(folder) as entries:
        if not any(entry.is_dir() and not entry.name.startswith(".") for entry in entries):
            return ""
    place = shlex.quote(str(PurePath(folder)))
    return f"; its subfolders are not searched: find {place} -name '*.tif' | geoovseg segment - ..."
