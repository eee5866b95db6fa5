"""A CUDA device that is not there: tensors that say `cuda:0`, keep their numbers here, and refuse to mix with others.

    with pretend_cuda() as back:
        segment(scene, "building,road", device="cuda:0", ...)

Finds what a first run on a GPU would find: tensors of two devices in one operation, numpy() of a tensor on a device,
weights or constants left on the CPU; and counts in `back`, by file and line, where values come back. It says nothing of
speed, of memory, or of a real GPU's numbers. It leans on private names of torch.
"""

from __future__ import annotations

import contextlib
import traceback
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_flatten, tree_map_only

import geoovseg

CUDA = torch.device("cuda", 0)
PACKAGE = Path(geoovseg.__file__).parent
BACK = {"_local_scalar_dense", "nonzero", "_unique2", "unique_dim", "unique_consecutive", "masked_select", "equal"}
"""Operations that wait for a device."""
MOVES = ("_to_copy", "copy_", "_copy_from")
back: Counter[str] = Counter()
ROOM = 8 << 30
"""Bytes of the device."""


class OnCuda(torch.Tensor):
    """A tensor that says it is on `cuda:0`; `inner` holds its numbers."""

    inner: torch.Tensor

    @staticmethod
    def __new__(cls, inner: torch.Tensor) -> OnCuda:
        made: OnCuda = torch.Tensor._make_wrapper_subclass(  # type: ignore[attr-defined]
            cls, inner.size(), strides=inner.stride(), storage_offset=inner.storage_offset(), dtype=inner.dtype,
            layout=inner.layout, device="meta", requires_grad=inner.requires_grad,
        )  # fmt: skip
        made.inner = inner
        return made

    __torch_function__ = torch._C._disabled_torch_function_impl  # type: ignore[assignment]

    @property
    def device(self) -> torch.device:  # type: ignore[override]
        """Where it says it is."""
        return CUDA

    @property
    def is_cuda(self) -> bool:  # type: ignore[override]
        """As its device."""
        return True

    @property
    def is_cpu(self) -> bool:  # type: ignore[override]
        """As its device."""
        return False

    def __repr__(self, **more: Any) -> str:
        return f"OnCuda({self.inner!r})"

    @classmethod
    def __torch_dispatch__(cls, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        return _run(func, args, kwargs or {})

    def tolist(self) -> Any:
        """Its numbers, which come back."""
        back[f"{_caller()} tolist"] += 1
        return self.inner.tolist()

    def numpy(self, *args: Any, **more: Any) -> Any:
        """Refused, as torch does."""
        raise TypeError("can't convert cuda:0 device type tensor to numpy")

    __array__ = numpy  # type: ignore[assignment]


def _caller() -> str:
    """The line of the package that asked."""
    for frame in reversed(traceback.extract_stack()):
        place = Path(frame.filename)
        if place.is_relative_to(PACKAGE):
            return f"{place.relative_to(PACKAGE)}:{frame.lineno}"
    return "?"


def _check(name: str, tensors: list[torch.Tensor]) -> None:
    """Refuse to mix devices, as torch does; a number alone, and what is indexed by, may be on the CPU."""
    index = name.startswith(("index", "_index", "_unsafe_index"))
    if any(not isinstance(each, OnCuda) and each.dim() and not index for each in tensors):
        shapes = [tuple(each.shape) for each in tensors]
        raise RuntimeError(f"Expected all tensors to be on the same device, but found cuda:0 and cpu: {name}{shapes}")


def _run(func: Any, args: Any, kwargs: Any) -> Any:
    """An operation on the numbers of tensors, whose results are where theirs would be."""
    name = func.overloadpacket.__name__ if hasattr(func, "overloadpacket") else str(func)
    tensors = [each for each in tree_flatten((args, kwargs))[0] if isinstance(each, torch.Tensor)]
    cuda = [each for each in tensors if isinstance(each, OnCuda)]
    if cuda and len(cuda) < len(tensors) and name not in MOVES:
        _check(name, tensors)
    asked = kwargs.get("device")
    if asked is not None and torch.device(asked).type == "meta":  # torch asks for the device of a wrapper
        asked = CUDA
    plain, more = tree_map_only(OnCuda, lambda each: each.inner, (args, dict(kwargs)))
    there = _goes_there(name, args, bool(cuda), asked)
    if asked is not None and torch.device(asked).type == "cuda":
        more["device"] = "cpu"
    more.pop("pin_memory", None)
    out = func(*plain, **more)
    in_place = func._schema.is_mutable and args and isinstance(args[0], torch.Tensor) and out is plain[0]
    if in_place:
        return args[0]
    return _wrapped(out, cuda) if there and name != "_local_scalar_dense" else out


def _goes_there(name: str, args: Any, cuda: bool, asked: Any) -> bool:
    """Whether the result of an operation is on the device; counts where values come back."""
    if asked is not None:
        there = torch.device(asked).type == "cuda"
        if cuda and not there:
            back[f"{_caller()} to {asked}"] += 1
        return there
    if name in BACK and cuda:
        back[f"{_caller()} {name}"] += 1
    return isinstance(args[0], OnCuda) if name == "copy_" else cuda


def _wrapped(out: Any, cuda: list[OnCuda]) -> Any:
    """Results as tensors of the device; what was given comes out as it was."""
    kept = {id(each.inner): each for each in cuda}

    def on_device(each: torch.Tensor) -> torch.Tensor:
        if isinstance(each, OnCuda):
            return each
        return kept[id(each)] if id(each) in kept else OnCuda(each)

    return tree_map_only(torch.Tensor, on_device, out)


class _NoGrad:
    """Stands in for inference mode, whose tensors cannot be wrapped."""

    def __init__(self, mode: bool) -> None:
        self._context: Any = torch.no_grad() if mode else contextlib.nullcontext()

    def __enter__(self) -> None:
        self._context.__enter__()

    def __exit__(self, *error: Any) -> None:
        self._context.__exit__(*error)


class _Mode(TorchDispatchMode):
    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        return _run(func, args, kwargs or {})


def _device() -> dict[str, Any]:
    """What torch.cuda would say of it."""
    facts = {"total_memory": ROOM, "name": "pretended", "major": 9, "minor": 0, "multi_processor_count": 1}
    answers = {
        "_lazy_init": None, "is_available": True, "device_count": 1, "is_bf16_supported": True, "current_device": 0,
        "mem_get_info": (ROOM, ROOM), "empty_cache": None, "synchronize": None, "max_memory_allocated": 0,
        "memory_allocated": 0, "reset_peak_memory_stats": None, "get_device_name": "pretended",
        "get_device_properties": type("Properties", (), facts)(),
    }  # fmt: skip
    return {name: (lambda *a, _said=said, **k: _said) for name, said in answers.items()}


@contextlib.contextmanager
def no_inference_mode() -> Iterator[None]:
    """In here tensors can be wrapped later, also those that are kept."""
    before, torch._C._InferenceMode = torch._C._InferenceMode, _NoGrad  # type: ignore[misc,assignment]
    try:
        yield
    finally:
        torch._C._InferenceMode = before  # type: ignore[misc]


@contextlib.contextmanager
def pretend_cuda() -> Iterator[Counter[str]]:
    """In here there is a device `cuda:0`; yields where values come back from it, by file and line."""
    answers = _device()
    before = {name: getattr(torch.cuda, name) for name in answers}
    lift = torch._C._only_lift_cpu_tensors()
    back.clear()
    torch._C._set_only_lift_cpu_tensors(True)
    torch.__future__.set_swap_module_params_on_conversion(False)
    try:
        for name, answer in answers.items():
            setattr(torch.cuda, name, answer)
        with no_inference_mode(), _Mode():
            yield back
    finally:
        torch._C._set_only_lift_cpu_tensors(lift)
        for name, answer in before.items():
            setattr(torch.cuda, name, answer)
