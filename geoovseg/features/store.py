"""Features on disk: a Zarr store (version 3) that is whole or not there, and says what it was made of.

`features` (rows, columns, D) float16 has one vector a cell, `valid` (height, width) is 1 where the scene has data, and
`regions` (height, width) int32 has ids where regions may vote when words are asked. `x`, `y` and `spatial_ref` are as
CF wants them, so that xarray with rioxarray knows the place. Chunks carry a checksum.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from geoovseg.errors import SceneError, first_line, hushed
from geoovseg.files import LARGEST_TEXT, StrPath, bytes_of, is_object
from geoovseg.network import is_remote
from geoovseg.rasters.objects import below, read
from geoovseg.windows.plan import Panel, Span

FEATURES, VALID, REGIONS, ABOUT = "features", "valid", "regions", "geoovseg"
SIDE = 64
"""Cells on a side of a chunk of features."""
VALID_SIDE = 512
"""Pixels on a side of a chunk of the mask."""
VERSION = 1
"""Of the form of a store."""
MISSING: dict[str, Any] = {FEATURES: np.nan, VALID: 255, REGIONS: -1}
"""What a missing chunk reads as, which nothing that is there does."""


@dataclass(frozen=True, kw_only=True)
class About:
    """What a store says of itself, in its attributes."""

    version: int = VERSION
    height: int
    width: int
    """in pixels of the grid that the scene was seen on"""
    crs: str | None
    transform: tuple[float, ...]
    """(a, b, c, d, e, f) of the pixels' place"""
    rows: int
    columns: int
    depth: int
    """cells, and numbers of a vector"""
    cell: int
    """pixels on a side of a cell"""
    unit: int
    """what windows began and ended at multiples of, in pixels"""
    scale: float
    """factor on cosines before the softmax over classes"""
    is_demo: bool
    """whether this is a drawn demo scene"""
    failed_windows: int
    """that could not be read, and were skipped"""
    record: Mapping[str, Any]
    """the run record of the encoding, without words"""
    regions: bool = False
    """whether it keeps regions"""
    source: str | None = None
    """the scene, as seen from the folder of the store"""
    source_identity: str = ""
    """what the scene alone is known by, where the record counts a file of regions to it"""
    source_scale: str = "auto"
    """what was said of its range"""

    def scene_of(self, store: StrPath) -> str | None:
        """Where the scene is, of a store with this name; none where that was not said."""
        if self.source is None or is_remote(self.source):
            return self.source
        return os.path.normpath(os.path.join(os.path.dirname(os.fspath(store)), self.source))

    @property
    def megabytes(self) -> float:
        """That the features take on a disk."""
        return megabytes(self.rows, self.columns, self.depth)

    @classmethod
    def of(cls, said: Any, name: str) -> About:
        """As it was written. Raises SceneError for anything else, which says what to do."""
        try:
            if said["version"] != VERSION:
                raise SceneError(f"{name} has features in form {said['version']}, and this version reads {VERSION}")
            a, b, c, d, e, f = map(float, said["transform"])
            found = cls(**{**said, "transform": (a, b, c, d, e, f)})
        except (LookupError, TypeError, ValueError) as error:
            raise SceneError(f"{name} is no store of features: {first_line(error)}; encode the scene anew") from error
        return found


def megabytes(rows: int, columns: int, depth: int) -> float:
    """What features of so many cells take, each a vector of so many numbers."""
    return round(2 * rows * columns * depth / 1e6, 1)


def create(folder: Path, about: About) -> Any:
    """An empty store of this form, to put chunks in; returns its zarr group. It is to be closed by `finish`."""
    import zarr

    root = zarr.create_group(folder)
    _array(root, FEATURES, (about.rows, about.columns, about.depth), "float16", SIDE)
    _array(root, VALID, (about.height, about.width), "uint8", VALID_SIDE)
    if about.regions:
        _array(root, REGIONS, (about.height, about.width), "int32", VALID_SIDE)
    for name, at, step, count in (("x", 2, 0, about.width), ("y", 5, 4, about.height)):
        centres = about.transform[at] + about.transform[step] * (np.arange(count, dtype=np.float64) + 0.5)
        _coordinate(root, name, centres)
    _place(root, about)
    return root


def _array(root: Any, name: str, shape: tuple[int, ...], kind: str, side: int) -> Any:
    from zarr.codecs import Crc32cCodec, ZstdCodec

    packing = [Crc32cCodec()] if name == FEATURES else [ZstdCodec(level=1), Crc32cCodec()]
    dims = ("cell_y", "cell_x", "feature") if name == FEATURES else ("y", "x")
    return root.create_array(
        name,
        shape=shape,
        dtype=kind,
        chunks=(side, side, *shape[2:]),
        compressors=packing,
        fill_value=MISSING[name],
        dimension_names=dims,
        attributes={"grid_mapping": "spatial_ref"},
        config={"write_empty_chunks": True},
    )


def _coordinate(root: Any, name: str, centres: NDArray[Any]) -> None:
    """The centres of columns, or rows, of pixels; of a turned scene, along its first row and column."""
    kind = f"projection_{name}_coordinate"
    array = root.create_array(name, shape=centres.shape, dtype="float64", chunks=centres.shape, dimension_names=(name,))
    array.attrs.update({"axis": name.upper(), "standard_name": kind})
    array[:] = centres


def _place(root: Any, about: About) -> None:
    """Where it lies, as GDAL, CF and rioxarray say it."""
    array = root.create_array("spatial_ref", shape=(), dtype="int32", dimension_names=())
    a, b, c, d, e, f = about.transform
    array.attrs["GeoTransform"] = " ".join(map(repr, (c, a, b, f, d, e)))
    if about.crs is not None:
        array.attrs.update({"crs_wkt": about.crs, "spatial_ref": about.crs})
    array[...] = 0


def finish(root: Any, folder: Path, about: About) -> None:
    """Write what makes a store one: what it was made of, and all metadata in one file, which xarray asks for."""
    import zarr

    root.attrs.update({"coordinates": "spatial_ref", ABOUT: asdict(about)})
    with hushed(UserWarning):  # that this is not in the specification yet
        zarr.consolidate_metadata(folder)


def chunks(about: About, first: int, left: int, columns: list[NDArray[np.float16]]) -> Iterator[tuple[str, bytes]]:
    """Chunks of features with their names in a store, of columns of cells (n, SIDE, D) that begin where chunks begin.

    Columns are taken from the list one by one, so that they are not held twice.
    """
    from zarr import create_group
    from zarr.storage import MemoryStore

    held: dict[str, Any] = {}
    array = _array(create_group(MemoryStore(held)), FEATURES, (about.rows, about.columns, about.depth), "float16", SIDE)
    while columns:
        vectors = columns.pop(0)
        array[first : first + len(vectors), left : left + vectors.shape[1]] = vectors
        left += vectors.shape[1]
        for key in [key for key in held if "/c/" in key]:
            yield key, held.pop(key).to_bytes()


class FeatureStore:
    """A finished store, read chunk by chunk."""

    def __init__(self, path: StrPath) -> None:
        self.path = os.fspath(path)
        self.about = about_of(self.path)
        import zarr

        try:
            root: Any = zarr.open_group(_readable(self.path), mode="r")
            self._features, self._valid = root[FEATURES], root[VALID]
            self._regions = root[REGIONS] if self.about.regions else None
        except Exception as error:  # zarr's, of many kinds
            raise SceneError(f"{self.path} cannot be opened as features: {first_line(error)}") from error
        self._last: dict[str, tuple[tuple[int, Panel], NDArray[Any]]] = {}
        said = self.about
        known = [self._features, self._valid, *([] if self._regions is None else [self._regions])]
        shapes = [(said.rows, said.columns, said.depth), *[(said.height, said.width)] * (len(known) - 1)]
        if [each.shape for each in known] != shapes or self._features.dtype != np.float16:
            raise SceneError(f"{self.path} is damaged: its arrays are not as it says; encode the scene anew")

    @property
    def files(self) -> tuple[str, ...]:
        """What tells whether it is still the one it was."""
        arrays = (FEATURES, VALID, *([REGIONS] if self.about.regions else []))
        return (f"{self.path}/zarr.json", *(f"{self.path}/{name}/zarr.json" for name in arrays))

    def rows(self, span: Span, panel: Panel) -> Iterator[tuple[int, NDArray[np.float16]]]:
        """Features (n, columns, D) of rows of cells of a panel, a row of chunks at a time, each with its first row."""
        first = span[0]
        while first < span[1]:
            end = min(span[1], (first // SIDE + 1) * SIDE)
            found = np.empty((end - first, panel.width, self.about.depth), np.float16)
            for left, right in _cuts(panel, SIDE):
                found[:, left - panel.col_off : right - panel.col_off] = self._piece(first, end, left, right)
            yield first, found
            first = end

    def _piece(self, first: int, end: int, left: int, right: int) -> NDArray[np.float16]:
        """Features within a chunk. Raises SceneError, which names it, where it is damaged or gone."""
        found = self._read(self._features, FEATURES, SIDE, slice(first, end), slice(left, right))
        if np.isnan(found).any():
            raise self._lost(FEATURES, SIDE, first, left, "it is not there, or holds what is no feature")
        return np.asarray(found, np.float16)

    def valid(self, rows: Span, panel: Panel) -> NDArray[np.bool_]:
        """Where the scene has data (n, columns), of rows of pixels of a panel. Raises SceneError."""
        return self._of_pixels(VALID, self._valid, rows, panel).astype(bool)

    def regions(self, rows: Span, panel: Panel) -> NDArray[np.int32] | None:
        """The regions of rows of pixels of a panel (n, columns), 0 for none, if any are kept. Raises SceneError."""
        return None if self._regions is None else self._of_pixels(REGIONS, self._regions, rows, panel)

    def _of_pixels(self, name: str, array: Any, rows: Span, panel: Panel) -> NDArray[Any]:
        """What is kept of rows of pixels of a panel (n, columns)."""
        bands = []
        for top in range(rows[0] // VALID_SIDE * VALID_SIDE, rows[1], VALID_SIDE):
            bands.append(self._band(name, array, top, panel)[max(0, rows[0] - top) : rows[1] - top])
        return np.concatenate(bands)

    def _band(self, name: str, array: Any, top: int, panel: Panel) -> NDArray[Any]:
        """A row of chunks of an array; the last one is kept, as its rows are asked for a few at a time."""
        if name not in self._last or self._last[name][0] != (top, panel):
            end = min(top + VALID_SIDE, self.about.height)
            cuts = [self._cut(name, array, top, end, *cut) for cut in _cuts(panel, VALID_SIDE)]
            self._last[name] = (top, panel), np.concatenate(cuts, axis=1)
        return self._last[name][1]

    def _cut(self, name: str, array: Any, first: int, end: int, left: int, right: int) -> NDArray[Any]:
        found = self._read(array, name, VALID_SIDE, slice(first, end), slice(left, right))
        if (found < 0).any() if name == REGIONS else (found > 1).any():
            what = "mask" if name == VALID else "region"
            raise self._lost(name, VALID_SIDE, first, left, f"it is not there, or holds what is no {what}")
        return found

    def _read(self, array: Any, name: str, side: int, rows: slice, columns: slice) -> NDArray[Any]:
        try:
            return np.asarray(array[rows, columns])
        except Exception as error:  # zarr's, of many kinds
            raise self._lost(name, side, rows.start, columns.start, first_line(error)) from error

    def _lost(self, name: str, side: int, row: int, column: int, why: str) -> SceneError:
        last = "/0" if name == FEATURES else ""
        chunk = f"{name}/c/{row // side}/{column // side}{last}"
        return SceneError(f"{self.path} is damaged: chunk {chunk}: {why}; encode the scene anew")


def _readable(path: str) -> Any:
    """What zarr reads a store from."""
    from zarr.storage import ObjectStore

    return ObjectStore(below(path), read_only=True) if is_object(path) else path


def moved(folder: Path, source: str) -> None:
    """Have a store name its scene so that it is found wherever the store goes."""
    path = folder / "zarr.json"
    said = json.loads(path.read_text(encoding="utf-8"))
    said["attributes"][ABOUT]["source"] = source
    path.write_text(json.dumps(said), encoding="utf-8")


def about_of(path: StrPath) -> About:
    """What a store says of itself. Raises SceneError for one that is not finished, or none of ours."""
    name = f"{os.fspath(path)}/zarr.json"
    try:
        said = json.loads(read(name) if is_object(path) else bytes_of(Path(name), LARGEST_TEXT))
        found = said["attributes"][ABOUT]
    except (OSError, ValueError, LookupError, TypeError, RecursionError) as error:
        hint = f"make them, or finish them with --resume: geoovseg encode SCENE -o {path}"
        raise SceneError(f"{path} holds no finished features; {hint}") from error
    return About.of(found, str(path))


def _cuts(panel: Panel, side: int) -> Iterator[Span]:
    """A panel's columns, cut where chunks end."""
    first, end = panel.col_off, panel.col_off + panel.width
    while first < end:
        yield first, (last := min(end, (first // side + 1) * side))
        first = last
