"""How each method's release runs whole images, for comparing with published numbers; see `published` for the parts."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from rasterio.windows import Window
from torch import Tensor
from torch.nn import functional as F

from geoovseg.errors import UsageError
from geoovseg.methods.concepts import ConceptMethod
from geoovseg.methods.coninfer import ConInfer
from geoovseg.methods.corrclip import CorrClipBlocks
from geoovseg.methods.dense import DenseMethod
from geoovseg.methods.direct import Direct
from geoovseg.methods.published import Protocol, predict, resize, run, slide
from geoovseg.methods.refinement import Refined, refine
from geoovseg.methods.resegclip import ReSegClip
from geoovseg.methods.trident import Trident
from geoovseg.models.regions import Regions, region_maps
from geoovseg.ops.classes import best_word
from geoovseg.ops.regions import vote
from geoovseg.windows.batch import TileBatch

Image = NDArray[np.uint8]
"""(H, W, 3), red, green, blue"""
BEYOND = 10_000.0
"""Region of what lies beyond the image (CorrCLIP)."""


def as_they_are(labels: Tensor) -> Tensor:
    """Labels that nothing is made of."""
    return labels


@dataclass(frozen=True)
class Answer:
    """What a release makes of an image, before and after unsure pixels become background."""

    shares: Tensor
    """(C, H, W) of the classes"""
    settle: Callable[[Tensor], Tensor] = as_they_are
    """what is made of labels (H, W) after that: outlines by SAM, a vote of regions"""

    def labels(self, protocol: Protocol) -> Tensor:
        """Labels (H, W), classes of too low a share being the background."""
        best, found = self.shares.max(dim=0)
        return self.settle(torch.where(best < protocol.threshold, protocol.background, found))


def segment_published(method: Any, image: Image, groups: Sequence[int], protocol: Protocol) -> tuple[Tensor, Tensor]:
    """Labels (H, W) and class probabilities (C, H, W) of an image (H, W, 3), uint8 RGB, as a release would give them.

    `groups` counts the words of each class; label k is the k-th class, the background being one of them. Raises
    UsageError for a method whose release is not known.
    """
    (answer,) = answers(method, [image], groups, protocol)
    shares = answer.shares
    return answer.labels(protocol), shares / shares.sum(0, keepdim=True) if protocol.renormalise else shares


def answers(method: Any, images: Sequence[Image], groups: Sequence[int], protocol: Protocol) -> list[Answer]:
    """What a release makes of images that are given to it together: one context for ConInfer, else each alone.

    Raises UsageError for a method whose release is not known.
    """
    plain = replace(protocol, renormalise=False)
    if isinstance(method, ConInfer):
        return _coninfer(method, images, groups, plain)
    way = next((way for kind, way in WAYS.items() if isinstance(method, kind)), None)
    if way is None:
        raise UsageError(
            f"how the release of {type(method).__name__} runs an image is not known here; it is for "
            f"{', '.join(kind.__name__ for kind in WAYS)} and ConInfer"
        )
    return [way(method, image, groups, plain) for image in images]


def _dense(method: DenseMethod, image: Image, groups: Sequence[int], protocol: Protocol) -> Answer:
    """Windows of the resized image, brought to the size of the file."""
    pixels = _pixels(resize(image, protocol), method.clip.device)
    return Answer(_shares(run(pixels, protocol, method, size=_size(image)), groups, protocol))


def _coninfer(method: ConInfer, images: Sequence[Image], groups: Sequence[int], protocol: Protocol) -> list[Answer]:
    """Images of one context (50 there), all resized alike; the vision model's are resized with antialiasing."""
    device, size = method.clip.device, protocol.resize or _size(images[0])
    pixels = torch.cat([_pixels(resize(image, protocol), device) for image in images])
    looked_at = torch.cat([
        F.interpolate(_pixels(image, device), size, mode="bilinear", antialias=True, align_corners=False)
        for image in images
    ])  # fmt: skip
    found = method.together(pixels, looked_at).split(1)
    return [
        Answer(_shares(_at(posteriors, _size(image)), groups, protocol))
        for image, posteriors in zip(images, found, strict=True)
    ]


def _corrclip(method: CorrClipBlocks, image: Image, groups: Sequence[int], protocol: Protocol) -> Answer:
    """Regions of the whole file; windows of both; in the end most pixels of a region decide for it."""
    ids = _regions(method.regions, method.sets, _pixels(image, "cpu"))
    cosines = corrclip_cosines(method, resize(image, protocol), ids.to(method.clip.device), protocol)
    shares = _shares(cosines, groups, protocol)
    if not method.correct:
        return Answer(shares)
    return Answer(shares, lambda labels: majority(labels, ids[0, 0].to(labels.device)))


def corrclip_cosines(method: CorrClipBlocks, resized: Image, ids: Tensor, protocol: Protocol) -> Tensor:
    """Cosines (1, Q, H, W) at the size of region ids (1, 1, H, W), of a resized image (h, w, 3)."""
    pixels = _pixels(resized, method.clip.device)
    near = F.interpolate(ids.double(), size=pixels.shape[2:], mode="nearest").to(pixels.dtype)
    fill = torch.cat([method.clip.mean, torch.full_like(method.clip.mean[:, :1], BEYOND)], dim=1)

    def see(window: Tensor) -> Tensor:
        return method.see(window[:, :3], numbered_from_none(window[:, 3:]))

    found = slide(
        torch.cat([pixels, near], dim=1), see,
        crop=protocol.crop, stride=protocol.stride, patch=protocol.multiple or method.patch, fill=fill,
    )  # fmt: skip
    return _at(found, (ids.shape[2], ids.shape[3]))


def numbered_from_none(ids: Tensor) -> Tensor:
    """Region ids as CorrCLIP's release reads them: the smallest there is stands for no region, whatever it is."""
    return ids.long() - int(ids.min())


def majority(labels: Tensor, ids: Tensor) -> Tensor:
    """Labels (H, W) where each region of ids (H, W), but the smallest, has that of most of its pixels (CorrCLIP)."""
    one_hot = F.one_hot(labels, int(labels.max()) + 1).movedim(-1, 0).float()
    return vote(one_hot, numbered_from_none(ids)).argmax(0)


def _resegclip(method: ReSegClip, image: Image, groups: Sequence[int], protocol: Protocol) -> Answer:
    """Windows of the file that start at whole strides and are black beyond it, each with regions of its own.

    The mean over windows of the words' shares; the best word speaks for its class (infernce.py).
    """
    pixels, side = _pixels(resize(image, protocol), method.clip.device), protocol.crop
    total = count = None
    for row, col in [(r, c) for r in starts(pixels.shape[2], protocol) for c in starts(pixels.shape[3], protocol)]:
        cut = pixels[..., row : row + side, col : col + side]
        window = F.pad(cut, (0, side - cut.shape[3], 0, side - cut.shape[2]))
        ids = _regions(method.regions, method.sets, window).to(window.device)
        found = method.shares(window, ids)[..., : cut.shape[2], : cut.shape[3]].double()
        if total is None or count is None:
            total, count = (found.new_zeros(1, n, *pixels.shape[2:]) for n in (found.shape[1], 1))
        for sums, more in ((total, found), (count, 1)):
            sums[..., row : row + side, col : col + side] += more
    assert total is not None  # there is always one window
    assert count is not None
    return Answer(best_word(_at(total / count, _size(image)), groups)[0])


def starts(length: int, protocol: Protocol) -> range:
    """Where windows of ReSeg-CLIP's release start: whole strides, the last windows hanging over."""
    return range(0, max(1, length - protocol.crop + protocol.stride), protocol.stride)


def _trident(method: Trident, image: Image, groups: Sequence[int], protocol: Protocol) -> Answer:
    """SAM sees the file, or its halves, CLIP windows of the resized image; masks outline labels in the end."""
    if protocol.crop:
        method = with_windows(method, protocol.crop, protocol.stride)
    clip, frame = method.clip, trident_frame(image, method.clip.patch)
    seen = method.looks(frame)
    pixels = _pixels(resize(image, protocol), clip.device)
    cosines = method.cosines(seen, trident_canvas(pixels, clip.patch, method.blocks.window))
    shares = _shares(_at(cosines[None], _size(image)), groups, protocol)
    settings = method.refinement
    if settings is None:
        return Answer(shares)
    whole = seen[0] if len(seen) == 1 else method.sam.see(frame)
    return Answer(shares, lambda labels: refine(method.sam, whole, labels, shares, settings).labels)


def with_windows(method: Trident, window: int, stride: int) -> Trident:
    """The same with other windows of CLIP."""
    blocks = replace(method.blocks, window=window, stride=stride)
    return replace(method, blocks=blocks, splicer=replace(method.splicer, blocks=blocks))


def trident_frame(image: Image, patch: int) -> Image:
    """The image SAM is given by Trident's release: both sides rounded up to the patch of CLIP."""
    height, width = (-(-side // patch) * patch for side in image.shape[:2])
    return resize(image, Protocol(resize=(height, width), keep_ratio=False))


def trident_canvas(image: Tensor, patch: int, crop: int) -> Tensor:
    """The image (1, 3, H, W) CLIP is given by Trident's release: sides of whole patches, at least a window."""
    height, width = image.shape[2:]
    longer = max(height, width)
    size = (height, width)
    if height % patch or width % patch:
        factor = -(-longer // patch) * patch / longer
        size = (-(-int(height * factor) // patch) * patch, -(-int(width * factor) // patch) * patch)
    fitted = (max(crop, size[0]), max(crop, size[1]))
    if fitted == (height, width):
        return image
    return _at(image, fitted)


def refine_published(refined: Refined, shares: Tensor) -> Tensor:
    """Scores (C, H, W) as Trident's release returns them: in failed regions at least the shares they came from."""
    if not bool(refined.scores.any()):
        return shares
    return torch.where(refined.failed, torch.maximum(refined.scores, shares), refined.scores)


def _direct(method: Direct, image: Image, groups: Sequence[int], protocol: Protocol) -> Answer:
    """The image whole, as the paper says; its sides are made whole patches (ours, the code is not released)."""
    resized, patch = resize(image, protocol), method.patch
    height, width = (max(1, round(side / patch)) * patch for side in resized.shape[:2])
    resized = resize(resized, Protocol(resize=(height, width), keep_ratio=False))
    side = max(height, width)
    whole = replace(method, blocks=replace(method.blocks, side=side, step=side, window=side, stride=side))
    found = whole.scores(_batch(_pixels(resized, "cpu")))
    return Answer(best_word(_at(found, _size(image)), groups)[0])


def _concepts(method: ConceptMethod, image: Image, groups: Sequence[int], protocol: Protocol) -> Answer:
    """The image whole, or windows of it, each stretched to SAM 3's square: means of words' maps, then the best word."""
    pixels = _pixels(resize(image, protocol), method.sam3.device)
    crop = protocol.crop or max(pixels.shape[2:])
    found = slide(pixels, method.maps, crop=crop, stride=protocol.stride, patch=1, fill=None)
    return Answer(best_word(_at(method.speak(found[0])[None], _size(image)), groups)[0])


WAYS: Mapping[type, Callable[[Any, Image, Sequence[int], Protocol], Answer]] = {
    DenseMethod: _dense,
    Trident: _trident,
    CorrClipBlocks: _corrclip,
    ReSegClip: _resegclip,
    Direct: _direct,
    ConceptMethod: _concepts,
}
"""By kind of method."""


def _shares(logits: Tensor, groups: Sequence[int], protocol: Protocol) -> Tensor:
    """Class probabilities (C, H, W) of the words' logits (1, Q, H, W)."""
    return predict(logits, groups, protocol)[1][0]


def _pixels(image: Image, device: torch.device | str) -> Tensor:
    """An image (H, W, 3) as pixels (1, 3, H, W) in 0..1."""
    return torch.from_numpy(np.ascontiguousarray(image)).permute(2, 0, 1)[None].float().to(device) / 255


def _size(image: Image) -> tuple[int, int]:
    return (image.shape[0], image.shape[1])


def _at(values: Tensor, size: tuple[int, int]) -> Tensor:
    return F.interpolate(values, size=size, mode="bilinear", align_corners=False)


def _batch(pixels: Tensor) -> TileBatch:
    """Pixels (1, 3, H, W) as a tile all of which is valid."""
    height, width = pixels.shape[2:]
    valid = np.ones((1, height, width), bool)
    return TileBatch(windows=(Window(0, 0, width, height),), stored=pixels.cpu().numpy(), valid=valid)


def _regions(regions: Regions, sets: Sequence[Any], pixels: Tensor) -> Tensor:
    """Region ids (1, sets, H, W) of pixels (1, 3, H, W)."""
    return torch.from_numpy(region_maps(regions, _batch(pixels), sets))
