"""Finished rasters: pieces of other rasters on one grid, copied as a cloud-optimised GeoTIFF."""

from __future__ import annotations

from collections.abc import Sequence
from copy import deepcopy
from pathlib import Path
from typing import Any
from xml.etree.ElementTree import Element, SubElement, parse

import rasterio
import rasterio.shutil
from rasterio.windows import Window

from geoovseg.rasters.open import plain_open

COG = {
    "driver": "COG", "compress": "DEFLATE", "predictor": "YES", "bigtiff": "IF_SAFER",
    "num_threads": "ALL_CPUS", "overviews": "IGNORE_EXISTING",
}  # fmt: skip
"""How every finished raster is written."""


def piece(file: Path, window: Window, row_off: int, col_off: int) -> Element:
    """A window of a raster, as it lies in another one from this row and column of it on."""
    source = Element("SimpleSource")
    SubElement(source, "SourceFilename", relativeToVRT="0").text = str(file)
    SubElement(source, "SourceBand").text = "1"
    size: dict[str, Any] = {"xSize": str(window.width), "ySize": str(window.height)}
    SubElement(source, "SrcRect", xOff=str(window.col_off), yOff=str(window.row_off), **size)
    SubElement(source, "DstRect", xOff=str(col_off), yOff=str(row_off), **size)
    return source


def write_cog(copy: Path, empty: Path, pieces: Sequence[Element], *, overviews: str, block: int) -> None:
    """Copy pieces as one COG, whatever its size a few blocks at a time.

    `empty` is a raster that says all but the pixels: bands, grid, type, nodata, colours, tags. `overviews` is how GDAL
    is to make them, `block` the side of blocks in pixels.
    """
    source = empty.with_suffix(".vrt")
    _fill(empty, pieces, source)
    # The COG driver's own writing mode holds the whole raster in memory; copying does not.
    rasterio.shutil.copy(source, copy, overview_resampling=overviews, blocksize=block, **COG)
    _check_whole(copy)


def _fill(empty: Path, pieces: Sequence[Element], vrt: Path) -> None:
    """A VRT of pieces: GDAL writes it for an empty raster of the same grid, and the pieces are put into it."""
    rasterio.shutil.copy(empty, vrt, driver="VRT")
    tree = parse(vrt)
    for number, band in enumerate(tree.getroot().findall("VRTRasterBand"), start=1):
        for source in [*band.findall("SimpleSource"), *band.findall("ComplexSource")]:
            band.remove(source)
        band.extend(_of_band(each, number) for each in pieces)
    tree.write(vrt, encoding="utf-8")


def _of_band(source: Element, number: int) -> Element:
    """A piece of another band."""
    found = deepcopy(source)
    band = found.find("SourceBand")
    assert band is not None  # `piece` made it
    band.text = str(number)
    return found


def _check_whole(path: Path) -> None:
    """Read the last block of a copy: a disk that filled up may have been noticed by nobody else."""
    with plain_open(path) as src:
        rows, cols = src.block_shapes[0]
        row, col = (src.height - 1) // rows * rows, (src.width - 1) // cols * cols
        src.read(1, window=Window(col, row, src.width - col, src.height - row))
