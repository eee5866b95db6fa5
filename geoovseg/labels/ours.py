"""Which rasters are what we wrote, so that nobody segments them in turn."""

from __future__ import annotations

from geoovseg.errors import SceneError
from geoovseg.labels.record import RUN_TAG

OURS = (
    "_labels.tif", "_confidence.tif", "_scores.tif", ".mosaic.vrt", ".stack.vrt", "_labels.png", "_labels.jpg",
    "_labels.jpeg",
)  # fmt: skip
"""Ends of the names of what we write: labels, pictures of them, scenes of many files."""
TAGGED = (".tif", ".tiff", ".png")
"""Of files that may say inside, whatever their names, that we wrote them."""


def is_ours(path: str) -> bool:
    """Whether a raster is something that we wrote, by its name or by what it says inside.

    One that cannot be opened is not, so that its error is told when its turn comes.
    """
    if path.lower().endswith(OURS):
        return True
    if not path.lower().endswith(TAGGED):
        return False
    from geoovseg.rasters.open import opened  # listing folders is quick where nothing is to be opened

    try:
        with opened(path, path) as src:
            return RUN_TAG in src.tags()
    except SceneError:
        return False
