"""Opening rasters: what GDAL cannot open is told in one way."""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import rasterio
from rasterio._err import CPLE_BaseError
from rasterio.errors import NotGeoreferencedWarning, RasterioError

from geoovseg.errors import SceneError, first_line
from geoovseg.network import is_offline, is_remote


@contextmanager
def opened(name: str, what: str) -> Iterator[Any]:
    """An open raster, closed in the end; `what` names it in a message. Raises SceneError, also for what is offline."""
    if is_offline() and is_remote(name):
        raise SceneError(f"{name} is not on this machine, and --offline or GEOOVSEG_OFFLINE forbid the network")
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", NotGeoreferencedWarning)
            src = rasterio.open(name)
    except (RasterioError, CPLE_BaseError, OSError, UnicodeError) as error:
        raise SceneError(f"cannot open {what}: {first_line(error)}") from error
    with src:
        yield src
