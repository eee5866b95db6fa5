"""Bands in files of their own as one scene: the labels of the whole, whatever the resolutions and the order."""

from __future__ import annotations

import itertools
import json
import os
import shutil
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import rasterio
from affine import Affine
from conftest import TRANSFORM
from rasterio.enums import Resampling
from rasterio.windows import Window

from geoovseg.errors import GeoOVSegWarning, OutputError, SceneError, UsageError
from geoovseg.rasters.elsewhere import named_elsewhere
from geoovseg.scene.scene import DEMO_TAG, open_scene
from geoovseg.segmenter import segment
from geoovseg.tiles import as_stack
from geoovseg.tiles.join import vrt_of

Run = Callable[..., tuple[int, str, str]]
Split = Callable[..., list[str]]
GIVEN: dict[str, Any] = {"classes": "building,road,water", "model": "demo", "background": "none"}
OPTIONS = ("-c", "building,road,water", "--model", "demo", "--background", "none")
PRODUCT = "S2A_MSIL2A_20200101T100031_N0213_R122_T32TQM_20200101T120000.SAFE"
IMAGES = f"{PRODUCT}/GRANULE/L2A_T32TQM_A023649_20200101T100031/IMG_DATA"
RNG = np.random.default_rng(5)


def _write(path: Path, data: np.ndarray, transform: Affine = TRANSFORM, **more: Any) -> str:
    path.parent.mkdir(parents=True, exist_ok=True)
    tags, name = more.pop("tags", {}), more.pop("name", None)
    data = data[None] if data.ndim == 2 else data
    profile = {"driver": "GTiff", "dtype": data.dtype, "crs": "EPSG:32632", "transform": transform, **more}
    with rasterio.open(path, "w", count=len(data), height=data.shape[1], width=data.shape[2], **profile) as dst:
        dst.write(data)
        dst.update_tags(**tags)
        if name:
            dst.set_band_description(1, name)
    return str(path)


def _coarse(data: np.ndarray, factor: int) -> np.ndarray:
    height, width = (side // factor for side in data.shape)
    return data.reshape(height, factor, width, factor).mean((1, 3)).astype(data.dtype)


@pytest.fixture
def split(demo_scene: str, tmp_path: Path) -> Split:
    """Write the bands of the demo scene as files of these names."""

    def split(*names: str, bands: tuple[int, ...] = (1, 2, 3), **more: Any) -> list[str]:
        with rasterio.open(demo_scene) as src:
            more = {"tags": {DEMO_TAG: "1"}, "crs": src.crs, **more}
            return [
                _write(tmp_path / name, src.read(band), src.transform, **more)
                for name, band in zip(names, bands, strict=True)
            ]

    return split


def _labels(path: str | Path) -> np.ndarray:
    with rasterio.open(path) as src:
        return src.read(1)


@pytest.fixture
def whole(demo_scene: str, tmp_path: Path) -> np.ndarray:
    """Labels of the demo scene as one file."""
    return _labels(segment(demo_scene, output=tmp_path / "whole.tif", **GIVEN).labels)


def test_files_in_the_order_red_green_blue_give_the_labels_of_one_file(
    geoovseg: Run, split: Split, whole: np.ndarray, tmp_path: Path, demo_scene: str
) -> None:
    code, out, err = geoovseg("segment", *split("r.tif", "g.tif", "b.tif"), *OPTIONS, "--stack", "--json")
    assert code == 0, err
    made = json.loads(out)
    assert made["labels"] == str(tmp_path / "stack_labels.tif")
    assert made["stack"] == [str(tmp_path / f"{name}.tif") for name in "rgb"]
    np.testing.assert_array_equal(_labels(made["labels"]), whole)
    with rasterio.open(made["labels"]) as dst, rasterio.open(demo_scene) as src:
        assert (dst.crs, dst.transform, dst.shape) == (src.crs, src.transform, src.shape)
    assert not list(tmp_path.glob("*.vrt"))
    assert "geoovseg preview" not in err


@pytest.mark.parametrize(
    ("names", "bands"),
    [
        (("blue.tif", "green.tif", "red.tif"), (3, 2, 1)),
        (tuple(f"T32TQM_20200101T100031_{code}_10m.tif" for code in ("B02", "B03", "B04", "B08")), (3, 2, 1, 1)),
        (("LE07_x_B1.TIF", "LE07_x_B2.TIF", "LE07_x_B3.TIF"), (3, 2, 1)),
        (("LC08_x_SR_B2.TIF", "LC08_x_SR_B3.TIF", "LC08_x_SR_B4.TIF"), (3, 2, 1)),
    ],
    ids=["words", "sentinel", "landsat7", "landsat8"],
)  # fmt: skip
def test_files_in_any_order_are_told_by_their_names(
    geoovseg: Run, split: Split, whole: np.ndarray, tmp_path: Path, names: tuple[str, ...], bands: tuple[int, ...]
) -> None:
    code, _, err = geoovseg("segment", *split(*names, bands=bands), *OPTIONS, "--stack", "-o", tmp_path / "l.tif")
    assert code == 0, err
    np.testing.assert_array_equal(_labels(tmp_path / "l.tif"), whole)
    assert ("are seen as red, green, blue (" in err) == (names[0] != "blue.tif")


def test_the_folder_of_a_sentinel_2_product_is_one_scene_at_its_finest_resolution(
    geoovseg: Run, split: Split, whole: np.ndarray, tmp_path: Path
) -> None:
    names = [f"{IMAGES}/R10m/T32TQM_20200101T100031_{code}_10m.tif" for code in ("B02", "B03", "B04", "B08", "TCI")]
    for path in split(*names, bands=(3, 2, 1, 1, 1)):
        with rasterio.open(path) as src:
            coarse = _coarse(src.read(1), 2)
            _write(Path(path.replace("10m", "20m")), coarse, src.transform @ Affine.scale(2), crs=src.crs)
    code, out, err = geoovseg("segment", tmp_path / PRODUCT, *OPTIONS, "--stack")
    assert code == 0, err
    assert out.strip() == str(tmp_path / PRODUCT.replace(".SAFE", "_labels.tif"))
    np.testing.assert_array_equal(_labels(out.strip()), whole)
    code, _, err = geoovseg("segment", tmp_path / PRODUCT, *OPTIONS)
    assert code == 2
    assert "it is a Sentinel-2 product: add --stack" in err


def test_the_folder_of_a_landsat_product_is_one_scene_in_the_colours_asked_for(
    geoovseg: Run, split: Split, whole: np.ndarray, tmp_path: Path
) -> None:
    folder = "LC08_L2SP_192027_20200801_20200914_02_T1"
    ends = ("SR_B2", "SR_B3", "SR_B4", "SR_B5", "ST_B10", "QA_PIXEL")
    split(*(f"{folder}/{folder}_{end}.TIF" for end in ends), bands=(3, 2, 1, 1, 1, 1))
    code, out, err = geoovseg("segment", tmp_path / folder, *OPTIONS, "--stack")
    assert code == 0, err
    np.testing.assert_array_equal(_labels(out.strip()), whole)
    shutil.copy(out.strip(), tmp_path / folder / f"{folder}_SR_B3_labels.tif")  # what we wrote is no band
    shutil.copy(out.strip(), tmp_path / folder / "own_B3.tif")
    more = ("--bands", "nir,B3,blue", "-o", f"{tmp_path}/new/", "--json")
    code, out, err = geoovseg("segment", f"{tmp_path / folder}{os.sep}", *OPTIONS, "--stack", *more)
    assert code == 0, err
    assert json.loads(out)["labels"] == str(tmp_path / "new" / f"{folder}_labels.tif")
    assert json.loads(out)["bands"] == [4, 2, 1]  # B5 has the pixels of red here
    np.testing.assert_array_equal(_labels(json.loads(out)["labels"]), whole)


@pytest.mark.parametrize("factor", [2, 3, 6])
def test_coarser_bands_are_interpolated_on_the_grid_of_the_finest(tmp_path: Path, factor: int) -> None:
    data = RNG.integers(1, 3000, (3, 36, 48), dtype=np.uint16)
    red, blue = _write(tmp_path / "red.tif", data[0]), _write(tmp_path / "blue.tif", data[2])
    green = _write(tmp_path / "green.tif", _coarse(data[1], factor), TRANSFORM @ Affine.scale(factor))
    with open_scene(as_stack([green, red, blue], tmp_path / "s.vrt"), scale="0,3000") as scene:
        assert (scene.shape, scene.transform, scene.bands) == ((36, 48), TRANSFORM, (2, 1, 3))
        seen, valid = scene.read(Window(0, 0, 48, 36))
        for row, col in itertools.product((0, 9, 18, 25), (0, 12, 31)):
            np.testing.assert_array_equal(
                scene.read(Window(col, row, 12, 9))[0], seen[:, row : row + 9, col : col + 12], strict=True
            )
    with rasterio.open(green) as src:
        wanted = src.read(1, out_shape=(36, 48), resampling=Resampling.bilinear)
    assert valid.all()
    np.testing.assert_allclose(seen, np.stack([data[0], wanted, data[2]]) / 3000, atol=1e-6)


def test_what_bands_lack_and_mean_is_kept(tmp_path: Path) -> None:
    data = RNG.integers(1, 3000, (3, 16, 16), dtype=np.uint16)
    data[:, :, :4] = 0
    paths = [_write(tmp_path / f"{name}.tif", band, nodata=0) for name, band in zip("rgb", data, strict=True)]
    data[2][:, :4] = 65535
    _write(Path(paths[2]), data[2], nodata=65535)
    with rasterio.open(paths[0], "r+") as dst:
        dst.scales, dst.offsets = (0.5,), (10,)
    with open_scene(as_stack(paths, tmp_path / "s.vrt"), scale="0,1500") as scene:
        seen, valid = scene.read(Window(0, 0, 16, 16))
    np.testing.assert_array_equal(valid, np.arange(16) >= np.full((16, 1), 4))
    np.testing.assert_allclose(seen[0][valid], np.clip((data[0][valid] / 2 + 10) / 1500, 0, 1), atol=1e-6)


def test_bands_that_do_not_belong_together_are_refused(tmp_path: Path, split: Split) -> None:
    ones = np.ones((12, 12), np.uint8)
    one, two = (_write(tmp_path / f"{name}.tif", ones) for name in "ab")
    others = {
        r"one coordinate system, not .* in EPSG:32632 and .* in EPSG:32633": {"crs": "EPSG:32633"},
        r"same ground, and .* lacks 20 of its pixels": {"transform": TRANSFORM @ Affine.translation(20, 0)},
        r"run in other directions": {"transform": TRANSFORM @ Affine.rotation(10)},
    }
    for message, more in others.items():
        other = _write(tmp_path / "c.tif", ones, **more)
        with pytest.raises(UsageError, match=message):
            as_stack([one, two, other], tmp_path / "s.vrt")
    three = _write(tmp_path / "rgb.tif", np.stack([ones] * 3))
    with pytest.raises(UsageError, match=r"one band each, and .*rgb.tif has 3"):
        as_stack([one, two, three], tmp_path / "s.vrt")
    with pytest.raises(UsageError, match="files of three bands at least"):
        as_stack([one, two], tmp_path / "s.vrt")
    with pytest.raises(SceneError, match=r"has 4 bands and does not say which .* called a, b, d, e"):
        as_stack([one, two, *(_write(tmp_path / f"{name}.tif", ones) for name in "de")], tmp_path / "s.vrt")
    with pytest.raises(UsageError, match="no files that are named after bands"):
        as_stack([str(tmp_path / "e.tif"), str(_empty(tmp_path))], tmp_path / "s.vrt")
    assert not list(tmp_path.glob("*.vrt"))


def _empty(folder: Path) -> Path:
    (folder / "empty").mkdir()
    return folder / "empty"


def test_files_of_one_band_at_one_resolution_are_in_doubt(tmp_path: Path) -> None:
    for name in ("L1_B4", "L2_SR_B4", "L2_SR_B3", "L2_SR_B2"):
        _write(tmp_path / "mixed" / f"{name}.tif", np.ones((4, 4), np.uint8))
    with pytest.raises(UsageError, match="L1_B4.tif and .*L2_SR_B4.tif are both band 4"):
        as_stack([str(tmp_path / "mixed")], tmp_path / "s.vrt")


def test_numbers_in_doubt_are_seen_in_the_order_given_with_a_warning(tmp_path: Path) -> None:
    paths = [_write(tmp_path / f"B{n}.tif", np.full((8, 8), 40 * n, np.uint8)) for n in (2, 3, 4)]
    with pytest.warns(GeoOVSegWarning, match="called B2, B3, B4, are seen as red, green, blue; see --bands"):
        vrt = as_stack(paths, tmp_path / "s.vrt")
    with open_scene(vrt, bands=("B4", "B3", "B2")) as scene:
        assert scene.bands == (3, 2, 1)
    padded = [str(shutil.copy(path, path.replace("B", "B0"))) for path in paths]
    with pytest.warns(GeoOVSegWarning, match=r"B04, B03, B02 of .* are seen as red, green, blue \(Sentinel-2\)"):
        as_stack(padded, tmp_path / "t.vrt")
    names = ("LC08_L1TP_192027.SAFE", "x")
    inside = [str(tmp_path / names[0] / Path(path).name) for path in paths]
    Path(inside[0]).parent.mkdir()
    for path, other in zip(paths, inside, strict=True):
        shutil.copy(path, other)
    with pytest.warns(GeoOVSegWarning, match=r"B4, B3, B2 of .* are seen as red, green, blue \(Landsat 8/9\)"):
        as_stack(inside, tmp_path / "u.vrt")


def test_a_stack_of_the_same_files_is_the_same_file_and_has_relative_names(tmp_path: Path) -> None:
    paths = [_write(tmp_path / f"{name}.tif", np.full((8, 8), 40, np.uint8)) for name in ("red", "green", "blue")]
    vrt = Path(as_stack(paths, tmp_path / "s.vrt"))
    first = vrt.read_bytes(), vrt.stat().st_mtime_ns
    assert Path(as_stack(paths, vrt)).stat().st_mtime_ns == first[1]
    assert vrt.read_bytes() == first[0]
    moved = Path(shutil.move(tmp_path, tmp_path.with_name(f"{tmp_path.name}_moved")))
    with open_scene(moved / "s.vrt") as scene:
        assert scene.read(Window(0, 0, 8, 8))[0].any()


def test_relative_names_of_bands_lead_to_them(split: Split, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Looking for what a description names came to no end."""
    split("r.tif", "g.tif", "b.tif")
    monkeypatch.chdir(tmp_path.parent)
    names = [f"{tmp_path.name}/{name}.tif" for name in "rgb"]
    text = "".join(f"<SourceFilename>{name}</SourceFilename>" for name in names)
    assert not list(named_elsewhere(f"<VRTDataset>{text}</VRTDataset>"))
    with open_scene(as_stack(names, f"{tmp_path.name}/s.vrt")) as scene:
        assert scene.read(Window(0, 0, 8, 8))[0].any()


@pytest.mark.parametrize("kind", ["mosaic", "stack"])
def test_no_features_are_kept_of_a_passing_image(geoovseg: Run, split: Split, kind: str) -> None:
    code, _, err = geoovseg("segment", *split("r.tif", "g.tif", "b.tif"), *OPTIONS, f"--{kind}", "--features")
    assert code == 2
    assert f"a {kind} is made for one run; make one with gdalbuildvrt" in err


def test_bands_in_an_archive_are_one_scene(split: Split, tmp_path: Path, demo_scene: str) -> None:
    split("in/red.tif", "in/green.tif", "in/blue.tif")
    archive = shutil.make_archive(str(tmp_path / "bands"), "zip", tmp_path / "in")
    paths = [f"/vsizip/{archive}/{name}.tif" for name in ("blue", "red", "green")]
    with open_scene(as_stack(paths, tmp_path / "s.vrt")) as scene, open_scene(demo_scene) as other:
        window = Window(3, 5, 40, 30)
        np.testing.assert_array_equal(scene.read(window)[0], other.read(window)[0])


def test_shards_of_a_stack_share_one_scene_and_merge_removes_it(
    geoovseg: Run, split: Split, whole: np.ndarray, tmp_path: Path
) -> None:
    paths, target = split("red.tif", "green.tif", "blue.tif"), tmp_path / "l.tif"
    for shard in ("1/2", "2/2"):
        code, _, err = geoovseg("segment", *paths, *OPTIONS, "--stack", "--shard", shard, "-o", target)
        assert code == 0, err
        assert vrt_of(target, "stack").exists()
    code, _, err = geoovseg("merge", f"{target}.parts")
    assert code == 0, err
    assert not vrt_of(target, "stack").exists()
    np.testing.assert_array_equal(_labels(target), whole)


def test_a_dry_run_of_a_stack_names_what_it_would_write_and_leaves_nothing(
    geoovseg: Run, split: Split, tmp_path: Path
) -> None:
    paths = split("in/a_red.tif", "in/a_green.tif", "in/a_blue.tif")
    code, out, _ = geoovseg("segment", *paths, *OPTIONS, "--stack", "--dry-run", "--json", "-o", f"{tmp_path}/new/")
    found = json.loads(out)
    assert code == 0
    assert found["labels"] == str(tmp_path / "new" / "a_labels.tif")
    assert found["scene"] == f"{found['labels']}.stack.vrt"
    assert not (tmp_path / "new").exists()
    assert sorted(path.name for path in (tmp_path / "in").iterdir()) == ["a_blue.tif", "a_green.tif", "a_red.tif"]


def test_outputs_of_a_stack_never_replace_a_band(geoovseg: Run, split: Split, tmp_path: Path) -> None:
    paths = split("red.tif", "green.tif", "blue.tif")
    code, _, err = geoovseg("segment", *paths, *OPTIONS, "--stack", "-o", paths[1], "--overwrite")
    assert code == OutputError.exit_code
    assert "green.tif is read from, as part of the scene" in err
    code, _, err = geoovseg("segment", *paths, *OPTIONS, "--stack", "--mosaic")
    assert code == 2
    assert "--mosaic joins tiles and --stack joins bands" in err


@pytest.mark.parametrize("more", [(), ("--mosaic",)])
def test_bands_given_apart_are_questioned(geoovseg: Run, split: Split, tmp_path: Path, more: tuple[str, ...]) -> None:
    paths = split("B4.tif", "B3.tif", bands=(1, 2))
    code, _, err = geoovseg("segment", *paths, *OPTIONS, "--dry-run", "-o", tmp_path / "out", *more)
    assert code == 0
    assert "B4.tif, " in err
    assert "B3.tif have one band each and show the same ground" in err
    assert "if they are bands of one scene, add --stack" in err


def test_scenes_of_other_ground_or_of_several_bands_are_not_questioned(tmp_path: Path, demo_scene: str) -> None:
    from geoovseg.tiles.bands import bands_apart

    ones = np.ones((8, 8), np.uint8)
    one = _write(tmp_path / "a.tif", ones)
    other = _write(tmp_path / "b.tif", ones, TRANSFORM @ Affine.translation(8, 0))
    coarse = _write(tmp_path / "c.tif", ones[:4, :4], TRANSFORM @ Affine.scale(2))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert bands_apart([one, other, demo_scene, str(tmp_path / "missing.tif")]) == []
        assert bands_apart([demo_scene, demo_scene, demo_scene, one, one]) == []
        assert bands_apart([one, other, coarse]) == [one, coarse]
