"""Choices that cannot work together, or not on this machine: refused before anything is loaded."""

from __future__ import annotations

import math
import os
import shutil
import warnings
from collections import Counter
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

from geoovseg.errors import GeoOVSegWarning, UsageError, some
from geoovseg.labels.names import Outputs
from geoovseg.methods import METHODS, MethodCard, card, read_settings
from geoovseg.models.cards import MODELS, OWN, SOURCES, model_card
from geoovseg.models.weights import check_weights
from geoovseg.prompts import templates
from geoovseg.run.layout import cell_of
from geoovseg.run.timings import known_timings
from geoovseg.scene.intensity import read_scale
from geoovseg.settings import UPSAMPLERS, Settings
from geoovseg.windows.plan import plan_tiles

SHRUNK, SHRUNK_CONFIDENCE = 0.08, 0.25
"""Bytes that a pixel of labels, and of confidence, takes in a file, as measured on drawn scenes."""


def check_models(settings: Settings) -> None:
    """Refuse models that are not on this machine. Raises WeightsMissingError."""
    check_weights(settings.weights)


def check_settings(settings: Settings) -> None:
    """Refuse what can be refused before a model is looked for. Raises UsageError."""
    method = card(settings.method)
    read_settings(settings.method, settings.settings)
    if settings.upsampled_by not in UPSAMPLERS:
        learned = [name for name, known in MODELS.items() if known.kind == "upsampler"]
        if settings.upsample.partition("@")[0] not in learned:
            names = ", ".join(("auto", *UPSAMPLERS, *learned))
            raise UsageError(f"--upsample {settings.upsample}: choose from {names}; jbu_one@FILE uses weights on disk")
    templates(settings.templates)
    if (tower := model_card(settings.model).tower) not in method.towers:
        able = some([name for name, each in METHODS.items() if tower in each.towers])
        other = "" if "clip" in method.towers else f"; leave --model aside for {method.own['model']}"
        raise UsageError(
            f"--model {settings.model} has a tower that -m {settings.method} cannot read; these methods can: {able}"
            f"{other}"
        )
    _check_context(settings, method)
    read_scale(settings.scale)
    if settings.aoi is None and settings.crop:
        raise UsageError("--crop writes the box around an area: add --aoi")
    for name in ("aoi_crs", "aoi_layer", "aoi_where"):
        if settings.aoi is None and (value := getattr(settings, name)) is not None:
            raise UsageError(f"--{name.replace('_', '-')} {value} needs --aoi")
    if settings.threshold is not None and not method.confidence:
        able = ", ".join(n for n, c in METHODS.items() if c.confidence)
        raise UsageError(f"{settings.method} has no score from 0 to 1 for --threshold; these methods do: {able}")
    _check_sharing(settings)


def check_kept(settings: Settings) -> None:
    """Refuse to keep features of a method that says why it has none, and on another grid. Raises UsageError."""
    if settings.grid == "scene" and settings.gsd is not None:
        raise UsageError("--grid scene: features are kept on the grid that models see, that of --gsd; leave it away")
    if why := card(settings.method).not_kept:
        raise UsageError(f"{settings.method} has no features to keep: {why}")


def check_kept_on_the_way(settings: Settings) -> None:
    """The same of features that are kept while a scene is segmented, and of parts of it. Raises UsageError."""
    if settings.shard is not None:
        raise UsageError("--features keeps all of a scene: use geoovseg encode with --shard, then merge, then segment")
    check_kept(replace(settings, grid="working"))


def _check_sharing(settings: Settings) -> None:
    """Refuse two ways at once of sharing work. Raises UsageError."""
    if settings.ray is not None and settings.shard is not None:
        raise UsageError(
            "--ray shares a run's parts on a cluster, --shard between machines without one: use one of them"
        )
    if settings.worker_cpus is not None and settings.ray is None:
        raise UsageError(f"--worker-cpus {settings.worker_cpus} is for workers of --ray")
    if settings.shard is not None and settings.workers > 1:
        raise UsageError("--workers shares a run's parts on one machine, --shard between machines: use one of them")


def _check_context(settings: Settings, method: MethodCard) -> None:
    """Refuse --vfm, --sam, --regions and --block where a method has no use for them, and models that are not here."""
    if "vfm" not in method.needs and settings.vfm is not None:
        able = ", ".join(n for n, c in METHODS.items() if "vfm" in c.needs)
        raise UsageError(f"{settings.method} uses no vision model for --vfm; these do: {able}")
    if method.blocks and settings.speed != "normal":
        able = ", ".join(n for n, c in METHODS.items() if not c.blocks)
        raise UsageError(
            f"--speed {settings.speed} is for methods that see window by window; {settings.method} sees blocks; "
            f"these do not: {able}"
        )
    if settings.speed != "normal" and settings.stride is not None:
        by = "--as-published has" if settings.as_published else "there is"
        raise UsageError(f"{by} --stride {settings.stride}, so leave --speed {settings.speed} aside")
    if not method.blocks and settings.block is not None:
        able = ", ".join(n for n, c in METHODS.items() if c.blocks)
        raise UsageError(f"{settings.method} sees window by window, so leave --block aside; these see blocks: {able}")
    check_upsample(settings)
    _check_sam(settings, method)
    if "vfm" in method.needs:
        _check_vfm(settings.vfm or method.vfm, settings.method, method)


def check_upsample(settings: Settings) -> None:
    """Refuse --upsample of a method that brings its answer to pixels itself. Raises UsageError."""
    if card(settings.method).at_pixels and settings.upsampled_by != "bilinear":
        raise UsageError(
            f"{settings.method} has scores at pixels already, so leave --upsample {settings.upsample} aside"
        )
    if settings.brings_pixels and settings.upsampled_by != "bilinear":
        raise UsageError(
            f"{settings.method} brings its answer to pixels itself; for --upsample {settings.upsample} add "
            "--set jbu=false"
        )


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
        model_card(settings.sam_name, "sam")
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


def check_windows(settings: Settings) -> None:
    """Refuse windows that do not fit the model, where an earlier run told what it sees. Raises UsageError."""
    if (settings.tile is None and settings.stride is None) or card(settings.method).blocks:
        return
    known = known_timings(replace(settings, tile=None, stride=None))
    if known is not None:
        tile = settings.tile or known.needs.tile
        cell = cell_of(settings, known.needs)
        patch = math.lcm(known.needs.patch, cell or 1)
        stride = settings.stride or (patch if cell else 1)
        plan_tiles(tile, tile, tile=tile, stride=stride, patch=patch, aligned=bool(cell))


def space_of(outputs: Outputs, shape: tuple[int, int]) -> int:
    """Bytes that rasters may take: an estimate, by how well they shrink."""
    return int(shape[0] * shape[1] * (SHRUNK if outputs.confidence is None else SHRUNK + SHRUNK_CONFIDENCE))


def warn_of_space(files: Mapping[Path, int]) -> None:
    """Warn where what is to be written, so many bytes each, may not find room on its disk."""
    needs: Counter[Path] = Counter()
    for file, size in files.items():
        needs[_mount(file.parent)] += size
    for place, need in needs.items():
        free = shutil.disk_usage(place).free
        if free < need:
            message = (
                f"about {need / 1e6:.0f} MB may be needed on the disk of {place}, and {free / 1e6:.0f} MB are free; if "
                "it fills up, make room and use --resume"
            )
            warnings.warn(message, GeoOVSegWarning, 3)


def _mount(folder: Path) -> Path:
    """The folder a disk begins with."""
    place = folder.resolve()
    return next((parent for parent in (place, *place.parents) if os.path.ismount(parent)), place)
