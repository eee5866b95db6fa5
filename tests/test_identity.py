"""What sees to its windows itself gives the same labels whatever the batch, the panels, the parts and the processes."""

from __future__ import annotations

import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import rasterio
import torch
from golden_cases import TINY_SAM, small_sam
from tiny_sam3 import small_sam3

from geoovseg.demo.scenes import render
from geoovseg.errors import InterruptedRunError
from geoovseg.features import pixels
from geoovseg.models import sam
from geoovseg.pipeline import SegmentResult, merge
from geoovseg.scene.scene import DEMO_TAG
from geoovseg.segmenter import segment
from geoovseg.windows import blend

SAM, SAM3 = "sam_vit_b@SAM", "sam3@SAM3"
LOOSE = {"iou": 0, "stability": 0}
OUTLINED = {"sam_iou_thresh": -10, "minimal_area": 9000}
GIVEN: dict[str, Any] = {"vocabulary": "demo", "model": "demo", "background": "none", "vfm": "demo"}
METHODS: dict[str, dict[str, Any]] = {
    "coninfer-group": {"method": "coninfer", "tile": 112, "block": 336},
    "coninfer-scene": {"method": "coninfer", "tile": 112, "block": 336, "settings": {"context": "scene", "sample": 12}},
    "direct-op": {"method": "direct-op", "tile": 112, "block": 336, "settings": {"attention_blocks": 2}},
    "corrclip": {"method": "corrclip", "tile": 112, "stride": 56, "block": 224, "regions": "felzenszwalb"},
    "resegclip": {"method": "resegclip", "block": 336, "regions": "felzenszwalb", "vfm": None},
    "resegclip-sam": {"method": "resegclip", "block": 336, "sam": SAM, "vfm": None, "settings": LOOSE},
    "resegclip-file": {"method": "resegclip", "block": 336, "regions": "FILE", "vfm": None},
    "trident": {"method": "trident", "block": 448, "sam": SAM, "settings": OUTLINED},
    "segearth-ov3": {"method": "segearth-ov3", "model": SAM3, "vfm": None, "threshold": 0.55},
    "direct-mv": {"method": "direct-mv", "tile": 112, "block": 336, "settings": {"attention_blocks": 2}},
}


@pytest.fixture(scope="module")
def drawn() -> np.ndarray:
    """Pixels (3, 540, 530), a corner of them without data."""
    found, _ = render(1000, 540, 530)
    found[:, :80, :60] = 0
    return found


@pytest.fixture(scope="module")
def scene(drawn: np.ndarray, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A scene of two rows of parts."""
    return _scene(drawn[..., :150], tmp_path_factory.mktemp("tall"))


@pytest.fixture(scope="module")
def wide_scene(drawn: np.ndarray, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A scene of two panels, if memory is short."""
    return _scene(drawn[:, :150], tmp_path_factory.mktemp("wide"))


def _scene(data: np.ndarray, folder: Path) -> Path:
    """Pixels as a drawn scene, with regions beside it, and with weights for Segment Anything."""
    path = folder / "scene.tif"
    height, width = data.shape[1:]
    profile = {"driver": "GTiff", "height": height, "width": width, "count": 3, "dtype": "uint8", "nodata": 0}
    place = rasterio.transform.from_origin(480_000, 5_460_000, 0.5, 0.5)
    with rasterio.open(path, "w", crs="EPSG:32632", transform=place, **profile) as dst:
        dst.write(data)
        dst.update_tags(**{DEMO_TAG: "1000"})
        profile = {**dst.profile, "count": 1, "dtype": "int32", "nodata": None}
    ids = np.add.outer(np.arange(height) // 50 * 100, np.arange(width) // 30 + 1)
    with rasterio.open(path.with_name("FILE"), "w", **profile) as dst:
        dst.write(ids.astype(np.int32), 1)
    torch.manual_seed(4)
    torch.save(small_sam(TINY_SAM).state_dict(), path.with_name("SAM"))
    return path


@pytest.fixture(scope="module", params=METHODS)
def whole(request: pytest.FixtureRequest, scene: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[str, Any]:
    """A method and what it gives undisturbed."""
    folder = tmp_path_factory.mktemp("whole")
    _run(scene, folder, request.param)
    return request.param, _read(folder)


@pytest.fixture(scope="module", autouse=True)
def _small() -> Iterator[None]:
    """A random Segment Anything of two blocks takes the place of vit_b, and rows leave the blend a few at a time.

    As of a wide scene, so that a part is finished before the next one is.
    """
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sam, "build_sam", lambda arch: small_sam(TINY_SAM).eval().requires_grad_(False))
        patch.setattr(blend, "AT_ONCE", 1 << 15)
        patch.setattr(pixels, "AT_ONCE", 1 << 15)
        sam._load.cache_clear()
        yield
        sam._load.cache_clear()


def _run(scene: Path, folder: Path, name: str, **changes: Any) -> SegmentResult:
    outputs = {"output": folder / "labels.tif", "confidence": str(folder / "sure.tif")}
    places = {SAM: f"sam_vit_b@{scene.with_name('SAM')}", SAM3: f"sam3@{scene.with_name('SAM3')}"}
    places["FILE"] = str(scene.with_name("FILE"))
    if METHODS[name].get("model") == SAM3 and not scene.with_name("SAM3").exists():
        small_sam3().save_pretrained(scene.with_name("SAM3"))
    given = {k: places.get(v, v) if isinstance(v, str) else v for k, v in METHODS[name].items()}
    return segment(scene, **{**GIVEN, **given, **outputs, **changes})


def _read(folder: Path) -> list[np.ndarray]:
    found = []
    for name in ("labels.tif", "sure.tif"):
        with rasterio.open(folder / name) as src:
            found.append(src.read(1))
    return found


def _same(folder: Path, expected: list[np.ndarray]) -> None:
    for found, want in zip(_read(folder), expected, strict=True):
        np.testing.assert_array_equal(found, want)


@pytest.mark.parametrize("name", METHODS)
def test_batch_size_and_panels_do_not_change_labels(wide_scene: Path, tmp_path: Path, name: str) -> None:
    (tmp_path / "whole").mkdir()
    assert _run(wide_scene, tmp_path / "whole", name).panels == 1
    with pytest.warns(UserWarning, match="cannot be blended in"):
        result = _run(wide_scene, tmp_path, name, batch_size=1, max_memory=1)
    assert result.panels == 2
    for found, want in zip(_read(tmp_path), _read(tmp_path / "whole"), strict=True):
        np.testing.assert_array_equal(found, want)


def test_stopping_and_resuming_does_not_change_labels(scene: Path, tmp_path: Path, whole: tuple[str, Any]) -> None:
    name, expected = whole

    def stop() -> int | None:
        return signal.SIGTERM if list((tmp_path / "labels.tif.parts").glob("part_*.json")) else None

    with pytest.raises(InterruptedRunError, match="1 of 2 parts"):
        _run(scene, tmp_path, name, stop=stop)
    assert _run(scene, tmp_path, name, resume=True).parts_kept == 1
    _same(tmp_path, expected)


def test_shards_do_not_change_labels(scene: Path, tmp_path: Path, whole: tuple[str, Any]) -> None:
    name, expected = whole
    for number in (2, 1):
        parts = _run(scene, tmp_path, name, shard=(number, 2)).parts_dir
    merge(str(parts))
    _same(tmp_path, expected)


def test_the_area_of_interest_does_not_change_labels_inside(
    scene: Path, tmp_path: Path, whole: tuple[str, Any]
) -> None:
    name, expected = whole
    _run(scene, tmp_path, name, aoi="480010,5459750,480100,5459800")
    for found, want in zip(_read(tmp_path), expected, strict=True):
        inside = found[400:500, 20:200]
        np.testing.assert_array_equal(inside, want[400:500, 20:200])
        assert (found[:390] == 255).all()


def test_a_signal_while_the_scene_is_looked_at_ends_the_run(scene: Path, tmp_path: Path) -> None:
    with pytest.raises(InterruptedRunError, match="stopped before the first part; nothing is lost"):
        _run(scene, tmp_path, "coninfer-scene", stop=lambda: signal.SIGTERM)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.trial
@pytest.mark.parametrize("whole", ["coninfer-scene"], indirect=True)
def test_workers_do_not_change_labels(scene: Path, tmp_path: Path, whole: tuple[str, Any]) -> None:
    name, expected = whole
    outputs = {"output": tmp_path / "labels.tif", "confidence": str(tmp_path / "sure.tif")}
    segment(scene, workers=2, **{**GIVEN, **METHODS[name], **outputs})
    _same(tmp_path, expected)
