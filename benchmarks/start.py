"""From command to labels of 256 x 256 pixels, beside a bare import of torch, in turn; prints Markdown.

    python benchmarks/start.py [--rounds 7] [--scene 6000x4000] [--before CHECKOUT]

`--scene` also times whole commands on a drawn scene of that size, with `--before` in turn those of another checkout.
"""

from __future__ import annotations

import argparse
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from geoovseg.demo.files import write_scene

WORDS = "building,road,water"


def seconds(*command: str, checkout: Path = Path(__file__).parents[1]) -> float:
    """Of a whole process of Python with a checkout's package."""
    start = time.perf_counter()
    subprocess.run([sys.executable, *command], cwd=checkout, capture_output=True, check=True)
    return time.perf_counter() - start


def segment(folder: Path, width: int, height: int) -> list[str]:
    """The command for a drawn scene."""
    scene, _ = write_scene(folder / f"{width}x{height}", 1000, height, width)
    output = str(folder / "labels.tif")
    return ["-m", "geoovseg", "segment", scene, "-c", WORDS, "--model", "demo", "-o", output, "--overwrite"]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--scene", default="")
    parser.add_argument("--before", type=Path)
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        command = segment(Path(name), 256, 256)
        ways: dict[str, list[float]] = {"import torch": [], "segment, 256 x 256": []}
        for _ in range(args.rounds + 1):
            ways["import torch"].append(seconds("-c", "import torch"))
            ways["segment, 256 x 256"].append(seconds(*command))
        bare, ours = (statistics.median(found[1:]) for found in ways.values())  # the first of each warms up
        print("| command | seconds | by the import |\n|---|---|---|")
        print(
            f"| import torch | {bare:.2f} | 1.00 |\n| segment, 256 x 256 | {ours:.2f} | {ours / bare:.2f} |", flush=True
        )
        if args.scene:
            large = segment(Path(name), *map(int, args.scene.split("x")))
            for _ in range(2):
                for which, checkout in {"now": Path(__file__).parents[1], "before": args.before}.items():
                    if checkout is not None:
                        took = seconds(*large, checkout=checkout)
                        print(f"| segment, {args.scene.replace('x', ' x ')}, {which} | {took:.1f} | |", flush=True)


if __name__ == "__main__":
    main()
