"""Figures of comparisons: confusion matrices by the names of classes, their sum, and what follows from them."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from geoovseg.errors import UsageError, some

NODATA = "nodata"
"""Among what is not compared: pixels without data in the labels or in the truth."""


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
    """pixels not compared, by reason (`nodata`) or truth class"""
    uncovered: int = 0
    """those of them that have a label, and of which the truth says nothing"""
    remarks: tuple[str, ...] = ()
    """what makes the figures say less than they seem to"""
    files: tuple[dict[str, Any], ...] = ()
    """of several: the files compared, `labels` and `truth`, with the figures of each"""

    def to_json(self) -> str:
        """One line of JSON."""
        return json.dumps(asdict(self), ensure_ascii=False)


@dataclass(frozen=True, kw_only=True)
class Comparison:
    """Pixels counted by what they are and what they are called."""

    order: tuple[str, ...]
    """label classes that are compared"""
    cells: Counter[tuple[str, str | None]]
    """pixels by truth, as a label class, and label; none for a label without a name"""
    ignored: Counter[str] = field(default_factory=Counter)
    uncovered: int = 0
    remarks: tuple[str, ...] = ()
    moot: tuple[str, ...] = ()
    """remarks on what an option does not do, of several comparisons only where it does nothing in any"""
    missing: Mapping[str, UsageError] = field(default_factory=dict)
    """what to say of names that this truth has not"""


def summed(found: Sequence[Comparison]) -> Comparison:
    """Several comparisons as one. Raises UsageError for a name that no truth has."""
    for name, error in found[0].missing.items():
        if all(name in each.missing for each in found):
            raise error
    cells, ignored = Counter[tuple[str, str | None]](), Counter[str]()
    for each in found:
        cells.update(each.cells)
        ignored.update(each.ignored)
    return Comparison(
        order=_once(name for each in found for name in each.order),
        cells=cells,
        ignored=ignored,
        uncovered=sum(each.uncovered for each in found),
        remarks=_once(remark for each in found for remark in each.remarks),
        moot=tuple(remark for remark in found[0].moot if all(remark in each.moot for each in found)),
    )


def _once(items: Iterable[str]) -> tuple[str, ...]:
    return tuple(dict.fromkeys(items))


def figures(found: Comparison, files: Iterable[Mapping[str, Any]] = ()) -> EvaluationResult:
    """What follows from counted pixels. Raises UsageError where there are none."""
    order = list(found.order)
    confusion = np.zeros((len(order), len(order) + 1), np.int64)
    for (true, given), pixels in found.cells.items():
        confusion[order.index(true), order.index(given) if given in order else -1] += pixels
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
        ignored=dict(found.ignored),
        uncovered=found.uncovered,
        remarks=(*found.remarks, *found.moot, *_of_one_class(found, scores)),
        files=tuple(dict(each) for each in files),
    )


def _of_one_class(found: Comparison, scores: Mapping[str, ClassScore]) -> list[str]:
    """What to say where precision can only be 1."""
    true = [name for name, score in scores.items() if score.pixels]
    if len(true) != 1:
        return []
    others = [name for name in found.ignored if name != NODATA]
    other = next((name for name in (*found.order, "background") if name != true[0]), None)
    hints = [f"--outside {other} counts what the truth does not cover"] if other and found.uncovered else []
    hints += [f"--map '*={other}' counts {some(others, 3)}"] if other and others else []
    does = " or ".join(hints) or "compare with truth that has other classes too"
    return [
        f"all compared pixels are of one class of the truth, {true[0]}, so its precision is 1 whatever the labels say: "
        f"only its recall means something; {does}"
    ]


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
