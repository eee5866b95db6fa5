"""A few numbers learned from polygons that a person drew: by how much the scores of each class are shifted.

Nothing else is trained. What is learned is tried on polygons that it was not learned from, and refused without a gain.
"""

from __future__ import annotations

import json
import os
import shlex
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import minimize
from scipy.special import log_softmax

from geoovseg.errors import GeoOVSegError, OutputError, UsageError, first_line, some
from geoovseg.features.store import FeatureStore
from geoovseg.files import as_path, write_whole
from geoovseg.prompts import PLACES, class_lines, fold
from geoovseg.run.asked import scores_at
from geoovseg.run.asker import load_asker
from geoovseg.run.places import cells_of, crs_of
from geoovseg.run.predictor import Predictor
from geoovseg.run.stored import as_encoded
from geoovseg.scene.marked import marked_by
from geoovseg.scene.shapes import named_shapes
from geoovseg.settings import Settings
from geoovseg.vocabulary import BACKGROUND, Classes, Vocabulary, read_classes

FOLDS = 5
LEAST = 10
"""Polygons that can be learned from, in all."""
STRICT = 0.5
"""Weight of the squared offsets, in units of 1 / scale, against the loss: few polygons move them little."""
DRAWS = 1000
Floats = NDArray[np.float64]
Codes = NDArray[np.int64]


class NoGainError(GeoOVSegError):
    """What was learned is no better on what it was not learned from."""


@dataclass(frozen=True, kw_only=True)
class TuneResult:
    """What was learned; `to_json` is what `geoovseg tune --json` prints. It is a path, too."""

    classes_file: str
    offsets: dict[str, float]
    """that are added to cosines, by class"""
    polygons: int
    cells: int
    before: float
    """mean IoU of cells in polygons that were held out, without offsets"""
    after: float
    interval: tuple[float, float]
    """of the gain, 95 %, polygons drawn again"""
    left_out: list[str]
    """names in the polygons that are no class, whose polygons taught nothing"""

    @property
    def gain(self) -> float:
        """How much higher the mean IoU is."""
        return self.after - self.before

    def __fspath__(self) -> str:
        return self.classes_file

    def to_json(self) -> str:
        """One line of JSON."""
        return json.dumps({**asdict(self), "gain": self.gain}, ensure_ascii=False)


@dataclass(frozen=True)
class _Drawn:
    """Cells in polygons, with their scores."""

    scores: Floats
    """(N, C) cosines of the classes, the background first if there is one"""
    truth: Codes
    """(N,) channel that the polygon says"""
    polygon: Codes
    """(N,) number of the polygon"""


def tune(
    features: str | os.PathLike[str],
    edits: str | os.PathLike[str],
    classes: Classes | None,
    output: str | os.PathLike[str],
    *,
    vocabulary: str | os.PathLike[str] | None = None,
    background: str = "auto",
    field: str = "class_name",
    layer: str | None = None,
    templates: str = Settings().templates,
    overwrite: bool = False,
) -> TuneResult:
    """Learn an offset for each class from polygons with names, and write a class file that `segment` reads.

    A class's offset is added to its scores before classes are compared. Offsets make the named class the most likely
    one (multinomial logistic loss, classes alike, offsets kept small). On folds of whole polygons the mean IoU of their
    cells is compared with that without offsets, and its gain drawn again for an interval.

    Raises NoGainError where the interval of the gain reaches 0, and then writes nothing; UsageError for polygons that
    are too few or of other names, SceneError for what cannot be read, OutputError.
    """
    target = as_path(output, "the class file")
    if target.exists() and not overwrite:
        raise OutputError(f"{target} exists already; add --overwrite to replace it")
    store, words = FeatureStore(features), read_classes(classes, vocabulary)
    settings = as_encoded(Settings(templates=templates, background=background), os.fspath(features))
    with settings.access():
        asker = load_asker(words, settings, store)
    given = replace(words, background=asker.vocabulary.background)
    _check_writable(given, target)
    polygons, strange = _polygons(store, os.fspath(edits), field, layer, asker.vocabulary)
    drawn, scale = _scored(store, asker, polygons), asker.facts.scale
    _check_enough(drawn, os.fspath(edits), strange)
    before, after = _held_out(drawn, scale)
    figures = [mean_iou(drawn.truth, guess) for guess in (before, after)]
    interval = _interval(drawn, before, after)
    if interval[0] <= 0:
        spread = f"gain {figures[1] - figures[0]:+.3f}, 95 % {interval[0]:+.3f} to {interval[1]:+.3f}"
        raise NoGainError(
            f"no gain: the mean IoU of held-out polygons is {figures[0]:.3f} without offsets and {figures[1]:.3f} with "
            f"them ({spread}); nothing was written"
        )
    offsets = learned(drawn.scores, drawn.truth, drawn.polygon, scale)
    _write(target, given, offsets)
    by_name = dict(zip(asker.vocabulary.channels, offsets.tolist(), strict=True))
    return TuneResult(
        classes_file=str(target), offsets=by_name, polygons=int(drawn.polygon.max()) + 1, cells=len(drawn.truth),
        before=figures[0], after=figures[1], interval=interval, left_out=strange,
    )  # fmt: skip


def _polygons(
    store: FeatureStore, edits: str, field: str, layer: str | None, words: Vocabulary
) -> tuple[list[tuple[int, list[tuple[int, int]]]], list[str]]:
    """Of each polygon its channel and its cells, and names that are no class. Raises SceneError, UsageError."""
    about = store.about
    channels = {fold(name): number for number, name in enumerate(words.channels)}
    found, strange = [], set()
    for shape, name in named_shapes(edits, crs_of(about), field, layer):
        if fold(name) not in channels:
            strange |= {name} - {""}
            continue
        try:
            cells = marked_by([shape], edits, cells_of(about), (about.rows, about.columns))
        except UsageError:  # beyond the scene
            continue
        found.append((channels[fold(name)], cells))
    return found, sorted(strange)


def _check_enough(drawn: _Drawn, edits: str, strange: Sequence[str]) -> None:
    """Raises UsageError for too few polygons, or of one class."""
    count, kinds = len(np.unique(drawn.polygon)), len(np.unique(drawn.truth))
    if count < LEAST or kinds < 2:
        odd = f"; {some(strange)} is no class" if strange else ""
        raise UsageError(
            f"{edits} has {count} polygons of {kinds} classes where features are kept, and it takes at least {LEAST} "
            f"of 2{odd}"
        )


def _scored(store: FeatureStore, asker: Predictor, polygons: Sequence[tuple[int, list[tuple[int, int]]]]) -> _Drawn:
    """Scores of all cells in polygons, without offsets; cells without features are left out."""
    cells = np.array([cell for _, each in polygons for cell in each]).reshape(-1, 2)
    counts = [len(each) for _, each in polygons]
    scores, known = scores_at(store, asker, cells)
    truth = np.repeat([channel for channel, _ in polygons], counts)
    polygon = np.repeat(np.arange(len(polygons)), counts)
    return _Drawn(scores[known].astype(np.float64), truth[known], np.unique(polygon[known], return_inverse=True)[1])


def learned(scores: Floats, truth: Codes, polygon: Codes, scale: float) -> Floats:
    """Offsets (C,) of classes from cells (N, C): the least loss, classes and their polygons counting alike.

    loss = sum_i w_i -log softmax(scale (s_i + b))[y_i] + STRICT |scale b|^2 / (2 polygons); offsets have mean 0, and of
    classes without a polygon are 0 before that.
    """
    weights = _weights(truth, polygon)
    count, there = len(np.unique(polygon)), np.unique(truth)

    def loss(z: Floats) -> tuple[float, Floats]:
        logits = scale * scores
        logits[:, there] += z
        logs = log_softmax(logits, axis=1)
        wrong = np.exp(logs[:, there]) - (truth[:, None] == there)
        value = -(weights * logs[np.arange(len(truth)), truth]).sum() + STRICT * (z @ z) / (2 * count)
        return float(value), (weights[:, None] * wrong).sum(0) + STRICT * z / count

    found = minimize(loss, np.zeros(len(there)), jac=True, method="L-BFGS-B").x / scale
    offsets = np.zeros(scores.shape[1])
    offsets[there] = found
    return np.asarray(offsets - offsets.mean())


def _weights(truth: Codes, polygon: Codes) -> Floats:
    """Of cells, adding to 1: classes count alike, polygons of a class, and cells of a polygon."""
    _, place, cells = np.unique(polygon, return_inverse=True, return_counts=True)
    weights = 1.0 / cells[place]
    kinds, kind = np.unique(truth, return_inverse=True)
    totals = np.bincount(kind, weights)
    return np.asarray(weights / totals[kind] / len(kinds))


def _held_out(drawn: _Drawn, scale: float) -> tuple[Codes, Codes]:
    """Classes of all cells without offsets, and with offsets that their polygons had no part in."""
    fold = _folds(drawn)
    before, after = drawn.scores.argmax(1), np.empty(len(drawn.truth), np.int64)
    for number in np.unique(fold):
        out = fold == number
        offsets = learned(drawn.scores[~out], drawn.truth[~out], drawn.polygon[~out], scale)
        after[out] = (drawn.scores[out] + offsets).argmax(1)
    return before, after


def _folds(drawn: _Drawn) -> Codes:
    """The fold of each cell: whole polygons, those of a class spread over the folds, always the same."""
    polygons, first = np.unique(drawn.polygon, return_index=True)
    order = np.random.default_rng(0).permutation(len(polygons))
    order = order[np.argsort(drawn.truth[first][order], kind="stable")]
    fold = np.empty(len(polygons), np.int64)
    fold[order] = np.arange(len(polygons)) % min(FOLDS, len(polygons))
    return fold[np.searchsorted(polygons, drawn.polygon)]


def mean_iou(truth: Codes, guess: Codes, weights: Codes | None = None) -> float:
    """Mean over the classes in the truth of hits over union."""
    size = int(max(truth.max(), guess.max())) + 1
    table = np.bincount(truth * size + guess, weights, size * size).reshape(size, size)
    union = table.sum(0) + table.sum(1) - table.diagonal()
    there = table.sum(1) > 0
    return float((table.diagonal()[there] / union[there]).mean())


def _interval(drawn: _Drawn, before: Codes, after: Codes) -> tuple[float, float]:
    """95 % of the gain when polygons are drawn again, with repetition."""
    rng, (polygons, place) = np.random.default_rng(0), np.unique(drawn.polygon, return_inverse=True)
    gains = []
    for _ in range(DRAWS):
        times = np.bincount(rng.integers(0, len(polygons), len(polygons)), minlength=len(polygons))[place]
        gains.append(mean_iou(drawn.truth, after, times) - mean_iou(drawn.truth, before, times))
    low, high = np.quantile(gains, (0.025, 0.975))
    return float(low), float(high)


def _lines(target: Path, words: Vocabulary, offsets: Sequence[float]) -> str:
    """The class file: names, words as they were given, offsets, colours."""
    lines, values = ["# learned by geoovseg tune: [number] is added to a class's scores\n"], list(offsets)
    if words.background:
        lines.append(f"{BACKGROUND}: {_joined(target, words.background)} [{values.pop(0):+.6f}]\n")
    for entry, value in zip(words.classes, values, strict=True):
        lines.append(f"{entry.name}: {_joined(target, entry.words)} [{value:+.6f}] {entry.colour}\n")
    return "".join(lines)


def _joined(target: Path, words: Sequence[str]) -> str:
    """Words of a line; files of places as seen from the class file."""
    folder = os.path.abspath(target.parent)
    return ", ".join(PLACES + os.path.relpath(w[1:], folder) if w.startswith(PLACES) else w for w in words)


def _check_writable(words: Vocabulary, target: Path) -> None:
    """Refuse names and words that mean something else in a class file. Raises UsageError, VocabularyError."""
    found = class_lines(_lines(target, words, [0.0] * len(words.channels)), str(target))
    for entry, (name, group) in zip(found, zip(words.channels, words.groups, strict=True), strict=True):
        plain = [word for word in group if not word.startswith(PLACES)]
        if entry.name != name or [word for word in entry.words if not word.startswith(PLACES)] != plain:
            raise UsageError(f"class {name!r} with the words {', '.join(group)} cannot be written into a class file")


def _write(target: Path, words: Vocabulary, offsets: Floats) -> None:
    try:
        write_whole(target, _lines(target, words, offsets.tolist()))
    except OSError as error:
        raise OutputError(f"cannot write the class file {target}: {first_line(error)}") from error


def asked_again(result: TuneResult, features: str, background: str, templates: str) -> str:
    """The command that uses what was learned; words of the background stand in the class file."""
    more = ["--background", "none"] if background.strip() == "none" else []
    more += [] if templates == Settings().templates else ["--templates", templates]
    return shlex.join(["geoovseg", "segment", features, "--vocabulary", result.classes_file, *more])
