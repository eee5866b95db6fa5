"""What parts of features are: files that become chunks of a store, a mask, and what the store will say; no torch."""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

import numpy as np

from geoovseg.features.store import About
from geoovseg.rasters.ground import wkt_of
from geoovseg.run.job import Job
from geoovseg.scene.scene import Scene
from geoovseg.windows.plan import Panel, Part

MASK = "_valid.bits"
"""End of the name of a part's mask, a bit a pixel."""


def end_of(chunk: str) -> str:
    """The end of a part's file for a chunk of a store, by its name there."""
    return f"_{chunk.replace('/', '.')}"


def chunk_of(end: str) -> str:
    """The name of a chunk in a store, by the end of a part's file."""
    return end.removeprefix("_").replace(".", "/")


def about_of_job(scene: Scene, job: Job, failed: int = 0) -> About:
    """What a store of a scene will say of itself."""
    record = asdict(job.record(scene))
    height, width = scene.shape
    return About(
        height=height,
        width=width,
        crs=wkt_of(scene.crs),
        transform=tuple(scene.transform)[:6],
        rows=job.cells.height,
        columns=job.cells.width,
        depth=job.layout.needs.depth,
        cell=job.layout.cell,
        unit=job.layout.plan.unit,
        scale=job.facts.scale,
        is_demo=scene.is_demo,
        failed_windows=failed,
        record=record,
    )


def in_pixels(panel: Panel, side: int, width: int) -> Panel:
    """The columns of pixels of a scene that columns of cells cover."""
    return Panel(panel.col_off * side, min(panel.width * side, width - panel.col_off * side))


def mask_of(part: Part, said: About, content: bytes) -> np.ndarray[Any, np.dtype[np.bool_]]:
    """The mask (height, width) of a part by its bits. Raises ValueError for too few."""
    around = in_pixels(part.panel, said.cell, said.width)
    height = max(0, min(part.end * said.cell, said.height) - part.row_off * said.cell)
    bits = np.unpackbits(np.frombuffer(content, np.uint8), count=height * around.width)
    return bits.reshape(height, around.width).astype(bool)
