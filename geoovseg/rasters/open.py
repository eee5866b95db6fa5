"""Opening rasters: what GDAL cannot open is told in one way."""

from __future__ import annotations

import os
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import rasterio
from rasterio._err import CPLE_BaseError
from rasterio.env import getenv, hasenv
from rasterio.errors import NotGeoreferencedWarning, RasterioError

from geoovseg.errors import SceneError, first_line
from geoovseg.network import is_offline, is_remote


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
    except (RasterioError, CPLE_BaseError, OSError, UnicodeError) as error:
        raise SceneError(f"cannot open {what}: {first_line(error)}") from error
    with src:
        yield src
