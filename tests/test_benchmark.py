"""Data sets of the papers, in miniature and as they are published, through `geoovseg benchmark`."""

from __future__ import annotations

import csv
import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import geopandas
import numpy as np
import open_clip
import pytest
import rasterio
import test_coninfer as contexts
import test_golden_published as slides
import test_resegclip as masks
import torch
import yaml
from golden_cases import Case, build, case_id, clip_model, find, sam_model, vision_model
from PIL import Image
from rasterio.transform import from_origin
from shapely import LineString, Polygon
from torch.nn import functional as F

from geoovseg.errors import GeoOVSegError, OutputError, SceneError, UsageError
from geoovseg.evaluation import benchmark as bench
from geoovseg.evaluation import datasets, tables
from geoovseg.evaluation.prepared import Pair, image_of, pairs, truth_of
from geoovseg.evaluation.results import Found, confusion, results
from geoovseg.methods import METHODS, read_settings, releases, upsampled
from geoovseg.methods.blocks import Cut
from geoovseg.methods.published import RELEASES, Protocol, predict
from geoovseg.methods.published import run as released
from geoovseg.models.text import TextEncoder
from geoovseg.prompts import templates
from geoovseg.run.published import Published, Seen
from geoovseg.settings import Settings
from geoovseg.vocabulary import read_vocabulary

pytestmark = [
    pytest.mark.filterwarnings("ignore::rasterio.errors.NotGeoreferencedWarning"),
    pytest.mark.filterwarnings("ignore:.*is a class, so it is left out of the background"),
]
NAMES = datasets.names()
SIDE = (13, 17)


def _write(path: Path, bands: np.ndarray) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    driver = {".png": "PNG", ".jpg": "JPEG", ".JPG": "JPEG", ".tif": "GTiff"}[path.suffix]
    more = {"QUALITY": 100} if driver == "JPEG" else {}
    size = {"height": bands.shape[1], "width": bands.shape[2], "count": len(bands), "dtype": "uint8"}
    with rasterio.open(path, "w", driver=driver, **size, **more) as dst:
        dst.write(bands.astype(np.uint8))


def _coded(classes: np.ndarray, code: str) -> np.ndarray:
    """Classes (255 unknown) as the data set writes them."""
    if code == "binary":
        return np.where(classes == 1, 255, 0)
    return np.where(classes == 255, 0, classes + 1) if code == "reduce_zero" else classes


def _miniature(data: datasets.DataSet, folder: Path, count: int = 3) -> list[np.ndarray]:
    """Images and truth in the published layout; returns the truth, by index."""
    rng, found = np.random.default_rng(7), []
    for n in range(count):
        classes = np.arange(SIDE[0] * SIDE[1]).reshape(SIDE) % len(data.labels)
        if data.code != "binary":
            classes[rng.random(SIDE) < 0.1] = 255
        name = f"city/tile_{n}" if n == 1 else f"tile_{n}"
        _write(folder / "img" / f"{name}{data.image_suffix}", rng.integers(0, 255, (3, *SIDE)))
        _write(folder / "ann" / f"{name}{data.truth_suffix}", _coded(classes, data.code)[None])
        found.append(classes)
    return [found[1], found[0], found[2]]  # in the order of bytes, city/ comes first


class Pretended:
    """Sees a class of its own in every pixel, by its place."""

    weights: dict[str, str | None] = {"weights_sha256": "0" * 64}  # noqa: RUF012

    def __init__(self, classes: int) -> None:
        self.classes, self.calls = classes, 0

    def see(self, images: Sequence[np.ndarray]) -> list[Seen]:
        """Classes and how sure they are."""
        self.calls += len(images)
        place = np.arange(SIDE[0] * SIDE[1]).reshape(SIDE)
        seen = Seen((place * 7 // 3 % self.classes).astype(np.uint8), (place % 11 / 10).astype(np.float32))
        return [seen for _ in images]


def _small(name: str, folder: Path) -> Path:
    """The data set's file, for three images."""
    said = yaml.safe_load(datasets.file_of(name).read_text())
    said["expect"] = {"images": 3}
    (folder / f"{name}.yaml").write_text(yaml.safe_dump(said))
    return folder / f"{name}.yaml"


def _run(file: Path, folder: Path, **more: Any) -> Found:
    settings = Settings(method=more.pop("method", "segearth"), overwrite=more.pop("overwrite", False))
    places = (str(folder / "img"), str(folder / "ann"), str(folder / "out"))
    return bench.benchmark(str(file), *places, settings, **more)


@pytest.mark.parametrize("name", NAMES)
def test_a_miniature_of_each_data_set_gives_the_confusion_counted_apart(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = _small(name, tmp_path)
    data = datasets.read_data_set(str(file))
    truths, method = _miniature(data, tmp_path), next(m for m in ("segearth", "clearclip", "sclip") if _has(data, m))
    looks = Pretended(len(data.labels))
    monkeypatch.setattr(bench, "opened", lambda *given: looks)
    found = _run(file, tmp_path, method=method, sweep=[0.0, 0.5])
    release = data.release(method)
    for threshold, counts in ((release.threshold, found.confusions.sum(0)), *found.sweep.items()):
        expected = np.zeros_like(counts)
        classes, sure, _ = looks.see([np.empty(0)])[0]
        given = np.where(sure < np.float32(threshold), release.background, classes)
        for truth in truths:
            for true, label in zip(truth.ravel().tolist(), given.ravel().tolist(), strict=True):
                if true != 255:
                    expected[true, label] += 1
        np.testing.assert_array_equal(counts, expected)


def _has(data: datasets.DataSet, method: str) -> bool:
    return method in data.runs or "default" in data.runs


@pytest.mark.parametrize("name", NAMES)
def test_the_file_of_a_data_set_fits_lists_methods_and_settings(name: str) -> None:
    data = datasets.read_data_set(name)
    assert data.title
    assert data.source.startswith("http")
    assert data.licence
    assert data.layout
    for method in {*data.runs, "segearth"} - {"default"}:
        if _has(data, method):
            release = data.release(method)
            assert len(read_vocabulary(release.classes).channels) == len(data.labels)
            assert 0 <= release.background < len(data.labels)
            read_settings(method, release.settings)
    assert set(data.published) <= set(METHODS)


def test_all_sets_of_the_papers_are_there() -> None:
    assert len(NAMES) == 25
    assert sum("default" in datasets.read_data_set(name).runs for name in NAMES) == 17


def _ready(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str = "loveda") -> tuple[Path, Pretended]:
    file = _small(name, tmp_path)
    data = datasets.read_data_set(str(file))
    _miniature(data, tmp_path)
    looks = Pretended(len(data.labels))
    monkeypatch.setattr(bench, "opened", lambda *given: looks)
    return file, looks


def test_a_run_goes_on_where_it_was_and_ends_as_if_undisturbed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file, looks = _ready(tmp_path, monkeypatch)
    whole = _run(file, tmp_path)
    path = next((tmp_path / "out").glob("*.jsonl"))
    lines = path.read_text().splitlines(keepends=True)
    path.write_text("".join(lines[:2]) + lines[2][:20])  # killed while it wrote the second image
    before = looks.calls
    again = _run(file, tmp_path)
    assert looks.calls - before == 2
    np.testing.assert_array_equal(again.confusions, whole.confusions)
    assert len(path.read_text().splitlines()) == 4
    _run(file, tmp_path)
    assert looks.calls - before == 2


def test_results_of_another_run_are_not_gone_on_with(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file, looks = _ready(tmp_path, monkeypatch)
    _run(file, tmp_path)
    file.write_text(file.read_text().replace("threshold: 0.3", "threshold: 0.35"))
    with pytest.raises(OutputError, match=r"is of another run: release was .*0\.3"):
        _run(file, tmp_path)
    _run(file, tmp_path, overwrite=True)
    (tmp_path / "out" / "loveda_segearth_paper.jsonl").write_text(
        "".join((tmp_path / "out" / "loveda_segearth_paper.jsonl").read_text().splitlines(keepends=True)[:2])
    )
    looks.weights = {"weights_sha256": "1" * 64}
    with pytest.raises(OutputError, match="was made with other weights"):
        _run(file, tmp_path)


def test_images_that_were_changed_in_place_are_not_counted_as_seen(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file, _ = _ready(tmp_path, monkeypatch)
    _run(file, tmp_path)
    image = tmp_path / "img" / "tile_2.png"
    image.write_bytes(image.read_bytes()[:-1] + b"?")  # as large as before
    with pytest.raises(OutputError, match="tile_2 has changed since"):
        _run(file, tmp_path)


def test_another_truth_is_another_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file, _ = _ready(tmp_path, monkeypatch)
    _run(file, tmp_path)
    file.write_text(file.read_text() + "buffer: 9\n")
    with pytest.raises(OutputError, match=r'is of another run: truth was .*"buffer": 0\.0\}, and is now'):
        _run(file, tmp_path)


def test_lines_of_two_runs_side_by_side_count_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file, _ = _ready(tmp_path, monkeypatch)
    whole = _run(file, tmp_path)
    path = next((tmp_path / "out").glob("*.jsonl"))
    lines = path.read_text().splitlines(keepends=True)
    path.write_text("".join([*lines, lines[-1]]))
    (found,) = results(tmp_path / "out", datasets.read_data_set(str(file)))
    np.testing.assert_array_equal(found.confusions, whole.confusions)


@pytest.mark.parametrize(
    ("name", "change", "message"),
    [
        (
            "loveda",
            lambda folder: (folder / "img/tile_2.png").unlink(),
            "has 2 files that end in .png, and LoveDA",
        ),
        (
            "loveda",
            lambda folder: (folder / "ann/tile_2.png").unlink(),
            "has no tile_2.png; LoveDA is to be laid out",
        ),
        (
            "loveda",
            lambda folder: _recode(folder, lambda c: c + 5),
            "has the code 8, and LoveDA has 7 classes",
        ),
        ("loveda", lambda folder: _recode(folder, lambda c: np.where(c > 1, c - 1, c)), "no truth has a pixel of agri"),
        ("openearthmap", lambda folder: _recode(folder, lambda c: c + 1), "has the code 9, and OpenEarthMap"),
        ("vdd", lambda folder: _recode(folder, lambda c: np.stack([c[0]] * 3)), "3 bands; truth of VDD is one band"),
        ("inria", lambda folder: _recode(folder, lambda c: c * 0), "no truth has a pixel of building"),
    ],
)
def test_wrongly_prepared_sets_are_refused_with_the_reason(
    name: str, change: Any, message: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file, _ = _ready(tmp_path, monkeypatch, name)
    change(tmp_path)
    with pytest.raises(UsageError, match=message):
        _run(file, tmp_path)


def _recode(folder: Path, change: Any) -> None:
    for path in (folder / "ann").rglob("*.*"):
        with rasterio.open(path) as src:
            bands = src.read()
        _write(path, change(bands.astype(int)))


def test_truth_in_the_published_colours_is_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file, _ = _ready(tmp_path, monkeypatch, "uavid")
    before = _run(file, tmp_path).confusions
    colours = {"background": 0x000000, "building": 0x800000, "road": 0x804080, "car": 0xC000C0, "tree": 0x008000}
    colours |= {"vegetation": 0x808000, "human": 0x404000}
    table = np.zeros(256, int)
    table[:7], table[255] = [colours[name] for name in datasets.read_data_set("uavid").labels], 0xFFFFFF
    _recode(tmp_path, lambda codes: np.stack([table[codes[0]] >> shift & 255 for shift in (16, 8, 0)]))
    np.testing.assert_array_equal(_run(file, tmp_path, overwrite=True).confusions, before)


def _drawn(folder: Path, crs: str, scale: float, **more: Any) -> tuple[datasets.DataSet, Pair]:
    """A road across an image of 40 x 60 pixels, drawn as a line, and a field as a polygon."""
    place = from_origin(
        11.0 if crs == "EPSG:4326" else 500_000, 48.0 if crs == "EPSG:4326" else 5_300_000, scale, scale
    )
    path = folder / "a.tif"
    grid = {"height": 40, "width": 60, "count": 3, "dtype": "uint8", "crs": crs, "transform": place}
    with rasterio.open(path, "w", driver="GTiff", **grid) as dst:
        dst.write(np.full((3, 40, 60), 9, np.uint8))
    ends = [place * at for at in ((-20, 20), (80, 20))]
    shapes = [LineString(ends), Polygon([place * at for at in ((0, 30), (10, 30), (10, 40), (0, 40))])]
    table = geopandas.GeoDataFrame({"kind": ["Road", "field"]}, geometry=shapes, crs=crs)
    table.to_crs("EPSG:4326").to_file(folder / "a.geojson", driver="GeoJSON")
    said = {"labels": ["background", "road", "field"], "image_suffix": ".tif", "truth_suffix": ".geojson"}
    said |= {"code": "shapes", "runs": {"default": {"classes": "x"}}, **more}
    (folder / "d.yaml").write_text(yaml.safe_dump(said))
    return datasets.read_data_set(str(folder / "d.yaml")), Pair("a", str(path), str(folder / "a.geojson"))


@pytest.mark.parametrize(("crs", "scale"), [("EPSG:32632", 1.0), ("EPSG:4326", 5e-6)])
def test_roads_drawn_as_lines_are_as_wide_as_said(crs: str, scale: float, tmp_path: Path) -> None:
    """4 m on either side, in pixels of 1 m and in those of five millionths of a degree, which are 0.556 m high."""
    data, pair = _drawn(tmp_path, crs, scale, column="kind", buffer=4.0)
    found = truth_of(data, pair)
    rows = (found == 1).sum(0)[20:50]
    assert (rows == 2 * int(4 / (1.0 if scale == 1.0 else 0.556) + 0.5)).all()
    assert (found == 2).sum() > 100
    assert (found[:10] == 0).all()


def test_shapes_without_a_column_are_the_second_class_and_strange_names_are_refused(tmp_path: Path) -> None:
    data, pair = _drawn(tmp_path, "EPSG:32632", 1.0)
    assert set(np.unique(truth_of(data, pair))) <= {0, 1}
    with pytest.raises(UsageError, match="has no column name"):
        truth_of(replace(data, column="name"), pair)
    with pytest.raises(UsageError, match="has shapes of 'field'"):
        truth_of(replace(data, column="kind", labels=("background", "road")), pair)


def test_a_split_names_the_images(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file, looks = _ready(tmp_path, monkeypatch)
    file.write_text(file.read_text().replace("images: 3", "images: 2"))
    (tmp_path / "val.txt").write_text("tile_0\ntile_2.png\n")
    assert len(_run(file, tmp_path, split=str(tmp_path / "val.txt")).confusions) == 2
    assert looks.calls == 2


def test_names_of_a_split_that_are_nowhere_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file, _ = _ready(tmp_path, monkeypatch)
    (tmp_path / "val.txt").write_text("tile_0\nnothere\n")
    with pytest.raises(UsageError, match="names nothere, which is not among the images"):
        _run(file, tmp_path, split=str(tmp_path / "val.txt"))


def test_a_split_takes_no_image_that_only_begins_alike(tmp_path: Path) -> None:
    (tmp_path / "img").mkdir()
    for name in ("a", "a.1", "b_x"):
        for folder in ("img", "ann"):
            _write(tmp_path / folder / f"{name}.png", np.zeros((1, 8, 8), int))
    (tmp_path / "val.txt").write_text("a.1\nb_x.jpg\n")
    data = replace(datasets.read_data_set("loveda"), expect={}, image_suffix=".png", truth_suffix=".png")
    both = pairs(data, str(tmp_path / "img"), str(tmp_path / "ann"), str(tmp_path / "val.txt"))
    assert [pair.name for pair in both] == ["a.1", "b_x"]


def test_images_of_a_context_are_seen_together(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file, looks = _ready(tmp_path, monkeypatch)
    sizes: list[int] = []
    see = looks.see
    monkeypatch.setattr(looks, "see", lambda images: sizes.append(len(images)) or see(images))
    file.write_text(file.read_text().replace("context: 50", "context: 2"))
    _run(file, tmp_path, method="coninfer")
    assert sizes == [2, 1]


def test_iou_is_hits_over_union_and_nothing_over_nothing_is_left_out() -> None:
    counts = np.array([[6, 2, 0, 1], [1, 3, 0, 0], [0, 0, 0, 0]])
    np.testing.assert_allclose(tables.ious(counts)[:2], [60.0, 50.0])
    assert np.isnan(tables.ious(counts)[2])


def test_an_interval_holds_the_pooled_figure_and_shrinks_with_images() -> None:
    rng = np.random.default_rng(0)
    some = np.stack([confusion(*_pair(rng), 2) for _ in range(200)])
    widths = []
    for count in (20, 200):
        low, high = tables.interval(some[:count])
        assert low < np.nanmean(tables.ious(some[:count].sum(0))) < high
        widths.append(high - low)
    assert widths[0] / widths[1] == pytest.approx(10**0.5, rel=0.35)


def _pair(rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    truth = rng.integers(0, 2, 400).astype(np.uint8)
    return truth, np.where(rng.random(400) < rng.uniform(0.1, 0.5), 1 - truth, truth)


def test_tables_say_what_was_found_and_what_it_is_made_of(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file, _ = _ready(tmp_path, monkeypatch, "whu_sat_II")
    data, found = datasets.read_data_set(str(file)), _run(file, tmp_path, sweep=[0.1])
    text = tables.write_tables(str(tmp_path / "out"), data, [found])
    (line,) = csv.DictReader((tmp_path / "out" / "whu_sat_II.csv").read_text().splitlines())
    row = tables.row(data, found)
    assert float(line["mIoU"]) == round(row.miou.value, 2)
    assert line["IoU of building"] == f"{row.ious[1]:.2f}" == line["building"]
    assert (line["published"], line["difference"]) == ("28.40", f"{row.ious[1] - 28.4:+.2f}")
    assert f"files {found.files[:12]}" in text
    assert "weights 000000000000" in text
    assert "mIoU by threshold: 0.1 " in text
    assert r"\bottomrule" in (tmp_path / "out" / "whu_sat_II.tex").read_text()
    assert json.loads(row.to_json(data))["classes"]["building"] == pytest.approx(row.ious[1])


def test_the_command_runs_a_release_and_the_tool_on_real_models(geoovseg: Any, tmp_path: Path) -> None:
    file = _small("loveda", tmp_path)
    _miniature(datasets.read_data_set(str(file)), tmp_path)
    places = ["--images", str(tmp_path / "img"), "--truth", str(tmp_path / "ann"), "-o", str(tmp_path / "out")]
    usual = ["benchmark", str(file), *places, "--model", "demo", "--upsample", "bilinear", "--limit", "1", "--json"]
    code, out, err = geoovseg(*usual, "-m", "clearclip,coninfer", "--vfm", "demo", "--sweep", "threshold=0:.4:.2")
    assert code == 0, err
    both = [json.loads(line) for line in out.splitlines()]
    assert [each["method"] for each in both] == ["clearclip", "coninfer"]
    assert all(sum(map(sum, each["confusion"])) > 100 for each in both)
    assert list(both[0]["sweep"]) == ["0", "0.2", "0.4"]
    code, out, err = geoovseg(*usual, "--protocol", "tool")
    assert code == 0, err
    assert {json.loads(line)["protocol"] for line in out.splitlines()} == {"paper", "tool"}


@pytest.mark.trial
def test_processes_find_what_one_does(geoovseg: Any, tmp_path: Path) -> None:
    file = _small("loveda", tmp_path)
    _miniature(datasets.read_data_set(str(file)), tmp_path)
    found = []
    for workers in ("1", "2"):
        places = ["--images", str(tmp_path / "img"), "--truth", str(tmp_path / "ann"), "-o", str(tmp_path / workers)]
        usual = ["benchmark", str(file), *places, "--model", "demo", "--upsample", "bilinear", "--json"]
        code, out, err = geoovseg(*usual, "-m", "clearclip", "--workers", workers)
        assert code == 0, err
        found.append(json.loads(out)["confusion"])
    assert found[0] == found[1]


def test_block_methods_are_run_as_their_releases_do(geoovseg: Any, tmp_path: Path) -> None:
    """On the demo model, which stands for their vision models; regions by colour."""
    said = yaml.safe_load(_small("potsdam", tmp_path).read_text())
    said["runs"] |= {name: {**said["runs"]["resegclip"], "settings": {}} for name in ("direct-op", "corrclip")}
    said["runs"]["corrclip"] |= {"crop": 56, "stride": 28, "scale": 40}
    said["runs"]["resegclip"] |= {"crop": 32, "stride": 16}
    said["runs"]["reattnclip"] = {}  # without the learned upsampler
    (tmp_path / "potsdam.yaml").write_text(yaml.safe_dump(said))
    _miniature(datasets.read_data_set(str(tmp_path / "potsdam.yaml")), tmp_path)
    places = ["--images", str(tmp_path / "img"), "--truth", str(tmp_path / "ann"), "-o", str(tmp_path / "out")]
    usual = ["benchmark", str(tmp_path / "potsdam.yaml"), *places, "--model", "demo", "--limit", "1", "--json"]
    names = "resegclip,corrclip,direct-op,reattnclip"
    code, out, err = geoovseg(*usual, "-m", names, "--vfm", "demo", "--regions", "felzenszwalb")
    assert code == 0, err
    both = {each["method"]: each for each in map(json.loads, out.splitlines())}
    assert set(both) == set(names.split(","))
    assert all(sum(map(sum, each["confusion"])) > 100 for each in both.values())


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"runs": {"default": 3}}, "runs must be methods"),
        ({"runs": {"default": {}}}, "needs classes"),
        ({"runs": {}}, "runs must be methods"),
        ({"runs": {1: {"classes": "loveda"}}}, "names of methods"),
        ({"runs": {"clip": {"classes": "loveda", "threshold": "abc"}}}, "threshold 'abc' is no number from 0 to 1"),
        ({"runs": {"clip": {"classes": "loveda", "resize": 5}}}, r"resize as \[height, width\]"),
        ({"runs": {"clip": {"classes": "loveda", "context": 0}}}, "context 0 is no number from 1"),
        ({"runs": {"clip": {"classes": 5}}}, "classes, templates, upsample, vfm and sam are names"),
        ({"runs": {"clip": {"classes": "loveda", "background": 7}}}, "there are 7 classes, from 0"),
        ({"runs": {"clip": {"classes": "loveda", "colour": 7}}}, "has colour, which means nothing here"),
        ({"expect": 5}, "expect must be names with numbers"),
        ({"published": {"clip": "x"}}, "published must be names with numbers"),
        ({"labels": ["a", "a"]}, "each of them once"),
        ({"colours": "none"}, "no table of colours named 'none'"),
        ({"code": "letters"}, "choose index"),
        ([1], "it holds no names with values"),
    ],
)
def test_files_that_describe_no_data_set_are_refused(change: Any, message: str, tmp_path: Path) -> None:
    said = yaml.safe_load(datasets.file_of("loveda").read_text())
    (tmp_path / "my.yaml").write_text(yaml.safe_dump({**said, **change} if isinstance(change, dict) else change))
    with pytest.raises(GeoOVSegError, match=message):
        datasets.read_data_set(str(tmp_path / "my.yaml"))


def test_files_that_break_off_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file, _ = _ready(tmp_path, monkeypatch)
    path = tmp_path / "img" / "tile_0.png"
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    with pytest.raises(SceneError, match=r"cannot read .*tile_0\.png"):
        _run(file, tmp_path)


def test_palettes_grey_and_transparency_are_seen_in_colours(tmp_path: Path) -> None:
    blue = Image.new("RGB", (3, 2), (0, 0, 255))
    for name, picture in (("p", blue.quantize(4)), ("a", blue.convert("RGBA")), ("g", Image.new("L", (3, 2), 7))):
        picture.save(tmp_path / f"{name}.png")
    assert image_of(str(tmp_path / "p.png")).tolist() == [[[0, 0, 255]] * 3] * 2
    assert image_of(str(tmp_path / "a.png")).tolist() == [[[0, 0, 255]] * 3] * 2
    assert image_of(str(tmp_path / "g.png")).tolist() == [[[7, 7, 7]] * 3] * 2


def test_other_data_sets_in_a_folder_are_no_rows_of_a_table(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file, _ = _ready(tmp_path, monkeypatch)
    other = tmp_path / "loveda_too.yaml"
    other.write_text(file.read_text())
    _run(file, tmp_path)
    _run(other, tmp_path)
    found = results(tmp_path / "out", datasets.read_data_set(str(file)))
    assert [each.header["data_set"] for each in found] == ["loveda"]


def test_what_is_damaged_is_told_and_what_has_no_result_yet_is_no_obstacle(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file, _ = _ready(tmp_path, monkeypatch)
    _run(file, tmp_path)
    path = tmp_path / "out" / "loveda_segearth_paper.jsonl"
    lines = path.read_text().splitlines(keepends=True)
    for damaged in (lines[0] + "{}\n", "[1]\n", "\xff", lines[0] + lines[1][:20] + "\n" + lines[2]):
        path.write_text(damaged, encoding="latin-1")
        if damaged.endswith("\n"):
            with pytest.raises(OutputError, match="is damaged, or not ours"):
                _run(file, tmp_path)
    path.write_text(lines[0].replace('"loveda"', '"another"'))
    assert len(_run(file, tmp_path).confusions) == 3
    (tmp_path / "file").touch()
    with pytest.raises(UsageError, match="cannot make this folder"):
        bench.benchmark(str(file), str(tmp_path / "img"), str(tmp_path / "ann"), str(tmp_path / "file"), Settings())


def test_a_start_that_fails_leaves_results_alone(geoovseg: Any, tmp_path: Path) -> None:
    file = _small("loveda", tmp_path)
    _miniature(datasets.read_data_set(str(file)), tmp_path)
    places = ["--images", str(tmp_path / "img"), "--truth", str(tmp_path / "ann"), "-o", str(tmp_path / "out")]
    usual = ["benchmark", str(file), *places, "--upsample", "bilinear", "--limit", "1", "-m", "clip"]
    assert geoovseg(*usual, "--model", "demo")[0] == 0
    before = (tmp_path / "out" / "loveda_clip_paper.jsonl").read_bytes()
    assert geoovseg(*usual, "--model", "nonsense", "--overwrite")[0] == 2
    assert geoovseg(*usual[:-1], "clip,nonsense", "--model", "demo", "--overwrite")[0] == 2
    assert (tmp_path / "out" / "loveda_clip_paper.jsonl").read_bytes() == before


def test_images_of_which_nothing_is_known_do_not_spoil_an_interval() -> None:
    some = np.stack([confusion(*_pair(np.random.default_rng(k)), 2) for k in range(9)])
    with_empty = np.concatenate([some, np.zeros_like(some[:3])])
    assert tables.interval(with_empty) == tables.interval(some)


def test_a_difference_is_told_only_of_what_was_published(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file, _ = _ready(tmp_path, monkeypatch)
    data = datasets.read_data_set(str(file))
    found = _run(file, tmp_path)
    assert "difference" in tables.markdown(data, [tables.row(data, found)])
    assert tables._comparable(data, found)
    for key, value in (
        ("model", "demo"),
        ("limit", 3),
        ("templates", "plain"),
        ("settings", {}),
        ("upsample", "guided"),
    ):
        other = replace(found, header={**found.header, key: value})
        assert not tables._comparable(data, other), key


@pytest.mark.parametrize(
    ("more", "message"),
    [
        (["-m", "trident"], "what the release of trident does on loveda is not known here"),
        (["--sweep", "threshold=0:2:1"], "write threshold=FROM:TO:STEP"),
        (["--protocol", "mine"], "choose paper or tool"),
    ],
)
def test_what_cannot_be_run_is_refused(geoovseg: Any, tmp_path: Path, more: list[str], message: str) -> None:
    file = _small("loveda", tmp_path)
    _miniature(datasets.read_data_set(str(file)), tmp_path)
    places = ["--images", str(tmp_path / "img"), "--truth", str(tmp_path / "ann"), "-o", str(tmp_path / "out")]
    code, _, err = geoovseg("benchmark", str(file), *places, "--model", "demo", *more)
    assert (code, message in err) == (2, True), err


def test_data_sets_are_listed_and_shown(geoovseg: Any) -> None:
    code, out, _ = geoovseg("benchmark")
    assert (code, len(out.splitlines())) == (0, 25)
    code, out, _ = geoovseg("benchmark", "LoveDA", "--show")
    assert code == 0
    assert yaml.safe_load(out)["labels"][1] == "building"
    code, _, err = geoovseg("benchmark", "lovda", "--show")
    assert (code, "did you mean loveda" in err) == (2, True)


@dataclass
class Golden:
    """What the authors' code made of images, and our method on their weights."""

    name: str
    method: Any
    groups: list[int]
    images: list[np.ndarray]
    labels: np.ndarray
    run: dict[str, Any]
    resized: dict[bytes, np.ndarray] = field(default_factory=dict)
    """by the image's bytes, for cases that give what it was resized to"""


def _sliding(name: str, what: str) -> Golden:
    if name == "segearth":
        (case,) = find("segearth")
        method = upsampled("segearth", slides._segearth(case), slides._jbu(case).cosines)
        hyper, labels = case.meta["hyper"], case.outputs[f"{what}.labels"]
    else:
        case = next(case for case in find("slide") if f"{name}/{what}.labels" in case.outputs)
        hyper, labels = slides._hyper(case, name), case.outputs[f"{name}/{what}.labels"]
        method = slides._slide_method(case, name, name, hyper)
    image = case.inputs["u8_slide"][0].permute(1, 2, 0).numpy()
    run = {"threshold": hyper["prob_thd"], "crop": hyper["crop"], "stride": hyper["stride"], "keep_ratio": False}
    run |= {"scale": hyper["logit_scale"], "resize": list(image.shape[:2]), "area": hyper.get("area_thd")}
    run["pamr_steps"] = 10 if what == "predict_pamr10" else 0
    groups = torch.bincount(case.inputs["query_idx"]).tolist()
    return Golden(name, method, groups, [image], labels.squeeze().numpy()[None], run)


def _coninfer(case: Case) -> Golden:
    """Three images that are one context."""
    method, hyper = contexts._end_to_end(case)
    raw, seen = (case.inputs[name].permute(0, 2, 3, 1).numpy() for name in ("u8_raw", "u8_clip"))
    run = {"threshold": hyper["prob_thd"], "background": hyper["bg_idx"], "scale": hyper["logit_scale"], "crop": 0}
    run |= {"resize": [hyper["side"]] * 2, "keep_ratio": False, "context": len(raw)}
    groups, given = torch.bincount(case.inputs["query_idx"]).tolist(), iter(seen)
    labels, tied = case.outputs["labels"].numpy(), _tied(case, groups, (raw.shape[1], raw.shape[2]))
    golden = Golden("coninfer", method, groups, list(raw), np.where(tied, 255, labels), run)
    golden.resized = {image.tobytes(): next(given) for image in raw}
    return golden


def _tied(case: Case, groups: list[int], size: tuple[int, int]) -> np.ndarray:
    """Pixels whose two best classes share what the release gave them to float32: which one wins is up to the CPU."""
    hyper = case.meta["hyper"]
    count, side = len(case.inputs["u8_raw"]), round((len(case.outputs["z"]) / len(case.inputs["u8_raw"])) ** 0.5)
    given = case.outputs["z"].unflatten(0, (count, side, side)).movedim(-1, 1)
    way = replace(RELEASES["coninfer"], scale=hyper["logit_scale"], threshold=hyper["prob_thd"])
    best = predict(F.interpolate(given, size=size, mode="bilinear", align_corners=False), groups, way)[1].topk(2, 1)
    return (best.values[:, 0] - best.values[:, 1] < 1e-5).numpy()


def _trident(case: Case) -> Golden:
    hyper = case.meta["hyperparameters"]
    settings = {k: hyper[k] for k in ("beta", "gamma", "cos_fac", "refine_neg_cos", "coarse_thresh", "minimal_area")}
    settings |= {k: hyper[k] for k in ("sam_iou_thresh", "sam_mask_coff")}
    given = {"vfm": vision_model(case, "dino"), "sam": sam_model(case), "cut": Cut(block=1024)}
    method = build(clip_model(case), "trident", case.inputs["text_features"], **given, **settings)
    run = {"threshold": hyper["prob_thd"], "crop": hyper["slide_crop"], "stride": hyper["slide_stride"]}
    run |= {"scale": hyper["logit_scale"]}
    image, seen = case.inputs["image_u8"].numpy(), case.inputs["test_image_u8"].numpy()
    groups = torch.bincount(case.inputs["query_to_class"]).tolist()
    labels = case.outputs["refined_pred"].numpy()[None]
    return Golden("trident", method, groups, [image], labels, run, {image.tobytes(): seen})


def _resegclip(case: Case) -> Golden:
    method, hyper = masks._method(case, output="code"), case.meta["hyperparameters"]
    windows = iter(range(len(case.meta["windows"])))
    method.regions = lambda batch, sets, tile=0: masks._maps(case, f"seg.t{next(windows)}.").numpy()
    run = {"crop": hyper["tile"], "stride": hyper.get("stride", hyper["tile"]), "resize": None}
    queries = case.inputs.get("query_class", torch.arange(len(case.inputs["text"])))
    groups = torch.bincount(queries).tolist()
    labels = queries[case.outputs["query_pred"]].numpy()[None]
    return Golden("resegclip", method, groups, [case.inputs["image"].numpy()], labels, run)


def _texts(case: Case) -> Golden:
    """Words as the package embeds them, against labels of the release's own features of them."""
    compact, tokenizer = case.inputs["compact_vocab"].long(), open_clip.get_tokenizer("ViT-B-16")
    encoder = TextEncoder(lambda: (case.clip, lambda texts: torch.searchsorted(compact, tokenizer(texts))), templates())
    ours, theirs = encoder.embed(case.meta["words"]), case.outputs["query_features"]
    image = np.random.default_rng(1).integers(0, 256, (96, 128, 3), np.uint8)
    run = {"crop": 64, "stride": 32, "resize": [96, 128], "keep_ratio": False}
    groups, pixels = [1] * len(ours), torch.from_numpy(image).permute(2, 0, 1)[None].float() / 255
    way = Protocol(crop=64, stride=32)
    labels = released(pixels, way, build(case.vit, "sclip", theirs), size=(96, 128)).argmax(1)
    return Golden("sclip", build(case.vit, "sclip", ours), groups, [image], labels.numpy(), run)


GOLDEN = [
    pytest.param(partial(_sliding, name, what), id=f"{name}-{what}")
    for name, what in (("segearth", "predict"), ("sclip", "predict_pamr10"), ("naclip", "predict_pamr10"))
]
GOLDEN += [
    pytest.param(partial(make, case), id=f"{name}-{case_id(case)}")
    for name, make in (
        ("coninfer_e2e", _coninfer),
        ("trident_e2e", _trident),
        ("reseg_infer", _resegclip),
        ("text", _texts),
    )
    for case in find(name)
]


@pytest.mark.golden
@pytest.mark.parametrize("make", GOLDEN)
def test_the_labels_of_golden_images_are_those_of_the_release(
    make: Callable[[], Golden], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Images of a golden case as a data set whose truth is what the authors' code made of them."""
    golden = make()
    if golden.resized:  # by another routine than ours; frames of Segment Anything are resized as ever
        frame = releases.resize
        given: Any = golden.resized
        monkeypatch.setattr(
            releases, "resize", lambda image, way: frame(image, way) if way.crop == 224 else given[image.tobytes()]
        )
    vocabulary = SimpleNamespace(groups=[[""] * n for n in golden.groups])
    predictor: Any = SimpleNamespace(method=golden.method, vocabulary=vocabulary, facts=SimpleNamespace(digests={}))
    for n, (image, labels) in enumerate(zip(golden.images, golden.labels, strict=True)):
        _write(tmp_path / "img" / f"{n}.png", np.moveaxis(image, -1, 0))
        _write(tmp_path / "ann" / f"{n}.png", labels[None])
    classes = [f"class {k}" for k in range(len(golden.groups))]
    (tmp_path / "words.txt").write_text("".join(f"{name}: word {name}\n" for name in classes))
    run = {"classes": str(tmp_path / "words.txt"), **golden.run}
    said = {"labels": classes, "image_suffix": ".png", "truth_suffix": ".png", "expect": {"classes": 1}}
    (tmp_path / "golden.yaml").write_text(yaml.safe_dump({**said, "runs": {golden.name: run}}))
    data = datasets.read_data_set(str(tmp_path / "golden.yaml"))
    way = bench._way(data, data.release(golden.name), golden.name)
    monkeypatch.setattr(bench, "opened", lambda *given: Published(predictor, way))
    counts = _run(tmp_path / "golden.yaml", tmp_path, method=golden.name).confusions.sum(0)
    assert np.trace(counts[:, :-1]) >= 0.999 * counts.sum()  # ties of float32 may fall otherwise
