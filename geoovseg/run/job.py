"""Everything that is decided before the first pixel is read: words, model, method, windows, memory."""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass, fields, replace
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import interpolate

from geoovseg.labels.record import RunRecord
from geoovseg.methods import Method, card, load_method, read_settings, upsampled
from geoovseg.methods.blocks import Cut
from geoovseg.models.cards import SOURCES
from geoovseg.models.load import ClipModel, bf16_would_pay, load_clip, resolve_device, resolve_precision
from geoovseg.models.regions import Regions, SamRegions, by_colour, given
from geoovseg.models.sam import Sam, load_sam
from geoovseg.models.text import with_background
from geoovseg.models.upsamplers import Upsampler, check_fit, load_upsampler
from geoovseg.models.vfm import Vfm, load_vfm
from geoovseg.ops.classes import best_word, decide
from geoovseg.ops.upsample import UPSAMPLERS, Upsample, bilinear
from geoovseg.run.layout import Beside, Needs, WindowLayout, area_of, lay_out
from geoovseg.run.timings import Pace, Taken
from geoovseg.scene.scene import Scene
from geoovseg.settings import Settings
from geoovseg.vocabulary import Vocabulary
from geoovseg.windows.batch import TileBatch
from geoovseg.windows.in_flight import InFlight, device_memory
from geoovseg.windows.memory import CPU_BATCH

GPU_BATCH = 32


@dataclass(frozen=True, kw_only=True)
class Job(WindowLayout):
    """A run ready to start: its windows, and what sees them."""

    settings: Settings
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
    device: torch.device
    precision: str
    batch_size: int
    dropped: tuple[str, ...]
    """counter-words left out as too close to the user's"""
    in_flight: InFlight

    @property
    def depth(self) -> int:
        """Batches the reader may be ahead; blocks are large, so one of them."""
        return 1 if self.method.at_once else max(1, -(-self.batch_size // self.micro_batch))

    @property
    def channels(self) -> int:
        """Score channels: the classes, and the background if there is one."""
        return len(self.vocabulary.groups)

    def pace(self, seconds: float, process_mb: float) -> Pace:
        """What is worth remembering of this run, at `seconds` a tile: see `geoovseg.run.timings`."""
        taken = Taken(_beside(self.method)(self.tile), seconds, process_mb, len(self.vocabulary.queries))
        return Pace(needs=self.needs, tiles={self.tile: taken})

    def seen(self, scene: Scene, check: Callable[[], None] = lambda: None) -> Scene:
        """The scene as this run sees it; its range of pixels may have to be sampled, with `check` called in between.

        Raises SceneError.
        """
        look = None if self.tile == self.plan.tile else (self.plan.tile, self.tile)
        return replace(scene, look=look).measured(lenient=self.settings.on_error == "skip", check=check)

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
            scale=scene.light.ends,
            nodata=given.nodata,
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
    area = area_of(scene, settings)
    device = resolve_device(settings.device)
    precision = resolve_precision(settings.precision, device)
    model = load_clip(settings.model, device, precision, settings.templates)
    words, dropped = with_background(vocabulary, settings.background, model.text)
    batch_size = settings.batch_size or (CPU_BATCH * 2 if device.type == "cpu" else GPU_BATCH)
    in_flight = InFlight(CPU_BATCH if device.type == "cpu" else batch_size)
    vfm = _vfm(settings, model, device, precision)
    sam = load_sam(settings.sam_name, device, precision) if settings.sam_name else None
    method, upsampler = _method(settings, model, words, vfm, sam, in_flight)
    needs = _needs(settings, method, upsampler, model, in_flight)
    layout = lay_out(scene, settings, words, needs, _beside(method), area)
    return Job(
        **{name: getattr(layout, name) for name in (f.name for f in fields(layout))},
        settings=settings,
        model=model,
        vfm=vfm,
        sam=sam,
        method=method,
        upsample=UPSAMPLERS.get(settings.upsample, bilinear),
        upsampler=upsampler,
        device=device,
        precision=precision,
        batch_size=batch_size,
        dropped=dropped,
        in_flight=in_flight,
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


def _needs(
    settings: Settings, method: Method, upsampler: Upsampler | None, model: ClipModel, in_flight: InFlight
) -> Needs:
    """What the method asks for, with the user's sizes; for blocks those are of their windows."""
    tile, stride = method.tile, method.stride
    if method.at_once is None:
        tile = method.tile if settings.tile is None else settings.tile
        default = method.stride if settings.tile is None else max(1, tile // 2)
        stride = default if settings.stride is None else settings.stride
    at_pixels = card(settings.method).at_pixels or getattr(method, "jbu", False)
    return Needs(
        tile=tile,
        stride=stride,
        patch=method.patch,
        least=upsampler.jbu.least_grid * method.patch if upsampler else 0,
        micro_batch=method.at_once or in_flight.planned,
        by_word=bool(upsampler is not None or at_pixels),
        memory=device_memory(model.vit.device),
        bf16_pays=bf16_would_pay(model.vit),
    )


def _beside(method: Method) -> Callable[[tuple[int, int]], Beside]:
    """What a method takes beside its model for tiles of a size."""

    def of(seen: tuple[int, int]) -> Beside:
        fixed = method.nbytes(seen, 0)
        return Beside(fixed, method.nbytes(seen, 1) - fixed)

    return of
