"""What a scene is called and where it lies, however GDAL is told to find it: files, parts of files, archives, URLs."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from pathlib import Path, PurePath
from urllib.parse import unquote

from geoovseg.files import is_store

NAMELESS = "scene"
"""What is called this has no name of its own."""
FEATURES = "_features"
"""What the name of kept features ends with, before the suffix."""
_PART = re.compile(r"([A-Za-z][A-Za-z0-9_]+):(?!//)(.+)", re.DOTALL)
"""`NETCDF:"file.nc":variable`, `GTIFF_DIR:2:file.tif`; one letter would be a disk."""
_WAYS = re.compile(
    r"/vsicurl\?(?:.*&)?url=|(?:/vsi(?!curl\?)[a-z0-9_]+/)+(?:\d+_\d+,)?|"
    r"(?:zip|tar|gzip)\+(?!file)|(?:file|vrt|(?:zip|tar|gzip)(?:\+file)?):(?://)?",
    re.IGNORECASE,
)
"""Starts of names that say how to get at a file."""


def place_of(scene: str) -> tuple[Path, str]:
    """The folder that outputs of a scene go to, and its name without a suffix.

    The folder is that of the file on disk that it is, or is in; else the current one. A name that is not simply that
    of a file on disk has only letters, digits, `_`, `-` and `.`.
    """
    if os.path.exists(scene):
        stem = Path(os.path.abspath(scene)).stem
        if is_store(scene):
            stem = stem.removesuffix(FEATURES)
        return Path(scene).parent, stem or NAMELESS
    path, part = _parted(scene)
    file = _bare(path)
    if os.path.exists(file):
        folder, stem = Path(file).parent, Path(file).stem
    else:
        archive = next(filter(os.path.isfile, map(str, PurePath(file).parents)), None)
        folder = Path(archive).parent if archive else Path()
        stem = _clean(PurePath(unquote(file.partition("?")[0])).stem)
    return folder, (f"{_clean(stem)}_{part}".strip("_") if part else stem) or NAMELESS


def where_of(scene: str) -> PurePath:
    """Where a scene is, of which the folders may become part of a name; of a part of a file, the file."""
    path = scene if os.path.exists(scene) else _bare(_parted(scene)[0])
    return PurePath(path.split("?")[0] if "://" in path else os.path.abspath(path))


def _parted(scene: str) -> tuple[str, str]:
    """The file of which a part is named, and the part; XML that is a scene by itself has no name."""
    if scene.lstrip().startswith("<"):
        return "", ""
    found = _PART.fullmatch(scene)
    if found is None or _WAYS.match(scene):
        return scene, ""
    driver, rest = found.groups()
    quoted = re.search(r'"([^"]+)"', rest)
    path = quoted[1] if quoted else max(_runs(rest), key=_likely)
    before, _, after = rest.partition(f'"{path}"' if quoted else path)
    parts = [_clean(before), _clean(after)]
    if driver.upper() == "GTIFF_DIR":
        parts[0] = f"page{parts[0].replace('off_', '_at_')}"
    return path, "_".join(filter(None, parts))


def _runs(text: str) -> Iterator[str]:
    """What may be a file in `a:b:c`: neighbours together, the most first."""
    pieces = text.split(":")
    for length in range(len(pieces), 0, -1):
        for start in range(len(pieces) - length + 1):
            yield ":".join(pieces[start : start + length])


def _likely(path: str) -> tuple[bool, bool, bool]:
    """How likely a text is a file: it is there, or looks like a place, or at least like a name."""
    file = _bare(path)
    return (
        os.path.exists(file),
        "://" in path or path.startswith("/"),
        re.fullmatch(r"\.\w+", PurePath(file).suffix) is not None,
    )


def _bare(path: str) -> str:
    """A file without what says how to get at it, archives as if they were folders."""
    way = _WAYS.match(path)
    if way is None:
        return path
    text = path[way.end() :].replace("{", "").replace("}", "").replace("!", "/")
    text = text if way[0].lower().startswith("/vsi") and "?" not in way[0] else text.partition("?")[0]
    return _bare(text if os.path.exists(text) else unquote(text))


def _clean(text: str) -> str:
    """Letters, digits, `_`, `-`, `.`; one `_` for all else."""
    return re.sub(r"__+", "_", re.sub(r"[^\w.-]+", "_", text)).strip("_.-")
