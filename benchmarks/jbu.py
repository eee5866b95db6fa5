"""Learned upsampling at the size of ViT-B/16: the plain form and ours, seconds, memory and difference; prints a table.

    python benchmarks/jbu.py [--rounds 5]

One window of 224 x 224 pixels, 196 patches, features of length 512, ten words, random weights. Every form runs in a
process of its own, so that its peak memory is its own; the plain form is the one the tests compare with.
"""

from __future__ import annotations

import argparse
import multiprocessing
import resource
import statistics
import sys
import time
from collections.abc import Callable
from pathlib import Path

import torch
from torch import Tensor
from torch.nn import functional as F

sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))

from test_jbu import NAMES, plain, random_state

from geoovseg.models.upsamplers import build_jbu

DIM, GRID, WORDS = 512, (14, 14), 10


def inputs(arch: str) -> tuple[dict[str, Tensor], Tensor, Tensor, Tensor]:
    torch.manual_seed(0)
    text = F.normalize(torch.randn(WORDS, DIM), dim=-1)
    return random_state(arch, DIM), torch.randn(1, GRID[0] * GRID[1], DIM), torch.randn(1, 3, 224, 224), text


def before(arch: str) -> Callable[[], Tensor]:
    state, patches, image, text = inputs(arch)
    source = patches[0].T.view(1, DIM, *GRID)
    return lambda: torch.einsum("bcyx,qc->bqyx", F.normalize(plain(state, NAMES[arch], source, image), dim=1), text)


def after(arch: str) -> Callable[[], Tensor]:
    state, patches, image, text = inputs(arch)
    jbu = build_jbu(state, arch, torch.device("cpu"))
    return lambda: jbu.cosines(patches, GRID, image, text)


def measure(form: str, arch: str, rounds: int) -> tuple[float, float, Tensor]:
    """Median seconds, peak memory above what the process held before in MB, and the cosines."""
    run = {"before": before, "after": after}[form](arch)
    held = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    times = []
    with torch.inference_mode():
        for _ in range(rounds):
            start = time.perf_counter()
            found = run()
            times.append(time.perf_counter() - start)
    return statistics.median(times), (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - held) / 1024, found


def apart(form: str, arch: str, rounds: int) -> tuple[float, float, Tensor]:
    with multiprocessing.get_context("spawn").Pool(1) as pool:
        return pool.apply(measure, (form, arch, rounds))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=5)
    rounds = parser.parse_args().rounds
    print(f"{torch.get_num_threads()} threads, torch {torch.__version__}, medians of {rounds}; the plain form once\n")
    print("| what | before, s | after, s | ratio | before, MB | after, MB | largest difference |")
    print("|---|---|---|---|---|---|---|")
    for arch in NAMES:
        slow, much, expected = apart("before", arch, 1)
        fast, little, found = apart("after", arch, rounds)
        off = float((found - expected).abs().max())
        print(
            f"| {arch} | {slow:.1f} | {fast:.2f} | {slow / fast:.0f} | {much:.0f} | {little:.0f} | {off:.1e} |",
            flush=True,
        )


if __name__ == "__main__":
    main()
