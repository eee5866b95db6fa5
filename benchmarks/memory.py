"""Peak memory of `geoovseg segment` on scenes of random pixels, at stride = tile; prints a Markdown table.

    python benchmarks/memory.py [--quick]

Every run is a process of its own; its peak is what the kernel counts (maximum resident set size, as /usr/bin/time -v).
The largest scenes need 3 GB of disk in the temporary folder, and about a quarter of an hour on two cores.
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


def run(scene: Path) -> dict[str, float]:
    command = [sys.executable, "-m", "geoovseg", "segment", str(scene), "-c", "building,road,water", "--model", "demo"]
    command += ["--background", "forest+vegetation", "--stride", str(TILE), "--overwrite", "--json", "--quiet"]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    return json.loads(done.stdout)


def strip_mb(width: int) -> float:
    return (TILE / CELL * (width / CELL) * (DEPTH + 1) * 4 + TILE * width) / 1e6


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help="leave out the scenes over 100 megapixels")
    sizes = [s for s in SIZES if not parser.parse_args().quick or s[0] * s[1] < 1e8]
    print("| height x width | megapixels | windows | peak MB | above the model MB | strip MB | less strip MB |")
    print("|---|---|---|---|---|---|---|")
    base: float | None = None
    with tempfile.TemporaryDirectory() as folder:
        for height, width in sizes:
            scene = Path(folder) / "scene.tif"
            write_random(scene, height, width)
            found = run(scene)
            peak = found["peak_rss_mb"] * 1.048576
            base = peak if base is None else base
            strip = strip_mb(width)
            print(
                f"| {height:,} x {width:,} | {found['megapixels']:.1f} | {found['windows']:,} | {peak:.0f} | "
                f"{peak - base:.0f} | {strip:.0f} | {peak - strip:.0f} |",
                flush=True,
            )
    largest = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss / 1024 * 1.048576
    print(f"\nLargest process by the parent's count: {largest:.0f} MB.")


if __name__ == "__main__":
    main()
