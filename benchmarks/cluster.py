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


def run(scene: str, output: Path, address: str) -> tuple[float, float, list[bytes]]:
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
        print("| scene | machines | s, computing | s, all | times as fast |\n|---|---|---|---|---|")
        for what, scene in ((f"{width} x {height}", big), (f"{SMALL} of 512 x 512", str(folder / "small"))):
            first: tuple[float, float, list[bytes]] | None = None
            for machines in (1, 2):
                with cluster(machines) as address:
                    output = folder / "o.tif" if scene == big else Path(f"{folder}/o/")
                    found = run(scene, output if scene == big else Path(f"{output}{os.sep}"), address)
                first = first or found
                assert found[2] == first[2], "labels differ"
                print(
                    f"| {what} | {machines} | {found[0]:.0f} | {found[1]:.0f} | {first[0] / found[0]:.2f} |", flush=True
                )


if __name__ == "__main__":
    main()
