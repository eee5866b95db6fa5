"""A run that is killed at ten moments of its work and resumed after each: `python tests/kills.py SCENE FOLDER`.

One line of JSON for every moment: how the process ended, and how many parts are finished. Each is a process of its own,
forked from here, where everything is loaded; what ends it is SIGKILL, of which no process learns.
"""

from __future__ import annotations

import gc
import json
import os
import signal
import sys
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

from geoovseg.errors import GeoOVSegWarning
from geoovseg.labels import write
from geoovseg.run.predictor import Predictor
from geoovseg.run.worker import Worker
from geoovseg.segmenter import segment
from geoovseg.settings import Settings
from geoovseg.vocabulary import read_classes

GIVEN: dict[str, Any] = {"vocabulary": "demo", "model": "demo", "background": "none", "stride": 112}
SCORED, NAMED, COPIED = (Predictor, "vectors"), (os, "replace"), (write, "write_cog")
"""What a run calls for every batch of windows, for every file that is whole, and for every raster in the end."""
MOMENTS: tuple[tuple[tuple[Any, str], int, str], ...] = (
    (SCORED, 1, "before"),  # the folder is there and locked
    (SCORED, 2, "before"),  # a part is half seen
    (NAMED, 1, "before"),  # its labels are on the disk, without a name
    (NAMED, 3, "before"),  # its rasters have names, what is said of it has none
    (NAMED, 3, "after"),  # it is finished
    (NAMED, 2, "before"),  # the second one has labels and no confidence
    (NAMED, 6, "after"),  # two more are finished
    (SCORED, 1, "after"),  # the last one is being seen
    (COPIED, 1, "after"),  # all are finished, and one of two outputs is put together
    (NAMED, 1, "before"),  # both are, and none has its name
)
"""The call at which a process ends, its number in that process, and whether that is before or after it."""


def at_call(owner: Any, name: str, number: int, when: str) -> None:
    """Let this process die with the given call of a function."""
    call: Callable[..., Any] = getattr(owner, name)
    calls = 0

    def counted(*args: Any, **keywords: Any) -> Any:
        nonlocal calls
        calls += 1
        if (calls, when) == (number, "before"):
            os.kill(os.getpid(), signal.SIGKILL)
        found = call(*args, **keywords)
        if calls == number:
            os.kill(os.getpid(), signal.SIGKILL)
        return found

    setattr(owner, name, counted)


def run(scene: Path, folder: Path, moment: tuple[tuple[Any, str], int, str]) -> int:
    """Go on with the run in a process that dies at a moment; returns its exit code."""
    if (child := os.fork()) == 0:
        try:
            at_call(*moment[0], *moment[1:])
            segment(scene, output=folder / "labels.tif", confidence=str(folder / "sure.tif"), resume=True, **GIVEN)
            os._exit(0)
        finally:
            os._exit(1)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


def main() -> None:
    scene, folder = Path(sys.argv[1]), Path(sys.argv[2])
    torch.set_num_threads(1)  # no thread must be left that children would wait for
    warnings.simplefilter("ignore", GeoOVSegWarning)
    settings = Settings(**GIVEN)
    Worker(read_classes(None, settings.vocabulary), settings).job(str(scene), settings)
    gc.freeze()
    for moment in MOMENTS:
        code = run(scene, folder, moment)
        finished = len(list((folder / "labels.tif.parts").glob("part_*.json")))
        print(json.dumps({"code": code, "finished": finished}), flush=True)


if __name__ == "__main__":
    main()
