"""From a block of labels to the pieces of polygons that lie in it: the part of vectorising that runs in parallel.

All coordinates are corners of pixels, whole numbers (x, y) = (column, row). Two kinds of corners matter beyond the
rings themselves: where three or more borders meet (nodes: a ring that runs straight through one needs a vertex there,
or neighbours would share a line with different vertices), and where a border crosses the seam of two blocks
(crossings: vertices only because of the blocks, to be taken out when pieces are joined).
"""

from __future__ import annotations

from dataclasses import dataclass
from fractions import Fraction
from typing import Any

import numpy as np
import shapely
from numpy.typing import NDArray
from rasterio.features import shapes
from rasterio.windows import Window
from skimage.measure import label as connected

from geoovseg.errors import SceneError, UsageError, first_line
from geoovseg.rasters.open import GDAL_ERRORS, opened, raster_env

NOTHING = -(2**31)
"""Code of what is not asked for: other classes, no data, and everything beyond the raster."""
ROUNDING = 1e-5
"""By which confidence may leave 0..1, as shares of small floating-point numbers do."""
AROUND = np.array([(0, 0), (0, 1), (1, 1), (1, 0), (0, 0)])
"""The way around a pixel from its upper left corner, as GDAL goes it."""
FINEST = 50
"""Parts of a pixel's shorter side in which its proportions are told at most."""
Ints = NDArray[np.int64]


@dataclass(frozen=True, kw_only=True)
class Recipe:
    """What pieces are made of: a label raster, perhaps confidence, the codes that are asked for."""

    labels: str
    size: tuple[int, int]
    """width and height, in pixels"""
    confidence: str | None
    codes: tuple[int, ...]
    tolerance: float
    """of the simplification, in units of `pixel`; 0 keeps all corners"""
    pixel: tuple[float, float]
    """width and height of a pixel in those units"""


@dataclass(frozen=True, kw_only=True)
class Pieces:
    """The connected parts of classes in a block."""

    codes: Ints
    """(n,)"""
    geometries: NDArray[Any]
    """(n,) polygons"""
    sums: NDArray[np.float64]
    """(n,) of confidence over pixels"""
    pixels: Ints
    """(n,)"""
    top: Ints
    """number of the piece of each pixel along the upper edge, -1 for none; the others alike"""
    bottom: Ints
    left: Ints
    right: Ints
    crossings: Ints
    """(m, 2) on the block's edges"""


def cut_pieces(recipe: Recipe, window: Window) -> Pieces:
    """Polygonise one block."""
    codes = read_codes(recipe, window)
    inner = codes[1:-1, 1:-1]
    numbered: Ints = connected(inner, background=NOTHING, connectivity=1).astype(np.int32)
    count = int(numbered.max(initial=0))
    first = np.full(count + 1, NOTHING, np.int64)
    first[numbered] = inner
    geometries = _polygons(numbered, codes, window, recipe)
    flat = numbered.ravel()
    sure = np.zeros(flat.shape) if recipe.confidence is None else _confidence(recipe.confidence, window).ravel()
    return Pieces(
        codes=first[1:],
        geometries=geometries,
        sums=np.bincount(flat, sure, minlength=count + 1)[1:].astype(np.float64),
        pixels=np.bincount(flat, minlength=count + 1)[1:],
        top=numbered[0].astype(np.int64) - 1,
        bottom=numbered[-1].astype(np.int64) - 1,
        left=numbered[:, 0].astype(np.int64) - 1,
        right=numbered[:, -1].astype(np.int64) - 1,
        crossings=crossings(codes) + np.array([window.col_off, window.row_off]),
    )


def read_pixels(src: Any, window: Window) -> Any:
    """The first band of a window of an open raster (h, w), masked where it has no data. Raises SceneError."""
    try:
        return src.read(1, window=window, masked=True)
    except GDAL_ERRORS as error:
        raise SceneError(f"cannot read {src.name}: {first_line(error)}") from error


def read_window(path: str, window: Window) -> Ints:
    """Codes (h, w) of a window; NOTHING where there is no data. Raises SceneError."""
    with raster_env(), opened(path, f"{path} as a raster") as src:
        codes: Ints = read_pixels(src, window).astype(np.int64).filled(NOTHING)
        return codes


def read_codes(recipe: Recipe, window: Window) -> Ints:
    """Codes of a window with a margin of one pixel (h + 2, w + 2); NOTHING for what is not asked for."""
    around = Window(window.col_off - 1, window.row_off - 1, window.width + 2, window.height + 2)
    inside = around.intersection(Window(0, 0, *recipe.size))
    found = read_window(recipe.labels, inside)
    codes = np.full((around.height, around.width), NOTHING, np.int64)
    row, col = inside.row_off - around.row_off, inside.col_off - around.col_off
    wanted = np.isin(found, recipe.codes)
    codes[row : row + inside.height, col : col + inside.width] = np.where(wanted, found, NOTHING)
    return codes


def _confidence(path: str, window: Window) -> NDArray[np.float64]:
    """Confidence (h, w), 0 where there is no data. Raises SceneError, UsageError for numbers that are none."""
    with raster_env(), opened(path, f"{path} as a raster") as src:
        found = read_pixels(src, window).astype(np.float64) * src.scales[0] + src.offsets[0]
    wrong = ((found < -ROUNDING) | (found > 1 + ROUNDING)).filled(False)
    if wrong.any():
        raise UsageError(f"--confidence {path} has the value {found[wrong][0]:g}; confidence is between 0 and 1")
    return np.asarray(found.filled(0))


def borders(codes: Ints) -> tuple[NDArray[np.bool_], ...]:
    """Whether a border runs up, down, left and right from each inner corner of codes (h + 2, w + 2): (h + 1, w + 1)."""
    a, b, c, d = codes[:-1, :-1], codes[:-1, 1:], codes[1:, :-1], codes[1:, 1:]
    return a != b, c != d, a != c, b != d


def nodes(codes: Ints) -> Ints:
    """Corners (n, 2), as (x, y) in the window, where three or more borders meet.

    On the window's edges also those where one border meets the edge, so that pieces on both sides have them.
    """
    up, down, left, right = borders(codes)
    found = up.astype(np.int8) + down + left + right >= 3
    for side in (0, -1):
        found[side] |= up[side] | down[side]
        found[:, side] |= left[:, side] | right[:, side]
    y, x = np.nonzero(found)
    return np.stack([x, y], axis=1)


def crossings(codes: Ints) -> Ints:
    """Corners (n, 2) on the edges of a window that one border crosses straight on, and no other meets."""
    up, down, left, right = borders(codes)
    found = np.zeros_like(up)
    for side in (0, -1):
        found[side] |= (up & down & ~left & ~right)[side]
        found[:, side] |= (left & right & ~up & ~down)[:, side]
    y, x = np.nonzero(found)
    return np.stack([x, y], axis=1)


def _polygons(numbered: Any, codes: Ints, window: Window, recipe: Recipe) -> NDArray[Any]:
    """Polygons (n,) of numbered parts (h, w), noded and simplified, on the raster's own corners."""
    rows, cols, which = _single_pixels(numbered)
    rings, sizes, order = [np.empty((0, 2), np.int64)], [], []
    for shape, number in shapes(numbered, mask=(numbered > 0) & ~which, connectivity=4):
        rings += [np.asarray(ring, np.int64) for ring in shape["coordinates"]]
        sizes.append(len(shape["coordinates"]))
        order.append(int(number) - 1)
    squares = np.stack([cols, rows], axis=1)[:, None] + AROUND
    lengths = np.concatenate([list(map(len, rings)), np.full(len(squares), len(AROUND))])
    points = np.concatenate([*rings, squares.reshape(-1, 2)])
    points, starts = noded(points, np.cumsum(lengths), nodes(codes))
    points = points + np.array([window.col_off, window.row_off])
    parts = np.concatenate([[0], sizes, np.ones(len(squares))]).cumsum().astype(np.int64)
    result = np.empty(len(parts) - 1, object)
    result[[*order, *(numbered[rows, cols] - 1)]] = shapely.from_ragged_array(
        shapely.GeometryType.POLYGON, points.astype(np.float64), (starts, parts)
    )
    return simplified(result, recipe) if recipe.tolerance else result


def _single_pixels(numbered: Any) -> tuple[Ints, Ints, NDArray[np.bool_]]:
    """Where parts of one pixel are among numbered ones (h, w), and which pixels these are; most of speckle are."""
    alone = np.bincount(numbered.ravel()) == 1
    alone[0] = False
    found = alone[numbered]
    return *np.nonzero(found), found


def noded(points: Ints, starts: Ints, where: Ints) -> tuple[Ints, Ints]:
    """Rings with a vertex at every node they pass through.

    `points` (n, 2) are the vertices of closed rings, one after the other, the k-th from `starts[k]` to
    `starts[k + 1]`; edges are horizontal or vertical. Returns points and starts.
    """
    if not len(where) or not len(points):
        return points, starts
    begin, end = points[:-1], points[1:]
    last = np.zeros(len(points), bool)
    last[starts[1:] - 1] = True  # from there no edge begins
    add = np.zeros(len(points), np.int64)
    lists = []
    for axis in (0, 1):
        runs, other = np.flatnonzero((begin[:, 1 - axis] == end[:, 1 - axis]) & ~last[:-1]), 1 - axis
        keys, span = _sorted_keys(where, axis, int(points.max()) + 2)
        low, high = np.minimum(begin[runs, axis], end[runs, axis]), np.maximum(begin[runs, axis], end[runs, axis])
        base = begin[runs, other] * span
        a, b = np.searchsorted(keys, base + low, "right"), np.searchsorted(keys, base + high, "left")
        add[runs] += np.maximum(b - a, 0)
        lists.append((axis, runs, a, b, keys, span, begin[runs, axis] > end[runs, axis]))
    place = np.arange(len(points)) + np.concatenate([[0], np.cumsum(add)[:-1]])
    result = np.empty((len(points) + int(add.sum()), 2), points.dtype)
    result[place] = points
    for axis, runs, a, b, keys, span, back in lists:
        count = np.maximum(b - a, 0)
        nth = np.arange(int(count.sum())) - np.repeat(np.cumsum(count) - count, count)
        found = keys[np.where(np.repeat(back, count), np.repeat(b, count) - 1 - nth, np.repeat(a, count) + nth)]
        at = np.repeat(place[runs], count) + 1 + nth
        result[at, axis], result[at, 1 - axis] = found % span, found // span
    shift = np.concatenate([[0], np.cumsum(add)])
    return result, starts + shift[starts]


def _sorted_keys(where: Ints, axis: int, span: int) -> tuple[Ints, int]:
    """Nodes as sorted numbers, line by line along an axis, and the length of a line."""
    span = max(span, int(where.max()) + 2)
    return np.sort(where[:, 1 - axis] * span + where[:, axis]), span


def simplified(polygons: NDArray[Any], recipe: Recipe) -> NDArray[Any]:
    """Polygons with fewer corners, borders still shared; the outline of the block stays, so that blocks still fit.

    All is done in whole numbers, in which corners on a line are on a line exactly: else GEOS lets borders cross.
    Should polygons not be valid all the same, the block keeps its corners.
    """
    scale, unit = whole_proportions(recipe.pixel)
    scaled = shapely.transform(polygons, lambda xy: xy * scale)
    thin = shapely.coverage_simplify(scaled, recipe.tolerance / unit, simplify_boundary=False)
    if not (shapely.is_valid(thin).all() and shapely.coverage_is_valid(thin)):
        return polygons
    return shapely.transform(thin, lambda xy: np.rint(xy / scale))


def whole_proportions(pixel: tuple[float, float]) -> tuple[Ints, float]:
    """Width and height of a pixel as two small whole numbers (to about 1 %), and the length of their unit."""
    short, long = sorted(pixel)
    ratio = Fraction(long / short).limit_denominator(FINEST)
    numbers = np.array([ratio.numerator, ratio.denominator] if pixel[0] > pixel[1] else ratio.as_integer_ratio()[::-1])
    return numbers, short / ratio.denominator


def block_windows(height: int, width: int, block: int) -> list[list[Window]]:
    """Rows of blocks that tile a raster."""
    return [
        [Window(col, row, min(block, width - col), min(block, height - row)) for col in range(0, width, block)]
        for row in range(0, height, block)
    ]
