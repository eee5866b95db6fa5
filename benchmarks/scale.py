"""What large areas take, and where the driver of a run ends: a simulation, of workers that only have answers.

python benchmarks/scale.py [PARTS]; prints the tables of docs/scale.md, which names the assumptions.
"""

from __future__ import annotations

import heapq
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from concurrent.futures import Future
from pathlib import Path
from typing import Any

import rasterio
from rasterio.shutil import copy

from geoovseg.demo.files import write_scene
from geoovseg.labels.parts import FinishedPart, PartStore
from geoovseg.run.executors.crew import Crew
from geoovseg.run.job import Step
from geoovseg.usage import peak_rss_mb
from geoovseg.windows.plan import Panel, Part

WORKERS = (1, 10, 100, 1000)
GROUP = 4
"""Parts that a worker is given at once."""
PART_BYTES = 40_000
"""Of a compressed part of labels, 512 rows of some 10,000 columns."""
PART_PIXELS = 512 * 10_000
STRIDE = 112
AREAS = (  # km2, metres a pixel
    ("Colorado, NAIP at 0.6 m", 269_600, 0.6),
    ("Germany, orthophotos at 0.2 m", 357_600, 0.2),
    ("land without Antarctica, Sentinel-2 at 10 m", 135_000_000, 10.0),
)
CORE, GPU = 3.7, 1000.0
"""Windows a second of ViT-B/16 and the cheapest method; of a core measured (docs/benchmarks.md), of a GPU assumed."""
CORE_HOUR, GPU_HOUR = 0.04, 1.20
"""Dollars, on demand; assumed."""
METHODS = {"clip, segearth": 1.0, "gem": 1.31, "proxyclip": 1.88, "coninfer": 2.0, "corrclip": 2.24, "reattnclip": 4.35}
METHODS |= {"direct-op": 9.59}
"""Times what clip takes (docs/benchmarks.md), without regions by Segment Anything."""


class Pretended:
    """A worker that has its answer at once."""

    where = "worker"

    def __init__(self) -> None:
        self._parts: list[Part] = []

    def ready(self) -> bool:
        return True

    def submit(self, what: str, *args: Any) -> Future[Any]:
        if what == "begin":
            self._parts = list(args[1])
        done = FinishedPart(self._parts.pop(0), {".tif": bytes(PART_BYTES)}, {"counts": {"1": 5}, "windows": 9})
        answer: Future[Any] = Future()
        answer.set_result((Step(9, (done,), ended=not self._parts), []))
        return answer

    def close(self) -> None:
        pass


class Many(Crew):
    """Pretended workers."""

    def __init__(self, workers: int) -> None:
        super().__init__()
        self.workers = workers

    def _begun(self, number: int) -> Pretended:
        return Pretended()


def driver(workers: int, parts: int) -> None:
    """Print the seconds that the driver takes to give out a part and keep it, and its peak memory in MB."""
    groups = [[Part(Panel(0, 10_000), 512 * (GROUP * n + k), 512) for k in range(GROUP)] for n in range(parts // GROUP)]
    with tempfile.TemporaryDirectory(dir="/dev/shm" if Path("/dev/shm").is_dir() else None) as folder:
        store, before, began = PartStore(Path(folder)), peak_rss_mb(), time.monotonic()
        for _, step in Many(workers).run(None, groups, lambda: None):  # type: ignore[arg-type]
            for done in step.finished:
                store.commit(done)
                for file in Path(folder).glob(f"{done.part.name}*"):
                    file.unlink()  # so that the memory is the driver's
        print((time.monotonic() - began) / parts, before, peak_rss_mb())


def driven(workers: int, parts: int) -> tuple[float, float, float]:
    """The same in a process of its own."""
    command = [sys.executable, __file__, "driver", str(workers), str(parts)]
    seconds, before, peak = map(
        float, subprocess.run(command, capture_output=True, text=True, check=True).stdout.split()
    )
    return seconds, before, peak


def speedup(workers: int, seconds: float, keep: float, parts: int) -> float:
    """How much faster many workers are, whose parts take so long, with a driver that takes one after the other."""
    free = [0.0] * workers
    driver_free = 0.0
    for _ in range(parts):
        done = heapq.heappop(free) + seconds
        driver_free = max(driver_free, done) + keep
        heapq.heappush(free, done)
    return parts * seconds / driver_free


def decoding(folder: Path) -> dict[str, float]:
    """Megapixels a second that a core reads and decodes, of a demo scene of 4000 x 4000 in tiles of 512."""
    scene, found = write_scene(folder, 1001, 4000, 4000)[0], {}
    for name, more in {"DEFLATE": {"predictor": 2}, "JPEG": {"quality": 85}, "WEBP": {"quality": 85}}.items():
        path = folder / f"{name}.tif"
        copy(scene, path, driver="COG", compress=name, overviews="NONE", **more)
        with rasterio.open(path) as src:
            began = time.monotonic()
            for _, window in src.block_windows():
                src.read(window=window)
            found[name] = src.width * src.height / 1e6 / (time.monotonic() - began)
    return found


def table(title: Sequence[str], rows: Sequence[Sequence[object]]) -> None:
    print("| " + " | ".join(title) + " |\n|" + "---|" * len(title))
    for row in rows:
        print("| " + " | ".join(map(str, row)) + " |")
    print(flush=True)


def sizes() -> None:
    """What areas take, whatever computes them."""
    rows = []
    for name, km2, metres in AREAS:
        pixels = km2 * 1e6 / metres**2
        reads = pixels / 512**2 * (512 * GROUP + 2 * STRIDE) / (512 * GROUP)
        sizes = (f"{4 * pixels / 1e12:.1f}", f"{PART_BYTES / PART_PIXELS * pixels / 1e9:,.0f}", f"{reads / 1e6:,.1f}")
        rows.append([name, f"{pixels / 1e12:.2f}", f"{pixels / STRIDE**2 / 1e6:,.0f}", *sizes])
    table(["area", "10^12 pixels", "10^6 windows", "features, TB", "labels, GB", "10^6 reads of a block"], rows)


def hours() -> None:
    """What methods take."""
    rows = []
    for method, times in METHODS.items():
        row = [method]
        for _, km2, metres in AREAS:
            windows = times * km2 * 1e6 / metres**2 / STRIDE**2
            gpu, core = windows / GPU / 3600, windows / CORE / 3600
            row.append(f"{gpu:,.0f} / ${gpu * GPU_HOUR:,.0f}; {core:,.0f} / ${core * CORE_HOUR:,.0f}")
        rows.append(row)
    table(["GPU hours / price; core hours / price", *(name for name, _, _ in AREAS)], rows)


def simulated(parts: int) -> None:
    """The driver, and what it lets workers be."""
    found = [driven(workers, parts) for workers in WORKERS]
    rows = [
        [workers, f"{1 / seconds:.0f}", f"{before:.0f}", f"{peak:.0f}"]
        for workers, (seconds, before, peak) in zip(WORKERS, found, strict=True)
    ]
    table(["simulated workers", "parts a second", "MB before", "driver's peak, MB"], rows)
    keep = max(seconds for seconds, _, _ in found)
    windows = PART_PIXELS / STRIDE**2
    rows = [
        [
            f"{name}: {windows / rate:.2g} s a part",
            *(f"{speedup(n, windows / rate, keep, 50_000):,.0f}" for n in WORKERS),
        ]
        for name, rate in {"cores": CORE, "GPUs": GPU, "GPUs ten times as fast": 10 * GPU}.items()
    ]
    table(["times as fast as one", *(f"{workers} workers" for workers in WORKERS)], rows)


def main() -> None:
    sizes()
    hours()
    with tempfile.TemporaryDirectory() as folder:
        found = decoding(Path(folder))
    rows = [[name, f"{rate:.0f}", f"{GPU * STRIDE**2 / 1e6 / rate:.2f}"] for name, rate in found.items()]
    table(["compression", "megapixels a second of a core", "cores that feed a GPU"], rows)
    simulated(int(sys.argv[1]) if len(sys.argv) > 1 else 100_000)


if __name__ == "__main__":
    driver(*map(int, sys.argv[2:])) if sys.argv[1:2] == ["driver"] else main()
