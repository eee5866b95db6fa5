"""Opening rasters: what GDAL cannot open is told in one way."""

from __future__ import annotations

import math
import os
import re
import shlex
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from threading import Lock
from typing import Any

import numpy as np
import rasterio
from rasterio._env import get_gdal_config, set_gdal_config
from rasterio._err import CPLE_BaseError
from rasterio.env import getenv, hasenv, setenv
from rasterio.errors import NotGeoreferencedWarning, RasterioError

from geoovseg import machine
from geoovseg.errors import SceneError, first_line, hushed, some
from geoovseg.files import LARGEST_SIDE, check_plain
from geoovseg.network import FORBIDDEN, is_offline, sealed
from geoovseg.rasters.elsewhere import check_reachable, check_sources
from geoovseg.rasters.http import PATIENCE, TALKATIVE, unopened

GDAL_ERRORS = (RasterioError, CPLE_BaseError, OSError)
"""What GDAL and rasterio raise: not all of it has one root."""
_ADDRESS = re.compile(r"[a-z][a-z0-9+]+:/(?!/)")
"""The start of an address that was a path in between."""
OURS: dict[str, Any] = {"GDAL_CACHEMAX": 64 << 20, **PATIENCE, **TALKATIVE}
"""GDAL settings of a run that the user may set otherwise: a block cache of 64 MB, which rasterio wants in bytes (where
GDAL itself reads MB), and patience with servers."""
CACHED, TALL, LONGEST = 32, 512, 16
"""Share of the memory that the block cache may grow to (one of so many), rows of blocks that are expected at least (as
of the files that a virtual raster is made of), and bytes of the longest pixel."""
_READ_WHOLE = (".aux.xml", ".vat.dbf", ".tfw", ".wld")
_SIDES = (*_READ_WHOLE, ".ovr", ".msk")
"""Ends of the names of files that GDAL opens with a raster, and of those that it has in memory as a whole."""
MANY = 100
"""Bands; damaged files have thousands, of which all are asked then."""
LARGEST = 2**40
"""Pixels; more are a damaged file's, or years of work."""
_LOCK = Lock()
_SIZES: list[int] = []
"""Of the block cache, in bytes, when runs began that are not over."""
_GIVEN: ContextVar[Mapping[str, Any] | None] = ContextVar("settings of GDAL", default=None)
"""Settings of another thread or process, for whose work this one opens rasters."""


def gdal_settings() -> dict[str, Any]:
    """What the caller set by `rasterio.Env`, credentials too: threads and processes do not have that by themselves."""
    return {**(_GIVEN.get() or {}), **(getenv() if hasenv() else {})}


def adopt(options: Mapping[str, Any]) -> None:
    """Open rasters by these settings from now on, in this thread."""
    _GIVEN.set(options)


@contextmanager
def raster_env() -> Iterator[None]:
    """GDAL settings of a run: the caller's, and where they say nothing `OURS`; offline, none gives a network."""
    given = gdal_settings()
    ours = {key: value for key, value in OURS.items() if key not in {*os.environ, *given}}
    forbidden = FORBIDDEN if is_offline() else {}  # also for what a local file names
    with sealed(), rasterio.Env(), _block_cache():
        setenv(**{**given, **ours, **forbidden})  # as Env() itself takes no credentials
        yield


@contextmanager
def _block_cache() -> Iterator[None]:
    """Have GDAL's block cache, which is one for all threads, as it was when the last run in this process is over."""
    with _LOCK:
        _SIZES.append(get_gdal_config("GDAL_CACHEMAX"))
    try:
        yield
    finally:
        with _LOCK:
            first = _SIZES[0]
            _SIZES.pop()
            if not _SIZES:
                set_gdal_config("GDAL_CACHEMAX", first)


def hold_rows(src: Any) -> None:
    """Let GDAL's block cache hold two rows of an open raster's blocks: every block belongs to several rows of windows.

    Not where the user chose its size, nor for pixels that need no decoding; at most a share of the memory.
    """
    plain = src.driver == "GTiff" and "COMPRESSION" not in src.tags(ns="IMAGE_STRUCTURE")
    if plain or getenv().get("GDAL_CACHEMAX") != OURS["GDAL_CACHEMAX"]:
        return
    height, width = src.block_shapes[0]
    row = max(height, TALL) * -(-src.width // width) * width
    pixel = sum(LONGEST if kind.startswith("complex") else np.dtype(kind).itemsize for kind in src.dtypes)
    if (wanted := min(2 * row * pixel, machine.memory() // CACHED)) > OURS["GDAL_CACHEMAX"]:
        setenv(GDAL_CACHEMAX=wanted)


def native() -> rasterio.Env:
    """GDAL makes other resolutions of the pixels themselves, never of overviews, which a file may have or not."""
    return rasterio.Env(GDAL_OVERVIEW_OVERSAMPLING_THRESHOLD="0")


def plain_open(name: Any, mode: str = "r", **profile: Any) -> Any:
    """Open a raster, which may have no place on the ground: that is said once, when a scene is opened."""
    with hushed(NotGeoreferencedWarning):
        return rasterio.open(name, mode, **profile)


@contextmanager
def opened(name: str, what: str) -> Iterator[Any]:
    """An open raster, closed in the end; `what` names it in a message. Raises SceneError, also for what is offline."""
    check_reachable(name)
    _check_files(name, what)
    with sealed(), _opened(name, what) as src:
        yield src


@contextmanager
def _opened(name: str, what: str) -> Iterator[Any]:
    try:
        src = plain_open(name)
    except UnicodeError as error:
        raise SceneError(f"cannot open {what}: its name is not UTF-8; rename it, or give it a link: ln -s") from error
    except GDAL_ERRORS as error:
        hint = "; give addresses as text: a Path makes one slash of two" if _ADDRESS.match(name) else ""
        raise SceneError(f"cannot open {what}: {unopened(first_line(error))}{hint}") from error
    with src:
        if src.driver == "VRT" and not os.path.isfile(name):
            check_sources(name, src.tags(ns="xml:VRT").get("xml:VRT", ""))
        _check_georeference(src, what)
        yield src


def _check_files(name: str, what: str) -> None:
    """Refuse what GDAL would wait for, or read without end: pipes, devices, huge side files. Raises SceneError."""
    beside = [f"{start}{end}" for start in (name, os.path.splitext(name)[0]) for end in _SIDES]
    for path in (name, *beside):
        try:
            check_plain(path, LARGEST_SIDE if path.endswith(_READ_WHOLE) else None)
        except OSError as error:
            raise SceneError(f"cannot open {what if path == name else path}: {first_line(error)}") from error


def _check_georeference(src: Any, what: str) -> None:
    """Refuse a coordinate system that cannot be understood, which would be found out anywhere. Raises SceneError."""
    try:
        _ = src.crs, src.colorinterp if src.count <= MANY else None  # what PROJ says comes out one question later
    except GDAL_ERRORS as error:
        raise SceneError(f"the georeferencing of {what} cannot be understood: {first_line(error)}") from error


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
