"""The releases' protocol, piece by piece; the whole is compared with their numbers in test_golden_published.py."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import open_clip
import pytest
import torch
from torch.nn import functional as F

from geoovseg.errors import UsageError
from geoovseg.methods import METHODS, load_method
from geoovseg.methods.dense import DenseMethod
from geoovseg.methods.published import RELEASES, Protocol, pad_to_patch, predict, resize, run, slide
from geoovseg.methods.releases import segment_published
from geoovseg.models.vfm import ClipVfm
from geoovseg.models.vit import ClipVit
from geoovseg.vocabulary import parse_classes

WINDOWED = [name for name in RELEASES if not METHODS[name].blocks and "clip" in METHODS[name].towers]
"""Releases that see images one by one; ConInfer's has tests of its own."""


def _method(name: str, clip: open_clip.CLIP) -> DenseMethod:
    vit = ClipVit(clip.visual)
    text = F.normalize(torch.randn(4, 16, generator=torch.Generator().manual_seed(5)), dim=-1)
    found = load_method(name, vit, text, parse_classes(["a=x+y,b,c"]), vfm=ClipVfm("clip", vit))
    assert isinstance(found, DenseMethod)
    return found


OPENCV = {
    (3, 4): [[44, 207, 177, 115], [60, 222, 192, 130], [74, 87, 207, 145]],
    (9, 8): [
        [0, 90, 187, 140, 125, 142, 64, 154], [3, 93, 190, 143, 128, 146, 67, 157],
        [8, 98, 195, 148, 133, 151, 72, 162], [13, 103, 200, 153, 139, 156, 77, 167],
        [18, 108, 205, 158, 144, 161, 82, 172], [23, 113, 210, 163, 149, 166, 87, 177],
        [28, 118, 196, 156, 153, 171, 92, 182], [33, 123, 103, 99, 158, 176, 97, 187],
        [36, 126, 47, 64, 161, 178, 100, 190],
    ],
}  # fmt: skip
"""What cv2.resize (INTER_LINEAR, OpenCV 5.0.0) makes of the first band of the picture below."""


@pytest.mark.parametrize("size", OPENCV)
def test_resizing_equals_opencv(size: tuple[int, int]) -> None:
    image = (np.arange(5 * 7 * 3).reshape(5, 7, 3) * 37 % 256).astype(np.uint8)
    found = resize(image, Protocol(resize=size, keep_ratio=False))
    assert found[..., 0].tolist() == OPENCV[size]


SIZES = [
    ((600, 800), (448, 448), (336, 448)),
    ((333, 517), (2048, 336), (336, 522)),
    ((300, 4000), (2048, 336), (154, 2048)),
]


@pytest.mark.parametrize(("shape", "bounds", "expected"), SIZES)
def test_the_ratio_is_kept_within_both_bounds(
    shape: tuple[int, int], bounds: tuple[int, int], expected: tuple[int, int]
) -> None:
    assert resize(np.zeros((*shape, 3), np.uint8), Protocol(resize=bounds)).shape[:2] == expected


def test_padding_is_centred_with_the_odd_pixel_last() -> None:
    fill = torch.tensor([0.1, 0.2, 0.3]).view(1, 3, 1, 1)
    padded, (top, left) = pad_to_patch(torch.ones(1, 3, 13, 32), 16, fill)
    assert padded.shape == (1, 3, 16, 32)
    assert (top, left) == (1, 0)
    torch.testing.assert_close(padded[0, 1, :, 0], torch.tensor([0.2] + [1.0] * 13 + [0.2] * 2))


def test_windows_count_alike_and_the_last_is_shifted_back() -> None:
    image = torch.rand(1, 3, 20, 20)
    starts: list[float] = []

    def logits(window: torch.Tensor) -> torch.Tensor:
        starts.append(float(window[0, 0, 0, 0]))
        return torch.full((1, 1, *window.shape[-2:]), float(len(starts)))

    found = slide(image, logits, crop=8, stride=8, patch=8, fill=torch.zeros(1, 3, 1, 1))
    assert starts == [float(image[0, 0, row, col]) for row in (0, 8, 12) for col in (0, 8, 12)]
    assert found[0, 0, 14, 14] == pytest.approx((5 + 6 + 8 + 9) / 4)
    assert found[0, 0, 0, 0] == 1


def _predict(shares: list[list[float]], **changes: object) -> tuple[list[int], torch.Tensor]:
    """Labels of pixels whose words have these shares (words, pixels)."""
    logits = torch.tensor(shares).log()[None, :, None]
    labels, classes = predict(logits, [1, 2, 1], replace(Protocol(scale=1), **changes))  # type: ignore[arg-type]
    return labels.flatten().tolist(), classes[0, :, 0]


SHARES = [[0.5, 0.1, 0.2, 0.3], [0.3, 0.2, 0.1, 0.1], [0.1, 0.4, 0.3, 0.2], [0.1, 0.3, 0.4, 0.4]]


def test_the_best_word_of_the_softmax_over_words_speaks_for_its_class() -> None:
    labels, classes = _predict(SHARES)
    assert labels == [0, 1, 2, 2]
    torch.testing.assert_close(classes[1], torch.tensor([0.3, 0.4, 0.3, 0.2]))


def test_unsure_pixels_take_the_background() -> None:
    assert _predict(SHARES, threshold=0.45, background=2)[0] == [0, 2, 2, 2]


def test_small_classes_are_dropped_and_class_0_is_not_counted() -> None:
    """Class 1 has one of the three pixels that are not class 0."""
    assert _predict(SHARES, area=0.3)[0] == [0, 1, 2, 2]
    assert _predict(SHARES, area=0.34)[0] == [0, 2, 2, 2]


def test_a_class_of_exactly_the_share_is_dropped() -> None:
    """One of four pixels that are not class 0."""
    shares = [[0.1] * 4, [0.1] * 4, [0.5, 0.2, 0.2, 0.2], [0.3, 0.5, 0.5, 0.5]]
    assert _predict(shares)[0] == [1, 2, 2, 2]
    assert _predict(shares, area=0.25)[0] == [2, 2, 2, 2]


def test_shares_can_be_made_to_add_to_1() -> None:
    classes = _predict(SHARES, renormalise=True)[1]
    torch.testing.assert_close(classes.sum(0), torch.ones(4))


@pytest.mark.parametrize("name", WINDOWED)
def test_an_image_goes_through_whole(name: str, tiny_clip: open_clip.CLIP) -> None:
    method = _method(name, tiny_clip)
    image = np.random.default_rng(0).integers(0, 256, (50, 70, 3), dtype=np.uint8)
    protocol = replace(RELEASES[name], resize=(60, 60), crop=32, stride=16)
    labels, shares = segment_published(method, image, [2, 1, 1], protocol)
    assert labels.shape == (50, 70)
    assert shares.shape == (3, 50, 70)
    assert torch.equal(labels, shares.argmax(0))


@pytest.mark.parametrize("name", WINDOWED)
def test_an_image_seen_whole_is_not_padded_and_its_logits_are_resized_once(
    name: str, tiny_clip: open_clip.CLIP
) -> None:
    method = _method(name, tiny_clip)
    pixels = torch.rand(1, 3, 45, 50)
    protocol = replace(RELEASES[name], crop=0, pamr_steps=0)
    expected = F.interpolate(method.score(pixels), size=(90, 75), mode="bilinear", align_corners=False)
    assert torch.equal(run(pixels, protocol, method, size=(90, 75)), expected)


def test_a_method_of_which_no_release_is_known_is_refused() -> None:
    with pytest.raises(UsageError, match="how the release of object runs an image is not known here"):
        segment_published(object(), np.zeros((8, 8, 3), np.uint8), [1], Protocol())
