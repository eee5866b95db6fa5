"""Anything done on a cluster of Ray, item by item, with results in order."""

from __future__ import annotations

import os
import socket
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from typing import Any, TypeVar

from geoovseg.errors import GeoOVSegError, first_line
from geoovseg.network import is_offline
from geoovseg.rasters.open import adopt, gdal_settings
from geoovseg.run.executors.cluster import Failed, connected, room_of
from geoovseg.run.executors.pool import hear_warnings
from geoovseg.settings import Settings

Item = TypeVar("Item")
Done = TypeVar("Done")


class There:
    """A process on some machine, in the folder that the driver is in, if there is such a one."""

    def __init__(self, folder: str, gdal: Mapping[str, Any]) -> None:
        with suppress(OSError):
            os.chdir(folder)
        hear_warnings()
        adopt(gdal)

    def do(self, work: Callable[[Any], Any], item: Any) -> Any:
        """What `work` makes of an item; an error for the user is an answer, and names this machine."""
        try:
            return work(item)
        except GeoOVSegError as error:
            error.args = (f"on node {socket.gethostname()}: {error}", *error.args[1:])
            return Failed(error)


@contextmanager
def on_cluster(work: Callable[[Item], Done], items: Sequence[Item], settings: Settings) -> Iterator[Iterator[Done]]:
    """What `work` makes of items, in their order, by the workers that a cluster has room for, or `workers`.

    Work whose machine dies is done again by another. Raises UsageError where there is no cluster, GeoOVSegError where
    all of it dies, and what `work` raises.
    """
    ray, ours = connected(str(settings.ray))
    room = room_of(ray, settings)
    wanted = settings.workers if settings.workers > 1 else room.workers
    count = min(wanted, max(1, room.workers), len(items))  # one that finds no place would be waited for
    environment = {"OMP_NUM_THREADS": str(room.cpus), **({"GEOOVSEG_OFFLINE": "1"} if is_offline() else {})}
    options: dict[str, Any] = {"num_cpus": room.cpus, "num_gpus": room.gpus, "max_restarts": -1, "max_task_retries": 3}
    begin = ray.remote(There).options(**options, runtime_env={"env_vars": environment})
    actors = [begin.remote(os.getcwd(), gdal_settings()) for _ in range(count)]
    try:
        pool = ray.util.ActorPool(actors)
        yield _answers(ray, pool.map(lambda actor, item: actor.do.remote(work, item), items))
    finally:
        for actor in actors:
            ray.kill(actor)
        if ours:
            ray.shutdown()


def _answers(ray: Any, found: Iterator[Any]) -> Iterator[Any]:
    try:
        for each in found:
            if isinstance(each, Failed):
                raise each.error
            yield each
    except ray.exceptions.RayError as error:
        raise GeoOVSegError(f"a worker of the cluster died: {first_line(error)}") from error
