"""What files name on other machines: a VRT or the description of a service is a file here, and its pixels are not."""

from __future__ import annotations

import html
import os
import re
import warnings
from collections.abc import Iterable, Iterator
from pathlib import Path

from geoovseg.errors import GeoOVSegWarning, SceneError, some
from geoovseg.network import is_offline, is_remote, public

LARGEST = 1 << 26
"""Bytes of a description that is looked into."""
_BEGINNING = 4096
_DESCRIPTION = re.compile(
    r"<(?:VRTDataset|OGRVRTDataSource|(?:GDAL_)?(?:WMS|WMTS)\w*|WCS_GDAL|Capabilities|WMT_MS_Capabilities|OGRWFSDataSource|"
    r"OGRCSWDataSource|MRF_META|GDALTileIndexDataset|PAMDataset)\b|\"gdal_streamed_alg\""
)
"""In the beginning of files that name others, of all kinds GDAL knows."""
_STAC = re.compile(r"\"stac_version\"|\"stac_extensions\"")
"""In those that name others if they are opened as rasters; else they are shapes."""
_TEXT = re.compile(r"<(?!MDI\b|SRS\b|Metadata\b|Description\b|SrcSQL\b)\w[^<>]*>\s*([^<]+?)\s*</")
_SPECIAL = re.compile(r'<MDI key="OVERVIEW_FILE">\s*([^<>]+?)\s*<|"href"\s*:\s*"([^"]+)"|xlink:href="([^"]+)"')
_COMMAND = re.compile(r'"command_line"\s*:\s*"((?:[^"\\]|\\.)*)"')


def check_reachable(name: str, *, pixels: bool = True) -> None:
    """Refuse what is read over the network while that is forbidden; else tell of what only the content names.

    Without `pixels`, shapes are to be read. Raises SceneError.
    """
    if not is_remote(name):
        _check(name, named_elsewhere(name, pixels=pixels))
    elif is_offline():
        raise SceneError(f"{name} is not on this machine, and --offline or GEOOVSEG_OFFLINE forbid the network")


def check_sources(name: str, vrt: str) -> None:
    """The same for a VRT that is no plain file, such as one in an archive, by its content. Raises SceneError."""
    if not is_remote(name):
        _check(name, named_elsewhere(vrt))


def _check(name: str, names: Iterable[str]) -> None:
    found = list(dict.fromkeys(names))
    if not found:
        return
    if is_offline():
        raise SceneError(
            f"{name} is made of {some(found)}, not on this machine; --offline or GEOOVSEG_OFFLINE forbid the network"
        )
    servers = some(dict.fromkeys(map(_server, found)))
    warnings.warn(f"{name} lies here, but is read over the network, from {servers}", GeoOVSegWarning, 6)


def _server(name: str) -> str:
    """`http://host:port` of an address, or the whole of another name."""
    found = re.search(r"\w+://[^/\s\"']+", public(name))
    return found[0] if found else public(name)


def named_elsewhere(name: str, *, pixels: bool = True) -> Iterator[str]:
    """What a file here names on other machines, and the files here that it names, and so on."""
    kinds = (_DESCRIPTION, _STAC) if pixels else (_DESCRIPTION,)
    seen: set[str] = set()
    waiting = [name, f"{name}.aux.xml"]
    while waiting:
        path = waiting.pop()
        if "\0" in path or os.path.realpath(path) in seen:
            continue
        seen.add(os.path.realpath(path))
        folder = "" if _is_text(path) else os.path.dirname(path)
        for text in _names(_description(path, kinds)):
            if is_remote(text):
                yield text
            else:
                waiting += [text, os.path.join(folder, text)]


def _names(content: str) -> Iterator[str]:
    """Texts of a description that may be names."""
    for found in _TEXT.finditer(content):
        yield html.unescape(found[1])
    for found in _SPECIAL.finditer(content):
        yield html.unescape(next(filter(None, found.groups())))
    for found in _COMMAND.finditer(content):
        yield from re.split(r"[\s\\\"']+", found[1])


def _is_text(path: str) -> bool:
    """Whether a name is a description itself, with names as seen from where we are."""
    return path.lstrip().startswith("<")


def _description(path: str, kinds: Iterable[re.Pattern[str]]) -> str:
    """The content of a description, a file or the name itself; nothing where there is none."""
    if _is_text(path):
        return path
    try:
        if not os.path.isfile(path) or os.path.getsize(path) > LARGEST:
            return ""
        with Path(path).open("rb") as file:
            start = file.read(_BEGINNING)
            if not any(kind.search(start.decode(errors="replace")) for kind in kinds):
                return ""
            return (start + file.read(LARGEST)).decode(errors="replace")
    except (OSError, ValueError):
        return ""
