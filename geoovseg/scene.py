"""The scene: an open raster as three bands of light and a mask, read window by window."""

from __future__ import annotations

import itertools
import os
import warnings
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import rasterio
from affine import Affine
from numpy.typing import NDArray
from rasterio._err import CPLE_BaseError
from rasterio.crs import CRS
from rasterio.enums import ColorInterp, MaskFlags
from rasterio.env import getenv, hasenv
from rasterio.errors import RasterioError
from rasterio.windows import Window

from geoovseg.errors import GeoOVSegWarning, SceneError, UsageError, first_line
from geoovseg.rasters import opened
from geoovseg.region_file import RegionFile, open_regions

DEMO_TAG = "GEOOVSEG_DEMO"
"""Tag of the drawn scenes of the demo; its value is their seed."""
FILL = np.asarray((0.48145466, 0.4578275, 0.40821073), np.float32)[:, None, None]
"""What models see where there is no data: CLIP's mean colour, which is zero after normalisation."""


@dataclass(frozen=True, kw_only=True)
class TileBatch:
    """Windows of a scene, as methods see them."""

    windows: tuple[Window, ...]
    """on the working grid"""
    pixels: NDArray[np.float32]
    """(B, 3, H, W) RGB in 0..1; CLIP's mean colour where not valid"""
    valid: NDArray[np.bool_]
    """(B, H, W) true where the scene has data"""
    regions: NDArray[np.int32] | None = None
    """(B, H, W) region ids, for methods that use regions"""

    def __len__(self) -> int:
        return len(self.windows)

    def take(self, index: NDArray[np.intp]) -> TileBatch:
        """The windows at these positions, in this order."""
        regions = None if self.regions is None else self.regions[index]
        windows = tuple(self.windows[i] for i in index)
        return TileBatch(windows=windows, pixels=self.pixels[index], valid=self.valid[index], regions=regions)


def join(batches: Sequence[TileBatch]) -> TileBatch:
    """Batches of windows of one size as one."""
    regions = [b.regions for b in batches if b.regions is not None]
    return TileBatch(
        windows=tuple(w for b in batches for w in b.windows),
        pixels=np.concatenate([b.pixels for b in batches]),
        valid=np.concatenate([b.valid for b in batches]),
        regions=None if not regions else np.concatenate(regions),
    )


def in_batches(batches: Iterable[TileBatch], size: int) -> Iterator[TileBatch]:
    """`size` batches at a time as one, the last one of fewer."""
    stream = iter(batches)
    while group := list(itertools.islice(stream, size)):
        yield join(group)


@dataclass(frozen=True, kw_only=True)
class Scene:
    """An open raster: what the pipeline needs to know of it, and windows of its pixels."""

    src: Any
    path: str
    bands: tuple[int, int, int]
    """indexes of red, green, blue"""
    masks: tuple[int, ...]
    """bands whose masks say where data is; none where all pixels have it"""
    alpha: int | None = None
    """the alpha band, where a nodata value hides it from GDAL's masks"""
    regions: RegionFile | None = None
    """region ids on the same grid, for methods that use regions"""

    @property
    def shape(self) -> tuple[int, int]:
        """(height, width) of the working grid."""
        return int(self.src.height), int(self.src.width)

    @property
    def crs(self) -> CRS | None:
        """The coordinate system, exactly as the file states it."""
        return self.src.crs

    @property
    def transform(self) -> Affine:
        """Pixel to map coordinates of the working grid."""
        return self.src.transform

    @property
    def files(self) -> tuple[str, ...]:
        """The files on disk it is read from: itself, its side files, what a VRT is made of, and its regions."""
        return (self.path, *self.src.files, *(self.regions.files if self.regions else ()))

    @property
    def is_demo(self) -> bool:
        """Whether this is one of the drawn demo scenes."""
        return DEMO_TAG in self.src.tags()

    def read(self, window: Window) -> tuple[NDArray[np.uint8], NDArray[np.bool_]]:
        """Pixels (3, h, w) and validity (h, w) of a window inside the scene. Raises SceneError."""
        try:
            unique = sorted(set(self.bands))
            data = self.src.read(indexes=unique, window=window)
            valid = self._valid(data, window)
        except (RasterioError, CPLE_BaseError, OSError) as error:
            raise SceneError(
                f"cannot read rows {window.row_off}..{window.row_off + window.height} and columns {window.col_off}.."
                f"{window.col_off + window.width} of {self.path}: {error}; the file may be cut short or damaged"
            ) from error
        return data[[unique.index(b) for b in self.bands]], valid

    def _valid(self, data: NDArray[np.uint8], window: Window) -> NDArray[np.bool_]:
        """Where a window has data: a pixel lacks it if all three bands do, or if it is transparent."""
        if self.alpha is not None:
            return (data != self.src.nodata).any(axis=0) & (self.src.read(self.alpha, window=window) > 0)
        if not self.masks:
            return np.ones(data.shape[1:], bool)
        return self.src.read_masks(list(self.masks), window=window).any(axis=0)

    def batch(self, windows: Sequence[Window]) -> TileBatch:
        """Read windows of one size as a batch; those beyond the edge are continued by reflection, as not valid."""
        pixels: list[NDArray[np.float32]] = []
        valid: list[NDArray[np.bool_]] = []
        for run in _runs(windows):
            data, mask = self.read(self._clip(_union(run)))
            for window in run:
                cols = slice(window.col_off - run[0].col_off, window.col_off - run[0].col_off + window.width)
                tile, known = _reflect(data[:, :, cols], mask[:, cols], (window.height, window.width))
                pixels.append(np.where(known, tile.astype(np.float32) / np.float32(255), FILL))
                valid.append(known)
                inside = self._clip(window)
                valid[-1][inside.height :], valid[-1][:, inside.width :] = False, False
        regions = None if self.regions is None else np.stack([self._regions(w, self.regions) for w in windows])
        return TileBatch(windows=tuple(windows), pixels=np.stack(pixels), valid=np.stack(valid), regions=regions)

    def _regions(self, window: Window, file: RegionFile) -> NDArray[np.int32]:
        """Region ids (h, w) of a window; none beyond the edge."""
        inside = self._clip(window)
        ids = np.zeros((window.height, window.width), np.int32)
        ids[: inside.height, : inside.width] = file.read(inside)
        return ids

    def _clip(self, window: Window) -> Window:
        height, width = self.shape
        return Window(
            window.col_off,
            window.row_off,
            min(window.width, width - window.col_off),
            min(window.height, height - window.row_off),
        )


def _runs(windows: Sequence[Window]) -> list[list[Window]]:
    """Split windows into runs of one row, left to right, so that a run is one read."""
    runs: list[list[Window]] = []
    for window in windows:
        last = runs[-1][-1] if runs else None
        if last is not None and window.row_off == last.row_off and 0 < window.col_off - last.col_off <= last.width:
            runs[-1].append(window)
        else:
            runs.append([window])
    return runs


def _union(run: Sequence[Window]) -> Window:
    first, last = run[0], run[-1]
    return Window(first.col_off, first.row_off, last.col_off + last.width - first.col_off, first.height)


def _reflect(
    data: NDArray[np.uint8], mask: NDArray[np.bool_], shape: tuple[int, int]
) -> tuple[NDArray[np.uint8], NDArray[np.bool_]]:
    """Continue (3, h, w) pixels and their mask to `shape` by reflection to the right and below."""
    pad = [(0, shape[0] - mask.shape[0]), (0, shape[1] - mask.shape[1])]
    if not any(after for _, after in pad):
        return data, mask.copy()
    return np.pad(data, [(0, 0), *pad], mode="reflect"), np.pad(mask, pad, mode="reflect")


def raster_env() -> rasterio.Env:
    """GDAL settings of a run: a block cache of 64 MB, unless the user set GDAL_CACHEMAX."""
    chosen = "GDAL_CACHEMAX" in os.environ or (hasenv() and "GDAL_CACHEMAX" in getenv())
    return rasterio.Env(**({} if chosen else {"GDAL_CACHEMAX": 64}))


@contextmanager
def open_scene(
    path: str | os.PathLike[str], *, bands: Sequence[int] | None = None, regions: str | None = None
) -> Iterator[Scene]:
    """Open a raster as a scene of three 8-bit bands, with a raster of `regions` if there is one.

    `bands` are 1-based indexes of red, green and blue; by default what the file calls red, green and blue, else bands
    1, 2, 3, else the first band three times. Raises SceneError for what cannot be opened or is not 8-bit, UsageError
    for bands the file lacks; warns of a missing coordinate system.
    """
    name = os.fspath(path)
    with raster_env(), opened(name, f"{name!r} as a raster") as src:
        try:
            scene = _inspect(src, bands, name)
        except CPLE_BaseError as error:
            raise SceneError(f"the georeferencing of {name!r} cannot be understood: {first_line(error)}") from error
        if src.crs is None:
            warnings.warn(f"{name} has no coordinate system; the outputs will have none either", GeoOVSegWarning, 3)
        if regions is None:
            yield scene
            return
        with open_regions(regions, src) as file:
            yield replace(scene, regions=file)


def _inspect(src: Any, bands: Sequence[int] | None, name: str) -> Scene:
    """Decide the bands, and refuse what cannot be read as 8-bit light."""
    if src.count == 0:
        raise SceneError(f"{name} has no bands of its own; name one of its parts: {', '.join(src.subdatasets[:3])}")
    chosen = _bands(src, bands, name)
    odd = {src.dtypes[b - 1] for b in chosen} - {"uint8"}
    if odd:
        raise SceneError(f"{name} has {odd.pop()} pixels; only 8-bit scenes (uint8) can be segmented so far")
    if src.colorinterp[chosen[0] - 1] == ColorInterp.palette:
        raise SceneError(f"{name} has a palette; expand it first: gdal_translate -expand rgb {name} rgb.tif")
    flags = {band: src.mask_flag_enums[band - 1] for band in sorted(set(chosen))}
    masks = [band for band, kinds in flags.items() if MaskFlags.all_valid not in kinds]
    alphas = [band for band, kind in enumerate(src.colorinterp, start=1) if kind == ColorInterp.alpha]
    return Scene(
        src=src,
        path=name,
        bands=chosen,
        masks=tuple(masks[:1] if any(MaskFlags.per_dataset in kinds for kinds in flags.values()) else masks),
        alpha=alphas[0] if alphas and src.nodata is not None else None,
    )


def _bands(src: Any, bands: Sequence[int] | None, name: str) -> tuple[int, int, int]:
    if bands is not None:
        wrong = [b for b in bands if not 1 <= b <= src.count]
        if len(bands) != 3 or wrong:
            raise UsageError(
                f"--bands {','.join(map(str, bands))}: three bands between 1 and {src.count} are needed for {name}"
            )
        return bands[0], bands[1], bands[2]
    named = {interp: index for index, interp in reversed(list(enumerate(src.colorinterp, start=1)))}
    rgb = (ColorInterp.red, ColorInterp.green, ColorInterp.blue)
    if all(c in named for c in rgb):
        return named[rgb[0]], named[rgb[1]], named[rgb[2]]
    return (1, 2, 3) if src.count >= 3 else (1, 1, 1)
