"""Pictures for people: a scene, its labels over it in colours that are seen, a legend with shares, a scale bar."""

from __future__ import annotations

import base64
import json
import os
import tempfile
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from PIL.PngImagePlugin import PngInfo
from rasterio.windows import Window

from geoovseg.errors import GeoOVSegWarning, OutputError, SceneError, UsageError, first_line
from geoovseg.files import as_path, whole
from geoovseg.labels.contents import Counts, count, legend_of, named, palette_of, read_codes, read_stored, stored_counts
from geoovseg.labels.names import is_one_of
from geoovseg.labels.paint import of_classes, of_confidence
from geoovseg.labels.panes import Drawn, Looked, page_of, page_of_two
from geoovseg.labels.read import category_names, check_codes, check_confidence, names_in
from geoovseg.labels.record import RUN_TAG
from geoovseg.rasters.open import opened, plain_open
from geoovseg.scene.scene import Scene, open_scene
from geoovseg.scene.views import metres_per_pixel

MANY = 64
"""Codes without names and colours from which a raster may be an image."""
ORDER = "the order is SCENE LABELS OUT.png"


@dataclass(frozen=True, kw_only=True)
class PreviewResult:
    """The picture and what it shows; `to_json` is what `geoovseg preview --json` prints. It is a path, too."""

    picture: str
    size: tuple[int, int]
    """width and height in pixels"""
    classes: dict[str, dict[str, float]]
    """code, pixels and share of the pixels with data, by class name"""
    nodata: int
    """pixels of the labels without data"""

    def __fspath__(self) -> str:
        return self.picture

    def __str__(self) -> str:
        return self.picture

    def to_json(self) -> str:
        """One line of JSON."""
        return json.dumps(asdict(self), ensure_ascii=False)


def preview(
    scene: str | os.PathLike[str],
    labels: str | os.PathLike[str],
    picture: str | os.PathLike[str],
    *,
    bands: Sequence[int | str] | None = None,
    scale: str = "auto",
    size: int = 1200,
    confidence: bool = False,
    overlay: bool = False,
    beside: str | os.PathLike[str] | None = None,
    beside_scene: str | os.PathLike[str] | None = None,
) -> PreviewResult:
    """Draw a scene, its labels over it, a legend and a scale bar into a picture (PNG or JPEG).

    The legend has every class, its colour as it is in the picture and its share of the pixels with data, which are
    counted from all pixels. The scene under the labels is pale and without colours; code 0 is seen through. `size` is
    the longer side in pixels of each of the two panes; small scenes are enlarged by whole factors. With `confidence`,
    `labels` is a raster of confidence. With `overlay` there is one pane, of the labels over the scene; with `beside`,
    other labels stand next to these instead of the scene, as of another date, over `beside_scene` if that is given, and
    the legend has both shares.

    Raises SceneError (what cannot be read, or is no raster of labels), UsageError (different grids, labels in the
    scene's place) and OutputError.
    """
    target = as_path(picture, "the picture")
    if target.suffix.lower() not in (".png", ".jpg", ".jpeg"):
        raise UsageError(f"the picture {target} must end in .png or .jpg; {ORDER}")
    if beside is not None and (overlay or confidence):
        raise UsageError("labels beside others are classes in two panes: leave overlay and confidence aside")
    look = partial(_looked, bands=bands, scale=scale, size=size, confidence=confidence, target=target)
    first = look(scene, labels)
    if beside is not None:
        second = look(scene if beside_scene is None else beside_scene, beside)
        if second.light.shape != first.light.shape:
            raise UsageError(f"{os.fspath(beside)} is of another size than {os.fspath(labels)}: draw them one by one")
        page = page_of_two(first, second)
    else:
        page = page_of(first, overlay=overlay)
    _save(page, target)
    drawn = first.drawn
    return PreviewResult(picture=str(target), size=page.size, classes=_said(drawn), nodata=drawn.counts.nodata)


def embedded(scene: str, labels: str, kind: str, alt: str, **looks: Any) -> str:
    """A preview as an image that a page holds itself, `png` or `jpeg`. Raises what `preview` raises."""
    with tempfile.TemporaryDirectory(prefix="geoovseg-") as folder:
        made = preview(scene, labels, Path(folder, f"picture.{kind}"), **looks)
        content = base64.b64encode(Path(made.picture).read_bytes()).decode()
    return f'<img src="data:image/{kind};base64,{content}" alt="{alt}">'


def _looked(
    scene: str | os.PathLike[str],
    labels: str | os.PathLike[str],
    *,
    bands: Sequence[int | str] | None,
    scale: str,
    size: int,
    confidence: bool,
    target: Path,
) -> Looked:
    with open_scene(scene, bands=bands, scale=scale) as found:
        if is_one_of(target, (*found.files, os.fspath(labels))):
            raise OutputError(f"the picture {target} is the scene or its labels; choose another name")
        with _labels_of(found, labels, confidence) as (src, seen):
            shape, factor = _fit((seen.height, seen.width), size)
            drawn = (_confidence if confidence else _classes)(src, shape)
        light, valid = _light(found.measured(), seen, shape)
        metres = (metres_per_pixel(found.src) or (0.0, 0.0))[0] * seen.width / shape[1] / factor
    light, valid = _enlarged(light, factor), _enlarged(valid, factor)
    return Looked(light=light, valid=valid, drawn=_as_large(drawn, factor), metres=metres)


@contextmanager
def _labels_of(scene: Scene, path: str | os.PathLike[str], confidence: bool) -> Iterator[tuple[Any, Window]]:
    """The labels of a scene, open, and the part of it that they are of.

    Raises SceneError and UsageError, which say what was given as what.
    """
    name = os.fspath(path)
    if RUN_TAG in scene.src.tags():
        raise UsageError(f"{scene.path} is given as the scene, but geoovseg made it: labels or a picture; {ORDER}")
    with opened(name, f"the labels {name}") as src:
        if confidence:
            check_confidence(src, name)
        else:
            _check_labels(src, scene)
        if src.crs != scene.crs or (part := _part(src, scene)) is None:
            raise UsageError(f"{name} and {scene.path} differ in size or place: labels of another scene")
        yield src, part


def _check_labels(src: Any, scene: Scene) -> None:
    """Refuse what is no raster of class codes. Raises SceneError, also for a scene and its labels that are swapped."""
    try:
        check_codes(src)
    except SceneError as error:
        raise SceneError(f"{error}; {ORDER}, and preview --confidence draws one of confidence") from error
    if scene.src.count == 1 and not _is_named(src) and _is_named(scene.src):
        raise SceneError(f"{scene.path} is given as the scene, but has named classes, which {src.name} lacks; {ORDER}")


def _is_named(src: Any) -> bool:
    return bool(category_names(src))


def _part(labels: Any, scene: Scene) -> Window | None:
    """The pixels of a scene that labels cover, at any resolution; none where they lie elsewhere, or between pixels."""
    if scene.transform.is_degenerate:
        return None
    to_pixels = ~scene.transform @ labels.transform
    corners = [to_pixels * (x * labels.width, y * labels.height) for x, y in ((0, 0), (1, 1), (1, 0))]
    whole = np.rint(corners).astype(int)
    (left, top), (right, bottom), beside = whole.tolist()
    inside = 0 <= left < right <= scene.shape[1] and 0 <= top < bottom <= scene.shape[0]
    if not (inside and beside == [right, top] and np.allclose(corners, whole, rtol=1e-9, atol=1e-3)):
        return None
    part = Window(left, top, right - left, bottom - top)
    nowhere = scene.transform.is_identity and labels.transform.is_identity
    placed = not nowhere or (part.height, part.width) == scene.shape
    return part if placed else None


def _fit(shape: tuple[int, int], size: int) -> tuple[tuple[int, int], int]:
    """Rows and columns to read, and the whole factor by which they are enlarged."""
    shrink = min(1.0, size / max(shape))
    return (max(1, round(shape[0] * shrink)), max(1, round(shape[1] * shrink))), max(1, size // max(shape))


def _enlarged(values: NDArray[Any], factor: int) -> NDArray[Any]:
    return values.repeat(factor, 0).repeat(factor, 1)


def _as_large(drawn: Drawn, factor: int) -> Drawn:
    return replace(drawn, layer=replace(drawn.layer, index=_enlarged(drawn.layer.index, factor)))


def _light(scene: Scene, part: Window, shape: tuple[int, int]) -> tuple[NDArray[np.uint8], NDArray[np.bool_]]:
    """Red, green, blue (h, w, 3) of a part of a scene, black where it has no data, and where it has some (h, w)."""
    light, valid = scene.read(part, shape)
    return np.ascontiguousarray(np.moveaxis((light * valid * 255).round().astype(np.uint8), 0, -1)), valid


def _classes(src: Any, shape: tuple[int, int]) -> Drawn:
    """The classes of open labels."""
    counts = count(src)
    entries = legend_of(src, counts, names_in(src, counts.pixels))
    if len(entries) > MANY and not category_names(src) and not palette_of(src):
        message = f"{src.name} has {len(entries)} codes without names or colours; if it is an image, {ORDER}"
        warnings.warn(message, GeoOVSegWarning, 4)
    with _as_counted(src, counts) as whole:
        layer = of_classes(read_codes(whole, Window(0, 0, src.width, src.height), shape), entries)
    return Drawn(layer=layer, entries=entries, counts=counts, confidence=False)


@contextmanager
def _as_counted(src: Any, counts: Counts) -> Iterator[Any]:
    """Open labels, without their overviews where a table says that pixels were changed since these were made."""
    stored = {code: pixels for code, pixels in stored_counts(src).items() if pixels}
    if not src.overviews(1) or stored in ({}, counts.pixels):
        yield src
        return
    with plain_open(src.name, OVERVIEW_LEVEL="NONE") as whole:
        yield whole


def _confidence(src: Any, shape: tuple[int, int]) -> Drawn:
    """An open raster of confidence."""
    stored = read_stored(src, Window(0, 0, src.width, src.height), shape)
    values = np.ma.masked_invalid(stored.astype(np.float64) * src.scales[0] + src.offsets[0])
    none = Counts(pixels={}, area_m2={}, nodata=int(np.ma.getmaskarray(values).sum()))
    return Drawn(layer=of_confidence(values), entries=[], counts=none, confidence=True)


def _said(drawn: Drawn) -> dict[str, dict[str, float]]:
    """Figures by class name."""
    return {
        name: {"code": entry.code, "pixels": entry.pixels, "share": drawn.counts.share(entry.code)}
        for name, entry in named(drawn.entries).items()
    }


def _save(page: Image.Image, target: Path) -> None:
    """Write the picture, whole before it has its name. Raises OutputError."""
    said = PngInfo()
    said.add_text(RUN_TAG, "{}")  # tells a picture of ours from a scene; other formats leave it out
    try:
        with whole(target) as part:
            page.save(part, pnginfo=said, quality=92)
    except OSError as error:
        raise OutputError(f"cannot write the picture {target}: {first_line(error)}") from error
