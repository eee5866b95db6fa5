"""Models tried out on a crop of a real photo: does each method run with them, and what do they see."""

from __future__ import annotations

import json
import time
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from functools import cache, partial
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray
from rasterio.errors import NotGeoreferencedWarning

from geoovseg.errors import GeoOVSegError, first_line, hushed
from geoovseg.evaluation.figures import Comparison, figures
from geoovseg.methods import METHODS, MethodCard, card
from geoovseg.models.cards import DEFAULT_MODEL, DEMO, MODELS, ModelCard
from geoovseg.models.weights import local_weights
from geoovseg.rasters.open import plain_open, raster_env
from geoovseg.run.arrays import scores
from geoovseg.run.checks import check_settings
from geoovseg.run.worker import Worker
from geoovseg.settings import Settings
from geoovseg.vocabulary import Vocabulary, read_classes

CROP = Path(__file__).parent / "bakerlake"
CLASSES = ("forest", "water", "road", "building")
"""Codes 1 to 4 of the crop's truth."""
CLOSE = 2e-3
"""How far mean scores may be from those that were kept: fp32 on another machine, not another precision."""
Result = Literal["as kept", "differs", "ran", "failed", "needs others"]


@dataclass(frozen=True, kw_only=True)
class Trial:
    """What came of one method with one model."""

    model: str
    method: str
    result: Result
    why: str = ""
    miou: float | None = None
    """over the pixels of the crop that have a class"""
    seconds: float | None = None
    """of the window, without loading"""
    scores: Mapping[str, float] = field(default_factory=dict)
    """mean score of each class"""


@cache
def crop() -> tuple[NDArray[np.uint8], NDArray[np.uint8]]:
    """Pixels (224, 224, 3) at 0.5 m, and codes (224, 224) of CLASSES, 0 where nobody drew one."""
    with raster_env(), hushed(NotGeoreferencedWarning):
        return np.moveaxis(_read("image"), 0, -1), _read("truth")[0]


def _read(name: str) -> NDArray[np.uint8]:
    with plain_open(CROP / f"{name}.png") as src:
        found: NDArray[np.uint8] = src.read()
        return found


def settings_for(model: ModelCard, methods: tuple[str, ...] = ()) -> Iterator[Settings]:
    """One run for each method that uses a model, of those asked for.

    By default that is each with the default CLIP and with what stands beside one, and with another CLIP the default.
    """
    fit = (name for name, each in METHODS.items() if model.tower in each.towers)
    default = Settings().method if model.tower == "clip" else next(fit)
    usual = (default,) if model.kind == "clip" and model.name not in (DEFAULT_MODEL, DEMO) else tuple(METHODS)
    for name in methods or usual:
        if _uses(card(name), model):
            yield Settings(method=name, **_choices(card(name), model))


def _uses(method: MethodCard, model: ModelCard) -> bool:
    """Whether a method can have a model."""
    if model.kind == "vfm":
        return "vfm" in method.needs and (method.attention or not model.attention_only)
    if model.kind == "sam":
        return bool(method.sam)
    if model.kind == "upsampler":
        return method is card(Settings().method)
    return model.tower in method.towers and (model.name != DEMO or "sam" not in method.needs)


def _choices(method: MethodCard, model: ModelCard) -> dict[str, Any]:
    """The model in its place, and beside it as few others as can be."""
    own = {"clip": "model", "vfm": "vfm", "sam": "sam", "upsampler": "upsample"}
    found = {own[model.kind]: model.name}
    if "vfm" in method.needs and model.name == DEMO:
        found["vfm"] = DEMO
    if "regions" in method.needs and model.kind != "sam":
        found["regions"] = "felzenszwalb"
    return found


def tried(model: ModelCard, settings: Settings) -> Trial:
    """Run one window of a method on the crop; what goes wrong is part of the answer."""
    said = partial(Trial, model=model.name, method=settings.method)
    if absent := [needed.name for needed in settings.weights if local_weights(needed) is None]:
        return said(result="needs others", why=" ".join(absent))
    try:
        check_settings(settings)
        seen, seconds = seen_of(settings, read_classes(list(CLASSES)))
    except GeoOVSegError as error:
        return said(result="failed", why=first_line(error))
    found = dict(zip(CLASSES, seen.mean((1, 2)).round(5).tolist(), strict=True))
    result, why = _compared(f"{model.name} {settings.method}", found)
    if not np.isfinite(seen).all():
        result, why = "failed", "scores that are no numbers"
    return said(result=result, why=why, miou=_miou(seen), seconds=round(seconds, 3), scores=found)


def seen_of(settings: Settings, words: Vocabulary) -> tuple[NDArray[np.float32], float]:
    """Scores (C, 224, 224) of the crop without a background, and the seconds they took once models were loaded."""
    settings = replace(settings, background="none")
    with settings.access():
        worker = Worker(words, settings)
        _ = worker.predictor
        began = time.monotonic()
        return scores(worker, settings, crop()[0], None), time.monotonic() - began


def _miou(seen: NDArray[np.float32]) -> float:
    """Mean intersection over union of the classes, over the pixels that have one."""
    truth = crop()[1]
    drawn = truth > 0
    pairs = zip(truth[drawn] - 1, seen.argmax(0)[drawn], strict=True)
    cells = Counter[tuple[str, str | None]]((CLASSES[true], CLASSES[given]) for true, given in pairs)
    return round(figures(Comparison(order=CLASSES, cells=cells)).miou, 4)


@cache
def kept_numbers() -> dict[str, list[float]]:
    """Mean scores of the classes by `MODEL METHOD`, of those that were looked at."""
    found: dict[str, list[float]] = json.loads((CROP / "numbers.json").read_text())
    return found


def _compared(name: str, found: Mapping[str, float]) -> tuple[Result, str]:
    known = kept_numbers().get(name)
    if known is None:
        return "ran", ""
    far = max(abs(a - b) for a, b in zip(found.values(), known, strict=True))
    return ("as kept", "") if far <= CLOSE else ("differs", f"mean scores are {far:.4f} from those that were kept")


def known_models() -> list[ModelCard]:
    """All models that are on this machine."""
    return [model for model in MODELS.values() if local_weights(model) is not None]
