"""A cluster of two machines with a core each: prints its address; `kill` on its standard input ends one of them.

A folder that is named is there for the first machine alone: the second one, `bare`, has an empty one in its place.
"""

from __future__ import annotations

import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from ray.cluster_utils import Cluster

HIDING = 'mount --bind "$0" "$1" && hostname bare && shift && exec "$@"'


def bare(address: str, hidden: str) -> subprocess.Popen[bytes]:
    """A machine with names and mounts of its own."""
    ray = str(Path(sys.executable).with_name("ray"))
    own = ["unshare", "--mount", "--uts", "sh", "-c", HIDING, tempfile.mkdtemp(), hidden]
    quiet: dict[str, Any] = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL, "stdin": subprocess.DEVNULL}
    start = [ray, "start", f"--address={address}", "--num-cpus=1", "--block"]
    return subprocess.Popen([*own, *start], **quiet)


def main() -> None:
    found = Cluster(initialize_head=True, head_node_args={"num_cpus": 1, "include_dashboard": False})
    second = bare(str(found.address), sys.argv[1]) if len(sys.argv) > 1 else found.add_node(num_cpus=1)
    if len(sys.argv) > 1:
        import ray

        ray.init(found.address, logging_level="ERROR", log_to_driver=False)
        while sum(node["Alive"] for node in ray.nodes()) < 2:
            time.sleep(0.2)
        ray.shutdown()
    print(found.address, flush=True)
    for line in sys.stdin:
        if line.strip() == "kill":
            found.remove_node(second, allow_graceful=False)
            print("killed", flush=True)
    if isinstance(second, subprocess.Popen):
        second.terminate()
        second.wait()
    found.shutdown()


if __name__ == "__main__":
    main()
