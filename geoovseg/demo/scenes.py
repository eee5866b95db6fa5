"""Draw aerial scenes at 0.5 m with exact ground truth: where everything is, and of which class it is.

A scene is a function of its seed and the pixel, like a shader: any window of any size can be drawn on its own
and agrees with every other. What things look like is in `paint.py`.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from geoovseg.demo import paint
from geoovseg.demo.noise import Field, Index, chance
from geoovseg.demo.places import Block, Roof

CLASSES = ("building", "road", "water", "tree", "grass", "cropland", "bare soil", "parking lot")
"""The eight classes of the ground truth, codes 1 to 8 in this order."""
COLOURS = ("#c0392b", "#7f8c8d", "#2e86de", "#1e6b34", "#9ccc65", "#f1c40f", "#b08b5a", "#8e44ad")
BUILDING, ROAD, WATER, TREE, GRASS, CROPLAND, SOIL, PARKING = range(1, 9)
GSD = 0.5
"""Metres per pixel."""

SPACING = 120.0
"""Metres between streets, on average."""
_JITTER = 0.35
RESIDENTIAL, COMMERCIAL, FIELDS, FOREST, PARK, WASTE = range(6)
_SHARES = np.cumsum([0.24, 0.20, 0.17, 0.13, 0.13])
_SUN = (0.75, 0.65)
"""Direction in which shadows fall, metres of (x, y) per metre of height."""


def render(
    seed: int, height: int, width: int, *, row_off: int = 0, col_off: int = 0
) -> tuple[NDArray[np.uint8], NDArray[np.uint8]]:
    """Draw a window of the scene `seed`: pixels (3, height, width) RGB and class codes (height, width), 1 to 8.

    Windows of one seed fit together: the pixel at (row, col) never depends on the window it is drawn in.
    """
    rows = np.arange(row_off, row_off + height, dtype=np.int64)
    cols = np.arange(col_off, col_off + width, dtype=np.int64)
    y, x = np.meshgrid(rows * np.float32(GSD), cols * np.float32(GSD), indexing="ij")
    canvas = paint.Canvas(seed, rows, cols)
    block = _block(seed, x, y)
    _ground(seed, block, canvas)
    _lakes(seed, block, canvas)
    _trees(seed, block, x, y, canvas)
    _parking(seed, block, canvas)
    _buildings(seed, block, x, y, canvas)
    _streets(seed, block, canvas)
    return canvas.finish()


def _warp(seed: int, x: Field, y: Field) -> tuple[Field, Field]:
    """Bend the street grid: coordinates in which streets are straight, gently curved on the ground."""
    turn = (chance(seed, 11) - 0.5) * 1.2
    cos, sin = np.cos(turn), np.sin(turn)
    u, v = x * cos + y * sin + 5000, y * cos - x * sin + 5000
    phase = [float(chance(seed, 12, n)) * 6.28 for n in range(4)]
    du = 11 * np.sin(v / 61 + phase[0]) + 5 * np.sin(v / 23 + phase[1])
    dv = 11 * np.sin(u / 67 + phase[2]) + 5 * np.sin(u / 27 + phase[3])
    return (u + du).astype(np.float32), (v + dv).astype(np.float32)


def _line(seed: int, axis: int, k: Index) -> Field:
    return np.asarray(SPACING * (k + _JITTER * chance(seed, 20 + axis, k)), dtype=np.float32)


def _between(seed: int, axis: int, t: Field) -> tuple[Index, Field, Field]:
    k = np.floor(t / SPACING).astype(np.int64)
    k = k - (t < _line(seed, axis, k))
    start = _line(seed, axis, k)
    return k, t - start, _line(seed, axis, k + 1) - start


def _block(seed: int, x: Field, y: Field) -> Block:
    u, v = _warp(seed, x, y)
    col, in_x, width = _between(seed, 0, u)
    row, in_y, height = _between(seed, 1, v)
    use = np.searchsorted(_SHARES, chance(seed, row, col, 30)).astype(np.int64)
    return Block(row, col, in_x, in_y, width, height, use)


def _ground(seed: int, block: Block, canvas: paint.Canvas) -> None:
    canvas.put(np.ones(block.use.shape, bool), GRASS, paint.grass(canvas))
    canvas.put(block.use == FIELDS, CROPLAND, paint.cropland(canvas, block))
    canvas.put(block.use == WASTE, SOIL, paint.soil(canvas, block))


def _lakes(seed: int, block: Block, canvas: paint.Canvas) -> None:
    """A lake with a wavy shore in two of three parks."""
    dx, dy = block.x - block.width / 2, block.y - block.height / 2
    angle = np.arctan2(dy, dx)
    wave = 1 + 0.15 * np.sin(3 * angle + 6 * chance(seed, block.row, block.col, 41)) + 0.08 * np.sin(5 * angle)
    radius = (0.20 + 0.14 * chance(seed, block.row, block.col, 42)) * np.minimum(block.width, block.height)
    there = (block.use == PARK) & (chance(seed, block.row, block.col, 43) < 0.67)
    canvas.put(there & (np.hypot(dx, dy) < radius * wave), WATER, paint.water(canvas))


def _trees(seed: int, block: Block, x: Field, y: Field, canvas: paint.Canvas) -> None:
    """Single trees in parks and gardens; closed canopy in forests."""
    canvas.put((block.use == FOREST), TREE, paint.canopy(canvas))
    for layer in range(2):
        size = 13.0
        row = np.floor(y / size + layer * 0.5).astype(np.int64)
        col = np.floor(x / size + layer * 0.5).astype(np.int64)
        radius = 3.6 + 2.4 * chance(seed, row, col, 50 + layer)
        room = size / 2 - radius
        cy = (row + 0.5 - layer * 0.5) * size + room * (2 * chance(seed, row, col, 52 + layer) - 1)
        cx = (col + 0.5 - layer * 0.5) * size + room * (2 * chance(seed, row, col, 54 + layer) - 1)
        dx, dy = (x - cx) / radius, (y - cy) / radius
        density = np.select([block.use == FOREST, block.use == PARK, block.use == RESIDENTIAL], [0.95, 0.30, 0.22], 0.0)
        open_ground = (canvas.label == GRASS) | (canvas.label == TREE)
        there = (chance(seed, row, col, 56 + layer) < density) & open_ground
        ragged = np.hypot(dx, dy) + 0.25 * (canvas.fine - 0.5)
        canvas.shade(there & (np.hypot(dx - 0.45, dy - 0.4) < 1) & (canvas.label == GRASS), 0.62)
        canvas.put(there & (ragged < 1), TREE, paint.crown(canvas, dx, dy, chance(seed, row, col, 58 + layer)))


def _parking(seed: int, block: Block, canvas: paint.Canvas) -> None:
    """Half of a commercial block: rows of bays on either side of aisles."""
    split = _split(seed, block)
    lot = (block.use == COMMERCIAL) & block.inset(11) & (block.x > split + 3)
    canvas.put(lot, PARKING, paint.bays(canvas, block, block.x - split, block.y))


def _split(seed: int, block: Block) -> Field:
    return block.width * (0.36 + 0.16 * chance(seed, block.row, block.col, 60))


def _roofs(seed: int, block: Block) -> Roof:
    """Detached houses on lots, and halls in commercial blocks."""
    margin = 10.0
    nx = np.maximum(np.floor((block.width - 2 * margin) / 27), 1)
    ny = np.maximum(np.floor((block.height - 2 * margin) / 27), 1)
    lot_w, lot_h = (block.width - 2 * margin) / nx, (block.height - 2 * margin) / ny
    i, j = np.floor((block.x - margin) / lot_w).astype(np.int64), np.floor((block.y - margin) / lot_h).astype(np.int64)
    key = (block.row * 64 + j, block.col * 64 + i)
    px = block.x - margin - (i + 0.5) * lot_w
    py = block.y - margin - (j + 0.5) * lot_h
    angle = 0.5 * (chance(seed, *key, 70) - 0.5)
    qx, qy = px * np.cos(angle) + py * np.sin(angle), py * np.cos(angle) - px * np.sin(angle)
    half_x, half_y = 6.5 + 2.6 * chance(seed, *key, 71), 5.5 + 2.4 * chance(seed, *key, 72)
    house = (np.abs(qx) < half_x) & (np.abs(qy) < half_y) & (chance(seed, *key, 73) < 0.9)
    house &= (block.use == RESIDENTIAL) & block.inset(margin)
    split = _split(seed, block)
    hall = (block.use == COMMERCIAL) & block.inset(13) & (block.x < split - 1)
    ridge = np.where(hall, (block.y - block.height / 2) / (block.height / 2 - 13), qy / half_y)
    tone = np.where(hall, chance(seed, block.row, block.col, 74), chance(seed, *key, 75))
    flat = hall | (chance(seed, *key, 76) < 0.15)
    return Roof(house | hall, ridge.astype(np.float32), tone.astype(np.float32), flat)


def _buildings(seed: int, block: Block, x: Field, y: Field, canvas: paint.Canvas) -> None:
    """Roofs, and the shadows they cast on what lies beside them."""
    shadow = np.zeros(block.use.shape, bool)
    for metres in (2.5, 5.0):
        caster = _block(seed, x - np.float32(metres * _SUN[0]), y - np.float32(metres * _SUN[1]))
        shadow |= _roofs(seed, caster).there
    canvas.shade(shadow, 0.5)
    roof = _roofs(seed, block)
    canvas.put(roof.there, BUILDING, paint.roof(canvas, roof))


def _streets(seed: int, block: Block, canvas: paint.Canvas) -> None:
    """Rivers along some street lines; streets with markings along the others, over the rivers by bridges."""
    for kind in ("river", "road"):
        for axis in (0, 1):
            k, t, size = (block.col, block.x, block.width) if axis == 0 else (block.row, block.y, block.height)
            along, other = (block.y, block.row) if axis == 0 else (block.x, block.col)
            near = t > size / 2
            line = k + near
            across = np.where(near, size - t, t)
            river = chance(seed, 80 + axis, line) < 0.14
            if kind == "river":
                half = 11 + 9 * chance(seed, 82 + axis, line) + 3 * np.sin(along / 17 + line)
                canvas.put(river & (across < half), WATER, paint.water(canvas))
            else:
                half = 5.0 + 2.5 * chance(seed, 84 + axis, line)
                canvas.put(~river & (across < half), ROAD, paint.road(canvas, line * 31 + other, across, along, half))
