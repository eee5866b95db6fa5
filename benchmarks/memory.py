"""Peak memory of segmenting scenes of random pixels, keeping their features and asking them; prints a Markdown table.

    python benchmarks/memory.py [--quick] [--what segment,encode,ask] [--max-memory MB]

Every run is a process of its own; its peak is what the kernel counts (maximum resident set size, as /usr/bin/time -v).
Windows lie side by side, at stride = tile. The largest scenes need 6 GB of disk in the temporary folder, and all of it
about 40 minutes on two cores.
"""

from __future__ import annotations

import argparse
import json
import resource
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np
import rasterio
from rasterio.transform import from_origin
from rasterio.windows import Window

TILE = 112
CELL, DEPTH = 8, 128  # of the demo model: pixels on a side of a patch, numbers of its vector
SIZES = ((112, 112), (5_000, 5_000), (2_000, 130_000), (20_000, 20_000))


def write_random(path: Path, height: int, width: int) -> None:
    rng = np.random.default_rng(0)
    profile = {
        "driver": "GTiff", "height": height, "width": width, "count": 3, "dtype": "uint8", "crs": "EPSG:32632",
        "transform": from_origin(0, 0, 0.5, 0.5), "tiled": True, "blockxsize": 512, "blockysize": 512,
        "photometric": "rgb", "interleave": "pixel", "bigtiff": "IF_SAFER",
    }  # fmt: skip
    with rasterio.Env(GDAL_CACHEMAX=64), rasterio.open(path, "w", **profile) as dst:
        for row in range(0, height, 512):
            for col in range(0, width, 4096):
                window = Window(col, row, min(4096, width - col), min(512, height - row))
                dst.write(rng.integers(0, 256, (3, window.height, window.width), np.uint8), window=window)


def run(what: str, folder: Path, more: list[str]) -> dict[str, float]:
    scene, store = str(folder / "scene.tif"), str(folder / "kept.zarr")
    words = ["-c", "building,road,water", "--background", "forest+vegetation", "-o", str(folder / "labels.tif")]
    model = ["--model", "demo", "--stride", str(TILE)]
    given = {
        "segment": ["segment", scene, *words, *model],
        "encode": ["encode", scene, *model, "-o", store],
        "ask": ["segment", store, *words],
    }
    command = [sys.executable, "-m", "geoovseg", *given[what], *more, "--overwrite", "--json", "--quiet"]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    return json.loads(done.stdout)


def strip_mb(width: int) -> float:
    return (TILE / CELL * (width / CELL) * (DEPTH + 1) * 4 + TILE * width) / 1e6


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help="leave out the scenes over 100 megapixels")
    parser.add_argument("--what", default="segment,encode,ask")
    parser.add_argument("--sizes", help="of scenes, as in 112x112,5000x5000; the first one tells what the model takes")
    parser.add_argument("--max-memory", help="MB of the blend, beyond which a scene is cut into panels")
    given = parser.parse_args()
    more = ["--max-memory", given.max_memory] if given.max_memory else []
    sizes = [tuple(map(int, s.split("x"))) for s in given.sizes.split(",")] if given.sizes else list(SIZES)
    sizes = [s for s in sizes if not given.quick or s[0] * s[1] < 1e8]
    print("| height x width | what | seconds | peak MB | above the model MB | strip MB | less strip MB |")
    print("|---|---|---|---|---|---|---|")
    base: dict[str, float] = {}
    with tempfile.TemporaryDirectory() as name:
        for height, width in sizes:
            write_random(Path(name) / "scene.tif", height, width)
            for what in given.what.split(","):
                found = run(what, Path(name), more)
                peak, strip = found["peak_rss_mb"] * 1.048576, 0 if what == "ask" else strip_mb(width)
                print(
                    f"| {height:,} x {width:,} | {what} | {found['seconds']['total']:.0f} | {peak:.0f} | "
                    f"{peak - base.setdefault(what, peak):.0f} | {strip:.0f} | {peak - strip:.0f} |",
                    flush=True,
                )
    largest = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss / 1024 * 1.048576
    print(f"\nLargest process by the parent's count: {largest:.0f} MB.")


if __name__ == "__main__":
    main()
