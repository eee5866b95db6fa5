"""The outputs: finished label and confidence rasters with names, colours and record, put together from parts."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple
from xml.etree.ElementTree import Element

import numpy as np
from numpy.typing import NDArray
from rasterio.enums import ColorInterp
from rasterio.errors import NotGeoreferencedWarning
from rasterio.io import MemoryFile
from rasterio.windows import Window

from geoovseg.errors import hushed
from geoovseg.files import bench
from geoovseg.labels.areas import Piece
from geoovseg.labels.names import Outputs, side_files, swap, writing
from geoovseg.labels.parts import FinishedPart, PartStore
from geoovseg.labels.profile import LabelProfile, crs_for_side_file, legend_with
from geoovseg.labels.record import RUN_TAG
from geoovseg.labels.styles import crs_aux_xml, label_aux_xml, label_qml, measure_qml
from geoovseg.rasters.cog import piece, write_cog
from geoovseg.rasters.ground import Box
from geoovseg.rasters.open import plain_open
from geoovseg.windows.plan import BAND, BLOCK, Panel, Part

CONFIDENCE_STEPS = 250
"""Confidence and scores 0..1 are stored as 0..250."""
CONFIDENCE_NODATA = 255
_TILED = {
    "driver": "GTiff", "tiled": True, "blockxsize": BLOCK, "blockysize": BAND, "compress": "deflate", "zlevel": 1,
    "bigtiff": "IF_SAFER", "sparse_ok": True, "interleave": "band",
}  # fmt: skip
LABELS, CONFIDENCE, SCORES = "_labels.tif", "_confidence.tif", "_scores.tif"
"""Ends of the names of a part's rasters."""
Layers = Mapping[str, NDArray[Any]]
"""Pixels (rows, columns) of each of these, and (classes, rows, columns) of scores."""


class _Kind(NamedTuple):
    """What a raster is, whatever its pixels."""

    dtype: str
    nodata: int
    bands: tuple[str, ...]


def _kind(end: str, profile: LabelProfile) -> _Kind:
    """What the raster with such an end is."""
    if end == LABELS:
        return _Kind(profile.dtype, profile.nodata, ("class",))
    return _Kind("uint8", CONFIDENCE_NODATA, ("confidence",) if end == CONFIDENCE else profile.channels)


def nothing(profile: LabelProfile, shape: tuple[int, int], *more: str) -> Layers:
    """Pixels without data, of labels and what more there is."""
    kinds = {end: _kind(end, profile) for end in (LABELS, *more)}
    sizes = {end: (len(kind.bands), *shape) if end == SCORES else shape for end, kind in kinds.items()}
    return {end: np.full(sizes[end], kind.nodata, kind.dtype) for end, kind in kinds.items()}


class PartWriter:
    """Takes the rows of one part, top to bottom, in memory; `rasters` are its files as bytes."""

    def __init__(self, part: Part, profile: LabelProfile, ends: Iterable[str]) -> None:
        self.part, self.profile = part, profile
        self.counts = np.zeros(profile.nodata + 1, np.int64)
        kinds = {end: _kind(end, profile) for end in ends}
        self._files = {end: MemoryFile() for end in kinds}
        self._open = {end: self._create(end, kind) for end, kind in kinds.items()}
        width = part.panel.width
        self._rows = {end: np.empty((len(kind.bands), BAND, width), kind.dtype) for end, kind in kinds.items()}

    def _create(self, end: str, kind: _Kind) -> Any:
        shape = {"height": self.part.height, "width": self.part.panel.width, "count": len(kind.bands)}
        with hushed(NotGeoreferencedWarning):
            return self._files[end].open(dtype=kind.dtype, nodata=kind.nodata, **shape, **_TILED)

    def write(self, row: int, layers: Layers) -> None:
        """Rows from `row` of the scene on; those of one row of blocks at a time."""
        codes = layers[LABELS]
        if (codes == self.profile.nodata).all():  # as of scenes of which little is stored
            self.counts[self.profile.nodata] += codes.size
        else:
            self.counts += np.bincount(codes.ravel(), minlength=len(self.counts))
        for end in self._open:
            self._fill(end, row - self.part.row_off, layers[end])

    def _fill(self, name: str, row: int, values: NDArray[Any]) -> None:
        """Put rows into the row of blocks they belong to, and write that once it is full or the part ends."""
        rows, count = self._rows[name], values.shape[-2]
        start, end = row % BAND, row % BAND + count
        rows[:, start:end] = values
        if end == BAND or row + count == self.part.height:
            self._open[name].write(rows[:, :end], window=Window(0, row - start, rows.shape[2], end))

    def rasters(self) -> dict[str, bytes]:
        """The files, closed."""
        for dst in self._open.values():
            dst.close()
        found = {suffix: bytes(file.getbuffer()) for suffix, file in self._files.items()}
        self.close()
        return found

    def close(self) -> None:
        """Free the memory."""
        for dst in self._open.values():
            dst.close()
        for file in self._files.values():
            file.close()


Describe = Callable[[Part], Mapping[str, Any]]
"""What else to keep with a part, when it is finished."""


class PartsBuilder:
    """Takes finished rows of a panel, top to bottom, and gives every part as it fills."""

    def __init__(self, profile: LabelProfile, *more: str, describe: Describe = lambda part: {}) -> None:
        self.profile, self.ends, self.describe = profile, (LABELS, *more), describe
        self._part: PartWriter | None = None

    def write(self, row_off: int, col_off: int, layers: Layers) -> list[FinishedPart]:
        """Take rows of labels, and of what more was said to come; returns the parts that they completed."""
        done, finished, (height, width) = 0, [], layers[LABELS].shape
        while done < height:
            row = row_off + done
            part = self._open(row, Panel(col_off, width))
            count = min(BAND - (row - part.part.row_off) % BAND, part.part.end - row, height - done)
            part.write(row, {end: pixels[..., done : done + count, :] for end, pixels in layers.items()})
            done += count
            if row + count == part.part.end:
                finished.append(self._finished(part))
        return finished

    def _open(self, row: int, panel: Panel) -> PartWriter:
        if self._part is None or self._part.part.panel != panel or not 0 <= row - self._part.part.row_off < BLOCK:
            self.close()
            top = row // BLOCK * BLOCK
            part = Part(panel, top, min(BLOCK, self.profile.grid.height - top))
            self._part = PartWriter(part, self.profile, self.ends)
        return self._part

    def _finished(self, part: PartWriter) -> FinishedPart:
        counts = {str(code): int(n) for code, n in enumerate(part.counts) if n}
        self._part = None
        return FinishedPart(part.part, part.rasters(), {"counts": counts, **self.describe(part.part)})

    def close(self) -> None:
        """Forget the part in hand."""
        if self._part is not None:
            self._part.close()
            self._part = None


def pieces_of(store: PartStore, parts: Iterable[Part]) -> list[Piece]:
    """How many pixels of finished parts have each code."""
    return [
        Piece(
            part.row_off + part.height / 2,
            part.panel.col_off + part.panel.width / 2,
            {int(code): pixels for code, pixels in store.summary(part)["counts"].items()},
        )
        for part in parts
    ]


def assemble(
    outputs: Outputs,
    profile: LabelProfile,
    store: PartStore,
    record: str,
    parts: Sequence[Part],
    box: Box | None = None,
) -> None:
    """Put parts together as finished rasters with the record, then give them their names, the label raster's last.

    With a box, only these pixels of the scene. Raises OutputError.
    """
    legend = legend_with(profile, pieces_of(store, parts))
    written = profile if box is None else replace(profile, grid=profile.grid.window(box))
    box = box or Box(0, 0, profile.grid.height, profile.grid.width)
    with writing(outputs.labels), bench(outputs.labels) as place:
        ready = [_finish(outputs.labels, LABELS, _pieces(store, parts, LABELS, box), written, record, place)]
        wkt = crs_for_side_file(ready[0][0], profile.grid)
        ready += sidecars(outputs.labels, label_qml(legend), label_aux_xml(legend, wkt), place)
        for target, end, band in ((outputs.confidence, CONFIDENCE, 1), (outputs.scores, SCORES, written.first_band)):
            if target is not None:
                ready.append(_finish(target, end, _pieces(store, parts, end, box), written, record, place))
                ready += sidecars(target, measure_qml(band), wkt and crs_aux_xml(wkt), place)
        store.keep_named(ready)
        swap(ready[::-1], [f for raster in outputs.rasters for f in side_files(raster)], place)


def _pieces(store: PartStore, parts: Sequence[Part], suffix: str, box: Box) -> list[Element]:
    """The rasters of parts as they lie in a box."""
    found = []
    for part in parts:
        first = part.row_off, part.panel.col_off
        if (here := box.shared(*first, part.height, part.panel.width)) is not None:
            window = Window(here.col_off - first[1], here.row_off - first[0], here.width, here.height)
            file = store.raster(part, suffix).resolve()
            found.append(piece(file, window, here.row_off - box.row_off, here.col_off - box.col_off))
    return found


def _finish(
    target: Path, suffix: str, pieces: Sequence[Element], profile: LabelProfile, record: str, place: Path
) -> tuple[Path, Path]:
    """Copy the pieces of a raster as one COG; returns what to rename to what."""
    copy, empty = place / f"cog{suffix}", empty_raster(place / f"all{suffix}", profile, suffix, record)
    write_cog(copy, empty, pieces, overviews="MODE" if suffix == LABELS else "AVERAGE", block=BLOCK)
    return copy, target


def empty_raster(path: Path, profile: LabelProfile, suffix: str, record: str) -> Path:
    """Write a raster of labels, confidence or scores without pixels: its grid, nodata, colours and record."""
    labels, grid, (dtype, nodata, bands) = suffix == LABELS, profile.grid, _kind(suffix, profile)
    place = {} if grid.transform.is_identity else {"transform": grid.transform}  # written, it would turn rows round
    georef = {"crs": grid.crs, **place, "height": grid.height, "width": grid.width}
    kind = {"dtype": dtype, "nodata": nodata, "count": len(bands), "photometric": "minisblack"}
    with plain_open(path, "w", **kind, **georef, **_TILED) as dst:
        dst.update_tags(**{RUN_TAG: record})
        dst.descriptions = bands
        if labels:
            dst.write_colormap(1, {entry.code: (*entry.rgb, 255) for entry in profile.legend})
        else:
            dst.scales = (1 / CONFIDENCE_STEPS,) * len(bands)
            dst.colorinterp = (ColorInterp.gray, *[ColorInterp.undefined] * (len(bands) - 1))  # three are no colours
    return path


def sidecars(target: Path, qml: str, aux: str | None, place: Path) -> list[tuple[Path, Path]]:
    """Write style and side file into a folder; returns what to rename to what."""
    style, side = side_files(target)[:2]
    texts = {style: qml} if aux is None else {style: qml, side: aux}
    for path, text in texts.items():
        (place / path.name).write_text(text, encoding="utf-8")
    return [(place / path.name, path) for path in texts]
