"""What large areas take, and where the driver of a run ends: a simulation, of workers that only have answers.

python benchmarks/scale.py [PARTS]; prints Markdown for docs/scale.md. Rates and prices are the assumptions named there.
"""

from __future__ import annotations

import heapq
import sys
import tempfile
import time
from collections.abc import Sequence
from concurrent.futures import Future
from pathlib import Path
from typing import Any

from geoovseg.labels.parts import FinishedPart, PartStore
from geoovseg.run.executors.crew import Crew
from geoovseg.run.job import Step
from geoovseg.usage import Usage, peak_rss_mb
from geoovseg.windows.plan import Panel, Part

WORKERS = (1, 10, 100, 1000)
PART_BYTES = 40_000
"""Of a compressed part of labels, 512 rows of some 10,000 columns."""
STRIDE = 112
AREAS = (  # km2, metres a pixel
    ("Colorado, NAIP at 0.6 m", 269_600, 0.6),
    ("Germany, orthophotos at 0.2 m", 357_600, 0.2),
    ("all land but Antarctica, Sentinel-2 at 10 m", 135_000_000, 10.0),
)
RATES = {"a core of a CPU": 3.7, "a GPU (assumed)": 1000.0}
"""Windows a second of ViT-B/16, segearth; the first measured (docs/benchmarks.md), the second not."""
PRICES = {"a core of a CPU": 0.04, "a GPU (assumed)": 1.20}
"""Dollars an hour, on demand."""


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


def driver(workers: int, parts: int) -> tuple[float, float]:
    """Parts a second that the driver takes and keeps, and its peak memory in MB."""
    groups = [[Part(Panel(0, 10_000), 512 * (4 * n + k), 512) for k in range(4)] for n in range(parts // 4)]
    with tempfile.TemporaryDirectory(dir="/dev/shm" if Path("/dev/shm").is_dir() else None) as folder:
        store, usage, began = PartStore(Path(folder)), Usage(), time.monotonic()
        for _, step in Many(workers).run(None, groups, lambda: None):  # type: ignore[arg-type]
            for done in step.finished:
                store.commit(done)
                for file in Path(folder).glob(f"{done.part.name}*"):
                    file.unlink()  # so that the memory is the driver's
        del usage
        return parts / (time.monotonic() - began), peak_rss_mb()


def speedup(workers: int, seconds: float, keep: float, parts: int) -> float:
    """How much faster many workers are, whose parts take so long, with a driver that takes one after the other."""
    free = [0.0] * workers
    driver_free = 0.0
    heapq.heapify(free)
    for _ in range(parts):
        done = heapq.heappop(free) + seconds
        driver_free = max(driver_free, done) + keep
        heapq.heappush(free, done)
    return parts * seconds / driver_free


def table(title: Sequence[str], rows: Sequence[Sequence[object]]) -> None:
    print("| " + " | ".join(title) + " |\n|" + "---|" * len(title))
    for row in rows:
        print("| " + " | ".join(map(str, row)) + " |")
    print()


def main() -> None:
    parts = int(sys.argv[1]) if len(sys.argv) > 1 else 100_000
    rows = []
    for name, km2, metres in AREAS:
        pixels = km2 * 1e6 / metres**2
        windows = pixels / STRIDE**2
        row = [name, f"{pixels / 1e12:.2f}", f"{windows / 1e6:,.0f}"]
        for kind, rate in RATES.items():
            hours = windows / rate / 3600
            row.append(f"{hours:,.0f} h, ${hours * PRICES[kind]:,.0f}")
        rows.append([*row, f"{4 * pixels / 1e12:.1f}", f"{0.08 * pixels / 1e9:,.0f}", f"{pixels / 512**2 / 1e6:.1f}"])
    title = ["area", "10^12 pixels", "10^6 windows", *RATES, "features, TB", "labels, GB", "10^6 reads"]
    table(title, rows)
    rows = []
    keep = 0.0
    for workers in WORKERS:
        rate, memory = driver(workers, parts)
        keep = max(keep, 1 / rate)
        rows.append([workers, f"{rate:.0f}", f"{memory:.0f}"])
    table(["simulated workers", "parts a second", "driver's peak, MB"], rows)
    found = []
    for kind, seconds in (("a core: 110 s a part", 110.0), ("a GPU: 0.4 s a part", 0.4)):
        each = [f"{speedup(workers, seconds, keep, 20_000):,.0f}" for workers in WORKERS]
        found.append([kind, *each])
    table(["parts of 512 x 10,000", *(f"{workers} workers" for workers in WORKERS)], found)


if __name__ == "__main__":
    main()
