"""Which bands of a raster are red, green and blue: never a guess where a wrong one would not show."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from rasterio.enums import ColorInterp

from geoovseg.errors import SceneError, UsageError

Band = int | str
"""A band by its number from 1, or by its name."""
COLOURS = ("red", "green", "blue")


def choose_bands(src: Any, asked: Sequence[Band] | None, name: str) -> tuple[int, int, int]:
    """Numbers of the bands for red, green and blue of an open raster.

    Those that are asked for; else what the file calls red, green and blue, by colour interpretation or by name; else
    its three bands, or its first one three times where it has fewer. Raises UsageError for bands it lacks, SceneError
    for more than three that nothing tells apart.
    """
    if asked is not None:
        return _asked(src, asked, name)
    for names in (_interpreted(src), _described(src)):
        if all(colour in names for colour in COLOURS):
            return names["red"], names["green"], names["blue"]
    light = [n for n, kind in enumerate(src.colorinterp, start=1) if kind != ColorInterp.alpha]
    if len(light) > 3:
        raise SceneError(
            f"{name} has {len(light)} bands and does not say which are red, green and blue; name them, as in "
            f"--bands 3,2,1 for blue, green, red, near infrared, or --bands 1,2,3{_there(src)}"
        )
    return (light[0], light[1], light[2]) if len(light) == 3 else ((light or [1])[0],) * 3


def _asked(src: Any, asked: Sequence[Band], name: str) -> tuple[int, int, int]:
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
    return {kind.name: n for n, kind in reversed(list(enumerate(src.colorinterp, start=1)))}


def _described(src: Any) -> dict[str, int]:
    """Numbers by the names of bands, in small letters; the first of each."""
    return {text.strip().lower(): n for n, text in reversed(list(enumerate(src.descriptions, start=1))) if text}


def _there(src: Any) -> str:
    names = [text for text in src.descriptions if text]
    return f"; its bands are called {', '.join(names[:8])}{', ...' if len(names) > 8 else ''}" if names else ""
