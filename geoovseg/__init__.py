"""Open-vocabulary segmentation of geospatial rasters.

`segment` and `evaluate` do what the commands of the same name do; `METHODS` lists the methods.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from geoovseg.evaluation import evaluate as evaluate
    from geoovseg.methods import METHODS as METHODS
    from geoovseg.pipeline import segment as segment

__all__ = ["METHODS", "evaluate", "segment"]
_HOMES = {"METHODS": "geoovseg.methods", "evaluate": "geoovseg.evaluation", "segment": "geoovseg.pipeline"}


def __getattr__(name: str) -> Any:
    """Load the public names when they are used: listing methods must not import torch."""
    if name not in _HOMES:
        raise AttributeError(f"module 'geoovseg' has no attribute {name!r}")
    import importlib

    return getattr(importlib.import_module(_HOMES[name]), name)


def __dir__() -> list[str]:
    return [*globals(), *__all__]
