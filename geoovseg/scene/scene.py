"""The scene: an open raster as three bands of light and a mask, read window by window."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import numpy as np
from affine import Affine
from numpy.typing import NDArray
from rasterio._err import CPLE_BaseError
from rasterio.crs import CRS
from rasterio.enums import Resampling
from rasterio.windows import Window

from geoovseg.errors import SceneError, first_line
from geoovseg.network import public
from geoovseg.rasters.http import listening, unreadable
from geoovseg.rasters.open import GDAL_ERRORS, check_suitable, hold_rows, opened, raster_env
from geoovseg.scene.bands import Band, choose_bands
from geoovseg.scene.intensity import Intensity, intensity_of
from geoovseg.scene.nodata import Lacks, Validity, at_size, for_bands, lacking, validity_of
from geoovseg.scene.regions import RegionFile, open_regions
from geoovseg.scene.renewed import Renewed
from geoovseg.scene.views import resampled, size_at, with_nodata
from geoovseg.windows.batch import TileBatch, alike, as_light, filled, in_rows, union

Shape = tuple[int, int]
DEMO_TAG = "GEOOVSEG_DEMO"
"""Tag of the drawn scenes of the demo; its value is their seed."""


@dataclass(frozen=True, kw_only=True)
class Scene:
    """An open raster: what the pipeline needs to know of it, and windows of its pixels."""

    src: Any
    path: str
    """its name, without what may be secret in it"""
    files: tuple[str, ...]
    """on disk: itself, its side files, what a VRT is made of, and its regions"""
    bands: tuple[int, int, int]
    """numbers of red, green, blue"""
    intensity: Intensity
    validity: Validity
    regions: RegionFile | None = None
    """region ids on the same grid, for methods that use regions"""
    sparse: Lacks | None = None
    """whether the file stores nothing of a window, if it says so"""
    native: Scene | None = None
    """the same in its own pixels, on whose grid outputs are to lie, where models see others"""
    opening: Callable[[], AbstractContextManager[Scene]] | None = None
    """opens it anew"""

    @property
    def shape(self) -> tuple[int, int]:
        """(height, width) of the working grid."""
        return int(self.src.height), int(self.src.width)

    @property
    def outputs(self) -> Scene:
        """What outputs have the grid of: the native one, where there is one."""
        return self.native or self

    @property
    def crs(self) -> CRS | None:
        """The coordinate system, exactly as the file states it."""
        return self.src.crs

    @property
    def transform(self) -> Affine:
        """Pixel to map coordinates of the working grid."""
        return self.src.transform

    @property
    def is_demo(self) -> bool:
        """Whether this is one of the drawn demo scenes."""
        return DEMO_TAG in self.src.tags()

    @contextmanager
    def afresh(self) -> Iterator[Scene]:
        """The same scene, opened anew and seen as before."""
        assert self.opening is not None  # `open_scene` made it
        with self.opening() as scene:
            yield replace(scene, intensity=self.intensity)

    def measured(self, *, lenient: bool = False, check: Callable[[], None] = lambda: None) -> Scene:
        """The scene with its pixels' range known, for which it may have to be sampled; `check` is called all the while.

        Raises SceneError for what cannot be read, unless `lenient`.
        """
        with Renewed(self) as steady:

            def read(window: Window) -> tuple[NDArray[Any], NDArray[np.bool_]]:
                check()
                try:
                    return steady.read(lambda scene: scene._of_each(window))
                except SceneError:
                    if not lenient:
                        raise
                    return np.zeros((3, window.height, window.width)), np.zeros((window.height, window.width), bool)

            return replace(self, intensity=self.intensity.measured(read, self.shape, self.src.block_shapes[0]))

    def lacks(self, window: Window) -> bool:
        """Whether a file says by itself that it stores nothing of a window; false if that is not known."""
        return self.sparse is not None and self.sparse(self._clip(window))

    def _of_each(self, window: Window) -> tuple[NDArray[Any], NDArray[np.bool_]]:
        """As `_values`, and NaN for bands without data of pixels that have some."""
        values, valid = self._values(window)
        if not valid.any():
            return values, valid
        with self._reading(window):
            known = self.validity.of_each({"window": window})
        return (values, valid) if known is True else (np.where(known, values, np.nan), valid)

    def read(self, window: Window, shape: Shape | None = None) -> tuple[NDArray[np.float32], NDArray[np.bool_]]:
        """Intensity (3, h, w) in 0..1 and validity (h, w) of a window inside a measured scene, or resampled to a shape.

        Raises SceneError.
        """
        stored, valid = self.stored(window, shape)
        return as_light(stored), valid

    def stored(self, window: Window, shape: Shape | None = None) -> tuple[NDArray[Any], NDArray[np.bool_]]:
        """Pixels (3, h, w) as `read` gives them, or bytes that are 255 times that; and where they have data (h, w)."""
        values, valid = self._values(window, shape)
        if not valid.any():
            return np.zeros(values.shape, np.float32), valid
        return values if self.intensity.is_light(values) else self.intensity.scaled(values), valid

    def valid(self, window: Window) -> NDArray[np.bool_]:
        """Where a window inside the scene has data (h, w). Raises SceneError."""
        if self.validity.everywhere and self.intensity.always:
            return np.ones((window.height, window.width), bool)
        return self._values(window)[1]

    def _values(self, window: Window, shape: Shape | None = None) -> tuple[NDArray[Any], NDArray[np.bool_]]:
        """Values (3, h, w) of a window and where they count (h, w)."""
        if self.lacks(window):
            size = shape or (window.height, window.width)
            return np.zeros((3, *size), np.uint8), np.zeros(size, bool)
        how = {"window": window, **self._resampling(window, shape)}
        with self._reading(window):
            stored = _stored(self.src, self.bands, how)
            valid = self.validity.read(how, (stored.shape[1], stored.shape[2]))
        values, known = self.intensity.values(stored)
        return values, valid & known

    @contextmanager
    def _reading(self, window: Window) -> Iterator[None]:
        """Whatever goes wrong in here is a SceneError that says where."""
        try:
            with listening(self.files):
                yield
        except GDAL_ERRORS as error:
            last = window.row_off + window.height, window.col_off + window.width
            where = f"rows {window.row_off}..{last[0]} and columns {window.col_off}..{last[1]} of {self.path}"
            reason = unreadable(first_line(error.__cause__ or error), self.files)
            raise SceneError(f"cannot read {where}: {reason}") from error

    def _resampling(self, window: Window, shape: Shape | None) -> dict[str, Any]:
        """How GDAL is to read a window as another shape."""
        if shape is None or shape == (window.height, window.width):
            return {}
        way = Resampling.average if shape[0] <= window.height else Resampling.bilinear
        return {"out_shape": shape, "resampling": Resampling.nearest if self.intensity.palette is not None else way}

    def batch(self, windows: Sequence[Window]) -> TileBatch:
        """Read windows of one size as a batch; those beyond the edge are continued by reflection, as not valid."""
        stored, valid = zip(*self._tiles(windows), strict=True)
        regions = None if self.regions is None else np.stack([self._regions(w, self.regions) for w in windows])
        return TileBatch(
            windows=tuple(windows),
            stored=np.stack(alike(stored)),
            valid=np.stack(valid),
            regions=regions,
        )

    def _tiles(self, windows: Sequence[Window]) -> Iterator[tuple[NDArray[Any], NDArray[np.bool_]]]:
        """What models see of windows, pixel by pixel: those in a row are read at once."""
        for run in in_rows(windows):
            data, mask = self.stored(self._clip(union(run)))
            for window in run:
                cols = slice(window.col_off - run[0].col_off, window.col_off - run[0].col_off + window.width)
                inside = self._clip(window)
                yield filled(data[:, :, cols], mask[:, cols], inside, (window.height, window.width))

    def _regions(self, window: Window, file: RegionFile) -> NDArray[np.int32]:
        """Region ids of a window; none beyond the edge."""
        ids = np.zeros((window.height, window.width), np.int32)
        inside = self._clip(window)
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


def _stored(src: Any, bands: tuple[int, int, int], how: dict[str, Any]) -> NDArray[Any]:
    """Stored numbers (3, h, w) of bands, at once where they are of one type."""
    unique = sorted(set(bands))
    if len({src.dtypes[band - 1] for band in unique}) == 1:
        found = src.read(indexes=unique, **for_bands(how, len(unique)))
    else:
        found = np.stack([src.read(band, **how) for band in unique])
    return np.asarray(found[[unique.index(band) for band in bands]])


@contextmanager
def open_scene(
    path: str | os.PathLike[str],
    *,
    bands: Sequence[Band] | None = None,
    scale: str = "auto",
    gsd: float | None = None,
    grid: str = "working",
    nodata: float | None = None,
    regions: str | None = None,
) -> Iterator[Scene]:
    """Open a raster as a scene of three bands of light, with a raster of `regions` if there is one.

    `bands` are numbers or names of red, green and blue; see `choose_bands`. `scale` is `auto`, `dtype` or `MIN,MAX`,
    see `intensity_of`; to be read, the scene must be `measured`. With `gsd` it is seen at so many metres a pixel, and
    where the `grid` of outputs is to be the scene's (`scene`), it has a `native` one beside it.
    `nodata` takes the place of the file's own value.

    Raises SceneError for what cannot be opened or seen, UsageError for bands the file lacks.
    """
    name = os.fspath(path)
    with raster_env(), opened(name, f"{name!r} as a raster") as src, ExitStack() as stack:
        try:
            check_suitable(src, name)
            hold_rows(src)
            files = (name, *src.files)
            own = src if nodata is None else stack.enter_context(with_nodata(src, nodata, name))
            seen = own if gsd is None else stack.enter_context(resampled(own, size_at(src, gsd, name)))
            chosen = choose_bands(src, bands, name)
            scene = _inspect(seen, chosen, scale, name, files)
            if seen is not own and (lacks := lacking(own, chosen)) is not None:
                scene = replace(scene, sparse=at_size(lacks, own.shape, seen.shape))
            if grid == "scene" and seen is not own:
                scene = replace(scene, native=_inspect(own, chosen, scale, name, files))
        except CPLE_BaseError as error:
            raise SceneError(f"the georeferencing of {name!r} cannot be understood: {first_line(error)}") from error
        if regions is not None:
            file = stack.enter_context(open_regions(regions, seen))
            scene = replace(scene, regions=file, files=(*files, *file.files))
        again = partial(open_scene, path, bands=bands, scale=scale, nodata=nodata)
        native = None if scene.native is None else replace(scene.native, opening=again)
        yield replace(scene, native=native, opening=partial(again, gsd=gsd, grid=grid, regions=regions))


def _inspect(src: Any, bands: tuple[int, int, int], scale: str, name: str, files: tuple[str, ...]) -> Scene:
    """What is to be known to read pixels as light."""
    return Scene(
        src=src,
        path=public(name),
        files=files,
        bands=bands,
        intensity=intensity_of(src, bands, scale, name),
        validity=validity_of(src, bands),
        sparse=lacking(src, bands),
    )
