"""The working grid: a raster as if it had been taken at another resolution, read through GDAL without a copy."""

from __future__ import annotations

import math
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any
from xml.etree.ElementTree import SubElement, tostring

import numpy as np
import rasterio
from affine import Affine
from rasterio.enums import ColorInterp, MaskFlags

from geoovseg.errors import SceneError, UsageError
from geoovseg.rasters.ground import ellipsoid_of, pixel_size
from geoovseg.rasters.vrt import add_source, band_like, dataset_like, mask_of, source_name

COARSEST = 1.2
FINEST = 0.3
"""Metres a pixel of the images that most published results are of."""
FINE = 0.25
"""Finer pixels are worth a word."""
USUAL = 0.5
"""What is suggested for them."""
FAR = 4
"""How many times coarser pixels may be without a word: to 5 m, as of PlanetScope."""


def metres_per_pixel(src: Any) -> tuple[float, float] | None:
    """Width and height of a pixel on the ground in the middle of a raster; none where that is unknown."""
    try:
        ellipsoid = ellipsoid_of(src.crs)
    except SceneError:
        return None
    size = pixel_size(src.transform, src.shape, ellipsoid)
    known = ellipsoid is not None and all(math.isfinite(side) and side > 0 for side in size)
    return size if known else None


def hint(src: Any, side: int) -> str | None:
    """What is to be known of a raster whose pixels are finer or far coarser than those of published results.

    `side` is how many pixels a method sees at once.
    """
    metres = metres_per_pixel(src)
    if metres is None:
        return None
    usual = f"the {FINEST:g} to {COARSEST:g} m of most published results"
    if min(metres) > FAR * COARSEST:
        return (
            f"pixels of {min(metres):.3g} m are far coarser than {usual}: buildings, roads or cars can hardly be seen "
            "in them; ask for what covers many pixels, as in -c forest,water,farmland,town"
        )
    if max(metres) >= FINE:
        return None
    share = 100 * min(metres) * max(metres) / USUAL**2
    return (
        f"pixels of {max(metres):.3g} m are finer than {usual}: {side} of them, which the method sees at once, are "
        f"{side * max(metres):.3g} m of ground, where those saw {side * FINEST:.0f} to {side * COARSEST:.0f} m; with "
        f"--gsd {USUAL:g} --grid scene it would see {side * USUAL:.0f} m, and {share:.2g} % of as many pixels"
    )


def size_at(src: Any, gsd: float, name: str) -> tuple[int, int]:
    """Height and width of a raster at `gsd` metres a pixel, over the same ground. Raises UsageError."""
    if not (math.isfinite(gsd) and gsd > 0):
        raise UsageError(f"--gsd {gsd:g} must be a number of metres")
    metres = metres_per_pixel(src)
    if metres is None:
        raise UsageError(f"--gsd {gsd:g}: {name} does not say how many metres its pixels are; leave --gsd away")
    height, width = (max(1, round(n * m / gsd)) for n, m in zip(src.shape, reversed(metres), strict=True))
    if height * width > 2**40 or max(height, width) >= 2**31:
        raise UsageError(f"--gsd {gsd:g} would make {name} {width} x {height} pixels; choose more metres")
    return height, width


@contextmanager
def resampled(src: Any, shape: tuple[int, int]) -> Iterator[Any]:
    """An open raster over the same ground in another number of pixels (height, width).

    Where pixels grow they are means of those that have data, else they are interpolated; colours of a palette are
    taken, not mixed. A pixel has data if any of those it is made of has.
    """
    if shape == src.shape:
        yield src
        return
    way = "average" if shape[0] <= src.height and shape[1] <= src.width else "bilinear"
    if ColorInterp.palette in src.colorinterp:
        way = "nearest"
    with rasterio.open(_as_vrt(src, shape, way)) as found:
        yield found


def _as_vrt(src: Any, shape: tuple[int, int], way: str) -> str:
    """A VRT of a raster at another size."""
    place = src.transform @ Affine.scale(src.width / shape[1], src.height / shape[0])
    root = dataset_like(src, shape, src.crs, place, src.tags())
    at = (0, 0, shape[1], shape[0])
    for number, flags in enumerate(src.mask_flag_enums, start=1):
        band = band_like(root, src, number, None)
        add_source(band, src, str(number), at, way)
        if not {MaskFlags.all_valid, MaskFlags.per_dataset} & set(flags):  # a mean may be what is no data elsewhere
            add_source(mask_of(band), src, f"mask,{number}", at, way)
    if MaskFlags.per_dataset in src.mask_flag_enums[0] and MaskFlags.alpha not in src.mask_flag_enums[0]:
        add_source(mask_of(root), src, "mask,1", at, way)
    return tostring(root, encoding="unicode")


@contextmanager
def with_nodata(src: Any, value: float, name: str) -> Iterator[Any]:
    """An open raster with another nodata value, in place of its own.

    Raises UsageError for what its pixels cannot be, and where a mask says already what is no data.
    """
    _check(src, value, name)
    root = dataset_like(src, src.shape, src.crs, src.transform, src.tags())
    for number in range(1, src.count + 1):
        source = SubElement(band_like(root, src, number, value), "SimpleSource")
        SubElement(source, "SourceFilename", relativeToVRT="0", shared="0").text = source_name(src)
        SubElement(source, "SourceBand").text = str(number)
    with rasterio.open(tostring(root, encoding="unicode")) as found:
        yield found


def _can_be(value: float, kind: str) -> bool:
    """Whether a pixel type has a value."""
    if "float" in kind or "complex" in kind:
        return True
    limits = np.iinfo(kind)
    return value == math.floor(value) and limits.min <= value <= limits.max


def _check(src: Any, value: float, name: str) -> None:
    for kind in src.dtypes:
        if not _can_be(value, kind):
            raise UsageError(f"--nodata {value:g}: {name} has {kind} pixels, which are never that")
    flags = src.mask_flag_enums[0]
    if MaskFlags.per_dataset in flags and MaskFlags.alpha not in flags:
        raise UsageError(f"--nodata {value:g}: a mask says already where {name} has no data; leave --nodata away")
