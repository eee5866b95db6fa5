"""Ground truth that says its classes by colours: what `#rrggbb` means, in bands of red, green, blue or a palette."""

from __future__ import annotations

import re
from typing import Any

import numpy as np
from numpy.typing import NDArray
from rasterio.enums import ColorInterp
from rasterio.windows import Window

from geoovseg.errors import SceneError, UsageError, VocabularyError, first_line
from geoovseg.labels.read import Reader, where_valid
from geoovseg.prompts import colour_tables, find_colours, read_text
from geoovseg.rasters.open import GDAL_ERRORS

NOTHING = "nodata"
"""The name of colours in a table that stand for no class."""
_COLOUR = re.compile(r"#[0-9a-fA-F]{6}")
_LINE = re.compile(r"([^:]+?)\s*(?::.*?)?\s*(#[0-9a-fA-F]{6})")


def colour_code(text: str) -> int | None:
    """`#rrggbb` as one number; none for other text."""
    return int(text[1:], 16) if _COLOUR.fullmatch(text) else None


def colour_text(code: int) -> str:
    """One number as `#rrggbb`."""
    return f"#{code:06x}"


def read_colours(name_or_file: str) -> dict[int, str]:
    """Class names by colour, as one number: a published table by name, or a file with `name #rrggbb` in each line.

    Raises VocabularyError.
    """
    path = find_colours(name_or_file)
    found: dict[int, str] = {}
    for number, line in enumerate(read_text(path, "table of colours").splitlines(), start=1):
        if not line.strip() or (line.startswith("#") and colour_code(line.strip()) is None):
            continue
        if (said := _LINE.fullmatch(line.strip())) is None:
            raise VocabularyError(f"{path}, line {number}: write name #rrggbb, as in building #0000ff")
        found[int(said[2][1:], 16)] = said[1]
    return found


def colour_bands(src: Any) -> list[int]:
    """The bands of red, green, blue of ground truth in colours; none where it has one band of codes.

    Raises SceneError for what is neither.
    """
    opaque = [band for band, kind in enumerate(src.colorinterp, start=1) if kind != ColorInterp.alpha]
    if len(opaque) == 1:
        return []
    if len(opaque) == 3 and {src.dtypes[band - 1] for band in opaque} == {"uint8"}:
        said = {kind: band for band, kind in enumerate(src.colorinterp, start=1)}
        colours = (ColorInterp.red, ColorInterp.green, ColorInterp.blue)
        return [said[kind] for kind in colours] if all(kind in said for kind in colours) else opaque
    raise SceneError(
        f"{src.name} has {src.count} bands of {src.dtypes[0]}; ground truth has one band of codes, or three of 8 bits "
        "with a colour for each class"
    )


def need_colours(name: str) -> UsageError:
    """What to say where nobody said what colours mean."""
    return UsageError(
        f"{name} has bands of red, green and blue, so its classes are colours: say which is which, as in "
        f"--map '#0000ff=building', or name their table: --colours {'|'.join(colour_tables())} or a file"
    )


def colour_reader(src: Any, bands: list[int], *, own_nodata: bool) -> Reader:
    """Read colours of windows of an open raster, each as one number; -1 without data. Raises SceneError."""

    def read(window: Window) -> NDArray[np.int64]:
        try:
            red, green, blue = src.read(bands, window=window).astype(np.int64)
            valid = where_valid(src, window, own_nodata=own_nodata)
        except GDAL_ERRORS as error:
            raise SceneError(f"cannot read {src.name}: {first_line(error)}") from error
        return np.where(valid, (red << 16) + (green << 8) + blue, -1)

    return read


def palette_of(src: Any) -> dict[int, int]:
    """The colour of each code, as one number, of an open raster with a palette."""
    try:
        table = src.colormap(1)
    except ValueError:
        return {}
    return {code: (red << 16) + (green << 8) + blue for code, (red, green, blue, _) in table.items()}
