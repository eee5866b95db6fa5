"""Methods on a device that is not there (pretend.py): no tensor is on the wrong side, labels are those of the CPU."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import rasterio
import torch
from pretend import no_inference_mode, pretend_cuda

from geoovseg import METHODS, encode, segment
from geoovseg.demo.scenes import render
from geoovseg.models.load import load_clip
from geoovseg.ops.attention import neighbourhood
from geoovseg.scene.scene import DEMO_TAG

OWN: dict[str, dict[str, Any]] = {
    **{name: {"vfm": "demo"} for name in ("proxyclip", "coninfer", "direct-op", "direct-mv")},
    "corrclip": {"vfm": "demo", "regions": "felzenszwalb"},
    "resegclip": {"regions": "felzenszwalb"},
}
ABLE = [name for name, card in METHODS.items() if "sam" not in card.needs]
COMES_BACK = {"direct-op": 4, "direct-mv": 12, "corrclip": 12}
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
