"""open_clip and timm, imported without what they bring along and nothing here uses: torch's compiler, transformers.

torchvision asks torch's compiler whether it could compile, and timm tells it what not to; both load all of it, more
than torch itself. While they are imported it is not there; afterwards it is, for whoever wants it. open_clip loads
transformers for text towers of the hub, and timm for image towers. In a process of our own it does without them, until
`timm` is asked for; in that of others it finds what is installed, since it would never find it again.
"""

from __future__ import annotations

import importlib
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import cache
from types import ModuleType
from typing import Any

from geoovseg.machine import is_ours

COMPILER, UTILS, HUB, TIMM = "torch._dynamo", "torch._dynamo.utils", "transformers", "timm"
UNUSED = ("torchvision.datasets", "torchvision.models")
"""What torchvision loads with its transforms."""


def _plain(function: Callable[..., Any] | None = None, *args: Any, **more: Any) -> Any:
    """What `torch.compiler.disable` does where nothing is compiled."""
    return (lambda given: given) if function is None else function


def _compiler() -> dict[str, ModuleType]:
    """As much of torch's compiler as is asked for while classes are made."""
    package, utils = ModuleType(COMPILER), ModuleType(UTILS)
    vars(utils)["is_compile_supported"] = lambda device: False
    vars(package).update(utils=utils, disable=_plain, __path__=[])
    return {COMPILER: package, UTILS: utils}


@contextmanager
def _without(*names: str) -> Iterator[None]:
    """Neither the compiler nor these libraries are there, unless somebody has imported them already."""
    given: dict[str, Any] = {name: module for name, module in _compiler().items() if COMPILER not in sys.modules}
    given |= {name: ModuleType(name) if name in UNUSED else None for name in names if name not in sys.modules}
    sys.modules.update(given)
    try:
        yield
    finally:
        for name, module in given.items():
            if sys.modules.get(name) is module:
                del sys.modules[name]


def _imported(names: tuple[str, ...], without: tuple[str, ...]) -> Any:
    """The last of some libraries; in the usual way where a version of them asks for more."""
    before = set(sys.modules)
    try:
        with _without(*without):
            for name in names:
                importlib.import_module(name)
    except Exception:  # of any kind: what other versions lack there
        for name in [n for n in sys.modules if n not in before and n.partition(".")[0] in names]:
            del sys.modules[name]
    return importlib.import_module(names[-1])


open_clip = _imported(
    *((("torchvision", "open_clip"), (HUB, TIMM, *UNUSED)) if is_ours() else (("torchvision", TIMM, "open_clip"), ()))
)


@cache
def timm() -> Any:
    """timm, which some models are made of; open_clip's own towers of it find it then, too."""
    found = _imported((TIMM,), ())
    if open_clip.timm_model.timm is None:
        importlib.reload(open_clip.timm_model)  # its classes look for timm in their module, which stays the same
    return found
