"""open_clip and timm, imported without what they bring along and nothing here uses: torch's compiler, transformers.

torchvision asks torch's compiler whether it could compile, and timm tells it what not to; both load all of it, more
than torch itself. open_clip loads transformers, where that is installed, for text towers of the hub. While they are
imported, these two are not there; afterwards they are, for whoever wants them.
"""

from __future__ import annotations

import importlib
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import ModuleType
from typing import Any

COMPILER, UTILS, HUB = "torch._dynamo", "torch._dynamo.utils", "transformers"
HEAVY = ("torchvision", "timm", "open_clip")


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
def _without() -> Iterator[None]:
    """Neither the compiler nor transformers is there, unless somebody has imported them already."""
    given: dict[str, Any] = {name: module for name, module in _compiler().items() if COMPILER not in sys.modules}
    given |= {HUB: None} if HUB not in sys.modules else {}
    sys.modules.update(given)
    try:
        yield
    finally:
        for name, module in given.items():
            if sys.modules.get(name) is module:
                del sys.modules[name]


def _imported() -> tuple[Any, Any]:
    """Both libraries; in the usual way where a version of them asks for more."""
    before = set(sys.modules)
    try:
        with _without():
            for name in HEAVY:
                importlib.import_module(name)
    except Exception:  # of any kind: what other versions lack there
        for name in [n for n in sys.modules if n not in before and n.partition(".")[0] in HEAVY]:
            del sys.modules[name]
    return importlib.import_module("open_clip"), importlib.import_module("timm")


open_clip, timm = _imported()
