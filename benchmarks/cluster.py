"""How much faster two machines of a core each are than one, by --ray: the stage that computes, one big scene and many.

python benchmarks/cluster.py [HEIGHT WIDTH]; prints Markdown. Machines are Ray's own pretence of them on this one.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from geoovseg.demo.files import write_scene

SMALL = 40


@contextmanager
def cluster(machines: int) -> Iterator[str]:
    """Machines of a core each, which is all that they may use."""
    from ray.cluster_utils import Cluster

    cores = sorted(os.sched_getaffinity(0))
    found = Cluster()
    for number in range(machines):
        os.sched_setaffinity(0, {cores[number]})
        found.add_node(num_cpus=1, **({} if number else {"include_dashboard": False}))
    os.sched_setaffinity(0, cores)
    try:
        yield str(found.address)
    finally:
        found.shutdown()


def run(scene: str, output: str | Path, address: str) -> tuple[float, float, list[bytes]]:
    """Seconds of computing, and of all; and the labels."""
    command = [sys.executable, "-m", "geoovseg", "segment", scene, "-c", "building,road,water", "--model", "demo"]
    began = time.monotonic()
    given: dict[str, Any] = {"capture_output": True, "text": True, "check": True}
    more = ["--json", "--overwrite", "--ray", address, "-o", str(output)]
    done = subprocess.run([*command, *more], env={**os.environ, "OMP_NUM_THREADS": "1"}, **given)
    found = sorted((json.loads(line) for line in done.stdout.splitlines()), key=lambda each: each["labels"])
    labels = [Path(each["labels"]).read_bytes() for each in found]
    return sum(each["seconds"]["segment"] for each in found), time.monotonic() - began, labels


def main() -> None:
    height, width = map(int, sys.argv[1:] or (4000, 6000))
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        (folder / "small").mkdir()
        for n in range(SMALL):
            made = write_scene(folder / f"d{n}", 1000 + n, 512, 512)[0]
            Path(made).rename(folder / "small" / f"s{n}.tif")
        big = write_scene(folder / "big", 1001, height, width)[0]
        one = str(folder / "small" / "s0.tif")
        print("| scene | machines | s, computing | s, all | times as fast |\n|---|---|---|---|---|")
        for what, scene in ((f"{width} x {height}", big), (f"{SMALL} of 512 x 512", str(folder / "small"))):
            first: tuple[float, list[bytes]] | None = None
            for machines in (1, 2):
                with cluster(machines) as address:
                    alone, all_alone, _ = run(one, folder / "one.tif", address)
                    output = str(folder / "o.tif") if scene == big else f"{folder}/o/"
                    _, everything, labels = run(scene, output, address)
                computing = everything - (all_alone - alone)  # without what a scene alone takes to begin
                first = first or (computing, labels)
                assert labels == first[1], "labels differ"
                times = first[0] / computing
                print(f"| {what} | {machines} | {computing:.0f} | {everything:.0f} | {times:.2f} |", flush=True)


if __name__ == "__main__":
    main()
