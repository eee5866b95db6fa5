"""Everything that is decided before the first pixel is read: words, model, method, windows, memory."""

from __future__ import annotations

import os
import warnings
from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import numpy as np
import torch
from rasterio.windows import Window
from torch import Tensor
from torch.nn.functional import interpolate

from geoovseg.aoi import Area, read_area
from geoovseg.batch import TileBatch
from geoovseg.budget import CPU_BATCH, InFlight, Load
from geoovseg.errors import GeoOVSegWarning, UsageError
from geoovseg.methods import Method, card, load_method, read_settings, upsampled
from geoovseg.methods.blocks import Cut
from geoovseg.models.load import ClipModel, bf16_would_pay, load_clip, resolve_device, resolve_precision
from geoovseg.models.regions import SOURCES, Regions, SamRegions, by_colour, given
from geoovseg.models.sam import Sam, load_sam
from geoovseg.models.text import with_background
from geoovseg.models.upsamplers import Upsampler, check_fit, load_upsampler
from geoovseg.models.vfm import Vfm, load_vfm
from geoovseg.ops.classes import best_word, decide
from geoovseg.ops.upsample import UPSAMPLERS, Upsample, bilinear
from geoovseg.record import RunRecord
from geoovseg.scene import Scene
from geoovseg.settings import Settings
from geoovseg.tiling import Panel, Span, TilePlan, plan_tiles
from geoovseg.vocabulary import Vocabulary
from geoovseg.working_grid import hint, size_at

GPU_BATCH = 32


@dataclass(frozen=True, kw_only=True)
class Job:
    """A run ready to start."""

    settings: Settings
    vocabulary: Vocabulary
    model: ClipModel
    vfm: Vfm | None
    """the vision model besides, for methods that use one"""
    sam: Sam | None
    """Segment Anything, for methods that use it, or regions of its"""
    method: Method
    upsample: Upsample
    """what brings class scores to pixels"""
    upsampler: Upsampler | None
    """what brings features to pixels instead, so that scores are at pixels already"""
    plan: TilePlan
    tile: tuple[int, int]
    """height and width of what the model sees of a window"""
    load: Load
    panels: tuple[Panel, ...]
    device: torch.device
    precision: str
    batch_size: int
    micro_batch: int
    """windows that go through the towers together"""
    dropped: tuple[str, ...]
    """counter-words left out as too close to the user's"""
    in_flight: InFlight
    area: Area | None
    """where labels are wanted; nowhere else windows are needed"""

    @cached_property
    def windows(self) -> int:
        """Windows of the scene."""
        return len(self.plan.row_offs) * len(self.plan.col_offs)

    @property
    def depth(self) -> int:
        """Batches the reader may be ahead; blocks are large, so one of them."""
        return 1 if self.method.at_once else max(1, -(-self.batch_size // self.micro_batch))

    @property
    def channels(self) -> int:
        """Score channels: the classes, and the background if there is one."""
        return len(self.vocabulary.groups)

    @property
    def memory_mb(self) -> float:
        """Memory for the blend and what is made of it, in MB; the model and the libraries come on top."""
        return self.load.nbytes(max(p.width for p in self.panels)) / 1e6

    def seen(self, scene: Scene) -> Scene:
        """The scene as this run sees it; its range of pixels may have to be sampled. Raises SceneError."""
        look = None if self.tile == self.plan.tile else (self.plan.tile, self.tile)
        return replace(scene, look=look).measured(lenient=self.settings.on_error == "skip")

    def class_scores(self, batch: TileBatch) -> Tensor:
        """Class scores (B, C, H, W) of a batch at pixel resolution, on the device."""
        if self.method.at_once:  # blocks see to their windows themselves
            scores = self._upsampled(self.method.scores(batch), batch)
        else:
            scores = self.in_flight.run(lambda index: self._class_scores(batch.take(index)), len(batch))
        shape = batch.known.shape[-2:]
        return scores if scores.shape[-2:] == shape else interpolate(scores, shape, mode="bilinear")

    def _class_scores(self, batch: TileBatch) -> Tensor:
        """Scores of a batch that fits into memory.

        On the CPU the last, smaller batch is filled up by repetition: sums then run in the same order for every window.
        """
        full = batch
        if self.device.type == "cpu" and len(batch) < CPU_BATCH:
            full = batch.take(np.arange(CPU_BATCH) % len(batch))
        return self._upsampled(self.method.scores(full)[: len(batch)], batch)

    def _upsampled(self, scores: Tensor, batch: TileBatch) -> Tensor:
        classes = best_word(scores, [len(g) for g in self.vocabulary.groups])
        if classes.shape[-2:] == batch.pixels.shape[-2:]:
            return classes
        return self.upsample(classes, torch.from_numpy(batch.pixels).to(classes.device))

    def windows_of(self, panel: Panel, span: Span | None = None) -> Iterator[Window]:
        """Windows that touch a panel, or a span of its rows, and may hold a pixel of the area."""
        windows = self.plan.windows(panel, span)
        return windows if self.area is None else (w for w in windows if self.area.touches(w))

    def count(self, panel: Panel) -> int:
        """Number of `windows_of` a panel."""
        return self.plan.count(panel) if self.area is None else sum(1 for _ in self.windows_of(panel))

    def decide(self, scores: Tensor, valid: Tensor, nodata: int) -> tuple[Tensor, Tensor]:
        """Finished scores (C, h, w) to codes (h, w) and confidence (h, w) in 0..1."""
        scale = self.method.scale if self.method.unit == "cosine" else None
        best, confidence = decide(scores, scale)
        codes = best + self.vocabulary.first_code
        if self.settings.threshold is not None:
            codes = torch.where(confidence < self.settings.threshold, 0, codes)
        return torch.where(valid, codes, nodata), confidence

    @property
    def _windows_of_blocks(self) -> tuple[int, int] | None:
        """(side, step) of the windows in a tile, for methods that see blocks."""
        blocks = getattr(self.method, "blocks", None)
        return (blocks.window, blocks.stride) if blocks else None

    def record(self, scene: Scene, *, skipped: int) -> RunRecord:
        """The run record."""
        given = self.settings
        return RunRecord(
            scene=os.path.basename(scene.path),
            method=given.method,
            settings=read_settings(given.method, given.settings),
            model=self.model.card.name,
            weights_sha256=self.model.sha256,
            vfm=self.vfm.name if self.vfm else None,
            vfm_sha256=self.vfm.sha256 if self.vfm else None,
            sam=self.sam.name if self.sam else None,
            sam_sha256=self.sam.sha256 if self.sam else None,
            scale=scene.light.limits,
            gsd=given.gsd,
            grid=given.grid,
            regions=os.path.basename(given.regions_file or given.regions_from or "") or None,
            classes=tuple((c.name, c.words, c.colour) for c in self.vocabulary.classes),
            templates=given.templates,
            background=self.vocabulary.background,
            threshold=given.threshold,
            upsample=given.upsample,
            upsample_sha256=self.upsampler.sha256 if self.upsampler else None,
            bands=scene.bands,
            tile=self.plan.tile,
            stride=self.plan.stride,
            windows_of_blocks=self._windows_of_blocks,
            device=self.device.type,
            precision=self.precision,
            windows=self.windows,
            skipped_windows=skipped,
            notes=self.method.notes,
        )


def prepare_job(scene: Scene, vocabulary: Vocabulary, settings: Settings) -> Job:
    """Read the area, load the model, decide the words, lay the windows. Raises the errors of all of these."""
    area = None
    if settings.aoi is not None:
        area = read_area(settings.aoi, settings.aoi_crs, crs=scene.crs, transform=scene.transform, shape=scene.shape)
    device = resolve_device(settings.device)
    precision = resolve_precision(settings.precision, device)
    model = load_clip(settings.model, device, precision, settings.templates)
    words, dropped = with_background(vocabulary, settings.background, model.text)
    batch_size = settings.batch_size or (CPU_BATCH * 2 if device.type == "cpu" else GPU_BATCH)
    in_flight = InFlight(CPU_BATCH if device.type == "cpu" else batch_size)
    vfm = _vfm(settings, model, device, precision)
    sam = load_sam(settings.sam_name, device, precision) if settings.sam_name else None
    method, upsampler = _method(settings, model, words, vfm, sam, in_flight)
    plan, seen = _plan(scene, method, settings, upsampler)
    _warn(scene, words, model, settings)
    micro_batch = method.at_once or in_flight.planned
    channels = len(words.groups)
    at_pixels = card(settings.method).at_pixels or getattr(method, "jbu", False)
    by_word = upsampler is not None or at_pixels  # words at pixel resolution
    load = Load(plan, channels, len(words.queries) if by_word else channels, micro_batch, method.nbytes(seen))
    return Job(
        settings=settings,
        vocabulary=words,
        model=model,
        vfm=vfm,
        sam=sam,
        method=method,
        upsample=UPSAMPLERS.get(settings.upsample, bilinear),
        upsampler=upsampler,
        plan=plan,
        tile=seen,
        load=load,
        panels=plan.panels(load.panel_width(device, settings.max_memory)),
        device=device,
        precision=precision,
        batch_size=batch_size,
        micro_batch=micro_batch,
        dropped=dropped,
        in_flight=in_flight,
        area=area,
    )


def _vfm(settings: Settings, model: ClipModel, device: torch.device, precision: str) -> Vfm | None:
    method = card(settings.method)
    return load_vfm(settings.vfm or method.vfm, model, device, precision) if "vfm" in method.needs else None


def _regions(settings: Settings, sam: Sam | None) -> Regions | None:
    """What makes region maps, for methods that use them."""
    if settings.regions_from is None:
        return None
    if sam is not None:
        return SamRegions(sam)
    return by_colour if settings.regions_from in SOURCES else given


def _method(
    settings: Settings, model: ClipModel, words: Vocabulary, vfm: Vfm | None, sam: Sam | None, in_flight: InFlight
) -> tuple[Method, Upsampler | None]:
    """The method on its models, seeing pixels through an upsampler of features if one is asked for."""
    device = model.vit.device
    text = model.text.embed(words.queries).to(device)
    cut = Cut(settings.tile, settings.stride, settings.block, in_flight)
    models: dict[str, Any] = {"vfm": vfm, "sam": sam, "regions": _regions(settings, sam)}
    method = load_method(settings.method, model.vit, text, words, **models, cut=cut, settings=settings.settings)
    if settings.upsample in UPSAMPLERS:
        return method, None
    upsampler = load_upsampler(settings.upsample, device)
    check_fit(upsampler.jbu, model.vit, settings.upsample)
    return upsampled(settings.method, method, upsampler.jbu.cosines), upsampler


def _plan(
    scene: Scene, method: Method, settings: Settings, upsampler: Upsampler | None
) -> tuple[TilePlan, tuple[int, int]]:
    """The windows, and how large models see them. Raises UsageError where they are too small for an upsampler."""
    tile, stride = method.tile, method.stride
    if method.at_once is None:  # blocks have theirs from the method: settings are those of their windows
        tile = method.tile if settings.tile is None else settings.tile
        default = method.stride if settings.tile is None else max(1, tile // 2)
        stride = default if settings.stride is None else settings.stride
    finer = settings.gsd if settings.grid == "scene" else None  # the scene's own pixels, than what models see
    shape = scene.shape if finer is None else size_at(scene.src, finer, scene.path)
    plan = plan_tiles(*shape, tile=tile, stride=stride, patch=method.patch)
    least = upsampler.jbu.least_grid * method.patch if upsampler else 0
    if min(plan.tile) < least:
        raise UsageError(
            f"--upsample {settings.upsample} needs windows of at least {least} x {least} pixels, and these have "
            f"{plan.tile[1]} x {plan.tile[0]}; choose --upsample guided"
        )
    return plan.at(*scene.shape), plan.tile


def _warn(scene: Scene, words: Vocabulary, model: ClipModel, settings: Settings) -> None:
    if model.card.name == "demo" and not scene.is_demo:
        message = f"the demo model was trained on drawn scenes only; on {scene.path} its labels mean nothing"
        warnings.warn(message, GeoOVSegWarning, 3)
    model.warn_unknown(words)
    if bf16_would_pay(model.vit):
        warnings.warn("this CPU computes bfloat16: --precision bf16 may be several times faster", GeoOVSegWarning, 3)
    if settings.gsd is None and (text := hint(scene.src)):
        warnings.warn(text, GeoOVSegWarning, 3)
