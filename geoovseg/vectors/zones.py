"""How much ground classes cover in zones such as districts or fields: hectares and shares.

Zones are laid over the pixels, block by block, so that labels may be of any size and turned any way; how much of a
pixel a zone covers is exact (exactextract).
"""

from __future__ import annotations

import json
import os
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import asdict, dataclass
from typing import Any

import geopandas
import numpy as np
import shapely
from exactextract import exact_extract
from exactextract.raster import NumPyRasterSource
from numpy.typing import NDArray
from rasterio.crs import CRS
from rasterio.warp import transform_bounds
from rasterio.windows import Window

from geoovseg.errors import OutputError, SceneError, UsageError, first_line, some
from geoovseg.files import as_path
from geoovseg.labels.areas import HECTARE
from geoovseg.labels.contents import classes_of, named
from geoovseg.labels.names import is_one_of
from geoovseg.labels.read import Reader, open_labels, raster_reader
from geoovseg.rasters.ground import areas_of, ellipsoid_of
from geoovseg.rasters.open import GDAL_ERRORS, raster_env
from geoovseg.scene.shapes import Choice, brought_to, read_shapes
from geoovseg.vectors.tables import table_driver, write_table
from geoovseg.vectors.targets import check_target

LAYER = "zones"
BLOCK = 1024
"""Side of what is read at a time, in pixels."""
STEPS = 100
"""Pieces that the longest side of a zone is cut into before it is brought to other coordinates, where it is no line."""
AREAL = ("Polygon", "MultiPolygon")
Floats = NDArray[np.float64]


@dataclass(frozen=True, kw_only=True)
class ZonesResult:
    """What was written; `to_json` is what `geoovseg stats --json` prints."""

    zones: str
    count: int
    unit: str
    """ha, or pixels where the labels lie nowhere"""
    total: dict[str, float]
    """of all zones together, by class; what two zones share counts in both"""
    empty: int
    """zones without a pixel that has data"""
    mended: int = 0
    """zones that were no valid polygons, as those that cross themselves, and were measured as valid ones"""

    def to_json(self) -> str:
        """One line of JSON."""
        return json.dumps(asdict(self), ensure_ascii=False)


def stats(
    labels: str | os.PathLike[str],
    zones: str | os.PathLike[str],
    output: str | os.PathLike[str],
    *,
    layer: str | None = None,
    where: str | None = None,
    overwrite: bool = False,
) -> ZonesResult:
    """Hectares and shares of every class in every zone, as columns beside those that the zones have.

    Areas are those on the ellipsoid; of a pixel on a zone's border counts the part that is inside. A share is that of
    the zone's pixels with data. Without a coordinate system the columns count pixels.

    Args:
        labels: a label raster of any size.
        zones: a vector file of polygons, in any coordinates.
        output: a vector file by its suffix, or `.csv` without shapes; columns `<class>_ha`, `<class>_share`,
            `labelled_ha`, `nodata_ha`.
        layer: the layer of the zones; default the first.
        where: a condition on the zones, as in "county = 'Elk'".
        overwrite: replace an existing file.

    Raises:
        SceneError: a file cannot be read. UsageError, OutputError: zones that are no polygons, files in the way.
    """
    target = as_path(output, "the output")
    check_target(target, overwrite, table_driver)
    if is_one_of(target, [os.fspath(labels), os.fspath(zones)]):
        raise OutputError(f"{target} is read from; choose another name")
    with raster_env(), open_labels(labels) as src:
        legend, _ = classes_of(src)
        names = _told_apart({entry.code: name for name, entry in named(legend).items()})
        table = _zones(os.fspath(zones), Choice(layer, where))
        shapes, mended = _valid(table.geometry.to_numpy())
        found = _covered(src, raster_reader(src), _on_pixels(shapes, table.crs, src, os.fspath(zones)), [-1, *names])
        unit = "pixels" if ellipsoid_of(src.crs) is None else "ha"
    table = _with_columns(table, found, list(names.values()), unit)
    write_table(target, table, LAYER, overwrite=overwrite)
    total = dict(zip(names.values(), found[:, 1:].sum(0).tolist(), strict=True))
    empty = int((found[:, 1:].sum(1) == 0).sum())
    return ZonesResult(zones=os.fspath(output), count=len(table), unit=unit, total=total, empty=empty, mended=mended)


def _zones(name: str, choice: Choice) -> Any:
    """A table of polygons. Raises SceneError, UsageError."""
    table = read_shapes(name, choice)
    wrong = sorted({str(kind) for kind in table.geom_type.dropna()} - {*AREAL})
    if wrong or not len(table):
        raise UsageError(f"{name} must hold polygons; it has {some(wrong) or 'no shapes'}")
    others = [name for name, kind in table.dtypes.items() if str(kind) == "geometry" and name != table.geometry.name]
    table = table.drop(columns=others).reset_index(drop=True)
    return table if "geometry" in table.columns else table.rename_geometry("geometry")


def _told_apart(names: dict[int, str]) -> dict[int, str]:
    """Names by code that differ in more than their case, as columns of a table have to."""
    folds = Counter(name.casefold() for name in names.values())
    return {code: name if folds[name.casefold()] == 1 else f"{name} ({code})" for code, name in names.items()}


def _valid(shapes: Any) -> tuple[Any, int]:
    """Shapes as valid ones, what overlaps itself counting once, and how many were none."""
    wrong = ~shapely.is_valid(shapes) & ~shapely.is_missing(shapes)
    shapes = shapes.copy()
    shapes[wrong] = shapely.make_valid(shapes[wrong], method="structure")
    return shapes, int(wrong.sum())


def _on_pixels(shapes: Any, crs: Any, src: Any, where: str) -> list[Any]:
    """Zones in columns and negative rows of the labels. Raises UsageError."""
    if src.crs is not None and crs is not None and crs != src.crs:
        shapes = _in_labels_crs(_near(shapes, crs, src), crs, src.crs, where)
    back = ~src.transform

    def on_pixels(xy: Floats) -> Floats:
        col, row = back @ (xy[:, 0], xy[:, 1])
        return np.stack([col, -row], axis=1)

    return [None if shape is None else shapely.transform(_areal(shape), on_pixels) for shape in shapes]


def _areal(shape: Any) -> Any:
    """The polygons of a shape: mending and cutting may leave lines and points, which cover nothing."""
    if shape.geom_type in AREAL:
        return shape
    return shapely.union_all([part for part in shapely.get_parts(shape) if part.geom_type in AREAL])


def _near(shapes: Any, crs: Any, src: Any) -> Any:
    """The parts of zones that may lie on the labels: coordinates far from them may lead nowhere."""
    corners = [src.transform @ corner for corner in ((0, 0), (src.width, 0), (0, src.height), (src.width, src.height))]
    (west, east), (south, north) = ((min(side), max(side)) for side in zip(*corners, strict=True))
    try:
        box = transform_bounds(src.crs, CRS.from_user_input(crs), west, south, east, north, densify_pts=100)
    except GDAL_ERRORS:
        return shapes
    if not np.isfinite(box).all() or box[0] >= box[2]:  # over the antimeridian
        return shapes
    more = max(box[2] - box[0], box[3] - box[1])
    return shapely.intersection(shapes, shapely.box(box[0] - more, box[1] - more, box[2] + more, box[3] + more))


def _in_labels_crs(shapes: Any, crs: Any, target: Any, where: str) -> Any:
    """Shapes in other coordinates, their sides cut where they are no lines there. Raises UsageError."""
    sides = shapely.bounds(shapes)
    longest = np.nan_to_num(np.maximum(sides[:, 2] - sides[:, 0], sides[:, 3] - sides[:, 1]))
    cut = shapely.segmentize(shapes, np.maximum(longest / STEPS, 1e-12))
    found = brought_to(geopandas.GeoSeries(cut, crs=crs), target, where).to_numpy()
    whole = ~shapely.is_missing(found) & ~shapely.is_empty(found)
    if (lost := np.flatnonzero(whole & ~np.isfinite(shapely.bounds(found)).all(1))).size:
        raise UsageError(f"zone {int(lost[0]) + 1} of {where} reaches where the labels' coordinate system does not")
    return found


def _covered(src: Any, read: Reader, zones: list[Any], codes: list[int]) -> Floats:
    """Areas (zones, codes): hectares, or pixels where they lie nowhere. Raises SceneError."""
    found = np.zeros((len(zones), len(codes)))
    places = np.array(sorted(codes))
    back = np.array([codes.index(code) for code in places.tolist()])
    ellipsoid = ellipsoid_of(src.crs)
    tree = shapely.STRtree(zones)
    for window in _windows(src):
        near = np.sort(tree.query(shapely.box(*_sides(window)), predicate="intersects"))
        if not len(near):
            continue
        kinds = back[np.searchsorted(places, read(window))]
        sizes = np.ones(kinds.shape) if ellipsoid is None else areas_of(ellipsoid, src.transform, window) / HECTARE
        for number, cells, parts in _parts(window, kinds, zones, near):
            found[number] += np.bincount(kinds.ravel()[cells], parts * sizes.ravel()[cells], len(codes))
    return found


def _windows(src: Any) -> Iterator[Window]:
    for row in range(0, src.height, BLOCK):
        for col in range(0, src.width, BLOCK):
            yield Window(col, row, min(BLOCK, src.width - col), min(BLOCK, src.height - row))


def _sides(window: Window) -> tuple[int, int, int, int]:
    """West, south, east, north of a window, in columns and negative rows."""
    return window.col_off, -window.row_off - window.height, window.col_off + window.width, -window.row_off


def _parts(window: Window, kinds: Any, zones: list[Any], near: Any) -> Iterator[tuple[int, Any, Floats]]:
    """Of each zone its number, the pixels of a window that it covers, and how much of each (0..1).

    Raises SceneError.
    """
    raster = NumPyRasterSource(kinds.astype(np.int32), *_sides(window))
    features = [
        {"type": "Feature", "properties": {"n": int(n)}, "geometry": shapely.geometry.mapping(zones[n])} for n in near
    ]
    try:
        done = exact_extract(raster, features, ["cell_id", "coverage"], include_cols=["n"])
    except RuntimeError as error:
        raise SceneError(f"a zone cannot be laid over the labels: {first_line(error)}") from error
    for each in done:
        said = each["properties"]
        yield said["n"], said["cell_id"], said["coverage"]


def _with_columns(table: Any, found: Floats, names: list[str], unit: str) -> Any:
    """The zones with what was found; a column of the same name that they had gets another one."""
    end = "_ha" if unit == "ha" else "_px"
    whole = found[:, 1:].sum(1)
    with np.errstate(invalid="ignore"):
        shares = found[:, 1:] / whole[:, None]
    columns = {f"{name}{end}": found[:, k].round(6) for k, name in enumerate(names, start=1)}
    columns |= {f"{name}_share": shares[:, k].round(6) for k, name in enumerate(names)}
    columns |= {_free(f"labelled{end}", columns): whole.round(6), _free(f"nodata{end}", columns): found[:, 0].round(6)}
    taken: dict[str, str] = {}
    for name in table.columns:
        if name != table.geometry.name and name.casefold() in {each.casefold() for each in columns}:
            taken[name] = _free(f"{name}_of_zone", [*table.columns, *columns, *taken.values()])
    return table.rename(columns=taken).assign(**columns)


def _free(name: str, others: Iterable[str]) -> str:
    """A name that no other one is, in any case."""
    known = {each.casefold() for each in others}
    return name if name.casefold() not in known else _free(f"{name}_all", known)
