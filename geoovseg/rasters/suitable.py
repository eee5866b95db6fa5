"""Rasters that cannot be scenes, refused before anything is read of them."""

from __future__ import annotations

import math
import shlex
from typing import Any

from geoovseg.errors import SceneError

LARGEST = 2**40
"""Pixels; more are a damaged file's, or years of work."""


def check_suitable(src: Any, name: str) -> None:
    """Refuse an open raster that has no pixels to see, or no grid of numbers that places them. Raises SceneError."""
    if src.count == 0:
        parts = f"; name one of its parts: {', '.join(src.subdatasets[:3])}" if src.subdatasets else ""
        raise SceneError(f"{name} has no bands of its own{parts}")
    if src.width * src.height > LARGEST:
        raise SceneError(f"{name} says it has {src.width} x {src.height} pixels, more than can be worked on; cut it")
    _check_place(src, name)


def _check_place(src: Any, name: str) -> None:
    """Refuse what is placed on the ground in a way that pixels cannot follow."""
    if not all(map(math.isfinite, src.transform)):
        raise SceneError(f"{name} is placed by numbers that are none: {tuple(src.transform)[:6]}")
    if not src.transform.is_identity:
        return
    if src.gcps[0]:
        reason, how = f"is placed by {len(src.gcps[0])} ground control points", "-tps"
    elif src.rpcs is not None:
        reason, how = "is placed by a camera model (RPC)", "-rpc"
    else:
        return
    line = f"gdalwarp {how} -r bilinear {shlex.quote(name)} warped.tif"
    raise SceneError(f"{name} {reason}, not by a grid; warp it first: {line}")
