"""Tiles as one scene: the pixels of the whole, no data where none is, nothing that does not fit, labels cut back."""

from __future__ import annotations

import json
import os
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import rasterio
from affine import Affine
from conftest import TRANSFORM
from rasterio.enums import ColorInterp
from rasterio.windows import Window

from geoovseg.errors import OutputError, SceneError, UsageError
from geoovseg.scene.scene import DEMO_TAG, open_scene
from geoovseg.segmenter import segment
from geoovseg.tiles.cut import per_tile
from geoovseg.tiles.join import as_one, vrt_of

Write = Callable[..., str]
Run = Callable[..., tuple[int, str, str]]
GIVEN: dict[str, Any] = {"classes": "building,road,water", "model": "demo", "background": "none"}
OPTIONS = ("-c", "building,road,water", "--model", "demo", "--background", "none")


@pytest.fixture
def cut(tmp_path: Path) -> Callable[..., list[str]]:
    """Cut a raster into 3 x 3 tiles of unequal size; returns their names, row by row."""

    def cut(scene: str, **changes: Any) -> list[str]:
        folder = tmp_path / "tiles"
        folder.mkdir(exist_ok=True)
        found = []
        with rasterio.open(scene) as src:
            rows, cols = ((0, side // 4, side // 2 + 5, side) for side in src.shape)
            for n in range(9):
                (top, bottom), (left, right) = rows[n // 3 : n // 3 + 2], cols[n % 3 : n % 3 + 2]
                window = Window(left, top, right - left, bottom - top)
                place = {"transform": src.window_transform(window), "height": window.height, "width": window.width}
                found.append(str(folder / f"tile_{n}.tif"))
                with rasterio.open(found[-1], "w", **{**src.profile, "tiled": False, **place, **changes}) as dst:
                    dst.write(src.read(window=window))
                    dst.update_tags(**src.tags())
                    dst.colorinterp = src.colorinterp
                    dst.scales, dst.offsets, dst.descriptions = src.scales, src.offsets, src.descriptions
        return found

    return cut


def _read(path: str | Path) -> np.ndarray:
    with rasterio.open(path) as src:
        return src.read(1)


def _window_of(tile: str, whole: str) -> tuple[slice, slice]:
    with rasterio.open(tile) as src, rasterio.open(whole) as big:
        col, row = (round(n) for n in ~big.transform * (src.transform.c, src.transform.f))
        return slice(row, row + src.height), slice(col, col + src.width)


def test_tiles_as_a_mosaic_give_exactly_the_labels_of_the_whole_scene(
    geoovseg: Run, demo_scene: str, cut: Callable[..., list[str]], tmp_path: Path
) -> None:
    whole = segment(demo_scene, output=tmp_path / "whole.tif", confidence=str(tmp_path / "sure.tif"), **GIVEN)
    tiles = cut(demo_scene)
    target, sure = tmp_path / "m.tif", tmp_path / "m_sure.tif"
    code, out, _ = geoovseg(
        "segment",
        *tiles[::-1],
        *OPTIONS,
        "--mosaic",
        "-o",
        target,
        "--confidence",
        sure,
        "--per-tile",
        tmp_path / "cut",
    )
    assert code == 0
    np.testing.assert_array_equal(_read(target), _read(whole.labels))
    np.testing.assert_array_equal(_read(sure), _read(tmp_path / "sure.tif"))
    with rasterio.open(target) as dst, rasterio.open(demo_scene) as src:
        assert (dst.transform, dst.crs) == (src.transform, src.crs)
    names = [str(tmp_path / "cut" / f"tile_{n}_labels.tif") for n in reversed(range(9))]
    assert out.split() == [str(target), str(sure), *names]
    assert not vrt_of(target).exists()


def test_labels_of_a_tile_are_its_window_and_as_finished_as_the_whole(
    demo_scene: str, cut: Callable[..., list[str]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = segment(demo_scene, output=tmp_path / "whole.tif", **GIVEN).labels
    tiles = cut(demo_scene)
    monkeypatch.setattr("geoovseg.tiles.cut.BLOCK", 32)  # rows that are counted at a time
    found = per_tile(whole, tiles, tmp_path)
    for tile, labels in zip(tiles, found, strict=True):
        with rasterio.open(tile) as src, rasterio.open(labels) as dst, rasterio.open(whole) as big:
            assert (dst.transform, dst.crs, dst.shape) == (src.transform, src.crs, src.shape)
            np.testing.assert_array_equal(dst.read(1), big.read(1)[_window_of(tile, whole)])
            assert (dst.nodata, dst.dtypes, dst.descriptions) == (big.nodata, big.dtypes, big.descriptions)
            assert dst.tags()["GEOOVSEG_RUN"] == big.tags()["GEOOVSEG_RUN"]
            assert dst.tags(ns="IMAGE_STRUCTURE")["LAYOUT"] == "COG"
            assert {code: dst.colormap(1)[code] for code in range(4)} == {c: big.colormap(1)[c] for c in range(4)}
            counted = int((dst.read(1) == 1).sum())
        assert f"<F>{counted}</F>" in Path(f"{labels}.aux.xml").read_text()
        assert "building" in Path(labels).with_suffix(".qml").read_text()
    assert not [path for path in tmp_path.iterdir() if path.name.endswith(".tmp")]


def test_labels_are_not_cut_where_they_would_replace_something_or_do_not_reach(
    demo_scene: str, write_raster: Write, tmp_path: Path
) -> None:
    whole = segment(demo_scene, output=tmp_path / "whole.tif", **GIVEN).labels
    far = write_raster(np.zeros((3, 9, 9), np.uint8), "far.tif", transform=TRANSFORM @ Affine.translation(-9, 0))
    with pytest.raises(UsageError, match=r"far\.tif does not lie in"):
        per_tile(whole, [demo_scene, far], tmp_path)
    assert not (tmp_path / "scene_labels.tif").exists()
    per_tile(whole, [demo_scene], tmp_path)
    with pytest.raises(OutputError, match="exists; add --overwrite"):
        per_tile(whole, [demo_scene], tmp_path)
    per_tile(whole, [demo_scene], tmp_path, overwrite=True)
    with pytest.raises(UsageError, match="of a tile and of the mosaic"):
        per_tile(tmp_path / "scene_labels.tif", [demo_scene], tmp_path, overwrite=True)
    with pytest.raises(SceneError, match="no label raster of geoovseg"):
        per_tile(far, [far], tmp_path)


def test_numbers_of_16_bits_have_one_scaling_across_all_tiles(
    geoovseg: Run,
    drawn: tuple[np.ndarray, np.ndarray],
    write_raster: Write,
    cut: Callable[..., list[str]],
    tmp_path: Path,
) -> None:
    pixels = drawn[0].astype(np.uint16) * 11 + np.arange(drawn[0].shape[2], dtype=np.uint16) * 20
    scene = write_raster(pixels, tags={DEMO_TAG: "1000"})
    whole = segment(scene, output=tmp_path / "whole.tif", **GIVEN).labels
    code, out, _ = geoovseg("segment", *cut(scene), *OPTIONS, "--mosaic", "--scale", "auto", "-o", tmp_path / "m.tif")
    assert code == 0
    np.testing.assert_array_equal(_read(out.strip()), _read(whole))
    tags = [json.loads(rasterio.open(path).tags()["GEOOVSEG_RUN"]) for path in (whole, out.strip())]
    assert tags[0]["scale"] == tags[1]["scale"]


def test_a_missing_tile_is_nodata_in_the_labels(
    geoovseg: Run, demo_scene: str, cut: Callable[..., list[str]], tmp_path: Path
) -> None:
    tiles = cut(demo_scene)
    code, _, _ = geoovseg("segment", *tiles[:4], *tiles[5:], *OPTIONS, "--mosaic", "-o", tmp_path / "m.tif")
    labels, there = _read(tmp_path / "m.tif"), _window_of(tiles[4], demo_scene)
    assert code == 0
    assert (labels[there] == 255).all()
    labels[there] = 0
    assert not (labels == 255).any()


@pytest.mark.parametrize("kind", ["plain", "nodata", "mask", "alpha"])
def test_where_no_tile_is_there_is_no_data_and_elsewhere_what_the_tiles_say(
    drawn: tuple[np.ndarray, np.ndarray], write_raster: Write, tmp_path: Path, kind: str
) -> None:
    pixels = drawn[0][:, :90, :60].clip(1)
    hole = np.zeros(pixels.shape[1:], bool)
    hole[40:45, 5:30] = kind != "plain"
    pixels[:, hole] = 0
    if kind == "alpha":
        pixels = np.concatenate([pixels, np.where(hole, 0, 255)[None].astype(np.uint8)])
    colours = (ColorInterp.red, ColorInterp.green, ColorInterp.blue, ColorInterp.alpha)[: len(pixels)]
    tiles = []
    for n in (0, 1, 3, 4, 5):  # of 3 x 2, with a gap
        rows, cols = slice(n // 2 * 30, n // 2 * 30 + 30), slice(n % 2 * 30, n % 2 * 30 + 30)
        profile: dict[str, Any] = {"nodata": 0} if kind == "nodata" else {}
        if kind == "mask":
            profile["mask"] = np.where(hole[rows, cols], 0, 255).astype(np.uint8)
        place = TRANSFORM @ Affine.translation(cols.start, rows.start)
        tiles.append(write_raster(pixels[:, rows, cols], f"t{n}.tif", transform=place, colorinterp=colours, **profile))
    known = ~hole
    known[30:60, :30] = False
    with open_scene(as_one(tiles, tmp_path / "m.vrt")) as scene:
        assert scene.shape == (90, 60)
        light, valid = scene.read(Window(0, 0, 60, 90))
    np.testing.assert_array_equal(valid, known)
    np.testing.assert_array_equal((light * 255).round()[:, known], pixels[:3, known])


@pytest.mark.parametrize("kind", ["plain", "nodata", "mask", "alpha"])
def test_the_later_of_tiles_that_overlap_wins_where_it_has_data(write_raster: Write, tmp_path: Path, kind: str) -> None:
    first, later = np.full((3, 20, 20), 10, np.uint8), np.full((3, 20, 20), 20, np.uint8)
    hole = np.zeros((20, 20), bool)
    hole[:5] = kind != "plain"
    later[:, hole] = 0
    shown = [np.full((20, 20), 255, np.uint8), np.where(hole, 0, 255).astype(np.uint8)]
    if kind == "alpha":
        first, later = (np.concatenate([p, s[None]]) for p, s in zip((first, later), shown, strict=True))
    colours = (ColorInterp.red, ColorInterp.green, ColorInterp.blue, ColorInterp.alpha)[: len(first)]
    tiles = [
        write_raster(
            pixels, f"{n}.tif", transform=TRANSFORM @ Affine.translation(10 * n, 0), colorinterp=colours,
            **({"nodata": 0} if kind == "nodata" else {"mask": shown[n]} if kind == "mask" else {}),
        )
        for n, pixels in enumerate((first, later))
    ]  # fmt: skip
    expected = np.zeros((20, 30))
    expected[:, :20] = 10
    expected[:, 10:][~hole] = 20
    with open_scene(as_one(tiles, tmp_path / "m.vrt")) as scene:
        light, valid = scene.read(Window(0, 0, 30, 20))
    np.testing.assert_array_equal(valid, expected > 0)
    np.testing.assert_array_equal((light[0] * 255).round()[valid], expected[valid])


@pytest.mark.parametrize(
    ("changes", "bands", "message"),
    [
        ({"crs": None}, 3, r"b\.tif has no coordinate system, and .* is in EPSG:32632; .* -a_srs EPSG:32632 .*b"),
        ({"crs": "EPSG:32633"}, 3, "differ in coordinate systems, EPSG:32632 and EPSG:32633; warp"),
        ({"transform": TRANSFORM @ Affine.scale(1.1)}, 3, r"pixels of one size: those of .*b\.tif are 0.55 x -0.55"),
        ({"transform": TRANSFORM @ Affine.rotation(1)}, 3, "rotated, those of"),
        ({"transform": TRANSFORM @ Affine.translation(20.4, 0)}, 3, "0.4 pixels off it; align .* -tr 0.5 0.5 -tap"),
        ({}, 4, "differ in numbers of bands, 3 and 4"),
        ({"dtype": "uint16"}, 3, "differ in pixel types, uint8, uint8, uint8 and uint16"),
        ({"nodata": 0}, 3, "differ in nodata values"),
        ({"colorinterp": (ColorInterp.blue, ColorInterp.green, ColorInterp.red)}, 3, "differ in colours of bands"),
    ],
)  # fmt: skip
def test_tiles_that_do_not_fit_are_refused_with_what_differs(
    write_raster: Write, tmp_path: Path, changes: dict[str, Any], bands: int, message: str
) -> None:
    colours = (ColorInterp.red, ColorInterp.green, ColorInterp.blue)
    first = write_raster(np.zeros((3, 20, 20), np.uint8), "a.tif", colorinterp=colours)
    place = {"transform": TRANSFORM @ Affine.translation(20, 0), "colorinterp": colours}
    pixels = np.zeros((bands, 20, 20), changes.pop("dtype", np.uint8))
    if bands == 4:
        place.pop("colorinterp")
    other = write_raster(pixels, "b.tif", **{**place, **changes})
    with pytest.raises(UsageError, match=message) as caught:
        as_one([first, other], tmp_path / "m.vrt")
    assert first in str(caught.value)
    assert other in str(caught.value)
    assert not (tmp_path / "m.vrt").exists()


def test_a_hundredth_of_a_pixel_is_no_reason_to_refuse_a_tile(write_raster: Write, tmp_path: Path) -> None:
    first = write_raster(np.zeros((3, 20, 20), np.uint8), "a.tif")
    place = TRANSFORM @ Affine.translation(19.995, -20.005)
    other = write_raster(np.ones((3, 20, 20), np.uint8), "b.tif", transform=place)
    with rasterio.open(as_one([first, other], tmp_path / "m.vrt")) as src:
        assert src.transform == TRANSFORM @ Affine.translation(0, -20)
        assert src.read(1).sum() == src.read(1)[:20, 20:].sum() == 400


@pytest.mark.filterwarnings("ignore:The given matrix")
def test_tiles_without_a_place_are_refused(write_raster: Write, tmp_path: Path) -> None:
    path = write_raster(np.zeros((3, 20, 20), np.uint8), transform=Affine.identity(), crs=None)
    with pytest.raises(SceneError, match="does not say where its pixels lie"):
        as_one([path], tmp_path / "m.vrt")


def test_names_scales_bits_and_colours_of_bands_are_kept(
    write_raster: Write, cut: Callable[..., list[str]], tmp_path: Path
) -> None:
    scene = write_raster(np.zeros((2, 40, 40), np.uint16), nbits=12, nodata=7)
    with rasterio.open(scene, "r+") as dst:
        dst.descriptions, dst.scales, dst.offsets = ("nir", "red"), (0.1, 0.2), (1.0, 2.0)
    with rasterio.open(as_one(cut(scene, nbits=12), tmp_path / "m.vrt")) as src:
        assert (src.descriptions, src.scales, src.offsets) == (("nir", "red"), (0.1, 0.2), (1.0, 2.0))
        assert (src.nodatavals, src.tags(1, ns="IMAGE_STRUCTURE")["NBITS"]) == ((7, 7), "12")


def test_palettes_are_kept_and_must_be_equal(write_raster: Write, tmp_path: Path) -> None:
    tiles = []
    for n in range(2):
        place = TRANSFORM @ Affine.translation(20 * n, 0)
        tiles.append(write_raster(np.ones((1, 20, 20), np.uint8), f"{n}.tif", transform=place, photometric="palette"))
        with rasterio.open(tiles[-1], "r+") as dst:
            dst.write_colormap(1, {1: (1, 2, 3, 255)})
    with rasterio.open(as_one(tiles, tmp_path / "m.vrt")) as src:
        assert src.colormap(1)[1] == (1, 2, 3, 255)
    with rasterio.open(tiles[1], "r+") as dst:
        dst.write_colormap(1, {1: (1, 2, 4, 255)})
    with pytest.raises(UsageError, match="differ in palettes"):
        as_one(tiles, tmp_path / "m.vrt")


def test_a_vrt_of_the_same_tiles_is_the_same_file(
    demo_scene: str, cut: Callable[..., list[str]], tmp_path: Path
) -> None:
    tiles, vrt = cut(demo_scene), tmp_path / "m.vrt"
    as_one(tiles, vrt)
    first = vrt.read_bytes(), vrt.stat().st_mtime_ns
    vrt.unlink()
    as_one(tiles, vrt)
    assert (vrt.read_bytes(), vrt.stat().st_mtime_ns) == first
    assert str(tmp_path) not in vrt.read_text()  # so that all can be moved together


def test_tiles_are_found_through_links_to_folders(
    demo_scene: str, cut: Callable[..., list[str]], tmp_path: Path
) -> None:
    tiles = cut(demo_scene)
    (tmp_path / "far" / "away").mkdir(parents=True)
    (tmp_path / "link").symlink_to(tmp_path / "far" / "away")
    (tmp_path / "far" / "shown").symlink_to(tmp_path / "tiles")
    linked = [str(tmp_path / "far" / "shown" / os.path.basename(tile)) for tile in tiles]
    for vrt in (tmp_path / "link" / "m.vrt", tmp_path / "far" / "m.vrt"):
        with rasterio.open(as_one(linked, vrt)) as src, rasterio.open(demo_scene) as whole:
            np.testing.assert_array_equal(src.read(), whole.read())


def test_a_stopped_mosaic_goes_on_and_leaves_no_vrt_behind(
    geoovseg: Run, write_raster: Write, drawn: tuple[np.ndarray, np.ndarray], tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    from geoovseg import signals

    folder, target = tmp_path / "t", tmp_path / "t" / "mosaic_labels.tif"
    folder.mkdir()
    for n in range(3):
        place = TRANSFORM @ Affine.translation(0, 280 * n)
        write_raster(drawn[0][:, :, :64], f"t/{n}.tif", transform=place, tags={DEMO_TAG: "1"})
    arguments = ("segment", folder, *OPTIONS, "--mosaic")
    with monkeypatch.context() as patch:
        parts = target.with_name(f"{target.name}.parts")
        patch.setattr(
            signals.StopSignals, "__call__", lambda self: signal.SIGTERM if list(parts.glob("part*.json")) else None
        )
        code, _, err = geoovseg(*arguments)
    assert (code, vrt_of(target).exists()) == (143, True)
    assert "--resume" in err
    code, out, err = geoovseg(*arguments, "--resume")
    assert (code, out.strip()) == (0, str(target))
    assert "parts were finished before" in err
    assert not vrt_of(target).exists()


def test_shards_of_a_mosaic_share_one_scene(
    geoovseg: Run, demo_scene: str, cut: Callable[..., list[str]], tmp_path: Path
) -> None:
    tiles, target = cut(demo_scene), tmp_path / "m.tif"
    whole = segment(demo_scene, output=tmp_path / "whole.tif", **GIVEN).labels
    for n in (1, 2):
        assert geoovseg("segment", *tiles, *OPTIONS, "--mosaic", "-o", target, "--shard", f"{n}/2")[0] == 0
    assert vrt_of(target).exists()
    code, out, err = geoovseg("merge", tmp_path / "m.tif.parts", "--per-tile", tmp_path / "each", "--json")
    assert code == 0, err
    np.testing.assert_array_equal(_read(target), _read(whole))
    assert not vrt_of(target).exists()
    made = json.loads(out)["per_tile"]
    expected = per_tile(whole, tiles, tmp_path)
    for found, want, tile in zip(made, expected, tiles, strict=True):
        np.testing.assert_array_equal(_read(found), _read(want))
        with rasterio.open(found) as src, rasterio.open(tile) as of:
            assert (src.crs, src.transform, src.shape) == (of.crs, of.transform, of.shape)


def test_tiles_are_cut_only_from_labels_of_a_mosaic_on_its_grid(
    geoovseg: Run, demo_scene: str, cut: Callable[..., list[str]], tmp_path: Path
) -> None:
    for name, options in (("plain", (demo_scene,)), ("coarse", (*cut(demo_scene), "--mosaic", "--gsd", "1"))):
        target = tmp_path / f"{name}.tif"
        assert geoovseg("segment", *options, *OPTIONS, "-o", target, "--shard", "1/1")[0] == 0
        parts = tmp_path / f"{name}.tif.parts"
        code, _, err = geoovseg("merge", parts, "--per-tile", tmp_path / "each")
        assert (code, target.exists()) == (2, False)
        assert "leave it away" in err
        assert geoovseg("merge", parts)[0] == 0


def test_a_mosaic_that_is_refused_leaves_the_vrt_of_another_run_alone(
    geoovseg: Run, demo_scene: str, cut: Callable[..., list[str]], tmp_path: Path
) -> None:
    tiles, vrt = cut(demo_scene), vrt_of(tmp_path / "m.tif")
    as_one(tiles, vrt)
    assert geoovseg("segment", *tiles, *OPTIONS, "--mosaic", "-o", tmp_path / "m.tif", "--threshold", "7")[0] == 2
    assert vrt.exists()


def test_labels_that_are_finished_are_named_where_cutting_them_fails(
    geoovseg: Run, demo_scene: str, cut: Callable[..., list[str]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*given: object, **more: object) -> list[str]:
        raise OutputError("the disk is full")

    monkeypatch.setattr("geoovseg.tiles.cut.per_tile", fail)
    given = ("--mosaic", "-o", tmp_path / "m.tif", "--per-tile", tmp_path / "each")
    code, _, err = geoovseg("segment", *cut(demo_scene), *OPTIONS, *given)
    assert code == 1
    assert f"the labels are finished: {tmp_path / 'm.tif'}" in err


def test_a_gap_is_no_data_where_a_band_called_nir_is_marked_as_transparency(
    write_raster: Write, tmp_path: Path
) -> None:
    """As GDAL marks the fourth band of 8-bit GeoTIFFs."""
    paths = []
    for name, col in (("west", 0), ("east", 40)):
        place = TRANSFORM @ Affine.translation(col, 0)
        paths.append(write_raster(np.full((4, 20, 20), 9, np.uint8), f"{name}.tif", transform=place))
        with rasterio.open(paths[-1], "r+") as dst:
            dst.descriptions = ("blue", "green", "red", "nir")
            assert dst.colorinterp[3] == ColorInterp.alpha
    with open_scene(as_one(paths, tmp_path / "m.vrt")) as scene:
        _, valid = scene.read(Window(0, 0, 60, 20))
    np.testing.assert_array_equal(valid, np.tile((np.arange(60) // 20) != 1, (20, 1)))


def test_tiles_whose_palette_is_missing_are_refused(write_raster: Write, tmp_path: Path) -> None:
    path = write_raster(np.ones((1, 20, 20), np.uint8))
    vrt = tmp_path / "tile.vrt"
    rasterio.shutil.copy(path, vrt, driver="VRT")
    vrt.write_text(vrt.read_text().replace("<ColorInterp>Gray", "<ColorInterp>Palette"))
    with pytest.raises(SceneError, match="stands for colours of a palette, which the file lacks"):
        as_one([str(vrt)], tmp_path / "m.vrt")


def test_a_folder_that_is_not_there_is_said_before_the_tiles_are_put_together(
    geoovseg: Run, demo_scene: str, cut: Callable[..., list[str]], tmp_path: Path
) -> None:
    target = tmp_path / "nowhere" / "m.tif"
    for more in ((), ("--dry-run",)):
        code, _, err = geoovseg("segment", *cut(demo_scene), *OPTIONS, "--mosaic", "-o", target, *more)
        assert code == 1
        assert "nowhere does not exist; create it" in err


def test_a_mosaic_that_fails_leaves_nothing_behind(
    geoovseg: Run, demo_scene: str, cut: Callable[..., list[str]], tmp_path: Path
) -> None:
    tiles, before = cut(demo_scene), set(tmp_path.rglob("*"))
    assert geoovseg("segment", *tiles, *OPTIONS, "--mosaic", "-o", tmp_path / "m.tif", "--bands", "7,8,9")[0] == 2
    assert geoovseg("segment", *tiles, *OPTIONS, "--mosaic", "-o", tmp_path / "new", "--dry-run")[0] == 0
    assert set(tmp_path.rglob("*")) == before


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (("--per-tile", "x"), "add --mosaic"),
        (("--mosaic", "--per-tile", "x", "--shard", "1/2"), "needs whole labels"),
        (("--mosaic", "--per-tile", "x", "--gsd", "1"), "add --grid scene"),
    ],
)
def test_options_of_a_mosaic_that_cannot_work_are_refused(
    geoovseg: Run, demo_scene: str, tmp_path: Path, options: tuple[str, ...], message: str
) -> None:
    code, _, err = geoovseg("segment", demo_scene, *OPTIONS, *options)
    assert code == 2
    assert message in err
    assert [path.name for path in tmp_path.iterdir()] == ["scene.tif"]


def test_labels_per_tile_are_cut_of_scores_brought_back(
    geoovseg: Run, demo_scene: str, cut: Callable[..., list[str]], tmp_path: Path
) -> None:
    tiles, folder = cut(demo_scene), tmp_path / "each"
    more = ("--gsd", "1", "--grid", "scene", "--per-tile", folder)
    code, _, err = geoovseg("segment", *tiles, *OPTIONS, "--mosaic", "-o", tmp_path / "m.tif", *more)
    assert code == 0, err
    for tile in tiles:
        with rasterio.open(tile) as src, rasterio.open(folder / f"{Path(tile).stem}_labels.tif") as labels:
            assert (labels.shape, labels.transform) == (src.shape, src.transform)


def test_labels_per_tile_that_exist_are_seen_before_anything_is_computed(
    geoovseg: Run, demo_scene: str, tmp_path: Path
) -> None:
    (tmp_path / "scene_labels.tif").touch()
    code, _, err = geoovseg("segment", demo_scene, *OPTIONS, "--mosaic", "--per-tile", tmp_path)
    assert code == 1
    assert "scene_labels.tif exists; add --overwrite to replace it, or choose another folder with --per-tile" in err
    assert not (tmp_path / "mosaic_labels.tif").exists()
    code, _, err = geoovseg("segment", demo_scene, *OPTIONS, "--mosaic", "-o", tmp_path / "scene_labels.tif",
                            "--per-tile", tmp_path, "--overwrite")  # fmt: skip
    assert code == 2
    assert "of a tile and of the mosaic" in err


def test_a_dry_run_of_a_mosaic_names_what_it_would_write(
    geoovseg: Run, demo_scene: str, cut: Callable[..., list[str]], tmp_path: Path
) -> None:
    tiles, target = cut(demo_scene), tmp_path / "m.tif"
    said = json.loads(geoovseg("segment", *tiles, *OPTIONS, "--mosaic", "-o", target, "--dry-run", "--json")[1])
    assert (said["scene"], said["labels"]) == (str(vrt_of(target)), str(target))


def test_json_of_a_mosaic_names_its_tiles_and_their_labels(
    geoovseg: Run, demo_scene: str, cut: Callable[..., list[str]], tmp_path: Path
) -> None:
    tiles = cut(demo_scene)
    code, out, _ = geoovseg("segment", *tiles, *OPTIONS, "--mosaic", "--per-tile", tmp_path / "cut", "--json")
    said = json.loads(out)
    assert (code, said["tiles"], len(said["per_tile"])) == (0, tiles, 9)
    assert said["labels"] == str(tmp_path / "tiles" / "mosaic_labels.tif")
