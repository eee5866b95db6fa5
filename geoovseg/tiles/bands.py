"""Files of single bands: those of a product's folder, and those that only look like scenes of their own."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

from rasterio.enums import ColorInterp

from geoovseg.errors import SceneError, UsageError, first_line
from geoovseg.files import RASTERS
from geoovseg.labels.ours import is_ours
from geoovseg.network import is_remote
from geoovseg.rasters.band_names import code_of, colour_of
from geoovseg.rasters.ground import RasterGrid
from geoovseg.rasters.open import opened, raster_env

LOOKED, FEW = 16, 3
"""Scenes at which is looked whether they are bands of one, and after how many without a single band none are."""


def band_files(paths: Sequence[str]) -> list[str]:
    """The files of bands that paths name: themselves, and of a folder those that are named after bands.

    Of a band that a folder has at several resolutions, the finest counts. Raises UsageError for less than three, and
    where two files of a folder are as good; SceneError for a folder that cannot be listed.
    """
    found = [file for path in paths for file in (_in_folder(path) if os.path.isdir(path) else [path])]
    if len(found) < 3:
        raise UsageError(f"--stack makes a scene of the files of three bands at least, not of {', '.join(found)}")
    return found


def _in_folder(folder: str) -> list[str]:
    try:
        files = _product(Path(folder)) or [path for path in Path(folder).iterdir() if path.is_file()]
    except OSError as error:
        raise SceneError(f"cannot list the folder {folder}: {first_line(error)}") from error
    found: dict[str, list[str]] = {}
    for path in sorted(files):
        band = code_of(path.stem) or colour_of(path.stem)
        if band and path.suffix.lower() in RASTERS and not (path.name.startswith(".") or is_ours(str(path))):
            found.setdefault(band, []).append(str(path))
    if not found:
        raise UsageError(f"the folder {folder} has no files that are named after bands, as B04.jp2 or scene_SR_B4.tif")
    bands = sorted(found, key=lambda band: (not band[0].isdigit(), int(band.rstrip("A")) if band[0].isdigit() else 0))
    return [_finest(band, found[band]) for band in bands]


def _product(folder: Path) -> list[Path]:
    """The images of a Sentinel-2 product; none where a folder is something else. Raises UsageError for several."""
    granules = sorted({path.parent for path in folder.glob("GRANULE/*/IMG_DATA")})
    if len(granules) > 1:
        names = ", ".join(granule.name for granule in granules)
        raise UsageError(f"{folder} has several granules, {names}; give the files of the bands of one")
    return [path for granule in granules for path in granule.glob("IMG_DATA/**/*") if path.is_file()]


def _finest(band: str, files: Sequence[str]) -> str:
    """The file with the smallest pixels. Raises UsageError where there are two."""
    if len(files) == 1:
        return files[0]
    with raster_env():
        sizes = sorted((abs(_grid_of(file)[0].transform.determinant), file) for file in files)
    if sizes[0][0] == sizes[1][0]:
        raise UsageError(f"{sizes[0][1]} and {sizes[1][1]} are both band {band}; give the files of three bands by name")
    return sizes[0][1]


def _grid_of(path: str) -> tuple[RasterGrid, bool]:
    """Where a raster lies, and whether it has one band of light. Raises SceneError."""
    with opened(path, f"{path!r} as a band") as src:
        grid = RasterGrid(height=src.height, width=src.width, crs=src.crs, transform=src.transform)
        return grid, src.count == 1 and src.colorinterp[0] != ColorInterp.palette


def bands_apart(scenes: Sequence[str]) -> list[str]:
    """Scenes that may be the bands of one: of one band each, and over the same ground; none for a single one.

    Only the first scenes are looked at; what cannot be opened is passed over.
    """
    found: list[tuple[str, RasterGrid]] = []
    with raster_env():
        for number, path in enumerate(scenes[:LOOKED]):
            try:
                grid, single = _grid_of(path)
            except SceneError:
                if is_remote(path):  # which may have taken its time; the others' server is the same
                    break
                continue
            if single and not grid.transform.is_identity and (not found or _same_ground(found[0][1], grid)):
                found.append((path, grid))
            if not found and number + 1 >= FEW:
                break
    return [path for path, _ in found] if len(found) > 1 else []


def _same_ground(one: RasterGrid, other: RasterGrid) -> bool:
    """Whether two rasters end at the same places, but for a pixel."""
    into = ~one.transform @ other.transform
    ends = [into @ corner for corner in ((0, 0), (other.width, other.height))]
    off = max(abs(end - side) for pair, sides in zip(ends, ((0, 0), (one.width, one.height)), strict=True)
              for end, side in zip(pair, sides, strict=True))  # fmt: skip
    return one.crs == other.crs and off <= max(1.0, abs(into.a), abs(into.e))
