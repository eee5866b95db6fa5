"""The outputs: finished label and confidence rasters with names, colours and record, whole or not at all."""

from __future__ import annotations

import os
import shutil
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import rasterio
import rasterio.shutil
from affine import Affine
from numpy.typing import NDArray
from rasterio.crs import CRS
from rasterio.errors import NotGeoreferencedWarning, RasterioError
from rasterio.windows import Window

from geoovseg.errors import OutputError, UsageError
from geoovseg.record import RUN_TAG
from geoovseg.styles import LegendEntry, confidence_qml, label_aux_xml, label_qml
from geoovseg.tiling import BLOCK

CONFIDENCE_STEPS = 250
"""Confidence 0..1 is stored as 0..250."""
CONFIDENCE_NODATA = 255
BACKGROUND_COLOUR = "#000000"
_TILED = {
    "driver": "GTiff", "tiled": True, "blockxsize": BLOCK, "blockysize": BLOCK, "compress": "deflate", "zlevel": 1,
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

    def check(self, scene: str, *, overwrite: bool) -> None:
        """Refuse what would lose something: an output that exists, is the input, or cannot be written."""
        if self.confidence is not None and self.confidence == self.labels:
            raise UsageError(f"labels and confidence cannot both be {self.labels}")
        for path in (self.labels, *([self.confidence] if self.confidence else [])):
            if path.suffix.lower() not in (".tif", ".tiff"):
                raise UsageError(f"the output {path} must end in .tif")
            if path.exists() and os.path.exists(scene) and path.samefile(scene):
                raise OutputError(f"the output {path} is the input scene; choose another name with -o")
            if path.exists() and not overwrite:
                raise OutputError(f"{path} exists; add --overwrite to replace it, or choose another name with -o")
            if not path.parent.is_dir():
                raise OutputError(f"the folder {path.parent} does not exist; create it or choose another -o")
            if not os.access(path.parent, os.W_OK):
                raise OutputError(f"the folder {path.parent} cannot be written to; choose another -o")
        if self.parts.exists() and not overwrite:
            raise OutputError(f"{self.parts} is left from a run that did not finish; --overwrite removes it")


def output_names(scene: str, output: str | os.PathLike[str] | None, confidence: str | None) -> Outputs:
    """`<stem>_labels.tif` beside the scene or in the folder `output`, or the file `output`."""
    stem = Path(scene.split("?")[0]).stem
    beside = Path(scene).parent if Path(scene).exists() else Path()
    target = Path(output) if output is not None else beside
    is_folder = output is None or target.is_dir() or str(output).endswith(os.sep)
    labels = target / f"{stem}_labels.tif" if is_folder else target
    return Outputs(labels, Path(confidence) if confidence else None)


class LabelWriter:
    """Takes finished rows, panel by panel, and turns them into the outputs at the end."""

    def __init__(self, outputs: Outputs, grid: Grid, classes: int) -> None:
        self.outputs, self.grid, self.classes = outputs, grid, classes
        self.dtype, self.nodata = label_dtype(classes)
        outputs.parts.mkdir()
        self.counts = np.zeros(self.nodata + 1, np.int64)
        self._labels = self._open("labels.tif", self.dtype, self.nodata)
        self._confidence = self._open("confidence.tif", "uint8", CONFIDENCE_NODATA) if outputs.confidence else None
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
            count = min(BLOCK - (row_off + done) % BLOCK, len(codes) - done)
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
            band = self._bands[dst.name] = np.empty((BLOCK, values.shape[1]), values.dtype)
        start, end = row % BLOCK, row % BLOCK + len(values)
        band[start:end] = values
        if end == BLOCK or row + len(values) == self.grid.height:
            with _writing(self.outputs.labels):
                dst.write(band[:end], 1, window=Window(col_off, row - start, band.shape[1], end))

    def commit(self, classes: Sequence[tuple[str, str]], record: str) -> None:
        """Finish: record and colours into the files, copies as COG, then the names; the label raster's last.

        `classes` are (name, colour) of codes 1..N.
        """
        legend = [LegendEntry(0, "background", BACKGROUND_COLOUR, int(self.counts[0]))]
        legend += [LegendEntry(n, *c, int(self.counts[n])) for n, c in enumerate(classes, start=1)]
        ready: list[tuple[Path, Path]] = []
        with _writing(self.outputs.labels):
            if self._confidence is not None and self.outputs.confidence is not None:
                self._confidence.scales = (1 / CONFIDENCE_STEPS,)
                self._confidence.set_band_description(1, "confidence")
                self._confidence.update_tags(**{RUN_TAG: record})
                ready += self._finish(self._confidence, self.outputs.confidence, "AVERAGE", confidence_qml(), None)
            self._labels.write_colormap(1, {e.code: (*e.rgb, 255) for e in legend})
            self._labels.set_band_description(1, "class")
            self._labels.update_tags(**{RUN_TAG: record})
            ready += self._finish(self._labels, self.outputs.labels, "MODE", label_qml(legend), label_aux_xml(legend))
            for src, dst in ready:
                os.replace(src, dst)

    def _finish(self, dst: Any, target: Path, overviews: str, qml: str, aux: str | None) -> list[tuple[Path, Path]]:
        """Close a raster and copy it as COG; returns what to rename to what, side files first."""
        source = Path(dst.name)
        dst.close()
        copy = source.with_name(f"cog_{source.name}")
        # The COG driver's own writing mode holds the whole raster in memory; copying does not.
        rasterio.shutil.copy(source, copy, overview_resampling=overviews, **_COG)
        source.unlink()
        style = copy.with_suffix(".qml")
        style.write_text(qml, encoding="utf-8")
        pairs = [(style, target.with_suffix(".qml")), (copy, target)]
        side = copy.with_name(copy.name + ".aux.xml")
        if aux is not None:
            side.write_text(aux, encoding="utf-8")
        if side.exists():
            pairs.insert(0, (side, target.with_name(target.name + ".aux.xml")))
        return pairs

    def close(self) -> None:
        """Close files and remove the working folder."""
        for dst in (self._labels, self._confidence):
            if dst is not None and not dst.closed:
                with suppress(RasterioError, OSError):  # the file is thrown away
                    dst.close()
        shutil.rmtree(self.outputs.parts, ignore_errors=True)


@contextmanager
def create_labels(outputs: Outputs, grid: Grid, classes: int, *, overwrite: bool = False) -> Iterator[LabelWriter]:
    """A writer whose outputs appear when it is committed; leaving without that leaves nothing behind.

    Raises OutputError where the folder cannot be written.
    """
    if overwrite and outputs.parts.exists():
        shutil.rmtree(outputs.parts)
    with _writing(outputs.labels):
        writer = LabelWriter(outputs, grid, classes)
    try:
        yield writer
    finally:
        writer.close()


@contextmanager
def _writing(path: Path) -> Iterator[None]:
    try:
        yield
    except (RasterioError, OSError) as error:
        raise OutputError(f"cannot write {path}: {error}; check free space and permissions of {path.parent}") from error
