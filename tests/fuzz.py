"""Files with some bytes changed, and what `segment` does with each: `python tests/fuzz.py FOLDER FIRST END STEP`.

One line of JSON for every number. A number always makes the same file; with KEEP=1 it stays in FOLDER, with its labels.
"""

from __future__ import annotations

import faulthandler
import gc
import json
import math
import os
import random
import resource
import shutil
import signal
import struct
import sys
import time
import traceback
import warnings
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import rasterio
import rasterio.shutil
import torch
from affine import Affine
from rasterio.crs import CRS
from rasterio.enums import ColorInterp
from rasterio.errors import NotGeoreferencedWarning
from rasterio.io import MemoryFile
from rasterio.transform import from_origin

from geoovseg.errors import GeoOVSegError, GeoOVSegWarning
from geoovseg.run.predictor import Predictor
from geoovseg.run.worker import Worker
from geoovseg.segmenter import segment
from geoovseg.settings import Settings
from geoovseg.vocabulary import read_classes
from geoovseg.windows.batch import TileBatch

MEMORY, CPU_SECONDS, SECONDS = 2 << 30, 10, 60
"""What a file may take: bytes beyond those of the helper, time of the processor, and time, which others share."""
LARGE, LARGE_SECONDS = 2 * 10**7, 2
"""Pixels above which a file need not be finished, and the time of the processor after which it is left."""
WORDS = "road,water"
HEADER = 512
GRID = {"driver": "GTiff", "crs": "EPSG:32632", "transform": from_origin(480_000, 5_460_000, 0.5, 0.5)}
SPECIAL = (0, 1, 2, 3, 4, 255, 256, 65535, 65536, 2**24, 2**31 - 1, 2**31, 2**32 - 16, 2**32 - 1)
Outcome = dict[str, Any]
Attempt = Callable[[Path, Path], Outcome]
"""What is done with a file; what it makes may lie at the second path."""
Make = Callable[[Path, int], Path]
"""What writes the file of a number into a folder."""
Grid = tuple[tuple[int, int], CRS | None, tuple[float, ...]]


def seeds(folder: Path) -> list[bytes]:
    """The sound files that the others are made of."""
    folder.mkdir(parents=True, exist_ok=True)
    data = np.random.default_rng(0).integers(1, 255, (4, 40, 50), dtype=np.uint8)
    hole = np.where(np.add.outer(np.arange(40), np.arange(50)) < 30, 0, 255).astype(np.uint8)
    deep, floats = data.astype(np.uint16) * 40, (data[:3] / 255).astype(np.float32)
    floats[:, hole == 0] = np.nan
    tiled = {"tiled": True, "blockxsize": 16, "blockysize": 16}
    turned = Affine.translation(480_000, 5_460_000) @ Affine.rotation(30) @ Affine.scale(0.5, -0.5)
    write = _writer(folder)
    write("strips", data[:3], blockysize=8)
    write("tiles", data[:3], compress="deflate", nodata=0, **tiled)
    write("named", deep, names=("blue", "green", "red", "nir"), compress="zstd", photometric="minisblack")
    write("palette", data[:1] % 4, palette={n: (60 * n, 255 - 60 * n, 9, 255 * (n > 0)) for n in range(4)})
    write("floats", floats, compress="deflate", predictor=3, nodata=math.nan)
    write("mask", data[:3], mask=hole, compress="lzw", **tiled)
    write("alpha", np.concatenate([data[:3], hole[None]]), alpha="yes", photometric="rgb")
    write("predictor", deep[:3], compress="lzw", predictor=2, blockysize=16)
    write("jpeg", data[:3], compress="jpeg", photometric="ycbcr", **tiled)
    write("big", data[:1], BIGTIFF="YES", compress="packbits")
    write("rotated", data[:3], transform=turned, interleave="band", crs="EPSG:4326")
    write("scaled", deep[:3].astype(np.int16), scales=(0.1,) * 3, crs="ESRI:102001")
    write("large", np.tile(data[:3], (1, 4, 4)), crs="EPSG:3857")
    rasterio.shutil.copy(folder / "large.tif", folder / "cog.tif", driver="COG", blocksize=128, overview_count=1)
    return [path.read_bytes() for path in sorted(folder.glob("*.tif"))]


def _writer(folder: Path) -> Callable[..., None]:
    def write(name: str, data: np.ndarray, **profile: Any) -> None:
        extra = {key: profile.pop(key, None) for key in ("names", "palette", "mask", "scales")}
        count, height, width = data.shape
        size = {"count": count, "height": height, "width": width, "dtype": data.dtype}
        with (
            rasterio.Env(GDAL_TIFF_INTERNAL_MASK=True),
            rasterio.open(folder / f"{name}.tif", "w", **{**GRID, **size, **profile}) as dst,
        ):
            dst.write(data)
            if extra["names"]:
                dst.descriptions = extra["names"]
            if extra["palette"]:
                dst.write_colormap(1, extra["palette"])
                dst.colorinterp = [ColorInterp.palette]
            if extra["mask"] is not None:
                dst.write_mask(extra["mask"])
            if extra["scales"]:
                dst.scales = extra["scales"]

    return write


def changed(seed: bytes, number: int) -> bytes:
    """A file with one to eight changes, more often few, most of them where a TIFF says what it is."""
    chance = random.Random(number)
    found, values = bytearray(seed), _values(seed)
    for _ in range(min(chance.randint(1, 8), chance.randint(1, 8), chance.randint(1, 8))):
        change = chance.choices(CHANGES, WEIGHTS)[0]
        change(chance, found, _somewhere(chance, len(found), values))
        if len(found) < 16:
            break
    return bytes(found)


def _values(seed: bytes) -> range:
    """Where the values stand in the first directory: each after the tag, its type and its count."""
    if struct.unpack_from("<H", seed, 2)[0] == 43:
        start = struct.unpack_from("<Q", seed, 8)[0]
        return range(start + 20, start + 8 + 20 * struct.unpack_from("<Q", seed, start)[0], 20)
    start = struct.unpack_from("<I", seed, 4)[0]
    return range(start + 10, start + 2 + 12 * struct.unpack_from("<H", seed, start)[0], 12)


def _somewhere(chance: random.Random, size: int, values: range) -> int:
    """A place in the first bytes, the first directory, its values, or anywhere."""
    places = (range(HEADER), range(values[0] - 8, values[-1] + 4), values, range(size))
    return min(chance.choice(chance.choices(places, (4, 1, 4, 1))[0]), size - 1)


def _flip(chance: random.Random, found: bytearray, at: int) -> None:
    found[at] ^= 1 << chance.randrange(8)


def _overwrite(chance: random.Random, found: bytearray, at: int) -> None:
    found[at : at + chance.randint(1, 4)] = chance.randbytes(chance.randint(1, 4))


def _set_number(chance: random.Random, found: bytearray, at: int) -> None:
    found[at : at + 4] = struct.pack("<I", chance.choice(SPECIAL))


def _set_short(chance: random.Random, found: bytearray, at: int) -> None:
    found[at : at + 2] = struct.pack("<H", chance.choice(SPECIAL) & 0xFFFF)


def _cut(chance: random.Random, found: bytearray, at: int) -> None:
    del found[chance.randrange(len(found)) :]


def _insert(chance: random.Random, found: bytearray, at: int) -> None:
    found[at:at] = chance.randbytes(chance.randint(1, 16))


def _set_field(chance: random.Random, found: bytearray, at: int) -> None:
    """As if a field were one number of 32 bits: its type, its count and its value."""
    found[max(0, at - 6) : at + 4] = struct.pack("<HII", 4, 1, chance.choice(SPECIAL))


CHANGES = (_flip, _overwrite, _set_number, _set_short, _set_field, _cut, _insert)
WEIGHTS = (8, 4, 4, 3, 3, 1, 1)


def attempt(path: Path, labels: Path) -> Outcome:
    """Segment a file, and compare the grid of its labels with what rasterio says of it."""
    with warnings.catch_warnings():
        warnings.simplefilter("error")  # a warning that is not ours would stand in the user's terminal
        warnings.simplefilter("ignore", PendingDeprecationWarning)
        warnings.simplefilter("ignore", GeoOVSegWarning)
        segment(path, WORDS, model="demo", output=labels, tile=448, stride=448, max_memory=256)
    return _compared(grid_of(labels), grid_of(path))


def _told(attempt: Attempt, path: Path, labels: Path) -> Outcome:
    """What came of it, if anything comes back."""
    try:
        return attempt(path, labels)
    except GeoOVSegError as error:
        return {"outcome": "refused", "why": f"{type(error).__name__}: {error}"}
    except BaseException:
        return {"outcome": "failed", "why": traceback.format_exc()}


def _compared(mine: Grid, theirs: Grid) -> Outcome:
    """Whether labels are on the grid of their scene; of its coordinate system, all that a GeoTIFF can hold."""
    same = (mine[0], list(map(repr, mine[2]))) == (theirs[0], list(map(repr, theirs[2])))
    if same and mine[1] in (theirs[1], _kept(theirs[1])):
        return {"outcome": "segmented", "why": ""}
    return {"outcome": "failed", "why": f"labels are on {mine}, the file on {theirs}"}


def grid_of(path: Path) -> Grid:
    """Size, coordinate system and transform of a raster, as rasterio has them."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", NotGeoreferencedWarning)
        with rasterio.open(path) as src:
            return src.shape, src.crs, tuple(map(float, src.transform))


def _kept(crs: CRS | None) -> CRS | None:
    """What GDAL makes of a coordinate system in a GeoTIFF, if it can write it."""
    profile = {"driver": "GTiff", "width": 1, "height": 1, "count": 1, "dtype": "uint8"}
    with MemoryFile() as file:
        file.open(crs=crs, transform=GRID["transform"], **profile).close()
        with file.open() as src:
            return src.crs


def _pixels(path: Path) -> int:
    """How many pixels a file claims to have; none if it cannot be opened."""
    try:
        height, width = grid_of(path)[0]
    except Exception:  # whatever it is, `segment` has to tell it properly
        return 0
    return height * width


def limit_memory() -> None:
    """Let this process take MEMORY more than it holds."""
    held = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
    resource.setrlimit(resource.RLIMIT_AS, (held + MEMORY,) * 2)


def tried(attempt: Attempt, path: Path, answer: int) -> None:
    """Try one changed file within limits of time; the answer goes into a pipe, in two lines."""
    pixels = _pixels(path)
    spent = math.ceil(time.process_time())
    allowed = LARGE_SECONDS if pixels > LARGE else CPU_SECONDS
    resource.setrlimit(resource.RLIMIT_CPU, (spent + allowed, resource.RLIM_INFINITY))
    signal.alarm(SECONDS)
    os.write(answer, json.dumps({"pixels": pixels}).encode() + b"\n")
    os.write(answer, json.dumps(_told(attempt, path, path.with_name("labels.tif"))).encode() + b"\n")


def outcome_of(answer: Sequence[bytes], status: int) -> Outcome:
    """What became of a file, by the lines that came of it and how its process ended."""
    found: Outcome = {"pixels": 0}
    for line in answer:
        found |= json.loads(line)
    if "outcome" in found:
        return found
    code = os.waitstatus_to_exitcode(status)
    name = signal.Signals(-code).name if code < 0 else f"exit {code}"
    late = name in ("SIGXCPU", "SIGALRM") and found["pixels"] > LARGE
    return {**found, "outcome": "too large" if late else "failed", "why": name}


def run(make: Make, folder: Path, numbers: range, attempt: Attempt) -> Iterator[Outcome]:
    """One child for every number, forked from here, where everything is loaded; `make` gives its file a folder."""
    for number in numbers:
        start, here, (ours, theirs) = time.perf_counter(), folder / str(number), os.pipe()
        shutil.rmtree(here, ignore_errors=True)
        here.mkdir(parents=True)
        path = make(here, number)
        if (child := os.fork()) == 0:
            os.close(ours)
            try:
                limit_memory()
                tried(attempt, path, theirs)
            finally:  # nothing of the helper's is for a child to end
                os._exit(1)
        os.close(theirs)
        with os.fdopen(ours, "rb") as pipe:
            answer = pipe.read()
        _, status, used = os.wait4(child, 0)
        if "KEEP" not in os.environ:
            shutil.rmtree(here)
        spent = {"cpu": used.ru_utime + used.ru_stime, "seconds": time.perf_counter() - start}
        yield {
            "number": number,
            **outcome_of(answer.splitlines(), status),
            **{key: round(value, 2) for key, value in spent.items()},
        }


def _constant(job: Predictor, batch: TileBatch) -> torch.Tensor:
    """Every patch is the first word, without a model, so that files take milliseconds."""
    cell = job.facts.needs.cell
    grid = (side // cell for side in batch.pixels.shape[-2:])
    return job.text[0][:, None, None].expand(len(batch), -1, *grid)


def prepare(folder: Path) -> list[bytes]:
    """Load what segmenting needs; returns the sound files. No thread must be left that children would wait for."""
    faulthandler.enable()
    torch.set_num_threads(1)
    found = seeds(folder / "sound")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", GeoOVSegWarning)
        settings = Settings(model="demo")
        Worker(read_classes(WORDS, None), settings).job(str(folder / "sound" / "strips.tif"), settings)
    Predictor.vectors = _constant  # type: ignore[method-assign]
    gc.freeze()
    return found


def scenes(sound: list[bytes]) -> Make:
    """Scenes with changes."""

    def make(folder: Path, number: int) -> Path:
        (path := folder / "scene.tif").write_bytes(changed(sound[number % len(sound)], number))
        return path

    return make


def main() -> None:
    folder, numbers = Path(sys.argv[1]), range(*map(int, sys.argv[2:5]))
    for outcome in run(scenes(prepare(folder)), folder, numbers, attempt):
        print(json.dumps(outcome), flush=True)


if __name__ == "__main__":
    main()
