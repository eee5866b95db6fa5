"""Every choice of a run, once: its meaning, its default, what it may be, and how the command line writes it."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, fields
from functools import cache
from typing import Any

from geoovseg.files import BESIDE
from geoovseg.files import StrPath as StrPath
from geoovseg.methods import METHODS, card, read_settings
from geoovseg.models.card import Kind
from geoovseg.models.cards import DEFAULT_MODEL, MODELS, OWN, SOURCES, ModelCard, model_card
from geoovseg.network import access
from geoovseg.prompts import DEFAULT_TEMPLATES, class_lists, template_lists
from geoovseg.settings.choice import (
    AMOUNT,
    PIXELS,
    PROCESSES,
    Choice,
    bands,
    by_name,
    choice,
    device,
    flag,
    number,
    one_of,
    option_of,
    shard,
    table,
    text,
)
from geoovseg.settings.published import as_published
from geoovseg.settings.watch import Announce as Announce
from geoovseg.settings.watch import Progress as Progress
from geoovseg.settings.watch import Shown as Shown
from geoovseg.settings.watch import Stop as Stop
from geoovseg.settings.watch import Watch as Watch

GRIDS = ("working", "scene")
"""Where outputs lie when a scene is seen at another resolution: there, or on its own pixels."""
UPSAMPLERS = ("bilinear", "guided")
"""Ways from the patch grid to pixels that need no weights; `geoovseg.ops.upsample` has them."""
PRECISIONS = ("auto", "fp32", "bf16", "fp16", "int8")
SPEEDS = ("fast", "normal", "fine")
ON_ERROR = ("stop", "skip")
"""What can be done about windows that cannot be read."""


def _models(kind: str, *others: str) -> Callable[[], list[str]]:
    return lambda: [*others, *(name for name, known in MODELS.items() if known.kind == kind)]


@by_name
@dataclass(frozen=True, kw_only=True)
class Settings:
    """What a user decides about a run: keywords of `segment` and `Segmenter`, options of `geoovseg segment`.

    Values are checked one by one here, and against each other before a run. Raises UsageError.
    """

    vocabulary: StrPath | None = choice(
        None, "What", "A class list instead of -c: a name from `geoovseg vocabulary`, or a file.", names=class_lists
    )
    templates: str = choice(
        DEFAULT_TEMPLATES,
        "What",
        "Sentences around each word: openai-80, openai-7, plain, bare, or a file.",
        names=template_lists,
    )
    background: str = choice("auto", "What", "What is code 0: auto, none, or word+word.")
    threshold: float | None = choice(
        None,
        "What",
        "Pixels with a lower confidence (0 to 1) become code 0; default: none, or the method's.",
        number("lie between 0 and 1", lambda n: 0 <= n <= 1),
    )
    method: str = choice(
        "segearth", "Method", "See `geoovseg methods`.", text, "-m", "--method", names=lambda: [*METHODS]
    )
    model: str = choice(
        DEFAULT_MODEL, "Method", "See `geoovseg models list`; demo needs no download.", names=_models("clip")
    )
    settings: Mapping[str, str | bool | int | float] = choice(
        {}, "Method", "A setting of the method; may be repeated.", table, "--set", metavar="NAME=VALUE"
    )
    as_published: bool = choice(
        False, "Method", "What is not said, as the method's release has it: upsampling, windows, models.", flag
    )
    upsample: str = choice(
        "auto", "Method", "From patches to pixels: guided, bilinear, jbu_one, jbu_stack, or jbu_one@FILE; auto is "
        "guided where the method leaves that open.",
        names=_models("upsampler", "auto", *UPSAMPLERS),
    )  # fmt: skip
    tile: int | None = choice(None, "Method", "Side of a window in pixels; default: as the model was trained.", PIXELS)
    stride: int | None = choice(None, "Method", "Step between windows in pixels; default: half a tile.", PIXELS)
    block: int | None = choice(
        None, "Method", "Side of a block in pixels, for methods that see many windows at once.", PIXELS
    )
    vfm: str | None = choice(
        None, "Method", "Vision model for methods that use one besides CLIP: a name, clip (the model itself) or demo.",
        metavar="NAME", names=_models("vfm", "clip", "demo"),
    )  # fmt: skip
    sam: str | None = choice(
        None, "Method", "Segment Anything for methods that use it: sam_vit_b, sam_vit_l, sam_vit_h, or ARCH@FILE.",
        metavar="NAME", names=_models("sam"),
    )  # fmt: skip
    regions: StrPath | None = choice(
        None, "Method", "Source of regions for methods that use them: sam, felzenszwalb (colours), or a raster of ids.",
        metavar="SOURCE", names=lambda: SOURCES,
    )  # fmt: skip
    bands: tuple[int | str, ...] | None = choice(
        None,
        "Image",
        "Bands to use as red, green and blue, by number or name, as in 3,2,1 or nir,red,green.",
        bands,
        metavar="R,G,B",
    )
    scale: str = choice(
        "auto", "Image", "What is black and white: auto (8-bit as is, else percentiles), dtype, or MIN,MAX.",
        metavar="auto|dtype|MIN,MAX", names=lambda: ("auto", "dtype"),
    )  # fmt: skip
    nodata: float | None = choice(
        None, "Image", "Pixels with this value in all three bands have no data, whatever the file says.",
        number("be a number; NaN is no data anyway", lambda n: True),
    )  # fmt: skip
    gsd: float | None = choice(
        None, "Image", "Metres per pixel at which to see the scene; default: its own.",
        number("be a number of metres", lambda n: 1e-6 <= n <= 1e9), metavar="METRES",
    )  # fmt: skip
    grid: str = choice(
        "working", "Image", "With --gsd, the grid of the outputs: working (that resolution) or scene (the image's).",
        one_of(*GRIDS), names=lambda: GRIDS,
    )  # fmt: skip
    aoi: StrPath | None = choice(
        None, "Place", "Label only inside this area: a polygon file, or W,S,E,N.", metavar="FILE|W,S,E,N"
    )
    aoi_crs: str | None = choice(None, "Place", "Coordinate system of --aoi; default: the file's or the scene's.")
    aoi_layer: str | None = choice(None, "Place", "Layer of the file --aoi; default: its first.", metavar="NAME")
    aoi_where: str | None = choice(
        None, "Place", "Use only those shapes of --aoi for which this holds, as in \"kind = 'park'\".", metavar="SQL"
    )
    crop: bool = choice(False, "Place", "Write only the box around --aoi, not the whole scene.", flag)
    device: str = choice("auto", "Speed and memory", "auto, cpu, cuda, cuda:N or mps.", device)
    precision: str = choice(
        "auto", "Speed and memory", "auto, fp32, bf16, fp16 or int8.", one_of(*PRECISIONS), names=lambda: PRECISIONS
    )
    speed: str = choice(
        "normal", "Speed and memory", "How densely windows lie where --stride does not say: fast is 6/7 of a tile "
        "apart, fine half as far as normal.",
        one_of(*SPEEDS), names=lambda: SPEEDS,
    )  # fmt: skip
    batch_size: int | None = choice(
        None, "Speed and memory", "Windows processed together; on a CPU it does not change any result.", PIXELS
    )
    max_memory: float | None = choice(
        None, "Speed and memory", "MB for the blend; default: a quarter of the memory.", AMOUNT
    )
    workers: int = choice(
        1, "Speed and memory", "Processes on this machine that share the work: one a GPU, or sharing the cores.",
        PROCESSES,
    )  # fmt: skip
    ray: str | None = choice(
        None, "Speed and memory", "Share the work by Ray, with all that a cluster has or so many --workers: local, "
        "auto (the cluster of this machine), or an address as ray://host:10001.",
        metavar="ADDRESS", names=lambda: ("local", "auto"),
    )  # fmt: skip
    worker_cpus: int | None = choice(
        None, "Speed and memory", "Cores of a worker of --ray; default: up to 4, of the smallest machine.", PROCESSES
    )
    resume: bool = choice(False, "Run", "Continue a run that did not finish.", flag)
    skip_finished: bool = choice(
        False, "Run", "Take scenes whose outputs are there, made with the same settings, as done.", flag
    )
    overwrite: bool = choice(
        False, "Run", "Replace existing outputs, and discard the parts of an unfinished run.", flag
    )
    shard: tuple[int, int] | None = choice(
        None, "Run", "Compute share I of N only, or slurm; then run `geoovseg merge`.", shard, metavar="I/N"
    )
    on_error: str = choice(
        "stop", "Run", "What to do about windows that cannot be read: stop, or skip them (exit code 3).",
        one_of(*ON_ERROR), names=lambda: ON_ERROR,
    )  # fmt: skip
    work_dir: StrPath | None = choice(None, "Run", "Folder for the parts; default: beside the labels.")
    model_dir: StrPath | None = choice(
        None, "Run", "Folder of weights made by `models fetch --bundle`; also GEOOVSEG_MODEL_DIR."
    )
    offline: bool = choice(False, "Run", "Never open a connection; also GEOOVSEG_OFFLINE=1.", flag)
    output: StrPath | None = choice(
        None, "Output", "Label raster (.tif) or folder; default: <scene>_labels.tif.", text, "-o", "--output"
    )
    features: StrPath | None = choice(
        None, "Output", "Also keep the features, as encode does, or take them if they are there: a .zarr, a folder, or "
        "alone for <scene>_features.zarr.", metavar="[STORE|DIR]", bare=BESIDE,
    )  # fmt: skip
    vectors: StrPath | None = choice(
        None, "Output", "Also make polygons, as vectorize does: a file, a folder, or alone for <scene>_classes.gpkg.",
        metavar="[FILE|DIR]", bare=BESIDE,
    )  # fmt: skip
    confidence: StrPath | None = choice(
        None, "Output", "Also write confidence (0..1): a .tif, a folder, or alone for <scene>_confidence.tif.",
        metavar="[FILE|DIR]", bare=BESIDE,
    )  # fmt: skip
    scores: StrPath | None = choice(
        None, "Output", "Also write the score of every class (0..1), a band each: a .tif, a folder, or alone for "
        "<scene>_scores.tif.", metavar="[FILE|DIR]", bare=BESIDE,
    )  # fmt: skip

    def __post_init__(self) -> None:
        for name, known in choices().items():
            value = getattr(self, name)
            kept = known.default if value is None else known.check(option_of(name), value)
            object.__setattr__(self, name, kept)
        usual = {name: known.default for name, known in choices().items()}
        if self.as_published:
            self._choose(as_published(self.method, vars(self), usual))
        if self.method != usual["method"] and self.method in METHODS:
            own = card(self.method).own.items()
            self._choose({name: value for name, value in own if getattr(self, name) == usual[name]})

    def _choose(self, given: Mapping[str, Any]) -> None:
        """Make choices that a user left open."""
        for name, value in given.items():
            object.__setattr__(self, name, value)

    @property
    def rasters(self) -> dict[str, Any]:
        """What to write, and where."""
        names = ("output", "confidence", "work_dir", "scores")
        return {name: getattr(self, name) for name in names}

    @property
    def view(self) -> dict[str, Any]:
        """How a scene is to be opened."""
        own = {name: getattr(self, name) for name in ("bands", "scale", "gsd", "grid", "nodata")}
        return {**own, "regions": self.regions_file}

    @property
    def brings_pixels(self) -> bool:
        """Whether the method, as it is set, brings its answer to pixels itself."""
        method = card(self.method)
        return bool(method.at_pixels or (method.jbu and read_settings(self.method, self.settings)["jbu"]))

    @property
    def upsampled_by(self) -> str:
        """How scores get to pixels, where that was left open."""
        if self.upsample != "auto":
            return self.upsample
        return "bilinear" if self.brings_pixels else "guided"

    @property
    def goes_on(self) -> bool:
        """Whether outputs that are there already may be what is wanted."""
        return self.resume or self.skip_finished

    @property
    def regions_from(self) -> str | None:
        """Where region maps come from, if the method uses them: `sam` unless told otherwise."""
        if "regions" not in card(self.method).needs:
            return None
        return SOURCES[0] if self.regions is None else os.fspath(self.regions)

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

    @property
    def weights(self) -> tuple[ModelCard, ...]:
        """All weights that are needed. Raises ModelError for models there are none of."""
        method = card(self.method)
        names: list[tuple[str | None, Kind]] = [(self.model, "clip"), (self.sam_name, "sam")]
        names.append((self.vfm or method.vfm if "vfm" in method.needs else None, "vfm"))
        names.append((None if self.upsampled_by in UPSAMPLERS else self.upsampled_by, "upsampler"))
        wanted = ((name, kind) for name, kind in names if name and not (kind == "vfm" and name in OWN))
        return tuple(model_card(name, kind) for name, kind in wanted)

    @contextmanager
    def access(self) -> Iterator[None]:
        """In here, network and weights are as these settings say."""
        with access(offline=self.offline, model_dir=None if self.model_dir is None else os.fspath(self.model_dir)):
            yield


@cache
def choices() -> dict[str, Choice]:
    """What is said of every choice, by its name."""
    return {each.name: each.metadata["choice"] for each in fields(Settings)}
