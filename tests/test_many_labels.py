"""Many label rasters at once: compared with their truth, and made into polygons."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import geopandas
import numpy as np
import pyogrio
import pytest
from conftest import TRANSFORM, zipped
from shapely.geometry import box

from geoovseg.errors import GeoOVSegWarning, UsageError
from geoovseg.evaluation import evaluate
from geoovseg.labels.preview import preview
from geoovseg.labels.record import RUN_TAG
from geoovseg.vectors.vectorize import vectorize

Run = Callable[..., tuple[int, str, str]]
TAGS = {
    RUN_TAG: json.dumps(
        {"classes": [[n, [n], "#000000"] for n in ("road", "water")], "threshold": None, "background": []}
    )
}


@pytest.fixture
def folders(write_raster: Callable[..., str], tmp_path: Path) -> tuple[Path, Path]:
    """Two rasters of labels with their truth, as a user names them: the first half right, the second all."""
    for folder in ("labels", "truth"):
        (tmp_path / folder).mkdir()
    truth = np.array([[1, 1, 2, 2]], np.uint8)[None]
    write_raster(np.array([[1, 2, 2, 1]], np.uint8)[None], "labels/a_labels.tif", tags=TAGS)
    write_raster(truth, "labels/b_labels.tif", tags=TAGS)
    write_raster(truth, "truth/a.tif", tags=TAGS)
    write_raster(truth, "truth/b_mask.tif", tags=TAGS)
    return tmp_path / "labels", tmp_path / "truth"


def test_folders_are_compared_file_by_file_and_in_one_matrix(folders: tuple[Path, Path], geoovseg: Run) -> None:
    result = evaluate(*folders)
    assert result.confusion == [[3, 1, 0], [1, 3, 0]]
    assert result.accuracy == 6 / 8
    assert result.miou == pytest.approx(3 / 5)
    assert [Path(each["labels"]).name for each in result.files] == ["a_labels.tif", "b_labels.tif"]
    assert [each["miou"] for each in result.files] == [pytest.approx(1 / 3), 1.0]
    code, out, err = geoovseg("evaluate", *folders, "--json")
    assert code == 0, err
    assert json.loads(out)["files"][0]["confusion"] == [[1, 1, 0], [1, 1, 0]]
    _, out, _ = geoovseg("evaluate", *folders)
    assert "all pixels of 2 files together:" in out
    assert out.splitlines()[1].split() == [str(folders[0] / "a_labels.tif"), "0.333", "0.500"]


def test_lists_are_compared_in_their_order(folders: tuple[Path, Path], tmp_path: Path, geoovseg: Run) -> None:
    labels, truths = (sorted(folder.iterdir()) for folder in folders)
    assert evaluate(labels, truths).confusion == evaluate(*folders).confusion
    for name, paths in (("l.txt", labels), ("t.txt", truths)):
        (tmp_path / name).write_text("\n".join(map(str, paths)) + "\n")
    _, out, err = geoovseg("evaluate", f"@{tmp_path / 'l.txt'}", f"@{tmp_path / 't.txt'}", "--json")
    assert json.loads(out)["confusion"] == [[3, 1, 0], [1, 3, 0]], err
    assert json.loads(geoovseg("evaluate", *labels, folders[1], "--json")[1])["confusion"] == [[3, 1, 0], [1, 3, 0]]
    with pytest.raises(UsageError, match="2 labels and 1 truths"):
        evaluate(labels, truths[:1])
    code, _, err = geoovseg("evaluate", f"@{tmp_path / 'none.txt'}", folders[1])
    assert (code, "cannot read this list of paths" in err) == (2, True)


def test_one_truth_can_be_for_all_labels(folders: tuple[Path, Path], tmp_path: Path) -> None:
    shapes = tmp_path / "truth.gpkg"
    vectorize(folders[1] / "a.tif", shapes, workers=1)
    for truth in (folders[1] / "a.tif", shapes):
        assert evaluate(folders[0], truth).confusion == [[3, 1, 0], [1, 3, 0]]


def test_labels_without_truth_are_refused_and_truth_without_labels_is_told(folders: tuple[Path, Path]) -> None:
    labels, truth = folders
    shutil.copy(truth / "a.tif", truth / "c.tif")
    with pytest.warns(GeoOVSegWarning, match=r"without labels, and left out: .*c.tif$"):
        evaluate(*folders)
    shutil.copy(labels / "a_labels.tif", labels / "d_labels.tif")
    with pytest.raises(UsageError, match=r"d_labels.tif has no truth of its name among"):
        evaluate(*folders)
    (labels / "d_labels.tif").unlink()
    shutil.copy(truth / "b_mask.tif", truth / "b_truth.tif")
    with pytest.raises(UsageError, match=r"b_labels.tif has several truths: .*b_mask.tif, .*b_truth.tif"):
        evaluate(*folders)
    (labels / "sub").mkdir()
    with pytest.raises(UsageError, match="has no labels"):
        evaluate(labels / "sub", truth)


def test_the_name_of_truth_is_never_taken_for_a_longer_one(folders: tuple[Path, Path]) -> None:
    labels, truth = folders
    (truth / "a.tif").rename(truth / "a_1.tif")
    with pytest.raises(UsageError, match=r"a_labels.tif has no truth of its name"):
        evaluate(labels, truth)


def test_one_of_several_truths_may_be_without_a_class(folders: tuple[Path, Path], tmp_path: Path) -> None:
    labels, _ = folders
    shapes = tmp_path / "shapes"
    shapes.mkdir()
    for name, streets in (("a", ["street", "water"]), ("b", ["water", "water"])):
        left, top = TRANSFORM.c, TRANSFORM.f
        squares = [box(left + n, top - 0.5, left + n + 1, top) for n in range(2)]
        table = geopandas.GeoDataFrame({"class_name": streets, "geometry": squares}, crs="EPSG:32632")
        table.to_file(shapes / f"{name}.fgb")
    result = evaluate(labels, shapes, mapping=["street=road"])
    assert result.confusion == [[1, 1, 0], [3, 3, 0]]
    with pytest.raises(UsageError, match="--map lane=...: the truth has street, water"):
        evaluate(labels, shapes, mapping={"lane": "road"})


def test_a_file_without_a_pixel_to_compare_is_told(
    folders: tuple[Path, Path], write_raster: Callable[..., str]
) -> None:
    write_raster(np.zeros((1, 1, 4), np.uint8), "truth/b_mask.tif", tags=TAGS, nodata=0)
    with pytest.warns(GeoOVSegWarning, match=r"b_labels.tif: no pixel has both a label and a truth class"):
        result = evaluate(*folders)
    assert result.files[1]["miou"] is None
    assert result.confusion == [[1, 1, 0], [1, 1, 0]]
    assert result.ignored == {"nodata": 4}


def test_folders_of_labels_become_polygons_in_a_folder(
    folders: tuple[Path, Path], tmp_path: Path, geoovseg: Run
) -> None:
    out = tmp_path / "polygons"
    code, said, err = geoovseg("vectorize", folders[0], f"{out}/", "--workers", "1")
    assert code == 0, err
    assert said.split() == [str(out / f"{name}_classes.gpkg") for name in "ab"]
    assert "2 label rasters: 2 done" in err
    assert [len(pyogrio.read_dataframe(path, layer="classes")) for path in said.split()] == [3, 2]
    code, _, err = geoovseg("vectorize", folders[0], out, "--workers", "1")
    assert code == 1
    assert "a_classes.gpkg exists" in err


def test_one_raster_of_labels_may_go_to_a_folder_too(folders: tuple[Path, Path], tmp_path: Path, geoovseg: Run) -> None:
    code, said, err = geoovseg("vectorize", folders[0] / "a_labels.tif", f"{tmp_path}/new/", "--workers", "1")
    assert (code, said.strip()) == (0, str(tmp_path / "new" / "a_classes.gpkg")), err


def test_labels_that_cannot_be_read_do_not_keep_others_from_it(
    folders: tuple[Path, Path], tmp_path: Path, geoovseg: Run
) -> None:
    (folders[0] / "a_labels.tif").write_text("nothing")
    code, said, err = geoovseg("vectorize", folders[0], tmp_path / "out", "--workers", "1")
    assert code == 4
    assert said.strip() == str(tmp_path / "out" / "b_classes.gpkg")
    assert "1 failed" in err


def test_outputs_of_many_that_cannot_be_are_refused(folders: tuple[Path, Path], tmp_path: Path, geoovseg: Run) -> None:
    labels, truth = folders
    code, _, err = geoovseg("vectorize", labels, tmp_path / "x.gpkg")
    assert (code, "the output is a folder" in err) == (2, True)
    code, _, err = geoovseg("vectorize", labels / "a_labels.tif", truth / "a.tif", tmp_path / "out")
    assert (code, "would have the same output" in err) == (2, True)
    code, _, err = geoovseg("vectorize", labels, tmp_path / "out", "--confidence", labels / "a_labels.tif")
    assert (code, "give the folder of their confidence" in err) == (2, True)


def test_confidence_of_many_is_found_by_name(
    folders: tuple[Path, Path], write_raster: Callable[..., str], tmp_path: Path, geoovseg: Run
) -> None:
    for name, sure in (("a", 0.5), ("b", 0.25)):
        write_raster(np.full((1, 1, 4), sure, np.float32), f"labels/{name}_confidence.tif")
    _, said, err = geoovseg("vectorize", folders[0], f"{tmp_path}/out/", "--confidence", folders[0], "--workers", "1")
    means = [set(pyogrio.read_dataframe(path, layer="classes").confidence) for path in said.split()]
    assert means == [{0.5}, {0.25}], err


def test_labels_become_polygons_and_pictures_wherever_they_lie(
    folders: tuple[Path, Path], write_raster: Callable[..., str], tmp_path: Path, served: str, geoovseg: Run
) -> None:
    scene = write_raster(np.ones((3, 1, 4), np.uint8), "labels/scene.tif")
    archive = zipped(folders[0])
    for place in (f"{served}/labels", f"/vsizip/{archive}", f"zip://{archive}!"):
        path = f"{place}/a_labels.tif"
        code, out, err = geoovseg("vectorize", path, tmp_path / "o.gpkg", "--overwrite", "--workers", "1")
        assert code == 0, err
        assert len(pyogrio.read_dataframe(tmp_path / "o.gpkg", layer="classes")) == 3
        code, out, err = geoovseg("preview", scene, path, tmp_path / "p.png")
        assert code == 0, err
        assert preview(scene, path, tmp_path / "p.png").picture == out.strip()
    for command in (("vectorize",), ("preview", scene)):
        target = tmp_path / ("x.gpkg" if command == ("vectorize",) else "x.png")
        code, _, err = geoovseg(*command, f"{served}/labels/a_labels.tif", target, "--offline")
        assert code == 4
        assert "is not on this machine" in err
    _, said, err = geoovseg("vectorize", f"{served}/labels/a_labels.tif", f"{tmp_path}/far/", "--workers", "1")
    assert said.strip() == str(tmp_path / "far" / "a_classes.gpkg"), err
