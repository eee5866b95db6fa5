"""Whether the network may be used."""

from __future__ import annotations

import os
import re

_REMOTE = re.compile(r"(https?|ftp|s3|gs|az|oss|adls|hdfs|swift)://|/vsi(curl|s3|gs|az|adls|oss|swift|hdfs|webhdfs)")
"""In names of scenes that are read over the network; also within an archive, or a part of a file."""


def is_offline() -> bool:
    """Whether $GEOOVSEG_OFFLINE forbids it."""
    return os.environ.get("GEOOVSEG_OFFLINE", "").lower() in ("1", "true", "yes", "on")


def is_remote(path: str) -> bool:
    """Whether a scene is read over it, by its name."""
    return _REMOTE.search(path) is not None
