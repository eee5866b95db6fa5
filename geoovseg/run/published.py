"""Images the way of a method's release, on models that are loaded once: for papers' tables, not for maps."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch.nn.functional import interpolate

from geoovseg.errors import UsageError
from geoovseg.methods.coninfer import ConInfer
from geoovseg.methods.published import RELEASES, Protocol, predict, resize, segment_published
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


@dataclass(frozen=True)
class Published:
    """A loaded method, and how its release runs an image."""

    predictor: Predictor
    protocol: Protocol
    """without a threshold: that is for whoever counts"""

    def __post_init__(self) -> None:
        """Probabilities stay as they are compared with thresholds, before some releases make their sum 1."""
        object.__setattr__(self, "protocol", replace(self.protocol, renormalise=False, threshold=0.0))

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
        method: Any = self.predictor.method
        if isinstance(method, ConInfer):
            return self._together(method, images)
        return [_seen(*segment_published(method, image, self.groups, self.protocol)) for image in images]

    def _together(self, method: ConInfer, images: Sequence[NDArray[np.uint8]]) -> list[Seen]:
        device = self.predictor.device
        pixels = torch.stack([_tensor(resize(image, self.protocol)) for image in images]).to(device)
        size = self.protocol.resize
        looked_at = torch.cat(
            [
                interpolate(_tensor(image)[None], size, mode="bilinear", antialias=True, align_corners=False)
                for image in images
            ]
        )
        found = method.together(pixels, looked_at.to(device))
        seen = []
        for image, shares in zip(images, found.split(1), strict=True):
            shares = interpolate(shares, image.shape[:2], mode="bilinear", align_corners=False)
            labels, classes = predict(shares, self.groups, self.protocol)
            seen.append(_seen(labels[0], classes[0]))
        return seen


def _tensor(image: NDArray[np.uint8]) -> torch.Tensor:
    return torch.from_numpy(np.ascontiguousarray(image)).permute(2, 0, 1).float() / 255


def _seen(labels: torch.Tensor, shares: torch.Tensor) -> Seen:
    return Seen(labels.to(torch.uint8).cpu().numpy(), shares.amax(0).float().cpu().numpy())


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
