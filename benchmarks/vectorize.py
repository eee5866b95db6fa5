"""Polygons of large label rasters: ours, the script of equal quality, and the usual script; prints Markdown.

    python benchmarks/vectorize.py [--sides 6144,20480] [--runs ours,equal,usual] [--boards 300,1000]

The raster repeats a tile of 2048 pixels with a frame of background, so that its largest polygon is the same at every
size; for the runs called `connected` the frame is of one class, a network over the whole raster. `equal` polygonises
the whole raster, cleans the coverage, simplifies it as one and writes it; `usual` simplifies each polygon on its own.
Every row is a process of its own. Gaps and overlaps are those of the polygons of the first tile, in square metres.
A board is a checkerboard, in which every pixel is a polygon: microseconds and bytes of each, beyond those of one pixel.
"""

from __future__ import annotations

import argparse
import json
import os
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

from geoovseg.vectors.vectorize import vectorize

TILE, CLASSES, TOLERANCE = 2048, 6, 1.0
PIXEL, WEST, NORTH = 0.5, 480_000, 5_460_000
OURS = {
    "ours": {},
    "ours --min-area 5": {"min_area": 5},
    "ours, connected": {},
    "ours, connected, --split-grid 1000": {"split_grid": 1000},
}
RUNS = (*OURS, "usual", "equal")


def tile(frame: int) -> np.ndarray:
    """Labels of a smooth landscape, 1 to CLASSES, in a frame of another code."""
    rng = np.random.default_rng(0)
    fields = np.stack([gaussian_filter(rng.standard_normal((TILE, TILE), np.float32), 12) for _ in range(CLASSES)])
    codes = fields.argmax(0).astype(np.uint8) + 1
    codes[[0, -1]] = codes[:, [0, -1]] = frame
    return codes


def write_labels(path: Path, side: int, frame: int = 0) -> None:
    """The tile again and again, `side` pixels wide and high."""
    codes = tile(frame)
    profile = {"driver": "GTiff", "width": side, "height": side, "count": 1, "dtype": "uint8", "tiled": True}
    place = from_origin(WEST, NORTH, PIXEL, PIXEL)
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


def gaps_and_overlaps(output: str) -> tuple[float, float]:
    """Square metres of the first tile, within its frame, with no polygon and with more than one."""
    inside = ((TILE - 2) * PIXEL) ** 2
    box = (WEST + PIXEL, NORTH - (TILE - 1) * PIXEL, WEST + (TILE - 1) * PIXEL, NORTH - PIXEL)
    polygons = geopandas.read_file(output, bbox=box, layer="classes").geometry.to_numpy()
    polygons = shapely.intersection(polygons, shapely.box(*box))
    covered = shapely.area(shapely.union_all(polygons))
    return round(inside - covered, 1), round(float(shapely.area(polygons).sum() - covered), 1)


def measure(kind: str, path: str) -> None:
    """One run in this process; prints seconds, peak memory, polygons, gaps and overlaps."""
    start = time.perf_counter()
    output = str(Path(path).with_name("out.gpkg"))
    count = (
        vectorize(path, output, simplify=TOLERANCE, overwrite=True, **{"workers": 0, **OURS[kind]}).polygons
        if kind in OURS
        else whole(path, kind, output)
    )
    seconds = time.perf_counter() - start
    own, children = (
        resource.getrusage(who).ru_maxrss / 1024 for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)
    )
    wrong = ("", "") if "connected" in kind else gaps_and_overlaps(output)
    print(json.dumps([round(seconds, 1), round(own), round(children), count, *wrong]))


def measure_board(side: int) -> None:
    """One checkerboard in this process; prints microseconds and bytes a polygon."""
    with tempfile.TemporaryDirectory() as name:
        path, output = Path(name) / "board.tif", Path(name) / "board.gpkg"
        codes = (np.add.outer(np.arange(side), np.arange(side)) % 2 + 1).astype(np.uint8)
        place = from_origin(WEST, NORTH, PIXEL, PIXEL)
        profile = {"driver": "GTiff", "count": 1, "dtype": "uint8", "crs": "EPSG:32632", "transform": place}
        for some in (codes[:1, :1], codes):
            with rasterio.open(path, "w", height=len(some), width=len(some), **profile) as dst:
                dst.write(some, 1)
            before, start = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss, time.perf_counter()
            count = vectorize(path, output, overwrite=True).polygons
            seconds = time.perf_counter() - start
        held = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before
    print(json.dumps([count, round(seconds, 1), round(seconds / count * 1e6, 1), round(held * 1024 / count)]))


def boards(sides: list[int]) -> None:
    """A row for each."""
    print("\n| checkerboard | polygons | seconds | µs a polygon | bytes a polygon |\n|---|---|---|---|---|")
    for side in sides:
        done = subprocess.run(
            [sys.executable, __file__, "--board", str(side)], capture_output=True, text=True, check=True
        )
        print(f"| {side} x {side} | {' | '.join(map(str, json.loads(done.stdout)))} |", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--sides", default="6144,20480")
    parser.add_argument("--runs", default=";".join(RUNS), help="divided by ;")
    parser.add_argument("--boards", default="300,1000")
    parser.add_argument("--measure", nargs=2, help=argparse.SUPPRESS)
    parser.add_argument("--board", type=int, help=argparse.SUPPRESS)
    parser.add_argument("--write", nargs=3, help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.measure:
        measure(*args.measure)
        return
    if args.board:
        measure_board(args.board)
        return
    if args.write:
        write_labels(Path(args.write[0]), *map(int, args.write[1:]))
        return
    print(f"{platform.machine()}, {os.cpu_count()} cores\n")
    print("| side | run | seconds | peak memory, MB | largest worker, MB | polygons | gaps, m² | overlaps, m² |")
    print("|---|---|---|---|---|---|---|---|", flush=True)
    with tempfile.TemporaryDirectory() as name:
        for side in map(int, filter(None, args.sides.split(","))):
            paths = [Path(name) / f"{side}_{frame}.tif" for frame in (0, 1)]
            for frame, path in enumerate(paths):  # by others: a process inherits the peak of the one that starts it
                subprocess.run([sys.executable, __file__, "--write", str(path), str(side), str(frame)], check=True)
            for kind in args.runs.split(";"):
                command = [sys.executable, __file__, "--measure", kind, str(paths["connected" in kind])]
                done = subprocess.run(command, capture_output=True, text=True)
                last = (done.stderr.strip().splitlines() or [f"ended by signal {-done.returncode}"])[-1]
                values = json.loads(done.stdout) if done.returncode == 0 else [last]
                print(f"| {side} | {kind} | {' | '.join(map(str, values))} |", flush=True)
    boards([int(side) for side in args.boards.split(",") if side])


if __name__ == "__main__":
    main()
