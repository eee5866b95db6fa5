"""Words to unit text features: 80 sentences around each word, averaged, kept on disk by content."""

from __future__ import annotations

import hashlib
import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from geoovseg.errors import GeoOVSegWarning
from geoovseg.files import whole
from geoovseg.models.weights import cache_dir
from geoovseg.vocabulary import Vocabulary, parse_background

Tokenize = Callable[[list[str]], Tensor]
CLOSE = 0.92
"""Counter-words whose features are closer than this cosine to a word of the user's are left out."""


class TextEncoder:
    """The text side of a CLIP: `embed` gives one unit feature a word.

    Each word is encoded on its own, in one batch of its sentences, so that its feature does not depend on the others;
    always on the CPU in float32, so that it does not depend on the device either.
    """

    def __init__(self, model: nn.Module, tokenize: Tokenize, templates: Sequence[str]) -> None:
        self.model: Any = model
        self.tokenize, self.templates = tokenize, tuple(templates)
        self._identity: str | None = None

    @torch.inference_mode()
    def embed(self, words: Sequence[str]) -> Tensor:
        """Unit features (Q, D) in float32: the mean over the templates of unit sentence features, normalised again.

        As in every released dense method: encode_text(template(word)), normalise, mean over 80, normalise.
        """
        return torch.stack([self._cached(word) for word in words])

    def similarity(self, words: Sequence[str], others: Sequence[str]) -> Tensor:
        """Cosines (words, others) of their features."""
        return self.embed(words) @ self.embed(others).T

    def _cached(self, word: str) -> Tensor:
        """A damaged or unwritable cache costs time, never the run."""
        try:
            path = cache_dir() / "text" / f"{self._key(word)}.npy"
        except RuntimeError:  # an account without a home
            return self.encode(word)
        try:
            return torch.from_numpy(np.load(path, allow_pickle=False))
        except (OSError, ValueError, EOFError):
            feature = self.encode(word)
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            with whole(path, ".npy") as part:
                np.save(part, feature.numpy())
        except OSError:
            pass
        return feature

    def encode(self, word: str) -> Tensor:
        """The unit feature (D,) of a word, computed."""
        tokens = self.tokenize([t.replace("{}", word) for t in self.templates])
        sentences = F.normalize(self.model.encode_text(tokens).float(), dim=-1)
        return F.normalize(sentences.mean(0), dim=-1)

    def _key(self, word: str) -> str:
        if self._identity is None:
            self._identity = _digest(self.model, self.templates)
        return hashlib.sha256(f"{self._identity}\0{word}".encode()).hexdigest()[:40]


@dataclass(frozen=True)
class Alike:
    """Two classes, the words that make them most alike, and the cosine of these."""

    first: str
    second: str
    words: tuple[str, str]
    cosine: float


def alike(encoder: TextEncoder, classes: Mapping[str, Sequence[str]]) -> list[Alike]:
    """All pairs of classes (name to words), the most alike first: what a text tower can hardly tell apart.

    Classes are as alike as the most alike of their words, since the best word speaks for its class.
    """
    found = []
    for (first, own), (second, others) in combinations(classes.items(), 2):
        cosines = encoder.similarity(own, others)
        row, col = divmod(int(cosines.argmax()), len(others))
        found.append(Alike(first, second, (own[row], others[col]), round(float(cosines[row, col]), 4)))
    return sorted(found, key=lambda pair: -pair.cosine)


def _digest(model: nn.Module, templates: Sequence[str]) -> str:
    """What decides a text feature: the text side's weights, the templates, torch's version."""
    state = hashlib.sha256("\n".join((torch.__version__, *templates)).encode())
    for name, weight in sorted(model.state_dict().items()):
        if not name.startswith("visual."):
            state.update(name.encode())
            state.update(weight.detach().cpu().contiguous().numpy().tobytes())
    return state.hexdigest()


def with_background(vocabulary: Vocabulary, text: str, encoder: TextEncoder) -> tuple[Vocabulary, tuple[str, ...]]:
    """Apply --background; of the automatic words, leave out those too close to the user's."""
    words, automatic = parse_background(text, vocabulary)
    if not automatic:
        return words, ()
    own = [w for entry in words.classes for w in entry.words]
    near = encoder.similarity(words.background, own).amax(1) > CLOSE if words.background else torch.zeros(0)
    dropped = tuple(w for w, close in zip(words.background, near.tolist(), strict=True) if close)
    words = words.with_background(w for w in words.background if w not in dropped)
    if not words.background:
        text = "every background word means the same as one of yours, so every pixel gets a class; see --background"
        warnings.warn(text, GeoOVSegWarning, 4)
    return words, dropped
