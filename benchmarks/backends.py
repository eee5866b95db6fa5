"""Would another engine run a tower faster on this CPU? `python benchmarks/backends.py`; prints a table in Markdown.

ViT-B/16 with random weights on eight windows of 224, all engines in turn in one process: open_clip's module as it is,
as `torch.compile` makes it (needs a C++ compiler; shapes are fixed), as OpenVINO makes it (`pip install openvino`; left
out where it is not installed), and ours, which also stops before what the method does not need.
"""

from __future__ import annotations

import argparse
import platform
import statistics
import tempfile
import time
from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import open_clip
import torch
from safetensors.torch import save_file
from torch import Tensor

from geoovseg.methods import load_method
from geoovseg.models.load import load_clip
from geoovseg.vocabulary import parse_classes

ARCH, TILE, TOGETHER = "ViT-B-16-quickgelu", 224, 8


def engines(folder: Path) -> dict[str, tuple[float, Callable[[Tensor], Tensor]]]:
    """By name, the seconds that making one takes, and what runs it."""
    model = open_clip.create_model(ARCH).eval().requires_grad_(False)
    save_file(model.state_dict(), folder / "random.safetensors")
    pixels = torch.zeros(TOGETHER, 3, TILE, TILE)
    found: dict[str, tuple[float, Callable[[Tensor], Tensor]]] = {"open_clip": (0.0, model.visual)}
    found["torch.compile"] = made(lambda: torch.compile(model.visual, dynamic=False), pixels)
    if find_spec("openvino") is not None:
        found["OpenVINO"] = made(lambda: by_openvino(model.visual, pixels), pixels)
    return {**found, "ours": made(lambda: ours(folder / "random.safetensors"), pixels)}


def made(make: Callable[[], Callable[[Tensor], Tensor]], pixels: Tensor) -> tuple[float, Callable[[Tensor], Tensor]]:
    """What runs a tower, after its first run, and the seconds that took."""
    begin = time.perf_counter()
    run = make()
    with torch.inference_mode():
        run(pixels)
    return time.perf_counter() - begin, run


def by_openvino(tower: Any, pixels: Tensor) -> Callable[[Tensor], Tensor]:
    import openvino as ov

    told = {"INFERENCE_PRECISION_HINT": "f32", "PERFORMANCE_HINT": "LATENCY"}
    model = ov.compile_model(ov.convert_model(tower, example_input=pixels, input=list(pixels.shape)), "CPU", told)
    return lambda x: torch.from_numpy(model(x.numpy())[0])


def ours(weights: Path) -> Callable[[Tensor], Tensor]:
    words = ["building", "road", "water"]
    clip = load_clip(f"{ARCH}@{weights}", torch.device("cpu"), "fp32", "plain")
    method = load_method("clip", clip.vit, clip.text.embed(words), parse_classes([",".join(words)]))
    return method.score


@torch.inference_mode()
def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=7)
    rounds = parser.parse_args().rounds
    print(f"{platform.machine()}, {torch.get_num_threads()} threads, torch {torch.__version__}\n")
    with tempfile.TemporaryDirectory() as name:
        ways = engines(Path(name))
    pixels = torch.rand(TOGETHER, 3, TILE, TILE, generator=torch.Generator().manual_seed(0))
    seconds: dict[str, list[float]] = {way: [] for way in ways}
    for _ in range(rounds):
        for way, (_, run) in ways.items():
            begin = time.perf_counter()
            run(pixels)
            seconds[way].append(time.perf_counter() - begin)
    plain = statistics.median(seconds["open_clip"])
    print("| engine | to the end of its first run, s | 8 windows, s | by open_clip |\n|---|---|---|---|")
    for way, (first, _) in ways.items():
        took = statistics.median(seconds[way])
        print(f"| {way} | {first:.1f} | {took:.2f} | {took / plain:.2f} |")


if __name__ == "__main__":
    main()
