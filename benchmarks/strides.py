"""Fewer windows for the same map? Strides and tapers over drawn scenes; prints a table in Markdown.

    python benchmarks/strides.py [--seeds 1000-1007] [--size 1024] [--method segearth]

The demo model's tile is 112 pixels and its patch 8. mIoU is over all scenes together; seconds are of the computing
stage, of all of them. Seam score: rate of label changes across the lines where the nearest window changes, by the rate
across lines in the middle between; 1 is no seam.
"""

from __future__ import annotations

import argparse
import tempfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import rasterio
import torch
from demo_scenes import ious_of
from numpy.typing import NDArray

from geoovseg.demo.files import write_scene
from geoovseg.segmenter import Segmenter
from geoovseg.windows import blend

TILE = 112
Taper = Callable[..., torch.Tensor]
OURS: Taper = blend.taper


def hann(length: int, device: torch.device | str = "cpu") -> torch.Tensor:
    """A raised cosine."""
    return torch.hann_window(length + 2, periodic=False, device=device)[1:-1]


def steep(length: int, device: torch.device | str = "cpu") -> torch.Tensor:
    """The square of ours: the middle of a window counts more."""
    return OURS(length, device).square()


def flat(length: int, device: torch.device | str = "cpu") -> torch.Tensor:
    """All pixels alike, as in the releases."""
    return torch.ones(length, device=device)


TAPERS: dict[str, Taper] = {"ours": OURS, "raised cosine": hann, "steeper": steep, "flat": flat}


def seams(labels: NDArray[np.uint8], stride: int) -> float:
    """Over columns and rows."""
    here, there = [], []
    for image in (labels, labels.T):
        changes = (image[:, 1:] != image[:, :-1]).mean(0)
        lines = np.arange((TILE + stride) // 2, image.shape[1] - TILE, stride)
        here.append(changes[lines - 1])
        there.append(changes[np.minimum(lines + stride // 2, len(changes)) - 1])
    return float(np.concatenate(here).mean() / np.concatenate(there).mean())


def measure(model: Segmenter, scenes: list[tuple[str, str]], stride: int, folder: Path) -> list[float]:
    """mIoU, seam score, windows and seconds."""
    made = [model.segment(s, output=folder / f"{n}.tif", overwrite=True) for n, (s, _) in enumerate(scenes)]
    scores = []
    for each in made:
        with rasterio.open(each.labels) as src:
            scores.append(seams(src.read(1), stride))
    iou = ious_of((each.labels, truth) for each, (_, truth) in zip(made, scenes, strict=True)).mean()
    return [float(iou), float(np.mean(scores)), sum(m.windows for m in made), sum(m.seconds["segment"] for m in made)]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seeds", default="1000-1007")
    parser.add_argument("--size", type=int, default=1024)
    parser.add_argument("--method", default="segearth")
    args = parser.parse_args()
    first, last = map(int, args.seeds.split("-"))
    print("| stride, of the tile | taper | mIoU | seam score | windows | seconds | time, of the first |")
    print("|---|---|---|---|---|---|---|")
    with tempfile.TemporaryDirectory() as name:
        folder, base = Path(name), 0.0
        scenes = [write_scene(folder / str(s), s, args.size, args.size) for s in range(first, last + 1)]
        for taper in TAPERS:
            blend.taper = TAPERS[taper]
            for stride in range(TILE // 2, TILE + 1, 8) if taper == "ours" else (TILE // 2, 80, 96):
                model = Segmenter(vocabulary="demo", model="demo", background="none", method=args.method, stride=stride)
                iou, seam, windows, seconds = measure(model, scenes, stride, folder)
                base = base or seconds
                row = (f"{stride / TILE:.2f}", taper, f"{iou:.4f}", f"{seam:.3f}", int(windows), f"{seconds:.1f}")
                print(f"| {' | '.join(map(str, row))} | {seconds / base:.2f} |", flush=True)


if __name__ == "__main__":
    main()
