"""What names of bands say: which light they are, or which number they have among the bands of a satellite."""

from __future__ import annotations

import re

COLOURS = ("red", "green", "blue")
LIGHT = r"\b(red|green|blue)\b|nir|infra|swir|therm|red.?edge"
"""In names of bands that say which light they are."""
SAID = re.compile(LIGHT, re.IGNORECASE)
_NOT_ALPHA = re.compile(rf"{LIGHT}|\bpan\b", re.IGNORECASE)
"""In names of bands that are none of transparency."""
_CODE = re.compile(r"(?<![a-z0-9])b(?:and)?[ _.#-]{0,2}(0?)(\d{1,2}|8a)(?![a-z0-9])", re.IGNORECASE)
_WORD = re.compile(r"[a-z]+")
_OTHER = frozenset(
    {"edge", "rededge", "nir", "near", "infrared", "swir", "tir", "thermal", "pan", "coastal", "aerosol"}
    | {"mask", "quality", "qa", "std", "index", "ratio"}
)
"""Words by which a band is none of these colours, though it has one's name."""
_WAVE = re.compile(
    r"(\d+(?:\.\d+)?)\s*(?:nm|nano ?met(?:er|re)s?|[uµμ]m|micro ?met(?:er|re)s?|microns?)\b", re.IGNORECASE
)


def code_of(name: str) -> str | None:
    """`4` of B04, B4, SR_B4, Band 4 - Red, LC08_..._B4; `8A` of B8A; none where there is no such number, or two."""
    found = {number.upper() for _, number in _CODE.findall(name)}
    return found.pop() if len(found) == 1 else None


def has_zero(name: str) -> bool:
    """Whether the number in a name has two digits, as in B04."""
    return any(zero and len(number) == 1 for zero, number in _CODE.findall(name))


def colour_of(name: str) -> str | None:
    """`red`, `green`, `blue` or `nir` where a name says that and nothing else: Band 4 - Red, but not Red Edge."""
    words = set(_WORD.findall(name.lower()))
    if words & {"nir", "infrared"} and not words & {"swir", "edge", "shortwave", "mid"} and not words & {*COLOURS}:
        return "nir"
    colours = [colour for colour in COLOURS if colour in words]
    return colours[0] if len(colours) == 1 and not words & _OTHER else None


def wavelength_of(text: str) -> float | None:
    """Micrometres in a name such as `band 46 (665.3 nm)`."""
    found = _WAVE.search(text)
    return None if found is None else micrometres(found[1])


def micrometres(text: str) -> float | None:
    """A wavelength of light, given in micrometres or nanometres, which are told apart by their size."""
    try:
        value = float(text)
    except ValueError:
        return None
    return value if 0.2 <= value <= 20 else value / 1000 if 200 <= value <= 20_000 else None


def is_light(name: str, number: int) -> bool:
    """Whether a name says that a band is light, not transparency, by words or as a satellite's band.

    Names that only repeat the number of the band say nothing.
    """
    return _NOT_ALPHA.search(name) is not None or code_of(name) not in (None, str(number))
