"""Workers on a cluster of Ray (Core): an actor a GPU, or for some cores, each with loaded models of its own.

No pixels travel: workers read the scene and the weights themselves, and only finished, compressed parts come back.
"""

from __future__ import annotations

import os
import platform
import signal
import socket
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import Future
from contextlib import contextmanager, suppress
from typing import Any, NamedTuple

from geoovseg.errors import GeoOVSegError, UsageError, first_line
from geoovseg.files import is_store
from geoovseg.network import is_offline
from geoovseg.rasters.open import adopt, gdal_settings
from geoovseg.run.executors.crew import Crew
from geoovseg.run.executors.member import Member
from geoovseg.run.executors.pool import hear_warnings
from geoovseg.run.executors.round import LostError
from geoovseg.run.job import Job, Step
from geoovseg.settings import Settings
from geoovseg.usage import TELL, package_version
from geoovseg.vocabulary import Vocabulary
from geoovseg.windows.plan import Part

CORES = 4
"""Of a worker, unless told otherwise: more help small towers little."""
BEGINNINGS = 3
"""Times that a worker is begun anew when it dies before it could be given work."""
SURVEY = 120.0
"""Seconds for a machine to say what it has."""
PACKAGES = ("geoovseg", "torch", "open_clip_torch", "timm", "rasterio", "zarr")
"""What must be of the same version everywhere, for labels to be the same."""


class Who(NamedTuple):
    """A worker's machine, and what it runs."""

    host: str
    versions: Mapping[str, str]


class Failed(NamedTuple):
    """An error for the user, as an answer."""

    error: GeoOVSegError


def versions() -> dict[str, str]:
    """Of what decides labels, on this machine."""
    return {"python": platform.python_version(), **{name: package_version(name) for name in PACKAGES}}


class Abroad(Member):
    """A worker on another machine, in the folder that the driver is in, if there is such a one."""

    def __init__(self, folder: str, gdal: Mapping[str, Any]) -> None:
        super().__init__()
        with suppress(OSError):
            os.chdir(folder)
        hear_warnings()
        adopt(gdal)

    def who(self) -> Who:
        """Where this is, and what it runs."""
        return Who(socket.gethostname(), versions())

    def do(self, what: str, *args: Any) -> Any:
        """What is asked; an error for the user is an answer, and names this machine."""
        try:
            return getattr(self, what)(*args)
        except GeoOVSegError as error:
            error.args = (f"on node {socket.gethostname()}: {error}", *error.args[1:])
            return Failed(error)

    def begin(self, job: Job, parts: Sequence[Part]) -> tuple[Step, list[str]]:
        """The first step with a group of parts, by the same weights as the other workers'. Raises UsageError."""
        if self._worker is not None and not is_store(job.scene):
            mine, theirs = self._worker.predictor.facts.digests, job.facts.digests
            if other := [name for name in theirs if mine.get(name) != theirs[name]]:
                raise UsageError(f"its weights are others than elsewhere: {other[0]} is {mine.get(other[0])}")
        return super().begin(job, parts)


class Cluster(Crew):
    """Workers on the cluster at an address, as many as it has room for unless told otherwise."""

    def __init__(self, words: Vocabulary, settings: Settings) -> None:
        super().__init__()
        self._given = (words, settings)
        self._ray, self._ours = connected(str(settings.ray))
        self._room = room_of(self._ray, settings)
        self.workers = settings.workers if settings.workers > 1 else self._room.workers

    def _begun(self, number: int) -> Actor:
        return Actor(number, self._ray, self._room, self._given)

    def close(self) -> None:
        """End the workers, and the connection if it was made here."""
        super().close()
        if self._ours:
            self._ray.shutdown()


class Room(NamedTuple):
    """How many workers a cluster holds, and what each takes."""

    workers: int
    cpus: int
    gpus: int


def room_of(ray: Any, settings: Settings) -> Room:
    """By the GPUs of a cluster, else by its cores. Raises UsageError where there is none."""
    nodes = [node["Resources"] for node in ray.nodes() if node["Alive"]]
    cores = [int(node.get("CPU", 0)) for node in nodes]
    cpus = settings.worker_cpus or max(1, min([CORES, *filter(None, cores)]))
    gpus = sum(int(node.get("GPU", 0)) for node in nodes) if settings.device in ("auto", "cuda") else 0
    if gpus and not settings.worker_cpus:  # every GPU has cores beside it
        own = [int(node.get("CPU", 0)) // int(node["GPU"]) for node in nodes if node.get("GPU", 0) >= 1]
        cpus = max(1, min([cpus, *own]))
    count = gpus or sum(each // cpus for each in cores)
    if not count and settings.workers == 1:
        raise UsageError(f"--ray {settings.ray}: no machine of the cluster has {cpus} cores, or a GPU")
    return Room(count, cpus, 1 if gpus else 0)


def survey(address: str, folder: str, look: Callable[[], dict[str, Any]]) -> Iterator[dict[str, Any]]:
    """What every machine of a cluster says when it is asked to look; or its error. Raises UsageError."""
    ray, ours = connected(address)
    try:
        asked = ray.remote(_looked)
        where = ray.util.scheduling_strategies.NodeAffinitySchedulingStrategy
        for node in (node for node in ray.nodes() if node["Alive"]):
            there = asked.options(num_cpus=0, scheduling_strategy=where(node["NodeID"], soft=False))
            try:
                found = ray.get(there.remote(folder, look), timeout=SURVEY)
            except ray.exceptions.RayError as error:
                found = {"problems": [f"{first_line(error)}; is geoovseg installed there?"]}
            yield {"node": node["NodeManagerHostname"], "address": node["NodeManagerAddress"], **found}
    finally:
        if ours:
            ray.shutdown()


def _looked(folder: str, look: Callable[[], dict[str, Any]]) -> dict[str, Any]:
    with suppress(OSError):
        os.chdir(folder)
    return look()


def connected(address: str) -> tuple[Any, bool]:
    """Ray, connected to a cluster, and whether that was done here. Raises UsageError."""
    try:
        os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")  # it would be told to others
        import ray
    except ImportError as error:
        raise UsageError(f"--ray needs another package: pip install 'geoovseg[ray]' ({error})") from error
    if ray.is_initialized():
        return ray, False
    given: dict[str, Any] = {"log_to_driver": False, "logging_level": "ERROR"}
    if address == "local":
        TELL.get()(
            "--ray local: Ray listens on ports of this machine, which others in its network may reach; --workers "
            "shares the work here without any"
        )
        given |= {"include_dashboard": False}
    try:
        with _same_signals():
            ray.init(address=address, **given)
            _keep_stdout_ours()
    except (ConnectionError, ValueError, RuntimeError, OSError) as error:
        raise UsageError(f"--ray {address}: there is no cluster that answers: {first_line(error)}") from error
    return ray, True


def _keep_stdout_ours() -> None:
    """Ray prints what fails in a cluster on stdout, also without its logs; it is for results: stderr instead."""
    worker: Any = sys.modules.get("ray._private.worker")
    shown = getattr(worker, "print_to_stdstream", None)
    if shown is not None and not hasattr(shown, "elsewhere"):

        def elsewhere(data: dict[str, Any], *args: Any, **more: Any) -> None:
            shown({**data, "is_err": True}, *args, **more)

        elsewhere.elsewhere = True  # type: ignore[attr-defined]  # once is enough
        worker.print_to_stdstream = elsewhere


@contextmanager
def _same_signals() -> Iterator[None]:
    """Signals are the caller's business, before and after."""
    names = [getattr(signal, name) for name in ("SIGINT", "SIGTERM") if hasattr(signal, name)]
    before = [signal.getsignal(name) for name in names]
    try:
        yield
    finally:
        with suppress(ValueError):  # in another thread than the main one
            for name, handler in zip(names, before, strict=True):
                signal.signal(name, handler)


class Actor:
    """A worker on the cluster, begun where there is room, which may take a while."""

    def __init__(self, number: int, ray: Any, room: Room, given: tuple[Vocabulary, Settings]) -> None:
        self._ray, self._room, self._given = ray, room, given
        self._number, self._left = number, BEGINNINGS
        self._who: Who | None = None
        self._begin()

    def _begin(self) -> None:
        environment = {"OMP_NUM_THREADS": str(self._room.cpus), **({"GEOOVSEG_OFFLINE": "1"} if is_offline() else {})}
        options = {"num_cpus": self._room.cpus, "num_gpus": self._room.gpus, "runtime_env": {"env_vars": environment}}
        self._actor = self._ray.remote(Abroad).options(**options).remote(os.getcwd(), gdal_settings())
        self._answer = self._actor.who.remote()
        self._actor.load.remote(*self._given)

    @property
    def where(self) -> str:
        """Its number, and its machine once that is known."""
        host = f" on node {self._who.host}" if self._who else ""
        return f"worker {self._number + 1}{host}"

    def ready(self) -> bool:
        """Whether it has begun. Raises GeoOVSegError where it never will, or runs something else than the driver."""
        if self._who is not None:
            return True
        if not self._ray.wait([self._answer], timeout=0)[0]:
            return False
        try:
            who: Who = self._ray.get(self._answer)
        except self._ray.exceptions.RayError as error:
            self._left -= 1
            if not self._left:
                raise GeoOVSegError(
                    f"{self.where} cannot begin: {first_line(error)}; is geoovseg installed on every machine of the "
                    "cluster?"
                ) from error
            self._begin()
            return False
        _check(who)
        self._who = who
        return True

    def submit(self, what: str, *args: Any) -> Future[Any]:
        """Let the worker do something."""
        answer: Future[Any] = self._actor.do.remote(what, *args).future()
        found: Future[Any] = Future()
        lost = (self._ray.exceptions.RayActorError, self._ray.exceptions.ObjectLostError)

        def tell(done: Future[Any]) -> None:
            error = done.exception()
            if isinstance(error, lost):
                found.set_exception(LostError(first_line(error)))
            elif error is not None:
                found.set_exception(error)
            elif isinstance(done.result(), Failed):
                found.set_exception(done.result().error)
            else:
                found.set_result(done.result())

        answer.add_done_callback(tell)
        return found

    def close(self) -> None:
        """End the worker at once."""
        with suppress(Exception):  # it may be gone, or the cluster
            self._ray.kill(self._actor)


def _check(who: Who) -> None:
    """Refuse a machine that runs something else than the driver's. Raises UsageError."""
    mine, theirs = versions(), who.versions
    if other := [f"{name} {theirs.get(name)}, here {mine[name]}" for name in mine if theirs.get(name) != mine[name]]:
        raise UsageError(f"node {who.host} runs other versions, so labels might differ: {'; '.join(other)}")
