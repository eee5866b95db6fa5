"""Kept features from Python: read, asked words, and compared with places."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import numpy as np
import torch
from affine import Affine
from numpy.typing import NDArray
from rasterio.crs import CRS
from torch.nn import functional as F

from geoovseg.errors import UsageError
from geoovseg.features.store import SIDE, FeatureStore
from geoovseg.files import StrPath
from geoovseg.prompts import DEFAULT_TEMPLATES
from geoovseg.run.asker import load_asker
from geoovseg.run.places import cells_of, crs_of, example_of
from geoovseg.run.predictor import Predictor
from geoovseg.run.stored import as_encoded
from geoovseg.settings import Settings
from geoovseg.vocabulary import Classes, read_classes
from geoovseg.windows.plan import Panel


@dataclass(frozen=True)
class Features:
    """Features that `encode` kept: a vector for each cell, a square of pixels; `open_features` opens them."""

    store: FeatureStore

    @property
    def shape(self) -> tuple[int, int, int]:
        """(rows, columns, D) of cells and their vectors."""
        about = self.store.about
        return about.rows, about.columns, about.depth

    @cached_property
    def crs(self) -> CRS | None:
        """The coordinate system of the scene."""
        return crs_of(self.store.about)

    @property
    def transform(self) -> Affine:
        """From (column, row) of cells to the ground."""
        return cells_of(self.store.about)

    def _repr_html_(self) -> str:
        """As a notebook shows it."""
        from geoovseg.run.notebook import html_of_features

        return html_of_features(self.store.path, self.shape, self.store.about.record, self.store.about.megabytes)

    def read(self, rows: slice = slice(None), columns: slice = slice(None)) -> NDArray[np.float16]:
        """Vectors (rows, columns, D) of cells, float16; zero where no window was.

        Raises UsageError for what lies outside, SceneError, which names it, for a damaged chunk.
        """
        (first, end), (left, right) = _within(rows, self.shape[0]), _within(columns, self.shape[1])
        found = self.store.rows((first, end), Panel(left, right - left))
        return np.concatenate([vectors for _, vectors in found])

    def ask(self, classes: Classes, *, templates: str = DEFAULT_TEMPLATES, background: str = "none") -> Any:
        """Class scores of all cells: an xarray DataArray (class, y, x) of cosines, float32.

        Classes, templates and background are as for `segment`. Raises UsageError and WeightsMissingError.
        """
        given = as_encoded(Settings(templates=templates, background=background), str(self.store.path))
        with given.access():
            asker = load_asker(read_classes(classes, None), given, self.store)
        return self._scores(asker.words.class_scores, asker.vocabulary.channels)

    def similar(self, places: Any) -> Any:
        """How like some places each cell is: points (x, y) or shapes in the scene's coordinates, or a file of shapes.

        An xarray DataArray (y, x) of cosines with the mean vector of the cells that are marked: of a point that around
        it, of a polygon those whose centres it holds. Raises UsageError where none lies on the scene, or has data.
        """
        like = example_of(self.store, places)[:, None, None]
        found = self._scores(lambda cells, _: (F.normalize(cells.float(), dim=0) * like).sum(0)[None], ("",))
        return found[0].drop_vars("class")

    def _scores(self, ask: Any, names: Sequence[str]) -> Any:
        import xarray  # only here, as whoever wants such an array has it

        rows, columns, _ = self.shape
        found = np.empty((len(names), rows, columns), np.float32)
        with torch.inference_mode():
            for first, vectors in self.store.rows((0, rows), Panel(0, columns)):
                cells = torch.from_numpy(vectors).permute(2, 0, 1)
                found[:, first : first + len(vectors)] = ask(cells, 0).numpy()
        at = self.transform
        y, x = (at.f + at.e * (np.arange(rows) + 0.5), at.c + at.a * (np.arange(columns) + 0.5))
        coordinates = {"class": list(names), "y": y, "x": x}
        return xarray.DataArray(found, dims=("class", "y", "x"), coords=coordinates, name="scores")


@torch.inference_mode()
def scores_at(
    store: FeatureStore, asker: Predictor, cells: NDArray[np.int64]
) -> tuple[NDArray[np.float32], NDArray[np.bool_]]:
    """Class scores (N, C) of cells (N, 2), without the classes' offsets, and which of them have features (N,)."""
    words, about = replace(asker.words, won=None, offsets=()), store.about
    scores, known = np.zeros((len(cells), asker.channels), np.float32), np.zeros(len(cells), bool)
    chunk = cells // SIDE
    for down, right in np.unique(chunk, axis=0).tolist():
        rows = (down * SIDE, min((down + 1) * SIDE, about.rows))
        panel = Panel(right * SIDE, min(SIDE, about.columns - right * SIDE))
        vectors = np.concatenate([found for _, found in store.rows(rows, panel)])
        seen = words.class_scores(torch.from_numpy(vectors).permute(2, 0, 1), 0).cpu().numpy()
        here = (chunk == (down, right)).all(1)
        row, col = (cells[here] - (rows[0], panel.col_off)).T
        scores[here], known[here] = seen[:, row, col].T, vectors[row, col].any(1)
    return scores, known


def open_features(path: StrPath) -> Features:
    """Open a store of `encode`. Raises SceneError for what is none, or not finished."""
    return Features(FeatureStore(path))


def _within(part: slice, size: int) -> tuple[int, int]:
    """First and last of a slice of so many. Raises UsageError for nothing, and for steps."""
    first, end, step = part.indices(size)
    if step != 1 or end <= first:
        raise UsageError(f"{part} is no part of {size} rows or columns of cells")
    return first, end
