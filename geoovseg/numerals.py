"""Numbers as people write them in options and files: decimal, in ASCII, and nothing else that Python would take."""

from __future__ import annotations

import re
import sys

_WHOLE = re.compile(r"[+-]?[0-9]+")
_NUMBER = re.compile(r"[+-]?([0-9]+(\.[0-9]*)?|\.[0-9]+)([eE][+-]?[0-9]+)?")


def whole(text: str) -> int:
    """A whole number, as `12`. Raises ValueError for everything else, also `1_000` and digits of other scripts."""
    if not _WHOLE.fullmatch(text.strip()):
        raise ValueError(f"{text!r} is no whole number")
    return int(text)


def number(text: str) -> float:
    """A number, as `0.5` or `1e-3`. Raises ValueError for everything else, and for what is too large or too small."""
    found = float(text) if _NUMBER.fullmatch(text.strip()) else float("nan")
    if not (found == 0 or sys.float_info.min <= abs(found) <= sys.float_info.max):
        raise ValueError(f"{text!r} is no number that can be used")
    return found
