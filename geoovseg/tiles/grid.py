"""Where tiles lie beside each other, and whether they are of one scene: one grid, and numbers that mean the same."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from affine import Affine
from rasterio.crs import CRS
from rasterio.enums import ColorInterp, MaskFlags
from rasterio.windows import Window

from geoovseg.errors import SceneError, UsageError
from geoovseg.rasters.ground import RasterGrid
from geoovseg.rasters.open import opened
from geoovseg.rasters.vrt import bits_of, palette_of

NEAR = 0.01
"""Pixels by which tiles may be off a common grid."""
LONGEST = 2**31 - 1
"""The most rows or columns that GDAL counts."""
NAMES = "names of bands"
ADVICE = {
    "coordinate systems": "warp them to one: gdalwarp -t_srs",
    "pixel types": "make them alike: gdal_translate -ot",
    "nodata values": "make them alike: gdal_translate -a_nodata",
}


@dataclass(frozen=True, kw_only=True)
class Tile:
    """What is to be known of a raster to put it beside others."""

    path: str
    grid: RasterGrid
    said: dict[str, Any]
    """what all tiles of a scene say alike"""
    tags: dict[str, str]
    blocks: tuple[tuple[int, int], ...]
    """(rows, columns) of the blocks of every band"""
    masked: bool
    """whether a mask of its own says where data is"""


def look(path: str) -> Tile:
    """What a tile says of itself. Raises SceneError where it has no place on the ground."""
    with opened(path, f"{path!r} as a tile") as src:
        grid = RasterGrid(height=src.height, width=src.width, crs=src.crs, transform=src.transform)
        if grid.transform.is_identity or grid.transform.is_degenerate:
            raise SceneError(f"{path} does not say where its pixels lie, so it cannot be a tile of a mosaic")
        flags = src.mask_flag_enums[0] if src.count else []
        return Tile(
            path=path,
            grid=grid,
            said=_said(src),
            tags=src.tags(),
            blocks=tuple(src.block_shapes),
            masked=MaskFlags.per_dataset in flags and MaskFlags.alpha not in flags,
        )


def _said(src: Any) -> dict[str, Any]:
    """What the numbers of a raster mean, by what it is called in a message."""
    bands = range(1, src.count + 1)
    palettes = [palette_of(src, n, src.name) for n in bands if src.colorinterp[n - 1] == ColorInterp.palette]
    return {
        "coordinate systems": src.crs,
        "numbers of bands": src.count,
        "pixel types": src.dtypes,
        "colours of bands": tuple(kind.name for kind in src.colorinterp),
        "palettes": palettes,
        "nodata values": tuple(map(str, src.nodatavals)),
        "scales and offsets": (src.scales, src.offsets),
        "bits in use": tuple(bits_of(src, n) for n in bands),
        NAMES: tuple(filter(None, src.descriptions)),
    }


def check_alike(first: Tile, other: Tile) -> None:
    """Refuse tiles whose numbers do not mean the same. Raises UsageError."""
    _check_placed(first, other)
    for what, mine in first.said.items():
        its = other.said[what]
        if mine == its or (what == NAMES and not (mine and its)):
            continue
        values = "" if what == "palettes" else f", {_short(mine)} and {_short(its)}"
        advice = f"; {ADVICE[what]}" if what in ADVICE else ""
        raise UsageError(
            f"tiles of one scene must be alike: {first.path} and {other.path} differ in {what}{values}{advice}"
        )


def _check_placed(first: Tile, other: Tile) -> None:
    """Refuse tiles of which only one says its coordinate system. Raises UsageError."""
    placed, lost = (first, other) if other.grid.crs is None else (other, first)
    if placed.grid.crs is None or lost.grid.crs is not None:
        return
    authority = placed.grid.crs.to_authority()
    name = ":".join(authority) if authority else "..."
    raise UsageError(
        f"tiles of one scene must be alike: {lost.path} has no coordinate system, and {placed.path} is in "
        f"{_short(placed.grid.crs)}; if that is right, give it the same: gdal_edit.py -a_srs {name} {lost.path}"
    )


def _short(value: Any) -> str:
    text = (
        ", ".join(map(str, value))
        if isinstance(value, tuple)
        else str(value.to_string() if isinstance(value, CRS) else value)
    )
    return text if len(text) < 60 else f"{text[:57]}..."


def place(tile: RasterGrid, path: str, grid: RasterGrid, of: str) -> tuple[int, int]:
    """Row and column of a grid at which the first pixel of another lies; the paths are for messages.

    Raises UsageError for pixels of another size or direction, or further off than 1/100 of one.
    """
    into = ~grid.transform @ tile.transform
    bent = max(abs(into.a - 1), abs(into.d)) * tile.width + max(abs(into.e - 1), abs(into.b)) * tile.height
    if not bent < NEAR:
        raise UsageError(
            f"tiles of one scene must have pixels of one size: those of {path} are {_size(tile)}, those of {of} "
            f"{_size(grid)}; warp them alike: gdalwarp -tr {_step(grid)} -tap"
        )
    off = max(abs(into.c - round(into.c)), abs(into.f - round(into.f)))
    if not off < NEAR:
        raise UsageError(
            f"{path} and {of} are not on one grid but {off:.2g} pixels off it; align both: "
            f"gdalwarp -tr {_step(grid)} -tap"
        )
    return round(into.f), round(into.c)


def _size(grid: RasterGrid) -> str:
    turned = ", rotated" if grid.transform.b or grid.transform.d else ""
    return f"{grid.transform.a:.10g} x {grid.transform.e:.10g}{turned}"


def _step(grid: RasterGrid) -> str:
    """Width and height of a pixel, as gdalwarp wants them."""
    m = grid.transform
    return f"{math.hypot(m.a, m.d):.10g} {math.hypot(m.b, m.e):.10g}"


def joined(tiles: Sequence[Tile]) -> tuple[RasterGrid, list[Window]]:
    """The grid over all tiles, and where each of them lies in it. Raises UsageError."""
    first = tiles[0]
    places = [place(tile.grid, tile.path, first.grid, first.path) for tile in tiles]
    top, left = (min(offs) for offs in zip(*places, strict=True))
    windows = [
        Window(col - left, row - top, tile.grid.width, tile.grid.height)
        for tile, (row, col) in zip(tiles, places, strict=True)
    ]
    height, width = max(w.row_off + w.height for w in windows), max(w.col_off + w.width for w in windows)
    if max(height, width) > LONGEST:
        raise UsageError(
            f"the tiles would be a scene of {width} x {height} pixels; do all of them belong to the same scene?"
        )
    corner = [tile.grid.transform for tile, at in zip(tiles, places, strict=True) if at == (top, left)]
    transform = corner[0] if corner else first.grid.transform @ Affine.translation(left, top)
    return RasterGrid(height=height, width=width, crs=first.grid.crs, transform=transform), windows
