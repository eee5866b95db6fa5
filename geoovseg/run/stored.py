"""Features that were kept, as a scene that is asked words: what segmenting them needs to know, and their rows."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, fields, replace
from typing import TYPE_CHECKING, Any, cast
from xml.etree.ElementTree import Element, SubElement, tostring

from numpy.typing import NDArray
from rasterio.windows import Window

from geoovseg.errors import GeoOVSegWarning, SceneError, UsageError, first_line
from geoovseg.features.store import About, FeatureStore, about_of
from geoovseg.files import is_store
from geoovseg.rasters.open import native, plain_open, raster_env
from geoovseg.run.job import Job, known_by
from geoovseg.run.layout import Layout, Needs, TileBytes, on_the_grid, reach_of
from geoovseg.scene.area import Area
from geoovseg.scene.renewed import Renewed
from geoovseg.scene.scene import Scene, open_scene
from geoovseg.settings import UPSAMPLERS, Settings
from geoovseg.vocabulary import Vocabulary
from geoovseg.windows.memory import CPU_BATCH, Load
from geoovseg.windows.plan import Panel, Span, TilePlan
from geoovseg.windows.resample import Resampled

if TYPE_CHECKING:
    from geoovseg.features.picture import Read

ABOVE = (
    "method", "model", "tile", "stride", "speed", "block", "vfm", "sam", "regions", "bands", "scale", "nodata", "gsd",
    "precision",
)  # fmt: skip
"""Settings that decided the features."""
LOOKS = {
    "working": ("guided looks at the colours of the scene", "add --upsample bilinear"),
    "scene": ("--grid scene looks at where the scene has data", "leave it away and add --upsample bilinear"),
}
"""Why the scene is needed, by the grid of the outputs, and how to do without."""
BELOW = ("scale",)
"""Settings of methods that do not."""


@dataclass(frozen=True)
class SeenAs:
    """How pixels were seen when they were encoded."""

    ends: tuple[float, float] | None


@dataclass(frozen=True, kw_only=True)
class StoredScene(Scene):
    """Kept features: a grid without pixels."""

    store: FeatureStore
    source: Scene | None = None
    """the scene that was encoded, where that is to be looked at"""

    @property
    def is_demo(self) -> bool:
        """Whether a drawn demo scene was encoded."""
        return self.store.about.is_demo

    def measured(self, *, lenient: bool = False, check: Callable[[], None] = lambda: None) -> Scene:
        """Itself: pixels were measured when they were encoded."""
        return self


@contextmanager
def open_stored(path: str, settings: Settings) -> Iterator[StoredScene]:
    """Open a store as a scene. Raises SceneError; UsageError where its pixels are to be looked at, and cannot be."""
    store = FeatureStore(path)
    seen = cast("Any", SeenAs(None if (ends := store.about.record.get("scale")) is None else tuple(ends)))
    bands: Any = tuple(store.about.record.get("bands", (1, 2, 3)))
    with raster_env(), plain_open(_grid_of(store.about)) as src, native():
        nothing = cast("Any", None)
        kept = StoredScene(
            src=src, path=path, files=store.files, bands=bands, intensity=seen, validity=nothing, store=store
        )
        own = settings.grid == "scene" and store.about.record["gsd"] is not None
        if settings.upsampled_by == "bilinear" and not own:
            yield kept
        else:
            with source_of(store, settings.grid) as source:
                yield replace(kept, source=source, native=source.native)


@contextmanager
def source_of(store: FeatureStore, grid: str = "working") -> Iterator[Scene]:
    """The scene that was encoded, seen as it was then. Raises UsageError where it is gone, or another one by now."""
    said, about = store.about.record, store.about
    why, hint = LOOKS[grid if said["gsd"] is not None else "working"]
    hint = f"{hint}, or encode the scene anew"
    name = about.scene_of(store.path)
    if name is None:
        raise UsageError(f"{store.path} does not say where its scene is, and {why}; {hint}")
    own = {"bands": said["bands"], "gsd": said["gsd"], "nodata": said["nodata"]}
    with ExitStack() as stack:
        try:
            scene = stack.enter_context(open_scene(name, scale=about.source_scale, grid=grid, **own))
        except SceneError as error:
            raise UsageError(f"{first_line(error)}; {why} of {store.path}: {hint}") from error
        if known_by(scene)[2] != said["scene_identity"]:
            raise UsageError(f"{name} is not the scene that {store.path} was made of, or has changed since; {hint}")
        low, high = sorted(said["scale"])
        yield replace(scene, intensity=replace(scene.intensity, limits=(low, high)))


@contextmanager
def picture_of(scene: Scene, job: Job) -> Iterator[Read | None]:
    """What reads a scene for scores that follow its colours, if they do; what may be skipped has no data."""
    source = scene.source if isinstance(scene, StoredScene) else scene
    if source is None or job.settings.upsampled_by != "guided" or not job.layout.cell:
        yield None
        return
    skip = job.settings.on_error == "skip"
    with source.afresh() as own, Renewed(own) as steady:  # not the one that another thread reads

        def read(window: Window) -> tuple[NDArray[Any], NDArray[Any]]:
            try:
                return steady.read(lambda now: now.read(window))
            except SceneError:
                if not skip:
                    raise
            if isinstance(scene, StoredScene):
                text = f"parts of {source.path} cannot be read; there labels do not follow its colours"
                warnings.warn(text, GeoOVSegWarning, 2)
            return steady.in_pieces(window)

        yield read


@contextmanager
def resampled(scene: Scene, job: Job, panel: Panel, span: Span, device: Any) -> Iterator[Resampled | None]:
    """What brings rows to the scene's own grid, where outputs are to lie there; what may be skipped has no data."""
    if scene.native is None or job.layout.native is None:
        yield None
        return
    skip = job.settings.on_error == "skip"
    with scene.native.afresh() as own, Renewed(own) as steady:

        def mask(window: Window) -> NDArray[Any]:
            try:
                return steady.read(lambda now: now.valid(window))
            except SceneError:
                if not skip:
                    raise
            return steady.in_pieces(window)[1]

        yield Resampled(job.layout.native, panel, span, mask, device)


def _grid_of(about: About) -> str:
    """The grid of a store as a VRT without content."""
    root = Element("VRTDataset", rasterXSize=str(about.width), rasterYSize=str(about.height))
    a, b, c, d, e, f = about.transform
    if about.crs is not None:
        SubElement(root, "SRS").text = about.crs
    if about.transform != (1, 0, 0, 0, 1, 0):
        SubElement(root, "GeoTransform").text = ", ".join(map(repr, (c, a, b, f, d, e)))
    SubElement(root, "VRTRasterBand", dataType="Byte", band="1")
    return tostring(root, encoding="unicode")


def as_encoded(settings: Settings, path: str) -> Settings:
    """Settings for a store: those that decided its features are as they were.

    Raises UsageError for others, SceneError for what is no store.
    """
    about = about_of(path)
    were = _were(about)
    usual = {field.name: field.default for field in fields(Settings)}
    for name in ABOVE:
        given = getattr(settings, name)
        if given not in (usual[name], were[name]):
            how = "are of windows {} pixels apart" if name == "speed" else "were made with {}"
            had = how.format(were["stride" if name == "speed" else name])
            option = f"--{name.replace('_', '-')} {given}"
            raise UsageError(f"{option}: the features in {path} {had}; encode the scene anew, or leave it away")
    for name, value in settings.settings.items():
        if name not in BELOW and str(value).lower() != str(about.record["settings"].get(name)).lower():
            raise UsageError(f"--set {name}={value}: the features in {path} were made otherwise; encode the scene anew")
    if settings.upsampled_by not in UPSAMPLERS:
        raise UsageError(
            f"--upsample {settings.upsampled_by} sees through the model, which is not asked again; leave it away"
        )
    below = {name: value for name, value in settings.settings.items() if name in BELOW}
    return replace(settings, **{**were, "settings": {**about.record["settings"], **below}})


def unsaid(settings: Settings) -> dict[str, Any]:
    """Settings that decide features as if nobody had said anything, for a store that was made by them."""
    usual: dict[str, Any] = {field.name: field.default for field in fields(Settings) if field.name in ABOVE}
    return {**usual, "settings": {name: value for name, value in settings.settings.items() if name in BELOW}}


def _were(about: About) -> dict[str, Any]:
    """Settings as they were when a scene was encoded."""
    said, side = about.record, max(about.record["tile"])
    tile, stride = said["windows_of_blocks"] or (side, said["stride"])
    return {
        **{name: said[name] for name in ("method", "model", "vfm", "sam", "nodata", "gsd", "precision")},
        "tile": tile,
        "stride": stride,
        "speed": "normal",
        "block": side if said["windows_of_blocks"] else None,
        "regions": said["regions"],
        "bands": tuple(said["bands"]),
        "scale": "auto",
    }


def plan_of(about: About) -> TilePlan:
    """The windows that features were made of."""
    rows, cols = about.record["tile"]
    stride = about.record["stride"]
    return TilePlan(height=about.height, width=about.width, tile=(rows, cols), stride=stride, unit=about.unit)


@contextmanager
def opened(path: str, settings: Settings) -> Iterator[Scene]:
    """A scene as settings say, or kept features as one. Raises what opening them raises."""
    with settings.access():
        if is_store(path):
            with open_stored(path, settings) as kept:
                yield kept
        else:
            with open_scene(path, **settings.view) as scene, native():
                yield scene


def needs_of(said: About, settings: Settings, memory: int) -> Needs:
    """What asking kept features asks for, with so many bytes of memory."""
    record = said.record
    return Needs(
        tile=max(record["tile"]), stride=record["stride"], patch=said.unit, least=0, micro_batch=CPU_BATCH,
        by_word=False, memory=memory, cell=said.cell, depth=said.depth, reach=reach_of(settings),
    )  # fmt: skip


def lay_out_stored(
    scene: StoredScene, settings: Settings, words: Vocabulary, needs: Needs, area: Area | None
) -> Layout:
    """Panels of kept features within the memory there is."""
    plan, channels = plan_of(scene.store.about), len(words.groups)
    scored = channels if settings.scores else 0
    load = Load(plan, channels, channels, 0, 0.0, needs.cell, needs.depth, needs.reach, scored)
    return Layout(
        needs=needs, plan=plan, load=load, tile_bytes=TileBytes(0.0, 0.0), area=area, cell=needs.cell,
        **on_the_grid(scene, load.panel_width(needs.memory, settings.max_memory)),
    )  # fmt: skip
