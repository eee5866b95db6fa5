"""`geoovseg doctor`."""

from __future__ import annotations

import json as jsonlib
import os
import platform
import re
from collections.abc import Iterator
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import Annotated, Any

import typer

from geoovseg import machine
from geoovseg.cli import options as o
from geoovseg.cli.output import data, talk
from geoovseg.errors import SceneError
from geoovseg.models.cards import DEFAULT_MODEL, MODELS
from geoovseg.models.weights import cache_dir, local_weights
from geoovseg.usage import package_version

OPENS = "can be opened"
_PACKAGES = ("geoovseg", "torch", "open_clip_torch", "timm", "rasterio", "geopandas", "shapely", "numpy", "typer")


def command(
    ray: Annotated[
        str | None, typer.Option(help="Ask every machine of a cluster of Ray: auto, or its address.", metavar="ADDRESS")
    ] = None,
    scene: Annotated[
        str | None, typer.Option(help="Also try whether this image can be opened.", metavar="SCENE")
    ] = None,
    json: o.JsonOpt = False,
) -> None:
    """Report what this machine has, or each machine of a cluster.

    Versions, devices, memory, weights, and what may be in the way.
    """
    look = partial(_looked, scene)
    if ray is None:
        _tell(look(), json=json)
        return
    from geoovseg.run.executors.cluster import survey

    found = [*survey(ray, os.getcwd(), look)]
    for each in found:
        _tell(each, json=json)
    same = {jsonlib.dumps(each.get("packages"), sort_keys=True) for each in found}
    if len(same) > 1:
        talk("versions differ between machines, which --ray refuses: see packages")


def _looked(scene: str | None) -> dict[str, Any]:
    """What this machine has."""
    found = {**_facts(), "problems": _problems()}
    if scene is not None:
        found["scene"] = _opens(scene)
        found["problems"] += [found["scene"]] if found["scene"] != OPENS else []
    return found


def _opens(scene: str) -> str:
    from geoovseg.rasters.open import opened, raster_env

    try:
        with raster_env(), opened(scene, scene):
            return OPENS
    except SceneError as error:
        return str(error)


def _tell(found: dict[str, Any], *, json: bool) -> None:
    if json:
        data(jsonlib.dumps(found))
        return
    for key, value in found.items():
        if isinstance(value, dict):
            value = ", ".join(f"{k} {v}" for k, v in value.items())
        elif isinstance(value, list):
            value = "; ".join(value) or "none"
        data(f"{key:<14}{value}")


def _facts() -> dict[str, Any]:
    import rasterio
    import torch
    from huggingface_hub.constants import HF_HUB_CACHE

    from geoovseg.ops.eight_bits import is_exact

    gpus = [torch.cuda.get_device_name(n) for n in range(torch.cuda.device_count())]
    return {
        "python": f"{platform.python_version()} on {platform.platform()}",
        "packages": {name: package_version(name) for name in _PACKAGES},
        "gdal": rasterio.__gdal_version__,
        "cpu_cores": machine.cores(),
        "memory_gb": round(machine.memory() / 1e9, 1),
        "devices": ["cpu", *gpus],
        "int8": "yes, --precision int8" if is_exact() else "no",
        "weights_here": [name for name, card in MODELS.items() if local_weights(card)],
        "weights_cache": HF_HUB_CACHE,
        "own_cache": str(cache_dir()),
    }


def _gpu_problems() -> Iterator[str]:
    """What keeps PyTorch from the GPUs that there are, or makes it larger than it need be."""
    import torch

    cpu_build = "pip install torch torchvision --index-url https://download.pytorch.org/whl/cpu"
    if torch.cuda.is_available():
        return
    if machine.gpus() and torch.version.cuda is None:
        yield "this is the CPU build of PyTorch, and there is a GPU: install the CUDA build (see pytorch.org)"
    elif machine.gpus():
        driver = _driver()
        yield (
            f"PyTorch {torch.__version__} for CUDA {torch.version.cuda} cannot use the GPU: its driver ({driver}) may "
            "be too old for this build; update the driver, or install PyTorch for an older CUDA (see pytorch.org)"
        )
    elif torch.version.cuda is not None:
        yield f"no GPU, but the CUDA build of PyTorch, several GB; the CPU build does the same here: {cpu_build}"


def _driver() -> str:
    """The version of the NVIDIA driver, as Linux tells it."""
    with suppress(OSError):
        found = re.search(r"Kernel Module\D*([\d.]+)", Path("/proc/driver/nvidia/version").read_text())
        return found[1] if found else "unknown"
    return "unknown"


def _problems() -> list[str]:
    problems = [*_gpu_problems()]
    problems += [
        f"{name} is set to {os.environ[name]}: rasterio brings its own and may clash with it"
        for name in ("GDAL_DATA", "PROJ_LIB", "PROJ_DATA")
        if name in os.environ
    ]
    if not local_weights(MODELS[DEFAULT_MODEL]):
        problems.append(f"no weights of {DEFAULT_MODEL}: geoovseg models fetch {DEFAULT_MODEL}")
    return problems
