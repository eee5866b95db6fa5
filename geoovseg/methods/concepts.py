"""What methods on SAM 3 have in common: windows seen one by one, each word asked of each, its answer made a map."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import ClassVar, Literal

import torch
from rasterio.windows import Window
from torch import Tensor
from torch.nn import functional as F

from geoovseg.methods import Cost, Trial
from geoovseg.models.sam3 import Answers, Sam3Tower
from geoovseg.windows.batch import TileBatch

Size = tuple[int, int]
Fuse = Callable[[Answers, Size], Tensor]
"""What is said of Q words in a window, and its size, to how surely each pixel is one (Q, H, W) in 0..1."""
AT_ONCE = 8
"""Masks that are brought to pixels together."""
LEVELS = (4, 2, 1, 0.5)
"""Features on a side by those of the image encoder, of which a window has as many as patches."""


@dataclass(frozen=True, kw_only=True)
class ConceptMethod:
    """A method that makes a map of what SAM 3 answers of each word, whatever the others are."""

    sam3: Sam3Tower
    text: Tensor
    """words (Q, D), on the model's device"""
    fuse: Fuse
    speak: Callable[[Tensor], Tensor] = lambda maps: maps
    """maps (Q, H, W) of a window to what its words say in the end, where a class has more than its best one"""
    geometry_cls: bool
    words_together: int
    notes: tuple[str, ...] = ()

    unit: ClassVar[Literal["probability"]] = "probability"
    scale: ClassVar[float] = 1.0
    patch: ClassVar[int] = 1
    """windows are stretched, so that they may have any size"""
    at_once: ClassVar[int] = 1
    windows: ClassVar[None] = None
    at_pixels: ClassVar[bool] = True
    cell: ClassVar[int] = 0
    depth: ClassVar[int] = 0

    @property
    def tile(self) -> int:
        """The side of the square that the model sees: nothing is stretched."""
        return self.sam3.side

    @property
    def stride(self) -> int:
        """Three quarters of a tile (ours): the releases have no overlap, or one window."""
        return max(1, self.tile * 3 // 4)

    def cost(self, tile: Size) -> Cost:
        """Features and their places, what the mask decoder makes of them for each word at a time, and masks."""
        side, width = self.sam3.native_grid[0], self.sam3.dim
        features = 4 * width * sum(int(side * level) ** 2 for level in LEVELS)
        decoder = 4 * self.words_together * int(side * LEVELS[0]) ** 2 * 6 * width
        masks = 4 * tile[0] * tile[1] * 3 * AT_ONCE
        return Cost(2 * features + decoder + masks, 4 * tile[0] * tile[1], (Trial(tile, 1, 1, self.scores),))

    def prepare(self, read: Callable[[Window], TileBatch], shape: Size) -> dict[str, Tensor]:
        """Nothing: every window is seen on its own."""
        return {}

    def use(self, prepared: Mapping[str, Tensor]) -> None:
        """Nothing to take."""

    @torch.inference_mode()
    def scores(self, batch: TileBatch) -> Tensor:
        """How surely each pixel is each word (B, Q, H, W), in 0..1; they add to nothing in particular."""
        return torch.cat([self.speak(self.maps(one)[0])[None] for one in torch.from_numpy(batch.pixels).split(1)])

    def vectors(self, batch: TileBatch) -> Tensor:
        """None: these methods give scores."""
        raise NotImplementedError

    @torch.inference_mode()
    def maps(self, pixels: Tensor) -> Tensor:
        """Maps of the words (1, Q, H, W) of a window (1, 3, H, W), RGB in 0..1, each by itself."""
        seen, size = self.sam3.see(pixels), (pixels.shape[2], pixels.shape[3])
        said = (
            self.fuse(self.sam3.answer(seen, words, geometry_cls=self.geometry_cls), size)
            for words in self.text.split(self.words_together)
        )
        return torch.cat(list(said))[None]


def at_pixels(logits: Tensor, size: Size) -> Tensor:
    """Logits (n, h, w) as shares at pixels (n, H, W): stretched first, then through the sigmoid (section 3)."""
    return F.interpolate(logits[None].float(), size, mode="bilinear", align_corners=False)[0].sigmoid()


def instances(answers: Answers, sure: Tensor, threshold: float, size: Size) -> Tensor:
    """The best object at each pixel (Q, H, W): mask times how sure it is (Q, n), of those surer than the threshold.

    0 where there is none; no mask is cut at one half, none leaves out another.
    """
    best = torch.zeros(len(sure), *size, device=sure.device)
    for word, kept in enumerate(sure > threshold):
        objects = zip(answers.masks[word][kept].split(AT_ONCE), sure[word][kept].split(AT_ONCE), strict=True)
        for masks, shares in objects:
            if len(masks):  # nothing cannot be stretched (section 6e)
                here = (at_pixels(masks, size) * shares[:, None, None]).amax(0)
                best[word] = torch.maximum(best[word], here)
    return best
