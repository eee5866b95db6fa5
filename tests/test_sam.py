"""Segment Anything: the walk equals the package's own forward; masks are the generator's, and always the same."""

from __future__ import annotations

import pickle
from collections.abc import Iterator
from copy import deepcopy
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from golden_cases import TINY_SAM, small_sam
from segment_anything import SamAutomaticMaskGenerator, SamPredictor
from skimage import measure
from windows import Largest

from geoovseg.errors import GeoOVSegError, WeightsMissingError
from geoovseg.models import masks as masks_module
from geoovseg.models import sam as sam_module
from geoovseg.models.masks import Kept, Masks, MaskSet
from geoovseg.models.sam import Sam, Seen, load_sam
from geoovseg.ops.affinity import affinity_rows
from geoovseg.usage import told

IMAGE = np.random.default_rng(3).integers(0, 256, (90, 120, 3), dtype=np.uint8)
LOOSE = MaskSet(points=3, quality=-10, stability=0, crops=1, shrink=2)


@pytest.fixture(scope="module")
def sam() -> Sam:
    torch.manual_seed(2)
    model = small_sam(TINY_SAM).eval().requires_grad_(False)
    for block in model.image_encoder.blocks:
        torch.nn.init.normal_(block.attn.rel_pos_h, std=0.5)
        torch.nn.init.normal_(block.attn.rel_pos_w, std=0.5)
    return Sam(model)


def test_the_embedding_is_the_packages_own(sam: Sam) -> None:
    predictor = SamPredictor(sam.model)
    predictor.set_image(IMAGE)
    seen = sam.see(IMAGE)
    torch.testing.assert_close(seen.embedding, predictor.get_image_embedding(), rtol=1e-4, atol=1e-5)
    assert (seen.size, seen.original) == (predictor.input_size, predictor.original_size)
    assert seen.grid == (96 // 16, 128 // 16)


def test_attention_made_in_rows_is_the_packages_attention(sam: Sam) -> None:
    seen, attn = sam.see(IMAGE), sam.encoder.blocks[-1].attn
    whole = torch.softmax(_logits(seen, attn), -1)
    height, width = seen.grid
    inside = whole.unflatten(1, (8, 8))[:, :height, :width].unflatten(3, (8, 8))[..., :height, :width]
    rows = torch.cat(list(sam.attention(seen)), dim=1)
    torch.testing.assert_close(rows, inside.flatten(3).flatten(1, 2), rtol=1e-4, atol=1e-6)
    assert (rows.sum(-1) < 1).all(), "a part of the attention is on the padding"


def _logits(seen: Seen, attn: Any) -> torch.Tensor:
    """The formula written out, one pair of patches at a time."""
    count = seen.q.shape[1]
    logits = (seen.q * attn.scale) @ seen.k.mT
    for i in range(count):
        for j in range(count):
            up, side = i // 8 - j // 8 + 7, i % 8 - j % 8 + 7
            logits[:, i, j] += (seen.q[:, i] * (attn.rel_pos_h[up] + attn.rel_pos_w[side])).sum(-1)
    return logits


def test_no_tensor_has_all_pairs_of_patches() -> None:
    """In a frame of 64 x 64 patches: neither in the encoder nor in the affinity."""
    config = {**TINY_SAM, "image_encoder": {**TINY_SAM["image_encoder"], "img_size": 1024}}
    frame = Sam(small_sam(config).eval().requires_grad_(False))
    pairs = 4096 * 4096
    with Largest() as mode:
        seen = frame.see(np.zeros((1024, 1024, 3), np.uint8))
        for rows in affinity_rows(frame.attention(seen), frame.values(seen), 1.2, keep_negative=True):
            assert rows.shape[1] == 4096
    assert mode.largest < pairs / 4


@pytest.mark.parametrize("masks", [slice(1), slice(1, None)], ids=["one", "three"])
def test_the_decoder_is_the_packages_own(sam: Sam, masks: slice) -> None:
    """For points and boxes under a mask prompt, with positions, weights and biases that all matter."""
    sam, draw = Sam(deepcopy(sam.model)), torch.Generator().manual_seed(5)
    model, seen = sam.model, sam.see(IMAGE)
    for weight in model.mask_decoder.parameters():
        weight.add_(torch.randn(weight.shape, generator=draw) * 0.3)
    points, boxes = (torch.rand(5, n, 2, generator=draw) * 128 for n in (1, 2))
    sparse, dense = model.prompt_encoder(
        (points, torch.ones(5, 1)), boxes.flatten(1), torch.randn(1, 1, 32, 32, generator=draw)
    )
    expected = model.mask_decoder.predict_masks(seen.embedding, model.prompt_encoder.get_dense_pe(), sparse, dense)
    for found, value in zip(sam.decode(seen.embedding, sparse, dense, masks), expected, strict=True):
        torch.testing.assert_close(found, value[:, masks], rtol=1e-4, atol=1e-4)


def test_masks_of_the_quality_asked_for_are_the_predictors(sam: Sam) -> None:
    points, labels = torch.tensor([[[20.0, 30.0]], [[90.0, 70.0]]]), torch.ones(2, 1)
    ours, theirs = masks_module._Predictor(sam), SamPredictor(sam.model)
    for predictor in (ours, theirs):
        predictor.set_image(IMAGE)
    expected, quality, _ = theirs.predict_torch(points, labels, return_logits=True)
    for least in (0.0, float(quality.flatten().sort().values[2:4].mean())):
        ours.least = least
        found, told, _ = ours.predict_torch(points, labels)
        good = quality > least if least else torch.ones(2, 3, dtype=torch.bool)
        assert good.sum() == (6 if not least else 3)
        torch.testing.assert_close(told, quality, rtol=1e-4, atol=1e-5)
        torch.testing.assert_close(found[good], expected[good], rtol=1e-4, atol=1e-4)
        assert (found[~good] == 0).all()


def _discs(self: SamPredictor, points: torch.Tensor, labels: torch.Tensor, **given: object) -> tuple[torch.Tensor, ...]:
    """Three discs around each point, in place of a decoder that random weights make blind to points; a hole in some."""
    height, width = self.original_size
    scale = self.input_size[1] / width
    y, x = torch.meshgrid(torch.arange(height), torch.arange(width), indexing="ij")
    centre = points[:, 0].float() / scale
    away = ((x - centre[:, 0, None, None]) ** 2 + (y - centre[:, 1, None, None]) ** 2).sqrt()
    logits = torch.stack([radius - away for radius in (6.0, 14.0, 25.0)], dim=1)
    logits[:, 1] = torch.where(away < 3, -5.0, logits[:, 1])
    quality = torch.stack([centre.sum(1) / 500 + n / 10 for n in range(3)], dim=1)
    return logits, quality, logits


@pytest.fixture
def _discs_for_masks(monkeypatch: pytest.MonkeyPatch) -> None:
    for predictor in (SamPredictor, masks_module._Predictor):
        monkeypatch.setattr(predictor, "predict_torch", _discs)


@pytest.mark.usefixtures("_discs_for_masks")
def test_masks_are_the_generators(sam: Sam) -> None:
    expected = SamAutomaticMaskGenerator(
        sam.model,
        points_per_side=3,
        points_per_batch=16,
        pred_iou_thresh=-10,
        stability_score_thresh=0,
        crop_n_layers=1,
        crop_n_points_downscale_factor=2,
    ).generate(IMAGE)
    found = list(Masks(sam).find(IMAGE, LOOSE))
    assert len(found) == len(expected) > 9
    for mask, record in zip(found, expected, strict=True):
        np.testing.assert_array_equal(mask, record["segmentation"])


@pytest.mark.usefixtures("_discs_for_masks")
def test_masks_by_area_come_largest_first(sam: Sam) -> None:
    found = list(Masks(sam).find(IMAGE, MaskSet(3, -10, 0, crops=1, shrink=2, order="area")))
    areas = [mask.sum() for mask in found]
    assert areas == sorted(areas, reverse=True)
    assert areas[0] > areas[-1]
    again = list(Masks(sam).find(IMAGE, MaskSet(3, -10, 0, crops=1, shrink=2, order="area")))
    assert all(np.array_equal(a, b) for a, b in zip(found, again, strict=True))


@pytest.mark.usefixtures("_discs_for_masks")
def test_small_holes_of_masks_are_filled(sam: Sam) -> None:
    rough = list(Masks(sam).find(IMAGE, MaskSet(2, -10, 0)))
    smooth = list(Masks(sam).find(IMAGE, MaskSet(2, -10, 0, area=50)))
    assert any(measure.euler_number(mask, connectivity=1) < 1 for mask in rough)
    assert all(measure.euler_number(mask, connectivity=1) == 1 for mask in smooth)


@pytest.mark.usefixtures("_discs_for_masks")
def test_how_far_it_is_is_told(sam: Sam, monkeypatch: pytest.MonkeyPatch) -> None:
    said: list[str] = []
    monkeypatch.setattr("geoovseg.models.masks.TELL_AFTER", -1.0)
    with told(said.append):
        list(Masks(sam).find(IMAGE, LOOSE))
    whole = 9 + 4 * 1  # points of the image, and of its quarters, which have half as many on a side
    assert said[-1] == f"regions by Segment Anything: {whole} of {whole} points of a block were tried"


def test_an_image_without_masks_has_none(sam: Sam) -> None:
    assert list(Masks(sam).find(IMAGE, MaskSet(2, 100.0, 1.0, area=10, crops=1, shrink=2))) == []


def test_each_crop_is_encoded_once_for_all_sets(sam: Sam, monkeypatch: pytest.MonkeyPatch) -> None:
    calls = []
    whole = Sam.encode
    monkeypatch.setattr(Sam, "encode", lambda self, frame: calls.append(1) or whole(self, frame))
    masks = Masks(sam)
    for points in (2, 3, 4):
        list(masks.find(IMAGE, MaskSet(points, -10, 0, crops=1, shrink=2)))
    assert len(calls) == 5  # the image and its four quarters


def test_what_was_used_longest_ago_is_forgotten() -> None:
    kept: Kept[int] = Kept(2)
    made: list[bytes] = []

    def get(key: bytes) -> int:
        return kept.get(key, lambda: made.append(key) or len(made))  # type: ignore[func-returns-value]

    assert [get(k) for k in (b"a", b"b", b"a", b"c", b"a", b"b")] == [1, 2, 1, 3, 1, 4]


@pytest.fixture
def _tiny_architecture(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setattr(sam_module, "build_sam", lambda arch: small_sam(TINY_SAM).eval().requires_grad_(False))
    sam_module._load.cache_clear()
    yield
    sam_module._load.cache_clear()


@pytest.mark.usefixtures("_tiny_architecture")
def test_the_largest_is_never_in_float16(tmp_path: Path, sam: Sam) -> None:
    torch.save(sam.model.state_dict(), tmp_path / "sam.pth")
    dtypes = {
        arch: next(load_sam(f"{arch}@{tmp_path}/sam.pth", torch.device("cpu"), "fp16").encoder.parameters()).dtype
        for arch in ("sam_vit_b", "sam_vit_h")
    }
    assert dtypes == {"sam_vit_b": torch.float16, "sam_vit_h": torch.float32}


@pytest.mark.usefixtures("_tiny_architecture")
@pytest.mark.parametrize("damage", ["truncated", "foreign", "text", "code"])
def test_damaged_and_foreign_files_are_refused(tmp_path: Path, sam: Sam, damage: str) -> None:
    path = tmp_path / "sam.pth"
    torch.save(sam.model.state_dict() if damage == "truncated" else {"weight": torch.zeros(3)}, path)
    whole = path.read_bytes()
    code = pickle.dumps(_Trap(tmp_path / "sprung"))
    path.write_bytes({"truncated": whole[: len(whole) // 2], "foreign": whole, "text": b"<html>", "code": code}[damage])
    with pytest.raises(GeoOVSegError, match=r"sam\.pth") as error:
        load_sam(f"sam_vit_b@{path}", torch.device("cpu"), "fp32")
    assert "SAM vit_b" in str(error.value)
    assert not (tmp_path / "sprung").exists()


class _Trap:
    """A pickle that makes a file when it is loaded."""

    def __init__(self, path: Path) -> None:
        self._path = path

    def __reduce__(self) -> tuple[object, ...]:
        return (Path.touch, (self._path,))


def test_missing_weights_say_how_to_get_them() -> None:
    with pytest.raises(WeightsMissingError, match="geoovseg models fetch sam_vit_b"):
        load_sam("sam_vit_b", torch.device("cpu"), "fp32")
