"""What happens to rasters of every kind: small ones are written, segmented for real, and told of in docs/formats.md."""

from __future__ import annotations

import json
import math
import tempfile
import warnings
import zipfile
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any
from unittest.mock import patch

import numpy as np
import rasterio
import rasterio.shutil
import torch
from affine import Affine
from numpy.typing import DTypeLike, NDArray
from rasterio.control import GroundControlPoint
from rasterio.enums import ColorInterp
from rasterio.errors import NotGeoreferencedWarning, RasterioError
from rasterio.rpc import RPC
from rasterio.transform import from_origin

from geoovseg.errors import GeoOVSegError, GeoOVSegWarning
from geoovseg.labels.record import RUN_TAG
from geoovseg.run.predictor import Predictor
from geoovseg.scene.scene import open_scene
from geoovseg.segmenter import segment
from geoovseg.windows.batch import TileBatch

HEAD = """# What happens to which raster

Written by `make docs`, which makes every raster below, 50 x 40 pixels of it, and gives it to `geoovseg segment` without
`--bands` or `--scale`. A test checks that the labels have the coordinate system, transform and size of the raster.
"Black" and "white" are the values that the model sees as such: for 8-bit pixels the range of the type, for others the
2nd and 98th percentile. "No data" is the share of the labels that has no data.

| trait | what happens |
|---|---|
"""
SIZE = HEIGHT, WIDTH = 40, 50
PLACE = {"crs": "EPSG:32632", "transform": from_origin(480_000, 5_460_000, 0.5, 0.5)}
CODECS = ("LZW", "DEFLATE", "ZSTD", "PACKBITS", "JPEG", "WEBP", "LERC", "LZMA")
LEFT = np.arange(WIDTH) < WIDTH // 4
"""Columns, nearly a quarter, where data is missing in rasters that lack some."""
Write = Callable[[Path], Iterable[str]]
"""Writes rasters of one trait into a folder; returns what to open."""


@dataclass(frozen=True)
class Case:
    """A trait of rasters, and rasters that have it."""

    trait: str
    write: Write


@dataclass(frozen=True)
class Seen:
    """What happened to a raster."""

    raster: str
    told: str
    labels: Path | None
    """none where it was refused"""


def ramp(dtype: DTypeLike, bands: int = 3, high: float = 200, low: float = 0) -> NDArray[Any]:
    """Bands with every value from low to high, alike."""
    values = np.linspace(low, high, HEIGHT * WIDTH).reshape(SIZE)
    return np.repeat(values[None], bands, axis=0).astype(dtype)


def holed(data: NDArray[Any], value: float, bands: slice = slice(None)) -> NDArray[Any]:
    """The same with a value on the left."""
    found = data.copy()
    found[bands, :, LEFT] = value
    return found


def tiff(
    data: NDArray[Any], *, finish: Callable[[Any], None] = lambda dst: None, name: str = "scene.tif", **profile: Any
) -> Write:
    """One raster, a GeoTIFF unless told otherwise; `finish` is given the open dataset."""

    def write(folder: Path) -> list[str]:
        path = folder / name
        with rasterio.open(path, "w", **_profile(data, **profile)) as dst:
            finish(dst)  # first: what a band is for cannot be said any more when it is written
            dst.write(data)
        return [str(path)]

    return write


png = partial(tiff, name="scene.png", driver="PNG")


def _profile(data: NDArray[Any], **profile: Any) -> dict[str, Any]:
    size = {"count": len(data), "height": HEIGHT, "width": WIDTH, "dtype": data.dtype}
    return {"driver": "GTiff", **PLACE, **size, **profile}


def _set(**attributes: Any) -> Callable[[Any], None]:
    """Set attributes of an open dataset."""

    def finish(dst: Any) -> None:
        for name, value in attributes.items():
            setattr(dst, name, value)

    return finish


def _colours(*names: str) -> Callable[[Any], None]:
    return _set(colorinterp=[ColorInterp[name] for name in names])


def _palette(alpha: int) -> Callable[[Any], None]:
    """Colours for the values 0..3; the first as transparent as asked."""
    return lambda dst: dst.write_colormap(1, {n: (60 * n, 250 - 60 * n, 9, 255 if n else alpha) for n in range(4)})


def _masked(inside: bool) -> Write:
    write = tiff(
        ramp("uint8"), finish=lambda dst: dst.write_mask(np.where(LEFT, 0, np.full(SIZE, 255)).astype("uint8"))
    )

    def masked(folder: Path) -> Iterable[str]:
        with rasterio.Env(GDAL_TIFF_INTERNAL_MASK=inside):
            return write(folder)

    return masked


def _codecs(folder: Path) -> Iterable[str]:
    """One for every codec that this GDAL has."""
    for codec in CODECS:
        here = folder / codec
        here.mkdir()
        try:
            yield from tiff(ramp("uint8"), compress=codec)(here)
        except RasterioError:
            continue


def _vrt(folder: Path) -> list[str]:
    (source,) = tiff(ramp("uint8"))(folder)
    rasterio.shutil.copy(source, folder / "scene.vrt", driver="VRT")
    return [str(folder / "scene.vrt")]


def _zipped(folder: Path) -> list[str]:
    (source,) = tiff(ramp("uint8"))(folder)
    with zipfile.ZipFile(folder / "scene.zip", "w") as file:
        file.write(source, "scene.tif")
    return [f"/vsizip/{folder / 'scene.zip'}/scene.tif"]


def _pages(folder: Path) -> list[str]:
    tiff(ramp("uint8"))(folder)
    return list(tiff(ramp("uint8", 1), APPEND_SUBDATASET="YES")(folder))


def _tables(folder: Path) -> list[str]:
    """A GeoPackage of two rasters."""
    path = folder / "scene.gpkg"
    for n, more in enumerate(({}, {"APPEND_SUBDATASET": "YES"})):
        data = ramp("uint8")
        with rasterio.open(path, "w", **_profile(data, driver="GPKG", RASTER_TABLE=f"table{n}"), **more) as dst:
            dst.write(data)
    return [str(path)]


def _content(content: bytes) -> Write:
    """A file that is called a GeoTIFF."""

    def write(folder: Path) -> list[str]:
        (folder / "scene.tif").write_bytes(content)
        return [str(folder / "scene.tif")]

    return write


def _cut(folder: Path) -> list[str]:
    """The first two thirds of a GeoTIFF."""
    (path,) = tiff(ramp("uint8"), blockysize=1)(folder)
    content = Path(path).read_bytes()
    return list(_content(content[: len(content) * 2 // 3])(folder))


POINTS = [GroundControlPoint(row, col, 9 + col / 1e5, 49 - row / 1e5) for row, col in ((0, 0), (0, 50), (40, 0))]
CAMERA = RPC(
    height_off=0, height_scale=1, lat_off=49, lat_scale=1, long_off=9, long_scale=1, line_off=0, line_scale=1,
    samp_off=0, samp_scale=1, line_num_coeff=[1.0] * 20, line_den_coeff=[1.0] * 20, samp_num_coeff=[1.0] * 20,
    samp_den_coeff=[1.0] * 20,
)  # fmt: skip
NOWHERE: dict[str, Any] = {"crs": None, "transform": None}
TURNED = Affine.translation(480_000, 5_460_000) @ Affine.rotation(30) @ Affine.scale(0.5, -0.5)
RGB = ("red", "green", "blue")
OPAQUE = np.concatenate([ramp("uint8", low=1), holed(ramp("uint8", 1, 255, 255), 0)[..., ::-1]])
"""Three bands, and one of alpha that is transparent on the right."""

CASES = (
    Case("8 bits", tiff(ramp("uint8"))),
    Case("8 bits with sign", tiff(ramp("int8", high=100, low=-100))),
    Case("16 bits", tiff(ramp("uint16", high=10_000))),
    Case("16 bits with sign", tiff(ramp("int16", high=10_000, low=-10_000))),
    Case("32 bits", tiff(ramp("uint32", high=1e6))),
    Case("32 bits with sign", tiff(ramp("int32", high=1e6, low=-1e6))),
    Case("64 bits with sign", tiff(ramp("int64", high=1e6, low=-1e6))),
    Case("floats of 16 bits", tiff(ramp("float32", high=1), NBITS=16)),
    Case("floats of 32 bits", tiff(ramp("float32", high=1))),
    Case("floats of 64 bits", tiff(ramp("float64", high=1))),
    Case("1 bit", tiff(ramp("uint8", 1, 1.5), NBITS=1)),
    Case("12 bits in 16", tiff(ramp("uint16", high=4095), NBITS=12)),
    Case("complex floats", tiff(ramp("complex64"))),
    Case("complex whole numbers", tiff(ramp("complex64"), dtype="complex_int16")),
    Case("16 bits, all pixels alike", tiff(ramp("uint16", high=7, low=7))),
    Case("one band", tiff(ramp("uint8", 1))),
    Case("two bands", tiff(ramp("uint8", 2))),
    Case("three bands that are blue, green, red", tiff(ramp("uint8"), finish=_colours("blue", "green", "red"))),
    Case("four bands, the fourth not said", tiff(ramp("uint8", 4), finish=_colours(*RGB, "undefined"))),
    Case(
        "four bands, none said", tiff(ramp("uint8", 4), photometric="minisblack", finish=_colours(*["undefined"] * 4))
    ),
    Case(
        "four bands named blue, green, red, nir",
        tiff(ramp("uint16", 4), photometric="minisblack", finish=_set(descriptions=("blue", "green", "red", "nir"))),
    ),
    Case(
        "four bands of 8 bits named blue, green, red, nir",
        tiff(
            ramp("uint8", 4, low=1),
            photometric="rgb",
            alpha="yes",
            finish=_set(descriptions=("blue", "green", "red", "nir")),
        ),
    ),
    Case("three bands named nir, red, green", tiff(ramp("uint8"), finish=_set(descriptions=("nir", "red", "green")))),
    Case(
        "red, green, blue, a fourth band, and alpha",
        tiff(
            np.concatenate([ramp("uint8", 4), OPAQUE[3:]]),
            photometric="minisblack",
            finish=_colours(*RGB, "undefined", "alpha"),
        ),
    ),
    Case("one band, the smallest number white", tiff(ramp("uint8", 1), photometric="miniswhite")),
    Case("alpha", tiff(OPAQUE, photometric="rgb", alpha="yes")),
    Case("nodata value", tiff(holed(ramp("uint8", low=1), 0), nodata=0)),
    Case("nodata value in one of three bands", tiff(holed(ramp("uint8", low=1), 0, slice(1)), nodata=0)),
    Case("nodata value and alpha", tiff(holed(OPAQUE, 0, slice(3)), photometric="rgb", alpha="yes", nodata=0)),
    Case("NaN", tiff(holed(ramp("float32", high=1), math.nan))),
    Case("NaN as nodata value", tiff(holed(ramp("float32", high=1), math.nan), nodata=math.nan)),
    Case("infinity", tiff(holed(ramp("float32", high=1), math.inf))),
    Case("nothing but nodata", tiff(ramp("uint16", high=0), nodata=0)),
    Case("mask inside", _masked(True)),
    Case("mask in a file beside it (.msk)", _masked(False)),
    Case(
        "tags of scale 0.0001 and offset -0.1",
        tiff(ramp("uint16", high=10_000), finish=_set(scales=(1e-4,) * 3, offsets=(-0.1,) * 3)),
    ),
    Case("palette", tiff(ramp("uint8", 1, 3.9), finish=_palette(255))),
    Case("palette with a transparent colour (PNG)", png(ramp("uint8", 1, 3.9), finish=_palette(0))),
    Case("strips", tiff(ramp("uint8"), blockysize=8)),
    Case("tiles", tiff(ramp("uint8"), tiled=True, blockxsize=16, blockysize=16)),
    Case("band after band", tiff(ramp("uint8"), interleave="band")),
    Case(f"compressed: {', '.join(CODECS)}", _codecs),
    Case("BigTIFF", tiff(ramp("uint8"), BIGTIFF="YES")),
    Case("two pages, of three bands and of one", _pages),
    Case("VRT", _vrt),
    Case("in a ZIP (/vsizip/)", _zipped),
    Case("PNG without a place", png(ramp("uint8"), **NOWHERE)),
    Case("rotated", tiff(ramp("uint8"), transform=TURNED)),
    Case("south up", tiff(ramp("uint8"), transform=Affine(0.5, 0, 480_000, 0, 0.5, 5_460_000))),
    Case("no coordinate system", tiff(ramp("uint8"), crs=None)),
    Case("degrees", tiff(ramp("uint8"), crs="EPSG:4326", transform=from_origin(9, 49, 5e-6, 5e-6))),
    Case("feet", tiff(ramp("uint8"), crs="EPSG:2263", transform=from_origin(980_000, 200_000, 1, 1))),
    Case("across the antimeridian", tiff(ramp("uint8"), crs="EPSG:4326", transform=from_origin(179.99, 9, 1e-3, 1e-3))),
    Case("placed by ground control points", tiff(ramp("uint8"), gcps=POINTS, **{**NOWHERE, "crs": "EPSG:4326"})),
    Case("placed by a camera model (RPC)", tiff(ramp("uint8"), rpcs=CAMERA, **NOWHERE)),
    Case("a GeoPackage of two rasters", _tables),
    Case("no bytes", _content(b"")),
    Case("cut short", _cut),
    Case("text", _content(b"no raster\n")),
)


WARNINGS = {
    "no coordinate system": "the labels will have no coordinate system",
    "are seen as red, green, blue": "bands are called something else",
}
"""What is warned of, by words of the warning."""


def observe(case: Case, folder: Path) -> list[Seen]:
    """Segment the rasters of a case, with features that are all alike: what they are is not told of here."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", NotGeoreferencedWarning)
        rasters = list(case.write(folder))
    with patch.object(Predictor, "vectors", _alike):
        return [_observed(raster, folder / f"labels{n}.tif") for n, raster in enumerate(rasters)]


def _alike(job: Predictor, batch: TileBatch) -> torch.Tensor:
    """Every patch is the first word, without a model."""
    cell = job.facts.needs.cell
    grid = (side // cell for side in batch.stored.shape[-2:])
    return job.text[0][:, None, None].expand(len(batch), -1, *grid)


def _observed(raster: str, labels: Path) -> Seen:
    with warnings.catch_warnings(record=True) as heard:
        warnings.simplefilter("always", GeoOVSegWarning)
        try:
            segment(raster, "road,water", model="demo", output=labels)
        except GeoOVSegError as error:
            return Seen(raster, f"refused (exit {error.exit_code}): {_start(str(error), raster)}", None)
    said = "\n".join(str(found.message) for found in heard)
    warned = "".join(f"; warns that {what}" for sign, what in WARNINGS.items() if sign in said)
    return Seen(raster, _segmented(raster, labels) + warned, labels)


def _start(message: str, raster: str) -> str:
    """What a message says in our own words, without GDAL's and without what to do."""
    ours = message.replace(repr(raster), "FILE").replace(raster, "FILE")
    return ours.split("; ")[0].split(": ")[0]


def _segmented(raster: str, labels: Path) -> str:
    """What the labels and their run record say of what was seen."""
    with rasterio.open(labels) as src:
        record, lacking = json.loads(src.tags()[RUN_TAG]), (src.read(1) == src.nodata).mean()
    black, white = (f"{float(f'{value:.3g}'):.9g}" for value in record["scale"])
    found = f"segmented; {_bands(record['bands'], raster)}; black {black}, white {white}"
    return f"{found}; {100 * lacking:.0f} % no data" if lacking else found


def _bands(bands: list[int], raster: str) -> str:
    if len(set(bands)) > 1:
        return f"bands {', '.join(map(str, bands))}"
    with warnings.catch_warnings(), open_scene(raster) as scene:
        how = "as grey" if scene.intensity.palette is None else "in the colours of its palette"
    return f"band {bands[0]}, {how}"


def row(case: Case, seen: list[Seen]) -> str:
    """The row of a case, all of whose rasters are one in what happens to them."""
    (told,) = {one.told for one in seen}
    return f"| {case.trait} | {told} |"


def text(rows: Iterable[str]) -> str:
    """All of docs/formats.md."""
    return HEAD + "\n".join(rows) + "\n"


def page() -> str:
    """The same, made anew."""
    rows = []
    for case in CASES:
        with tempfile.TemporaryDirectory() as folder:
            rows.append(row(case, observe(case, Path(folder))))
    return text(rows)
