"""What the optimisations are worth: each with and without, in one run, alternating; prints a Markdown table.

python benchmarks/speed.py [--rounds 5]
"""

from __future__ import annotations

import argparse
import platform
import statistics
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import open_clip
import torch
from rasterio.windows import Window

from geoovseg.demo.files import write_scene
from geoovseg.methods import METHODS, load_method
from geoovseg.models import text as text_module
from geoovseg.models.load import load_clip
from geoovseg.models.vfm import ClipVfm
from geoovseg.models.vit import ClipVit
from geoovseg.ops.classes import best_word
from geoovseg.ops.upsample import bilinear
from geoovseg.scene.reader import read_ahead
from geoovseg.scene.scene import open_scene
from geoovseg.vocabulary import parse_classes
from geoovseg.windows.batch import TileBatch
from geoovseg.windows.plan import Panel, plan_tiles

LATENCY = 0.05
"""Seconds a remote store may take to answer."""
WORDS = parse_classes(["building=house+roof,road,water"])


def pair(name: str, before: Callable[[], object], after: Callable[[], object], rounds: int) -> None:
    before(), after()  # warm up
    times: tuple[list[float], list[float]] = ([], [])
    for _ in range(rounds):
        for run, found in zip((before, after), times, strict=True):
            start = time.perf_counter()
            run()
            found.append(time.perf_counter() - start)
    a, b = (statistics.median(t) for t in times)
    print(f"| {name} | {a * 1e3:.1f} | {b * 1e3:.1f} | {a / b:.2f} |", flush=True)


def windows(vit: ClipVit, count: int) -> TileBatch:
    side = vit.native_grid[0] * vit.patch
    pixels = np.random.default_rng(0).random((count, 3, side, side), dtype=np.float32)
    return TileBatch(
        windows=(Window(0, 0, side, side),) * count, stored=pixels, valid=np.ones((count, side, side), bool)
    )


def batching(name: str, vit: ClipVit, rounds: int) -> None:
    text = torch.nn.functional.normalize(torch.randn(4, vit.dim), dim=-1)
    method, eight, one = load_method("segearth", vit, text, WORDS), windows(vit, 8), windows(vit, 1)
    pair(f"8 windows, {name}: one by one / together", lambda: [method.scores(one) for _ in range(8)],
         lambda: method.scores(eight), rounds)  # fmt: skip


def squares(batch: TileBatch, sets: Sequence[object], tile: int = 0) -> np.ndarray:
    """Regions that cost nothing."""
    height, width = batch.valid.shape[1:]
    ids = np.add.outer(np.arange(height) // 40 * 10, np.arange(width) // 40 + 1).astype(np.int32)
    return np.broadcast_to(ids, (len(batch), len(sets), height, width))


def costs(vit: ClipVit, rounds: int) -> None:
    """Of methods relative to clip, which their cards state; those with Segment Anything: benchmarks/full_size.py."""
    text, eight = torch.nn.functional.normalize(torch.randn(4, vit.dim), dim=-1), windows(vit, 8)
    vfm = ClipVfm("clip", vit)  # as large as the model itself; others cost what they cost
    names = [name for name, card in METHODS.items() if "clip" in card.needs and "sam" not in card.needs]
    methods = {name: load_method(name, vit, text, WORDS, vfm=vfm, regions=squares) for name in names}
    times: dict[str, list[float]] = {name: [] for name in names}
    for _ in range(rounds):
        for name, method in methods.items():
            start = time.perf_counter()
            method.scores(eight)
            times[name].append(time.perf_counter() - start)
    medians = {name: statistics.median(found) for name, found in times.items()}
    print("\n| 8 windows, ViT-B/16, random weights | ms | relative to clip |\n|---|---|---|")
    for name, median in medians.items():
        print(f"| {name} | {median * 1e3:.0f} | {median / medians['clip']:.2f} |")


def reading(folder: Path, rounds: int) -> None:
    scene_path, _ = write_scene(folder, 1000, 1024, 1024)
    model = load_clip("demo", torch.device("cpu"), "fp32")
    method = load_method("segearth", model.vit, model.text.embed(WORDS.queries), WORDS)
    plan = plan_tiles(1024, 1024, tile=112, stride=112, patch=8)
    places = list(plan.windows(Panel(0, 1024)))
    with open_scene(scene_path) as scene:
        slow = SimpleNamespace(batch=lambda windows: (time.sleep(LATENCY), scene.batch(windows))[1])
        for name, source in (("local disk", scene), (f"{LATENCY * 1e3:.0f} ms latency a read", slow)):
            pair(
                f"a scene of 1 megapixel, {name}: read in turn / read ahead",
                lambda s=source: [method.scores(s.batch(places[n : n + 8])) for n in range(0, len(places), 8)],
                lambda s=source: [method.scores(b) for b in read_ahead(s, places, batch=8, depth=2)],
                rounds,
            )


def merging(rounds: int) -> None:
    scores, pixels = torch.randn(8, 40, 14, 14), torch.rand(8, 3, 112, 112)
    groups = [5] * 8
    pair(
        "8 windows, 40 words of 8 classes: merged as pixels / as patches",
        lambda: best_word(bilinear(scores, pixels), groups),
        lambda: bilinear(best_word(scores, groups), pixels),
        rounds,
    )


def words(folder: Path, rounds: int) -> None:
    import os

    os.environ["GEOOVSEG_CACHE"] = str(folder)
    encoder = load_clip("demo", torch.device("cpu"), "fp32").text
    pair("4 words of the demo model: encoded / kept", lambda: [encoder.encode(w) for w in WORDS.queries],
         lambda: encoder.embed(WORDS.queries), rounds)  # fmt: skip
    assert text_module.cache_dir() == folder


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=5)
    rounds = parser.parse_args().rounds
    print(f"{platform.machine()}, {torch.get_num_threads()} threads, torch {torch.__version__}, medians of {rounds}\n")
    print("| what | before, ms | after, ms | ratio |\n|---|---|---|---|")
    with tempfile.TemporaryDirectory() as name:
        batching("demo model", load_clip("demo", torch.device("cpu"), "fp32").vit, rounds)
        tower = open_clip.create_model("ViT-B-16-quickgelu").eval().requires_grad_(False).visual
        batching("ViT-B/16, random weights", ClipVit(tower), max(2, rounds // 2))
        reading(Path(name), rounds)
        merging(rounds)
        words(Path(name), rounds)
        costs(ClipVit(tower), max(3, rounds // 2))


if __name__ == "__main__":
    main()
