"""One process against two on the same scene and cores: wall-clock, without the start of Python; prints a table.

    python benchmarks/workers.py [--rounds 3] [--size 3072]

Both ways in turn, whole runs from an open scene to finished labels, the model's loading included.
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
import time
from pathlib import Path

import numpy as np
import rasterio
import torch

from geoovseg.demo.files import write_scene
from geoovseg.segmenter import segment

GIVEN = {"vocabulary": "demo", "model": "demo", "background": "none", "overwrite": True}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--size", type=int, default=3072)
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        scene, _ = write_scene(folder, 1000, args.size, args.size)
        ways = {
            "one process": lambda out: segment(scene, output=out, **GIVEN),
            "two workers": lambda out: segment(scene, workers=2, output=out, **GIVEN),
        }
        times: dict[str, list[float]] = {way: [] for way in ways}
        for _ in range(args.rounds):
            for way, run in ways.items():
                start = time.perf_counter()
                run(folder / f"{way}.tif")
                times[way].append(time.perf_counter() - start)
        labels = [rasterio.open(folder / f"{way}.tif").read(1) for way in ways]
        assert np.array_equal(*labels)
    one, two = (statistics.median(found) for found in times.values())
    print(f"{torch.get_num_threads()} threads, {args.size} x {args.size} pixels, medians of {args.rounds}\n")
    print("| one process, s | two workers, s | ratio |\n|---|---|---|")
    print(f"| {one:.1f} | {two:.1f} | {one / two:.2f} |")


if __name__ == "__main__":
    main()
