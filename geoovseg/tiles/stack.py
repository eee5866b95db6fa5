"""Bands in files of their own as one scene: a VRT of them all, on the grid of the finest that is seen."""

from __future__ import annotations

import os
import re
from collections.abc import Sequence
from contextlib import ExitStack
from itertools import takewhile
from pathlib import Path
from typing import Any
from xml.etree.ElementTree import Element, tostring

from affine import Affine
from rasterio.enums import MaskFlags

from geoovseg.errors import UsageError
from geoovseg.files import as_path
from geoovseg.labels.scene_names import place_of
from geoovseg.rasters.band_names import code_of, colour_of
from geoovseg.rasters.ground import RasterGrid
from geoovseg.rasters.open import check_suitable, opened, raster_env
from geoovseg.rasters.vrt import add_source, alpha_of, band_like, dataset_like, mask_of, metadata
from geoovseg.scene.bands import Band, choose_bands
from geoovseg.scene.satellites import mission_of, wavelength
from geoovseg.tiles.bands import band_files
from geoovseg.tiles.join import keep, name_in

NEAR = 0.01
"""Pixels by which the far end of a band may be off, for turned grids."""


def stack_name(paths: Sequence[str]) -> Path:
    """`<name>_labels.tif` for the bands of one scene: beside their folder and named after it, or by what they share."""
    if len(paths) == 1:
        folder, name = place_of(paths[0])
        return folder / f"{name}_labels.tif"
    signs = zip(*(place_of(path)[1] for path in paths), strict=False)
    shared = "".join(sign[0] for sign in takewhile(lambda sign: len(set(sign)) == 1, signs))
    start = re.match(r"(.*[^_. -])[_. -]", shared)
    name = re.sub(r"[_. -](SR|ST|TOA|band)$", "", start[1], flags=re.IGNORECASE) if start else "stack"
    return place_of(paths[0])[0] / f"{name}_labels.tif"


def as_stack(paths: Sequence[str], vrt: str | os.PathLike[str], *, bands: Sequence[Band] | None = None) -> str:
    """Make one scene of bands in files of their own: a VRT, whose name is returned.

    `paths` are rasters of one band each, or the folder of a product (Sentinel-2 SAFE, Landsat Collection 2, any other
    whose files are named after bands). Red, green and blue are those that `bands` names, by number in the order of
    the files, satellite's number or colour; else those that their names, wavelengths or mission tell, as of one raster
    with these bands; else three files in this order. The grid is that of the finest of these three; others are
    resampled to it as they are read. Made again of the same files it is the same file.

    Raises SceneError for files that cannot be opened, and for bands of which nothing tells which are which; UsageError
    for files of several bands, in other coordinate systems, or of other ground; OutputError.
    """
    files = band_files(paths)
    with raster_env(), ExitStack() as stack:
        layers = [stack.enter_context(opened(path, f"{path!r} as a band")) for path in files]
        for path, src in zip(files, layers, strict=True):
            _check_layer(path, src, files[0], layers[0])
        seen = _seen(files, layers, as_path(vrt, "the VRT"), bands)
        grid = min((_grid(layers[n - 1]) for n in seen), key=lambda grid: abs(grid.transform.determinant))
        for n in seen:
            _check_ground(files[n - 1], _grid(layers[n - 1]), grid)
        text = tostring(_described(files, layers, grid, Path(vrt)), encoding="unicode")
    keep(Path(vrt), text, files)
    return os.fspath(vrt)


def _seen(files: Sequence[str], layers: Sequence[Any], vrt: Path, bands: Sequence[Band] | None) -> tuple[int, int, int]:
    """Numbers of the bands that will be seen as red, green, blue, whatever the grid."""
    text = tostring(_described(files, layers, _grid(layers[0]), None), encoding="unicode")
    with opened(text, "bands as one scene") as src:
        return choose_bands(src, bands, os.fspath(vrt))


def _grid(src: Any) -> RasterGrid:
    return RasterGrid(height=src.height, width=src.width, crs=src.crs, transform=src.transform)


def _check_layer(path: str, src: Any, first: str, other: Any) -> None:
    """Refuse what is no band beside another one. Raises SceneError, UsageError."""
    check_suitable(src, path)
    light = src.count - (alpha_of(src) is not None)
    if light != 1:
        raise UsageError(f"--stack takes files of one band each, and {path} has {light}; segment it without --stack")
    if src.crs != other.crs:
        raise UsageError(
            f"bands of one scene must be in one coordinate system, not {first} in {_short(other.crs)} and {path} in "
            f"{_short(src.crs)}; warp them to one: gdalwarp -t_srs"
        )


def _short(crs: Any) -> str:
    text = "none" if crs is None else crs.to_string()
    return text if len(text) < 60 else f"{text[:57]}..."


def _place(layer: RasterGrid, grid: RasterGrid) -> tuple[float, float, float, float]:
    """Column, row, width and height of a band in pixels of a grid."""
    into: Affine = ~grid.transform @ layer.transform
    return _whole(into.c), _whole(into.f), _whole(into.a * layer.width), _whole(into.e * layer.height)


def _whole(number: float) -> float:
    """A number without what arithmetic added to a whole one."""
    return float(round(number)) if abs(number - round(number)) < 1e-6 else number


def _check_ground(path: str, layer: RasterGrid, grid: RasterGrid) -> None:
    """Refuse a band that is turned, or leaves out more of the scene than one of its pixels. Raises UsageError."""
    into: Affine = ~grid.transform @ layer.transform
    if abs(into.b) * layer.height > NEAR or abs(into.d) * layer.width > NEAR or into.a <= 0 or into.e <= 0:
        raise UsageError(f"the pixels of {path} run in other directions than those of the finest band; warp it first")
    col, row, width, height = _place(layer, grid)
    lacking = max(col, grid.width - col - width) / max(into.a, 1), max(row, grid.height - row - height) / max(into.e, 1)
    if max(lacking) > 1 + NEAR:
        raise UsageError(
            f"bands of one scene must show the same ground, and {path} lacks {max(lacking):.3g} of its pixels at a "
            "side of the finest band; cut them alike: gdal_translate -projwin"
        )


def _described(files: Sequence[str], layers: Sequence[Any], grid: RasterGrid, vrt: Path | None) -> Element:
    """The VRT, in a file whose sources may be relative to it, or in none."""
    tags = [src.tags() for src in layers]
    common = {key: text for key, text in tags[0].items() if all(other.get(key) == text for other in tags)}
    missions = {mission_of(path) for path in files} - {None}
    told = {"PLATFORM": str(next(iter(missions)))} if len(missions) == 1 else {}
    root = dataset_like(layers[0], (grid.height, grid.width), grid.crs, grid.transform, {**common, **told})
    for number, (path, src) in enumerate(zip(files, layers, strict=True), start=1):
        _add(root, path, src, grid, vrt, number)
    return root


def _add(root: Element, path: str, src: Any, grid: RasterGrid, vrt: Path | None, number: int) -> None:
    """Add a band, with the name of its file where that says more, and its mask, if it has one."""
    own = next(n for n in range(1, src.count + 1) if n != alpha_of(src))
    band = band_like(root, src, own, None)
    band.set("band", str(number))
    called = place_of(path)[1]
    _name(band, called if code_of(called) or colour_of(called) else src.descriptions[own - 1] or called)
    if (wave := wavelength(src, own)) is not None:
        metadata(band, {"CENTRAL_WAVELENGTH_UM": f"{wave:g}"}, "IMAGERY")
    at, file = _place(_grid(src), grid), name_in(path, vrt) if vrt else None
    way = "nearest" if at[2:] == (src.width, src.height) and at[0].is_integer() and at[1].is_integer() else "bilinear"
    add_source(band, src, str(own), at, way, file)
    if MaskFlags.all_valid not in src.mask_flag_enums[own - 1]:
        add_source(mask_of(band), src, f"mask,{own}", at, way, file)


def _name(band: Element, text: str) -> None:
    """Give a band of a VRT a name, in place of the one it has."""
    old = band.find("Description")
    if old is None:
        old = Element("Description")
        band.insert(0, old)
    old.text = text
