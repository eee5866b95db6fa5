"""What only a real photo and real weights can tell of a CLIP model: its activation, and its counter-words."""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from geoovseg.evaluation.trial import CLASSES, crop, seen_of
from geoovseg.methods import card
from geoovseg.models.cards import DEMO, ModelCard, other_activation
from geoovseg.models.load import load_clip, resolve_device
from geoovseg.models.text import CLOSE
from geoovseg.models.weights import find_weights
from geoovseg.prompts import counter_words
from geoovseg.settings import Settings
from geoovseg.vocabulary import read_classes

PLAIN = "maskclip"
"""The method that changes a tower least."""
SHOWN = 3


class Remark(NamedTuple):
    """Something seen, and whether it speaks against what is assumed."""

    text: str
    doubt: bool = False


def remarks(model: ModelCard, settings: Settings) -> Iterator[Remark]:
    """What is to be said of a CLIP model that is on this machine; nothing of others, and of the drawn demo's."""
    if model.kind == "clip" and model.name != DEMO:
        yield from _activation(model)
        if card(settings.method).counter_words:
            yield from _counter_words(model, settings)


def _activation(model: ModelCard) -> Iterator[Remark]:
    """Whether the tower is surer of what is there with the activation that its card names, or with the other one."""
    other = other_activation(model.arch)
    if other is None:
        return
    path = find_weights(model)
    ours, theirs = (_margin(f"{arch}@{path}") for arch in (model.arch, other))
    said = f"activation: {model.arch} tells the classes apart by {ours:.4f}, {other} by {theirs:.4f}"
    yield Remark(said, doubt=theirs > ours)


def _margin(name: str) -> float:
    """How much more a pixel of the crop is like its class than like the others, in the mean."""
    seen, _ = seen_of(Settings(method=PLAIN, model=name), read_classes(list(CLASSES)))
    truth = crop()[1]
    drawn = truth > 0
    right = np.take_along_axis(seen, truth[None].astype(int) - 1, 0)[0]
    return float((right - (seen.sum(0) - right) / (len(CLASSES) - 1))[drawn].mean())


def _counter_words(model: ModelCard, settings: Settings) -> Iterator[Remark]:
    """Which words of the automatic background are near to classes, and which pixels of classes they would take."""
    words = [word for word in counter_words([]) if word not in CLASSES]
    encoder = load_clip(model.name, resolve_device("cpu"), "fp32", settings.templates).text
    cosines = encoder.similarity(words, CLASSES)
    near = sorted(zip(words, cosines.amax(1).tolist(), cosines.argmax(1).tolist(), strict=True), key=lambda w: -w[1])
    told = ", ".join(f"{word} and {CLASSES[n]} {cosine:.3f}" for word, cosine, n in near[:SHOWN])
    yield Remark(f"words: {told}; counter-words above {CLOSE} are left out")
    seen, _ = seen_of(settings, read_classes([*CLASSES, *words]))
    taken = ", ".join(_taken(seen, words))
    yield Remark(f"counter-words: {taken or 'none takes a pixel of a class'}", doubt=bool(taken))


def _taken(seen: NDArray[np.float32], words: list[str]) -> Iterator[str]:
    """Which share of the pixels of each class goes to which counter-words."""
    best, truth = seen.argmax(0) - len(CLASSES), crop()[1]
    for code, name in enumerate(CLASSES, 1):
        shares = np.bincount(best[(truth == code) & (best >= 0)], minlength=len(words)) / (truth == code).sum()
        order = np.argsort(-shares)[:SHOWN]
        if shares[order[0]] > 0:
            yield f"of {name} " + " ".join(f"{words[n]} {shares[n]:.0%}" for n in order if shares[n] > 0)
