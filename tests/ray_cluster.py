"""A cluster of two machines with a core each: prints its address; `kill` on its standard input ends one of them."""

from __future__ import annotations

import sys

from ray.cluster_utils import Cluster

found = Cluster(initialize_head=True, head_node_args={"num_cpus": 1, "include_dashboard": False})
far = found.add_node(num_cpus=1)
print(found.address, flush=True)
for line in sys.stdin:
    if line.strip() == "kill":
        found.remove_node(far, allow_graceful=False)
        print("killed", flush=True)
found.shutdown()
