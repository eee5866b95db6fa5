"""The outputs: finished label and confidence rasters with names, colours and record, whole or not at all."""

from __future__ import annotations

import os
import shutil
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import rasterio
import rasterio.shutil
from affine import Affine
from numpy.typing import NDArray
from rasterio._err import CPLE_BaseError
from rasterio.crs import CRS
from rasterio.errors import NotGeoreferencedWarning, RasterioError
from rasterio.windows import Window

from geoovseg.errors import OutputError, UsageError, first_line
from geoovseg.record import RUN_TAG
from geoovseg.styles import LegendEntry, confidence_qml, label_aux_xml, label_qml
from geoovseg.tiling import BLOCK

CONFIDENCE_STEPS = 250
"""Confidence 0..1 is stored as 0..250."""
CONFIDENCE_NODATA = 255
BACKGROUND_COLOUR = "#eeeeee"
"""Pale, for software that ignores the style, in which code 0 is transparent."""
BAND = 128
"""Rows that are written together: one row of blocks of the working file."""
_TILED = {
    "driver": "GTiff", "tiled": True, "blockxsize": BLOCK, "blockysize": BAND, "compress": "deflate", "zlevel": 1,
    "bigtiff": "IF_SAFER", "count": 1,
}  # fmt: skip
_COG = {
    "driver": "COG", "blocksize": BLOCK, "compress": "DEFLATE", "predictor": "YES", "bigtiff": "IF_SAFER",
    "num_threads": "ALL_CPUS",
}  # fmt: skip


@dataclass(frozen=True, kw_only=True)
class Grid:
    """The raster grid outputs lie on: exactly the scene's."""

    height: int
    width: int
    crs: CRS | None
    transform: Affine


def label_dtype(classes: int) -> tuple[str, int]:
    """Pixel type and nodata code of a label raster: uint8 and 255, above 254 classes uint16 and 65535."""
    return ("uint8", 255) if classes <= 254 else ("uint16", 65535)


@dataclass(frozen=True)
class Outputs:
    """Where a run writes: names that follow from the scene's, checked before anything is computed."""

    labels: Path
    confidence: Path | None = None

    @property
    def parts(self) -> Path:
        """The folder a run works in until its outputs are whole."""
        return self.labels.with_name(self.labels.name + ".parts")

    @property
    def rasters(self) -> tuple[Path, ...]:
        """The rasters, without what lies beside them."""
        return (self.labels,) if self.confidence is None else (self.labels, self.confidence)

    def check(self, sources: Sequence[str], *, overwrite: bool) -> None:
        """Refuse what would lose something: an output that exists, is read from, or cannot be written.

        `sources` are the files the scene is made of.

        Raises UsageError and OutputError.
        """
        with _writing(self.labels):
            self._check_names()
            for raster in self.rasters:
                _check_target(raster, sources)
            self._check_free(overwrite=overwrite)

    def _check_names(self) -> None:
        files = [file for raster in self.rasters for file in (raster, *beside(raster))]
        if len({file.resolve() for file in files}) < len(files):
            raise UsageError(f"labels and confidence need names of their own, not {self.labels} and {self.confidence}")

    def _check_free(self, *, overwrite: bool) -> None:
        if self.confidence and self.confidence.parent.stat().st_dev != self.labels.parent.stat().st_dev:
            raise UsageError(f"{self.confidence} must be on the same disk as {self.labels}")
        there = [f for raster in self.rasters for f in (raster, *beside(raster)[:2]) if f.exists()]
        if there and not overwrite:
            raise OutputError(f"{there[0]} exists; add --overwrite to replace it, or choose another name with -o")
        if self.parts.exists() and not (overwrite and self.parts.is_dir()):
            raise OutputError(f"{self.parts} is left from a run that did not finish; --overwrite removes it")


def beside(raster: Path) -> tuple[Path, ...]:
    """What GDAL and QGIS read together with a raster: style, side file, outside overviews and mask."""
    return (raster.with_suffix(".qml"), *(raster.with_name(raster.name + end) for end in (".aux.xml", ".ovr", ".msk")))


def is_one_of(path: Path, files: Sequence[str]) -> bool:
    """Whether a path leads to one of these files, by whatever name."""
    return path.exists() and any(os.path.exists(file) and path.samefile(file) for file in files)


def _check_target(raster: Path, sources: Sequence[str]) -> None:
    if raster.suffix.lower() not in (".tif", ".tiff"):
        raise UsageError(f"the output {raster} must end in .tif")
    for file in (raster, *beside(raster)):
        if is_one_of(file, sources):
            raise OutputError(f"the output {file} is read from, as part of the scene; choose another name with -o")
    for file in (raster, *beside(raster)):
        if file.is_dir():
            raise OutputError(f"{file} is a folder; choose another name with -o")
    if not raster.parent.is_dir():
        raise OutputError(f"the folder {raster.parent} does not exist; create it or choose another -o")
    if not os.access(raster.parent, os.W_OK):
        raise OutputError(f"the folder {raster.parent} cannot be written to; choose another -o")


def output_names(scene: str, output: str | os.PathLike[str] | None, confidence: str | None) -> Outputs:
    """`<stem>_labels.tif` beside the scene or in the folder `output`, or the file `output`."""
    stem = Path(scene if os.path.exists(scene) else scene.split("?")[0]).stem
    folder = Path(scene).parent if os.path.exists(scene) else Path()
    target = Path(output) if output is not None else folder
    is_folder = output is None or os.path.isdir(target) or str(output).endswith(os.sep)
    labels = target / f"{stem}_labels.tif" if is_folder else target
    return Outputs(labels, Path(confidence) if confidence else None)


class LabelWriter:
    """Takes finished rows, panel by panel, and turns them into the outputs at the end."""

    def __init__(self, outputs: Outputs, grid: Grid, classes: Sequence[tuple[str, str]]) -> None:
        self.outputs, self.grid = outputs, grid
        self.dtype, self.nodata = label_dtype(len(classes))
        self.classes = [LegendEntry(n, *c) for n, c in enumerate([("background", BACKGROUND_COLOUR), *classes])]
        self.counts = np.zeros(self.nodata + 1, np.int64)
        self._labels = self._open("labels.tif", self.dtype, self.nodata)
        self._confidence = self._open("confidence.tif", "uint8", CONFIDENCE_NODATA) if outputs.confidence else None
        self._labels.write_colormap(1, {entry.code: (*entry.rgb, 255) for entry in self.classes})
        self._bands: dict[str, NDArray[Any]] = {}

    def _open(self, name: str, dtype: str, nodata: int) -> Any:
        shape = {"height": self.grid.height, "width": self.grid.width}
        georef = {"crs": self.grid.crs, "transform": self.grid.transform}
        path = self.outputs.parts / name
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", NotGeoreferencedWarning)  # said once, when the scene was opened
            return rasterio.open(path, "w", dtype=dtype, nodata=nodata, **shape, **georef, **_TILED)

    def write(self, row_off: int, col_off: int, codes: NDArray[Any], confidence: NDArray[np.uint8] | None) -> None:
        """Take rows of one panel, top to bottom; bands of whole blocks are written as they fill.

        `confidence` is needed only when the outputs include it.
        """
        done = 0
        while done < len(codes):
            count = min(BAND - (row_off + done) % BAND, len(codes) - done)
            rows = slice(done, done + count)
            self._fill(self._labels, row_off + done, col_off, codes[rows])
            self.counts += np.bincount(codes[rows].ravel(), minlength=len(self.counts))
            if self._confidence is not None and confidence is not None:
                self._fill(self._confidence, row_off + done, col_off, confidence[rows])
            done += count

    def _fill(self, dst: Any, row: int, col_off: int, values: NDArray[Any]) -> None:
        """Put rows into the band they belong to, and write the band once it is full or the scene ends."""
        band = self._bands.get(dst.name)
        if band is None or band.shape[1] != values.shape[1]:
            band = self._bands[dst.name] = np.empty((BAND, values.shape[1]), values.dtype)
        start, end = row % BAND, row % BAND + len(values)
        band[start:end] = values
        if end == BAND or row + len(values) == self.grid.height:
            with _writing(self.outputs.labels):
                dst.write(band[:end], 1, window=Window(col_off, row - start, band.shape[1], end))

    def legend(self) -> list[LegendEntry]:
        """Codes, names, colours and how many pixels so far have them."""
        return [replace(entry, pixels=int(self.counts[entry.code])) for entry in self.classes]

    def commit(self, record: str) -> None:
        """Finish: the record into the files, copies as COG, then their names, the label raster's last."""
        legend = self.legend()
        with _writing(self.outputs.labels):
            ready = self._finish(self._labels, self.outputs.labels, record, "MODE")
            ready += self._beside(self.outputs.labels, label_qml(legend), label_aux_xml(legend))
            if self._confidence is not None and self.outputs.confidence is not None:
                self._confidence.scales = (1 / CONFIDENCE_STEPS,)
                ready += self._finish(self._confidence, self.outputs.confidence, record, "AVERAGE")
                ready += self._beside(self.outputs.confidence, confidence_qml(), None)
            _swap(ready[::-1], [f for raster in self.outputs.rasters for f in beside(raster)], self.outputs.parts)

    def _finish(self, dst: Any, target: Path, record: str, overviews: str) -> list[tuple[Path, Path]]:
        """Close a raster and copy it as COG; returns what to rename to what."""
        dst.update_tags(**{RUN_TAG: record})
        dst.set_band_description(1, "class" if dst is self._labels else "confidence")
        dst.close()
        source = Path(dst.name)
        copy = source.with_name(f"cog_{source.name}")
        # The COG driver's own writing mode holds the whole raster in memory; copying does not.
        rasterio.shutil.copy(source, copy, overview_resampling=overviews, **_COG)
        source.unlink()
        return [(copy, target)]

    def _beside(self, target: Path, qml: str, aux: str | None) -> list[tuple[Path, Path]]:
        """Write style and side file; returns what to rename to what."""
        style, side = beside(target)[:2]
        texts = {style: qml} if aux is None else {style: qml, side: aux}
        for path, text in texts.items():
            (self.outputs.parts / path.name).write_text(text, encoding="utf-8")
        return [(self.outputs.parts / path.name, path) for path in texts]

    def close(self) -> None:
        """Close the files; a second time it does nothing."""
        for dst in (self._labels, self._confidence):
            if dst is not None and not dst.closed:
                with suppress(RasterioError, OSError):  # the file is thrown away
                    dst.close()


def _swap(ready: Sequence[tuple[Path, Path]], stale: Sequence[Path], parts: Path) -> None:
    """Give finished files their names in order, in place of the old ones; on failure the old ones are put back."""
    targets = [dst for _, dst in ready]
    old = [path for path in dict.fromkeys([*targets, *stale]) if path.exists()]
    kept = {path: parts / f"old_{n}" for n, path in enumerate(old)}
    try:
        for path, keep in kept.items():
            _keep(path, keep)
        for src, dst in ready:
            os.replace(src, dst)
        for path in set(old) - set(targets):
            path.unlink(missing_ok=True)
    except BaseException:  # an interrupt too must not cost the old outputs
        for path in set(targets) - set(old):
            path.unlink(missing_ok=True)
        for path, keep in kept.items():
            if keep.exists():
                os.replace(keep, path)
        raise


def _keep(path: Path, keep: Path) -> None:
    """Keep an old file under a second name, so that its own never stands empty; where links cannot be, move it."""
    try:
        os.link(path, keep)
    except OSError:
        os.replace(path, keep)


@contextmanager
def create_labels(
    outputs: Outputs, grid: Grid, classes: Sequence[tuple[str, str]], *, overwrite: bool = False
) -> Iterator[LabelWriter]:
    """A writer whose outputs appear when it is committed; leaving without that leaves nothing behind.

    `classes` are (name, colour) of codes 1..N. Raises OutputError where the folder cannot be written.
    """
    with _writing(outputs.labels):
        if overwrite and outputs.parts.exists():
            shutil.rmtree(outputs.parts)
        outputs.parts.mkdir()
    try:
        with _writing(outputs.labels):
            writer = LabelWriter(outputs, grid, classes)
        try:
            yield writer
        finally:
            writer.close()
    finally:
        shutil.rmtree(outputs.parts, ignore_errors=True)


@contextmanager
def _writing(path: Path) -> Iterator[None]:
    try:
        yield
    except OutputError:
        raise
    except (RasterioError, CPLE_BaseError, OSError, OverflowError, UnicodeError) as error:
        reason = f"{first_line(error)}; check free space and permissions of {path.parent}"
        raise OutputError(f"cannot write {path}: {reason}") from error
