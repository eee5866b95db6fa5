"""Model composition: CLIPs averaged by how well their text towers keep classes apart (PVSM, ReSeg-CLIP sec. 3.2)."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from itertools import combinations
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from safetensors.torch import save_file
from torch import Tensor
from torch.nn import functional as F

from geoovseg.errors import ModelError, OutputError, UsageError, some
from geoovseg.files import whole, write_whole
from geoovseg.models.cards import ModelCard, model_card
from geoovseg.models.download import file_sha256
from geoovseg.models.load import WHOLE, load_whole
from geoovseg.models.weights import find_weights
from geoovseg.prompts import variants
from geoovseg.vocabulary import Vocabulary

BUFFERS = ("attn_mask", "position_ids")
"""Tensors that no training changes, and that some files have and some do not."""


class Margins(NamedTuple):
    """How far a model keeps classes apart."""

    intra: Tensor
    """(C,) mean cosine between prompts of a class"""
    inter: Tensor
    """(C,) mean cosine with the prompts of all other classes"""

    @property
    def margin(self) -> float:
        """Mean over classes of their difference."""
        return float((self.intra - self.inter).mean())


@dataclass(frozen=True, kw_only=True)
class Member:
    """A model and its part in a composition."""

    name: str
    sha256: str
    margin: float
    weight: float


def margins(embeddings: Tensor) -> Margins:
    """Margins of prompts (C, n, D) of any length, C and n at least 2; pairs of a class are unordered."""
    unit = F.normalize(embeddings.double(), dim=-1)
    classes, n = unit.shape[:2]
    pairs = torch.einsum("anx,bmx->abnm", unit, unit)
    own = torch.stack([pairs[c, c] for c in range(classes)])
    intra = (own.sum((1, 2)) - own.diagonal(dim1=1, dim2=2).sum(1)) / (n * (n - 1))
    inter = (pairs.sum((1, 2, 3)) - own.sum((1, 2))) / ((classes - 1) * n * n)
    return Margins(intra, inter)


def weigh(found: Sequence[float]) -> list[float]:
    """Weights in proportion to margins; negative ones count nothing. Raises ModelError if none is left."""
    kept = [max(0.0, margin) for margin in found]
    if not sum(kept) > 0:
        raise ModelError(f"no model keeps these classes apart (margins {some(f'{m:.4f}' for m in found)})")
    return [margin / sum(kept) for margin in kept]


def average(states: Sequence[Mapping[str, Tensor]], weights: Sequence[float]) -> dict[str, Tensor]:
    """Weighted means of tensors, summed in float64, in float32. Raises ModelError for what cannot be averaged."""
    first = states[0]
    for other in states[1:]:
        if differing := sorted(set(first) ^ set(other)):
            raise ModelError(f"the models cannot be averaged: only one of them has {differing[0]}")
        for key, tensor in first.items():
            if tensor.shape != other[key].shape:
                shapes = f"{tuple(tensor.shape)} and {tuple(other[key].shape)}"
                raise ModelError(f"the models cannot be averaged: {key} has shapes {shapes}")
    fused: dict[str, Tensor] = {}
    for key, tensor in first.items():
        if not all(bool(state[key].isfinite().all()) for state in states):
            raise ModelError(f"the models cannot be averaged: {key} is not finite in one of them")
        total = torch.zeros_like(tensor, dtype=torch.double)
        for state, weight in zip(states, weights, strict=True):
            total += weight * state[key].double()
        fused[key] = total.float()
    return fused


def prompt_variants(vocabulary: Vocabulary, count: int, seed: int) -> list[list[str]]:
    """`count` sentences for each class: a random prefix, one of its words, a random suffix."""
    rng = np.random.default_rng(seed)
    before, after = variants()
    found = []
    for entry in vocabulary.classes:
        parts = [(rng.choice(before), rng.choice(entry.words), rng.choice(after)) for _ in range(count)]
        found.append([" ".join(part).replace(" .", ".") for part in parts])
    return found


def compose(
    names: Sequence[str],
    output: Path,
    vocabulary: Vocabulary,
    *,
    count: int = 20,
    seed: int = 0,
    weights: Sequence[float] | None = None,
    overwrite: bool = False,
) -> list[Member]:
    """Average models into one file of weights, with a card (.json) beside it, for `--model FILE`.

    Models count by their margins, or by `weights`, whose sum is made 1.

    Raises UsageError, OutputError, WeightsMissingError, and ModelError for models that cannot be averaged.
    """
    cards = _checked(names, output, vocabulary, count, overwrite)
    _check_weights(weights, len(names))
    prompts = prompt_variants(vocabulary, count, seed)
    states: list[dict[str, Tensor]] = []
    found: list[float] = []
    for card in cards:
        model, tokenize = load_whole(card)
        with torch.inference_mode():
            embeddings = torch.stack([model.encode_text(tokenize(sentences)) for sentences in prompts])
        found.append(margins(embeddings).margin)
        states.append({k: v for k, v in model.state_dict().items() if not k.endswith(BUFFERS)})
    shares = weigh(found) if weights is None else [weight / sum(weights) for weight in weights]
    fused = average(states, shares)
    members = [
        Member(name=card.name, sha256=file_sha256(find_weights(card)), margin=margin, weight=weight)
        for card, margin, weight in zip(cards, found, shares, strict=True)
    ]
    _write(output, fused, cards[0], members, {"classes": len(vocabulary.classes), "variants": count, "seed": seed})
    return members


def _check_weights(weights: Sequence[float] | None, count: int) -> None:
    """Refuse weights that are not one a model, or none of which counts. Raises UsageError."""
    if weights is not None and (len(weights) != count or min(weights) < 0 or not 0 < sum(weights) < float("inf")):
        given = ",".join(f"{weight:g}" for weight in weights)
        raise UsageError(f"--weights {given}: give {count} numbers of at least 0, one for each model, as in .37,.63")


def _checked(
    names: Sequence[str], output: Path, vocabulary: Vocabulary, count: int, overwrite: bool
) -> list[ModelCard]:
    """The models' cards, when all is there and of one kind."""
    if len(names) < 2:
        raise UsageError("composing needs two models or more")
    if len(vocabulary.classes) < 2 or count < 2:
        raise UsageError("margins need two classes or more, and two prompts for each")
    if output.suffix != ".safetensors":
        raise UsageError(f"the output {output} must end in .safetensors")
    if output.exists() and not overwrite:
        raise OutputError(f"{output} exists; add --overwrite to replace it, or choose another name with -o")
    cards = [model_card(name) for name in names]
    for card in cards:
        if card.tower in WHOLE:
            raise ModelError(f"the models cannot be averaged: {card.name} is no model of open_clip")
        find_weights(card)
    for one, other in combinations(cards, 2):
        if one.arch != other.arch:
            raise ModelError(
                f"the models cannot be averaged: {one.name} is a {one.arch} and {other.name} a {other.arch} (quickgelu "
                "is an activation)"
            )
        if (one.mean, one.std) != (other.mean, other.std):
            raise ModelError(f"the models cannot be averaged: {one.name} and {other.name} see colours differently")
    return cards


def _write(
    output: Path, state: dict[str, Tensor], card: ModelCard, members: list[Member], prompts: dict[str, Any]
) -> None:
    try:
        with whole(output) as part:
            save_file(state, part)
            said = {"arch": card.arch, "mean": card.mean, "std": card.std, "prompts": prompts}
            said |= {"members": [asdict(member) for member in members], "sha256": file_sha256(part)}
            write_whole(output.with_suffix(".json"), json.dumps(said, indent=1) + "\n")
    except OSError as error:
        raise OutputError(f"cannot write {output}: {error}") from error
