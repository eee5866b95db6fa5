"""Which bands of a raster are red, green and blue: never a guess where a wrong one would not show."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from typing import Any

from rasterio.enums import ColorInterp

from geoovseg.errors import GeoOVSegWarning, SceneError, UsageError, some
from geoovseg.rasters.band_names import COLOURS, SAID, code_of
from geoovseg.rasters.vrt import alpha_of
from geoovseg.scene.satellites import Light, told

Band = int | str
"""A band by its number from 1, or by its name."""
Bands = tuple[int, int, int]
NO_LIGHT = ("hue", "saturation", "lightness", "cyan", "magenta", "yellow", "black", "Y", "Cb", "Cr")
"""What bands can be instead, by colour interpretation."""


def choose_bands(src: Any, asked: Sequence[Band] | None, name: str) -> Bands:
    """Numbers of the bands for red, green and blue of an open raster.

    Those that are asked for; else what the file calls red, green and blue, by colour interpretation, by name, by
    wavelength or as its satellite numbers them, where that leaves no doubt; else its three bands, or its first one
    three times where it has fewer. Raises UsageError for bands it lacks, SceneError for more than three that nothing
    tells apart.
    """
    known = [light for light in told(src, name) if light.bands]
    if asked is not None:
        return _asked(src, asked, name, known)
    by_colour = _colours(_interpreted(src))
    light = None if _is_sure(by_colour) else next((light for light in known if light.visible), None)
    if light is not None and light.visible:
        _tell(src, light.visible, light.by, name)
        return light.visible
    found = by_colour or _unnamed(src, name)
    _warn_of_names(src, found, name)
    return found


def _is_sure(by_colour: Bands | None) -> bool:
    """Whether colours are the file's own: red, green, blue in this order are written into GeoTIFFs that nobody asked.

    Where another way of saying so differs from that order, it counts more.
    """
    return by_colour is not None and by_colour != tuple(sorted(by_colour))


def _tell(src: Any, bands: Bands, by: str, name: str) -> None:
    """Say which bands are taken for what, where the file does not say so in these words."""
    if by:
        called = ", ".join(src.descriptions[band - 1] or str(band) for band in bands)
        how = by if by.startswith("by ") else f"({by})"
        warnings.warn(f"bands {called} of {name} are seen as red, green, blue {how}", GeoOVSegWarning, 4)


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
    """Warn where the names of bands say that they are, or may be, other light than they are seen as."""
    called = [src.descriptions[band - 1] or "" for band in bands]
    other = any(SAID.search(text) and colour not in text.lower() for text, colour in zip(called, COLOURS, strict=True))
    coded = any(code_of(text) not in (None, str(band)) for text, band in zip(called, bands, strict=True))
    if len(set(bands)) > 1 and (other or coded):
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


def _asked(src: Any, asked: Sequence[Band], name: str, known: Sequence[Light]) -> Bands:
    text = f"--bands {','.join(map(str, asked))}"
    numbers = [_number(src, band, known) if isinstance(band, str) else band for band in asked]
    if None in numbers:
        raise UsageError(f"{text}: {name} has no band {asked[numbers.index(None)]!r}{_there(src)}")
    found = [n for n in numbers if n is not None and 1 <= n <= src.count]
    if len(found) != 3 or len(asked) != 3:
        raise UsageError(f"{text}: three bands between 1 and {src.count} are needed for {name}")
    return found[0], found[1], found[2]


def _number(src: Any, band: str, known: Sequence[Light]) -> int | None:
    """The band that is called so, has this number among those of its satellite, or is of this colour."""
    called, codes = _described(src), [code_of(text or "") for text in src.descriptions]
    if (low := band.strip().lower()) in called:
        return called[low]
    if (code := code_of(band)) is not None and codes.count(code) == 1:
        return codes.index(code) + 1
    interpreted = _interpreted(src)
    if low in COLOURS and _is_sure(_colours(interpreted)):
        return interpreted[low]
    return next((light.bands[low] for light in known if low in light.bands), interpreted.get(low))


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
