"""Where windows lie on a scene and what they take in memory. Nothing here loads torch."""

from __future__ import annotations

import math
import os
import warnings
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from functools import cached_property
from itertools import pairwise, product
from typing import Any, NamedTuple

from affine import Affine
from rasterio.windows import Window

from geoovseg.errors import GeoOVSegWarning, UsageError
from geoovseg.methods import vote
from geoovseg.models.cards import DEMO, model_card, warn_unknown
from geoovseg.scene.area import Area, read_area
from geoovseg.scene.scene import Scene
from geoovseg.scene.views import hint
from geoovseg.settings import UPSAMPLERS, Settings
from geoovseg.vocabulary import Vocabulary
from geoovseg.windows.memory import Load
from geoovseg.windows.plan import REACH, Native, Panel, Part, Span, TilePlan, panels_of, parts_of, plan_tiles


@dataclass(frozen=True, kw_only=True)
class Needs:
    """What a method on its models asks of windows and memory, as settings have it."""

    tile: int
    """side of what is seen at once, in pixels: of a window, or of a block"""
    stride: int
    patch: int
    """what sides are multiples of"""
    least: int
    """the smallest side, for upsamplers of features; else 0"""
    micro_batch: int
    """windows, or blocks, that go through the model together"""
    by_word: bool
    """whether there are scores of words at pixels, not of classes only"""
    memory: int
    """bytes of the device's memory"""
    cell: int
    """pixels on a side of what has one vector of features; 0 for methods that give scores"""
    depth: int
    """numbers of such a vector"""
    reach: int
    """cells beyond those around a pixel that it depends on, where scores follow colours"""
    regions: bool = False
    """whether regions are found that may vote for the classes of pixels"""


class TileBytes(NamedTuple):
    """Bytes that a method takes for a tile beside its model."""

    fixed: float
    a_word: float

    def of(self, words: int) -> float:
        """With so many words."""
        return self.fixed + words * self.a_word


@dataclass(frozen=True, kw_only=True)
class Layout:
    """The windows of a run and the memory they take."""

    needs: Needs
    plan: TilePlan
    load: Load
    tile_bytes: TileBytes
    """what the method takes for a tile"""
    panels: tuple[Panel, ...]
    area: Area | None
    """where labels are wanted; nowhere else windows are needed"""
    cell: int
    """pixels on a side of what has one vector of features; 0 where scores are blended"""
    native: Native | None = None
    """the grid of the outputs, where models see another one"""
    seen: Affine | None = None
    """from pixels that models see to the ground, where that is not the outputs' grid"""
    votes: bool = False
    """whether regions vote for the classes of pixels"""

    @property
    def micro_batch(self) -> int:
        """Windows, or blocks, that go through the model together."""
        return self.needs.micro_batch

    @cached_property
    def windows(self) -> int:
        """Windows of the scene."""
        return len(self.plan.row_offs) * len(self.plan.col_offs)

    @property
    def memory_mb(self) -> float:
        """Memory for the blend and what is made of it, in MB; the model and the libraries come on top."""
        widest = max(self.panels, key=lambda panel: panel.width)
        return self.load.nbytes(self.around(widest, None)[0].width) / 1e6

    @property
    def shape(self) -> tuple[int, int]:
        """(height, width) of the outputs' grid."""
        return (self.plan.height, self.plan.width) if self.native is None else self.native.shape

    @property
    def parts(self) -> tuple[Part, ...]:
        """All parts of outputs."""
        return parts_of(self.shape[0], self.panels)

    def inner(self, panel: Panel, span: Span | None) -> tuple[Panel, Span]:
        """The pixels that models see from which those of a panel's rows are made; of all rows if none are given."""
        span = span or (0, self.shape[0])
        return (panel, span) if self.native is None else self.native.around(panel, span)

    def around(self, panel: Panel, span: Span | None) -> tuple[Panel, Span]:
        """The same, with all pixels of the regions that vote for them."""
        panel, span = self.inner(panel, span)
        return self.plan.whole_cores(panel, span) if self.votes else (panel, span)

    def begun_in(self, part: Part) -> Part:
        """The pixels that models see which begin in a part."""
        return part if self.native is None else self.native.begun_in(part)

    def begin(self, window: Window) -> tuple[int, int]:
        """Row and column of the outputs' pixel in which a window begins."""
        place = (window.row_off, window.col_off)
        return place if self.native is None else self.native.begin(*place)

    def windows_of(self, panel: Panel, span: Span | None = None) -> Iterator[Window]:
        """Windows that pixels of a panel, or of a span of its rows, depend on, and of these those of the area."""
        windows = self.plan.windows(*self._reach(panel, span))
        if self.area is None:
            return windows
        if self.votes:
            return (window for window in windows if self._voters & set(self._cores(window)))
        return self._area.touched(windows, self._drawn + self._beside)

    @property
    def _area(self) -> Area:
        """The area on the grid that models see."""
        assert self.area is not None
        return replace(self.area, transform=self.seen or self.area.transform)

    @property
    def _beside(self) -> int:
        """Pixels that models see beside those in which a pixel of the outputs lies, that it is made of too."""
        return 0 if self.native is None else 1

    @cached_property
    def _voters(self) -> set[tuple[int, int]]:
        """First pixels of the cores that hold a pixel of the area."""
        every = map(self.plan.core, self.plan.windows(Panel(0, self.plan.width)))
        return {(core.row_off, core.col_off) for core in self._area.touched(every, self._beside)}

    def _cores(self, window: Window) -> Iterator[tuple[int, int]]:
        """First pixels of the cores with a pixel that draws from a window."""
        rows, columns = (
            [first for first, end in pairwise(edges) if first < at + size + self._drawn and end > at - self._drawn]
            for at, size, edges in (
                (window.row_off, window.height, self.plan.row_edges),
                (window.col_off, window.width, self.plan.col_edges),
            )
        )
        return product(rows, columns)

    @property
    def _drawn(self) -> int:
        """Pixels beside a window that may draw from it."""
        return self.cell * (1 + self.needs.reach)

    def count(self, panel: Panel, span: Span | None = None) -> int:
        """Number of `windows_of` a panel, or a span of its rows."""
        if self.area is None:
            return self.plan.count(*self._reach(panel, span))
        return sum(1 for _ in self.windows_of(panel, span))

    def _reach(self, panel: Panel, span: Span | None) -> tuple[Panel, Span]:
        """The panel and rows with what their pixels draw from besides."""
        panel, span = self.around(panel, span)
        return self.plan.cells(self.cell, panel, span, self.needs.reach).pixels if self.cell else (panel, span)


def area_of(scene: Scene, settings: Settings) -> Area | None:
    """The area of interest on a scene, if there is one. Raises what `read_area` raises."""
    if settings.aoi is None:
        return None
    return read_area(
        os.fspath(settings.aoi),
        settings.aoi_crs,
        layer=settings.aoi_layer,
        where=settings.aoi_where,
        crs=scene.crs,
        transform=scene.outputs.transform,
        shape=scene.outputs.shape,
    )


def lay_windows(scene: Scene, settings: Settings, needs: Needs) -> TilePlan:
    """The windows. Raises UsageError for sizes that do not fit, and where windows are too small for an upsampler."""
    cell = cell_of(settings, needs)
    patch = math.lcm(needs.patch, cell or 1)
    plan = plan_tiles(*scene.shape, tile=needs.tile, stride=needs.stride, patch=patch, aligned=bool(cell))
    if min(plan.tile) < needs.least:
        raise UsageError(
            f"--upsample {settings.upsample} needs windows of at least {needs.least} x {needs.least} pixels, and these "
            f"have {plan.tile[1]} x {plan.tile[0]}; choose --upsample guided"
        )
    return plan


def cell_of(settings: Settings, needs: Needs) -> int:
    """The side of the cells that a run blends features in; 0 for one that blends scores."""
    return needs.cell if settings.upsampled_by in UPSAMPLERS else 0


def votes_of(settings: Settings, needs: Needs) -> bool:
    """Whether regions vote for the classes of pixels."""
    return needs.regions and vote(settings.method, settings.settings)


def shares_held(scene: Scene, votes: bool, channels: int, scored: int) -> int:
    """How many shares are held of a pixel until regions have voted: all, where they are written or resampled."""
    return int(votes) * (channels if scored or scene.native is not None else 1)


def reach_of(settings: Settings) -> int:
    """Cells beyond those around a pixel that it depends on."""
    return REACH if settings.upsampled_by == "guided" else 0


def lay_out(
    scene: Scene,
    settings: Settings,
    words: Vocabulary,
    needs: Needs,
    tile_bytes: Callable[[tuple[int, int]], tuple[float, float]],
    area: Area | None,
) -> Layout:
    """Windows and panels of a scene within the memory there is. Raises what `lay_windows` raises."""
    plan = lay_windows(scene, settings, needs)
    channels, queries = len(words.groups), len(words.queries)
    method, cell = TileBytes(*tile_bytes(plan.tile)), cell_of(settings, needs)
    at_once = queries if needs.by_word else channels
    scored = channels if settings.scores else 0
    votes = bool(cell) and votes_of(settings, needs)
    load = Load(
        plan,
        channels,
        at_once,
        needs.micro_batch,
        method.of(queries),
        cell,
        needs.depth,
        needs.reach,
        scored,
        needs.regions,
        shares_held(scene, votes, channels, scored),
        scene.outputs.shape[1] / scene.shape[1],
    )
    return Layout(
        needs=needs, plan=plan, load=load, tile_bytes=method, area=area, cell=cell, votes=votes,
        **on_the_grid(scene, load.panel_width(needs.memory, settings.max_memory)),
    )  # fmt: skip


def on_the_grid(scene: Scene, most: int) -> dict[str, Any]:
    """Of a layout, what depends on the grid of the outputs; panels are of at most so many columns that models see."""
    if scene.native is None:
        return {"panels": panels_of(scene.shape[1], most)}
    native = Native(scene.native.shape, scene.shape)
    panels = panels_of(native.shape[1], most * native.shape[1] // native.seen[1])
    return {"panels": panels, "native": native, "seen": scene.transform}


def caution(scene: Scene, settings: Settings, words: Vocabulary | None, needs: Needs) -> None:
    """Warn of what makes labels worthless, or a run needlessly slow, and of what outputs will lack."""
    if scene.crs is None:
        message = f"{scene.path} has no coordinate system; the outputs will have none either"
        warnings.warn(message, GeoOVSegWarning, 3)
    card = model_card(settings.model)
    if card.name == DEMO and not scene.is_demo:
        message = f"the demo model was trained on drawn scenes only; on {scene.path} its labels mean nothing"
        warnings.warn(message, GeoOVSegWarning, 3)
    if words is not None:
        warn_unknown(card, words)
    if settings.gsd is None and (text := hint(scene.src, needs.tile)):
        warnings.warn(text, GeoOVSegWarning, 3)
