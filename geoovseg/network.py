"""Whether the network may be used."""

from __future__ import annotations

import os

REMOTE = ("http:", "https:", "ftp:", "s3:", "gs:", "az:", "/vsicurl", "/vsis3", "/vsigs", "/vsiaz", "/vsioss")
"""How names of scenes begin that are read over the network."""


def is_offline() -> bool:
    """Whether $GEOOVSEG_OFFLINE forbids it."""
    return os.environ.get("GEOOVSEG_OFFLINE", "").lower() in ("1", "true", "yes", "on")


def is_remote(path: str) -> bool:
    """Whether a scene is read over it, by its name."""
    return path.startswith(REMOTE)
