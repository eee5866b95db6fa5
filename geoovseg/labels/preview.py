"""Pictures for people: labels over the scene, with a legend and a scale bar."""

from __future__ import annotations

import math
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont
from PIL.PngImagePlugin import PngInfo
from rasterio.enums import Resampling
from rasterio.errors import RasterioError
from rasterio.windows import Window

from geoovseg.errors import OutputError, SceneError, UsageError, first_line
from geoovseg.files import whole
from geoovseg.labels.names import is_one_of
from geoovseg.labels.read import category_names
from geoovseg.labels.record import RUN_TAG
from geoovseg.rasters.open import check_reachable, plain_open
from geoovseg.scene.scene import Scene, open_scene
from geoovseg.scene.views import metres_per_pixel

OPACITY = 0.55
_MARGIN, _SWATCH, _FONT = 14, 16, 15


def preview(
    scene: str | os.PathLike[str],
    labels: str | os.PathLike[str],
    picture: str | os.PathLike[str],
    *,
    bands: Sequence[int | str] | None = None,
    scale: str = "auto",
    size: int = 1200,
) -> str:
    """Draw a scene, its labels over it, a legend and a scale bar into a picture (PNG or JPEG); returns its name.

    Both are read at the picture's resolution, from overviews where there are any. `size` is the longer side in pixels
    of each of the two panes. Raises SceneError, UsageError (different grids) and OutputError.
    """
    target = Path(picture)
    if target.suffix.lower() not in (".png", ".jpg", ".jpeg"):
        raise UsageError(f"the picture {target} must end in .png or .jpg")
    with open_scene(scene, bands=bands, scale=scale) as found:
        src = found.measured()
        if is_one_of(target, (*src.files, os.fspath(labels))):
            raise OutputError(f"the picture {target} is the scene or its labels; choose another name")
        shape = _fit(src.shape, size)
        pixels = _pixels(src, shape)
        codes, colours, legend = _labels(labels, shape, src)
        metres = (metres_per_pixel(src.src) or (0.0, 0.0))[0] * src.shape[1] / shape[1]
    over = np.where((codes > 0)[..., None], pixels * (1 - OPACITY) + colours[codes] * OPACITY, pixels).astype(np.uint8)
    page = _compose([Image.fromarray(pixels), Image.fromarray(over)], legend, metres)
    try:
        with whole(target, target.suffix) as part:
            page.save(part, pnginfo=_marked())  # other formats leave it out
    except OSError as error:
        raise OutputError(f"cannot write the picture {target}: {first_line(error)}") from error
    return str(target)


def _marked() -> PngInfo:
    """What tells a picture of ours from a scene."""
    said = PngInfo()
    said.add_text(RUN_TAG, "{}")
    return said


def _fit(shape: tuple[int, int], size: int) -> tuple[int, int]:
    factor = min(1.0, size / max(shape))
    return max(1, round(shape[0] * factor)), max(1, round(shape[1] * factor))


def _pixels(scene: Scene, shape: tuple[int, int]) -> NDArray[np.uint8]:
    """Red, green, blue (h, w, 3) of the whole scene; black where it has no data."""
    light, valid = scene.read(Window(0, 0, scene.shape[1], scene.shape[0]), shape)
    return np.ascontiguousarray(np.moveaxis((light * valid * 255).round().astype(np.uint8), 0, -1))


def _labels(
    path: str | os.PathLike[str], shape: tuple[int, int], scene: Scene
) -> tuple[NDArray[np.int64], NDArray[np.uint8], list[tuple[str, tuple[int, int, int]]]]:
    """Codes (h, w) with 0 for nodata, the colour table, and (name, colour) of the classes that occur."""
    check_reachable(os.fspath(path))
    try:
        with plain_open(os.fspath(path)) as src:
            if src.crs != scene.crs or not _same_ground(src, scene):
                raise UsageError(f"{os.fspath(path)} and {scene.path} differ in size or place: labels of another scene")
            codes = src.read(1, out_shape=shape, resampling=Resampling.nearest).astype(np.int64)
            codes[codes == src.nodata] = 0
            table, names = _colormap(src), category_names(src)
    except (RasterioError, OSError) as error:
        raise SceneError(f"cannot read the labels {os.fspath(path)}: {error}") from error
    present = [int(c) for c in np.unique(codes) if c > 0]
    colours = np.zeros((max([0, *present]) + 1, 3), np.uint8)
    for code in present:
        colours[code] = table.get(code, (255, 255, 255, 255))[:3]
    return codes, colours, [(names.get(c, str(c)), tuple(int(v) for v in colours[c])) for c in present]  # type: ignore[misc]


def _colormap(src: Any) -> dict[int, tuple[int, int, int, int]]:
    try:
        table: dict[int, tuple[int, int, int, int]] = src.colormap(1)
    except ValueError:  # the raster has none
        return {}
    return table


def _same_ground(labels: Any, scene: Scene) -> bool:
    """Whether labels have the corners of a scene, whatever their resolution."""
    corners = ((0, 0), (1, 0), (0, 1))
    here, there = (
        [src.transform * (x * src.shape[1], y * src.shape[0]) for x, y in corners] for src in (labels, scene)
    )
    return np.allclose(here, there, rtol=1e-12, atol=1e-3 * abs(scene.transform.a))


def _compose(
    panes: Sequence[Image.Image], legend: Sequence[tuple[str, tuple[int, int, int]]], metres: float
) -> Image.Image:
    width, height = panes[0].size
    font = ImageFont.load_default(size=_FONT)
    columns = max(1, (2 * width + _MARGIN) // 170)
    rows = -(-len(legend) // columns)
    foot = _MARGIN * 2 + max(rows, 1) * (_SWATCH + 8)
    page = Image.new("RGB", (2 * width + 3 * _MARGIN, height + foot + _MARGIN), "white")
    for n, pane in enumerate(panes):
        page.paste(pane, (_MARGIN + n * (width + _MARGIN), _MARGIN))
    draw = ImageDraw.Draw(page)
    for n, (name, colour) in enumerate(legend):
        x, y = _MARGIN + n % columns * 170, height + 2 * _MARGIN + n // columns * (_SWATCH + 8)
        draw.rectangle((x, y, x + _SWATCH, y + _SWATCH), fill=colour, outline="black")
        draw.text((x + _SWATCH + 6, y - 2), name[:18], fill="black", font=font)
    if metres > 0:
        _scale_bar(draw, (_MARGIN * 2, height - _MARGIN), width, metres, font)
    return page


def _scale_bar(draw: ImageDraw.ImageDraw, at: tuple[int, int], width: int, metres: float, font: Any) -> None:
    """A bar of a round length, at most a third of the pane."""
    longest = width * metres / 3
    step = 10 ** math.floor(math.log10(longest))
    length = max(n * step for n in (1, 2, 5) if n * step <= longest)
    x, y = at
    end = x + round(length / metres)
    text = f"{length / 1000:g} km" if length >= 1000 else f"{length:g} m"
    draw.rectangle((x - 8, y - 30, max(end, x + 60) + 8, y + 8), fill="white")
    draw.rectangle((x, y - 4, end, y), fill="black")
    draw.text((x, y - 26), text, fill="black", font=font)
