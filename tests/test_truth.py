"""What truth says and does not: colours, no data, what it does not cover, and figures that can only be 1."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import geopandas
import numpy as np
import pytest
from conftest import TRANSFORM, zipped
from rasterio.enums import ColorInterp
from rasterio.transform import from_origin
from shapely.geometry import box

from geoovseg.errors import GeoOVSegError, SceneError, UsageError
from geoovseg.evaluation import evaluate
from geoovseg.evaluation.colours import read_colours
from geoovseg.labels.record import RUN_TAG
from geoovseg.labels.styles import LegendEntry, label_aux_xml
from geoovseg.prompts import colour_tables
from geoovseg.vocabulary import read_vocabulary

Write = Callable[..., str]
Run = Callable[..., tuple[int, str, str]]
BLUE, BLACK, RED = (0, 0, 255), (0, 0, 0), (255, 0, 0)


def _tags(*names: str, background: bool = True) -> dict[str, str]:
    record = {"classes": [[n, [n], "#000000"] for n in names], "threshold": None, "background": ["x"] * background}
    return {RUN_TAG: json.dumps(record)}


@pytest.fixture
def labels(write_raster: Write) -> str:
    """Buildings on the left half, of which the truth of the other fixtures has the upper row, and background."""
    return write_raster(np.array([[1, 1, 0, 0], [1, 1, 0, 0]], np.uint8)[None], "labels.tif", tags=_tags("building"))


@pytest.fixture
def footprint(tmp_path: Path) -> Path:
    """The upper row of the left half."""
    left, top = TRANSFORM.c, TRANSFORM.f
    shapes = [box(left, top - 0.5, left + 1, top)]
    table = geopandas.GeoDataFrame({"class_name": ["building"], "geometry": shapes}, crs="EPSG:32632")
    table.to_file(tmp_path / "truth.fgb")
    return tmp_path / "truth.fgb"


def _coloured(write_raster: Write, upper: Any = BLUE, other: Any = BLACK, **profile: Any) -> str:
    """The same in colours."""
    pixels = np.array([[upper, upper, other, other], [other] * 4], np.uint8)
    bands = np.moveaxis(pixels, -1, 0)
    if profile.pop("alpha", False):
        bands = np.concatenate([bands, np.full((1, 2, 4), 255, np.uint8)])
        profile["alpha"] = "yes"
    return write_raster(bands, "truth.tif", **{"photometric": "rgb", **profile})


CONFUSION = [[4, 2, 0], [0, 2, 0]]
"""Rows background and building: two pixels of background are labelled building."""


def test_outside_counts_what_shapes_do_not_cover(labels: str, footprint: Path) -> None:
    bare = evaluate(labels, footprint)
    assert bare.classes["building"].precision == 1.0
    assert bare.uncovered == 6
    result = evaluate(labels, footprint, outside="background")
    assert result.order == ["background", "building"]
    assert result.confusion == CONFUSION
    assert result.classes["building"].precision == 0.5
    assert result.remarks == ()
    assert result.ignored == {}
    with pytest.raises(UsageError, match="--outside soil: the labels have background, building"):
        evaluate(labels, footprint, outside="soil")


def test_a_place_without_any_shape_is_all_outside(labels: str, footprint: Path) -> None:
    geopandas.read_file(footprint).iloc[:0].to_file(footprint)
    assert evaluate(labels, footprint, outside="background").confusion == [[4, 4]]
    with pytest.raises(UsageError, match="no class of"):
        evaluate(labels, footprint)


def test_outside_may_be_a_class_of_the_truth_that_is_mapped(labels: str, write_raster: Write) -> None:
    path = write_raster(np.array([[1, 1, 2, 0], [2, 0, 0, 0]], np.uint8)[None], "t.tif", nodata=0)
    given = {"1": "building", "2": "background"}
    assert evaluate(labels, path, mapping=given, outside="2").confusion == CONFUSION


def test_outside_of_truth_that_covers_all_is_no_class(labels: str, write_raster: Write) -> None:
    path = write_raster(np.ones((1, 2, 4), np.uint8), "t.tif", tags=_tags("building", background=False))
    result = evaluate(labels, path, outside="background")
    assert result.order == ["building"]
    assert result.miou == evaluate(labels, path).miou
    assert "--outside background does nothing: the truth covers every pixel that has a label" in result.remarks[0]


def test_outside_is_also_what_lies_beyond_a_raster(labels: str, write_raster: Write) -> None:
    path = write_raster(np.ones((1, 1, 2), np.uint8), "t.tif", tags=_tags("building", background=False))
    assert evaluate(labels, path, outside="background").confusion == CONFUSION


def test_a_precision_that_can_only_be_1_is_told(
    labels: str, footprint: Path, write_raster: Write, geoovseg: Run
) -> None:
    code, out, err = geoovseg("evaluate", labels, footprint)
    assert code == 0
    assert "1.000" in out
    said = "warning: all compared pixels are of one class of the truth, building, so its precision is 1 whatever the"
    assert said in err
    assert "--outside background counts what the truth does not cover" in err
    assert "'*=background'" not in err  # which would change nothing
    assert said not in geoovseg("evaluate", labels, footprint, "--outside", "background")[2]
    assert json.loads(geoovseg("evaluate", labels, footprint, "--json")[1])["remarks"]
    path = write_raster(np.full((1, 2, 4), 2, np.uint8), "t.tif", tags=_tags("lake", "building", background=False))
    assert "--map" not in evaluate(labels, path).remarks[0]
    codes = np.array([[2, 2, 1, 1], [1, 1, 1, 1]], np.uint8)[None]
    path = write_raster(codes, "t.tif", tags=_tags("lake", "building", background=False))
    assert "--map '*=background' counts lake" in evaluate(labels, path).remarks[0]
    assert evaluate(labels, path, mapping={"*": "background"}).confusion == CONFUSION


@pytest.mark.parametrize("alpha", [False, True])
def test_truth_in_colours_is_decoded_or_refused(labels: str, write_raster: Write, alpha: bool) -> None:
    path = _coloured(write_raster, alpha=alpha)
    with pytest.raises(UsageError, match=r"classes are colours.*--map '#0000ff=building'.*--colours iSAID\|potsdam"):
        evaluate(labels, path)
    found = evaluate(labels, path, mapping={"#0000ff": "building"})
    assert found.ignored == {"#000000": 6}
    for mapping in ({"#0000FF": "building", "#000000": "background"}, {"#0000ff": "building", "*": "background"}):
        assert evaluate(labels, path, mapping=mapping).confusion == CONFUSION
    assert evaluate(labels, path, mapping=["#0000ff=building,*=background"]).confusion == CONFUSION
    with pytest.raises(UsageError, match="--map 3=...: the truth has codes, no names"):
        evaluate(labels, path, mapping={"3": "building"})


def test_the_red_band_of_colours_is_never_taken_for_codes(labels: str, write_raster: Write) -> None:
    for bands in (2, 4, 5):
        data = np.ones((bands, 2, 4), np.uint16 if bands == 4 else np.uint8)
        with pytest.raises(SceneError, match=f"has {bands} bands"):
            evaluate(labels, write_raster(data, "t.tif"), mapping={"1": "building"})


def test_truth_with_the_colours_of_a_picture_is_told(write_raster: Write) -> None:
    pixels = np.random.default_rng(0).integers(1, 255, (3, 20, 20)).astype(np.uint8)
    pixels[:, 0] = [[0], [0], [255]]
    labels = write_raster(np.ones((1, 20, 20), np.uint8), "l.tif", tags=_tags("building"))
    truth = write_raster(pixels, "t.tif", photometric="rgb")
    for more in ({}, {"*": "background"}):
        result = evaluate(labels, truth, mapping={"#0000ff": "building", **more})
        assert "the truth has 380 colours that stand for no class: is it a picture" in " ".join(result.remarks)
        assert result.ignored == ({} if more else {"380 other colours": 380})


def test_published_colours_are_known_by_name(labels: str, write_raster: Write, geoovseg: Run) -> None:
    path = _coloured(write_raster, other=RED)
    result = evaluate(labels, path, colours="Potsdam")
    assert result.ignored == {"clutter": 6}
    assert evaluate(labels, path, colours="vaihingen", mapping={"*": "background"}).confusion == CONFUSION
    _, out, err = geoovseg("evaluate", labels, path, "--colours", "potsdam", "--map", "clutter=background", "--json")
    assert json.loads(out)["confusion"] == CONFUSION, err
    eroded = evaluate(labels, _coloured(write_raster), colours="potsdam", mapping={"*": "background"})
    assert eroded.ignored == {"nodata": 6}  # black is not compared
    with pytest.raises(UsageError, match=r"no table of colours named 'nope'.*iSAID, potsdam, uavid, udd5, vaihingen"):
        evaluate(labels, path, colours="nope")


@pytest.mark.parametrize("name", ["potsdam", "vaihingen", "uavid", "udd5", "iSAID"])
def test_tables_of_colours_have_the_classes_of_the_lists(name: str) -> None:
    words = read_vocabulary(name)
    wanted = {*words.names, *(["background"] if words.background else [])}
    assert {*read_colours(name).values()} - {"nodata"} == wanted
    assert len(colour_tables()) == 5


def test_published_colours_are_those_of_the_data_sets() -> None:
    some = {
        "potsdam": {(255, 255, 255): "impervious surface", (0, 255, 255): "low vegetation", (255, 255, 0): "car"},
        "uavid": {(192, 0, 192): "car", (64, 0, 128): "car", (128, 64, 128): "road", (64, 64, 0): "human"},
        "udd5": {(107, 142, 35): "vegetation", (0, 0, 142): "vehicle", (102, 102, 156): "building"},
        "iSAID": {(0, 0, 63): "ship", (0, 100, 155): "harbor", (0, 127, 127): "large vehicle"},
    }
    for name, colours in some.items():
        table = read_colours(name)
        assert {rgb: table[rgb[0] << 16 | rgb[1] << 8 | rgb[2]] for rgb in colours} == colours


def test_a_file_may_say_what_colours_mean(labels: str, write_raster: Write, tmp_path: Path) -> None:
    table = tmp_path / "mine.txt"
    table.write_text("# mine\nbuilding: house,roof #0000ff\nbackground #000000\n")
    assert evaluate(labels, _coloured(write_raster), colours=str(table)).confusion == CONFUSION
    table.write_text("building\n")
    with pytest.raises(UsageError, match="mine.txt, line 1: write name #rrggbb"):
        evaluate(labels, _coloured(write_raster), colours=str(table))


def test_a_palette_is_decoded_too(labels: str, write_raster: Write) -> None:
    import rasterio

    path = write_raster(np.array([[7, 7, 0, 0], [0] * 4], np.uint8)[None], "t.tif", photometric="palette")
    with rasterio.open(path, "r+") as dst:
        dst.write_colormap(1, {0: (0, 0, 0, 255), 7: (0, 0, 255, 255)})
    given = {"#0000ff": "building", "0": "background"}
    assert evaluate(labels, path, mapping=given).confusion == CONFUSION
    assert evaluate(labels, path, colours="potsdam", mapping={"0": "background"}).ignored == {"nodata": 6}
    with pytest.raises(UsageError, match="no such colour"):
        evaluate(labels, path, mapping={"#123456": "building"})
    plain = write_raster(np.ones((1, 2, 4), np.uint8), "p.tif")
    with pytest.raises(UsageError, match=r"--colours potsdam: .*p.tif has codes and no palette"):
        evaluate(labels, plain, colours="potsdam")


@pytest.mark.parametrize("kind", ["codes", "colours"])
def test_a_mapped_code_that_is_no_data_is_told_and_harms_nothing(labels: str, write_raster: Write, kind: str) -> None:
    if kind == "codes":
        path = write_raster(np.array([[5, 5, 0, 0], [0] * 4], np.uint8)[None], "t.tif", nodata=0)
        one, none = "5", "0"
    else:
        path, one, none = _coloured(write_raster, nodata=0), "#0000ff", "#000000"
    plain = evaluate(labels, path, mapping={one: "building"})
    result = evaluate(labels, path, mapping={one: "building", none: "background"})
    assert result.miou == plain.miou == 1.0
    assert result.order == ["building"]
    assert f"--map {none}=background does nothing: the truth says that its code {none} is no data" in result.remarks[0]
    assert "--truth-nodata none" in result.remarks[0]
    counted = evaluate(labels, path, mapping={one: "building", none: "background"}, truth_nodata="none")
    assert counted.confusion == CONFUSION
    assert counted.remarks == ()
    assert evaluate(labels, path, mapping={one: "building"}, outside="background").confusion == CONFUSION


def test_a_named_class_that_is_no_data_is_told(labels: str, write_raster: Write) -> None:
    path = write_raster(np.array([[1, 1, 0, 0], [0] * 4], np.uint8)[None], "t.tif", nodata=0)
    legend = [LegendEntry(0, "background", "#000000"), LegendEntry(1, "building", "#000000")]
    Path(f"{path}.aux.xml").write_text(label_aux_xml(legend))
    result = evaluate(labels, path)
    assert result.order == ["building"]
    assert "background is not compared: the truth says that its code 0 is no data" in result.remarks[0]
    assert evaluate(labels, path, truth_nodata="none").confusion == CONFUSION


def test_nodata_of_the_truth_can_be_another_code_or_colour(labels: str, write_raster: Write) -> None:
    path = write_raster(np.array([[1, 1, 0, 9], [0, 0, 0, 9]], np.uint8)[None], "t.tif", nodata=0)
    mapping = {"1": "building", "*": "background"}
    assert evaluate(labels, path, mapping=mapping, truth_nodata=9).confusion == [[2, 2, 0], [0, 2, 0]]
    assert evaluate(labels, path, mapping=mapping, truth_nodata="9").ignored == {"nodata": 2}
    coloured = _coloured(write_raster, other=RED)
    given = {"#0000ff": "building", "*": "background"}
    assert evaluate(labels, coloured, mapping=given, truth_nodata="#ff0000").ignored == {"nodata": 6}
    with pytest.raises(UsageError, match="--truth-nodata x: write none, a code as in 255"):
        evaluate(labels, path, mapping=mapping, truth_nodata="x")


@pytest.mark.parametrize("kind", ["codes", "colours"])
def test_nodata_that_counts_does_so_on_another_grid_too(labels: str, write_raster: Write, kind: str) -> None:
    fine = from_origin(TRANSFORM.c, TRANSFORM.f, 0.25, 0.25)
    codes = np.kron(np.array([[5, 5, 0, 0]], np.uint8), np.ones((2, 2), np.uint8))[None]
    bands = codes if kind == "codes" else np.concatenate([codes * 0, codes * 0, codes * 51])
    path = write_raster(bands, "t.tif", nodata=0, transform=fine)
    mapping = (
        {"5": "building", "0": "background"} if kind == "codes" else {"#0000ff": "building", "#000000": "background"}
    )
    result = evaluate(labels, path, mapping=mapping, truth_nodata="none")
    assert result.confusion == [[2, 0, 0], [0, 2, 0]]  # the lower row lies beyond the truth
    assert result.ignored == {"nodata": 4}


def test_options_that_do_not_fit_shapes_are_refused(labels: str, footprint: Path) -> None:
    for given in ({"truth_nodata": "none"}, {"colours": "potsdam"}):
        with pytest.raises(UsageError, match="holds shapes"):
            evaluate(labels, footprint, **given)


def test_a_star_takes_codes_without_names_too(labels: str, write_raster: Write) -> None:
    path = write_raster(np.array([[5, 5, 3, 3], [4] * 4], np.uint8)[None], "t.tif")
    assert evaluate(labels, path, mapping={"5": "building", "*": "background"}).confusion == CONFUSION


def test_names_with_commas_can_be_mapped(labels: str, write_raster: Write) -> None:
    names = ("Developed, High", "Open, Water")
    path = write_raster(
        np.array([[1, 1, 2, 2], [2] * 4], np.uint8)[None], "t.tif", tags=_tags(*names, background=False)
    )
    given = "Developed, High=building,Open, Water=background"
    assert evaluate(labels, path, mapping=[given]).confusion == CONFUSION
    assert evaluate(labels, path, mapping=given).confusion == CONFUSION
    with pytest.raises(UsageError, match="--map Developed=...: the truth has Developed, High, Open, Water"):
        evaluate(labels, path, mapping=["Developed=building"])


def test_a_layer_of_the_truth_can_be_chosen(labels: str, footprint: Path, tmp_path: Path, geoovseg: Run) -> None:
    path, table = tmp_path / "two.gpkg", geopandas.read_file(footprint)
    table.translate(100).to_frame("geometry").assign(class_name="building").to_file(path, layer="far")
    table.to_file(path, layer="near")
    code, out, err = geoovseg("evaluate", labels, path, "--layer", "near", "--outside", "background", "--json")
    assert code == 0, err
    assert json.loads(out)["confusion"] == CONFUSION
    _, _, err = geoovseg("evaluate", labels, path, "--outside", "background")
    assert "has the layers far, near; far is used: choose by --layer" in err


@pytest.mark.parametrize("of", ["labels", "shapes", "raster"])
def test_truth_and_labels_are_read_wherever_they_lie(
    labels: str, footprint: Path, write_raster: Write, tmp_path: Path, served: str, geoovseg: Run, of: str
) -> None:
    write_raster(np.array([[1, 1, 0, 0], [0] * 4], np.uint8)[None], "truth.tif", tags=_tags("building"))
    name = {"labels": "labels.tif", "shapes": footprint.name, "raster": "truth.tif"}[of]
    archive = zipped(tmp_path)
    for path in (f"{served}/{name}", f"/vsizip/{archive}/{name}", f"zip://{archive}!/{name}"):
        pair = (path, footprint) if of == "labels" else (labels, path)
        code, out, err = geoovseg("evaluate", *pair, "--outside", "background", "--json")
        assert code == 0, err
        assert json.loads(out)["confusion"] == CONFUSION
    code, _, err = geoovseg(
        "evaluate", *((f"{served}/{name}", footprint) if of == "labels" else (labels, f"{served}/{name}")), "--offline"
    )
    assert code == 4
    assert "is not on this machine" in err


def test_a_path_that_was_an_address_is_told(labels: str) -> None:
    with pytest.raises(GeoOVSegError, match="give addresses as text"):
        evaluate(Path("https://host/labels.tif"), labels)


def test_truth_that_lies_elsewhere_is_told(write_raster: Callable[..., str]) -> None:
    labels = write_raster(np.ones((1, 8, 8), np.uint8), "labels.tif")
    legend = [LegendEntry(0, "background", "#eeeeee"), LegendEntry(1, "road", "#777777")]
    Path(f"{labels}.aux.xml").write_text(label_aux_xml(legend))
    far = write_raster(np.ones((1, 8, 8), np.uint8), "far.tif", transform=from_origin(900_000, 5_000_000, 0.5, 0.5))
    found = evaluate(labels, far, mapping={"1": "road"}, outside="background")
    assert any("does not meet the labels" in remark for remark in found.remarks)
    assert evaluate(labels, labels, mapping={1: "road"}).miou == 1  # type: ignore[dict-item]


def test_bands_in_another_order_are_read_by_their_colour(write_raster: Callable[..., str]) -> None:
    labels = write_raster(np.ones((1, 8, 8), np.uint8), "labels.tif")
    Path(f"{labels}.aux.xml").write_text(label_aux_xml([LegendEntry(1, "road", "#777777")]))
    data = np.zeros((3, 8, 8), np.uint8)
    data[0] = 255
    kinds = (ColorInterp.blue, ColorInterp.green, ColorInterp.red)
    truth = write_raster(data, "truth.tif", colorinterp=kinds)
    assert evaluate(labels, truth, mapping={"#0000ff": "road"}).miou == 1
