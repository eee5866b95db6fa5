"""Region maps: what they are made of, where they come from, and what is refused."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import rasterio
import rasterio.shutil
import rasterio.vrt
import torch
from conftest import TRANSFORM
from golden_cases import TINY_SAM, small_sam
from hypothesis import given, settings
from hypothesis import strategies as st
from rasterio.enums import ColorInterp
from rasterio.windows import Window
from scipy import ndimage
from windows import random_batch

from geoovseg.errors import ResumeError, SceneError, UsageError
from geoovseg.models import sam as sam_module
from geoovseg.models.masks import MaskSet
from geoovseg.models.regions import SamRegions, by_colour, region_maps
from geoovseg.models.regions import given as given_regions
from geoovseg.models.sam import Sam
from geoovseg.ops.regions import components, linked, painted, patch_ids, vote
from geoovseg.run.checks import check_settings
from geoovseg.scene.scene import DEMO_TAG, open_scene
from geoovseg.segmenter import segment
from geoovseg.settings import Settings
from geoovseg.windows.batch import TileBatch

DEMO: dict[str, Any] = {"model": "demo", "vfm": "demo"}


@given(st.integers(0, 2**32 - 1), st.floats(0.1, 0.9))
@settings(max_examples=30, deadline=None)
def test_components_are_scipys_in_order_of_their_first_pixel(seed: int, filled: float) -> None:
    mask = np.random.default_rng(seed).random((9, 11)) < filled
    found, count = components(torch.from_numpy(mask))
    expected, wanted = ndimage.label(mask, np.ones((3, 3)))
    firsts = [np.flatnonzero(found.numpy().ravel() == n)[0] for n in range(1, count + 1)]
    assert count == wanted
    assert firsts == sorted(firsts)
    assert len(set(zip(found.numpy()[mask], expected[mask], strict=True))) == count


def test_linked_patches_share_a_number() -> None:
    near = torch.tensor([[1, 1, 0, 0], [1, 1, 1, 0], [0, 1, 1, 0], [0, 0, 0, 1]]).bool()
    groups = linked(near).tolist()
    assert groups[0] == groups[1] == groups[2] != groups[3]


@given(st.integers(0, 2**32 - 1))
@settings(max_examples=30, deadline=None)
def test_a_patch_has_its_most_frequent_id_the_smallest_of_equals(seed: int) -> None:
    ids = np.random.default_rng(seed).integers(0, 4, (2, 8, 12)) * 1000
    found = patch_ids(torch.from_numpy(ids), 4)
    for n in range(2):
        for row in range(2):
            for col in range(3):
                patch = ids[n, 4 * row : 4 * row + 4, 4 * col : 4 * col + 4]
                names, counts = np.unique(patch, return_counts=True)
                assert found[n, row, col] == names[counts.argmax()]


@given(st.integers(0, 2**32 - 1))
@settings(max_examples=30, deadline=None)
def test_a_region_votes_for_the_mode_of_its_pixels(seed: int) -> None:
    rng = np.random.default_rng(seed)
    shares = torch.from_numpy(rng.dirichlet(np.ones(3), (8, 9)).astype(np.float32)).movedim(-1, 0)
    ids = torch.from_numpy(rng.integers(0, 4, (8, 9)))
    found, before = vote(shares, ids), shares.argmax(0)
    for region in ids.unique().tolist():
        if not region:
            continue
        inside = ids == region
        assert (found.argmax(0)[inside] == torch.bincount(before[inside]).argmax()).all()
    free = ids == 0
    assert torch.equal(found[:, free], shares[:, free])
    torch.testing.assert_close(found.sum(0), torch.ones(8, 9))


def test_later_masks_lie_over_earlier_ones() -> None:
    masks = [np.zeros((4, 4), bool) for _ in range(2)]
    masks[0][:3], masks[1][2:] = True, True
    assert painted(masks, (4, 4))[:, 0].tolist() == [1, 1, 2, 2]


def test_regions_by_colour_follow_edges() -> None:
    batch = random_batch(1, 40, 40)
    batch.pixels[:] = 0.1
    batch.pixels[..., 20:] = 0.9
    ids = by_colour(batch, [MaskSet(), MaskSet(area=500)])
    assert ids.shape == (1, 2, 40, 40)
    left, right = np.unique(ids[0, 0, :, :18]), np.unique(ids[0, 0, :, 22:])
    assert len(left) == len(right) == 1
    assert left[0] != right[0]


class _Halves:
    """In place of the generator: the upper and the left half, for every set."""

    calls = 0

    def find(self, image: np.ndarray, wanted: MaskSet) -> list[np.ndarray]:
        self.calls += 1
        upper, left = np.zeros(image.shape[:2], bool), np.zeros(image.shape[:2], bool)
        upper[: len(upper) // 2], left[:, : left.shape[1] // 2] = True, True
        return [upper, left]


def _sam_regions() -> tuple[SamRegions, _Halves]:
    found, halves = SamRegions(Sam(small_sam(TINY_SAM))), _Halves()
    found._masks = halves  # type: ignore[assignment]
    return found, halves


def test_regions_of_tiles_never_have_the_same_number() -> None:
    regions, _ = _sam_regions()
    ids = regions(random_batch(1, 32, 48), [MaskSet()], tile=16)[0, 0]
    tiles = [ids[row : row + 16, col : col + 16] for row in (0, 16) for col in (0, 16, 32)]
    numbers = [set(np.unique(tile)) - {0} for tile in tiles]
    assert all(len(n) == 2 for n in numbers)
    assert len(set.union(*numbers)) == 12
    assert (ids[8:16, 8:16] == 0).all()


def test_the_same_pixels_are_seen_once() -> None:
    regions, halves = _sam_regions()
    batch = random_batch(1, 32, 32)
    shifted = TileBatch(windows=batch.windows, stored=np.roll(batch.pixels, 16, axis=3), valid=batch.valid)
    regions(batch, [MaskSet()], tile=16)
    regions(shifted, [MaskSet()], tile=16)
    assert halves.calls == 4
    regions(batch, [MaskSet(points=4)], tile=16)
    assert halves.calls == 8


def test_tiles_without_data_are_not_seen() -> None:
    regions, halves = _sam_regions()
    batch = random_batch(1, 32, 32)
    batch.valid[:, :16] = False
    assert (regions(batch, [MaskSet()], tile=16)[0, 0, :16] == 0).all()
    assert halves.calls == 2


@pytest.fixture
def scene(write_raster: Callable[..., str]) -> str:
    return write_raster(np.random.default_rng(0).integers(1, 255, (3, 60, 70), dtype=np.uint8))


def _ids(scene: str, file: str, window: Window) -> np.ndarray:
    with open_scene(scene, regions=file) as src:
        found = src.batch([window]).regions
    assert found is not None
    return found[0]


@pytest.mark.parametrize("dtype", ["uint8", "int16", "uint32", "int64"])
def test_a_file_of_regions_is_read_beside_the_scene(write_raster: Callable[..., str], scene: str, dtype: str) -> None:
    ids = np.arange(60 * 70).reshape(1, 60, 70).astype(dtype)
    file = write_raster(ids, "regions.tif")
    np.testing.assert_array_equal(_ids(scene, file, Window(20, 10, 16, 32)), ids[0, 10:42, 20:36])
    beyond = _ids(scene, file, Window(60, 50, 16, 16))
    np.testing.assert_array_equal(beyond[:10, :10], ids[0, 50:, 60:])
    assert (beyond[10:] == 0).all()
    assert (beyond[:, 10:] == 0).all()


def test_pixels_without_a_region_are_those_without_data(write_raster: Callable[..., str], scene: str) -> None:
    ids = np.full((1, 60, 70), 7, np.uint16)
    ids[0, :5] = 65535
    file = write_raster(ids, "regions.tif", nodata=65535)
    assert _ids(scene, file, Window(0, 0, 16, 16))[:, 0].tolist() == [0] * 5 + [7] * 11


def test_regions_on_another_grid_are_brought_to_the_scenes(write_raster: Callable[..., str], scene: str) -> None:
    """Twice as fine, beginning 10 scene pixels further right and below, and in another coordinate system."""
    fine = TRANSFORM * TRANSFORM.translation(10, 10) * TRANSFORM.scale(0.5)
    ids = np.repeat(np.repeat(np.arange(1, 26).reshape(1, 5, 5), 8, 1), 8, 2).astype(np.uint8)
    file = write_raster(ids, "regions.tif", transform=fine)
    found = _ids(scene, file, Window(0, 0, 64, 48))
    assert (found[:10] == 0).all()
    assert (found[:, :10] == 0).all()
    np.testing.assert_array_equal(found[10:30, 10:30], np.repeat(np.repeat(np.arange(1, 26).reshape(5, 5), 4, 0), 4, 1))
    lonlat = Path(file).with_name("lonlat.tif")
    with rasterio.open(file) as src, rasterio.vrt.WarpedVRT(src, crs="EPSG:4326") as warped:
        rasterio.shutil.copy(warped, lonlat, driver="GTiff")
    assert (_ids(scene, str(lonlat), Window(0, 0, 64, 48))[12:28, 12:28] > 0).mean() > 0.95


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"dtype": "float32"}, "has float32 pixels; regions are whole numbers"),
        ({"fill": -3}, "region ids from -3 to -3"),
        ({"fill": 2**40}, "they run from 0, for no region, to 2147483647"),
        ({"shift": 10_000}, "lies nowhere on the scene"),
        ({"crs": None, "shift": 1}, "one of them has no coordinate system"),
    ],
)
def test_what_are_no_regions_of_the_scene_is_refused(
    write_raster: Callable[..., str], scene: str, change: dict[str, Any], message: str
) -> None:
    ids = np.full((1, 60, 70), change.get("fill", 1)).astype(change.get("dtype", "int64"))
    place = TRANSFORM * TRANSFORM.translation(change.get("shift", 0), 0)
    profile = {"crs": change["crs"]} if "crs" in change else {}
    file = write_raster(ids, "regions.tif", transform=place, **profile)
    with pytest.raises(UsageError if "fill" in change else SceneError, match=message):
        _ids(scene, file, Window(0, 0, 16, 16))


def test_regions_of_a_south_up_scene_lie_on_it(write_raster: Callable[..., str]) -> None:
    up = TRANSFORM * TRANSFORM.translation(0, 60) * TRANSFORM.scale(1, -1)
    scene = write_raster(np.full((3, 60, 70), 9, np.uint8), transform=up)
    ids = np.zeros((1, 60, 70), np.uint8)
    ids[0, :20] = 1
    found = _ids(scene, write_raster(ids, "regions.tif"), Window(0, 0, 70, 60))
    assert (found[40:] == 1).all()
    assert (found[:40] == 0).all()


def test_an_alpha_band_does_not_keep_regions_from_another_grid(write_raster: Callable[..., str], scene: str) -> None:
    ids = np.stack([np.full((30, 30), 5), np.full((30, 30), 255)]).astype(np.uint8)
    alpha = [ColorInterp.gray, ColorInterp.alpha]
    place = TRANSFORM * TRANSFORM.translation(10, 10)
    file = write_raster(ids, "regions.tif", transform=place, colorinterp=alpha)
    found = _ids(scene, file, Window(0, 0, 64, 48))
    assert (found[10:40, 10:40] == 5).all()
    assert found.sum() == 5 * 900


def test_offline_no_regions_are_read_over_the_network(scene: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GEOOVSEG_OFFLINE", "1")
    with pytest.raises(SceneError, match="forbid the network"), open_scene(scene, regions="http://127.0.0.1:9/r.tif"):
        pass


def test_the_files_of_a_vrt_of_regions_are_inputs(write_raster: Callable[..., str], scene: str) -> None:
    file = write_raster(np.ones((1, 60, 70), np.uint8), "ids.tif")
    with rasterio.open(file) as src:
        rasterio.shutil.copy(src, file.replace(".tif", ".vrt"), driver="VRT")
    with open_scene(scene, regions=file.replace(".tif", ".vrt")) as opened:
        assert {Path(f).name for f in opened.files} >= {"ids.vrt", "ids.tif"}


@pytest.mark.parametrize("source", [given_regions, by_colour, _Halves])
def test_pixels_without_data_belong_to_no_region(source: Any) -> None:
    batch = random_batch(1, 32, 32)
    batch.valid[:, :, 8:] = False
    batch = replace(batch, regions=np.full((1, 32, 32), 5, np.int32))
    regions = _sam_regions()[0] if source is _Halves else source
    ids = region_maps(regions, batch, [MaskSet()])
    assert (ids[..., 8:] == 0).all()
    assert (ids[..., :8] > 0).any()


def test_a_file_that_is_not_there_is_refused(scene: str) -> None:
    with pytest.raises(SceneError, match="cannot open the regions"), open_scene(scene, regions="nowhere.tif"):
        pass


@pytest.mark.parametrize(
    ("given_settings", "message"),
    [
        ({"method": "segearth", "regions": "felzenszwalb"}, "segearth has no use for --regions felzenszwalb; these do"),
        ({"method": "segearth", "sam": "sam_vit_b"}, "segearth uses no Segment Anything, so leave --sam aside"),
        (
            {**DEMO, "method": "corrclip", "sam": "sam_vit_b", "regions": "felzenszwalb"},
            "takes its regions from felzenszwalb, so leave --sam aside",
        ),
        (
            {**DEMO, "method": "corrclip", "regions": "felzenszwalb", "settings": {"points": "8"}},
            "--set points=8 is for regions by Segment Anything, and these come from felzenszwalb",
        ),
        (
            {**DEMO, "method": "corrclip", "regions": "felzenszwalb", "upsample": "guided"},
            "has scores at pixels already, so leave --upsample guided aside",
        ),
    ],
)
def test_settings_that_nothing_uses_are_refused(given_settings: dict[str, Any], message: str) -> None:
    with pytest.raises(UsageError, match=message):
        check_settings(Settings(**given_settings))


@pytest.fixture
def sam_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """Weights of a tiny Segment Anything that passes for a large one."""
    torch.manual_seed(3)
    torch.save(small_sam(TINY_SAM).state_dict(), tmp_path / "sam.pth")
    monkeypatch.setattr(sam_module, "build_sam", lambda arch: small_sam(TINY_SAM).eval().requires_grad_(False))
    sam_module._load.cache_clear()
    yield f"sam_vit_b@{tmp_path}/sam.pth"
    sam_module._load.cache_clear()


RUNS = {
    "trident": ["-m", "trident", "--vfm", "demo", "--set", "sam_iou_thresh=-10", "--sam", "SAM"],
    "corrclip": ["-m", "corrclip", "--vfm", "demo", "--set", "points=2", "--sam", "SAM"],
    "corrclip-file": ["-m", "corrclip", "--vfm", "demo", "--regions", "FILE"],
    "resegclip": ["-m", "resegclip", "--set", "iou=0", "--set", "stability=0", "--sam", "SAM"],
    "resegclip-exact": ["-m", "resegclip", "--set", "exact=true", "--set", "output=code", "--sam", "SAM"],
    "resegclip-file": ["-m", "resegclip", "--regions", "FILE"],
}


@pytest.mark.parametrize("name", RUNS)
def test_a_scene_is_segmented_with_regions_from_anywhere(
    name: str,
    geoovseg: Callable[..., Any],
    write_raster: Callable[..., str],
    drawn: tuple[np.ndarray, np.ndarray],
    sam_file: str,
    tmp_path: Path,
) -> None:
    demo_scene = write_raster(drawn[0][:, :140, :150], tags={DEMO_TAG: "1000"})
    with rasterio.open(demo_scene) as src:
        profile = {**src.profile, "count": 1, "dtype": "int32", "nodata": None}
        ids = np.add.outer(np.arange(src.height) // 40 * 100, np.arange(src.width) // 40)
    with rasterio.open(tmp_path / "regions.tif", "w", **profile) as dst:
        dst.write(ids.astype(np.int32), 1)
    swap = {"SAM": sam_file, "FILE": str(tmp_path / "regions.tif")}
    common = ["--model", "demo", "--vocabulary", "demo", "--background", "none", "-o", tmp_path / "labels.tif"]
    code, out, err = geoovseg("segment", demo_scene, *common, *(swap.get(a, a) for a in RUNS[name]))
    assert code == 0, err
    with rasterio.open(out.strip()) as labels:
        found, record = labels.read(1), labels.tags()["GEOOVSEG_RUN"]
    assert len(np.unique(found)) > 1
    assert found.max() < 255
    assert '"regions": "regions.tif"' in record if "FILE" in RUNS[name] else f'"sam": "{sam_file}"' in record
    plan = ["--overwrite", "--dry-run", "--json"]
    code, out, err = geoovseg("segment", demo_scene, *common, *plan, *(swap.get(a, a) for a in RUNS[name]))
    assert code == 0, err
    assert json.loads(out)["estimated_seconds"] >= 0


def test_parts_made_with_other_regions_are_not_joined(demo_scene: str, write_raster: Callable[..., str]) -> None:
    common: dict[str, Any] = {"classes": "road,water", "model": "demo", "method": "resegclip"}
    file = write_raster(np.ones((1, 280, 230), np.uint8), "regions.tif")
    parts = segment(demo_scene, **common, regions=file, shard=(1, 2)).parts_dir
    write_raster(np.random.default_rng(0).integers(0, 9, (1, 280, 230), np.uint8), "regions.tif")
    with pytest.raises(ResumeError, match="regions.tif was"):
        segment(demo_scene, **common, regions=file, shard=(2, 2))
    assert parts is not None


def test_a_file_of_regions_is_never_written_over(
    geoovseg: Callable[..., Any], demo_scene: str, write_raster: Callable[..., str]
) -> None:
    file = write_raster(np.ones((1, 280, 230), np.uint8), "regions.tif")
    common = ["--model", "demo", "-c", "road", "-m", "resegclip", "--regions", file, "-o", file, "--overwrite"]
    code, _, err = geoovseg("segment", demo_scene, *common)
    assert code != 0
    assert "regions.tif" in err
    with rasterio.open(file) as src:
        assert (src.read(1) == 1).all()
