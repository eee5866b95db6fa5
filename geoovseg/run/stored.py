"""Features that were kept, as a scene that is asked words: what segmenting them needs to know, and their rows."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Any, cast
from xml.etree.ElementTree import Element, SubElement, tostring

from rasterio.errors import NotGeoreferencedWarning

from geoovseg.errors import UsageError, hushed
from geoovseg.features.store import About, FeatureStore, about_of
from geoovseg.files import is_store
from geoovseg.rasters.open import native, plain_open, raster_env
from geoovseg.run.layout import Layout, Needs, TileBytes
from geoovseg.scene.area import Area
from geoovseg.scene.scene import Scene, open_scene
from geoovseg.settings import Settings
from geoovseg.vocabulary import Vocabulary
from geoovseg.windows.memory import Load
from geoovseg.windows.plan import TilePlan

ABOVE = (
    "method", "model", "tile", "stride", "block", "vfm", "sam", "regions", "bands", "scale", "nodata", "gsd", "grid",
    "precision",
)  # fmt: skip
"""Settings that decided the features."""
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

    @property
    def is_demo(self) -> bool:
        """Whether a drawn demo scene was encoded."""
        return self.store.about.is_demo

    def measured(self, *, lenient: bool = False, check: Callable[[], None] = lambda: None) -> Scene:
        """Itself: pixels were measured when they were encoded."""
        return self


@contextmanager
def open_stored(path: str) -> Iterator[StoredScene]:
    """Open a store as a scene. Raises SceneError."""
    store = FeatureStore(path)
    seen = cast("Any", SeenAs(None if (ends := store.about.record.get("scale")) is None else tuple(ends)))
    bands: Any = tuple(store.about.record.get("bands", (1, 2, 3)))
    with raster_env(), hushed(NotGeoreferencedWarning), plain_open(_grid_of(store.about)) as src, native():
        nothing = cast("Any", None)
        yield StoredScene(
            src=src, path=path, files=store.files, bands=bands, intensity=seen, validity=nothing, store=store
        )


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
    about = about_of(Path(path))
    were = _were(about)
    usual = {field.name: field.default for field in fields(Settings)}
    for name in ABOVE:
        given = getattr(settings, name)
        if given not in (usual[name], were[name]):
            raise UsageError(
                f"--{name.replace('_', '-')} {given}: the features in {path} were made with {were[name]}; encode the "
                "scene anew, or leave it away"
            )
    for name, value in settings.settings.items():
        if name not in BELOW and str(value).lower() != str(about.record["settings"].get(name)).lower():
            raise UsageError(f"--set {name}={value}: the features in {path} were made otherwise; encode the scene anew")
    if settings.upsample != "bilinear":
        raise UsageError(f"--upsample {settings.upsample} looks at pixels, which {path} does not hold; leave it away")
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
        "block": side if said["windows_of_blocks"] else None,
        "regions": said["regions"],
        "bands": tuple(said["bands"]),
        "scale": "auto",
        "grid": "working",
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
            with open_stored(path) as kept:
                yield kept
        else:
            with open_scene(path, **settings.view) as scene, native():
                yield scene


def lay_out_stored(
    scene: StoredScene, settings: Settings, words: Vocabulary, needs: Needs, area: Area | None
) -> Layout:
    """Panels of kept features within the memory there is."""
    plan, channels = plan_of(scene.store.about), len(words.groups)
    load = Load(plan, channels, channels, 0, 0.0, needs.cell, needs.depth)
    panels = plan.panels(load.panel_width(needs.memory, settings.max_memory))
    return Layout(
        needs=needs, plan=plan, tile=plan.tile, load=load, tile_bytes=TileBytes(0.0, 0.0), panels=panels, area=area,
        cell=needs.cell,
    )  # fmt: skip
