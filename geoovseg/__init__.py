"""Open-vocabulary segmentation of geospatial rasters.

`segment`, `encode`, `vectorize`, `evaluate`, `sample`, `stats`, `merge` and `preview` do what the commands of the same
names do, `evaluate_points` what `evaluate --points` does. `Segmenter` keeps its models loaded, for many scenes and for
arrays. `Settings` lists every choice, `METHODS` every method.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from geoovseg.errors import GeoOVSegError as GeoOVSegError
    from geoovseg.evaluation import evaluate as evaluate
    from geoovseg.evaluation.points import evaluate_points as evaluate_points
    from geoovseg.evaluation.report import report as report
    from geoovseg.evaluation.sample import sample as sample
    from geoovseg.labels.preview import preview as preview
    from geoovseg.methods import METHODS as METHODS
    from geoovseg.methods import MethodCard as MethodCard
    from geoovseg.pipeline import merge as merge
    from geoovseg.run.asked import open_features as open_features
    from geoovseg.segmenter import Segmenter as Segmenter
    from geoovseg.segmenter import encode as encode
    from geoovseg.segmenter import segment as segment
    from geoovseg.settings import Settings as Settings
    from geoovseg.vectors.corrections import apply as apply
    from geoovseg.vectors.info import info as info
    from geoovseg.vectors.vectorize import vectorize as vectorize
    from geoovseg.vectors.zones import stats as stats

    __version__: str

_HOMES = {
    "GeoOVSegError": "errors",
    "METHODS": "methods",
    "MethodCard": "methods",
    "Segmenter": "segmenter",
    "Settings": "settings",
    "apply": "vectors.corrections",
    "encode": "segmenter",
    "evaluate": "evaluation",
    "evaluate_points": "evaluation.points",
    "info": "vectors.info",
    "merge": "pipeline",
    "open_features": "run.asked",
    "preview": "labels.preview",
    "report": "evaluation.report",
    "sample": "evaluation.sample",
    "segment": "segmenter",
    "stats": "vectors.zones",
    "vectorize": "vectors.vectorize",
}
__all__ = sorted([*_HOMES, "__version__"])


def __getattr__(name: str) -> Any:
    """Load the public names when they are used: listing methods must not import torch."""
    if name == "__version__":
        from geoovseg.usage import package_version

        return package_version("geoovseg")
    if name not in _HOMES:
        raise AttributeError(f"module 'geoovseg' has no attribute {name!r}")
    import importlib

    return getattr(importlib.import_module(f"geoovseg.{_HOMES[name]}"), name)


def __dir__() -> list[str]:
    return [*globals(), *__all__]
