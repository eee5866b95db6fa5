"""A loaded model with its words: windows in, class scores out, codes and confidence in the end."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from geoovseg.errors import UsageError
from geoovseg.features.ask import Words
from geoovseg.methods import Method, Voting, card, load_method, upsampled
from geoovseg.methods.blocks import Cut
from geoovseg.models.cards import SOURCES, model_card
from geoovseg.models.load import ClipModel, load_clip, resolve_device
from geoovseg.models.precision import resolve_precision
from geoovseg.models.regions import Regions, SamRegions, by_colour, given
from geoovseg.models.sam import Sam, load_sam
from geoovseg.models.text import TextEncoder, with_background
from geoovseg.models.upsamplers import Upsampler, check_fit, load_upsampler
from geoovseg.models.vfm import Vfm, load_vfm
from geoovseg.ops.classes import Won, best_word, shares_of, shifted
from geoovseg.ops.pixels import on_device
from geoovseg.ops.upsample import UPSAMPLERS, Upsample, bilinear
from geoovseg.run.job import NOTHING, Facts
from geoovseg.run.layout import Needs, reach_of
from geoovseg.settings import Settings
from geoovseg.vocabulary import Vocabulary
from geoovseg.windows.batch import TileBatch
from geoovseg.windows.blend import Rows
from geoovseg.windows.in_flight import InFlight, device_memory
from geoovseg.windows.memory import CPU_BATCH

GPU_BATCH = 32
FAST = 6 / 7
"""Of a tile, how far apart its windows lie with `--speed fast`; mIoU is within 0.001 of half a tile's (benchmarks)."""
DIGESTS = ("model", "weights_sha256", "vfm", "vfm_sha256", "sam", "sam_sha256", "upsample_sha256")
"""Names and SHA-256 of models, as the run record calls them."""


@dataclass(frozen=True, kw_only=True)
class Predictor:
    """Models that are loaded, a method on them, and the words they are asked."""

    settings: Settings
    facts: Facts
    method: Method
    upsample: Upsample
    """what brings class scores to pixels"""
    device: torch.device
    in_flight: InFlight
    text: Tensor
    """unit features of all words (Q, D), on the device"""
    won: Won | None = None
    """counts which words of the background win"""

    @property
    def vocabulary(self) -> Vocabulary:
        """The words."""
        return self.facts.vocabulary

    @property
    def depth(self) -> int:
        """Batches the reader may be ahead; blocks are large, so one of them."""
        return 1 if self.method.at_once else max(1, -(-self.facts.batch_size // self.facts.needs.micro_batch))

    @property
    def channels(self) -> int:
        """Score channels: the classes, and the background if there is one."""
        return len(self.vocabulary.groups)

    def class_scores(self, batch: TileBatch) -> Tensor:
        """Class scores (B, C, H, W) of a batch at pixel resolution, on the device."""
        if self.method.at_once:  # blocks see to their windows themselves
            return self.upsampled(self.method.scores(batch), batch)
        return self.in_flight.run(lambda index: self._class_scores(batch.take(index)), len(batch))

    def _class_scores(self, batch: TileBatch) -> Tensor:
        """Scores of a batch that fits into memory."""
        return self.upsampled(self.method.scores(self._full(batch))[: len(batch)], batch)

    @property
    def words(self) -> Words:
        """What finished features are asked."""
        groups = tuple(len(group) for group in self.vocabulary.groups)
        return Words(self.text, groups, self.won, self.vocabulary.offsets)

    def vectors(self, batch: TileBatch) -> Tensor:
        """Features (B, D, h, w) of a batch, on the device."""
        if self.method.at_once:  # blocks see to their windows themselves
            return self.method.vectors(batch)

        def seen(index: NDArray[np.int64]) -> Tensor:
            return self.method.vectors(self._full(batch.take(index)))[: len(index)]

        return self.in_flight.run(seen, len(batch))

    def with_regions(self, batch: TileBatch) -> TileBatch:
        """A batch with the regions that its method finds, which may vote."""
        assert isinstance(self.method, Voting)  # its card says so
        return replace(batch, regions=self.method.region_ids(batch))

    def _full(self, batch: TileBatch) -> TileBatch:
        """A batch filled up by repetition on the CPU: sums then run in the same order for every window."""
        if self.device.type == "cpu" and len(batch) < CPU_BATCH:
            return batch.take(np.arange(CPU_BATCH) % len(batch))
        return batch

    def upsampled(self, scores: Tensor, batch: TileBatch) -> Tensor:
        """Class scores (B, C, H, W) at pixels of word scores (B, Q, h, w)."""
        if self.won is not None:
            self.won.add(scores)
        classes = best_word(scores, [len(g) for g in self.vocabulary.groups])
        classes = shifted(classes, self.vocabulary.offsets)
        if classes.shape[-2:] == batch.stored.shape[-2:]:
            return classes
        return self.upsample(classes, on_device(batch.stored, classes.device))

    def shares(self, scores: Tensor) -> Tensor:
        """Class scores (C, h, w) as shares of the classes (C, h, w) in 0..1, whose largest is the confidence."""
        return shares_of(scores, self.method.scale if self.method.unit == "cosine" else None)

    def shares_of(self, rows: Rows) -> Tensor:
        """The same of finished rows, whose regions may have voted: then perhaps only the largest (1, h, w)."""
        assert rows.scores is not None  # only codes can do without
        return rows.scores if rows.voted else self.shares(rows.scores)

    def codes(self, rows: Rows, valid: Tensor, nodata: int) -> Tensor:
        """The codes (h, w) of finished rows, for which no share is computed where no threshold asks for it."""
        best = rows.best
        if best is None:
            assert rows.scores is not None  # else there is nothing to decide
            best = rows.scores.max(dim=0).indices  # on a CPU several times faster than argmax
        codes = best.int() + self.vocabulary.first_code
        if self.settings.threshold is not None:
            codes = torch.where(self.shares_of(rows).amax(0) < self.settings.threshold, 0, codes)
        return torch.where(valid, codes, nodata)


def load_predictor(vocabulary: Vocabulary, settings: Settings) -> Predictor:
    """Load the models, decide the words, build the method. Raises the errors of all of these."""
    device = resolve_device(settings.device)
    alone = settings.workers == 1 and settings.ray is None and settings.shard is None
    precision = resolve_precision(settings.precision, device, model_card(settings.model), alone=alone)
    model = load_clip(settings.model, device, precision, settings.templates)
    words, dropped, text = asked_words(vocabulary, settings, model.text, device)
    batch_size = settings.batch_size or (CPU_BATCH * 2 if device.type == "cpu" else GPU_BATCH)
    in_flight = InFlight(CPU_BATCH if device.type == "cpu" else batch_size)
    vfm, sam = _vfm(settings, model, device, precision), _sam(settings, device, precision)
    method, upsampler = _method(settings, model, words, text, vfm, sam, in_flight)
    if words.offsets and method.unit != "cosine":
        raise UsageError(
            f"offsets of classes are for cosines, and {settings.method}, as set, gives {method.unit} scores"
        )
    facts = Facts(
        vocabulary=words,
        dropped=dropped,
        needs=_needs(settings, method, upsampler, model, in_flight),
        scale=method.scale,
        device=str(device),
        precision=precision,
        batch_size=batch_size,
        planned=in_flight.planned,
        windows=method.windows,
        notes=method.notes,
        digests=_digests(model, vfm, sam, upsampler),
    )
    upsample = UPSAMPLERS.get(settings.upsampled_by, bilinear)
    return Predictor(
        settings=settings, facts=facts, method=method, upsample=upsample, device=device, in_flight=in_flight, text=text,
        won=counted(words, device),
    )  # fmt: skip


def counted(words: Vocabulary, device: torch.device) -> Won | None:
    """What counts which words of the background win, if there are several."""
    return Won.of(len(words.background), device) if len(words.background) > 1 else None


def asked_words(
    vocabulary: Vocabulary, settings: Settings, encoder: TextEncoder, device: torch.device
) -> tuple[Vocabulary, tuple[str, ...], Tensor]:
    """The words with their background, counter-words that were left out, and features (Q, D) of the words."""
    if vocabulary == NOTHING:
        return vocabulary, (), torch.zeros(1, encoder.width or 1, device=device)
    counter = card(settings.method).counter_words
    words, dropped = with_background(vocabulary, settings.background, encoder, counter=counter)
    return words, dropped, encoder.embed(words.queries).to(device)


def _digests(model: ClipModel, vfm: Vfm | None, sam: Sam | None, upsampler: Upsampler | None) -> dict[str, str | None]:
    """What DIGESTS names, of loaded models."""
    found: list[str | None] = [model.card.name, model.sha256]
    for other in (vfm, sam):
        found += [None, None] if other is None else [other.name, other.sha256]
    return dict(zip(DIGESTS, [*found, upsampler.sha256 if upsampler else None], strict=True))


def _vfm(settings: Settings, model: ClipModel, device: torch.device, precision: str) -> Vfm | None:
    method = card(settings.method)
    return load_vfm(settings.vfm or method.vfm, model, device, precision) if "vfm" in method.needs else None


def _sam(settings: Settings, device: torch.device, precision: str) -> Sam | None:
    return load_sam(settings.sam_name, device, precision) if settings.sam_name else None


def _regions(settings: Settings, sam: Sam | None) -> Regions | None:
    """What makes region maps, for methods that use them."""
    if settings.regions_from is None:
        return None
    if sam is not None:
        return SamRegions(sam)
    return by_colour if settings.regions_from in SOURCES else given


def _method(
    settings: Settings,
    model: ClipModel,
    words: Vocabulary,
    text: Tensor,
    vfm: Vfm | None,
    sam: Sam | None,
    in_flight: InFlight,
) -> tuple[Method, Upsampler | None]:
    """The method on its models, seeing pixels through an upsampler of features if one is asked for."""
    cut = Cut(settings.tile, settings.stride, settings.block, in_flight)
    models: dict[str, Any] = {"vfm": vfm, "sam": sam, "regions": _regions(settings, sam)}
    method = load_method(settings.method, model.vit, text, words, **models, cut=cut, settings=settings.settings)
    if settings.upsampled_by in UPSAMPLERS:
        return method, None
    upsampler = load_upsampler(settings.upsampled_by, model.vit.device)
    check_fit(upsampler.jbu, model.vit, settings.upsampled_by)
    return upsampled(settings.method, method, upsampler.jbu.cosines), upsampler


def _needs(
    settings: Settings, method: Method, upsampler: Upsampler | None, model: ClipModel, in_flight: InFlight
) -> Needs:
    """What the method asks for, with the user's sizes; for blocks those are of their windows."""
    tile, stride, cell = method.tile, method.stride, method.cell
    if method.windows is None:
        tile = method.tile if settings.tile is None else settings.tile
        default = max(1, tile * method.stride // method.tile)  # as large a part of it as usual
        paces = {"fast": max(default, round(FAST * tile)), "normal": default, "fine": max(1, default // 2)}
        stride = paces[settings.speed] if settings.stride is None else settings.stride
    if cell and settings.stride is None:
        unit = math.lcm(method.patch, cell)
        stride = max(unit, stride // unit * unit)
    return Needs(
        tile=tile,
        stride=stride,
        patch=method.patch,
        least=upsampler.jbu.least_grid * method.patch if upsampler else 0,
        micro_batch=method.at_once or in_flight.planned,
        by_word=method.at_pixels,
        memory=device_memory(model.vit.device),
        cell=cell,
        depth=method.depth if cell else 0,
        reach=reach_of(settings) if cell else 0,
        regions=bool(cell and card(settings.method).votes),
    )


def tile_bytes(method: Method) -> Callable[[tuple[int, int]], tuple[float, float]]:
    """Bytes that tiles of a size take beside the model: fixed, and for every word."""
    return lambda seen: method.cost(seen)[:2]
