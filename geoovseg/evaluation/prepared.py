"""Images of a data set with their truth, as they lie on the disk, and whether they are prepared as they should be."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from rasterio.errors import NotGeoreferencedWarning

from geoovseg.errors import SceneError, UsageError, first_line, hushed, some
from geoovseg.evaluation.colours import read_colours
from geoovseg.evaluation.datasets import UNKNOWN, DataSet
from geoovseg.evaluation.drawn import from_shapes
from geoovseg.models.download import file_sha256
from geoovseg.rasters.open import GDAL_ERRORS, opened

LIGHT = 128
"""Truth in dark and light: from here it is light."""


@dataclass(frozen=True)
class Pair:
    """An image and its truth."""

    name: str
    """of the image, seen from its folder, without suffix"""
    image: str
    truth: str


def pairs(data: DataSet, images: str, truth: str, split: str | None = None) -> list[Pair]:
    """All images with their truth, in the order of their names' bytes, which decides what is seen together.

    Raises UsageError where there are not as many as there should be, or one has no truth.
    """
    found = _stems(images, data.image_suffix)
    if split is not None:
        found = _chosen(found, split, data.image_suffix)
    _check_count(data, len(found), images)
    both = [Pair(n, f"{images}/{n}{data.image_suffix}", f"{truth}/{n}{data.truth_suffix}") for n in found]
    missing = [os.path.relpath(pair.truth, truth) for pair in both if not os.path.isfile(pair.truth)]
    if missing:
        raise UsageError(f"--truth {truth} has no {some(missing, 2)}; {_laid_out(data)}")
    return both


def _stems(folder: str, suffix: str) -> list[str]:
    if not os.path.isdir(folder):
        raise UsageError(f"--images {folder} is no folder")
    paths = (os.path.relpath(os.path.join(at, name), folder) for at, _, files in os.walk(folder) for name in files)
    return sorted((path.removesuffix(suffix) for path in paths if path.endswith(suffix)), key=os.fsencode)


def _chosen(found: Sequence[str], split: str, suffix: str) -> list[str]:
    """Those that a file names, one a line, with or without suffix. Raises UsageError, also for what is not there."""
    try:
        with open(split, encoding="utf-8") as file:
            lines = [line.strip() for line in file if line.strip()]
    except (OSError, UnicodeDecodeError) as error:
        raise UsageError(f"--split {split} cannot be read: {first_line(error)}") from error
    known = {*found, *map(os.path.basename, found)}
    tries = ((line, line.removesuffix(suffix), os.path.splitext(line)[0]) for line in lines)
    wanted = [next((name for name in names if name in known), None) for names in tries]
    if missing := [line for line, name in zip(lines, wanted, strict=True) if name is None]:
        raise UsageError(f"--split {split} names {some(missing, 3)}, which is not among the images")
    there = set(wanted)
    return [name for name in found if name in there or os.path.basename(name) in there]


def _check_count(data: DataSet, count: int, images: str) -> None:
    wanted = data.expect.get("images")
    if not count or (wanted is not None and count != wanted):
        due = f", and {data.title} has {wanted}" if wanted else ""
        raise UsageError(
            f"--images {images} has {count} files that end in {data.image_suffix}{due}; {_laid_out(data)}. "
            f"For a part of it, write a file of your own with another `expect`; `geoovseg benchmark {data.name} "
            "--show` prints this one"
        )


def _laid_out(data: DataSet) -> str:
    return f"{data.title} is to be laid out so: {data.layout or 'see its file'}"


def _pixels(path: str, what: str, *, colours: bool = False) -> NDArray[Any]:
    """Bands (C, H, W) of a file; of a palette its codes, or `colours`. Raises SceneError, also where it breaks off."""
    if path.lower().endswith((".png", ".jpg", ".jpeg")):  # GDAL takes a PNG that breaks off for a whole one
        try:
            with Image.open(path) as picture:
                palette = colours and picture.mode in ("P", "PA", "LA", "CMYK", "1")
                bands = np.atleast_3d(np.asarray(picture.convert("RGB") if palette else picture))
        except (OSError, ValueError, SyntaxError, Image.DecompressionBombError) as error:
            raise SceneError(f"cannot read {path}: {first_line(error)}") from error
        return np.moveaxis(bands, -1, 0)
    with hushed(NotGeoreferencedWarning), opened(path, f"{path} as {what}") as src:
        try:
            return np.asarray(src.read())
        except GDAL_ERRORS as error:
            raise SceneError(f"cannot read {path}: {first_line(error)}") from error


def image_of(path: str) -> NDArray[np.uint8]:
    """Red, green, blue of an image (H, W, 3), as bytes. Raises SceneError."""
    bands = _pixels(path, "an image", colours=True)
    if len(bands) not in (1, 3, 4) or bands.dtype != np.uint8:
        has = f"{len(bands)} bands of {bands.dtype}"
        raise SceneError(f"{path} has {has}; images have red, green, blue of a byte each")
    return np.ascontiguousarray(np.moveaxis(bands[[0, 0, 0] if len(bands) == 1 else [0, 1, 2]], 0, -1))


def truth_of(data: DataSet, pair: Pair) -> NDArray[np.uint8]:
    """Classes (H, W) by index, 255 where nothing is known. Raises SceneError, UsageError for what has other codes."""
    path = pair.truth
    if data.code == "shapes":
        return from_shapes(data, pair.image, path)
    bands = _pixels(path, "truth")
    if len(bands) >= 3 and data.code != "binary":
        return _from_colours(data, path, bands[:3])
    codes = bands[0].astype(np.int64)
    if data.code == "binary":
        return (codes >= LIGHT if codes.max() > 1 else codes == 1).astype(np.uint8)
    if data.code == "reduce_zero":
        codes = np.where((codes == 0) | (codes == UNKNOWN), UNKNOWN, codes - 1)
    strange = np.setdiff1d(codes, [*range(len(data.labels)), UNKNOWN])
    if len(strange):
        first, unknown = (1, 0) if data.code == "reduce_zero" else (0, UNKNOWN)
        raise UsageError(
            f"{path} has the code {int(strange[0]) + first}, and {data.title} has {len(data.labels)} classes, coded "
            f"{first} and on, {unknown} for unknown; was it converted?"
        )
    return codes.astype(np.uint8)


def _from_colours(data: DataSet, path: str, bands: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Truth in colours, by the published table; unknown where that has none. Raises UsageError."""
    if data.colours is None:
        raise UsageError(
            f"{path} has {len(bands)} bands; truth of {data.title} is one band of codes: was it converted?"
        )
    colours = (bands[0].astype(np.int64) << 16) + (bands[1].astype(np.int64) << 8) + bands[2]
    found = np.full(colours.shape, UNKNOWN, np.uint8)
    for colour, name in read_colours(data.colours).items():
        if (index := data.index_of(name)) is not None:
            found[colours == colour] = index
    return found


def check_classes(data: DataSet, both: Sequence[Pair], *, all_of_it: bool) -> None:
    """Refuse truth in which nothing is known, or, of a whole set, classes never occur, as of another coding.

    Raises UsageError.
    """
    wanted = data.expect.get("classes", len(data.labels)) if all_of_it else 1
    there: set[int] = set()
    for pair in both:
        there |= set(np.unique(truth_of(data, pair)).tolist()) - {UNKNOWN}
        if len(there) >= wanted:
            return
    missing = [name for k, name in enumerate(data.labels) if k not in there]
    raise UsageError(f"no truth has a pixel of {some(missing)}: is it coded as {data.title} is ({data.code})?")


def digest_of(pair: Pair) -> str:
    """SHA-256 of an image and its truth, as files."""
    said = hashlib.sha256()
    for path in (pair.image, *_parts(pair.truth)):
        said.update(bytes.fromhex(file_sha256(Path(path))))
    return said.hexdigest()


def hash_of(both: Sequence[Pair], roots: Sequence[str]) -> str:
    """SHA-256 of the names and sizes of all files, seen from their folders."""
    said = hashlib.sha256()
    for pair in both:
        for paths, root in zip(([pair.image], _parts(pair.truth)), roots, strict=True):
            for path in paths:
                said.update(os.fsencode(f"{os.path.relpath(path, root)} {os.path.getsize(path)}\n"))
    return said.hexdigest()


def _parts(path: str) -> list[str]:
    """A file, and of a shapefile those beside it that say names and coordinates."""
    stem, suffix = os.path.splitext(path)
    beside = [f"{stem}.{end}" for end in ("dbf", "prj", "cpg")] if suffix.lower() == ".shp" else []
    return [path, *filter(os.path.isfile, beside)]
