"""Masks of everything SAM finds in an image, by the package's own generator, in an order that is always the same."""

from __future__ import annotations

import hashlib
import time
from collections import OrderedDict
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, Generic, Literal, TypeVar

import numpy as np
import torch
from numpy.typing import NDArray
from segment_anything import SamAutomaticMaskGenerator, SamPredictor
from segment_anything.utils.amg import rle_to_mask
from torch import Tensor

from geoovseg.models.sam import Sam
from geoovseg.usage import TELL

Order = Literal["generator", "area"]
"""Which masks come last and lie over the others: those the generator ranks last, or the smallest."""
Value = TypeVar("Value")
POINTS_AT_ONCE = 8
"""Point prompts that go through the decoder together; each gives three masks at the size of the image."""
TELL_AFTER = 15.0
"""Seconds without a word."""
CROPS_KEPT = 8
"""Embeddings kept: those of an image and its four quarters serve several sets of settings."""


@dataclass(frozen=True)
class MaskSet:
    """What is asked of the mask generator; its own defaults but for those that a method names."""

    points: int = 32
    """on a side of the image"""
    quality: float = 0.88
    """least predicted quality"""
    stability: float = 0.95
    area: int = 0
    """parts and holes smaller than this are removed, in pixels"""
    crops: int = 0
    """layers of crops that are seen besides"""
    shrink: int = 1
    """by what the points on a side are divided for each layer of crops"""
    order: Order = "generator"


class Kept(Generic[Value]):
    """The last results by what they were made of."""

    def __init__(self, most: int) -> None:
        self._most = most
        self._values: OrderedDict[bytes, Value] = OrderedDict()

    def get(self, key: bytes, make: Callable[[], Value]) -> Value:
        """The value of a key, made if it is not among the last ones."""
        if key not in self._values:
            self._values[key] = make()
        self._values.move_to_end(key)
        while len(self._values) > self._most:
            self._values.popitem(last=False)
        return self._values[key]


def digest(image: NDArray[np.uint8]) -> bytes:
    """What tells images (H, W, 3) apart."""
    return hashlib.blake2b(np.ascontiguousarray(image).tobytes(), person=str(image.shape[:2]).encode()[:16]).digest()


class Masks:
    """The masks of images under several sets of settings; the encoder sees each crop once."""

    def __init__(self, sam: Sam) -> None:
        self._predictor = _Predictor(sam)

    def find(self, image: NDArray[np.uint8], wanted: MaskSet) -> Iterator[NDArray[np.bool_]]:
        """Masks (H, W) of an image (H, W, 3), one by one, in painting order: later ones lie over earlier ones."""
        generator = _Generator(
            self._predictor.model,
            points_per_side=wanted.points,
            points_per_batch=POINTS_AT_ONCE,
            pred_iou_thresh=wanted.quality,
            stability_score_thresh=wanted.stability,
            crop_n_layers=wanted.crops,
            crop_n_points_downscale_factor=wanted.shrink,
            min_mask_region_area=wanted.area,
            output_mode="uncompressed_rle",
        )
        self._predictor.least = wanted.quality
        generator.predictor = self._predictor
        for record in _ordered(generator.generate(image), wanted.order):
            yield rle_to_mask(record["segmentation"])


def _ordered(records: list[dict[str, Any]], order: Order) -> list[dict[str, Any]]:
    """As the generator ranks them (its suppression sorts stably), or the largest first; equal ones by place."""
    if order == "generator":
        return records
    return sorted(records, key=lambda r: (-r["area"], *r["bbox"], *r["point_coords"][0]))


def mask_bytes(shape: tuple[int, int]) -> float:
    """Bytes that finding masks takes in an image (height, width): three a point, at its size and at SAM's."""
    return 3 * POINTS_AT_ONCE * 4 * (shape[0] * shape[1] + 1024**2)


class _Runs(dict[str, Any]):
    """A mask as runs. Nothing changes them, so the generator's deep copies, number by number, are these themselves."""

    def __deepcopy__(self, memo: object) -> _Runs:
        return self


class _Generator(SamAutomaticMaskGenerator):  # type: ignore[misc]
    def generate(self, image: NDArray[np.uint8]) -> list[dict[str, Any]]:
        """As the package, telling now and then how far it is."""
        self._tried, self._told = 0, time.monotonic()
        self._points = sum(4**layer * len(grid) for layer, grid in enumerate(self.point_grids))
        found: list[dict[str, Any]] = super().generate(image)
        return found

    def _process_batch(self, points: Any, *more: Any) -> Any:
        found = super()._process_batch(points, *more)
        found["rles"] = [_Runs(rle) for rle in found["rles"]]
        self._tried += len(points)
        if time.monotonic() - self._told > TELL_AFTER:
            self._told = time.monotonic()
            TELL.get()(f"regions by Segment Anything: {self._tried} of {self._points} points of a block were tried")
        return found

    def _process_crop(self, image: Any, crop_box: Any, crop_layer_idx: Any, orig_size: Any) -> Any:
        """As the package, which forgets the shape of a list of boxes when a crop has no mask."""
        found = super()._process_crop(image, crop_box, crop_layer_idx, orig_size)
        found["crop_boxes"] = torch.tensor(crop_box).expand(len(found["rles"]), 4)
        return found


class _Predictor(SamPredictor):  # type: ignore[misc]
    """The package's predictor, with our encoder, which keeps what it has seen, and our decoder."""

    least = 0.0
    """Masks of no better predicted quality are left out by the generator, where it is positive: they stay empty."""

    def __init__(self, sam: Sam) -> None:
        super().__init__(sam.model)
        self._sam = sam
        self._kept: Kept[tuple[Tensor, tuple[int, int]]] = Kept(CROPS_KEPT)

    def set_image(self, image: NDArray[np.uint8], image_format: str = "RGB") -> None:
        """See an image unless it was seen lately."""
        self.reset_image()
        self.features, self.input_size = self._kept.get(digest(image), lambda: self._see(image))
        self.original_size, self.is_image_set = image.shape[:2], True

    def _see(self, image: NDArray[np.uint8]) -> tuple[Tensor, tuple[int, int]]:
        seen = self._sam.see(image)
        return seen.embedding, seen.size

    def predict_torch(self, points: Tensor, labels: Tensor, **more: Any) -> tuple[Tensor, Tensor, Tensor]:
        """Logits (B, 3, H, W) of three masks for each point, their qualities (B, 3) and the logits as decoded."""
        sparse, dense = self.model.prompt_encoder((points, labels), None, None)
        logits, quality = self._sam.decode(self.features, sparse, dense, slice(1, None))
        at_pixels = logits.new_zeros(*logits.shape[:2], *self.original_size)
        good = quality > self.least if self.least > 0 else torch.ones_like(quality, dtype=torch.bool)
        if good.any():
            found = self.model.postprocess_masks(logits[good][:, None], self.input_size, self.original_size)
            at_pixels[good] = found[:, 0]
        return at_pixels, quality, logits
