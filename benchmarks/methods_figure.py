"""One drawn scene under every method, side by side: writes docs/methods.jpg.

python benchmarks/methods_figure.py [--seed 1003] [--size 448]
"""

from __future__ import annotations

import argparse
import tempfile
from pathlib import Path

import numpy as np
import rasterio
from PIL import Image, ImageDraw, ImageFont

from geoovseg import METHODS, evaluate, segment
from geoovseg.demo.files import write_scene
from geoovseg.vocabulary import read_vocabulary

RESULT = Path(__file__).parents[1] / "docs" / "methods.jpg"
PANE, GAP, HEAD, COLUMNS = 230, 8, 22, 5


def colours() -> np.ndarray:
    """Colour of every code of the demo list, by code."""
    table = np.zeros((256, 3), np.uint8)
    for code, entry in enumerate(read_vocabulary("demo").classes, start=1):
        table[code] = [int(entry.colour[n : n + 2], 16) for n in (1, 3, 5)]
    return table


def codes(path: str) -> np.ndarray:
    with rasterio.open(path) as src:
        return src.read(1)


def panes(seed: int, size: int) -> list[tuple[str, np.ndarray]]:
    table = colours()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        scene, truth = write_scene(folder, seed, size, size)
        with rasterio.open(scene) as src:
            found = [("scene", np.moveaxis(src.read(), 0, -1)), ("ground truth", table[codes(truth)])]
        for method, card in METHODS.items():
            if "sam" in card.needs or "clip" not in card.needs:  # there is no demo Segment Anything, nor SAM 3
                continue
            labels = segment(
                scene, vocabulary="demo", model="demo", background="none", method=method, output=folder / "labels.tif",
                overwrite=True, vfm="demo" if card.vfm else None,
                regions="felzenszwalb" if "regions" in card.needs else None,
            ).labels  # fmt: skip
            found.append((f"{card.title}  {evaluate(labels, truth).miou:.2f}", table[codes(labels)]))
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seed", type=int, default=1003)
    parser.add_argument("--size", type=int, default=448)
    args = parser.parse_args()
    found = panes(args.seed, args.size)
    rows = -(-len(found) // COLUMNS)
    page = Image.new("RGB", (COLUMNS * (PANE + GAP) + GAP, rows * (PANE + HEAD + GAP) + GAP), "white")
    draw, font = ImageDraw.Draw(page), ImageFont.load_default(size=14)
    for n, (title, pixels) in enumerate(found):
        x, y = GAP + n % COLUMNS * (PANE + GAP), GAP + n // COLUMNS * (PANE + HEAD + GAP)
        draw.text((x, y), title, fill="black", font=font)
        kind = Image.Resampling.LANCZOS if title == "scene" else Image.Resampling.NEAREST
        page.paste(Image.fromarray(pixels).resize((PANE, PANE), kind), (x, y + HEAD))
    page.save(RESULT, quality=88)
    print(RESULT)


if __name__ == "__main__":
    main()
