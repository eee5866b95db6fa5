"""The output files: complete, named, coloured, on the input's grid, and there only when whole."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import numpy as np
import pytest
import rasterio
from affine import Affine
from rasterio.crs import CRS
from rasterio.enums import ColorInterp
from rio_cogeo.cogeo import cog_validate

from geoovseg.errors import OutputError, UsageError
from geoovseg.labels.names import Outputs, output_names
from geoovseg.labels.parts import open_store
from geoovseg.labels.profile import LabelProfile, label_dtype
from geoovseg.labels.read import category_names
from geoovseg.labels.record import RUN_TAG
from geoovseg.labels.write import CONFIDENCE, LABELS, PartsBuilder, assemble
from geoovseg.rasters.ground import RasterGrid
from geoovseg.windows.plan import Part

CLASSES = [("building", "#c0392b"), ("road & rail", "#7f8c8d"), ("water", "#2e86de")]
ROTATED = Affine.translation(480_000, 5_460_000) * Affine.rotation(20) * Affine.scale(0.5, -0.5)
RECORD = json.dumps({"classes": [[n, [n], c] for n, c in CLASSES], "background": ["x"], "threshold": None})


@contextmanager
def _create(outputs: Outputs, grid: RasterGrid, classes: Sequence[tuple[str, str]]) -> Iterator[Callable[..., None]]:
    """Write rows with what this yields; at the end the parts are put together. Leaves as a run does."""
    with open_store(outputs.parts, {}, resume=False, shared=False) as store:
        parts: list[Part] = []
        profile = LabelProfile(grid, tuple(classes))
        more = [CONFIDENCE] if outputs.confidence else []
        builder = PartsBuilder(profile, *more)

        def write(row_off: int, col_off: int, codes: Any, sure: Any) -> None:
            layers = {LABELS: codes, **({CONFIDENCE: sure} if more else {})}
            for done in builder.write(row_off, col_off, layers):
                store.commit(done)
                parts.append(done.part)

        try:
            yield write
            assemble(outputs, profile, store, RECORD, parts)
        finally:
            builder.close()
            store.remove()


def _write(
    path: Path, height: int = 700, width: int = 1100, *, confidence: bool = False, step: int = 130
) -> np.ndarray:
    """Write random codes in two panels, in uneven rows; returns them."""
    codes = np.random.default_rng(0).integers(0, 4, (height, width)).astype(np.uint8)
    codes[:40, :60] = 255
    grid = RasterGrid(height=height, width=width, crs=CRS.from_epsg(32632), transform=ROTATED)
    outputs = Outputs(path, path.with_name("conf.tif") if confidence else None)
    with _create(outputs, grid, CLASSES) as write:
        for first, last in ((0, 512), (512, width)):
            for row in range(0, height, step):
                part = codes[row : row + step, first:last]
                write(row, first, part, np.where(part == 255, 255, 125).astype(np.uint8))
    return codes


@pytest.mark.parametrize("step", [1, 130, 512, 700])
def test_codes_come_back_as_written(tmp_path: Path, step: int) -> None:
    codes = _write(tmp_path / "labels.tif", step=step)
    with rasterio.open(tmp_path / "labels.tif") as src:
        np.testing.assert_array_equal(src.read(1), codes)


def test_grid_nodata_palette_and_record_are_those_of_the_run(tmp_path: Path) -> None:
    _write(tmp_path / "labels.tif")
    with rasterio.open(tmp_path / "labels.tif") as src:
        assert src.crs == CRS.from_epsg(32632)
        assert src.transform == ROTATED
        assert (src.nodata, src.dtypes, src.count) == (255, ("uint8",), 1)
        assert src.colorinterp == (ColorInterp.palette,)
        assert [src.colormap(1)[n][:3] for n in (1, 2, 3)] == [(192, 57, 43), (127, 140, 141), (46, 134, 222)]
        assert src.tags()[RUN_TAG] == RECORD
        assert src.descriptions == ("class",)
        assert category_names(src) == {0: "background", 1: "building", 2: "road & rail", 3: "water"}


def test_it_is_a_cog_with_overviews_that_invent_no_class(tmp_path: Path) -> None:
    codes = _write(tmp_path / "labels.tif")
    valid, errors, warnings = cog_validate(tmp_path / "labels.tif")
    assert (valid, errors, warnings) == (True, [], [])
    with rasterio.open(tmp_path / "labels.tif") as src:
        assert src.tags(ns="IMAGE_STRUCTURE")["LAYOUT"] == "COG"
        assert src.tags(ns="IMAGE_STRUCTURE")["COMPRESSION"] == "DEFLATE"
        assert src.block_shapes == [(512, 512)]
        assert src.overviews(1)
        small = src.read(1, out_shape=(350, 550))
        assert set(np.unique(small)) <= set(np.unique(codes))


def test_overviews_show_the_majority(tmp_path: Path) -> None:
    codes = np.ones((1200, 1200), np.uint8)
    codes[::2, ::2] = 3
    codes[:, 1000::2] = 3  # a tie, where an average would invent a class between the two
    outputs = Outputs(tmp_path / "labels.tif")
    with _create(outputs, RasterGrid(height=1200, width=1200, crs=None, transform=ROTATED), CLASSES) as write:
        write(0, 0, codes, None)
    with rasterio.open(outputs.labels, overview_level=0) as src:
        assert src.shape == (600, 600)
        found = src.read(1)
    assert (found[:, :500] == 1).all()
    assert set(np.unique(found)) == {1, 3}


def test_names_and_counts_stand_in_the_side_file(tmp_path: Path) -> None:
    codes = _write(tmp_path / "labels.tif")
    root = ElementTree.parse(tmp_path / "labels.tif.aux.xml").getroot()
    names = [c.text for c in root.findall(".//CategoryNames/Category")]
    assert names == ["background", "building", "road & rail", "water"]
    rows = [[f.text for f in row] for row in root.findall(".//GDALRasterAttributeTable/Row")]
    assert rows[1] == ["1", "building", "192", "57", "43", str((codes == 1).sum())]
    assert len(rows) == 4


def test_the_style_names_every_class_and_hides_the_background(tmp_path: Path) -> None:
    _write(tmp_path / "labels.tif")
    entries = ElementTree.parse(tmp_path / "labels.qml").getroot().findall(".//paletteEntry")
    assert [(e.get("value"), e.get("label"), e.get("alpha")) for e in entries] == [
        ("0", "background", "0"), ("1", "building", "255"), ("2", "road & rail", "255"), ("3", "water", "255"),
    ]  # fmt: skip


def test_confidence_is_scaled_to_0_1(tmp_path: Path) -> None:
    codes = _write(tmp_path / "labels.tif", confidence=True)
    with rasterio.open(tmp_path / "conf.tif") as src:
        assert src.scales == (1 / 250,)
        assert src.nodata == 255
        assert src.descriptions == ("confidence",)
        value = src.read(1)
    assert (value[codes == 255] == 255).all()
    assert (value[codes != 255] == 125).all()
    style = ElementTree.parse(tmp_path / "conf.qml").getroot().find(".//rasterrenderer")
    assert (style.get("classificationMin"), style.get("classificationMax")) == ("0", "1")


def test_gdalinfo_prints_layout_names_and_nodata(tmp_path: Path) -> None:
    if shutil.which("gdalinfo") is None:
        pytest.skip("gdalinfo is not installed")
    _write(tmp_path / "labels.tif")
    text = subprocess.run(["gdalinfo", tmp_path / "labels.tif"], capture_output=True, text=True, check=True).stdout
    for expected in ("LAYOUT=COG", "NoData Value=255", "Color Table", "1: building", "2: road & rail", "UTM zone 32N"):
        assert expected in text


def test_a_finished_run_leaves_no_working_files(tmp_path: Path) -> None:
    _write(tmp_path / "labels.tif", confidence=True)
    expected = {"labels.tif", "labels.tif.aux.xml", "labels.qml", "conf.tif", "conf.qml"}
    assert {p.name for p in tmp_path.iterdir()} == expected


def test_more_than_254_classes_take_two_bytes(tmp_path: Path) -> None:
    assert label_dtype(254) == ("uint8", 255)
    assert label_dtype(255) == ("uint16", 65535)
    grid = RasterGrid(height=8, width=8, crs=None, transform=Affine.scale(2))
    classes = [(f"c{n}", "#010203") for n in range(300)]
    with _create(Outputs(tmp_path / "l.tif"), grid, classes) as write:
        write(0, 0, np.full((8, 8), 300, np.uint16), None)
    with rasterio.open(tmp_path / "l.tif") as src:
        assert src.dtypes == ("uint16",)
        assert src.nodata == 65535
        assert (src.read(1) == 300).all()


def test_names_follow_the_scene(tmp_path: Path) -> None:
    scene = tmp_path / "ortho.2024.tif"
    scene.touch()
    assert output_names(str(scene), None, None).labels == tmp_path / "ortho.2024_labels.tif"
    assert output_names(str(scene), tmp_path, None).labels == tmp_path / "ortho.2024_labels.tif"
    assert output_names(str(scene), tmp_path / "x.tif", None).labels == tmp_path / "x.tif"
    assert output_names("/vsicurl/https://host/a.tif", None, None).labels == Path("a_labels.tif")


def test_outputs_that_would_lose_something_are_refused(tmp_path: Path) -> None:
    scene, old = tmp_path / "scene.tif", tmp_path / "old.tif"
    scene.touch()
    old.touch()
    cases = [
        (Outputs(scene), True, OutputError, "is read from, as part of the scene"),
        (Outputs(old), False, OutputError, "exists; add --overwrite"),
        (Outputs(tmp_path / "no" / "x.tif"), False, OutputError, "folder .*no does not exist"),
        (Outputs(tmp_path / "x.png"), False, UsageError, "must end in .tif"),
        (Outputs(tmp_path / "x.tif", tmp_path / "a/../x.tiff"), False, UsageError, "names of their own"),
    ]
    for outputs, overwrite, error, message in cases:
        with pytest.raises(error, match=message):
            outputs.check([str(scene)], overwrite=overwrite)
    (tmp_path / "y.tif.parts").mkdir()
    with pytest.raises(OutputError, match="did not finish; --resume goes on with it, --overwrite removes it"):
        Outputs(tmp_path / "y.tif").check([str(scene)], overwrite=False)
    Outputs(old).check([str(scene)], overwrite=True)


def test_the_users_style_is_not_replaced_unasked(tmp_path: Path) -> None:
    (tmp_path / "labels.qml").write_text("mine")
    with pytest.raises(OutputError, match=r"labels.qml exists; add --overwrite"):
        Outputs(tmp_path / "labels.tif").check(["scene.tif"], overwrite=False)
    (tmp_path / "folder.tif").mkdir()
    with pytest.raises(OutputError, match="is a folder"):
        Outputs(tmp_path / "folder.tif").check(["scene.tif"], overwrite=True)
    with pytest.raises(OutputError, match="name too long"):
        Outputs(tmp_path / ("x" * 300 + ".tif")).check(["scene.tif"], overwrite=False)


def test_overwriting_leaves_nothing_of_the_old_outputs(tmp_path: Path) -> None:
    for name in ("labels.tif", "labels.tif.ovr", "labels.tif.msk", "conf.tif.aux.xml", "labels.qml"):
        (tmp_path / name).write_text("old")
    _write(tmp_path / "labels.tif", confidence=True)
    expected = {"labels.tif", "labels.tif.aux.xml", "labels.qml", "conf.tif", "conf.qml"}
    assert {p.name for p in tmp_path.iterdir()} == expected
    assert (tmp_path / "labels.qml").read_text() != "old"


@pytest.mark.parametrize("fails_at", range(5))
@pytest.mark.parametrize("links", [True, False])
def test_a_failing_rename_puts_everything_back(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, fails_at: int, links: bool
) -> None:
    """Whichever of the five renames fails, the old outputs are there as before, and nothing new."""
    old = {"labels.tif", "labels.qml", "labels.tif.aux.xml", "labels.tif.ovr", "conf.tif"}
    for name in old:
        (tmp_path / name).write_text(f"old {name}")
    calls = []
    real = os.replace

    def replace(src: Path, dst: Path) -> None:
        new = Path(dst).parent == tmp_path != Path(src).parent and not Path(src).name.startswith("old_")
        calls.extend([dst] * new)
        if new and len(calls) == fails_at + 1:
            raise OSError(28, "No space left on device")
        real(src, dst)

    def no_link(src: Path, dst: Path) -> None:
        raise OSError(1, "no links here")

    monkeypatch.setattr(os, "replace", replace)
    if not links:
        monkeypatch.setattr(os, "link", no_link)
    with pytest.raises(OutputError, match="No space left"):
        _write(tmp_path / "labels.tif", confidence=True)
    assert {p.name: p.read_text() for p in tmp_path.iterdir()} == {name: f"old {name}" for name in old}


def test_an_interrupt_while_renaming_puts_everything_back(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "labels.tif").write_text("old")
    real = os.replace

    def replace(src: Path, dst: Path) -> None:
        if Path(src).name == "cog_labels.tif" and Path(dst).name == "labels.tif":
            raise KeyboardInterrupt
        real(src, dst)

    monkeypatch.setattr(os, "replace", replace)
    with pytest.raises(KeyboardInterrupt):
        _write(tmp_path / "labels.tif")
    assert {p.name: p.read_text() for p in tmp_path.iterdir()} == {"labels.tif": "old"}


def test_the_label_raster_is_named_last(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    named: list[str] = []
    real = os.replace
    monkeypatch.setattr(os, "replace", lambda src, dst: (named.append(Path(dst).name), real(src, dst)))
    _write(tmp_path / "labels.tif", confidence=True)
    named = [name for name in named if not name.startswith("part_") and name not in ("run.json", "named.json")]
    assert named == ["conf.qml", "conf.tif", "labels.tif.aux.xml", "labels.qml", "labels.tif"]


def test_a_raster_that_cannot_be_made_leaves_nothing(tmp_path: Path) -> None:
    grid = RasterGrid(height=3_000_000_000, width=10, crs=None, transform=Affine.scale(2))
    with pytest.raises(OutputError), _create(Outputs(tmp_path / "labels.tif"), grid, CLASSES):
        pass
    assert list(tmp_path.iterdir()) == []
