"""Weights as files of tensors: read without running code, checked, and put into models."""

from __future__ import annotations

import errno
import pickle
import re
import zipfile
from argparse import Namespace
from collections.abc import Container, Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors import safe_open
from safetensors.torch import load_file
from torch import Tensor, nn

from geoovseg.errors import GeoOVSegError, first_line, hushed
from geoovseg.models.card import ModelCard
from geoovseg.models.layouts import is_program, program_tensors


@contextmanager
def as_weights(path: Path, card: ModelCard) -> Iterator[None]:
    """Whatever goes wrong while a file is read as weights is one error, which says what to do: GeoOVSegError."""
    try:
        yield
    except Exception as error:  # what a damaged or foreign file makes torch raise has no common base
        again = f"`geoovseg models fetch {card.name} --force` fetches it again"
        own = "check that it is whole, and that the architecture is right"
        arch = f"SAM {card.arch}" if card.kind == "sam" else card.arch
        raise GeoOVSegError(
            f"{path} cannot be loaded as weights of {arch}: {first_line(error)}; {own if card.path else again}"
        ) from error


def fill(model: nn.Module, state: dict[str, Tensor]) -> None:
    """Put the tensors of a file into a model; others that the file holds are left out.

    Raises ValueError where one is missing, has another shape, or holds what is no number.
    """
    wanted = model.state_dict()
    _check_names(wanted, state)
    for key, value in wanted.items():
        _check_shape(key, state[key], value)
    check_finite((key, state[key]) for key in wanted)
    model.load_state_dict(state, strict=False)


def fill_from(model: nn.Module, path: Path, prefix: str) -> None:
    """Put tensors of a safetensors file into a model, one after the other; those it has not are never read.

    In the file their names may begin with a prefix. Raises what `fill` raises.
    """
    wanted = model.state_dict()
    with safe_open(path, "pt") as file:
        named = {key.removeprefix(prefix): key for key in file.keys()}  # noqa: SIM118, it is no dictionary
        _check_names(wanted, named)
        for key, value in wanted.items():
            found = _full(file.get_tensor(named[key]))
            _check_shape(key, found, value)
            check_finite([(key, found)])
            value.copy_(found)


def _check_names(wanted: Iterable[str], found: Container[str]) -> None:
    if missing := [key for key in wanted if key not in found]:
        raise ValueError(f"it lacks {len(missing)} tensors, first {missing[0]}")


def _check_shape(key: str, found: Tensor, wanted: Tensor) -> None:
    if found.shape != wanted.shape:
        raise ValueError(f"its {key} has shape {tuple(found.shape)}, not {tuple(wanted.shape)}")


def check_finite(tensors: Iterable[tuple[str, Tensor]]) -> None:
    """Refuse weights with which every score would be no number. Raises ValueError, which names the first."""
    for key, value in tensors:
        if value.is_floating_point() and value.numel() and not torch.stack(value.aminmax()).isfinite().all():
            raise ValueError(f"its {key} is not finite")


def read_state(path: Path) -> dict[str, Tensor]:
    """Tensors of a safetensors file, a torch checkpoint or a program; no code is run, and prefixes of training go.

    Of a checkpoint that holds more (an optimizer, a student and its teacher) only the weights, the teacher's.
    Raises ValueError or TypeError for what is damaged, asks for code, or is no table; others from deeper down.
    """
    if path.suffix == ".safetensors":
        return {k: _full(v) for k, v in load_file(path).items()}
    state = _checkpoint(path)
    state = state.get("state_dict", state.get("teacher", state)) if isinstance(state, dict) else state
    if not isinstance(state, dict):
        raise TypeError("it does not hold named tensors")
    return {k.removeprefix("module."): _full(v) for k, v in state.items() if isinstance(v, Tensor)}


def _checkpoint(path: Path) -> Any:
    """What a torch file holds."""
    zipped = zipfile.is_zipfile(path)
    if zipped:
        _check_sums(path)
        if is_program(path):
            return program_tensors(path)
    with hushed(), torch.serialization.safe_globals(_plain()):  # of old formats; what cannot be read is an error
        try:
            return torch.load(path, map_location="cpu", weights_only=True, mmap=zipped)
        except (pickle.UnpicklingError, RuntimeError, EOFError, OSError) as error:
            raise ValueError(_why_unread(error)) from error


def _plain() -> list[Any]:
    """What holds values only: namespaces, in which DINO keeps its arguments, and single numbers of numpy.

    SkyScript's checkpoints have such numbers in their optimizers; numpy has had two names for what makes them.
    """
    number: Any = np.float64(0).__reduce__()[0]
    names = [f"numpy.{core}.multiarray.scalar" for core in ("core", "_core")]
    return [Namespace, np.dtype, type(np.dtype(np.float64)), *((number, name) for name in names)]


def _check_sums(path: Path) -> None:
    """Compare the tensors with the sums beside them, which torch leaves out. Raises ValueError."""
    with zipfile.ZipFile(path) as file:
        if not any(name.endswith("data.pkl") for name in file.namelist()):
            raise ValueError("it is a ZIP of other files; if a checkpoint is among them, take it out and give that")
        if broken := file.testzip():
            raise ValueError(f"it is damaged, at {broken}")


def _why_unread(error: Exception) -> str:
    """What torch says in paragraphs, which recommend to run the code."""
    if isinstance(error, OSError):
        return "it is damaged, or was cut off" if error.errno == errno.EINVAL else first_line(error)
    said = str(error)
    trust = "which is never run; if you trust the file, save its tensors alone as .safetensors"
    if asked := re.search(r"GLOBAL (\S+)", said):
        return f"it asks for {asked[1]}, which is code or may be, {trust}"
    if not said or "Weights only load failed" in said:
        return "it is damaged, or no file of tensors"
    return f"it is damaged: {first_line(error)}"


def under(prefix: str, state: dict[str, Tensor]) -> dict[str, Tensor]:
    """The tensors whose keys begin with a prefix, without it; all where none does."""
    found = {k.removeprefix(prefix): v for k, v in state.items() if k.startswith(prefix)}
    return found or state


def _full(tensor: Tensor) -> Tensor:
    return tensor.float() if tensor.is_floating_point() else tensor
