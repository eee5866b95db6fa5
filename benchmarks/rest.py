"""What is done with labels once they are there, beside the plainest script for it; prints a Markdown table.

    python benchmarks/rest.py [--side 10240] [--rounds 3] [--only assemble,evaluate,info,preview]

Labels of a smooth landscape, six classes, a tile of 2048 pixels repeated; a scene of the same size where one is looked
at. Ours and the script in turn, in one process; files are in the page cache.

- *assemble*: parts of 512 rows become a COG; script: GDAL's own copy of one plain raster, same options.
- *evaluate*: labels against truth; script: both read whole, a table of pairs by `np.bincount`.
- *info*: pixels and hectares of classes; script: all read, `np.bincount`.
- *preview*: scene and labels as a picture; script: both read at that size, laid over each other, PNG.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import rasterio
import rasterio.shutil
from PIL import Image
from rasterio.windows import Window
from vectorize import write_labels

from geoovseg import evaluate, preview
from geoovseg.labels.profile import LabelProfile
from geoovseg.labels.styles import label_aux_xml
from geoovseg.labels.write import LABELS, empty_raster
from geoovseg.rasters.cog import COG, piece, write_cog
from geoovseg.rasters.ground import RasterGrid
from geoovseg.rasters.open import raster_env
from geoovseg.vectors.info import info

CLASSES = tuple((f"class {code}", "#ff0000") for code in range(1, 7))
ROWS, BLOCK, SIZE = 512, 512, 1600


@dataclass(frozen=True)
class Files:
    """A folder with labels, truth that differs a little, and an image."""

    folder: Path
    side: int

    @property
    def labels(self) -> Path:
        return self.folder / "labels.tif"

    @property
    def truth(self) -> Path:
        return self.folder / "truth.tif"

    @property
    def image(self) -> Path:
        return self.folder / "image.tif"


def written(folder: Path, side: int) -> Files:
    files = Files(folder, side)
    write_labels(files.labels, side, frame=1)
    with rasterio.open(files.labels) as src:
        profile = {**src.profile, "blockxsize": BLOCK, "blockysize": BLOCK}
        rgb = {**profile, "count": 3, "nodata": None, "photometric": "rgb", "interleave": "pixel"}
        with rasterio.open(files.truth, "w", **profile) as truth, rasterio.open(files.image, "w", **rgb) as image:
            for row in range(0, side, ROWS):
                window = Window(0, row, side, min(ROWS, side - row))
                codes = src.read(1, window=window)
                truth.write(np.roll(codes, 3, 1), 1, window=window)
                image.write(np.stack([codes * 40, codes * 20, 255 - codes * 30]), window=window)
        names = label_aux_xml(profile_of(src).legend, None)
    for path in (files.labels, files.truth):
        Path(f"{path}.aux.xml").write_text(names, encoding="utf-8")
    return files


def profile_of(src: Any) -> LabelProfile:
    grid = RasterGrid(height=src.height, width=src.width, crs=src.crs, transform=src.transform)
    return LabelProfile(grid=grid, classes=CLASSES)


def assembled(files: Files) -> Callable[[], None]:
    with rasterio.open(files.labels) as src:
        profile = profile_of(src)
        tiled = {"tiled": True, "blockxsize": BLOCK, "blockysize": 256, "compress": "deflate", "zlevel": 1}
        pieces = []
        for row in range(0, files.side, ROWS):
            window = Window(0, row, files.side, min(ROWS, files.side - row))
            path = files.folder / f"part{row}.tif"
            with rasterio.open(path, "w", **{**src.profile, **tiled, "height": window.height}) as dst:
                dst.write(src.read(1, window=window), 1)
            pieces.append(piece(path, Window(0, 0, window.width, window.height), row, 0))

    def run() -> None:
        empty = empty_raster(files.folder / "empty.tif", profile, LABELS, "{}")
        write_cog(files.folder / "ours.tif", empty, pieces, overviews="MODE", block=BLOCK)

    return run


def by_bincount(files: Files) -> None:
    with rasterio.open(files.labels) as one, rasterio.open(files.truth) as other:
        np.bincount(one.read(1).ravel().astype(np.int32) * 256 + other.read(1).ravel(), minlength=65536)


def counted(files: Files) -> None:
    with rasterio.open(files.labels) as src:
        np.bincount(src.read(1).ravel())


def overlaid(files: Files) -> None:
    with rasterio.open(files.labels) as one, rasterio.open(files.image) as other:
        codes, image = one.read(1, out_shape=(SIZE, SIZE)), other.read(out_shape=(3, SIZE, SIZE))
    colours = np.random.default_rng(0).integers(0, 256, (256, 3), np.uint8)
    Image.fromarray(image.transpose(1, 2, 0) // 2 + colours[codes] // 2).save(files.folder / "script.png")


def both(files: Files) -> dict[str, tuple[Callable[[], Any], Callable[[], Any]]]:
    """Ours and the script, by what they do."""
    cog = {**COG, "overview_resampling": "MODE", "blocksize": BLOCK}
    output = files.folder / "ours.png"
    return {
        "assemble": (assembled(files), lambda: rasterio.shutil.copy(files.labels, files.folder / "copy.tif", **cog)),
        "evaluate": (lambda: evaluate(files.labels, files.truth), lambda: by_bincount(files)),
        "info": (lambda: info(files.labels), lambda: counted(files)),
        "preview": (lambda: preview(files.image, files.labels, output), lambda: overlaid(files)),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--side", type=int, default=10_240)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--only", default="assemble,evaluate,info,preview")
    given = parser.parse_args()
    print("| what | ours, s | script, s | ratio | ours, Mpx/s |\n|---|---|---|---|---|")
    with tempfile.TemporaryDirectory() as place, raster_env():
        files = written(Path(place), given.side)
        for name, runs in both(files).items():
            if name not in given.only.split(","):
                continue
            seconds: tuple[list[float], list[float]] = [], []
            for _ in range(given.rounds):
                for spent, run in zip(seconds, runs, strict=True):
                    begin = time.perf_counter()
                    run()
                    spent.append(time.perf_counter() - begin)
            ours, script = map(min, seconds)
            rate = given.side**2 / 1e6 / ours
            print(f"| {name} | {ours:.2f} | {script:.2f} | {ours / script:.2f} | {rate:.0f} |", flush=True)


if __name__ == "__main__":
    main()
