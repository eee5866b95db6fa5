"""The outputs: finished label and confidence rasters with names, colours and record, put together from parts."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import rasterio
from numpy.typing import NDArray
from rasterio.io import MemoryFile
from rasterio.windows import Window

from geoovseg.labels.names import Outputs, beside, swap, writing
from geoovseg.labels.parts import PartStore
from geoovseg.labels.profile import LabelProfile, crs_for_side_file
from geoovseg.labels.record import RUN_TAG
from geoovseg.labels.styles import LegendEntry, confidence_qml, crs_aux_xml, label_aux_xml, label_qml
from geoovseg.rasters.cog import piece, write_cog
from geoovseg.rasters.open import placeless
from geoovseg.windows.plan import BAND, BLOCK, Panel, Part

CONFIDENCE_STEPS = 250
"""Confidence 0..1 is stored as 0..250."""
CONFIDENCE_NODATA = 255
_TILED = {
    "driver": "GTiff", "tiled": True, "blockxsize": BLOCK, "blockysize": BAND, "compress": "deflate", "zlevel": 1,
    "bigtiff": "IF_SAFER", "sparse_ok": True, "count": 1,
}  # fmt: skip
LABELS, CONFIDENCE = "_labels.tif", "_confidence.tif"
"""Ends of the names of a part's rasters."""


class PartWriter:
    """Takes the rows of one part, top to bottom, in memory; `rasters` are its files as bytes."""

    def __init__(self, part: Part, layout: LabelProfile, *, confidence: bool) -> None:
        self.part, self.layout = part, layout
        self.counts = np.zeros(layout.nodata + 1, np.int64)
        kinds = {LABELS: layout.dtype, **({CONFIDENCE: "uint8"} if confidence else {})}
        self._files = {suffix: MemoryFile() for suffix in kinds}
        self._open = {suffix: self._create(suffix, dtype) for suffix, dtype in kinds.items()}
        self._bands = {s: np.empty((BAND, part.panel.width), dtype) for s, dtype in kinds.items()}

    def _create(self, suffix: str, dtype: str) -> Any:
        shape = {"height": self.part.height, "width": self.part.panel.width}
        with placeless():
            return self._files[suffix].open(dtype=dtype, **shape, **_TILED)

    def write(self, row: int, codes: NDArray[Any], confidence: NDArray[np.uint8] | None) -> None:
        """Rows from `row` of the scene on; those of one band at a time."""
        self.counts += np.bincount(codes.ravel(), minlength=len(self.counts))
        self._fill(LABELS, row - self.part.row_off, codes)
        if confidence is not None and CONFIDENCE in self._open:
            self._fill(CONFIDENCE, row - self.part.row_off, confidence)

    def _fill(self, suffix: str, row: int, values: NDArray[Any]) -> None:
        """Put rows into the band they belong to, and write the band once it is full or the part ends."""
        band, start, end = self._bands[suffix], row % BAND, row % BAND + len(values)
        band[start:end] = values
        if end == BAND or row + len(values) == self.part.height:
            window = Window(0, row - start, band.shape[1], end)
            self._open[suffix].write(band[:end], 1, window=window)

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


class LabelWriter:
    """Takes finished rows, panel by panel; keeps every part as it fills, and puts all together at the end."""

    def __init__(self, outputs: Outputs, layout: LabelProfile, store: PartStore) -> None:
        self.outputs, self.layout, self.store = outputs, layout, store
        self.finished = False
        self._part: PartWriter | None = None

    def write(
        self,
        row_off: int,
        col_off: int,
        codes: NDArray[Any],
        confidence: NDArray[np.uint8] | None,
        describe: Describe = lambda part: {},
    ) -> list[Part]:
        """Take rows of one panel, top to bottom; returns the parts that they completed, which are kept then.

        `confidence` is needed only when the outputs include it. Raises OutputError when a part cannot be kept.
        """
        done, kept = 0, []
        with writing(self.outputs.labels):
            while done < len(codes):
                row = row_off + done
                part = self._open(row, Panel(col_off, codes.shape[1]))
                count = min(BAND - (row - part.part.row_off) % BAND, part.part.end - row, len(codes) - done)
                rows = slice(done, done + count)
                part.write(row, codes[rows], None if confidence is None else confidence[rows])
                done += count
                if row + count == part.part.end:
                    self._keep(part, describe)
                    kept.append(part.part)
        return kept

    def _open(self, row: int, panel: Panel) -> PartWriter:
        if self._part is None or self._part.part.panel != panel or not 0 <= row - self._part.part.row_off < BLOCK:
            self.close()
            top = row // BLOCK * BLOCK
            part = Part(panel, top, min(BLOCK, self.layout.grid.height - top))
            self._part = PartWriter(part, self.layout, confidence=self.outputs.confidence is not None)
        return self._part

    def _keep(self, part: PartWriter, describe: Describe) -> None:
        counts = {str(code): int(n) for code, n in enumerate(part.counts) if n}
        self.store.commit(part.part, part.rasters(), {"counts": counts, **describe(part.part)})
        self._part = None

    def close(self) -> None:
        """Forget the part in hand."""
        if self._part is not None:
            self._part.close()
            self._part = None

    def legend(self, parts: Sequence[Part]) -> list[LegendEntry]:
        """Codes, names, colours and how many pixels of the parts have them."""
        totals: dict[str, int] = {}
        for part in parts:
            for code, count in self.store.summary(part)["counts"].items():
                totals[code] = totals.get(code, 0) + count
        return [replace(entry, pixels=totals.get(str(entry.code), 0)) for entry in self.layout.legend]

    def commit(self, record: str, parts: Sequence[Part]) -> None:
        """Finish: the parts as one raster with the record, copies as COG, then their names, the label raster's last."""
        legend, targets = self.legend(parts), self.outputs
        with writing(targets.labels), bench_at(targets.bench) as bench:
            ready = self._finish(targets.labels, LABELS, parts, record, bench)
            wkt = crs_for_side_file(ready[0][0], self.layout.grid)
            ready += sidecars(targets.labels, label_qml(legend), label_aux_xml(legend, wkt), bench)
            if targets.confidence is not None:
                ready += self._finish(targets.confidence, CONFIDENCE, parts, record, bench)
                ready += sidecars(targets.confidence, confidence_qml(), wkt and crs_aux_xml(wkt), bench)
            swap(ready[::-1], [f for raster in targets.rasters for f in beside(raster)], bench)
            self.finished = True

    def _finish(
        self, target: Path, suffix: str, parts: Sequence[Part], record: str, bench: Path
    ) -> list[tuple[Path, Path]]:
        """Copy the parts of a raster as one COG; returns what to rename to what."""
        copy, empty = bench / f"cog{suffix}", empty_raster(bench / f"all{suffix}", self.layout, suffix, record)
        files = {part: (self.store.folder / f"{part.name}{suffix}").resolve() for part in parts}
        pieces = [
            piece(file, Window(0, 0, part.panel.width, part.height), part.row_off, part.panel.col_off)
            for part, file in files.items()
        ]
        write_cog(copy, empty, pieces, overviews="MODE" if suffix == LABELS else "AVERAGE", block=BLOCK)
        return [(copy, target)]


@contextmanager
def bench_at(folder: Path) -> Iterator[Path]:
    """An empty folder in which outputs are put together, gone in the end."""
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir()
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def empty_raster(path: Path, layout: LabelProfile, suffix: str, record: str) -> Path:
    """Write a raster of labels (or confidence, by the suffix) without pixels: its grid, nodata, colours and record."""
    labels, grid = suffix == LABELS, layout.grid
    dtype, nodata = (layout.dtype, layout.nodata) if labels else ("uint8", CONFIDENCE_NODATA)
    place = {} if grid.transform.is_identity else {"transform": grid.transform}  # written, it would turn rows round
    georef = {"crs": grid.crs, **place, "height": grid.height, "width": grid.width}
    with placeless():
        dst = rasterio.open(path, "w", dtype=dtype, nodata=nodata, **georef, **_TILED)
    with dst:
        dst.update_tags(**{RUN_TAG: record})
        dst.set_band_description(1, "class" if labels else "confidence")
        if labels:
            dst.write_colormap(1, {entry.code: (*entry.rgb, 255) for entry in layout.legend})
        else:
            dst.scales = (1 / CONFIDENCE_STEPS,)
    return path


def sidecars(target: Path, qml: str, aux: str | None, bench: Path) -> list[tuple[Path, Path]]:
    """Write style and side file into `bench`; returns what to rename to what."""
    style, side = beside(target)[:2]
    texts = {style: qml} if aux is None else {style: qml, side: aux}
    for path, text in texts.items():
        (bench / path.name).write_text(text, encoding="utf-8")
    return [(bench / path.name, path) for path in texts]
