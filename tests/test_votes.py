"""The vote of regions: within the core of a window each takes the class of most of its pixels, however it is asked."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import rasterio
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from raster_files import written
from rasterio.windows import Window

from geoovseg import Segmenter, encode, merge, segment
from geoovseg.demo.scenes import render
from geoovseg.errors import InterruptedRunError, SceneError, UsageError
from geoovseg.features.cells import of_core
from geoovseg.features.store import FeatureStore
from geoovseg.features.votes import Votes
from geoovseg.ops.regions import vote
from geoovseg.run.estimate import dry_run
from geoovseg.scene.scene import DEMO_TAG
from geoovseg.windows.blend import Rows
from geoovseg.windows.plan import Panel, Span, TilePlan, plan_tiles

Write = Callable[..., str]


@st.composite
def _places(draw: st.DrawFn) -> tuple[TilePlan, Panel, Span]:
    tile = 4 * draw(st.integers(1, 6))
    height, width = draw(st.integers(1, 50)), draw(st.integers(1, 50))
    plan = plan_tiles(height, width, tile=tile, stride=4 * draw(st.integers(1, tile // 4)), patch=4, aligned=True)
    first, left = draw(st.integers(0, height - 1)), draw(st.integers(0, width - 1))
    end, right = draw(st.integers(first + 1, height)), draw(st.integers(left + 1, width))
    return plan, Panel(left, right - left), (first, end)


def _cores(plan: TilePlan) -> list[tuple[slice, slice]]:
    return [plan.core(window).toslices() for window in plan.windows(Panel(0, plan.width))]


@settings(max_examples=100, deadline=None)
@given(_places())
def test_every_pixel_is_in_the_core_of_the_window_whose_middle_is_nearest(places: tuple[TilePlan, Panel, Span]) -> None:
    plan, panel, span = places
    seen = np.zeros((plan.height, plan.width), int)
    middles = {w: (w.row_off + w.height / 2, w.col_off + w.width / 2) for w in plan.windows(Panel(0, plan.width))}
    for window, middle in middles.items():
        core = plan.core(window)
        seen[core.toslices()] += 1
        for row in (core.row_off, core.row_off + core.height - 1):
            assert abs(row + 0.5 - middle[0]) <= min(abs(row + 0.5 - m[0]) for m in middles.values())
            assert window.row_off <= row < window.row_off + window.height
        for col in (core.col_off, core.col_off + core.width - 1):
            assert abs(col + 0.5 - middle[1]) <= min(abs(col + 0.5 - m[1]) for m in middles.values())
    assert (seen == 1).all()
    around, rows = plan.whole_cores(panel, span)
    for down, right in _cores(plan):
        touched = down.start < span[1] and down.stop > span[0]
        touched = touched and right.start < panel.col_off + panel.width and right.stop > panel.col_off
        inside = rows[0] <= down.start and down.stop <= rows[1]
        inside = inside and around.col_off <= right.start and right.stop <= around.col_off + around.width
        assert inside or not touched


@settings(max_examples=100, deadline=None)
@given(_places(), st.integers(1, 60), st.integers(0, 99), st.sampled_from(["best", "sure", "every"]))
def test_votes_are_those_of_whole_cores_whatever_is_asked(
    places: tuple[TilePlan, Panel, Span], step: int, seed: int, want: str
) -> None:
    plan, panel, span = places
    generator = torch.Generator().manual_seed(seed)
    scores = torch.randn(3, plan.height, plan.width, generator=generator)
    regions = torch.randint(0, 4, (plan.height, plan.width), generator=generator, dtype=torch.int32)
    shares = scores.softmax(0)
    expected = shares.clone()
    for core in _cores(plan):
        expected[:, *core] = vote(shares[:, *core], regions[core].long())
    votes = Votes(plan, panel, span, 3, lambda s: s.softmax(0), best=want == "best", every=want == "every")
    (wide, (first, end)), found = votes.around, list[Rows]()
    columns = slice(wide.col_off, wide.col_off + wide.width)
    for row in range(first, end, step):
        here = slice(row, min(end, row + step))
        given = scores[:, here, columns]
        valid = torch.ones(given.shape[1:], dtype=torch.bool)
        best = given.max(0).indices if want == "best" else None
        found += votes.add(Rows(row, None if want == "best" else given, valid, best, regions[here, columns]))
    inside = expected[:, span[0] : span[1], panel.col_off : panel.col_off + panel.width]
    assert found[0].row_off == span[0]
    assert torch.equal(torch.cat([rows.best for rows in found]), inside.max(0).indices)
    assert all(rows.voted for rows in found)
    if want != "best":
        whole = torch.cat([rows.scores for rows in found], 1)
        torch.testing.assert_close(whole, inside if want == "every" else inside.amax(0, keepdim=True))


def test_a_core_is_cut_out_of_its_window() -> None:
    plan = plan_tiles(20, 30, tile=16, stride=12, patch=4, aligned=True)
    window = list(plan.windows(Panel(0, 30)))[-1]
    core, known = of_core(plan, window, torch.arange(256).view(16, 16))
    assert (window.row_off, window.col_off) == (4, 16)
    assert core == Window(22, 10, 8, 10)
    assert torch.equal(known, torch.arange(256).view(16, 16)[6:16, 6:14])


# Of scenes and of stores.

OWN: dict[str, Any] = {
    "method": "corrclip", "model": "demo", "vfm": "demo", "regions": "felzenszwalb", "tile": 112, "stride": 56,
    "block": 224,
}  # fmt: skip
ASKED: dict[str, Any] = {"vocabulary": "demo", "background": "none"}


def _read(path: str | Path) -> np.ndarray:
    with rasterio.open(path) as src:
        return src.read()


@pytest.fixture(scope="module")
def scene(tmp_path_factory: pytest.TempPathFactory) -> str:
    """Two parts and two panels, four by six blocks, with a hole, and a side that is no multiple of a cell."""
    data = np.maximum(np.concatenate([render(1003, 531, 380)[0], render(1006, 531, 250)[0]], axis=2), 1)
    data[:, 60:140, 300:420] = 0
    return written(tmp_path_factory.mktemp("scene") / "scene.tif", data, nodata=0, tags={DEMO_TAG: "1003"})


@pytest.fixture(scope="module")
def kept(scene: str, tmp_path_factory: pytest.TempPathFactory) -> str:
    return encode(scene, output=tmp_path_factory.mktemp("kept") / "x.zarr", **OWN).features


@pytest.fixture(scope="module")
def whole(scene: str, tmp_path_factory: pytest.TempPathFactory) -> dict[str, np.ndarray]:
    folder = tmp_path_factory.mktemp("whole")
    names = {"confidence": folder / "sure.tif", "scores": folder / "shares.tif"}
    segment(scene, output=folder / "labels.tif", **names, **OWN, **ASKED)
    return {"labels": _read(folder / "labels.tif"), **{name: _read(path) for name, path in names.items()}}


@pytest.mark.parametrize("more", [(), ("confidence",), ("scores",), ("confidence", "scores")])
@pytest.mark.parametrize("memory", [None, 1])
def test_regions_vote_when_features_are_asked(
    kept: str, whole: dict[str, np.ndarray], tmp_path: Path, more: tuple[str, ...], memory: float | None
) -> None:
    names = {name: tmp_path / f"{name}.tif" for name in more}
    made = segment(kept, output=tmp_path / "labels.tif", max_memory=memory, **names, **ASKED)
    assert made.panels == (1 if memory is None else 2)
    for name in ("labels", *more):
        np.testing.assert_array_equal(_read(tmp_path / f"{name}.tif"), whole[name])


def test_a_region_has_one_class_within_a_core_and_the_share_of_its_pixels(
    scene: str, kept: str, whole: dict[str, np.ndarray], tmp_path: Path
) -> None:
    """Which those are, the same features say that do not vote."""
    store = FeatureStore(kept)
    ids = store.regions((0, 531), Panel(0, 630))
    assert ids is not None
    plan = plan_tiles(531, 630, tile=224, stride=112, patch=8, aligned=True)
    labels = segment(kept, output=tmp_path / "a.tif", method="corrclip", settings={"correct": False}, **ASKED).labels
    own = segment(scene, output=tmp_path / "b.tif", **{**OWN, "settings": {"correct": False}}, **ASKED).labels
    alone = _read(labels)[0]
    np.testing.assert_array_equal(_read(own)[0], alone)
    assert (alone != whole["labels"][0]).any()
    np.testing.assert_array_equal(ids == 0, alone == 255)
    for core in _cores(plan):
        for number in np.unique(ids[core][ids[core] > 0]):
            where = ids[core] == number
            counts = np.bincount(alone[core][where])
            assert (whole["labels"][0][core][where] == counts.argmax()).all()
            share = np.round(counts.max() / counts.sum() * 250)
            assert (whole["confidence"][0][core][where] == share).all()


@pytest.mark.parametrize(
    ("given", "asked"),
    [
        ({}, {"threshold": 0.6}),
        ({}, {"aoi": "480020,5459800,480060,5459860"}),
        ({}, {"aoi": "480180,5459740,480310,5459780", "max_memory": 1}),
        ({"gsd": 0.7}, {}),
        ({"gsd": 0.7}, {"grid": "scene"}),
        ({"gsd": 0.7}, {"grid": "scene", "aoi": "480020,5459800,480060,5459860", "max_memory": 1}),
        ({"on_error": "skip"}, {}),
    ],
    ids=["threshold", "area", "area, panels", "coarser", "scene's grid", "scene's grid, area, panels", "skip"],
)
def test_votes_are_the_same_of_a_scene_and_of_its_features(
    scene: str, kept: str, whole: dict[str, np.ndarray], tmp_path: Path, given: dict[str, Any], asked: dict[str, Any]
) -> None:
    own = segment(scene, output=tmp_path / "a.tif", confidence=tmp_path / "as.tif", **OWN, **given, **ASKED, **asked)
    store = encode(scene, output=tmp_path / "x.zarr", **OWN, **given).features if given else kept
    made = segment(store, output=tmp_path / "b.tif", confidence=tmp_path / "bs.tif", **ASKED, **asked)
    np.testing.assert_array_equal(_read(own.labels), _read(made.labels))
    np.testing.assert_array_equal(_read(tmp_path / "as.tif"), _read(tmp_path / "bs.tif"))
    if "aoi" in asked and "gsd" not in given:
        labels = _read(own.labels)[0]
        np.testing.assert_array_equal(labels[labels != 255], whole["labels"][0][labels != 255])
        assert 0 < own.outside_windows < own.windows


def test_shards_and_panels_vote_as_the_whole(scene: str, whole: dict[str, np.ndarray], tmp_path: Path) -> None:
    for number in (1, 2):
        shard = segment(scene, output=tmp_path / "a.tif", shard=(number, 2), max_memory=1, **OWN, **ASKED)
    merged = merge(str(shard.parts_dir))
    np.testing.assert_array_equal(_read(merged.labels), whole["labels"])
    assert merged.windows == dry_run(scene, **OWN, **ASKED).windows == 20
    for number in (1, 2, 3):
        folder = encode(scene, output=tmp_path / "x.zarr", shard=(number, 3), **OWN).parts_dir
    store = merge(str(folder)).labels
    np.testing.assert_array_equal(_read(segment(store, output=tmp_path / "b.tif", **ASKED).labels), whole["labels"])


def test_an_encoding_with_regions_that_was_stopped_goes_on(scene: str, kept: str, tmp_path: Path) -> None:
    def stop() -> int | None:
        return 2 if list(tmp_path.glob("x.zarr.parts/part_*.json")) else None

    with pytest.raises(InterruptedRunError, match=" of 4 parts"):
        encode(scene, output=tmp_path / "x.zarr", stop=stop, **OWN)
    again = encode(scene, output=tmp_path / "x.zarr", resume=True, **OWN).features
    one, other = (FeatureStore(path).regions((0, 531), Panel(0, 630)) for path in (again, kept))
    np.testing.assert_array_equal(one, other)


@pytest.mark.trial
def test_two_workers_vote_as_one(scene: str, whole: dict[str, np.ndarray], tmp_path: Path) -> None:
    given = {**OWN, **ASKED, "workers": 2}
    made = segment(scene, output=tmp_path / "a.tif", features=tmp_path / "x.zarr", **given)
    np.testing.assert_array_equal(_read(made.labels), whole["labels"])


@pytest.mark.parametrize("given", [{"gsd": 0.7}, {}])
def test_a_file_of_regions_votes_and_is_not_looked_for_again(
    scene: str, tmp_path: Path, write_raster: Write, given: dict[str, Any]
) -> None:
    """The scene's own identity is that without it."""
    squares = (np.arange(531)[:, None] // 40 * 100 + np.arange(630) // 30 + 2**31 - 5000).astype(np.uint32)
    with rasterio.open(scene) as src:
        regions = write_raster(squares[None], "regions.tif", crs=src.crs, transform=src.transform)
    own = {**OWN, "regions": regions, **given}
    direct = segment(scene, output=tmp_path / "a.tif", grid="scene", **own, **ASKED)
    kept = segment(scene, output=tmp_path / "b.tif", features=tmp_path / "x.zarr", grid="scene", **own, **ASKED)
    Path(regions).unlink()
    asked = segment(tmp_path / "x.zarr", output=tmp_path / "c.tif", grid="scene", **ASKED)
    for made in (kept, asked):
        np.testing.assert_array_equal(_read(made.labels), _read(direct.labels))


@pytest.mark.parametrize("first", [True, False])
def test_features_are_the_same_whether_regions_vote_or_not(
    scene: str, whole: dict[str, np.ndarray], tmp_path: Path, first: bool
) -> None:
    """What was said when they were made counts until it is said otherwise."""
    store = encode(scene, output=tmp_path / "x.zarr", **OWN, settings={"correct": first}).features
    made = segment(store, output=tmp_path / "a.tif", **ASKED)
    assert (_read(made.labels) == whole["labels"]).all() == first
    on_the_way = segment(scene, output=tmp_path / "b.tif", features=store, **OWN, **ASKED)
    np.testing.assert_array_equal(_read(on_the_way.labels), whole["labels"])
    other = segment(
        scene, output=tmp_path / "c.tif", features=store, **OWN, **ASKED, settings={"correct": False}
    )  # fmt: skip
    assert (_read(other.labels) != whole["labels"]).any()


def test_what_a_scene_is_not_asked_its_features_are_not(kept: str, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="corrclip has scores at pixels already, so leave --upsample guided aside"):
        segment(kept, output=tmp_path / "a.tif", upsample="guided", **ASKED)


def test_blocks_that_are_no_whole_cells_vote_by_block(scene: str, tmp_path: Path) -> None:
    """As they did before features were given; there are none then."""
    odd = {**OWN, "stride": 60}
    assert segment(scene, output=tmp_path / "a.tif", **odd, **ASKED).skipped_windows == 0
    with pytest.raises(UsageError, match="corrclip, as it is set, gives scores of words and no features; .* segearth"):
        encode(scene, output=tmp_path / "x.zarr", **odd)


def test_arrays_vote_as_scenes(scene: str, whole: dict[str, np.ndarray]) -> None:
    pixels = _read(scene)
    with Segmenter(None, **OWN, **ASKED) as segmenter:
        codes, sure = segmenter.predict(pixels, pixels.any(0))
        shares = segmenter.scores(pixels, pixels.any(0))
    np.testing.assert_array_equal(codes, whole["labels"][0])
    known = codes != 255
    np.testing.assert_array_equal(np.round(sure[known] * 250), whole["confidence"][0][known])
    np.testing.assert_array_equal(np.round(shares[:, known] * 250), whole["scores"][:, known])


def test_damaged_regions_are_named(kept: str, tmp_path: Path) -> None:
    store = tmp_path / "x.zarr"
    shutil.copytree(kept, store)
    chunk = store / "regions" / "c" / "0" / "1"
    content = bytearray(chunk.read_bytes())
    content[len(content) // 2] ^= 0xFF
    chunk.write_bytes(content)
    with pytest.raises(SceneError, match="is damaged: chunk regions/c/0/1"):
        segment(store, output=tmp_path / "a.tif", **ASKED)
    chunk.unlink()
    with pytest.raises(SceneError, match="chunk regions/c/0/1: it is not there, or holds what is no region"):
        segment(store, output=tmp_path / "a.tif", **ASKED)
    segment(store, output=tmp_path / "a.tif", method="corrclip", settings={"correct": False}, **ASKED)


def test_whether_regions_vote_is_asked_only_where_they_are_kept(scene: str, kept: str, tmp_path: Path) -> None:
    plain = encode(scene, output=tmp_path / "x.zarr", model="demo").features
    assert not FeatureStore(plain).about.regions
    with pytest.raises(UsageError, match="--set distance=0.5: the features in .* were made otherwise"):
        segment(kept, output=tmp_path / "a.tif", method="corrclip", settings={"distance": 0.5}, **ASKED)
