"""Opening rasters: what GDAL cannot open is told in one way."""

from __future__ import annotations

import math
import os
import shlex
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import rasterio
from rasterio._err import CPLE_BaseError
from rasterio.env import getenv, hasenv
from rasterio.errors import NotGeoreferencedWarning, RasterioError

from geoovseg.errors import SceneError, first_line, some
from geoovseg.network import is_offline, is_remote

GDAL_ERRORS = (RasterioError, CPLE_BaseError, OSError)
"""What GDAL and rasterio raise: not all of it has one root."""
LARGEST = 2**40
"""Pixels; more are a damaged file's, or years of work."""


def raster_env() -> rasterio.Env:
    """GDAL settings of a run: a block cache of 64 MB, unless the user set GDAL_CACHEMAX, and offline no network."""
    chosen = "GDAL_CACHEMAX" in os.environ or (hasenv() and "GDAL_CACHEMAX" in getenv())
    cache = {} if chosen else {"GDAL_CACHEMAX": 64}
    # also for what a local file names: nothing ends like that
    forbidden = {"CPL_VSIL_CURL_ALLOWED_EXTENSIONS": "{offline}"} if is_offline() else {}
    return rasterio.Env(**cache, **forbidden)


def native() -> rasterio.Env:
    """GDAL makes other resolutions of the pixels themselves, never of overviews, which a file may have or not."""
    return rasterio.Env(GDAL_OVERVIEW_OVERSAMPLING_THRESHOLD="0")


@contextmanager
def placeless() -> Iterator[None]:
    """Rasters may have no place on the ground in here: that is said once, when a scene is opened."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", NotGeoreferencedWarning)
        yield


@contextmanager
def opened(name: str, what: str) -> Iterator[Any]:
    """An open raster, closed in the end; `what` names it in a message. Raises SceneError, also for what is offline."""
    if is_offline() and is_remote(name):
        raise SceneError(f"{name} is not on this machine, and --offline or GEOOVSEG_OFFLINE forbid the network")
    try:
        with placeless():
            src = rasterio.open(name)
    except (*GDAL_ERRORS, UnicodeError) as error:
        raise SceneError(f"cannot open {what}: {first_line(error)}") from error
    with src:
        yield src


def check_suitable(src: Any, name: str) -> None:
    """Refuse an open raster that has no pixels to see, or no grid of numbers that places them. Raises SceneError."""
    if src.count == 0:
        parts = f"; name one of its parts: {some(src.subdatasets)}" if src.subdatasets else ""
        raise SceneError(f"{name} has no bands of its own{parts}")
    if src.width * src.height > LARGEST:
        raise SceneError(f"{name} says it has {src.width} x {src.height} pixels, more than can be worked on; cut it")
    _check_place(src, name)


def _check_place(src: Any, name: str) -> None:
    """Refuse what is placed on the ground in a way that pixels cannot follow."""
    if not all(map(math.isfinite, src.transform)):
        raise SceneError(f"the geotransform of {name} has values that are not numbers: {tuple(src.transform)[:6]}")
    if not src.transform.is_identity:
        return
    if src.gcps[0]:
        reason, how = f"is placed by {len(src.gcps[0])} ground control points", "-tps"
    elif src.rpcs is not None:
        reason, how = "is placed by a camera model (RPC)", "-rpc"
    else:
        return
    line = f"gdalwarp {how} -r bilinear {shlex.quote(name)} warped.tif"
    raise SceneError(f"{name} {reason}, so it has no pixel grid; warp it first: {line}")
