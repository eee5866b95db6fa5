"""Items of a STAC catalogue as scenes: their assets by name, their ids as names of outputs."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urljoin

from geoovseg.errors import SceneError, UsageError, first_line, some
from geoovseg.files import bytes_of, text_of

LARGEST = 1 << 28
"""Bytes of a file of items at most."""
USUAL = ("visual", "image", "data")
"""Assets that are taken unless told otherwise, the first that is there."""
IMAGE = "image/"
_UNFIT = re.compile(r"[^\w.-]+")


@dataclass(frozen=True, kw_only=True)
class Item:
    """One item: what it is called, and where its pixels are."""

    id: str
    assets: tuple[str, ...]
    """addresses of the assets that were asked for, in that order"""
    said: Mapping[str, Any]
    """all that its file says of it"""

    @property
    def name(self) -> str:
        """Its id as the name of a file."""
        return _UNFIT.sub("_", self.id).strip("._") or "item"


def holds_items(path: str) -> bool:
    """Whether a file holds STAC items: JSON of an item or of several, or GeoParquet with a column of assets."""
    end = os.path.splitext(path)[1].lower()
    if end not in (".json", ".geojson", ".parquet") or not os.path.isfile(path):
        return False
    if end == ".parquet":
        return "assets" in _columns(path)
    with open(path, "rb") as file:
        start = file.read(1 << 16)
    return b"stac_version" in start or (b'"FeatureCollection"' in start and b'"assets"' in start)


def items_of(path: str, wanted: Sequence[str] = ()) -> list[Item]:
    """The items in a file, with the assets that are wanted: one image, or three bands.

    Raises SceneError for a file that holds none, UsageError for assets that an item does not have.
    """
    try:
        found = [*_features(path)]
        items = [Item(id=str(said["id"]), assets=_assets(said, wanted, path), said=said) for said in found]
    except UsageError:
        raise
    except (OSError, ValueError, LookupError, TypeError, AttributeError, RecursionError) as error:
        raise SceneError(f"{path} holds no STAC items: {first_line(error)}") from error
    if not items:
        raise SceneError(f"{path} holds no STAC items")
    names = [item.name for item in items]
    if twice := sorted({name for name in names if names.count(name) > 1}) if len(set(names)) < len(names) else []:
        raise UsageError(f"{path} has several items called {some(twice)}, whose outputs would be one file")
    return items


def _features(path: str) -> Iterator[Mapping[str, Any]]:
    if path.lower().endswith(".parquet"):
        yield from _rows(path)
        return
    said = json.loads(text_of(bytes_of(Path(path), LARGEST)))
    yield from said["features"] if said.get("type") == "FeatureCollection" else [said]


def _columns(path: str) -> list[str]:
    import pyarrow
    from pyarrow import parquet

    try:
        return list(parquet.read_schema(path).names)
    except (OSError, pyarrow.ArrowException):
        return []


def _rows(path: str) -> Iterator[Mapping[str, Any]]:
    """Items of GeoParquet, as stac-geoparquet has them: a struct of assets, of which empty ones are null."""
    from pyarrow import parquet

    for row in parquet.read_table(path, columns=["id", "assets"]).to_pylist():
        yield {**row, "assets": {name: asset for name, asset in row["assets"].items() if asset}}


def _assets(said: Mapping[str, Any], wanted: Sequence[str], path: str) -> tuple[str, ...]:
    """Addresses of the assets of an item. Raises UsageError."""
    there: Mapping[str, Any] = said["assets"]
    images = [name for name, asset in there.items() if str(asset.get("type") or IMAGE).startswith(IMAGE)]
    chosen = [*wanted] or [*(name for name in USUAL if name in there)][:1] or (images if len(images) == 1 else [])
    if not chosen or (missing := [name for name in chosen if name not in there]):
        what = f"no asset {some(missing)}" if chosen else "several images"
        names = some(there, 20)
        raise UsageError(f"item {said['id']} in {path} has {what}; name one, or three bands, by --asset: {names}")
    return tuple(_address(str(there[name]["href"]), path) for name in chosen)


def _address(href: str, path: str) -> str:
    """Where an asset is; relative ones lie beside the file."""
    if "://" in href or href.startswith("/"):
        return href
    return urljoin(path, href) if "://" in path else os.path.normpath(os.path.join(os.path.dirname(path), href))
