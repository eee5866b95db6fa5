"""Polygons of large label rasters: ours, the script of equal quality, and the usual script; prints Markdown.

    python benchmarks/vectorize.py [--sides 6144,20480] [--runs ours,equal,usual]

The raster repeats a tile of 2048 pixels with a frame of background, so that its largest polygon is the same at every
size. `equal` polygonises the whole raster, cleans the coverage, simplifies it as one and writes it; `usual` simplifies
each polygon on its own. Every row is a process of its own; peak memory adds up its workers'.
"""

from __future__ import annotations

import argparse
import json
import platform
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import geopandas
import numpy as np
import rasterio
import shapely
from rasterio.features import shapes
from rasterio.transform import from_origin
from scipy.ndimage import gaussian_filter

from geoovseg.vectorize import vectorize

TILE, CLASSES, TOLERANCE = 2048, 6, 1.0


def tile() -> np.ndarray:
    """Labels of a smooth landscape, 1 to CLASSES, in a frame of 0."""
    rng = np.random.default_rng(0)
    fields = np.stack([gaussian_filter(rng.standard_normal((TILE, TILE), np.float32), 12) for _ in range(CLASSES)])
    codes = fields.argmax(0).astype(np.uint8) + 1
    codes[[0, -1]] = codes[:, [0, -1]] = 0
    return codes


def write_labels(path: Path, side: int) -> None:
    """The tile again and again, `side` pixels wide and high."""
    codes = tile()
    profile = {"driver": "GTiff", "width": side, "height": side, "count": 1, "dtype": "uint8", "tiled": True}
    place = from_origin(480_000, 5_460_000, 0.5, 0.5)
    with rasterio.open(path, "w", crs="EPSG:32632", transform=place, compress="deflate", nodata=255, **profile) as dst:
        for row in range(0, side, TILE):
            for col in range(0, side, TILE):
                dst.write(codes, 1, window=rasterio.windows.Window(col, row, TILE, TILE))


def whole(path: str, simplify: str, output: str) -> int:
    """A script's way: everything in memory."""
    with rasterio.open(path) as src:
        codes = src.read(1)
        found = [(int(v), shapely.geometry.shape(g)) for g, v in shapes(codes, mask=codes > 0, transform=src.transform)]
        crs = src.crs
    polygons = np.array([polygon for _, polygon in found])
    if simplify == "equal":
        polygons = shapely.coverage_simplify(shapely.coverage_clean(polygons), TOLERANCE, simplify_boundary=False)
    else:
        polygons = shapely.simplify(polygons, TOLERANCE)
    frame = geopandas.GeoDataFrame({"class_id": [code for code, _ in found]}, geometry=list(polygons), crs=crs)
    frame["area_m2"] = frame.area
    frame.to_file(output, layer="classes", engine="pyogrio")
    return len(frame)


def measure(kind: str, path: str) -> None:
    """One run in this process; prints seconds, peak memory, polygons."""
    start = time.perf_counter()
    output = str(Path(path).with_name(f"{kind}.gpkg"))
    count = (
        vectorize(path, output, simplify=TOLERANCE, overwrite=True).polygons
        if kind == "ours"
        else whole(path, kind, output)
    )
    seconds = time.perf_counter() - start
    own, children = (
        resource.getrusage(who).ru_maxrss / 1024 for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)
    )
    print(json.dumps([round(seconds, 1), round(own), round(children), count]))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--sides", default="6144,20480")
    parser.add_argument("--runs", default="ours,equal,usual")
    parser.add_argument("--measure", nargs=2, help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.measure:
        measure(*args.measure)
        return
    print(f"{platform.machine()}, {__import__('os').cpu_count()} cores\n")
    print(
        "| side | run | seconds | peak memory, MB | largest worker, MB | polygons |\n|---|---|---|---|---|---|",
        flush=True,
    )
    with tempfile.TemporaryDirectory() as name:
        for side in map(int, args.sides.split(",")):
            path = Path(name) / f"{side}.tif"
            write_labels(path, side)
            for kind in args.runs.split(","):
                command = [sys.executable, __file__, "--measure", kind, str(path)]
                done = subprocess.run(command, capture_output=True, text=True)
                line = done.stdout.strip().splitlines()[-1] if done.returncode == 0 else done.stderr.strip()[-200:]
                values = json.loads(line) if done.returncode == 0 else [line]
                print(f"| {side} | {kind} | {' | '.join(map(str, values))} |", flush=True)


if __name__ == "__main__":
    main()
