"""What parts of features are: files that become chunks of a store, a mask, and what the store will say; no torch."""

from __future__ import annotations

import os
import zlib
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import numpy as np

from geoovseg.features.store import About
from geoovseg.rasters.ground import wkt_of
from geoovseg.run.job import Job, known_by
from geoovseg.scene.scene import Scene
from geoovseg.windows.plan import Panel, Part

MASK = "_valid.bits"
"""End of the name of a part's mask, a bit a pixel."""
REGIONS = "_regions.z"
"""End of the name of a part's regions, packed whole numbers."""


def end_of(chunk: str) -> str:
    """The end of a part's file for a chunk of a store, by its name there."""
    return f"_{chunk.replace('/', '.')}"


def chunk_of(end: str) -> str:
    """The name of a chunk in a store, by the end of a part's file."""
    return end.removeprefix("_").replace(".", "/")


def about_of_job(scene: Scene, job: Job, store: Path | None = None) -> About:
    """What a store of a scene will say of itself; with its name, also where the scene is, and how to know it."""
    known: dict[str, Any] = {}
    source, alone = None, ""
    if store is not None:
        _, by, digest = known_by(scene)
        if scene.regions is not None:
            files = tuple(file for file in scene.files if file not in scene.regions.files)
            alone = known_by(replace(scene, files=files))[2]
        known = {"scene_checked_by": by, "scene_identity": digest}
        source = os.path.relpath(scene.path, store.parent) if os.path.exists(scene.path) else scene.path
    record = asdict(replace(job.record(scene), **known))
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
        failed_windows=0,
        regions=job.layout.needs.regions,
        record=record,
        source=source,
        source_identity=alone,
        source_scale=job.settings.scale,
    )


def in_pixels(panel: Panel, side: int, width: int) -> Panel:
    """The columns of pixels of a scene that columns of cells cover."""
    return Panel(panel.col_off * side, min(panel.width * side, width - panel.col_off * side))


def pixels_of(part: Part, said: About) -> Part:
    """The pixels of a scene that a part of cells covers; cells may go beyond its end."""
    first, end = (min(at * said.cell, said.height) for at in (part.row_off, part.end))
    return Part(in_pixels(part.panel, said.cell, said.width), first, end - first)


def regions_of(pixels: Part, content: bytes) -> np.ndarray[Any, np.dtype[np.int32]]:
    """The regions (height, width) of a part in pixels by its file. Raises ValueError for what is none."""
    try:
        found = np.frombuffer(zlib.decompress(content), np.int32)
    except zlib.error as error:
        raise ValueError(f"regions of a part: {error}") from error
    return found.reshape(pixels.height, pixels.panel.width)


def mask_of(pixels: Part, content: bytes) -> np.ndarray[Any, np.dtype[np.bool_]]:
    """The mask (height, width) of a part in pixels by its bits. Raises ValueError for too few."""
    bits = np.unpackbits(np.frombuffer(content, np.uint8), count=pixels.height * pixels.panel.width)
    return bits.reshape(pixels.height, pixels.panel.width).astype(bool)
