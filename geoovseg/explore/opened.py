"""What is looked at: rasters and stores that were named, which belong together, on one grid."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

from affine import Affine
from rasterio.crs import CRS
from rasterio.windows import Window

from geoovseg.errors import GeoOVSegError, UsageError, first_line
from geoovseg.features.store import FeatureStore
from geoovseg.files import is_store
from geoovseg.labels.areas import HECTARE
from geoovseg.labels.contents import Counts, classes_of
from geoovseg.labels.read import open_labels
from geoovseg.labels.record import RUN_TAG, RunRecord
from geoovseg.labels.styles import LegendEntry
from geoovseg.rasters.ground import RasterGrid, areas_of, ellipsoid_of
from geoovseg.rasters.open import opened as opened_raster
from geoovseg.run.feature_run import feature_names
from geoovseg.run.places import crs_of
from geoovseg.run.stored import source_of
from geoovseg.scene.scene import Scene, open_scene
from geoovseg.scene.views import metres_per_pixel

NEAR = 0.01
"""Pixels that corners of the same grid may lie apart, as files round them."""


@dataclass(frozen=True, kw_only=True)
class Opened:
    """A scene, labels and kept features, as many of them as there are, on one grid."""

    title: str
    grid: RasterGrid
    scene: Scene | None = None
    labels: Any = None
    legend: tuple[LegendEntry, ...] = ()
    counts: Counts | None = None
    store: FeatureStore | None = None
    metres: float | None = None
    """on a side of a pixel, if it is known"""
    notes: tuple[str, ...] = ()
    """what a person should know of them"""

    @property
    def crs_name(self) -> str | None:
        """Of the coordinate system, as people call it."""
        return None if self.grid.crs is None else name_of(self.grid.crs)

    def legend_as_said(self) -> list[dict[str, Any]]:
        """Classes of the labels with shares and hectares."""
        if self.counts is None:
            return []
        found = []
        for entry in self.legend:
            said: dict[str, Any] = {"code": entry.code, "name": entry.name}
            said["colour"] = entry.colour if entry.code else None
            said["share"] = self.counts.share(entry.code)
            if self.counts.area_m2:
                said["hectares"] = round(self.counts.area_m2.get(entry.code, 0.0) / HECTARE, 4)
            found.append(said)
        return found

    def write_places(self, path: Path, places: Sequence[tuple[float, float]]) -> None:
        """Pixels (column, row) as points in the scene's coordinates."""
        import geopandas
        import shapely

        points = [shapely.Point(self.grid.transform * place) for place in places]
        geopandas.GeoDataFrame(geometry=points, crs=self.grid.crs).to_file(path, driver="GPKG")


def name_of(crs: CRS) -> str:
    """`EPSG:32632` where it has a number, else the name in its text."""
    number = crs.to_epsg()
    return f"EPSG:{number}" if number else crs.to_wkt().partition('"')[2].partition('"')[0]


@contextmanager
def opened(paths: Sequence[str], *, bands: Sequence[int | str] | None = None, scale: str = "auto") -> Iterator[Opened]:
    """Open what is named: scenes, label rasters, stores of features, at most one of each, in any order.

    What belongs to a store or to labels and is where it was is opened too. `bands` and `scale` are the scene's, as for
    `segment`. Raises SceneError for what cannot be read,
    UsageError for two of a kind, and for what lies on different grids.
    """
    with ExitStack() as stack:
        found, view = kinds_of(paths), {"bands": bands, "scale": scale}
        whole = _store(stack, found["features"]) if "features" in found else None
        if "labels" in found:
            whole = _labels(stack, found["labels"], whole, view)
        if "scene" in found:
            whole = _scene(stack, found["scene"], whole, view)
        assert whole is not None  # at least one path is given
        yield whole


def kinds_of(paths: Sequence[str]) -> dict[str, str]:
    """Paths by what they are. Raises UsageError for two of a kind."""
    found: dict[str, str] = {}
    for path in paths:
        kind = "features" if is_store(path) else "labels" if _is_labels(path) else "scene"
        if kind in found:
            raise UsageError(f"{found[kind]} and {path} are both {kind}: look at one of them at a time")
        found[kind] = path
    return found


def _is_labels(path: str) -> bool:
    with opened_raster(path, path) as src:
        return RUN_TAG in src.tags() and src.count == 1


def _store(stack: ExitStack, path: str) -> Opened:
    """Kept features, with their scene where it is as it was."""
    store = FeatureStore(path)
    about = store.about
    grid = RasterGrid(height=about.height, width=about.width, crs=crs_of(about), transform=Affine(*about.transform))
    notes = ("regions vote for their classes when labels are written, not on this map",) if about.regions else ()
    found = Opened(
        title=os.path.basename(path.rstrip("/")), grid=grid, store=store, metres=_metres(grid), notes=notes
    )  # fmt: skip
    try:
        scene = stack.enter_context(source_of(store))
    except GeoOVSegError as error:
        return replace(found, notes=(*notes, f"the scene is not shown: {first_line(error)}"))
    return replace(found, scene=scene.measured())


def _labels(stack: ExitStack, path: str, other: Opened | None, view: Mapping[str, Any]) -> Opened:
    """Labels, with what stands beside them: the scene by the name that their record says."""
    src = stack.enter_context(open_labels(path))
    grid = RasterGrid(height=src.height, width=src.width, crs=src.crs, transform=src.transform)
    if other is not None:
        _check_same(other.grid, grid, path)
    entries, counts = classes_of(src, _areas(grid))
    base = other or Opened(title=os.path.basename(path), grid=grid, metres=_metres(grid))
    found = replace(base, labels=src, legend=tuple(entries), counts=counts)
    if found.scene is None and other is None:
        return _with_its_scene(stack, found, path, src, view)
    return found


def _with_its_scene(stack: ExitStack, found: Opened, path: str, src: Any, view: Mapping[str, Any]) -> Opened:
    with suppress(GeoOVSegError, KeyError):
        name = RunRecord.from_json(src.tags()[RUN_TAG], path).scene
        beside = os.path.join(os.path.dirname(path), name)
        if os.path.isfile(beside):
            return _scene(stack, beside, found, view)
    return replace(found, notes=(*found.notes, "the scene is not shown: name it on the command line"))


def _scene(stack: ExitStack, path: str, other: Opened | None, view: Mapping[str, Any]) -> Opened:
    """A scene; its range is measured once."""
    scene = stack.enter_context(open_scene(path, **view)).measured()
    grid = RasterGrid(height=scene.shape[0], width=scene.shape[1], crs=scene.crs, transform=scene.transform)
    if other is None:
        return Opened(title=os.path.basename(path), grid=grid, scene=scene, metres=_metres(grid, scene))
    _check_same(other.grid, grid, path)
    return replace(other, scene=scene, metres=_metres(grid, scene))


def _check_same(one: RasterGrid, other: RasterGrid, path: str) -> None:
    same = (one.height, one.width) == (other.height, other.width) and one.crs == other.crs
    if not same or _apart(one, other) > NEAR:
        raise UsageError(f"{path} lies on another grid than the rest: look at it alone")


def _apart(one: RasterGrid, other: RasterGrid) -> float:
    """Pixels that corners of one grid lie from those of another as large."""
    to_pixel = ~one.transform * other.transform
    corners = [(col, row) for col in (0, one.width) for row in (0, one.height)]
    return max(abs(a - b) for corner in corners for a, b in zip(corner, to_pixel * corner, strict=True))


def _metres(grid: RasterGrid, scene: Scene | None = None) -> float | None:
    """Metres on a side of a pixel."""
    if scene is not None:
        known = metres_per_pixel(scene.src)
        return None if known is None else round(known[0], 6)
    areas = _areas(grid)
    if areas is None:
        return None
    return float(round(float(areas(Window(grid.width // 2, grid.height // 2, 1, 1))[0, 0]) ** 0.5, 6))


def _areas(grid: RasterGrid) -> Any:
    """What measures pixels of a window, where it can be told."""
    with suppress(GeoOVSegError):
        ellipsoid = ellipsoid_of(grid.crs)
        if ellipsoid is not None:
            return partial(areas_of, ellipsoid, grid.transform)
    return None


def store_beside(scene: str) -> str:
    """Where features of a scene are looked for."""
    return str(feature_names(scene).labels)
