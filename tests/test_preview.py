"""Pictures: what is drawn where."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import rasterio
from affine import Affine
from PIL import Image, ImageColor
from rasterio.enums import Resampling
from rasterio.errors import NotGeoreferencedWarning
from rasterio.transform import from_origin
from rasterio.windows import Window

from geoovseg.errors import GeoOVSegWarning, OutputError, SceneError, UsageError, hushed
from geoovseg.labels.paint import OPACITY, OUTLINE, PALE
from geoovseg.labels.panes import percent
from geoovseg.labels.preview import preview
from geoovseg.labels.record import RUN_TAG
from geoovseg.labels.styles import LegendEntry, label_aux_xml
from geoovseg.scene.scene import open_scene
from geoovseg.scene.views import metres_per_pixel

WriteRaster = Callable[..., str]


@pytest.fixture
def pair(write_raster: WriteRaster) -> tuple[str, str]:
    codes = np.zeros((1, 200, 300), np.uint8)
    codes[:, :, 100:200], codes[:, :, 200:] = 1, 255
    record = {"classes": [["road", ["road"], "#ff0000"]], "background": [], "threshold": None}
    scene = write_raster(np.full((3, 200, 300), 100, np.uint8), "scene.tif")
    labels = write_raster(codes, "labels.tif", nodata=255, tags={RUN_TAG: json.dumps(record)})
    with rasterio.open(labels, "r+") as dst:
        dst.write_colormap(1, {1: (255, 0, 0, 255)})
    return scene, labels


def _labelled(write_raster: WriteRaster, codes: np.ndarray, names: list[str], colours: list[str] | None = None) -> str:
    """Labels as geoovseg writes them."""
    hues = colours or [f"#{40 + n:02x}{200 - n:02x}50" for n in range(len(names))]
    classes = [[name, [name], hue] for name, hue in zip(names, hues, strict=True)]
    record = json.dumps({"classes": classes, "background": [], "threshold": None})
    labels = write_raster(codes, "labels.tif", nodata=255, tags={RUN_TAG: record})
    with rasterio.open(labels, "r+") as dst:
        dst.write_colormap(1, {n: ImageColor.getrgb(hue) for n, hue in enumerate(hues, start=1)})
    return labels


def _panes(picture: object, width: int, height: int) -> tuple[np.ndarray, np.ndarray]:
    """The scene and the labels of a page, panes side by side, and of so many pixels."""
    page = np.asarray(Image.open(os.fspath(picture)).convert("RGB")).astype(int)  # type: ignore[arg-type]
    return page[14 : 14 + height, 14 : 14 + width], page[14 : 14 + height, 28 + width : 28 + 2 * width]


def _size(picture: object) -> tuple[int, int]:
    with Image.open(os.fspath(picture)) as found:  # type: ignore[arg-type]
        return found.size


def _swatches(picture: object, below: int) -> list[list[int]]:
    """Colours of the legend of one row, from left to right: the middles of what has a dark frame."""
    page = np.asarray(Image.open(os.fspath(picture)).convert("RGB")).astype(int)[below:]  # type: ignore[arg-type]
    frames = np.all(page == 0, axis=-1) | np.all(page == 0x99, axis=-1)
    (row, *_) = [y for y in range(len(frames) - 16) if frames[y : y + 17, 14].all() and frames[y, 14:31].all()]
    tall, flat = frames[row : row + 17].all(axis=0), frames[row]
    lefts = [x for x in range(len(flat) - 16) if tall[x] and flat[x : x + 17].all()]
    return [page[row + 8, x + 8].tolist() for x in lefts]


def test_labels_of_a_part_lie_over_that_part(pair: tuple[str, str], tmp_path: Path) -> None:
    with rasterio.open(pair[1]) as src:
        box = Window(100, 50, 150, 100)
        profile = {**src.profile, "width": 150, "height": 100, "transform": src.window_transform(box)}
        with rasterio.open(tmp_path / "part.tif", "w", **profile) as dst:
            dst.write(src.read(window=box))
            dst.write_colormap(1, src.colormap(1))
            dst.update_tags(**src.tags())
    scene, over = _panes(preview(pair[0], tmp_path / "part.tif", tmp_path / "p.png", size=150), 150, 100)
    _, whole = _panes(preview(*pair, tmp_path / "w.png", size=300), 300, 200)
    assert (scene == 100).all()
    np.testing.assert_array_equal(over[1:-1, 1:99], whole[51:149, 101:199])
    with rasterio.open(tmp_path / "part.tif", "r+") as dst:
        dst.transform = dst.transform @ Affine.translation(0.5, 0)
    with pytest.raises(UsageError, match="labels of another scene"):
        preview(pair[0], tmp_path / "part.tif", tmp_path / "q.png")


def test_labels_lie_over_a_pale_scene_in_their_colour(pair: tuple[str, str], tmp_path: Path) -> None:
    scene, over = _panes(preview(*pair, tmp_path / "p.png", size=300), 300, 200)
    seen = 128 + (100 - 128) / 2
    assert (scene == 100).all()
    assert np.abs(over[:, :100] - (255 - 155 * PALE)).max() < 1
    assert np.abs(over[1:-1, 101:199] - (np.array([255, 0, 0]) * OPACITY + seen * (1 - OPACITY))).max() < 1
    assert over[:, 100].tolist() == [[round(255 * OUTLINE), 0, 0]] * 200


def test_the_legend_has_the_colours_of_the_picture(pair: tuple[str, str], tmp_path: Path) -> None:
    picture = preview(*pair, tmp_path / "p.png", size=300)
    over = _panes(picture, 300, 200)[1]
    clear, road, nothing = _swatches(picture, 230)
    assert clear == over[100, 50].tolist()
    assert road == over[100, 150].tolist()
    assert len(set(nothing)) == 1


@pytest.mark.parametrize("colour", ["#7f8c8d", "#ffffff", "#000000", "#969696"])
@pytest.mark.parametrize("grey", [0, 90, 150, 255])
def test_a_class_of_any_colour_is_seen_on_any_scene(
    write_raster: WriteRaster, tmp_path: Path, grey: int, colour: str
) -> None:
    """By its own colour, or at least by its outline."""
    codes = np.zeros((1, 20, 30), np.uint8)
    codes[:, 5:15, 10:20] = 1
    labels = _labelled(write_raster, codes, ["road"], colours=[colour])
    scene = write_raster(np.full((3, 20, 30), grey, np.uint8), "scene.tif", nodata=None)
    over = _panes(preview(scene, labels, tmp_path / "p.png", size=64, scale="0,255"), 60, 40)[1]
    region = over[10:30, 20:40].reshape(-1, 3)
    assert np.abs(region - over[2, 2]).max() > 40


def test_regions_of_one_pixel_show_their_colour(write_raster: WriteRaster, tmp_path: Path) -> None:
    codes = (np.indices((20, 80)).sum(axis=0) % 2).astype(np.uint8)[None]
    labels = _labelled(write_raster, codes, ["road"], colours=["#ff0000"])
    scene = write_raster(np.full((3, 20, 80), 100, np.uint8), "scene.tif")
    page = np.asarray(Image.open(preview(scene, labels, tmp_path / "p.png", size=80).picture).convert("RGB"))
    assert (page == [round(255 * OPACITY + 114 * (1 - OPACITY)), 28, 28]).all(axis=-1).sum() >= 800


def test_classes_without_pixels_are_named_with_their_share(write_raster: WriteRaster, tmp_path: Path) -> None:
    codes = np.repeat(np.array([[[1, 1, 3, 255]]], np.uint8), 20, 1).repeat(20, 2)
    labels = _labelled(write_raster, codes, ["road", "building", "water"])
    scene = write_raster(np.full((3, 20, 80), 100, np.uint8), "scene.tif")
    made = preview(scene, labels, tmp_path / "p.png")
    assert made.classes == {
        "road": {"code": 1, "pixels": 800, "share": 2 / 3},
        "building": {"code": 2, "pixels": 0, "share": 0},
        "water": {"code": 3, "pixels": 400, "share": 1 / 3},
    }
    assert made.nodata == 400
    assert _size(made) == made.size
    assert len(_swatches(made, 200)) == 4


@pytest.mark.parametrize(
    ("share", "text"),
    [(0, "0 %"), (1e-9, "<0.1 %"), (0.0012, "0.1 %"), (0.052, "5.2 %"), (0.0999, "10 %"), (0.66, "66 %"), (1, "100 %")],
)
def test_shares_are_written_as_people_read_them(share: float, text: str) -> None:
    assert percent(share) == text


def test_a_legend_of_very_many_classes_has_the_most_frequent(write_raster: WriteRaster, tmp_path: Path) -> None:
    names = [f"class {n}" for n in range(1, 201)]
    codes = np.arange(100, 200, dtype=np.uint8).reshape(1, 10, 10)
    made = preview(
        write_raster(np.full((3, 10, 10), 100, np.uint8), "scene.tif"),
        _labelled(write_raster, codes, names), tmp_path / "p.png",
    )  # fmt: skip
    assert len(made.classes) == 200
    assert _size(made)[1] < 3000


def test_large_scenes_are_drawn_small(pair: tuple[str, str], tmp_path: Path) -> None:
    assert _panes(preview(*pair, tmp_path / "p.png", size=90), 90, 60)[0].std() == 0


def test_small_scenes_are_drawn_large_by_whole_factors(write_raster: WriteRaster, tmp_path: Path) -> None:
    pixels = np.random.default_rng(0).integers(1, 255, (3, 23, 28), np.uint8)
    codes = np.random.default_rng(1).integers(1, 3, (1, 23, 28), np.uint8)
    made = preview(
        write_raster(pixels, "scene.tif"), _labelled(write_raster, codes, ["road", "water"]), tmp_path / "p.png"
    )
    scene = _panes(made, 28 * 42, 23 * 42)[0]
    assert (scene == np.moveaxis(pixels, 0, -1).repeat(42, 0).repeat(42, 1)).all()
    assert made.size[0] == 2 * 28 * 42 + 3 * 14


def test_flat_scenes_are_drawn_one_above_the_other(write_raster: WriteRaster, tmp_path: Path) -> None:
    labels = _labelled(write_raster, np.ones((1, 20, 400), np.uint8), ["road"])
    made = preview(write_raster(np.ones((3, 20, 400), np.uint8), "scene.tif"), labels, tmp_path / "p.png", size=400)
    assert made.size[0] == 400 + 2 * 14
    assert made.size[1] > 2 * 20 + 3 * 14


def test_what_has_no_data_is_hatched(write_raster: WriteRaster, tmp_path: Path) -> None:
    pixels, codes = np.full((3, 60, 60), 90, np.uint8), np.ones((1, 60, 60), np.uint8)
    pixels[:, :30], codes[:, :, :30] = 0, 255
    made = preview(
        write_raster(pixels, "scene.tif", nodata=0), _labelled(write_raster, codes, ["road"]), tmp_path / "p.png",
        size=64,
    )  # fmt: skip
    scene, over = _panes(made, 60, 60)
    for hatched in (scene[:30], over[:30, :30]):
        assert {255, 0x8C} == set(hatched.ravel().tolist())
    assert over[30:, :30].std() > 5


def test_codes_without_names_and_colours_and_below_zero_are_drawn(write_raster: WriteRaster, tmp_path: Path) -> None:
    codes = np.repeat([[[-300, 0, 70000]]], 10, 1).repeat(10, 2).astype(np.int32)
    labels = write_raster(codes, "labels.tif")
    made = preview(write_raster(np.full((3, 10, 30), 90, np.uint8), "scene.tif"), labels, tmp_path / "p.png")
    assert {name: entry["pixels"] for name, entry in made.classes.items()} == {
        "class -300": 100, "background": 100, "class 70000": 100,
    }  # fmt: skip


def test_two_classes_of_one_name_are_told_apart(write_raster: WriteRaster, tmp_path: Path) -> None:
    labels = write_raster(np.repeat([[[1, 2]]], 4, 1).astype(np.uint8), "labels.tif")
    Path(f"{labels}.aux.xml").write_text(
        "<PAMDataset><PAMRasterBand band='1'><CategoryNames><Category/><Category>road</Category>"
        "<Category>road</Category></CategoryNames></PAMRasterBand></PAMDataset>"
    )
    made = preview(write_raster(np.full((3, 4, 2), 90, np.uint8), "scene.tif"), labels, tmp_path / "p.png")
    assert list(made.classes) == ["road (1)", "road (2)"]


def test_labels_are_drawn_as_they_are_after_edits(write_raster: WriteRaster, tmp_path: Path) -> None:
    """Which leave overviews, and the table, as they were."""
    labels = _labelled(write_raster, np.ones((1, 400, 400), np.uint8), ["road", "water"], ["#ff0000", "#0000ff"])
    Path(f"{labels}.aux.xml").write_text(label_aux_xml([LegendEntry(1, "road", "#ff0000", 160_000)]))
    with rasterio.open(labels, "r+") as dst:
        dst.build_overviews([2, 4, 8], Resampling.mode)
    with rasterio.open(labels, "r+") as dst:
        dst.write(np.full((400, 200), 2, np.uint8), 1, window=Window(0, 0, 200, 400))
    scene = write_raster(np.full((3, 400, 400), 100, np.uint8), "scene.tif")
    over = _panes(preview(scene, labels, tmp_path / "p.png", size=100), 100, 100)[1]
    assert over[50, 20, 2] > over[50, 20, 0]
    assert over[50, 80, 0] > over[50, 80, 2]


def test_labels_are_drawn_over_tiles_that_are_one_scene(
    geoovseg: Callable[..., tuple[int, str, str]], write_raster: WriteRaster, tmp_path: Path
) -> None:
    place = from_origin(480_000, 5_460_000, 0.5, 0.5)
    tiles = [
        write_raster(
            np.full((3, 50, 60), 50 * n, np.uint8), f"{n}.tif", transform=place @ Affine.translation(60 * n, 0)
        )
        for n in (1, 2)
    ]
    codes = np.repeat([1, 2], 60)[None, None].repeat(50, 1).astype(np.uint8)
    labels = write_raster(codes, "labels.tif", transform=place @ Affine.translation(60, 0))
    code, out, _ = geoovseg("preview", *tiles, labels, tmp_path / "p.png", "--json", "--size", 120, "--scale", "0,255")
    made = json.loads(out)
    page = _panes(made["picture"], 120, 50)[0]
    assert code == 0
    assert made["classes"]["class 1"] == {"code": 1, "pixels": 3000, "share": 0.5}
    assert list(_size(made["picture"])) == made["size"]
    assert (page[20, 20, 0], page[20, 100, 0]) == (50, 100)
    assert len(list(tmp_path.iterdir())) == 4


def test_confidence_is_drawn_when_asked_for(write_raster: WriteRaster, tmp_path: Path) -> None:
    sure = np.repeat([[[0, 125, 250, 255]]], 40, 1).repeat(10, 2).astype(np.uint8)
    path = write_raster(sure, "sure.tif", nodata=255)
    with rasterio.open(path, "r+") as dst:
        dst.scales = (1 / 250,)
    scene = write_raster(np.full((3, 40, 40), 128, np.uint8), "scene.tif")
    with pytest.raises(SceneError, match=r"sure.tif has the scale 0.004.*SCENE LABELS OUT.*--confidence"):
        preview(scene, path, tmp_path / "p.png")
    made = preview(scene, path, tmp_path / "p.png", confidence=True, size=64)
    over = _panes(made, 40, 40)[1]
    for column, colour in ((5, (0x44, 0x01, 0x54)), (15, (0x21, 0x91, 0x8C)), (25, (0xFD, 0xE7, 0x25))):
        assert np.abs(over[20, column] - (np.array(colour) * OPACITY + 128 * (1 - OPACITY))).max() <= 1
    assert made.nodata == 400
    with pytest.raises(UsageError, match="whole numbers without a scale, as labels have"):
        preview(scene, write_raster(np.ones((1, 40, 40), np.uint8), "l.tif"), tmp_path / "p.png", confidence=True)


def test_a_scene_and_its_labels_in_each_others_place_are_refused(
    pair: tuple[str, str], write_raster: WriteRaster, tmp_path: Path
) -> None:
    with pytest.raises(UsageError, match=r"labels.tif is given as the scene.*SCENE LABELS OUT"):
        preview(*pair[::-1], tmp_path / "p.png")
    with pytest.raises(SceneError, match=r"scene.tif has 3 bands, as images have.*SCENE LABELS OUT"):
        preview(pair[0], pair[0], tmp_path / "p.png")
    grey = write_raster(np.arange(60_000).reshape(1, 200, 300).astype(np.uint8), "grey.tif")
    theirs = write_raster(np.ones((1, 200, 300), np.uint8), "theirs.tif")
    Path(f"{theirs}.aux.xml").write_text(
        "<PAMDataset><PAMRasterBand band='1'><CategoryNames><Category/><Category>road</Category></CategoryNames>"
        "</PAMRasterBand></PAMDataset>"
    )
    with pytest.raises(SceneError, match=r"theirs.tif is given as the scene, but has named classes"):
        preview(theirs, grey, tmp_path / "p.png")
    with pytest.warns(GeoOVSegWarning, match="256 codes without names or colours"):
        preview(pair[0], grey, tmp_path / "p.png")
    fractions = write_raster(np.full((1, 200, 300), 0.5, np.float32), "fractions.tif")
    with pytest.raises(SceneError, match="holds fractions, not class codes"):
        preview(pair[0], fractions, tmp_path / "p.png")
    assert not list(tmp_path.glob("p.png*.tmp"))


@pytest.mark.parametrize(
    ("crs", "transform", "metres"),
    [
        ("EPSG:32632", from_origin(480_000, 5_460_000, 0.5, 0.5), 0.5),
        ("EPSG:2263", from_origin(980_000, 200_000, 1, 1), 0.3048006),
        ("EPSG:4326", from_origin(9, 60, 1e-3, 1e-3), 55.8),
    ],
)
def test_a_pixels_width_is_known_in_metres(
    write_raster: WriteRaster, crs: str, transform: object, metres: float
) -> None:
    with open_scene(write_raster(np.ones((3, 4, 4), np.uint8), crs=crs, transform=transform)) as scene:
        assert metres_per_pixel(scene.src)[0] == pytest.approx(metres, rel=2e-3)


def test_what_cannot_be_drawn_is_refused(pair: tuple[str, str], write_raster: WriteRaster, tmp_path: Path) -> None:
    with hushed(NotGeoreferencedWarning):
        nowhere = {"crs": None, "transform": None}
        other = write_raster(np.ones((1, 5, 5), np.uint8), "other.tif", **nowhere)
        larger = write_raster(np.ones((3, 9, 9), np.uint8), "larger.tif", **nowhere)
    for scene in (pair[0], larger):
        with pytest.raises(UsageError, match="differ in size or place"):
            preview(scene, other, tmp_path / "p.png")
    moved = write_raster(np.ones((1, 200, 300), np.uint8), "moved.tif", transform=from_origin(5, 5, 1, 1))
    with pytest.raises(UsageError, match="differ in size or place"):
        preview(pair[0], moved, tmp_path / "p.png")
    picture = write_raster(np.ones((3, 20, 30), np.uint8), "scene.png", driver="PNG")
    with pytest.raises(OutputError, match="is the scene or its labels"):
        preview(picture, pair[1], picture)
    with pytest.raises(SceneError, match="cannot open the labels .*none.tif"):
        preview(pair[0], tmp_path / "none.tif", tmp_path / "p.png")
    with pytest.raises(OutputError, match="cannot write the picture"):
        preview(*pair, tmp_path / "no" / "p.png")
    with pytest.raises(UsageError, match=r"scene.tif must end in .png"):
        preview(*pair, pair[0])
    assert not list(tmp_path.glob(".*"))  # nothing half-drawn is left


def test_an_overlay_is_the_second_pane_alone(pair: tuple[str, str], tmp_path: Path) -> None:
    both, one = (preview(*pair, tmp_path / f"{o}.png", size=300, overlay=o) for o in (False, True))
    assert one.classes == both.classes
    page = np.asarray(Image.open(one.picture).convert("RGB")).astype(int)
    np.testing.assert_array_equal(page[14:214, 14:314], _panes(both, 300, 200)[1])
    assert page.shape[1] < _size(both)[0]


def test_labels_of_two_dates_stand_side_by_side(pair: tuple[str, str], tmp_path: Path) -> None:
    scene, labels = pair
    other = tmp_path / "other.tif"
    with rasterio.open(labels) as src:
        codes, profile, tags = src.read(), src.profile, src.tags()
        with rasterio.open(other, "w", **profile) as dst:
            dst.write(np.where(codes == 255, 0, codes))
            dst.update_tags(**tags)
            dst.write_colormap(1, src.colormap(1))
    two = preview(scene, labels, tmp_path / "two.png", size=300, beside=other)
    for pane, each in zip(_panes(two, 300, 200), (labels, str(other)), strict=True):
        alone = preview(scene, each, tmp_path / "alone.png", size=300, overlay=True)
        page = np.asarray(Image.open(alone.picture).convert("RGB")).astype(int)
        np.testing.assert_array_equal(pane, page[14:214, 14:314])
    with pytest.raises(UsageError, match="leave overlay and confidence aside"):
        preview(scene, labels, tmp_path / "x.png", beside=other, overlay=True)


def test_a_class_has_one_colour_in_both_panes(write_raster: WriteRaster, tmp_path: Path) -> None:
    """Its code and its own colour may differ; a class of the second alone gets a colour of its own."""
    scene = write_raster(np.full((3, 200, 300), 100, np.uint8), "scene.tif")
    codes = np.zeros((1, 200, 300), np.uint8)
    codes[:, :, 100:200], codes[:, :, 200:] = 1, 2
    paths = []
    for name, names, order in (("a", ("road", "meadow"), (0, 1, 2)), ("b", ("shed", "meadow", "road"), (0, 3, 2))):
        colours = [LegendEntry(0, "", c).colour for c in ("#ff0000", "#00ff00", "#0000ff")]
        record = {
            "classes": [[n, [n], c] for n, c in zip(names, colours, strict=False)],
            "background": ["x"],
            "threshold": None,
        }
        paths.append(write_raster(np.array(order, np.uint8)[codes], f"{name}.tif", tags={RUN_TAG: json.dumps(record)}))
        with rasterio.open(paths[-1], "r+") as dst:
            dst.write_colormap(1, {n: (*LegendEntry(0, "", c).rgb, 255) for n, c in enumerate(colours, start=1)})
    first, second = _panes(preview(scene, paths[0], tmp_path / "p.png", size=900, beside=paths[1]), 900, 600)
    np.testing.assert_array_equal(first, second)
    swatches = _swatches(tmp_path / "p.png", 620)
    assert len({tuple(colour) for colour in swatches}) == len(swatches) == 4  # background, road, meadow, shed
