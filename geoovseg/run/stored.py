"""Features that were kept, as a scene that is asked words: what segmenting them needs to know, and their rows."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, fields, replace
from typing import Any, cast
from xml.etree.ElementTree import Element, SubElement, tostring

from geoovseg.errors import SceneError, UsageError, first_line
from geoovseg.features.store import About, FeatureStore, about_of
from geoovseg.files import is_store
from geoovseg.methods import card, read_settings
from geoovseg.rasters.open import native, plain_open, raster_env
from geoovseg.run.checks import check_upsample
from geoovseg.run.job import known_by
from geoovseg.run.layout import Layout, Needs, TileBytes, on_the_grid, reach_of, shares_held, votes_of
from geoovseg.scene.area import Area
from geoovseg.scene.scene import Scene, open_scene
from geoovseg.settings import UPSAMPLERS, Settings
from geoovseg.vocabulary import Vocabulary
from geoovseg.windows.memory import CPU_BATCH, Load
from geoovseg.windows.plan import TilePlan

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
"""Settings of all methods that do not."""


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
        if known_by(scene)[2] != (about.source_identity or said["scene_identity"]):
            raise UsageError(f"{name} is not the scene that {store.path} was made of, or has changed since; {hint}")
        low, high = sorted(said["scale"])
        yield replace(scene, intensity=replace(scene.intensity, limits=(low, high)))


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
    below = below_of(about.record["method"] if about.regions else None)
    for name, value in settings.settings.items():
        if name not in below and str(value).lower() != str(about.record["settings"].get(name)).lower():
            raise UsageError(f"--set {name}={value}: the features in {path} were made otherwise; encode the scene anew")
    if settings.upsampled_by not in UPSAMPLERS:
        raise UsageError(
            f"--upsample {settings.upsampled_by} sees through the model, which is not asked again; leave it away"
        )
    asked = {name: value for name, value in settings.settings.items() if name in below}
    found = replace(settings, **{**were, "settings": {**about.record["settings"], **asked}})
    check_upsample(found)
    return found


def below_of(method: str | None) -> tuple[str, ...]:
    """Settings that do not decide features; of a method whose regions are kept, also whether they vote."""
    return (*BELOW, *([card(method).votes or ""] if method else []))


def unsaid(settings: Settings) -> dict[str, Any]:
    """Settings that decide features as if nobody had said anything, for a store that was made by them."""
    usual: dict[str, Any] = {field.name: field.default for field in fields(Settings) if field.name in ABOVE}
    chosen = read_settings(settings.method, settings.settings)
    return {**usual, "settings": {name: chosen[name] for name in below_of(settings.method) if name in chosen}}


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
        by_word=False, memory=memory, cell=said.cell, depth=said.depth, reach=reach_of(settings), regions=said.regions,
    )  # fmt: skip


def lay_out_stored(
    scene: StoredScene, settings: Settings, words: Vocabulary, needs: Needs, area: Area | None
) -> Layout:
    """Panels of kept features within the memory there is."""
    plan, channels = plan_of(scene.store.about), len(words.groups)
    scored, votes = channels if settings.scores else 0, votes_of(settings, needs)
    load = Load(
        plan, channels, channels, 0, 0.0, needs.cell, needs.depth, needs.reach, scored, needs.regions,
        shares_held(scene, votes, channels, scored), scene.outputs.shape[1] / scene.shape[1],
    )  # fmt: skip
    return Layout(
        needs=needs, plan=plan, load=load, tile_bytes=TileBytes(0.0, 0.0), area=area, cell=needs.cell, votes=votes,
        **on_the_grid(scene, load.panel_width(needs.memory, settings.max_memory)),
    )  # fmt: skip
