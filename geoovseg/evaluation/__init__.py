"""How right labels are: a confusion matrix against ground truth, streamed, and what follows from it."""

from __future__ import annotations

import json
import os
from collections import Counter
from collections.abc import Mapping
from contextlib import ExitStack
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from rasterio.windows import Window

from geoovseg.errors import UsageError, some
from geoovseg.evaluation.truth import Truth, open_truth
from geoovseg.labels.read import Reader, category_names, check_codes, open_labels, raster_reader
from geoovseg.rasters.open import raster_env

BLOCK = 1024
_SHIFT = 1 << 24
"""Label codes stay below this."""
_REST = "*"
"""In --map, every truth class whose name the labels do not have."""


@dataclass(frozen=True, kw_only=True)
class ClassScore:
    """One class's figures; None where the class occurs neither in truth nor in labels."""

    iou: float | None
    precision: float | None
    recall: float | None
    f1: float | None
    pixels: int
    """of the truth"""


@dataclass(frozen=True, kw_only=True)
class EvaluationResult:
    """Figures of a comparison; `to_json` is what `geoovseg evaluate --json` prints."""

    miou: float
    """mean IoU over the classes that occur in truth or labels"""
    accuracy: float
    """share of compared pixels that are right"""
    classes: dict[str, ClassScore]
    confusion: list[list[int]]
    """rows truth, columns labels, in `order`; the last column counts pixels with code 0 or a class not compared"""
    order: list[str]
    ignored: dict[str, int]
    """truth pixels not compared, by reason or class name"""

    def to_json(self) -> str:
        """One line of JSON."""
        return json.dumps(asdict(self), ensure_ascii=False)


def evaluate(
    labels: str | os.PathLike[str],
    truth: str | os.PathLike[str],
    *,
    mapping: Mapping[str, str] | None = None,
    field: str | None = None,
) -> EvaluationResult:
    """Compare a label raster with ground truth, class by class.

    Classes are matched by name, whatever their codes. Truth pixels without data, and of classes the labels do not
    have, are ignored and counted; the background counts only if both have it. A truth raster on another grid is
    resampled (nearest); vectors are rasterised by `field`.

    Args:
        labels: a label raster made by `segment`, or any with category names.
        truth: a raster of class codes with category names (or codes named through `mapping`), or a vector file.
        mapping: names of truth classes (or codes) to names of label classes; `*` is every named truth class that the
            labels do not have, as in {"*": "background"}.
        field: the column of a vector file that holds class names; by default class_name, as in those of `vectorize`.

    Raises:
        SceneError: a file cannot be read. UsageError: names or fields do not match.
    """
    with ExitStack() as stack:
        stack.enter_context(raster_env())
        src = stack.enter_context(open_labels(labels))
        check_codes(src)
        names = category_names(src)
        if not names:
            raise UsageError(f"{labels} has no class names; it must come from `geoovseg segment` or carry categories")
        theirs = stack.enter_context(open_truth(src, truth, field))
        pairs = _match(names, theirs, mapping or {}, str(truth))
        counts = _count(src, theirs.read)
    return _result(counts, names, theirs, pairs)


def _match(labels: Mapping[int, str], truth: Truth, mapping: Mapping[str, str], source: str) -> dict[str, str]:
    """Truth names (or codes, as text) to label names, for the classes to compare."""
    by_fold = {name.casefold(): name for name in labels.values()}
    unknown = [v for v in mapping.values() if v.casefold() not in by_fold]
    if unknown:
        raise UsageError(f"--map ...={unknown[0]}: the labels have {some(labels.values())}")
    listed = some(truth.names.values())
    missing = [
        k for k in mapping if k != _REST and k not in truth.names.values() and not (truth.by_code and k.isdecimal())
    ]
    if missing:
        raise UsageError(f"--map {missing[0]}=...: the truth has {listed or 'codes, no names'}")
    wanted = {name: name for name in truth.names.values()}
    wanted |= {name: mapping[_REST] for name in wanted if _REST in mapping and name.casefold() not in by_fold}
    for given, target in mapping.items():
        if given == _REST:
            continue
        name = given if given in wanted or not truth.by_code else truth.name(int(given))
        wanted[name] = target
    pairs = {name: by_fold[target.casefold()] for name, target in wanted.items() if target.casefold() in by_fold}
    if not pairs:
        raise UsageError(
            f"no class of {source} ({listed or 'no class names'}) has the name of one of the labels "
            f"({some(labels.values())}); say which is which with --map truth=label, for example --map 3=road"
        )
    return pairs


def _count(src: Any, read_truth: Reader) -> Counter[tuple[int, int]]:
    """Pixels of every pair of truth and label code, -1 for no data; any codes, one block at a time."""
    read_labels = raster_reader(src)
    counts: Counter[tuple[int, int]] = Counter()
    for row in range(0, src.height, BLOCK):
        for col in range(0, src.width, BLOCK):
            window = Window(col, row, min(BLOCK, src.width - col), min(BLOCK, src.height - row))
            true, given = read_truth(window), read_labels(window)
            pairs, pixels = np.unique(true * _SHIFT + given, return_counts=True)
            for pair, count in zip(pairs.tolist(), pixels.tolist(), strict=True):
                code = (pair + 1) // _SHIFT  # given is at least -1
                counts[code, pair - code * _SHIFT] += count
    return counts


def _result(
    counts: Counter[tuple[int, int]], labels: Mapping[int, str], truth: Truth, pairs: Mapping[str, str]
) -> EvaluationResult:
    order = [name for name in labels.values() if name in pairs.values()]
    confusion = np.zeros((len(order), len(order) + 1), np.int64)
    ignored: Counter[str] = Counter()
    for (true, given), pixels in counts.items():
        name = truth.name(true)
        if true < 0 or given < 0:
            ignored["nodata"] += pixels
        elif name not in pairs:
            ignored[name] += pixels
        else:
            label = labels.get(given)
            confusion[order.index(pairs[name]), order.index(label) if label in order else -1] += pixels
    total = int(confusion.sum())
    if not total:
        raise UsageError("no pixel has both a label and a truth class in common: nothing to compare")
    scores = {name: _class_score(confusion, n) for n, name in enumerate(order)}
    return EvaluationResult(
        miou=float(np.mean([s.iou for s in scores.values() if s.iou is not None])),
        accuracy=float(np.trace(confusion[:, :-1]) / total),
        classes=scores,
        confusion=confusion.tolist(),
        order=order,
        ignored=dict(ignored),
    )


def _class_score(confusion: NDArray[np.int64], n: int) -> ClassScore:
    hit, true, given = int(confusion[n, n]), int(confusion[n].sum()), int(confusion[:, n].sum())
    return ClassScore(
        iou=_share(hit, true + given - hit),
        precision=_share(hit, given),
        recall=_share(hit, true),
        f1=_share(2 * hit, true + given),
        pixels=true,
    )


def _share(part: int, whole: int) -> float | None:
    return part / whole if whole else None
