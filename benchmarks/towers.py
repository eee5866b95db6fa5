"""The computing stage beside a plain forward of the same windows, and a loop as the releases write it; prints Markdown.

    python benchmarks/towers.py [--size 3000x2000] [--chunks 2] [--precisions fp32,bf16,int8]
    python benchmarks/towers.py --device cuda:0 --together 8,32,128 --compiled      # a GPU, in less than ten minutes

ViT-B/16 with random weights, one process, three classes. The scene is cut into strips, and every way sees one strip
after the other in turn, so that what the machine does besides weighs on all alike. *Forward* is open_clip's own module
on so many windows at a time, of pixels that are on the device, with nothing around it; *loop* is one window after the
other, with our method on a tower left as open_clip has it: forward, cosines, logits at pixels, sums over the whole
image, and one argmax in the end. It weighs all pixels of a window alike; labels of random weights depend on that.
*Compiled* is the forward through `torch.compile(mode="reduce-overhead")`, after two runs that do not count. Of a GPU
it is also told which share of the time a kernel runs while *ours* does, and the most memory that tensors took.
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
from torch.autograd import DeviceType
from torch.nn import functional as F

from geoovseg.demo.files import write_scene
from geoovseg.methods import load_method
from geoovseg.models.load import load_clip
from geoovseg.models.vit import ClipVit
from geoovseg.ops.eight_bits import is_exact
from geoovseg.segmenter import Segmenter
from geoovseg.vocabulary import parse_classes
from geoovseg.windows.plan import origins

ARCH, TILE, STRIDE = "ViT-B-16-quickgelu", 224, 112
CLASSES = "building,road,water"
KINDS = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}


def windows(pixels: Tensor) -> Iterator[tuple[int, int, Tensor]]:
    """All windows of pixels (1, 3, H, W), with their places."""
    for row in origins(pixels.shape[2], TILE, STRIDE):
        for col in origins(pixels.shape[3], TILE, STRIDE):
            yield row, col, pixels[:, :, row : row + TILE, col : col + TILE]


@torch.inference_mode()
def forward(tower: Any, pixels: Tensor, together: int) -> None:
    """Nothing but the model; the last windows are filled up, so that all batches have one shape."""
    seen = [window for _, _, window in windows(pixels)]
    kind = next(tower.parameters()).dtype
    for first in range(0, len(seen), together):
        batch = seen[first : first + together]
        tower(torch.cat([*batch, *batch[:1] * (together - len(batch))]).to(kind))


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


class Bench:
    """All ways on one device, and what they took."""

    def __init__(self, folder: Path, device: torch.device, precisions: list[str], together: list[int]) -> None:
        self.folder, self.device, self.precisions, self.together = folder, device, precisions, together
        model = open_clip.create_model(ARCH).eval().requires_grad_(False)
        save_file(model.state_dict(), folder / "random.safetensors")
        name = f"{ARCH}@{folder / 'random.safetensors'}"
        said = {"model": name, "background": "none", "upsample": "bilinear", "templates": "plain"}
        text = load_clip(name, torch.device("cpu"), "fp32", "plain").text.embed(CLASSES.split(",")).to(device)
        self.ours = {
            (p, n): Segmenter(CLASSES, precision=p, device=str(device), batch_size=n, **said)
            for p in precisions
            for n in together
        }
        visual = model.visual.to(device)
        self.plain = load_method("segearth", ClipVit(visual), text, parse_classes([CLASSES]))
        kinds = [p for p in precisions if p in KINDS]
        self.towers = {p: visual if p == "fp32" else copy.deepcopy(visual).to(KINDS[p]) for p in kinds}
        self.times: dict[str, list[float]] = defaultdict(list)
        self.equal: dict[str, list[list[float]]] = defaultdict(list)

    def spent(self, name: str, run: Callable[[], Any]) -> Any:
        """What a run gives; its seconds are kept."""
        self.wait()
        start = time.perf_counter()
        found = run()
        self.wait()
        self.times[name].append(time.perf_counter() - start)
        return found

    def wait(self) -> None:
        """Until the device has done what it was told."""
        if self.device.type == "cuda":
            torch.cuda.synchronize(self.device)

    def strip(self, path: Path, pixels: Tensor) -> None:
        """All ways on one part of the scene."""
        labels = {"loop": self.spent("loop, fp32", lambda: loop(self.plain, pixels)).cpu().numpy() + 1}
        for p in self.precisions:
            for n in self.together:
                if p in self.towers:
                    self.spent(f"forward, {p}, {n}", lambda p=p, n=n: forward(self.towers[p], pixels, n))
                made = self.ours[p, n].segment(path, output=self.folder / "labels.tif", overwrite=True)
                self.times[f"ours, {p}, {n}"].append(made.seconds["segment"])
                with rasterio.open(made.labels) as found:
                    labels[f"ours, {p}, {n}"] = found.read(1)
        first = f"ours, {self.precisions[0]}, {self.together[0]}"
        for name, found in labels.items():
            if name != "loop":
                self.equal[name].append([float((found == labels[other]).mean()) for other in ("loop", first)])

    def compiled(self, pixels: Tensor) -> None:
        """The forward through torch's compiler; what compiling takes does not count."""
        for p, plain in self.towers.items():
            tower = torch.compile(plain, mode="reduce-overhead")
            forward(tower, pixels[..., : TILE + STRIDE, :], self.together[-1])
            forward(tower, pixels[..., : TILE + STRIDE, :], self.together[-1])
            name = f"forward, {p}, {self.together[-1]}"
            self.spent(f"{name}, beside", lambda t=plain: forward(t, pixels, self.together[-1]))
            self.spent(f"{name}, compiled", lambda t=tower: forward(t, pixels, self.together[-1]))

    def busy(self, path: Path) -> None:
        """How much of the time a kernel runs, and the memory of tensors."""
        for (p, n), ours in self.ours.items():
            torch.cuda.reset_peak_memory_stats(self.device)
            with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CUDA]) as profile:
                made = ours.segment(path, output=self.folder / "labels.tif", overwrite=True)
            events = (event for event in profile.events() if event.device_type == DeviceType.CUDA)
            kernels = [event for event in events if not event.name.startswith(("Memcpy", "Memset"))]
            running = sum(event.device_time for event in kernels) / 1e6 / made.seconds["segment"]
            most = torch.cuda.max_memory_allocated(self.device) / 1e9
            print(f"ours, {p}, {n} together: a kernel runs {running:.0%} of the time; tensors take {most:.1f} GB")

    def table(self) -> None:
        """What everything took."""
        total = {name: sum(found) for name, found in self.times.items()}
        plain = next((took for name, took in total.items() if name.startswith("forward")), total["loop, fp32"])
        print("| way | seconds | by the forward | as fast as the loop | labels as the loop's | as the first of ours |")
        print("|---|---|---|---|---|---|")
        for name, took in total.items():
            own = name.replace("ours", "forward").replace("compiled", "beside")
            beside = plain if name.startswith("loop") else total.get(own, plain)
            same = " | ".join(f"{share:.2%}" for share in np.mean(self.equal[name], 0)) if self.equal[name] else "|"
            print(f"| {name} | {took:.2f} | {took / beside:.2f} | {total['loop, fp32'] / took:.2f} | {same} |")


def measure(bench: Bench, size: tuple[int, int], chunks: int, compiled: bool) -> None:
    """Every way sees one strip of a drawn scene after the other."""
    scene, _ = write_scene(bench.folder, 7, size[1], size[0])
    with rasterio.open(scene) as src:
        for n, rows in enumerate(np.array_split(np.arange(size[1]), chunks)):
            box = Window(0, int(rows[0]), size[0], len(rows))
            path = bench.folder / f"strip{n}.tif"
            profile = {**src.profile, "height": len(rows), "transform": src.window_transform(box)}
            with rasterio.open(path, "w", **profile) as dst:
                dst.write(src.read(window=box))
            pixels = torch.from_numpy(src.read((1, 2, 3), window=box)).to(bench.device).float()[None] / 255
            if not n:
                forward(next(iter(bench.towers.values())), pixels[..., :TILE, :], bench.together[0])  # warms up
            bench.strip(path, pixels)
        if compiled:
            bench.compiled(pixels)
    bench.table()
    if bench.device.type == "cuda":
        bench.busy(path)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--size", default="3000x2000")
    parser.add_argument("--chunks", type=int, default=2)
    parser.add_argument("--precisions", help="default: all that the device has")
    parser.add_argument("--device", type=torch.device, default=torch.device("cpu"))
    parser.add_argument("--together", default="8", help="windows that go through the model together")
    parser.add_argument("--compiled", action="store_true", help="also the forward through torch.compile")
    args = parser.parse_args()
    width, height = map(int, args.size.split("x"))
    where = torch.cuda.get_device_name(args.device) if args.device.type == "cuda" else platform.machine()
    print(f"{where}, {torch.get_num_threads()} threads, torch {torch.__version__}\n")
    with tempfile.TemporaryDirectory() as name:
        together = [int(n) for n in args.together.split(",")]
        eight = args.device.type == "cpu" and is_exact()
        precisions = args.precisions or ("fp32,bf16,int8" if eight else "fp32,bf16")
        bench = Bench(Path(name), args.device, precisions.split(","), together)
        measure(bench, (width, height), args.chunks, args.compiled)


if __name__ == "__main__":
    main()
