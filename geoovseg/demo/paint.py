"""How the things of a demo scene look: colours, textures, light. Every function returns (3, H, W) in 0..255."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from geoovseg.demo.noise import Field, Index, chance, smooth
from geoovseg.demo.places import Block, Roof

Mask = NDArray[np.bool_]


class Canvas:
    """The picture and the ground truth of a window, drawn from the ground upwards."""

    def __init__(self, seed: int, rows: Index, cols: Index) -> None:
        self.seed, self.rows, self.cols = seed, rows, cols
        shape = (len(rows), len(cols))
        self.rgb = np.zeros((3, *shape), np.float32)
        self.label = np.zeros(shape, np.uint8)
        self.fine = chance(seed, rows[:, None], cols[None, :], 1)
        self.broad = smooth(seed + 101, rows, cols, 90)
        self.mid = smooth(seed + 102, rows, cols, 14)

    def put(self, mask: Mask, code: int, colour: Field) -> None:
        """Paint `colour` and the class `code` where `mask` is true."""
        self.label[mask] = code
        self.rgb[:, mask] = colour[:, mask]

    def shade(self, mask: Mask, factor: float) -> None:
        """Darken; the class stays that of the shadowed ground."""
        self.rgb[:, mask] *= np.float32(factor)

    def finish(self) -> tuple[NDArray[np.uint8], NDArray[np.uint8]]:
        """Add sensor noise and round to bytes."""
        grain = 10 * (chance(self.seed, self.rows[:, None], self.cols[None, :], 2) - 0.5)
        haze = 0.92 + 0.16 * self.broad
        return np.clip(self.rgb * haze + grain, 0, 255).astype(np.uint8), self.label


def _mix(a: tuple[float, ...], b: tuple[float, ...], t: Field) -> Field:
    first, second = (np.asarray(c, np.float32)[:, None, None] for c in (a, b))
    return np.asarray(first + (second - first) * t, dtype=np.float32)


def grass(canvas: Canvas) -> Field:
    """Lawn: even green, slightly mottled."""
    return _mix((98, 138, 70), (132, 160, 84), 0.6 * canvas.broad + 0.25 * canvas.mid + 0.15 * canvas.fine)


def water(canvas: Canvas) -> Field:
    """Dark, smooth, with a broad sheen."""
    return _mix((28, 62, 88), (62, 104, 122), 0.75 * canvas.broad + 0.25 * canvas.mid)


def canopy(canvas: Canvas) -> Field:
    """The dark gaps between the crowns of a forest."""
    return _mix((24, 50, 26), (44, 76, 38), canvas.fine)


def crown(canvas: Canvas, dx: Field, dy: Field, tone: Field) -> Field:
    """A tree crown, lit from the upper left."""
    light = np.clip(0.5 - 0.45 * dx - 0.4 * dy + 0.5 * (canvas.fine - 0.5), 0, 1)
    return _mix((26, 54, 28), (84, 126, 62), light) * (0.85 + 0.3 * tone)


def soil(canvas: Canvas, block: Block) -> Field:
    """Bare ground with wheel tracks."""
    colour = _mix((156, 126, 92), (198, 172, 134), 0.5 * canvas.mid + 0.3 * canvas.fine + 0.2 * canvas.broad)
    tracks = np.abs(np.sin((block.x * 0.5 + block.y) / 9 + 4 * canvas.broad)) < 0.06
    return np.where(tracks, colour * 0.86, colour)


_CROPS = (((86, 118, 52), (150, 150, 82)), ((170, 152, 84), (122, 112, 56)), ((112, 140, 60), (74, 92, 44)))


def cropland(canvas: Canvas, block: Block) -> Field:
    """Fields, two or three to a block, each with rows of its own direction, spacing and crop."""
    strip = np.floor(block.y / np.maximum(block.height / 2, 1)).astype(np.int64)
    key = (block.row * 4 + strip, block.col)
    angle = np.pi * chance(canvas.seed, *key, 90)
    period = 2.4 + 2.0 * chance(canvas.seed, *key, 91)
    x, y = canvas.cols[None, :] * 0.5, canvas.rows[:, None] * 0.5
    wave = 0.5 + 0.5 * np.sin(2 * np.pi * (x * np.cos(angle) + y * np.sin(angle)) / period)
    t = np.clip(0.85 * wave + 0.3 * (canvas.fine - 0.5), 0, 1).astype(np.float32)
    which = (3 * chance(canvas.seed, *key, 92)).astype(np.int64)
    return np.asarray(np.select([which == n for n in range(3)], [_mix(*crop, t) for crop in _CROPS]))


_ROOFS = (
    ((142, 74, 54), (176, 98, 72)),
    ((96, 96, 102), (128, 128, 132)),
    ((112, 72, 58), (150, 104, 84)),
    ((196, 192, 186), (222, 220, 214)),
)


def roof(canvas: Canvas, roof: Roof) -> Field:
    """Pitched roofs with a bright and a dark side; flat ones with joints and skylights."""
    which = (4 * roof.tone).astype(np.int64)
    colour = np.select([which == n for n in range(4)], [_mix(a, b, canvas.fine) for a, b in _ROOFS])
    pitched = np.where(roof.ridge < 0, 1.12, 0.84)
    joints = np.where(np.abs(roof.ridge * 7 - np.round(roof.ridge * 7)) < 0.06, 0.82, 1.0)
    return np.asarray(colour * np.where(roof.flat, joints, pitched), dtype=np.float32)


def road(canvas: Canvas, line: Index, across: Field, along: Field, half: Field) -> Field:
    """Asphalt with a dashed centre line and pale kerbs."""
    colour = _mix((84, 84, 86), (104, 103, 102), 0.7 * canvas.fine + 0.3 * canvas.mid)
    dashed = (across < 0.45) & (np.mod(along, 9) < 5)
    kerb = half - across < 0.6
    colour = np.where(dashed, np.float32(225), np.where(kerb, np.float32(160), colour))
    key = line * 53 + np.floor(along / 16).astype(np.int64)
    return _with_cars(canvas, colour, key, np.mod(along, 16) - 8, across - 2.5, 0.25)


def bays(canvas: Canvas, block: Block, x: Field, y: Field) -> Field:
    """A parking lot: bays 5 m deep on both sides of 6 m aisles, white lines every 2.8 m, cars in most bays."""
    colour = _mix((112, 112, 116), (136, 136, 138), 0.7 * canvas.fine + 0.3 * canvas.mid)
    row, across = np.floor(x / 16).astype(np.int64), np.mod(x, 16)
    bay, along = np.floor(y / 2.8).astype(np.int64), np.mod(y, 2.8)
    in_bay = (across < 5) | (across > 11)
    colour = np.where(in_bay & (along < 0.5), np.float32(232), colour)
    side = across > 11
    depth = np.where(side, across - 13.5, across - 2.5).astype(np.float32)
    key = (block.row * 97 + row * 2 + side) * 128 + bay
    return _with_cars(
        canvas, colour, key, np.where(in_bay, depth, np.float32(99)), np.asarray(along - 1.65, np.float32), 0.6
    )


_CARS = np.asarray([(228, 228, 230), (40, 42, 48), (150, 30, 34), (44, 70, 132), (150, 152, 156)], np.float32)


def _with_cars(canvas: Canvas, ground: Field, key: Index, dx: Field, dy: Field, share: float) -> Field:
    """Cars are painted but belong to what they stand on."""
    car = (np.abs(dx) < 2.2) & (np.abs(dy) < 0.95) & (chance(canvas.seed, key, 95) < share)
    body = _CARS[(len(_CARS) * chance(canvas.seed, key, 96)).astype(np.int64)]
    glass = np.where(np.abs(np.abs(dx) - 0.9) < 0.35, 0.55, 1.0)
    return np.asarray(np.where(car, np.moveaxis(body, -1, 0) * glass, ground), dtype=np.float32)
