"""How right labels are: a confusion matrix against ground truth, streamed, and what follows from it."""

from __future__ import annotations

import os
import warnings
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import asdict, replace
from typing import Any

import numpy as np
from rasterio.windows import Window

from geoovseg.errors import GeoOVSegWarning, UsageError
from geoovseg.evaluation.colours import colour_text
from geoovseg.evaluation.figures import NODATA, Comparison, figures, summed
from geoovseg.evaluation.figures import ClassScore as ClassScore
from geoovseg.evaluation.figures import EvaluationResult as EvaluationResult
from geoovseg.evaluation.files import pairs
from geoovseg.evaluation.matching import Match, match
from geoovseg.evaluation.truth import How, Truth, open_truth
from geoovseg.files import StrPath
from geoovseg.labels.read import Reader, category_names, check_codes, open_labels, raster_reader
from geoovseg.network import public
from geoovseg.rasters.open import raster_env

BLOCK = 1024
MANY_COLOURS = 100
"""More that stand for no class are no truth's."""
_SHIFT = 1 << 24
"""Label codes stay below this."""


def evaluate(
    labels: StrPath | Sequence[StrPath],
    truth: StrPath | Sequence[StrPath],
    *,
    mapping: Mapping[str, str] | Sequence[str] | None = None,
    field: str | None = None,
    layer: str | None = None,
    outside: str | None = None,
    truth_nodata: str | float | None = None,
    colours: str | None = None,
) -> EvaluationResult:
    """Compare a label raster with ground truth, class by class.

    Classes are matched by name, whatever their codes. Truth pixels without data, and of classes the labels do not
    have, are ignored and counted; the background counts only if both have it. A truth raster on another grid is
    resampled (nearest); vectors are rasterised by `field`.

    Of several label rasters the pixels are counted together, and the figures of each are in `files`.

    Args:
        labels: a label raster made by `segment`, or any with category names; a list of them, or a folder.
        truth: a raster of class codes with category names (or codes named through `mapping`), a raster of colours, or a
            vector file; one for all labels, a list in their order, or a folder with files of their names.
        mapping: names of truth classes (or codes, or colours as `#rrggbb`) to names of label classes; `*` is every
            truth class that the labels do not have, as in {"*": "background"}. Or texts of the command line's form.
        field: the column of a vector file that holds class names; by default class_name, as in those of `vectorize`.
        layer: the layer of a vector file; by default its first.
        outside: the class that pixels are of which the truth does not cover: where it has no shape or no data.
        truth_nodata: "none" if the nodata value of the truth is a code as others; or a code or colour in its place.
        colours: a table of colours for truth in colours, by name (as `potsdam`) or file.

    Raises:
        SceneError: a file cannot be read. UsageError: names or fields do not match.
    """
    for name, value in (("field", field), ("layer", layer), ("outside", outside), ("colours", colours)):
        if not isinstance(value, str | os.PathLike | None):
            raise UsageError(f"{name} {value!r} must be text")
    how = How(field=field, layer=layer, nodata=truth_nodata, colours=colours, mapped=bool(mapping))
    given = _texts(mapping)
    if (several := pairs(labels, truth)) is None:
        return figures(_compared(labels, truth, given, how, outside))  # type: ignore[arg-type]
    found = [_compared(*pair, given, how, outside, alone=len(several) == 1) for pair in several]
    return figures(summed(found), _each(several, found))


def _texts(mapping: Mapping[str, str] | Sequence[str] | None) -> Mapping[str, str] | Sequence[str]:
    """What is to be matched, as texts; codes may be numbers. Raises UsageError."""
    if isinstance(mapping, Mapping):
        if all(isinstance(key, str | int) and isinstance(value, str) for key, value in mapping.items()):
            return {str(key): value for key, value in mapping.items()}
    elif isinstance(mapping, str):
        return [mapping]
    elif mapping is None or (isinstance(mapping, Sequence) and all(isinstance(item, str) for item in mapping)):
        return mapping or {}
    raise UsageError(f"mapping {mapping!r}: give names (or codes) of the truth with names of the labels")


def _each(several: Sequence[tuple[str, str]], found: Sequence[Comparison]) -> list[dict[str, Any]]:
    """The figures of each file; warns of one without a pixel to compare, which then has none."""
    listed = []
    for (labels, truth), comparison in zip(several, found, strict=True):
        names: dict[str, Any] = {"labels": public(labels), "truth": public(truth)}
        try:
            said = asdict(figures(comparison))
            names |= {key: said[key] for key in ("miou", "accuracy", "classes", "confusion", "order", "ignored")}
        except UsageError as error:
            warnings.warn(f"{labels}: {error}", GeoOVSegWarning, 4)
            names |= {"miou": None, "accuracy": None, "classes": {}, "ignored": dict(comparison.ignored)}
        listed.append(names)
    return listed


def _compared(
    labels: StrPath,
    truth: StrPath,
    mapping: Mapping[str, str] | Sequence[str],
    how: How,
    outside: str | None,
    *,
    alone: bool = True,
) -> Comparison:
    """One raster of labels with its truth."""
    with ExitStack() as stack:
        stack.enter_context(raster_env())
        src = stack.enter_context(open_labels(labels))
        check_codes(src)
        names = category_names(src)
        if not names:
            raise UsageError(f"{labels} has no class names; it must come from `geoovseg segment` or carry categories")
        theirs = stack.enter_context(open_truth(src, truth, how))
        found = match(names, theirs, mapping, outside, str(truth), alone=alone)
        return _named(_count(src, theirs.read), names, theirs, found)


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


def _named(counts: Counter[tuple[int, int]], labels: Mapping[int, str], truth: Truth, found: Match) -> Comparison:
    """Counted codes by the names they have."""
    cells, ignored, uncovered = Counter[tuple[str, str | None]](), Counter[str](), 0
    for (true, given), pixels in counts.items():
        name = found.of(true)
        if given >= 0 and name is not None:
            cells[name, labels.get(given)] += pixels
        else:
            ignored[NODATA if true < 0 or given < 0 else truth.name(true)] += pixels
            uncovered += pixels if given >= 0 > true else 0
    moot: tuple[str, ...] = ()
    if found.outside is not None and not any(given >= 0 > true for true, given in counts):
        moot = (f"--outside {found.outside} does nothing: the truth covers every pixel that has a label",)
        found = replace(found, outside=None)
    if found.outside is not None and not any(given >= 0 and true >= 0 for true, given in counts):
        moot = ("the truth does not meet the labels: all that is compared lies outside it",)
    order = tuple(dict.fromkeys(name for name in labels.values() if name in found.wanted))
    remarks = (*found.remarks, *_strange(counts, ignored, truth, found))
    return Comparison(
        order=order,
        cells=cells,
        ignored=ignored,
        uncovered=uncovered,
        remarks=remarks,
        moot=moot,
        missing=found.missing,
    )


def _strange(counts: Mapping[tuple[int, int], int], ignored: Counter[str], truth: Truth, found: Match) -> Iterator[str]:
    """What to say of truth with more colours than classes can have; they are counted as one."""
    strange = {true for true, _ in counts if true >= 0 and true not in found.classes and true not in truth.names}
    if truth.text is not colour_text or len(strange) <= MANY_COLOURS:
        return
    pixels = sum(ignored.pop(colour_text(code), 0) for code in strange)
    if pixels:
        ignored[f"{len(strange)} other colours"] = pixels
    yield (
        f"the truth has {len(strange)} colours that stand for no class: is it a picture, or was it compressed with "
        "losses, as JPEG does?"
    )
