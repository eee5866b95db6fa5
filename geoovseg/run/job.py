"""A run before its first pixel is read: a loaded model on one scene. It can go to another process; no torch here."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, NamedTuple

from safetensors.numpy import load

from geoovseg.features.store import SIDE
from geoovseg.labels.parts import FinishedPart
from geoovseg.labels.profile import LabelProfile
from geoovseg.labels.record import RunRecord
from geoovseg.methods import read_settings
from geoovseg.network import public
from geoovseg.prompts import digest, named
from geoovseg.rasters.ground import Box, RasterGrid
from geoovseg.rasters.remote import identity
from geoovseg.run.layout import Layout, Needs
from geoovseg.scene.intensity import Intensity
from geoovseg.scene.scene import Scene
from geoovseg.settings import Settings
from geoovseg.vocabulary import ClassEntry, Vocabulary
from geoovseg.windows.plan import Cells, Panel, Part, TilePlan, parts_of

NOTHING = Vocabulary((ClassEntry("features", ("features",), "#000000"),))
"""What is asked of a scene whose features are only kept."""
NO_WORDS: dict[str, Any] = {
    "classes": (), "background": (), "templates": "", "templates_sha256": "", "threshold": None, "aoi": None,
    "crop": False, "upsample": "",
}  # fmt: skip
"""What a record of features does not say."""


@dataclass(frozen=True, kw_only=True)
class Facts:
    """What a loaded model says of itself: all that is to be known of it to run it elsewhere."""

    vocabulary: Vocabulary
    """with its background"""
    dropped: tuple[str, ...]
    """counter-words left out as too close to the user's"""
    needs: Needs
    scale: float
    """factor on cosines before the softmax over classes"""
    device: str
    precision: str
    batch_size: int
    planned: int
    """windows that go through the towers together"""
    windows: tuple[int, int] | None
    """(side, step) of the windows in a tile, for methods that see blocks"""
    notes: tuple[str, ...]
    digests: dict[str, str | None]
    """names and SHA-256 of the models, as the run record calls them"""


@dataclass(frozen=True, kw_only=True)
class Job:
    """What is to be done with a scene."""

    scene: str
    settings: Settings
    facts: Facts
    layout: Layout
    intensity: Intensity
    """how pixels are seen, with the scene's range known"""
    prepared: bytes = b""
    """what the method learned from the scene before the first window"""
    features: bool = False
    """whether its features are to be kept; parts are then of cells"""

    @property
    def cells(self) -> TilePlan:
        """The grid of cells."""
        return self.layout.plan.in_cells(self.layout.cell)

    def parts(self, panels: Sequence[Panel]) -> tuple[Part, ...]:
        """All parts of the run."""
        return parts_of(self.cells.height, panels, SIDE) if self.features else parts_of(self.layout.shape[0], panels)

    def count(self, parts: Sequence[Part]) -> int:
        """How many windows neighbouring parts need."""
        panel, span = parts[0].panel, (parts[0].row_off, parts[-1].end)
        if self.features:
            return self.layout.plan.count(*Cells(self.layout.cell, panel, span).pixels)
        return self.layout.count(panel, span)

    def profile(self, scene: Scene) -> LabelProfile:
        """What the labels will be."""
        height, width = scene.outputs.shape
        grid = RasterGrid(height=height, width=width, crs=scene.crs, transform=scene.outputs.transform)
        words = self.facts.vocabulary
        return LabelProfile(grid, tuple((c.name, c.colour) for c in words.classes), bool(words.background))

    def box(self, scene: Scene) -> Box | None:
        """The part of the scene that is written, if not all of it is."""
        return self.layout.area.box(scene.outputs.shape) if self.settings.crop and self.layout.area else None

    def output_grid(self, scene: Scene) -> RasterGrid:
        """Where the outputs lie."""
        grid, box = self.profile(scene).grid, self.box(scene)
        return grid if box is None else grid.window(box)

    def record(self, scene: Scene) -> RunRecord:
        """What decides the labels; windows are counted when the run is over."""
        given, facts, plan = self.settings, self.facts, self.layout.plan
        models: dict[str, Any] = facts.digests
        found = RunRecord(
            scene=os.path.basename(scene.path),
            method=given.method,
            settings=read_settings(given.method, given.settings),
            **models,
            scale=self.intensity.ends,
            nodata=given.nodata,
            aoi=self.layout.area.digest if self.layout.area else None,
            crop=given.crop,
            gsd=given.gsd,
            grid=given.grid,
            regions=os.path.basename(public(given.regions_file or given.regions_from or "")) or None,
            classes=tuple((c.name, c.words, c.colour) for c in facts.vocabulary.classes),
            offsets=facts.vocabulary.offsets,
            templates=named(given.templates),
            templates_sha256=digest(given.templates),
            background=facts.vocabulary.background,
            threshold=given.threshold,
            upsample=given.upsampled_by,
            bands=scene.bands,
            tile=plan.tile,
            stride=plan.stride,
            windows_of_blocks=facts.windows,
            device=facts.device.partition(":")[0],
            precision=facts.precision,
            notes=facts.notes,
        )
        return replace(found, **NO_WORDS) if self.features else found


def notes_of(prepared: bytes | None) -> tuple[str, ...]:
    """What the run record says of the numbers that a method prepared: how its objective fell."""
    steps = load(prepared).get("objective") if prepared else None
    return () if steps is None else (f"objective by step: {' '.join(f'{value:.6g}' for value in steps.tolist())}",)


class Step(NamedTuple):
    """How far a worker is with a group of parts."""

    windows: int
    """that the model has seen"""
    finished: tuple[FinishedPart, ...] = ()
    """since the step before"""
    ended: bool = False
    """whether that is all of the group"""
    together: int = 0
    """windows that the device can hold, if it is known"""
    peak_mb: float = 0.0
    """the most memory a worker process has held"""


def known_by(scene: Scene) -> tuple[dict[str, Any], str, str]:
    """What a scene is known by: its files, without those that viewers make; by what that is; and a digest of it."""
    names = sorted(file for file in set(scene.files) if not file.endswith((".aux.xml", ".ovr")))
    files, checked_by = identity(names, scene.src, os.path.dirname(scene.path))
    return files, checked_by, hashlib.sha256(json.dumps(files, sort_keys=True).encode()).hexdigest()[:16]
