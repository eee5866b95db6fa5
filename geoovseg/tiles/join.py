"""Adjacent tiles as one scene: a VRT through all of them."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from xml.etree.ElementTree import Element, ParseError, SubElement, fromstring, parse, tostring

import numpy as np
from rasterio._path import _parse_path, _vsi_path
from rasterio.dtypes import _gdal_typename
from rasterio.windows import Window

from geoovseg.errors import SceneError, UsageError, first_line
from geoovseg.files import as_path, whole
from geoovseg.labels.names import writing
from geoovseg.network import public
from geoovseg.rasters.ground import RasterGrid, is_older_form
from geoovseg.rasters.open import opened, raster_env
from geoovseg.rasters.vrt import alpha_of, band_like, dataset_like, mask_of
from geoovseg.tiles.grid import Tile, check_alike, joined, look


def vrt_of(labels: Path, kind: str = "mosaic") -> Path:
    """Where the VRT of a mosaic or of a `stack` is while its labels are computed."""
    return labels.with_name(f"{labels.name}.{kind}.vrt")


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
    if not paths:
        raise UsageError("no tiles are given; name at least one")
    target = as_path(vrt, "the VRT")
    with raster_env():
        tiles = [look(path) for path in paths]
        for tile in tiles[1:]:
            check_alike(tiles[0], tile)
        grid, windows = joined(tiles)
        with opened(tiles[0].path, f"{tiles[0].path!r} as a tile") as src:
            text = tostring(_described(src, tiles, grid, windows, target), encoding="unicode")
    keep(target, text, paths)
    return os.fspath(vrt)


@contextmanager
def one_scene(paths: Sequence[str]) -> Iterator[str]:
    """A scene to look at: a raster itself, or several as tiles of one, by a VRT that is gone in the end.

    Raises what `as_one` raises.
    """
    if len(paths) == 1:
        yield paths[0]
        return
    with tempfile.TemporaryDirectory() as passing:
        yield as_one(paths, os.path.join(passing, "mosaic.vrt"))


def _described(src: Any, tiles: Sequence[Tile], grid: RasterGrid, windows: Sequence[Window], vrt: Path) -> Element:
    """The VRT; `src` is the first tile."""
    common = {key: text for key, text in tiles[0].tags.items() if all(tile.tags.get(key) == text for tile in tiles)}
    root = dataset_like(src, (grid.height, grid.width), grid.crs, grid.transform, common)
    covered, twice = _covered(windows)
    alpha = alpha_of(src) is not None
    masked = any(tile.masked for tile in tiles)
    blind = not alpha and not masked and all(value is None for value in src.nodatavals)
    placed = [(tile, window, name_in(tile.path, vrt)) for tile, window in zip(tiles, windows, strict=True)]
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


def name_in(path: str, vrt: Path) -> tuple[str, str]:
    """A file's name in a VRT, and whether it is relative, as of files on disk, so that both can be moved together."""
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


def _is_same(old: str, new: str) -> bool:
    """Whether two VRTs say the same; older versions wrote coordinate systems as WKT 1."""
    if old == new:
        return True
    try:
        there, here = fromstring(old), fromstring(new)
        was, now = there.find("SRS"), here.find("SRS")
        if was is None or now is None or not is_older_form(was.text, now.text):
            return False
    except ParseError:
        return False
    was.text = now.text
    return tostring(there) == tostring(here)


def keep(vrt: Path, text: str, paths: Sequence[str]) -> None:
    """Write a VRT, whole before it has its name, unless it is there already; its time is that of the newest file."""
    with writing(vrt):
        if vrt.is_file() and _is_same(vrt.read_text(encoding="utf-8", errors="replace"), text):
            return
        with whole(vrt) as fresh:
            fresh.write_bytes(text.encode())
            if public(text) != text:  # signed addresses are for their owner alone
                fresh.chmod(0o600)
            newest = max((os.stat(path).st_mtime_ns for path in paths if os.path.exists(path)), default=0)
            os.utime(fresh, ns=(newest, newest))
