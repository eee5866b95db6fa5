"""Polygons that a person edited, put back into labels: names and counts right, and told in the run record."""

from __future__ import annotations

import json
import os
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import shapely
from numpy.typing import NDArray
from rasterio.features import rasterize
from rasterio.windows import Window
from rasterio.windows import transform as window_transform

from geoovseg.errors import SceneError, UsageError
from geoovseg.files import as_path, bench
from geoovseg.labels.areas import Piece
from geoovseg.labels.names import Outputs, side_files, swap, writing
from geoovseg.labels.profile import LabelProfile, crs_for_side_file, legend_with
from geoovseg.labels.record import RunRecord
from geoovseg.labels.styles import label_aux_xml, label_qml
from geoovseg.labels.write import LABELS, empty_raster, sidecars
from geoovseg.models.download import file_sha256
from geoovseg.prompts import customary_colour, fold
from geoovseg.rasters.cog import piece, write_cog
from geoovseg.rasters.ground import RasterGrid
from geoovseg.rasters.open import opened, plain_open, raster_env
from geoovseg.scene.shapes import named_shapes
from geoovseg.windows.plan import BLOCK

FIELD = "class_name"
"""The column of names in polygons of `geoovseg vectorize`."""
BACKGROUND = "background"


@dataclass(frozen=True, kw_only=True)
class ApplyResult:
    """What was written; `to_json` is what `geoovseg apply --json` prints. It is a path, too."""

    labels: str
    polygons: int
    """that were put in"""
    without_class: int
    """polygons without a name, which were left out"""
    changed: int
    """pixels that have another class now"""
    added: tuple[str, ...]
    """classes that the labels did not have"""
    classes: dict[str, int]
    """pixels by class name"""

    def __fspath__(self) -> str:
        return self.labels

    def to_json(self) -> str:
        """One line of JSON."""
        return json.dumps(asdict(self), ensure_ascii=False)


def apply(
    labels: str | os.PathLike[str],
    edits: str | os.PathLike[str],
    output: str | os.PathLike[str],
    *,
    field: str = FIELD,
    layer: str | None = None,
    outside: str | None = None,
    overwrite: bool = False,
) -> ApplyResult:
    """Put edited polygons back into labels, as a finished label raster of its own.

    Pixels whose centres lie in a polygon take its class, later polygons over earlier ones; others keep theirs, or are
    `outside`. Names are those of the column `field`, in any case; a name that the labels lack becomes a class of its
    own. Where the labels have no data there stays none.

    Raises SceneError for what cannot be read, UsageError for a column that is not there and for polygons that are all
    somewhere else, OutputError.
    """
    target, source = as_path(output, "the labels"), os.fspath(labels)
    with raster_env(), opened(source, f"{source!r} as labels") as src:
        record = RunRecord.of(src)
        if record is None:
            raise SceneError(f"{source} is no label raster of geoovseg segment: it has no run record")
        Outputs(target).check([source, os.fspath(edits)], overwrite=overwrite)
        drawn, without = _drawn(os.fspath(edits), src.crs, field, layer)
        names = [name for _, name in drawn] + ([outside] if outside is not None else [])
        whole = _with_classes(record, names)
        codes = _codes(whole)
        told = {"file": os.path.basename(os.fspath(edits)), "sha256": _digest(edits), "polygons": len(drawn)}
        whole = replace(whole, edits=(*record.edits, {**told, "outside": outside}))
        grid = RasterGrid(height=src.height, width=src.width, crs=src.crs, transform=src.transform)
        _check_there(drawn, grid, os.fspath(edits), source)
        profile = LabelProfile(grid, whole.colours, bool(whole.background))
        shapes = [(shape, codes[fold(name)]) for shape, name in drawn]
        beyond = None if outside is None else codes[fold(outside)]
        counts, changed = _write(src, profile, whole.to_json(), shapes, beyond, target)
    called = {0: BACKGROUND} | {code: name for code, (name, *_) in enumerate(whole.classes, start=1)}
    return ApplyResult(
        labels=str(target), polygons=len(drawn), without_class=without, changed=changed,
        added=tuple(name for name, *_ in whole.classes[len(record.classes) :]),
        classes={called[code]: n for code, n in sorted(counts.items()) if code in called},
    )  # fmt: skip


def _digest(path: str | os.PathLike[str]) -> str | None:
    return file_sha256(Path(path)) if os.path.isfile(path) else None


def _drawn(edits: str, crs: Any, field: str, layer: str | None) -> tuple[list[tuple[Any, str]], int]:
    """Shapes with the names of their classes, in their order, and how many have none. Raises SceneError, UsageError."""
    shapes = named_shapes(edits, crs, field, layer)
    found = [(shape, name) for shape, name in shapes if name]
    if not found:
        raise UsageError(f"{edits} has no shape with a class in {field}")
    return found, len(shapes) - len(found)


def _check_there(drawn: Sequence[tuple[Any, str]], grid: RasterGrid, edits: str, labels: str) -> None:
    """Refuse polygons that are all beyond the labels. Raises UsageError."""
    right, below = grid.width, grid.height
    inside = shapely.Polygon([grid.transform * corner for corner in ((0, 0), (right, 0), (right, below), (0, below))])
    if not any(shapely.box(*shape.bounds).intersects(inside) for shape, _ in drawn):
        raise UsageError(f"none of the {len(drawn)} polygons of {edits} is on {labels}: of another scene, or system?")


def _with_classes(record: RunRecord, names: Iterable[str]) -> RunRecord:
    """The record with classes for names that it lacks, in the order in which they come."""
    classes, known = list(record.classes), {fold(BACKGROUND), *(fold(name) for name, *_ in record.classes)}
    for name in names:
        if fold(name) not in known:
            known.add(fold(name))
            taken = {colour for *_, colour in classes}
            classes.append((name, (), customary_colour(fold(name), len(classes), taken)))
    return replace(record, classes=tuple(classes))


def _codes(record: RunRecord) -> dict[str, int]:
    """Codes by the names of classes."""
    return {fold(BACKGROUND): 0} | {fold(name): code for code, (name, *_) in enumerate(record.classes, start=1)}


def _write(
    src: Any,
    profile: LabelProfile,
    record: str,
    shapes: Sequence[tuple[Any, int]],
    outside: int | None,
    target: Path,
) -> tuple[Counter[int], int]:
    """Pixels by code, and how many changed."""
    counts, changed = Counter[int](), 0
    with writing(target), bench(target) as work:
        edited = work / f"edited{LABELS}"
        empty_raster(edited, profile, LABELS, record)
        pieces = []
        with plain_open(edited, "r+") as dst:
            for window, before, after in _edited(src, profile, shapes, outside):
                dst.write(after.astype(profile.dtype), 1, window=window)
                changed += int((before != after).sum())
                kinds, pixels = np.unique(after[after != profile.nodata], return_counts=True)
                each = dict(zip(kinds.tolist(), pixels.tolist(), strict=True))
                counts.update(each)
                middle = (window.row_off + window.height / 2, window.col_off + window.width / 2)
                pieces.append(Piece(*middle, each))
        copy, empty = work / f"cog{LABELS}", empty_raster(work / f"all{LABELS}", profile, LABELS, record)
        whole = Window(0, 0, profile.grid.width, profile.grid.height)
        write_cog(copy, empty, [piece(edited, whole, 0, 0)], overviews="MODE", block=BLOCK)
        legend = legend_with(profile, pieces)
        aux = label_aux_xml(legend, crs_for_side_file(copy, profile.grid))
        ready = [(copy, target), *sidecars(target, label_qml(legend), aux, work)]
        swap(ready[::-1], side_files(target), work)
    return counts, changed


def _edited(
    src: Any, profile: LabelProfile, shapes: Sequence[tuple[Any, int]], outside: int | None
) -> Iterator[tuple[Window, NDArray[np.int64], NDArray[np.int64]]]:
    """Blocks of the labels: where they lie, codes before and after."""
    tree = shapely.STRtree([shape for shape, _ in shapes])
    for row in range(0, src.height, BLOCK):
        for col in range(0, src.width, BLOCK):
            window = Window(col, row, min(BLOCK, src.width - col), min(BLOCK, src.height - row))
            stored = src.read(1, window=window).astype(np.int64)
            before = np.where(stored == src.nodata, profile.nodata, stored) if src.nodata is not None else stored
            place = window_transform(window, src.transform)
            corners = [
                place * at for at in ((0, 0), (window.width, 0), (window.width, window.height), (0, window.height))
            ]
            here = sorted(tree.query(shapely.Polygon(corners)).tolist())
            size = (int(window.height), int(window.width))
            fill = -1 if outside is None else outside
            drawn = np.full(size, fill, np.int64)
            if here:
                drawn = rasterize([shapes[n] for n in here], size, fill=fill, transform=place, dtype="int32").astype(
                    np.int64
                )
            after = np.where((drawn < 0) | (before == profile.nodata), before, drawn)
            yield window, before, after
