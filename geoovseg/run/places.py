"""Query by example: what kept features are at places that were marked, as one more word."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Sequence
from functools import cache, partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from affine import Affine
from rasterio.crs import CRS
from torch import Tensor
from torch.nn import functional as F

from geoovseg.errors import UsageError
from geoovseg.features.store import SIDE, About, FeatureStore
from geoovseg.models.text import TextEncoder
from geoovseg.prompts import PLACES
from geoovseg.scene.marked import Cell, marked_by, marked_in
from geoovseg.vocabulary import Vocabulary
from geoovseg.windows.plan import Panel


def check_seen(words: Vocabulary) -> None:
    """Refuse places where no features are kept. Raises UsageError."""
    if words.places:
        raise UsageError(
            f"{words.places[0]}: only kept features are asked by example; encode the scene first, or add --features"
        )


class WithPlaces(TextEncoder):
    """The text side of a model, for which files of places are words too."""

    def __init__(self, store: FeatureStore, *given: Any, **more: Any) -> None:
        super().__init__(*given, **more)
        self._of = cache(partial(example, store))

    def embed(self, words: Sequence[str]) -> Tensor:
        """Unit features (Q, D) of words and places. Raises what `example` raises."""
        said = [word for word in words if not word.startswith(PLACES)]
        found = dict(zip(said, super().embed(said), strict=True)) if said else {}
        return torch.stack([found[word] if word in found else self._of(word)[1] for word in words])

    def named(self, words: Vocabulary) -> Vocabulary:
        """With what a record calls places."""
        return words.renamed({place: self._of(place)[0] for place in words.places})


def cells_of(about: About) -> Affine:
    """From (column, row) of cells to the ground."""
    return Affine(*about.transform) @ Affine.scale(about.cell)


def crs_of(about: About) -> CRS | None:
    """The coordinate system of the scene."""
    return None if about.crs is None else CRS.from_wkt(about.crs)


def example(store: FeatureStore, word: str) -> tuple[str, Tensor]:
    """A word that names a file of places: what a record calls it, and the unit vector (D) that it stands for.

    Raises SceneError for a file that cannot be read, UsageError where no place in it has data.
    """
    name = word.removeprefix(PLACES)
    about = store.about
    marked = marked_in(name, crs_of(about), cells_of(about), (about.rows, about.columns))
    vector = mean_at(store, marked, name)
    digest = hashlib.sha256(vector.numpy().tobytes()).hexdigest()[:8]
    return f"{PLACES}{os.path.basename(name)} ({len(marked)} patches, {digest})", vector


def example_of(store: FeatureStore, places: Any) -> Tensor:
    """The unit vector (D) of places: points (x, y), shapes, or a file of them. Raises as `example` does."""
    if isinstance(places, str | Path):
        return example(store, os.fspath(places))[1]
    about, listed = store.about, list(getattr(places, "geometry", places))
    name = f"the list of {len(listed)} places"
    return mean_at(store, marked_by(listed, name, cells_of(about), (about.rows, about.columns)), name)


def mean_at(store: FeatureStore, cells: Sequence[Cell], name: str) -> Tensor:
    """The mean vector (D) of cells with data, of length 1. Raises UsageError where none has any."""
    total, count = np.zeros(store.about.depth, np.float64), 0
    blocks: dict[Cell, list[Cell]] = {}
    for row, column in cells:
        blocks.setdefault((row // SIDE, column // SIDE), []).append((row % SIDE, column % SIDE))
    for (down, right), inside in blocks.items():
        first, left = down * SIDE, right * SIDE
        rows = (first, min(first + SIDE, store.about.rows))
        panel = Panel(left, min(SIDE, store.about.columns - left))
        vectors = np.concatenate([found for _, found in store.rows(rows, panel)])
        here = vectors[tuple(np.transpose(inside))].astype(np.float64)
        total += here.sum(0)
        count += int(here.any(1).sum())
    if not count:
        raise UsageError(f"{name}: no marked place has data")
    return F.normalize(torch.from_numpy(total).float(), dim=0)
