"""How fast pixels come: a scene in several codecs, read as a run reads it; prints a Markdown table.

    python benchmarks/reading.py [--rounds 3] [--threads 1,2]

A drawn scene with noise, 6000 x 4000 pixels of three bytes, in files that the page cache holds; windows of 224 every
112, in batches of eight, with nothing behind. *Decoding* is a plain read, a row of blocks at a time.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
import rasterio
import rasterio.shutil
from rasterio.windows import Window

from geoovseg.demo.files import write_scene
from geoovseg.rasters.open import raster_env
from geoovseg.scene.reader import read_ahead
from geoovseg.scene.scene import open_scene
from geoovseg.windows.plan import Panel, plan_tiles

HEIGHT, WIDTH, TILE, BATCH = 4000, 6000, 224, 8
TILES = {"driver": "GTiff", "tiled": True, "blockxsize": 512, "blockysize": 512}
SQUARES = {"blockxsize": 1024, "blockysize": 1024}
CODECS: dict[str, dict[str, Any]] = {
    "none": {**TILES},
    "LZW": {**TILES, "compress": "lzw", "predictor": 2},
    "DEFLATE": {**TILES, "compress": "deflate", "predictor": 2},
    "DEFLATE, strips of a row": {"driver": "GTiff", "compress": "deflate", "blockysize": 1},
    "ZSTD": {**TILES, "compress": "zstd", "predictor": 2},
    "JPEG": {**TILES, "compress": "jpeg", "photometric": "ycbcr", "jpeg_quality": 85},
    "WebP": {**TILES, "compress": "webp", "webp_level": 85},
    "JPEG 2000": {"driver": "JP2OpenJPEG", **SQUARES, "quality": 20},
    "JPEG 2000, lossless": {"driver": "JP2OpenJPEG", **SQUARES, "quality": 100, "reversible": "yes"},
}  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--threads", default="1,2", help="threads of GDAL that decode")
    given = parser.parse_args()
    threads = given.threads.split(",")
    with tempfile.TemporaryDirectory() as place:
        files = _files(Path(place))
        columns = [f"{what}, {n} threads" for what in ("decoding", "ours") for n in threads]
        print(f"| codec | MB | {' | '.join(columns)} |\n|---|---|{'---|' * len(columns)}")
        for name, path in files.items():
            found = []
            for read in (_plain, _ours):
                for count in threads:
                    seconds = min(_seconds(read, path, count) for _ in range(given.rounds))
                    found.append(f"{HEIGHT * WIDTH / 1e6 / seconds:.1f}")
            print(f"| {name} | {path.stat().st_size / 1e6:.0f} | {' | '.join(found)} |", flush=True)
    print("\nMegapixels a second; of ours those of the scene, each of which four windows hold.")


def _files(folder: Path) -> dict[str, Path]:
    write_scene(folder, 7, HEIGHT, WIDTH)
    with rasterio.open(folder / "scene.tif") as src:
        pixels, place = src.read(), {"crs": src.crs, "transform": src.transform}
    noise = np.random.default_rng(0).normal(0, 4, pixels.shape)
    pixels = np.clip(pixels + noise, 0, 255).astype(np.uint8)
    shape = {"width": WIDTH, "height": HEIGHT, "count": 3, "dtype": "uint8", "interleave": "pixel"}
    plain = folder / "plain.tif"
    with rasterio.open(plain, "w", **TILES, **shape, photometric="rgb", **place) as dst:
        dst.write(pixels)
    found = {}
    for number, (name, how) in enumerate(CODECS.items()):
        found[name] = folder / f"{number}.{'jp2' if how['driver'] != 'GTiff' else 'tif'}"
        rasterio.shutil.copy(plain, found[name], **how)
    return found


def _seconds(read: Any, path: Path, threads: str) -> float:
    with raster_env(), rasterio.Env(GDAL_NUM_THREADS=threads):
        begin = time.perf_counter()
        read(str(path))
        return time.perf_counter() - begin


def _plain(path: str) -> None:
    with rasterio.open(path) as src:
        rows = max(256, src.block_shapes[0][0])
        for row in range(0, HEIGHT, rows):
            src.read(window=Window(0, row, WIDTH, min(rows, HEIGHT - row)))


def _ours(path: str) -> None:
    plan = plan_tiles(HEIGHT, WIDTH, tile=TILE, stride=TILE // 2, patch=16, aligned=True)
    with open_scene(path) as scene:
        measured = scene.measured()
        for _ in read_ahead(measured, plan.windows(Panel(0, WIDTH), (0, HEIGHT)), batch=BATCH, depth=4):
            pass


if __name__ == "__main__":
    main()
