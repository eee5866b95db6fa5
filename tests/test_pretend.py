"""Methods on a device that is not there (pretend.py): no tensor is on the wrong side, labels are those of the CPU."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import rasterio
import torch
from golden_cases import TINY_SAM, small_sam
from pretend import no_inference_mode, pretend_cuda
from test_jbu import random_state
from tiny_sam3 import small_sam3

from geoovseg import METHODS, encode, segment
from geoovseg.demo.scenes import render
from geoovseg.models import sam, upsamplers
from geoovseg.models.load import load_clip
from geoovseg.ops.attention import neighbourhood
from geoovseg.run import predictor
from geoovseg.scene.scene import DEMO_TAG

OWN: dict[str, dict[str, Any]] = {
    **{name: {"vfm": "demo"} for name in ("proxyclip", "coninfer", "direct-op", "direct-mv")},
    "corrclip": {"vfm": "demo", "regions": "felzenszwalb"},
    "resegclip": {"regions": "felzenszwalb"},
}
ABLE = [name for name, card in METHODS.items() if "clip" in card.needs and "sam" not in card.needs]
BY_SAM: dict[str, dict[str, Any]] = {
    "trident": {"vfm": "demo", "settings": {"sam_iou_thresh": -10.0}},
    "corrclip": {"vfm": "demo", "settings": {"points": 2, "iou": 0.0, "stability": 0.0}},
    "resegclip": {"settings": {"iou": 0.0, "stability": 0.0}},
}
ALIKE: dict[str, float] = {}
"""Share of labels that are the same in half precision, where that is less than of most methods."""
COMES_BACK = {
    "direct-op": 4, "direct-mv": 12, "corrclip": 12,
    "trident by sam": 12, "corrclip by sam": 40, "resegclip by sam": 400,  # most of it in the package's own generator
}  # fmt: skip
"""How often values may come back in a scene of one row of windows, where that is more often than LABELS."""
LABELS = 16
"""The same of a method that is blended: labels, and which classes can win in which squares."""


@pytest.fixture(autouse=True)
def _kept_apart() -> Iterator[None]:
    """What others loaded, or made, is of another mode."""
    for kept in (load_clip, neighbourhood):
        kept.cache_clear()
    with no_inference_mode():
        yield
    for kept in (load_clip, neighbourhood):
        kept.cache_clear()


@pytest.fixture
def scene(write_raster: Callable[..., str]) -> str:
    return write_raster(render(1003, 112, 168)[0], tags={DEMO_TAG: "1003"})


def _labels(scene: str, output: Path, **given: Any) -> np.ndarray:
    said = {"vocabulary": "demo", "model": "demo", "background": "none", "overwrite": True, **given}
    with rasterio.open(segment(scene, output=output, **said).labels) as src:
        return src.read(1)


@pytest.mark.parametrize("method", ABLE)
def test_a_method_is_on_its_device_and_gives_the_labels_of_the_cpu(scene: str, tmp_path: Path, method: str) -> None:
    given = {"method": method, **OWN.get(method, {})}
    here = _labels(scene, tmp_path / "a.tif", device="cpu", **given)
    load_clip.cache_clear()
    with pretend_cuda() as back:
        there = _labels(scene, tmp_path / "a.tif", device="cuda:0", precision="fp32", **given)
    np.testing.assert_array_equal(there, here)
    assert back.total() <= COMES_BACK.get(method, LABELS), back


@pytest.mark.parametrize("method", ["segearth-ov3", "proc-sam3"])
def test_a_method_on_sam3_is_on_its_device(scene: str, tmp_path: Path, method: str) -> None:
    small_sam3().save_pretrained(tmp_path / "sam3")
    given = {"method": method, "model": f"sam3@{tmp_path / 'sam3'}", "threshold": 0.5}
    here = _labels(scene, tmp_path / "a.tif", device="cpu", **given)
    load_clip.cache_clear()
    with pretend_cuda() as back:
        there = _labels(scene, tmp_path / "a.tif", device="cuda:0", precision="fp32", **given)
    np.testing.assert_array_equal(there, here)
    assert len(np.unique(here)) > 2
    ours = {place: n for place, n in back.items() if "models/sam3.py" not in place}  # transformers looks at masks
    assert sum(ours.values()) <= LABELS, back


@pytest.mark.trial
@pytest.mark.parametrize("precision", ["bf16", "fp16"])
@pytest.mark.parametrize("method", ABLE)
def test_half_precision_changes_few_labels(scene: str, tmp_path: Path, method: str, precision: str) -> None:
    given = {"method": method, **OWN.get(method, {})}
    here = _labels(scene, tmp_path / "a.tif", device="cpu", **given)
    load_clip.cache_clear()
    with pretend_cuda():
        there = _labels(scene, tmp_path / "a.tif", device="cuda:0", precision=precision, **given)
    assert (there == here).mean() >= ALIKE.get(method, 0.99)


@pytest.mark.trial
@pytest.mark.parametrize("method", BY_SAM)
def test_segment_anything_is_on_its_device(
    scene: str, tmp_path: Path, method: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A tiny random one, all of whose masks are taken."""
    torch.manual_seed(4)
    torch.save(small_sam(TINY_SAM).state_dict(), tmp_path / "sam.pth")
    monkeypatch.setattr(sam, "build_sam", lambda arch: small_sam(TINY_SAM).eval().requires_grad_(False))
    given = {"method": method, "sam": f"sam_vit_b@{tmp_path / 'sam.pth'}", **BY_SAM[method]}
    found = []
    for device in ("cpu", "cuda:0"):
        sam._load.cache_clear()
        load_clip.cache_clear()
        with pretend_cuda() if device != "cpu" else nullcontext() as back:
            found.append(_labels(scene, tmp_path / "a.tif", device=device, precision="fp32", **given))
    sam._load.cache_clear()
    np.testing.assert_array_equal(*found)
    assert back is not None
    assert back.total() <= COMES_BACK[f"{method} by sam"], back


@pytest.mark.trial
@pytest.mark.parametrize("arch", ["jbu_one", "jbu_stack"])
def test_learned_upsampling_is_on_its_device(
    scene: str, tmp_path: Path, arch: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    torch.save(random_state(arch, load_clip("demo", torch.device("cpu"), "fp32").vit.dim), tmp_path / "jbu.ckpt")
    monkeypatch.setattr(upsamplers, "check_fit", lambda *given: None)  # the demo's patch is no 16
    monkeypatch.setattr(predictor, "check_fit", lambda *given: None)
    found = []
    for device in ("cpu", "cuda:0"):
        upsamplers.load_upsampler.cache_clear()
        load_clip.cache_clear()
        with pretend_cuda() if device != "cpu" else nullcontext():
            given = {"upsample": f"{arch}@{tmp_path / 'jbu.ckpt'}", "device": device, "precision": "fp32"}
            found.append(_labels(scene, tmp_path / "a.tif", **given))
    upsamplers.load_upsampler.cache_clear()
    np.testing.assert_array_equal(*found)


def test_half_precision_features_and_confidence_are_on_their_device(scene: str, tmp_path: Path) -> None:
    """As a run on a GPU does it: bfloat16, kept, and asked with confidence and scores."""
    given = {"confidence": "beside", "scores": "beside"}
    here = _labels(scene, tmp_path / "a.tif", device="cpu", **given)
    load_clip.cache_clear()
    with pretend_cuda():
        kept = encode(scene, output=tmp_path / "x.zarr", model="demo", device="cuda:0")
        assert kept.precision == "bf16"
        there = _labels(kept.features, tmp_path / "a.tif", device="cuda:0", **given)
    assert (there == here).mean() > 0.995


def test_a_tensor_on_the_wrong_side_is_found() -> None:
    with pretend_cuda() as back:
        there, here = torch.ones(3, device="cuda:0"), torch.ones(3)
        with pytest.raises(RuntimeError, match="found cuda:0 and cpu"):
            there + here
        with pytest.raises(TypeError, match="can't convert"):
            np.asarray(there)
        assert (there * 2).sum().item() == 6
        assert back.total() == 1
