"""Arrays instead of files: pixels that are in memory go the way of a scene, so that their labels are the same."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray
from rasterio.enums import ColorInterp
from rasterio.errors import NotGeoreferencedWarning
from rasterio.io import MemoryFile

from geoovseg.errors import UsageError, hushed
from geoovseg.labels.write import CONFIDENCE, CONFIDENCE_NODATA, CONFIDENCE_STEPS, LABELS
from geoovseg.rasters.open import native, raster_env
from geoovseg.run.compute import Context, decided, finished_rows
from geoovseg.run.worker import Worker
from geoovseg.settings import Settings
from geoovseg.windows.blend import Rows

NO_FILE = ("bands", "nodata", "gsd", "aoi")
"""Choices that speak of a file."""
COLOUR = ("band", "bands", "channel", "rgb", "colour", "color", "c")
"""Names of the dimension of red, green, blue."""


def predict(worker: Worker, settings: Settings, pixels: Any, valid: Any) -> tuple[Any, Any]:
    """Codes (H, W) and confidence (H, W) of pixels; see `Segmenter.predict`."""
    with _seen(worker, settings, pixels, valid) as context:
        shape, profile = context.scene.shape, context.profile
        codes, sure = np.full(shape, profile.nodata, profile.dtype), np.full(shape, CONFIDENCE_NODATA, np.uint8)
        for rows, place in _rows(context):
            found = decided(context, rows, place[1].start, CONFIDENCE)
            codes[place], sure[place] = found[LABELS], found[CONFIDENCE]
    share = np.where(sure == CONFIDENCE_NODATA, np.nan, sure / CONFIDENCE_STEPS).astype(np.float32)
    return _like(pixels, codes), _like(pixels, share)


def scores(worker: Worker, settings: Settings, pixels: Any, valid: Any) -> Any:
    """Class scores (C, H, W) of pixels; see `Segmenter.scores`."""
    with _seen(worker, settings, pixels, valid) as context:
        found = np.zeros((context.predictor.channels, *context.scene.shape), np.float32)
        for rows, place in _rows(context):
            if rows.scores is not None:
                found[:, *place] = rows.scores.cpu().numpy()
    return _like(pixels, found, context.predictor.vocabulary.channels)


def _rows(context: Context) -> Iterator[tuple[Rows, tuple[slice, slice]]]:
    """Finished rows, and where they lie."""
    for panel in context.job.layout.panels:
        for _, rows in finished_rows(context, panel, (0, context.scene.shape[0])):
            if rows is not None:
                down = slice(rows.row_off, rows.row_off + rows.valid.shape[0])
                yield rows, (down, slice(panel.col_off, panel.col_off + panel.width))


@contextmanager
def _seen(worker: Worker, settings: Settings, pixels: Any, valid: Any) -> Iterator[Context]:
    """An array as a scene that the worker's model sees. Raises UsageError."""
    odd = [name for name in NO_FILE if getattr(settings, name) is not None]
    odd += ["regions"] if settings.regions_file else []
    if odd or settings.scale != "auto":
        raise UsageError(f"{(odd or ['scale'])[0]} is a choice for files; arrays are seen as they are")
    bands = _bands(pixels)
    settings = replace(settings, scale="auto" if bands.dtype == np.uint8 else "0,1")
    known = _mask(valid, bands.shape[1:])
    size = {"count": 4, "height": bands.shape[1], "width": bands.shape[2], "dtype": bands.dtype}
    full = 255 if bands.dtype == np.uint8 else 1
    with raster_env(), MemoryFile() as file:
        with hushed(NotGeoreferencedWarning), file.open(driver="GTiff", BIGTIFF="IF_SAFER", **size) as dst:
            dst.colorinterp = (ColorInterp.red, ColorInterp.green, ColorInterp.blue, ColorInterp.alpha)
            dst.write(np.concatenate([bands, (known * full).astype(bands.dtype)[None]]))
        with native(), worker.on(file.name, settings) as context:
            yield context


def _colour_axis(pixels: Any, shape: tuple[int, ...]) -> int:
    """Which axis is red, green, blue: by its name, else by its length, the last one first. Raises UsageError."""
    named = [axis for axis, dim in enumerate(getattr(pixels, "dims", ())) if dim in COLOUR]
    axes = [axis for axis in (named or (2, 0)) if len(shape) == 3 and shape[axis] == 3]
    if not axes or 0 in shape:
        raise UsageError(f"pixels of shape {shape}: give red, green, blue as (H, W, 3) or (3, H, W)")
    return axes[0]


def _bands(pixels: Any) -> NDArray[Any]:
    """Pixels as (3, H, W), uint8 or float32. Raises UsageError."""
    found = np.asarray(pixels)
    found = np.moveaxis(found, _colour_axis(pixels, found.shape), 0)
    if found.dtype == np.uint8:
        return found
    if not np.issubdtype(found.dtype, np.floating):
        raise UsageError(f"{found.dtype} pixels: give uint8, or float between 0 and 1")
    numbers = found[np.isfinite(found)]
    if numbers.size and not 0 <= numbers.min() <= numbers.max() <= 1:
        raise UsageError(f"float pixels from {numbers.min():g} to {numbers.max():g}: they must lie between 0 and 1")
    return found.astype(np.float32)


def _mask(valid: Any, shape: tuple[int, ...]) -> NDArray[np.bool_]:
    """Where pixels have data (H, W). Raises UsageError."""
    if valid is None:
        return np.ones(shape, bool)
    found = np.asarray(valid)
    if found.shape != shape:
        raise UsageError(f"valid of shape {found.shape} does not fit pixels of {shape[0]} x {shape[1]}")
    return found.astype(bool)


def _like(pixels: Any, found: NDArray[Any], names: tuple[str, ...] = ()) -> Any:
    """A result as the pixels came: of a DataArray one with its place on the ground."""
    if not hasattr(pixels, "dims"):
        return found
    import xarray  # whoever has such pixels has it

    sides = [dim for axis, dim in enumerate(pixels.dims) if axis != _colour_axis(pixels, pixels.shape)]
    kept = {n: c for n, c in pixels.coords.items() if set(c.dims) <= set(sides)}
    dims = ("class", *sides) if names else tuple(sides)
    return xarray.DataArray(found, dims=dims, coords={**kept, **({"class": list(names)} if names else {})})
