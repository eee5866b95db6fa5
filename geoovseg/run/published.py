"""Images the way of a method's release, on models that are loaded once: for papers' tables, not for maps."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray

from geoovseg.errors import UsageError
from geoovseg.methods.published import RELEASES, Protocol
from geoovseg.methods.releases import Answer, answers, as_they_are
from geoovseg.run.checks import check_models, check_settings
from geoovseg.run.predictor import Predictor, load_predictor
from geoovseg.settings import Settings
from geoovseg.vocabulary import Vocabulary

ABLE = ("clip", "maskclip", "gem", *RELEASES)
"""Methods that this protocol is for."""


class Seen(NamedTuple):
    """What an image was found to be, before unsure pixels become background."""

    classes: NDArray[np.uint8]
    """the best class of each pixel (H, W), by its place among the classes"""
    sure: NDArray[np.float32]
    """its probability (H, W)"""
    settle: Callable[[NDArray[np.uint8]], NDArray[np.uint8]] | None = None
    """what a release makes of labels after that: outlines by SAM, a vote of regions"""

    def decided(self, threshold: float, background: int) -> NDArray[np.uint8]:
        """Labels, pixels of too low a probability being background (strictly below, as the releases compare)."""
        labels = np.where(self.sure < np.float32(threshold), np.uint8(background), self.classes)
        return labels if self.settle is None else self.settle(labels)


@dataclass(frozen=True)
class Published:
    """A loaded method, and how its release runs an image; thresholds are for whoever counts."""

    predictor: Predictor
    protocol: Protocol

    @property
    def groups(self) -> list[int]:
        """How many words each class has."""
        return [len(group) for group in self.predictor.vocabulary.groups]

    @property
    def weights(self) -> dict[str, str | None]:
        """Names and SHA-256 of the models."""
        return dict(self.predictor.facts.digests)

    @torch.inference_mode()
    def see(self, images: Sequence[NDArray[np.uint8]]) -> list[Seen]:
        """Images (H, W, 3), uint8 RGB; those that are given together are one context for ConInfer."""
        return [_seen(answer) for answer in answers(self.predictor.method, images, self.groups, self.protocol)]


def _seen(answer: Answer) -> Seen:
    best, classes = answer.shares.max(0)
    settle = None if answer.settle is as_they_are else partial(_settled, answer)
    return Seen(classes.to(torch.uint8).cpu().numpy(), best.float().cpu().numpy(), settle)


@torch.inference_mode()
def _settled(answer: Answer, labels: NDArray[np.uint8]) -> NDArray[np.uint8]:
    found = answer.settle(torch.from_numpy(labels).long().to(answer.shares.device))
    return found.to(torch.uint8).cpu().numpy()


def check_able(method: str) -> None:
    """Refuse a method that this protocol is not for. Raises UsageError."""
    if method not in ABLE:
        raise UsageError(
            f"the way {method}'s release runs an image is not built in; it is for {', '.join(ABLE)}: choose one of "
            "these, or --protocol tool"
        )


def open_published(words: Vocabulary, settings: Settings, protocol: Protocol) -> Published:
    """Load the models. Raises UsageError for a method that this protocol is not for, and what loading raises."""
    check_able(settings.method)
    with settings.access():
        check_settings(settings)
        check_models(settings)
        return Published(load_predictor(words, settings), protocol)
