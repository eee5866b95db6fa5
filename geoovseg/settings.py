"""What a user decides about a run, and what of it can be refused before anything is loaded."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from typing import Any

from geoovseg.errors import UsageError
from geoovseg.methods import METHODS, MethodCard, card, read_settings
from geoovseg.models.cards import DEFAULT_MODEL, MODELS, OWN, SOURCES, model_card
from geoovseg.models.weights import find_weights
from geoovseg.prompts import DEFAULT_TEMPLATES, templates
from geoovseg.scene.intensity import read_scale

GRIDS = ("working", "scene")
"""Where outputs lie when a scene is seen at another resolution: there, or on its own pixels."""
UPSAMPLERS = ("bilinear", "guided")
"""Ways from the patch grid to pixels that need no weights; `geoovseg.ops.upsample` has them."""
ON_ERROR = ("stop", "skip")
"""What can be done about windows that cannot be read."""


@dataclass(frozen=True, kw_only=True)
class Settings:
    """What a user decides about a run, as given; see `geoovseg.segment` for the meaning of each."""

    method: str = "segearth"
    model: str = DEFAULT_MODEL
    templates: str = DEFAULT_TEMPLATES
    background: str = "auto"
    threshold: float | None = None
    upsample: str = "bilinear"
    settings: Mapping[str, str | bool | int | float] = field(default_factory=dict)
    tile: int | None = None
    stride: int | None = None
    device: str = "auto"
    precision: str = "auto"
    batch_size: int | None = None
    max_memory: float | None = None
    block: int | None = None
    vfm: str | None = None
    sam: str | None = None
    regions: str | None = None
    bands: tuple[int | str, ...] | None = None
    scale: str = "auto"
    gsd: float | None = None
    nodata: float | None = None
    grid: str = "working"
    aoi: str | None = None
    aoi_crs: str | None = None
    on_error: str = "stop"

    @property
    def view(self) -> dict[str, Any]:
        """How a scene is to be opened."""
        gsd = self.gsd if self.grid == "working" else None
        own = {"bands": self.bands, "scale": self.scale, "nodata": self.nodata}
        return {**own, "gsd": gsd, "regions": self.regions_file}

    @property
    def regions_from(self) -> str | None:
        """Where region maps come from, if the method uses them: `sam` unless told otherwise."""
        if "regions" not in card(self.method).needs:
            return None
        return SOURCES[0] if self.regions is None else self.regions

    @property
    def regions_file(self) -> str | None:
        """The raster of regions, if they come from one."""
        return None if self.regions_from in (None, *SOURCES) else self.regions_from

    @property
    def sam_name(self) -> str | None:
        """The Segment Anything that is needed, if any is."""
        method = card(self.method)
        used = "sam" in method.needs or self.regions_from == SOURCES[0]
        return (self.sam or method.sam) if used else None


def settings_of(arguments: Mapping[str, Any]) -> Settings:
    """The settings among the arguments of `segment`; None is the default of each."""
    given = {each.name: arguments.get(each.name) for each in fields(Settings)}
    return Settings(**{name: value for name, value in given.items() if value is not None})


def check_settings(settings: Settings) -> None:
    """Refuse what can be refused before a model is loaded. Raises UsageError."""
    method = card(settings.method)
    read_settings(settings.method, settings.settings)
    if settings.upsample not in UPSAMPLERS:
        learned = [name for name, known in MODELS.items() if known.kind == "upsampler"]
        if settings.upsample.partition("@")[0] not in learned:
            names = ", ".join((*UPSAMPLERS, *learned))
            raise UsageError(f"--upsample {settings.upsample}: choose from {names}; jbu_one@FILE uses weights on disk")
        find_weights(model_card(settings.upsample, "upsampler"))
    templates(settings.templates)
    _check_context(settings, method)
    _check_view(settings)
    if settings.on_error not in ON_ERROR:
        raise UsageError(f"--on-error {settings.on_error}: choose stop or skip")
    if settings.aoi is None and settings.aoi_crs is not None:
        raise UsageError(f"--aoi-crs {settings.aoi_crs} needs --aoi")
    if settings.threshold is not None:
        if not method.confidence:
            able = ", ".join(n for n, c in METHODS.items() if c.confidence)
            raise UsageError(f"{settings.method} has no score between 0 and 1 for --threshold; these have: {able}")
        if not 0 <= settings.threshold <= 1:
            raise UsageError(f"--threshold {settings.threshold:g} must lie between 0 and 1")
    for name in ("tile", "stride", "block", "batch_size", "max_memory"):
        value = getattr(settings, name)
        if value is not None and not (value > 0 and math.isfinite(value)):
            raise UsageError(f"--{name.replace('_', '-')} {value} must be a positive number")


def _check_view(settings: Settings) -> None:
    read_scale(settings.scale)
    if settings.nodata is not None and not math.isfinite(settings.nodata):
        raise UsageError(f"--nodata {settings.nodata} must be a number; NaN is no data anyway")
    if settings.grid not in GRIDS:
        raise UsageError(f"--grid {settings.grid}: choose {' or '.join(GRIDS)}")


def _check_context(settings: Settings, method: MethodCard) -> None:
    """Refuse --vfm, --sam, --regions and --block where a method has no use for them, and models that are not here."""
    if "vfm" not in method.needs and settings.vfm is not None:
        able = ", ".join(n for n, c in METHODS.items() if "vfm" in c.needs)
        raise UsageError(f"{settings.method} uses no vision model for --vfm; these do: {able}")
    if not method.blocks and settings.block is not None:
        able = ", ".join(n for n, c in METHODS.items() if c.blocks)
        raise UsageError(f"{settings.method} sees window by window, so leave --block aside; these see blocks: {able}")
    if method.at_pixels and settings.upsample != "bilinear":
        raise UsageError(
            f"{settings.method} has scores at pixels already, so leave --upsample {settings.upsample} aside"
        )
    own = method.jbu and read_settings(settings.method, settings.settings)["jbu"]
    if own and settings.upsample != "bilinear":
        raise UsageError(
            f"{settings.method} brings its answer to pixels itself; for --upsample {settings.upsample} add "
            "--set jbu=false"
        )
    _check_sam(settings, method)
    if "vfm" in method.needs:
        _check_vfm(settings.vfm or method.vfm, settings.method, method)


def _check_sam(settings: Settings, method: MethodCard) -> None:
    """Refuse --sam and --regions where nothing uses them, and a Segment Anything that is not on this machine."""
    if settings.regions is not None and settings.regions_from is None:
        able = ", ".join(n for n, c in METHODS.items() if "regions" in c.needs)
        raise UsageError(f"{settings.method} has no use for --regions {settings.regions}; these do: {able}")
    of_sam = [f.name for f in method.fields if f.of_sam and f.name in settings.settings]
    if of_sam and settings.regions_from != SOURCES[0]:
        raise UsageError(
            f"--set {of_sam[0]}={settings.settings[of_sam[0]]} is for regions by Segment Anything, and these come from "
            f"{settings.regions_from}"
        )
    if settings.sam_name is not None:
        find_weights(model_card(settings.sam_name, "sam"))
    elif settings.sam is not None:
        able = ", ".join(n for n, c in METHODS.items() if c.sam)
        why = "uses no Segment Anything" if not method.sam else f"takes its regions from {settings.regions_from}"
        raise UsageError(f"{settings.method} {why}, so leave --sam aside; these use it: {able}")


def _check_vfm(name: str, method: str, card: MethodCard) -> None:
    """Refuse a vision model that is not known, not fit, or not on this machine."""
    if name in OWN:
        return
    found = model_card(name, "vfm")
    if found.attention_only and not card.attention:
        raise UsageError(f"--vfm {name} has attention but no features, which {method} needs; choose a DINO model")
    find_weights(found)


def check_shares(shard: tuple[int, int] | None, workers: int = 1) -> None:
    """Refuse shares of a run that there cannot be. Raises UsageError."""
    if workers < 1:
        raise UsageError(f"--workers {workers} must be at least 1")
    if shard is not None and workers > 1:
        raise UsageError("--workers shares a run's parts on one machine, --shard between machines: use one of them")
    if shard is not None and not 1 <= shard[0] <= shard[1]:
        raise UsageError(f"--shard {shard[0]}/{shard[1]}: the first number runs from 1 to the second")
