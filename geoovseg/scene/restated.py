"""A raster as if its file said otherwise which number is no data, read through GDAL without a copy."""

from __future__ import annotations

import math
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any
from xml.etree.ElementTree import SubElement, tostring

import numpy as np
import rasterio
from rasterio.enums import MaskFlags

from geoovseg.errors import UsageError
from geoovseg.rasters.vrt import band_like, dataset_like, source_name


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
