"""Seams of ConInfer's blocks: base, group and scene context on one drawn scene; writes docs/context.jpg.

    python benchmarks/context.py [--height 3000] [--width 4000] [--seed 1003]

Seam score: rate of label changes across the lines where blocks meet, by the rate across parallel lines half a block
away; 1 is no seam. Lines are strips, since blocks fade into each other where they overlap.
"""

from __future__ import annotations

import argparse
import itertools
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import rasterio
from numpy.typing import NDArray
from PIL import Image, ImageDraw

from geoovseg.demo.files import write_scene
from geoovseg.evaluation import evaluate
from geoovseg.segmenter import segment
from geoovseg.windows.plan import origins

SIDE, STEP = 7 * 224, 6 * 224
"""Blocks of the demo model and the step between them."""
STRIP = 16
"""Pixels beside a line that count as on it."""
RUNS: dict[str, dict[str, Any]] = {
    "base (SegEarth-OV)": {"method": "segearth"},
    "ConInfer, group": {"method": "coninfer", "vfm": "demo"},
    "ConInfer, scene": {"method": "coninfer", "vfm": "demo", "settings": {"context": "scene"}},
}


def borders(length: int) -> list[int]:
    """Where neighbouring blocks weigh alike: the middle of their overlap."""
    starts = origins(length, min(SIDE, length), STEP)
    return [(a + b + SIDE) // 2 for a, b in itertools.pairwise(starts)]


def change_rate(labels: NDArray[np.uint8], at: int) -> float:
    """Share of neighbouring pixels that differ, across columns near one."""
    strip = labels[:, max(0, at - STRIP) : at + STRIP]
    return float((strip[:, 1:] != strip[:, :-1]).mean())


def seam_score(labels: NDArray[np.uint8]) -> float:
    """Over vertical and horizontal borders together."""
    here, there = [], []
    for image in (labels, labels.T):
        for line in borders(image.shape[1]):
            here.append(change_rate(image, line))
            away = [at for at in (line - SIDE // 2, line + SIDE // 2) if STRIP <= at < image.shape[1] - STRIP]
            there.append(np.mean([change_rate(image, at) for at in away]))
    return float(np.mean(here) / np.mean(there))


def thumbnail(path: str | Path, size: tuple[int, int]) -> Image.Image:
    with rasterio.open(path) as src:
        if src.count >= 3:
            return Image.fromarray(np.moveaxis(src.read((1, 2, 3)), 0, -1)).resize(size, Image.Resampling.LANCZOS)
        colours = np.zeros((256, 3), np.uint8)
        for code, rgba in src.colormap(1).items():
            colours[code] = rgba[:3]
        return Image.fromarray(colours[src.read(1)]).resize(size, Image.Resampling.BOX)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--height", type=int, default=3000)
    parser.add_argument("--width", type=int, default=4000)
    parser.add_argument("--seed", type=int, default=1003)
    args = parser.parse_args()
    size = (480, round(480 * args.height / args.width))
    sheet = Image.new("RGB", (2 * size[0] + 10, 2 * (size[1] + 22)), "white")
    draw = ImageDraw.Draw(sheet)
    print("| labels | mIoU | seam score | seconds |\n|---|---|---|---|")
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        scene, truth = write_scene(folder / "drawn", args.seed, args.height, args.width)
        pictures = [("scene", thumbnail(scene, size))]
        for title, given in RUNS.items():
            found = segment(
                scene, vocabulary="demo", model="demo", background="none", output=folder / "l.tif",
                overwrite=True, **given,
            )  # fmt: skip
            with rasterio.open(found.labels) as src:
                score = seam_score(src.read(1))
            miou = evaluate(found.labels, truth).miou
            print(f"| {title} | {miou:.3f} | {score:.3f} | {found.seconds['total']:.0f} |", flush=True)
            pictures.append((title, thumbnail(found.labels, size)))
    for n, (title, picture) in enumerate(pictures):
        at = ((n % 2) * (size[0] + 10), (n // 2) * (size[1] + 22))
        draw.text((at[0] + 2, at[1] + 5), title, fill="black")
        sheet.paste(picture, (at[0], at[1] + 20))
    sheet.save(Path(__file__).parents[1] / "docs" / "context.jpg", quality=88)


if __name__ == "__main__":
    main()
