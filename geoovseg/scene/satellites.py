"""Which bands are red, green and blue by the ways of satellites: wavelengths, and the numbers that missions give."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import PurePath
from typing import Any

from geoovseg.rasters.band_names import COLOURS, code_of, colour_of, has_zero, micrometres, wavelength_of
from geoovseg.rasters.vrt import alpha_of

MOST = 2048
"""Bands that are asked for their wavelengths; hyperspectral images have some hundreds, damaged files more."""
LIMITS = {
    "red": (0.62, 0.665, 0.70),
    "green": (0.51, 0.56, 0.59),
    "blue": (0.45, 0.49, 0.515),
    "nir": (0.77, 0.842, 0.9),
}
"""Micrometres: the band nearest to the middle one is taken, if it lies between the others."""
_TELLING = re.compile(
    r"satellite|spacecraft|platform|constellation|mission|sensor|instrument|product|data.?set|source|title|descr|scene|"
    r"granule|tile.?id|collection|system.?index",
    re.IGNORECASE,
)
"""In names of tags that may say what took an image."""
_PRODUCT = re.compile(r"^(S2[ABC]_|L[COTEM]0\d_|L[CETM]\d{14}|HLS\.|M[OYC]D\d\d)|\.SAFE\b", re.IGNORECASE)
"""In names of folders; anything may lie in one that is called sentinel2."""
_PLANET = re.compile(r"(?<![A-Z0-9])\d{8}_\d{6}(_\d+)?_[0-9a-z]{4}_\d[AB]_(Basic)?Analytic", re.IGNORECASE)
"""In names of PlanetScope's files, whose bands have an order and often no names."""
_ORDERS = {4: (3, 2, 1, 4), 8: (6, 4, 2, 8)}
"""Red, green, blue, near infrared of them, by how many there are."""


@dataclass(frozen=True, kw_only=True)
class Light:
    """Numbers of bands by colour, and what says so."""

    bands: Mapping[str, int]
    by: str = ""
    """in words; none where the bands themselves are called that"""

    @property
    def visible(self) -> tuple[int, int, int] | None:
        """Red, green and blue, if all are known."""
        found = [self.bands[colour] for colour in COLOURS if colour in self.bands]
        return (found[0], found[1], found[2]) if len(found) == 3 else None


@dataclass(frozen=True)
class Platform:
    """How a mission numbers its bands."""

    name: str
    said: str
    """a pattern of how it is named in tags and files, with blanks for underscores"""
    codes: Mapping[str, str]
    """numbers by colour; none where they would have to be known better"""


def _codes(red: int, green: int, blue: int, nir: int | None = None) -> dict[str, str]:
    given = zip((*COLOURS, "nir"), (red, green, blue, nir), strict=True)
    return {colour: str(number) for colour, number in given if number is not None}


PLATFORMS = (
    Platform(
        "Sentinel-2",
        r"sentinel.?2|\bS2[ABC]\b|\bS2 (MSI|L1C|L2A|SR|TOA)|\bT\d\d[A-Z]{3} \d{8}T\d{6}|\bHLS.S30",
        _codes(4, 3, 2, 8),
    ),
    Platform("Landsat 8/9", r"landsat.?[89]\b|\bL[CO]0[89]\b|\bLC[89]\d{13}|\bOLI\b|\bHLS.L30", _codes(4, 3, 2, 5)),
    Platform("Landsat 4-7", r"landsat.?[457]\b|\bL[TE]0[457]\b|\bL[TE][457]\d{13}|\bETM\b", _codes(3, 2, 1, 4)),
    Platform("Landsat MSS", r"landsat.?[123]\b|\bLM0[1-5]\b|\bLM[1-5]\d{13}|\bMSS\b", {}),
    Platform("MODIS", r"\bMODIS\b|\bM[OYC]D(09|13|43)|\bsur refl", _codes(1, 4, 3, 2)),
    Platform("Himawari", r"himawari", _codes(3, 2, 1, 4)),
    Platform("ASTER", r"\bASTER\b|\bAST [L0]", {}),
    Platform("CBERS-4 MUX", r"CBERS.4A?.MUX", _codes(7, 6, 5, 8)),
    Platform("CBERS-4A WPM", r"CBERS.4A?.WPM", _codes(3, 2, 1, 4)),
)
SENTINEL, OLI, TM = PLATFORMS[:3]


def told(src: Any, name: str) -> Iterator[Light]:
    """What is said of the bands of an open raster, the surest first: by their names, wavelengths, or mission."""
    names = [text or "" for text in src.descriptions[:MOST]]
    yield Light(bands=_by_words(names))
    if src.count >= len(COLOURS):
        yield Light(bands=_by_waves(_waves(src, names)), by="by their wavelengths")
        yield _by_mission(src, name, names)


def _by_words(names: Sequence[str]) -> dict[str, int]:
    """Bands that are called by a colour: exactly so, or as the only one whose name has it."""
    found: dict[str, int] = {}
    for colour in (*COLOURS, "nir"):
        exact = [n for n, text in enumerate(names, start=1) if text.strip().lower() == colour]
        worded = [n for n, text in enumerate(names, start=1) if colour_of(text) == colour]
        if exact or len(worded) == 1:
            found[colour] = (exact or worded)[0]
    return found


def _by_waves(waves: Mapping[int, float]) -> dict[str, int]:
    """Bands by wavelengths in micrometres: for each colour the nearest within its limits."""
    found = {}
    for colour, (low, middle, high) in LIMITS.items():
        near = [(abs(wave - middle), n) for n, wave in waves.items() if low <= wave <= high]
        if near:
            found[colour] = min(near)[1]
    return found


def _waves(src: Any, names: Sequence[str]) -> dict[int, float]:
    """Wavelengths by number of the bands that have one: in their tags, in a list for all, or in their names."""
    listed = _listed(src)
    if len(listed) != src.count:
        listed = []
    found = {}
    for n, text in enumerate(names, start=1):
        wave = wavelength(src, n) or (micrometres(listed[n - 1]) if listed else None) or wavelength_of(text)
        if wave is not None:
            found[n] = wave
    return found


def wavelength(src: Any, number: int) -> float | None:
    """Micrometres of a band of an open raster, by the band's tags."""
    tags = {**src.tags(number), **src.tags(number, ns="IMAGERY")}
    keys = [key for key in tags if re.fullmatch(r"(cent(er|re|ral)_?)?wave_?length(_?(um|nm))?", key, re.IGNORECASE)]
    return next((wave for key in keys if (wave := micrometres(tags[key])) is not None), None)


def _listed(src: Any) -> list[str]:
    """A list of all wavelengths, as ENVI headers have it."""
    for space in ("ENVI", None):
        tags = {key.lower(): text for key, text in src.tags(ns=space).items()}
        if "wavelength" in tags:
            return re.findall(r"[\d.eE+-]+", tags["wavelength"])
    return []


def _by_mission(src: Any, name: str, names: Sequence[str]) -> Light:
    """Bands by the numbers that the mission gives them, if there is no doubt which mission it is."""
    texts = [*_tags(src), *names, PurePath(name.partition("?")[0]).name]
    plain = all(code_of(text) in (None, str(n)) for n, text in enumerate(names, start=1))
    if _PLANET.search(texts[-1]) and plain:
        return _in_order(src)
    missions = _missions(texts) or next(filter(None, map(_missions, _folders(name))), _by_names_alone(names))
    return Light(bands=_numbered(names, missions), by="/".join(each.name for each in missions))


def _in_order(src: Any) -> Light:
    """PlanetScope's bands."""
    alpha = alpha_of(src)
    light = [n for n in range(1, src.count + 1) if n != alpha]
    order = zip((*COLOURS, "nir"), _ORDERS.get(len(light), ()), strict=False)
    return Light(bands={colour: light[place - 1] for colour, place in order}, by="PlanetScope")


def _tags(src: Any) -> list[str]:
    """What tags say that may name a mission."""
    tags = [*src.tags().items(), *src.tags(ns="IMAGERY").items()]
    return [text for key, text in tags if _TELLING.search(key) and len(text) < 4096]


def mission_of(path: str) -> str | None:
    """The mission that a file is of by its name, or by those of its folders."""
    found = _missions([PurePath(path).name]) or next(filter(None, map(_missions, _folders(path))), [])
    return found[0].name if len(found) == 1 else None


def _folders(name: str) -> Iterator[list[str]]:
    """Names of the folders and archives a file lies in, the nearest first, where they are those of a product."""
    for part in reversed(PurePath(name.partition("?")[0]).parts[:-1]):
        if _PRODUCT.search(part):
            yield [part]


def _missions(texts: Sequence[str]) -> list[Platform]:
    """The missions that texts name."""
    return [each for each in PLATFORMS if any(_names(each, text) for text in texts)]


def _names(mission: Platform, text: str) -> bool:
    """Whether a text names a mission; an underscore stands between words."""
    return re.search(mission.said, text.replace("_", " "), re.IGNORECASE) is not None


def _by_names_alone(names: Sequence[str]) -> list[Platform]:
    """The mission that alone has such bands.

    Sentinel-2 has a B8A, and its B02, B03, B04 have two digits, unless these are simply the bands' places. Of Landsat's
    reflectances, SR_B6 is there since Landsat 8, before which B6 was a temperature.
    """
    codes = [code_of(text) for text in names]
    known = [code for code in codes if code is not None]
    padded = {code for code, text in zip(codes, names, strict=True) if code and has_zero(text)}
    places = known == [str(n) for n in range(1, len(known) + 1)]
    if "8A" in known or ({"2", "3", "4"} <= padded and not places and max(map(int, known)) <= 12):
        return [SENTINEL]
    said = " ".join(names).upper()
    signs = ((OLI, r"SR_B6\b|ST_B10\b"), (TM, r"ST_B6\b"))
    found = [mission for mission, sign in signs if re.search(sign, said)]
    return found if len(found) == 1 else []


def _numbered(names: Sequence[str], missions: Sequence[Platform]) -> dict[str, int]:
    """Bands of the colours whose numbers all these missions have alike, and which one band has."""
    codes = [code_of(text) for text in names]
    found = {}
    for colour in (*COLOURS, "nir"):
        wanted = {each.codes.get(colour) for each in missions}
        code = wanted.pop() if len(wanted) == 1 else None
        if code is not None and codes.count(code) == 1:
            found[colour] = codes.index(code) + 1
    return found
