"""ResCLIP's feedback: what counts as the same thing, for any batch."""

from __future__ import annotations

import math

import open_clip
import pytest
import torch
from torch.nn import functional as F

from geoovseg.methods import load_method
from geoovseg.methods.feedback import feedback, patch_labels, surest_word
from geoovseg.methods.resclip import MIDDLE, middle_blocks
from geoovseg.models.vit import ClipVit
from geoovseg.vocabulary import parse_classes


def test_patches_take_their_commonest_word_the_first_of_equals() -> None:
    words = torch.tensor([[[2, 2, 0, 1], [1, 2, 1, 0], [3, 3, 1, 1], [1, 1, 3, 3]]])
    assert patch_labels(words, (2, 2), 2, 4).tolist() == [[2, 0, 1, 1]]
    wider = F.pad(words, (0, 1, 0, 1), value=3)
    assert patch_labels(wider, (2, 2), 2, 4).tolist() == [[2, 0, 1, 1]]


def test_unsure_pixels_take_the_first_word() -> None:
    shares = torch.tensor([0.1, 0.6, 0.3, 0.35, 0.3, 0.35]).view(2, 3).T.view(1, 3, 1, 2)
    assert surest_word(shares, 0.5).flatten().tolist() == [1, 0]


def _expected(labels: list[int], grid: tuple[int, int], sigma: float) -> torch.Tensor:
    """The formula pair by pair, with the release's samples of the way, in float32."""
    count, longest = len(labels), max(grid[0], grid[1]) - 1
    shares = torch.linspace(0, 1, longest + 1)
    same = torch.zeros(count, count)
    for i in range(count):
        for j in range(count):
            (a, b), (c, d) = divmod(i, grid[1]), divmod(j, grid[1])
            steps = max(abs(a - c), abs(b - d))
            ends = torch.tensor([[a, b], [c, d]], dtype=torch.float32)
            share = shares[: steps + 1, None]
            way = (ends[0] * (1 - share) + ends[1] * share).round().int().tolist()
            broken = any(labels[row * grid[1] + col] != labels[i] for row, col in way)
            same[i, j] = float(labels[i] == labels[j]) * (math.exp(-steps / longest) if broken else 1)
    size = min(count, int(6 * sigma + 1))
    half = (size + 1 - size % 2) // 2
    total = sum(math.exp(-(d**2) / (2 * sigma**2)) for d in range(-half, half + 1))
    smooth = torch.zeros_like(same)
    for j in range(count):
        for d in range(-half, half + 1):
            if 0 <= j + d < count:
                smooth[:, j] += same[:, j + d] * math.exp(-(d**2) / (2 * sigma**2)) / total
    return F.pad(smooth / (smooth.sum(1, keepdim=True) + 1e-8), (1, 0, 1, 0))


@pytest.mark.parametrize("grid", [(3, 5), (4, 4), (7, 2), (7, 7), (8, 13)])
@pytest.mark.parametrize("sigma", [0.5, 5.0])
def test_feedback_equals_its_formula(grid: tuple[int, int], sigma: float) -> None:
    labels = torch.randint(0, 2, (grid[0] * grid[1],), generator=torch.Generator().manual_seed(4))
    found = feedback(labels[None], grid, sigma, path_check=True)[0]
    torch.testing.assert_close(found, _expected(labels.tolist(), grid, sigma).float(), rtol=1e-5, atol=1e-6)


def test_feedback_of_a_single_patch_is_finite() -> None:
    assert feedback(torch.zeros(1, 1, dtype=torch.long), (1, 1), 5.0, path_check=True).isfinite().all()


def test_any_batch_is_the_images_one_by_one(tiny_clip: open_clip.CLIP) -> None:
    """The release handles one image at a time."""
    vit, pixels = ClipVit(tiny_clip.visual), torch.rand(3, 3, 40, 48)
    text = F.normalize(vit.readout(vit.trunk(pixels)[0])[0, [3, 9, 20]], dim=-1)
    method = load_method("resclip", vit, text, parse_classes(["a,b,c"]))
    together = method.features(pixels).patches
    for n in range(3):
        torch.testing.assert_close(method.features(pixels[n : n + 1]).patches[0], together[n], rtol=1e-4, atol=1e-5)


DEPTHS = [(24, MIDDLE), (12, MIDDLE), (10, MIDDLE), (6, (2, 3, 4, 4)), (2, (0, 0, 0, 0))]


@pytest.mark.parametrize(("depth", "blocks"), DEPTHS)
def test_the_middle_attention_is_a_mean_in_any_tower(depth: int, blocks: tuple[int, ...]) -> None:
    """Also where one block stands for several."""
    vision = {"image_size": 16, "layers": depth, "width": 16, "head_width": 8, "patch_size": 8}
    text = {"context_length": 8, "vocab_size": 16, "width": 8, "heads": 1, "layers": 1}
    vit = ClipVit(open_clip.CLIP(16, vision, text).eval().requires_grad_(False).visual)
    method = load_method("resclip", vit, torch.eye(2, 16), parse_classes(["a,b"]))
    middle = method.encoder._trunk(torch.rand(1, 3, 16, 16))[2]
    torch.testing.assert_close(middle.sum(-1), torch.ones(1, 2, 5))
    assert bool(method.notes) == (blocks != MIDDLE)


@pytest.mark.parametrize(("depth", "blocks"), DEPTHS)
def test_middle_blocks_are_absolute_where_the_tower_has_them(depth: int, blocks: tuple[int, ...]) -> None:
    assert middle_blocks(depth) == blocks
