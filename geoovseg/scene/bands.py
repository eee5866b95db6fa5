"""Which bands of a raster are red, green and blue: never a guess where a wrong one would not show."""

from __future__ import annotations

import re
import warnings
from collections.abc import Sequence
from typing import Any

from rasterio.enums import ColorInterp

from geoovseg.errors import GeoOVSegWarning, SceneError, UsageError, some
from geoovseg.rasters.vrt import LIGHT, alpha_of

Band = int | str
"""A band by its number from 1, or by its name."""
Bands = tuple[int, int, int]
COLOURS = ("red", "green", "blue")
SAID = re.compile(LIGHT, re.IGNORECASE)
NO_LIGHT = ("hue", "saturation", "lightness", "cyan", "magenta", "yellow", "black", "Y", "Cb", "Cr")
"""What bands can be instead, by colour interpretation."""


def choose_bands(src: Any, asked: Sequence[Band] | None, name: str) -> Bands:
    """Numbers of the bands for red, green and blue of an open raster.

    Those that are asked for; else what the file calls red, green and blue, by colour interpretation or by name; else
    its three bands, or its first one three times where it has fewer. Raises UsageError for bands it lacks, SceneError
    for more than three that nothing tells apart.
    """
    if asked is not None:
        return _asked(src, asked, name)
    found = _named(src) or _unnamed(src, name)
    _warn_of_names(src, found, name)
    return found


def _named(src: Any) -> Bands | None:
    """What the file calls red, green and blue, if it does.

    Where its two ways of saying so differ, names count more than red, green, blue in this order, as is written into
    GeoTIFFs that nobody asked.
    """
    by_colour, by_name = _colours(_interpreted(src)), _colours(_described(src))
    return by_name if by_colour is None or (by_name and by_colour == tuple(sorted(by_colour))) else by_colour


def _unnamed(src: Any, name: str) -> Bands:
    """The three bands there are, or the first three times. Raises SceneError for more, or what is no light."""
    alpha = alpha_of(src)
    light = [n for n in range(1, src.count + 1) if n != alpha]
    _check_kinds(src, light, name)
    if len(light) > 3:
        raise SceneError(
            f"{name} has {len(light)} bands and does not say which are red, green and blue; name them, as in "
            f"--bands 3,2,1 for blue, green, red, near infrared, or --bands 1,2,3{_there(src)}"
        )
    return (light[0], light[1], light[2]) if len(light) == 3 else ((light or [1])[0],) * 3


def _warn_of_names(src: Any, bands: Bands, name: str) -> None:
    """Warn where the names of bands say that they are other light than they are seen as."""
    names = src.descriptions
    called = [names[band - 1] or "" for band in bands]
    if any(SAID.search(text) and colour not in text.lower() for text, colour in zip(called, COLOURS, strict=True)):
        numbers = ", ".join(map(str, bands))
        message = f"bands {numbers} of {name}, called {', '.join(called)}, are seen as red, green, blue; see --bands"
        warnings.warn(message, GeoOVSegWarning, 4)


def _colours(names: dict[str, int]) -> Bands | None:
    return (names["red"], names["green"], names["blue"]) if all(colour in names for colour in COLOURS) else None


def _check_kinds(src: Any, light: Sequence[int], name: str) -> None:
    """Refuse bands that are no light of one colour. Raises SceneError."""
    kinds = [kind.name for kind in src.colorinterp]  # asked once: damaged files have thousands of bands
    odd = [kinds[n - 1] for n in light[:4] if kinds[n - 1] in NO_LIGHT]
    if odd:
        raise SceneError(
            f"the bands of {name} are {', '.join(odd)}, not red, green and blue; convert them, or say which to "
            "use as such, as in --bands 1,2,3"
        )


def _asked(src: Any, asked: Sequence[Band], name: str) -> Bands:
    names = _interpreted(src) | _described(src)
    text = f"--bands {','.join(map(str, asked))}"
    unknown = [band for band in asked if isinstance(band, str) and band.lower() not in names]
    if unknown:
        raise UsageError(f"{text}: {name} has no band {unknown[0]!r}{_there(src)}")
    numbers = [names[band.lower()] if isinstance(band, str) else band for band in asked]
    if len(numbers) != 3 or any(not 1 <= n <= src.count for n in numbers):
        raise UsageError(f"{text}: three bands between 1 and {src.count} are needed for {name}")
    return numbers[0], numbers[1], numbers[2]


def _interpreted(src: Any) -> dict[str, int]:
    """Numbers by what the file says of the colour of its bands; the first of each."""
    found = reversed(list(enumerate(src.colorinterp, start=1)))
    return {kind.name.lower(): n for n, kind in found if kind != ColorInterp.undefined}


def _described(src: Any) -> dict[str, int]:
    """Numbers by the names of bands, in small letters; the first of each."""
    return {text.strip().lower(): n for n, text in reversed(list(enumerate(src.descriptions, start=1))) if text}


def _there(src: Any) -> str:
    names = [text for text in src.descriptions if text]
    return f"; its bands are called {some(names, 8)}" if names else ""
