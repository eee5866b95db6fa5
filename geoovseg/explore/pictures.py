"""Tiles as PNG: the scene as it is, classes in their colours over nothing."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from io import BytesIO

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from rasterio.windows import Window

from geoovseg.explore.pyramid import SIDE, Pyramid, Square
from geoovseg.labels.contents import read_codes
from geoovseg.scene.scene import Scene

CLEAR = (0, 0, 0, 0)
"""What no colour is given."""


def nothing() -> bytes:
    """A tile beyond a raster, or without data."""
    return png(np.zeros((1, 1, 4), np.uint8))


def png(pixels: NDArray[np.uint8]) -> bytes:
    """Pixels (h, w, 4) at the upper left of a tile."""
    whole = np.zeros((SIDE, SIDE, 4), np.uint8)
    whole[: pixels.shape[0], : pixels.shape[1]] = pixels[:SIDE, :SIDE]
    file = BytesIO()
    Image.fromarray(whole).save(file, "PNG", compress_level=1)
    return file.getvalue()


def window_of(pyramid: Pyramid, square: Square) -> Window:
    """The pixels of a raster that a tile shows."""
    height = min(SIDE * square.step, pyramid.height - square.row)
    width = min(SIDE * square.step, pyramid.width - square.col)
    return Window(square.col, square.row, width, height)


def scene_tile(scene: Scene, pyramid: Pyramid, square: Square) -> bytes:
    """A tile of a measured scene; what has no data is clear. Raises SceneError."""
    light, valid = scene.read(window_of(pyramid, square), pyramid.inside(square))
    pixels = np.empty((*valid.shape, 4), np.uint8)
    pixels[..., :3] = np.moveaxis((light * 255).round().clip(0, 255), 0, -1)
    pixels[..., 3] = 255 * valid
    return png(pixels)


def codes_of(labels: object, pyramid: Pyramid, square: Square) -> NDArray[np.int32]:
    """Codes of a tile of open labels, -1 where there is no data. Raises SceneError."""
    found = read_codes(labels, window_of(pyramid, square), pyramid.inside(square))
    return np.where(np.ma.getmaskarray(found), -1, found.filled(0).astype(np.int64)).astype(np.int32)


def label_tile(codes: NDArray[np.int32], colours: Mapping[int, Sequence[int]], *, outlines: bool) -> bytes:
    """A tile of codes in their colours; code 0, unknown codes and no data are clear. Outlines alone, or filled."""
    table = np.zeros((max([*colours, 0]) + 2, 4), np.uint8)
    for code, colour in colours.items():
        table[code, :3], table[code, 3] = colour[:3], 255 if code else 0
    index = np.where((codes < 0) | (codes >= len(table) - 1), len(table) - 1, codes)
    pixels = table[index]
    if outlines:
        pixels[~_edges(codes), 3] = 0
    return png(pixels)


def _edges(codes: NDArray[np.int32]) -> NDArray[np.bool_]:
    """Pixels whose right or lower neighbour has another code."""
    found = np.zeros(codes.shape, bool)
    found[:, :-1] |= codes[:, :-1] != codes[:, 1:]
    found[:-1] |= codes[:-1] != codes[1:]
    found[:, 1:] |= found[:, :-1] & (codes[:, 1:] != codes[:, :-1])
    return found
