"""Words to unit text features: 80 sentences around each word, averaged, kept on disk by content."""

from __future__ import annotations

import hashlib
import warnings
from collections.abc import Callable, Mapping, Sequence
from copy import copy
from dataclasses import dataclass
from functools import cache, cached_property
from io import BytesIO
from itertools import combinations
from typing import Any, ClassVar

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from geoovseg.errors import GeoOVSegWarning
from geoovseg.models.kept import keep, kept
from geoovseg.usage import TELL
from geoovseg.vocabulary import Vocabulary, parse_background

Tokenize = Callable[[list[str]], Tensor]
CLOSE = 0.92
"""Counter-words whose features are closer than this cosine to a word of the user's are left out."""
SEAL = hashlib.sha256().digest_size
"""Bytes of a digest."""
VERSION = "2"
"""Of the way from a word to its feature: numbers of another one are not mixed with these."""
MANY = 8
"""Words that take so long to read that it is told."""
UNIT = 1e-3
"""How far from 1 the length of a unit feature may be; what is no number is never that near."""


class TextEncoder:
    """The text side of a CLIP: `embed` gives one unit feature a word.

    Each word is encoded on its own, in one batch of its sentences, so that its feature does not depend on the others;
    always on the CPU in float32, so that it does not depend on the device either.
    """

    unit: ClassVar[bool] = True
    """whether features have a length of 1"""

    def __init__(
        self,
        load: Callable[[], tuple[nn.Module, Tokenize]],
        templates: Sequence[str],
        *,
        weights: str | None = None,
        width: int | None = None,
    ) -> None:
        """`load` gives the model and its tokenizer when a word is not known; `weights` is the digest of their file.

        `width` is the length of a feature, where it is known.
        """
        self._load, self.templates = cache(load), tuple(templates)
        self._weights, self.width = weights, width

    @torch.inference_mode()
    def embed(self, words: Sequence[str]) -> Tensor:
        """Unit features (Q, D) in float32: the mean over the templates of unit sentence features, normalised again.

        As in every released dense method: encode_text(template(word)), normalise, mean over 80, normalise.
        """
        found = {word: self._known(word) for word in words}
        new = [word for word, feature in found.items() if feature is None]
        if len(new) >= MANY:
            TELL.get()(f"reading {len(new)} words, once for this model and these sentences")
        found |= {word: self._kept(word) for word in new}
        return torch.stack([feature for word in words if (feature := found[word]) is not None])

    def similarity(self, words: Sequence[str], others: Sequence[str]) -> Tensor:
        """Cosines (words, others) of their features."""
        return self.embed(words) @ self.embed(others).T

    def _known(self, word: str) -> Tensor | None:
        """The feature of a word, if it was kept; a damaged one costs time, never the run."""
        key = self._key(word)
        return _unpacked(kept("text", f"{key}.npy"), key, self.width, unit=self.unit)

    def _kept(self, word: str) -> Tensor:
        """The feature of a word, computed and kept; where it cannot be kept that costs time, never the run."""
        found, key = self.encode(word), self._key(word)
        keep("text", f"{key}.npy", _packed(found, key))
        return found

    def encode(self, word: str) -> Tensor:
        """The unit feature (D,) of a word, computed."""
        model, tokenize = self._load()
        short, tokens = as_short(model, tokenize([t.replace("{}", word) for t in self.templates]))
        sentences = F.normalize(short.encode_text(tokens).float(), dim=-1)
        return F.normalize(sentences.mean(0), dim=-1)

    def _key(self, word: str) -> str:
        return hashlib.sha256(f"{self._identity}\0{word}".encode()).hexdigest()[:40]

    @cached_property
    def _identity(self) -> str:
        """What decides features: the weights, the sentences, versions."""
        weights = self._weights or _digest(self._load()[0])
        return "\n".join((VERSION, torch.__version__, weights, *self.templates))


def as_short(model: Any, tokens: Tensor) -> tuple[Any, Tensor]:
    """A text tower for sentences as long as the longest of `tokens` (S, L), and these tokens without the rest.

    In a causal tower that is read at the end of a sentence nothing depends on what follows; others are as they were.
    """
    mask, ends = getattr(model, "attn_mask", None), getattr(model, "text_pool_type", None) == "argmax"
    if not (ends and isinstance(mask, Tensor) and torch.isneginf(mask[mask.triu(1).bool()]).all()):
        return model, tokens
    length = int(tokens.argmax(-1).max()) + 1
    short = copy(model)
    positions = nn.Parameter(model.positional_embedding[:length], requires_grad=False)
    short._parameters = {**model._parameters, "positional_embedding": positions}
    short._buffers = {**model._buffers, "attn_mask": mask[:length, :length]}
    return short, tokens[:, :length]


def _packed(feature: Tensor, key: str) -> bytes:
    """A feature as it is kept: an array of numpy, then a digest of it and of what it is the feature of."""
    file = BytesIO()
    np.save(file, feature.numpy())
    return file.getvalue() + _seal(file.getvalue(), key)


def _seal(content: bytes, key: str) -> bytes:
    return hashlib.sha256(key.encode() + content).digest()


def _unpacked(content: bytes | None, key: str, width: int | None, *, unit: bool) -> Tensor | None:
    """A feature that was kept; none for what is damaged, of something else, or no (unit) vector of this length."""
    if content is None or content[-SEAL:] != _seal(content[:-SEAL], key):
        return None
    try:
        found = np.load(BytesIO(content[:-SEAL]), allow_pickle=False)
    except (OSError, ValueError, EOFError):
        return None
    if not isinstance(found, np.ndarray) or found.dtype != np.float32 or found.shape != (width or found.size,):
        return None
    length = np.linalg.norm(found.astype(float))
    return torch.from_numpy(found) if (abs(length - 1) < UNIT if unit else np.isfinite(length)) else None


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


def _digest(model: nn.Module) -> str:
    """Of the weights of the text side."""
    state = hashlib.sha256()
    for name, weight in sorted(model.state_dict().items()):
        if not name.startswith("visual."):
            state.update(name.encode())
            state.update(weight.detach().cpu().contiguous().numpy().tobytes())
    return state.hexdigest()


def with_background(
    vocabulary: Vocabulary, text: str, encoder: TextEncoder, *, counter: bool = True
) -> tuple[Vocabulary, tuple[str, ...]]:
    """Apply --background; of the automatic words, if there are to be some, leave out those too close to the user's."""
    words, automatic = parse_background(text, vocabulary, counter=counter)
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
