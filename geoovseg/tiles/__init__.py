"""A set of tiles as one scene: a VRT through all of them, and labels cut back to each."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any
from xml.etree.ElementTree import Element, ParseError, SubElement, parse, tostring

import numpy as np
from rasterio._path import _parse_path, _vsi_path
from rasterio.dtypes import _gdal_typename
from rasterio.windows import Window

from geoovseg.errors import OutputError, SceneError, UsageError, first_line
from geoovseg.labels.many import label_names
from geoovseg.labels.names import Outputs, beside, swap, writing
from geoovseg.labels.profile import LabelProfile, crs_for_side_file
from geoovseg.labels.record import RUN_TAG
from geoovseg.labels.styles import LegendEntry, label_aux_xml, label_qml
from geoovseg.labels.write import LABELS, bench_at, empty_raster, sidecars
from geoovseg.rasters.cog import piece, write_cog
from geoovseg.rasters.ground import RasterGrid
from geoovseg.rasters.open import opened, raster_env
from geoovseg.rasters.vrt import alpha_of, band_like, dataset_like, mask_of
from geoovseg.tiles.grid import Tile, check_alike, joined, look, place
from geoovseg.windows.plan import BLOCK


def vrt_of(labels: Path) -> Path:
    """Where the VRT of a mosaic is while its labels are computed."""
    return labels.with_name(f"{labels.name}.mosaic.vrt")


def tiles_of(vrt: Path, grid: RasterGrid) -> list[str]:
    """The tiles that `as_one` made a VRT of, for labels on a grid.

    Raises UsageError where there is none or the labels lie on another grid, SceneError for anything else.
    """
    if not vrt.is_file():
        raise UsageError(f"--per-tile cuts the labels of a mosaic, which {vrt} would describe; leave it away")
    try:
        root = parse(vrt).getroot()
    except (ParseError, OSError) as error:
        raise SceneError(f"{vrt} is no VRT of tiles: {first_line(error)}") from error
    if (root.get("rasterYSize"), root.get("rasterXSize")) != (str(grid.height), str(grid.width)):
        raise UsageError("--per-tile cuts on the tiles' own grids, and these labels have other pixels; leave it away")
    names = root.iterfind("VRTRasterBand[1]/*/SourceFilename")
    return [str(name.text) if name.get("relativeToVRT") == "0" else f"{vrt.parent / str(name.text)}" for name in names]


def as_one(paths: Sequence[str], vrt: str | os.PathLike[str]) -> str:
    """Make one scene of adjacent tiles: a VRT, whose name is returned.

    It spans all tiles, on their common grid. Where tiles overlap, the later one wins, where it has data (with nodata
    values that is in each band on its own); where none is, there is no data. Made again of the same tiles it is the
    same file, also in its time, so that runs that other processes share, or that are resumed, find the scene unchanged.

    Raises SceneError for tiles that cannot be opened or have no place on the ground, UsageError for tiles that differ
    or lie on other grids, OutputError where the VRT cannot be written.
    """
    with raster_env():
        tiles = [look(path) for path in paths]
        for tile in tiles[1:]:
            check_alike(tiles[0], tile)
        grid, windows = joined(tiles)
        with opened(tiles[0].path, f"{tiles[0].path!r} as a tile") as src:
            text = tostring(_described(src, tiles, grid, windows, Path(vrt)), encoding="unicode")
    _keep(Path(vrt), text, tiles)
    return os.fspath(vrt)


def _described(src: Any, tiles: Sequence[Tile], grid: RasterGrid, windows: Sequence[Window], vrt: Path) -> Element:
    """The VRT; `src` is the first tile."""
    common = {key: text for key, text in tiles[0].tags.items() if all(tile.tags.get(key) == text for tile in tiles)}
    root = dataset_like(src, (grid.height, grid.width), grid.crs, grid.transform, common)
    covered, twice = _covered(windows)
    alpha = alpha_of(src) is not None
    masked = any(tile.masked for tile in tiles)
    blind = not alpha and not masked and all(value is None for value in src.nodatavals)
    placed = [(tile, window, _source_name(tile.path, vrt)) for tile, window in zip(tiles, windows, strict=True)]
    for number in range(1, src.count + 1):
        band = band_like(root, src, number, src.nodatavals[number - 1])
        nodata = None if masked else src.nodatavals[number - 1]
        for at in placed:
            _piece(band, *at, str(number), src.dtypes[number - 1], nodata=nodata, by_mask=twice and (alpha or masked))
    if masked or (blind and covered < grid.height * grid.width):
        mask = mask_of(root)
        for at in placed:
            _piece(mask, *at, "mask,1", "uint8", nodata=0 if twice else None)
    return root


def _covered(windows: Sequence[Window]) -> tuple[int, bool]:
    """How many pixels lie in any window, and whether some lie in two."""
    spans = [((w.row_off, w.row_off + w.height), (w.col_off, w.col_off + w.width)) for w in windows]
    rows, cols = (np.unique(axis) for axis in zip(*spans, strict=True))
    cells = np.zeros((len(rows) - 1, len(cols) - 1), bool)
    for tall, wide in spans:
        cells[slice(*np.searchsorted(rows, tall)), slice(*np.searchsorted(cols, wide))] = True
    covered = int(np.outer(np.diff(rows), np.diff(cols))[cells].sum())
    return covered, covered < sum(w.width * w.height for w in windows)


def _source_name(path: str, vrt: Path) -> tuple[str, str]:
    """A tile's name in a VRT, and whether it is relative, as of files on disk, so that both can be moved together."""
    folder = os.path.abspath(vrt.parent)
    if not os.path.exists(path):
        return _vsi_path(_parse_path(path)), "0"
    if os.path.realpath(folder) != folder:  # GDAL takes `..` by the letter
        return os.path.abspath(path), "0"
    name = os.path.relpath(os.path.join(os.path.realpath(os.path.dirname(path)), os.path.basename(path)), folder)
    return f"./{name}" if name != name.lstrip() else name, "1"  # GDAL leaves out leading blanks


def _piece(
    band: Element,
    tile: Tile,
    window: Window,
    name: tuple[str, str],
    number: str,
    dtype: str,
    *,
    nodata: float | None,
    by_mask: bool = False,
) -> None:
    """Put a tile into a band: all of it, or only what is not nodata, or what its mask shows; never by its overviews."""
    source = SubElement(band, "SimpleSource" if nodata is None and not by_mask else "ComplexSource")
    SubElement(source, "SourceFilename", relativeToVRT=name[1], shared="0").text = name[0]
    SubElement(SubElement(source, "OpenOptions"), "OOI", key="OVERVIEW_LEVEL").text = "NONE"
    SubElement(source, "SourceBand").text = number
    size = {"xSize": str(window.width), "ySize": str(window.height)}
    rows, cols = tile.blocks[0 if number.startswith("mask") else int(number) - 1]
    SubElement(
        source, "SourceProperties", RasterXSize=size["xSize"], RasterYSize=size["ySize"],
        DataType=_gdal_typename(dtype), BlockXSize=str(cols), BlockYSize=str(rows),
    )  # fmt: skip
    SubElement(source, "SrcRect", {"xOff": "0", "yOff": "0", **size})
    SubElement(source, "DstRect", {"xOff": str(window.col_off), "yOff": str(window.row_off), **size})
    if nodata is not None:
        SubElement(source, "NODATA").text = repr(nodata)
    if by_mask:
        SubElement(source, "UseMaskBand").text = "true"


def _keep(vrt: Path, text: str, tiles: Sequence[Tile]) -> None:
    """Write the VRT, whole before it has its name, unless it is there already; its time is that of the newest tile."""
    with writing(vrt):
        if vrt.is_file() and vrt.read_bytes() == text.encode():
            return
        fresh = vrt.with_name(f"{vrt.name}.{os.getpid()}.tmp")
        try:
            fresh.write_bytes(text.encode())
            newest = max((os.stat(tile.path).st_mtime_ns for tile in tiles if os.path.exists(tile.path)), default=0)
            os.utime(fresh, ns=(newest, newest))
            fresh.replace(vrt)
        finally:
            fresh.unlink(missing_ok=True)


def per_tile(
    labels: str | os.PathLike[str], paths: Sequence[str], folder: str | os.PathLike[str], *, overwrite: bool = False
) -> list[str]:
    """Cut the labels of a scene made of tiles back to its tiles: one label raster for each, on exactly its grid.

    They are like the whole one: COG, colours, names and run record, with counts of their own; `<stem>_labels.tif` in
    the folder, or what `label_names` makes of equal stems. Returns their names.

    Raises SceneError for what is no label raster of `segment`, UsageError for tiles that do not lie in it, OutputError.
    """
    check_per_tile(paths, folder, [Path(labels)], overwrite=overwrite)
    names = label_names(paths, os.fspath(folder))
    with raster_env(), opened(os.fspath(labels), f"{os.fspath(labels)!r} as labels") as src:
        record, classes = _record(src)
        layouts, windows = [], []
        for path in paths:
            tile = look(path).grid
            layouts.append(LabelProfile(tile, classes))
            windows.append(_window(src, tile, path))
        for name, layout, window in zip(names, layouts, windows, strict=True):
            _cut(src, window, layout, record, name)
    return [str(name) for name in names]


def check_per_tile(
    paths: Sequence[str], folder: str | os.PathLike[str], others: Sequence[Path], *, overwrite: bool
) -> None:
    """Refuse a folder in which labels of tiles would replace something, or one of the `others`.

    Raises UsageError and OutputError.
    """
    for name in label_names(paths, os.fspath(folder)):
        if any(os.path.realpath(name) == os.path.realpath(other) for other in others):
            raise UsageError(f"{name} would be the labels of a tile and of the mosaic; choose another folder or -o")
        try:
            Outputs(name).check(paths, overwrite=overwrite, resume=True)
        except OutputError as error:  # which advises another -o
            advice = re.sub(r"another (name with )?-o\b", "another folder with --per-tile", str(error))
            raise OutputError(advice) from error


def _record(src: Any) -> tuple[str, tuple[tuple[str, str], ...]]:
    """The run record of a label raster, and names and colours of its classes. Raises SceneError."""
    record = src.tags().get(RUN_TAG)
    try:
        return record, tuple((name, colour) for name, _, colour in json.loads(record)["classes"])
    except (ValueError, LookupError, TypeError) as error:
        raise SceneError(f"{src.name} is no label raster of geoovseg segment: {first_line(error)}") from error


def _window(src: Any, tile: RasterGrid, path: str) -> Window:
    """Where a tile lies in the labels. Raises UsageError."""
    whole = RasterGrid(height=src.height, width=src.width, crs=src.crs, transform=src.transform)
    row, col = place(tile, path, whole, src.name)
    if min(row, col) < 0 or row + tile.height > whole.height or col + tile.width > whole.width:
        raise UsageError(f"{path} does not lie in {src.name}, so there are no labels to cut out for it")
    return Window(col, row, tile.width, tile.height)


def _cut(src: Any, window: Window, layout: LabelProfile, record: str, target: Path) -> None:
    """Copy a window of labels as a finished label raster."""
    legend = _counted(src, window, layout)
    with writing(target), bench_at(Outputs(target).bench) as bench:
        copy, empty = bench / f"cog{LABELS}", empty_raster(bench / f"all{LABELS}", layout, LABELS, record)
        write_cog(copy, empty, [piece(Path(src.name).absolute(), window, 0, 0)], overviews="MODE", block=BLOCK)
        aux = label_aux_xml(legend, crs_for_side_file(copy, layout.grid))
        ready = [(copy, target), *sidecars(target, label_qml(legend), aux, bench)]
        swap(ready[::-1], beside(target), bench)


def _counted(src: Any, window: Window, layout: LabelProfile) -> list[LegendEntry]:
    """Codes, names, colours and how many pixels of a window have them, read a few rows at a time."""
    counts = np.zeros(layout.nodata + 1, np.int64)
    for row in range(window.row_off, window.row_off + window.height, BLOCK):
        rows = min(BLOCK, window.row_off + window.height - row)
        codes = src.read(1, window=Window(window.col_off, row, window.width, rows))
        counts += np.bincount(codes.ravel(), minlength=len(counts))
    return [replace(entry, pixels=int(counts[entry.code])) for entry in layout.legend]
