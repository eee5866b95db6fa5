"""Text in pictures, in a font that has its letters; letters that no font here has are shown by their code points.

Pillow brings a font of ASCII. Others are looked for on the system and in what is installed: OpenCV 5 has letters of
Latin, Greek, Cyrillic, Chinese, Japanese and Korean in it.
"""

from __future__ import annotations

import unicodedata
from collections.abc import Callable, Iterator
from functools import cache, partial
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from PIL import Image, ImageDraw, ImageFont, features

SIZE, LINE, BASE = 15, 22, 16
"""Pixels: of letters, of a line, and from the top of a line down to the foot of letters."""
FONTS = (
    "DejaVuSans.ttf", "NotoSans-Regular.ttf", "LiberationSans-Regular.ttf", "arial.ttf", "Arial.ttf", "segoeui.ttf",
    "Arial Unicode.ttf", "NotoSansCJK-Regular.ttc", "wqy-microhei.ttc", "wqy-zenhei.ttc", "DroidSansFallbackFull.ttf",
    "msyh.ttc", "PingFang.ttc", "Hiragino Sans GB.ttc", "NotoSansArabic-Regular.ttf", "NotoSansHebrew-Regular.ttf",
    "NotoSansDevanagari-Regular.ttf", "NotoSansThai-Regular.ttf", "Nirmala.ttf", "unifont.ttf",
)  # fmt: skip
"""Files of fonts that systems have, the first that has the letters is taken."""
_RIGHT_TO_LEFT = ("R", "AL")
_NO_LETTER = "\uffff"
Face = Callable[[str], Image.Image]
"""Draws a line of text, white on black, as wide as it is."""


def line(text: str) -> tuple[Image.Image, str]:
    """A line of text, white on black, `LINE` pixels high, and the letters that had to be spelled by code points."""
    text = unicodedata.normalize("NFC", " ".join(text.split()))
    lacking: dict[Face, set[str]] = {}
    for face in _faces():
        lacking[face] = {letter for letter in text if not _has(face, letter)}
        if not lacking[face]:
            return face(text), ""
    best = min(lacking, key=lambda face: len(lacking[face]))
    spelled = [_spelled(letter) if letter in lacking[best] else letter for letter in text]
    missing = "".join(letter for letter in dict.fromkeys(text) if _spelled(letter) == _code(letter))
    return best(" ".join("".join(spelled).split())), "".join(letter for letter in missing if letter in lacking[best])


def _spelled(letter: str) -> str:
    """A letter without its accents, if it is Latin then, else its code point."""
    plain = unicodedata.normalize("NFKD", letter).encode("ascii", "ignore").decode()
    return plain if plain.strip() else _code(letter)


def _code(letter: str) -> str:
    return f"U+{ord(letter):04X} "


def _faces() -> Iterator[Face]:
    """Fonts, from the one that is always there to those that are looked for."""
    yield _own()
    for name in FONTS:
        if (found := _of_system(name)) is not None:
            yield found
    if (found := _of_opencv()) is not None:
        yield found


@cache
def _own() -> Face:
    """Pillow's own font."""
    return partial(_by_freetype, ImageFont.load_default(size=SIZE))


@cache
def _of_system(name: str) -> Face | None:
    """A font of the system, or of matplotlib where that is installed."""
    spec = find_spec("matplotlib")
    beside = Path(spec.origin).parent / "mpl-data" / "fonts" / "ttf" / name if spec and spec.origin else Path(name)
    try:
        return partial(_by_freetype, ImageFont.truetype(str(beside) if beside.is_file() else name, SIZE))
    except OSError:
        return None


@cache
def _of_opencv() -> Face | None:
    """The font inside OpenCV, from its version 5 on."""
    import cv2

    return _by_opencv if hasattr(cv2, "FontFace") else None


def _by_freetype(font: Any, text: str) -> Image.Image:
    ink = Image.new("L", (int(font.getlength(text)) + 2, LINE))
    ImageDraw.Draw(ink).text((0, BASE), text, fill=255, font=font, anchor="ls")
    return ink


def _by_opencv(text: str) -> Image.Image:
    import cv2
    import numpy as np

    made: Any = cv2  # its types lack what is new in version 5
    how = made.FontFace("uni"), SIZE - 1
    left, _, width, _ = made.getTextSize((1, 1), text, (0, 0), *how)
    ink = np.zeros((LINE, left + width + 2, 3), np.uint8)
    made.putText(ink, text, (0, BASE), (255, 255, 255), *how)
    return Image.fromarray(ink[..., 0])


@cache
def _has(face: Face, letter: str) -> bool:
    """Whether a font has a letter, that is, draws something else than for what is none.

    Those from right to left also need a library that puts them in order.
    """
    if letter.isascii() or unicodedata.category(letter) in ("Cf", "Zs"):  # what shows nothing
        return True
    if unicodedata.bidirectional(letter) in _RIGHT_TO_LEFT and (face is _by_opencv or not features.check("raqm")):
        return False
    return face(letter).tobytes() != face(_NO_LETTER).tobytes()
