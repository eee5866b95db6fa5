"""Parts of the releases' whole-image protocols, which `releases` puts together; the tool's own pipeline uses none.

Differences on purpose: the image is resized to a few hundred pixels, windows count alike, softmax runs over all words
and then the best word speaks, so that a class fades as words are added. Images are RGB in 0..1, as methods take them.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional as F

from geoovseg.methods.dense import DenseMethod
from geoovseg.ops.pamr import pamr
from geoovseg.ops.upsample import bilinear
from geoovseg.windows.plan import origins

Logits = Callable[[Tensor], Tensor]
"""A window (B, 3, H, W) to query logits (B, Q, H, W) at its size."""


@dataclass(frozen=True, kw_only=True)
class Protocol:
    """How a release runs an image; thresholds and some scales are per data set there."""

    resize: tuple[int, int] | None = (448, 448)
    """bounds on the long and the short side; None leaves the image as it is"""
    keep_ratio: bool = True
    """false: squeezed to exactly (height, width) = resize"""
    crop: int = 224
    """side of the windows; 0 sees the image whole"""
    stride: int = 112
    multiple: int = 0
    """what sides of windows are padded to; 0 is the tower's patch"""
    pad: bool = True
    """windows that are no multiple of the patch are padded; false: the rest is ignored and the logits stretched"""
    scale: float = 50.0
    threshold: float = 0.0
    """least probability of the best class; below it a pixel is `background`"""
    background: int = 0
    area: float | None = None
    """classes with at most this share of the pixels that are not class 0 are dropped (SCLIP, area_thd)"""
    pamr_steps: int = 0
    renormalise: bool = False
    """class probabilities are divided by their sum, after the threshold (NACLIP, ResCLIP)"""


RELEASES = {
    "clearclip": Protocol(resize=(2048, 448), crop=448, stride=224),
    "sclip": Protocol(resize=(2048, 336), scale=40, pad=False),
    "naclip": Protocol(resize=(2048, 336), scale=40, pad=False, pamr_steps=10, renormalise=True),
    "resclip": Protocol(resize=(2048, 336), scale=40, pad=False, renormalise=True),
    "segearth": Protocol(),
    "proxyclip": Protocol(resize=(2048, 336), crop=336, scale=40, multiple=56),
    "coninfer": Protocol(resize=(448, 448), keep_ratio=False, crop=0, scale=5),
    "reattnclip": Protocol(),
    "trident": Protocol(resize=(2048, 448), crop=336, stride=224, scale=40),
    "corrclip": Protocol(resize=(2048, 336), crop=336, scale=40, multiple=56),
    "resegclip": Protocol(resize=None, crop=224, stride=50, scale=1),
    "direct-op": Protocol(resize=(2048, 336), crop=0, scale=1),
    "direct-mv": Protocol(resize=(2048, 336), crop=0, scale=1),
    "segearth-ov3": Protocol(resize=None, crop=0),
    "proc-sam3": Protocol(resize=None, crop=0),
}
"""What each release does unless a data set's configuration says otherwise."""


def run(image: Tensor, protocol: Protocol, method: DenseMethod, *, size: tuple[int, int]) -> Tensor:
    """Query logits (B, Q, *size) of an image (B, 3, H, W) already resized: windows, resizing, refinement by colour.

    Seen whole (crop 0), an image is not padded, and its logits go from the patch grid straight to `size`.
    """
    clip = method.clip
    if protocol.crop:
        mean = clip.mean if protocol.pad else None
        found = slide(
            image,
            window_logits(method),
            crop=protocol.crop,
            stride=protocol.stride,
            patch=protocol.multiple or clip.patch,
            fill=mean,
        )
    else:
        found = method.score(image)
    found = F.interpolate(found, size=size, mode="bilinear", align_corners=False)
    if protocol.pamr_steps:
        guide = F.interpolate(clip.normalise(image), size=size, mode="bilinear", align_corners=False)
        found = pamr(guide, found, steps=protocol.pamr_steps)
    return found


def window_logits(method: DenseMethod) -> Logits:
    """A method's scores brought to the pixels of its window, as every release does."""

    def logits(pixels: Tensor) -> Tensor:
        return bilinear(method.score(pixels), pixels)

    return logits


def resize(image: NDArray[np.uint8], protocol: Protocol) -> NDArray[np.uint8]:
    """An image (H, W, C) resized as mmseg does with OpenCV: bilinear on 8 bits, no antialiasing, equal bit for bit.

    OpenCV's fixed point: weights in 1/2048, rows shifted by 4 and products by 16 before the last rounding.
    """
    height, width = image.shape[:2]
    size = protocol.resize
    if size is None:
        return image
    if protocol.keep_ratio:
        long, short = max(size), min(size)
        s = min(long / max(height, width), short / min(height, width))
        size = (int(height * s + 0.5), int(width * s + 0.5))
    if size == (height, width):
        return image
    left, right, a, b = (v[:, None] for v in _taps(width, size[1], stay=True))
    above, below, c, d = (v[:, None, None] for v in _taps(height, size[0], stay=False))
    rows = (image[:, left[:, 0]] * a + image[:, right[:, 0]] * b) >> 4
    total = ((rows[above[:, 0, 0]] * c) >> 16) + ((rows[below[:, 0, 0]] * d) >> 16)
    return ((total + 2) >> 2).clip(0, 255).astype(np.uint8)


def _taps(length: int, size: int, *, stay: bool) -> tuple[NDArray[np.int64], ...]:
    """Two neighbours of each new pixel and their weights in 1/2048; `stay`: beyond the ends all is the end's.

    OpenCV does so along rows only; between rows both neighbours are then the end, with their weights.
    """
    place = ((np.arange(size) + 0.5) * (1 / (size / length)) - 0.5).astype(np.float32)
    first = np.floor(place).astype(np.int64)
    part = place - first.astype(np.float32)
    if stay:
        part[(first < 0) | (first >= length - 1)] = 0
    weights = (np.rint(w * np.float32(2048)).astype(np.int64) for w in (1 - part, part))
    return first.clip(0, length - 1), (first + 1).clip(0, length - 1), *weights


def pad_to_patch(image: Tensor, patch: int, fill: Tensor) -> tuple[Tensor, tuple[int, int]]:
    """Pad (B, 3, H, W) to multiples of the patch, centred, the odd pixel right and below; and (top, left).

    As SegEarth-OV and ClearCLIP; they pad the normalised image with 0, which is the mean colour `fill` (1, 3, 1, 1).
    """
    height, width = image.shape[-2:]
    dy, dx = -height % patch, -width % patch
    top, left = dy // 2, dx // 2
    padded = fill.expand(len(image), image.shape[1], height + dy, width + dx).clone()
    padded[..., top : top + height, left : left + width] = image
    return padded, (top, left)


def slide(image: Tensor, logits: Logits, *, crop: int, stride: int, patch: int, fill: Tensor | None) -> Tensor:
    """Logits (B, Q, H, W) of an image (B, 3, H, W): plain mean over windows, the last one shifted back inside.

    With `fill` (SegEarth-OV, ClearCLIP) a window that is no multiple of the patch is padded and its logits cut back;
    without (SCLIP, NACLIP, ResCLIP) its last rows and columns are not seen and the logits are stretched over it.
    """
    height, width = image.shape[-2:]
    total: Tensor | None = None
    count = torch.zeros(1, 1, height, width, device=image.device)
    for row in origins(height, crop, stride):
        for col in origins(width, crop, stride):
            box = (..., slice(row, row + crop), slice(col, col + crop))
            found = _window(image[box], logits, patch, fill)
            total = torch.zeros(*found.shape[:2], height, width, device=image.device) if total is None else total
            total[box] += found
            count[box] += 1
    assert total is not None  # there is always one window
    return total / count


def _window(window: Tensor, logits: Logits, patch: int, fill: Tensor | None) -> Tensor:
    if fill is None:
        return logits(window)
    padded, (top, left) = pad_to_patch(window, patch, fill)
    return logits(padded)[..., top : top + window.shape[-2], left : left + window.shape[-1]]


def predict(logits: Tensor, groups: Sequence[int], protocol: Protocol) -> tuple[Tensor, Tensor]:
    """Labels (B, H, W) and class probabilities (B, C, H, W) of query logits (B, Q, H, W), as the releases post-process.

    Softmax over all words, then the best word of each class (`groups` counts them, in order); small classes dropped;
    where the best class stays below the threshold the label is the background's.
    """
    shares = torch.softmax(logits * protocol.scale, dim=1)
    classes = torch.stack([g.amax(dim=1) for g in shares.split(list(groups), dim=1)], dim=1)
    if protocol.area is not None:
        classes = torch.stack([_drop_small(image, protocol.area) for image in classes])
    best, labels = classes.max(dim=1)
    labels = torch.where(best < protocol.threshold, protocol.background, labels)
    return labels, classes / classes.sum(1, keepdim=True) if protocol.renormalise else classes


def _drop_small(classes: Tensor, area: float) -> Tensor:
    """Class probabilities (C, H, W) with those of small classes 0; class 0 is neither counted nor dropped."""
    pixels = torch.bincount(classes.argmax(0).flatten(), minlength=len(classes))[1:]
    keep = torch.ones(len(classes), dtype=torch.bool, device=classes.device)
    keep[1:] = pixels > area * pixels.sum()
    return classes * keep[:, None, None]
