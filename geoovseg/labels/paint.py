"""Codes as colours over a scene, so that every colour is seen: the scene is pale, classes are nearly opaque."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from geoovseg.labels.styles import CONFIDENCE_RAMP, LegendEntry

OPACITY = 0.75
"""Of classes over the scene."""
PALE = 0.45
"""Of the scene's contrast that is left where nothing lies over it."""
MIDDLE = 128
"""Grey around which the scene is seen through classes, with half its contrast."""
OUTLINE = 0.45
"""Lightness of a region's outline, to that of its colour."""
STEPS = 250
"""Shades of confidence."""
_LUMA = (0.299, 0.587, 0.114)
Picture = NDArray[np.uint8]
Colour = tuple[int, int, int]


@dataclass(frozen=True, kw_only=True)
class Layer:
    """What lies over a scene: for each pixel which of some colours."""

    index: NDArray[np.intp]
    """(h, w), number of the colour; -1 where there is no data"""
    colours: NDArray[np.uint8]
    """(n, 3)"""
    clear: NDArray[np.bool_]
    """(n,) those that are seen through"""
    outlined: bool


def of_classes(codes: Any, legend: Sequence[LegendEntry]) -> Layer:
    """Classes by the order of a legend, which is that of codes; code 0 is seen through.

    Codes that the legend lacks, as overviews of mixed codes may have, are no data.
    """
    known = np.array([entry.code for entry in legend], np.int64)
    values = codes.filled(0).astype(np.int64)
    index = np.searchsorted(known, values).clip(0, max(0, len(known) - 1))
    there = ~np.ma.getmaskarray(codes) & (known[index] == values if len(known) else False)
    return Layer(
        index=np.where(there, index, -1),
        colours=np.array([entry.rgb for entry in legend], np.uint8).reshape(-1, 3),
        clear=known == 0,
        outlined=True,
    )


def of_confidence(values: Any) -> Layer:
    """Confidence 0..1, masked, in the shades of its style."""
    steps = np.linspace(0, 1, STEPS + 1)
    stops = [stop for stop, _ in CONFIDENCE_RAMP]
    channels = np.array([LegendEntry(0, "", colour).rgb for _, colour in CONFIDENCE_RAMP]).T
    shades = np.stack([np.interp(steps, stops, channel) for channel in channels], axis=-1)
    index = (values.filled(0).clip(0, 1) * STEPS).round().astype(np.intp)
    return Layer(
        index=np.where(np.ma.getmaskarray(values), -1, index),
        colours=shades.round().astype(np.uint8),
        clear=np.zeros(STEPS + 1, bool),
        outlined=False,
    )


def over(light: Picture, layer: Layer) -> tuple[Picture, list[Colour]]:
    """A layer over a scene (h, w, 3), and the colours as they are seen: the mean of the pixels that have them."""
    grey = (light @ np.array(_LUMA))[..., None]
    pale, middle = 255 - (255 - grey) * PALE, MIDDLE + (grey - MIDDLE) * 0.5
    clear, colours = np.append(layer.clear, True)[layer.index], layer.colours[layer.index] if len(layer.colours) else 0
    shown = np.where(clear[..., None], pale, middle * (1 - OPACITY) + np.multiply(colours, OPACITY))
    seen = _seen(shown, layer)
    if layer.outlined:
        edges = _edges(layer.index) & ~clear
        shown[edges] = layer.colours[layer.index[edges]] * OUTLINE
    return shown.round().astype(np.uint8), seen


def _seen(shown: NDArray[np.float64], layer: Layer) -> list[Colour]:
    """Colours in the picture; of those that are not there what they would be over the middle grey."""
    flat, channels = layer.index.ravel() + 1, shown.reshape(-1, 3).T
    counts = np.bincount(flat, minlength=len(layer.colours) + 1)[1:, None]
    sums = np.stack([np.bincount(flat, channel, len(layer.colours) + 1)[1:] for channel in channels], axis=-1)
    faded = np.where(
        layer.clear[:, None], 255 - (255 - MIDDLE) * PALE, MIDDLE * (1 - OPACITY) + layer.colours * OPACITY
    )
    means = np.where(counts > 0, sums / np.maximum(counts, 1), faded)
    return [(red, green, blue) for red, green, blue in means.round().astype(int).tolist()]


def _edges(index: NDArray[np.intp]) -> NDArray[np.bool_]:
    """The outermost pixels of regions, but not of those too thin to show their colour inside."""
    edge, beside = np.zeros(index.shape, bool), np.zeros(index.shape, bool)
    for axis, way in ((0, 1), (0, -1), (1, 1), (1, -1)):
        edge |= _shifted(index, axis, way) != index
    for axis, way in ((0, 1), (0, -1), (1, 1), (1, -1)):
        inside = _shifted(np.where(edge, -2, index), axis, way)
        beside |= inside == index
    return edge & beside


def _shifted(values: NDArray[np.intp], axis: int, way: int) -> NDArray[np.intp]:
    """Each pixel's neighbour; the edge is its own."""
    found = np.roll(values, way, axis)
    side: list[Any] = [slice(None)] * 2
    side[axis] = 0 if way == 1 else -1
    found[tuple(side)] = values[tuple(side)]
    return found
