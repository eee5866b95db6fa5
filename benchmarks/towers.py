"""The computing stage beside a plain forward of the same windows, and a loop as the releases write it; prints Markdown.

    python benchmarks/towers.py [--size 3000x2000] [--chunks 2] [--precisions fp32,bf16]

ViT-B/16 with random weights, one process, three classes. The scene is cut into strips, and every way sees one strip
after the other in turn, so that what the machine does besides weighs on all alike. *Forward* is open_clip's own module
on eight windows at a time, without anything around it; *loop* is one window after the other, with our method on a tower
left as open_clip has it: forward, cosines, logits at pixels, sums over the whole image, and one argmax in the end. It
weighs all pixels of a window alike; labels of random weights depend on that.
"""

from __future__ import annotations

import argparse
import copy
import platform
import tempfile
import time
from collections import defaultdict
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import open_clip
import rasterio
import torch
from rasterio.windows import Window
from safetensors.torch import save_file
from torch import Tensor
from torch.nn import functional as F

from geoovseg.demo.files import write_scene
from geoovseg.methods import load_method
from geoovseg.models.load import load_clip
from geoovseg.models.vit import ClipVit
from geoovseg.segmenter import Segmenter
from geoovseg.vocabulary import parse_classes
from geoovseg.windows.plan import origins

ARCH, TILE, STRIDE, TOGETHER = "ViT-B-16-quickgelu", 224, 112, 8
CLASSES = "building,road,water"


def windows(pixels: Tensor) -> Iterator[tuple[int, int, Tensor]]:
    """All windows of pixels (1, 3, H, W), with their places."""
    for row in origins(pixels.shape[2], TILE, STRIDE):
        for col in origins(pixels.shape[3], TILE, STRIDE):
            yield row, col, pixels[:, :, row : row + TILE, col : col + TILE]


@torch.inference_mode()
def forward(tower: Any, pixels: Tensor) -> None:
    """Nothing but the model."""
    seen = [window for _, _, window in windows(pixels)]
    for first in range(0, len(seen), TOGETHER):
        tower(torch.cat(seen[first : first + TOGETHER]).to(next(tower.parameters()).dtype))


@torch.inference_mode()
def loop(method: Any, pixels: Tensor) -> Tensor:
    """Labels (H, W) as the releases' `forward_slide` makes them."""
    sums = pixels.new_zeros(1, 3, *pixels.shape[2:])
    count = pixels.new_zeros(1, 1, *pixels.shape[2:])
    for row, col, window in windows(pixels):
        logits = F.interpolate(method.score(window), size=(TILE, TILE), mode="bilinear")
        sums += F.pad(logits, (col, sums.shape[3] - col - TILE, row, sums.shape[2] - row - TILE))
        count[:, :, row : row + TILE, col : col + TILE] += 1
    return (sums / count).softmax(1)[0].argmax(0)


def spent(times: dict[str, list[float]], name: str, run: Callable[[], Any]) -> Any:
    """What a run gives; its seconds are kept."""
    start = time.perf_counter()
    found = run()
    times[name].append(time.perf_counter() - start)
    return found


def measure(folder: Path, size: tuple[int, int], chunks: int, precisions: list[str]) -> None:
    model = open_clip.create_model(ARCH).eval().requires_grad_(False)
    save_file(model.state_dict(), folder / "random.safetensors")
    name = f"{ARCH}@{folder / 'random.safetensors'}"
    text = load_clip(name, torch.device("cpu"), "fp32", "plain").text.embed(CLASSES.split(","))
    ours = {
        p: Segmenter(CLASSES, model=name, background="none", upsample="bilinear", templates="plain", precision=p)
        for p in precisions
    }
    plain = load_method("segearth", ClipVit(model.visual), text, parse_classes([CLASSES]))
    towers = {p: model.visual if p == "fp32" else copy.deepcopy(model.visual).bfloat16() for p in precisions}
    scene, _ = write_scene(folder, 7, size[1], size[0])
    times: dict[str, list[float]] = defaultdict(list)
    equal: dict[str, list[float]] = defaultdict(list)
    with rasterio.open(scene) as src:
        for n, rows in enumerate(np.array_split(np.arange(size[1]), chunks)):
            box = Window(0, int(rows[0]), size[0], len(rows))
            path = folder / f"strip{n}.tif"
            profile = {**src.profile, "height": len(rows), "transform": src.window_transform(box)}
            with rasterio.open(path, "w", **profile) as dst:
                dst.write(src.read(window=box))
            pixels = torch.from_numpy(src.read((1, 2, 3), window=box)).float()[None] / 255
            labels = {"loop": spent(times, "loop", lambda p=pixels: loop(plain, p)).numpy() + 1}
            for p in precisions:
                spent(times, f"forward, {p}", lambda p=p, x=pixels: forward(towers[p], x))
                made = ours[p].segment(path, output=folder / "labels.tif", overwrite=True)
                times[f"ours, {p}"].append(made.seconds["segment"])
                with rasterio.open(made.labels) as found:
                    labels[p] = found.read(1)
                for name, other in (("loop", labels["loop"]), ("fp32", labels[precisions[0]])):
                    equal[f"{p} {name}"].append(float((labels[p] == other).mean()))
    total = {name: sum(found) for name, found in times.items()}
    print("| way | seconds | by the forward | times as fast as the loop | labels as the loop's | as ours in fp32 |")
    print("|---|---|---|---|---|---|")
    print(f"| loop, fp32 | {total['loop']:.1f} | {total['loop'] / total['forward, fp32']:.2f} | 1.00 | | |")
    for p in precisions:
        for way in ("forward", "ours"):
            took = total[f"{way}, {p}"]
            same = [f"{np.mean(equal[f'{p} {name}']):.2%}" if way == "ours" else "" for name in ("loop", "fp32")]
            ratio, faster = took / total[f"forward, {p}"], total["loop"] / took
            print(f"| {way}, {p} | {took:.1f} | {ratio:.2f} | {faster:.2f} | {' | '.join(same)} |", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--size", default="3000x2000")
    parser.add_argument("--chunks", type=int, default=2)
    parser.add_argument("--precisions", default="fp32,bf16")
    args = parser.parse_args()
    width, height = map(int, args.size.split("x"))
    print(f"{platform.machine()}, {torch.get_num_threads()} threads, torch {torch.__version__}\n")
    with tempfile.TemporaryDirectory() as name:
        measure(Path(name), (width, height), args.chunks, args.precisions.split(","))


if __name__ == "__main__":
    main()
