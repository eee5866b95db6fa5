"""Scores brought back to the scene's grid: bilinear, wherever panels, parts and batches of rows begin."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import rasterio
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from raster_files import break_block, written
from rasterio.transform import from_origin
from rasterio.windows import Window
from torch.nn.functional import interpolate

from geoovseg import METHODS, encode, merge, segment
from geoovseg.demo.scenes import render
from geoovseg.errors import SceneError, UsageError
from geoovseg.run.estimate import dry_run
from geoovseg.scene.scene import DEMO_TAG
from geoovseg.settings import UPSAMPLERS
from geoovseg.windows.blend import Rows
from geoovseg.windows.plan import Native, Panel, Part, Span
from geoovseg.windows.resample import Resampled

PLACED: dict[str, Any] = {"transform": from_origin(480_000, 5_460_000, 0.1, 0.1), "tags": {DEMO_TAG: "1003"}}
TILED = {"compress": "deflate", "tiled": True, "blockxsize": 256, "blockysize": 256, "interleave": "pixel"}
FINE: dict[str, Any] = {"model": "demo", "gsd": 0.8}
ASKED: dict[str, Any] = {"vocabulary": "demo", "background": "none", "grid": "scene"}


def _everywhere(window: Window) -> np.ndarray:
    return np.ones((window.height, window.width), bool)


def _brought(
    native: Native, panel: Panel, span: Span, scores: torch.Tensor, valid: torch.Tensor, step: int, **more: Any
) -> tuple[torch.Tensor, torch.Tensor]:
    """Scores and mask of a panel's rows, of scores of all that models saw, `step` rows at a time."""
    resampled = Resampled(native, panel, span, more.get("mask", _everywhere), "cpu")
    columns, (first, end) = native.around(panel, span)
    cut = slice(columns.col_off, columns.col_off + columns.width)
    rows: list[Rows] = []
    for row in range(first, end, step):
        here = slice(row, min(end, row + step))
        seen = scores[:, here, cut] if scores[:, here].any() else None
        rows += resampled.add(Rows(row, seen, valid[here, cut]))
    assert [found.row_off for found in rows] == np.cumsum(
        [span[0], *[len(found.valid) for found in rows[:-1]]]
    ).tolist()
    nothing = torch.zeros(len(scores), 1, 1)
    whole = [nothing.expand(-1, *r.valid.shape) if r.scores is None else r.scores for r in rows]
    return torch.cat(whole, 1), torch.cat([found.valid for found in rows])


@st.composite
def _grids(draw: st.DrawFn) -> tuple[Native, Panel, Span]:
    shape, seen = (draw(st.tuples(st.integers(1, 60), st.integers(1, 60))) for _ in range(2))
    first, left = draw(st.integers(0, shape[0] - 1)), draw(st.integers(0, shape[1] - 1))
    end, right = draw(st.integers(first + 1, shape[0])), draw(st.integers(left + 1, shape[1]))
    return Native(shape, seen), Panel(left, right - left), (first, end)


@settings(max_examples=150, deadline=None)
@given(_grids(), st.integers(1, 70), st.integers(0, 99))
def test_scores_come_back_as_torch_interpolates_them(grids: tuple[Native, Panel, Span], step: int, seed: int) -> None:
    native, panel, span = grids
    scores = torch.rand(3, *native.seen, generator=torch.Generator().manual_seed(seed)) + 0.1
    found, valid = _brought(native, panel, span, scores, torch.ones(native.seen, dtype=torch.bool), step)
    whole = interpolate(scores[None], native.shape, mode="bilinear", align_corners=False)[0]
    torch.testing.assert_close(found, whole[:, span[0] : span[1], panel.col_off :][..., : panel.width])
    assert valid.all()


@settings(max_examples=150, deadline=None)
@given(_grids(), st.integers(1, 70), st.integers(1, 70), st.integers(0, 99))
def test_a_pixel_depends_on_no_panel_span_or_batch(
    grids: tuple[Native, Panel, Span], one: int, other: int, seed: int
) -> None:
    """Also beside what no window was on, in rows and in columns."""
    native, panel, span = grids
    generator = torch.Generator().manual_seed(seed)
    scores = torch.rand(2, *native.seen, generator=generator) + 0.1
    scores[:, torch.rand(native.seen[0], generator=generator) < 0.4] = 0
    scores[:, :, torch.rand(native.seen[1], generator=generator) < 0.2] = 0
    valid = scores.any(0) & (torch.rand(native.seen, generator=generator) < 0.8)
    found = _brought(native, panel, span, scores, valid, one)
    whole = _brought(native, Panel(0, native.shape[1]), (0, native.shape[0]), scores, valid, other)
    for part, all_of_it in zip(found, whole, strict=True):
        assert torch.equal(part, all_of_it[..., span[0] : span[1], panel.col_off :][..., : panel.width])


@settings(max_examples=150, deadline=None)
@given(_grids())
def test_what_begins_in_a_part_is_what_its_rows_are_made_of(grids: tuple[Native, Panel, Span]) -> None:
    native, panel, span = grids
    begun = native.begun_in(Part(panel, span[0], span[1] - span[0]))
    (around, rows), places = native.around(panel, span), np.indices(native.seen).reshape(2, -1).T.tolist()
    for row, column in places:
        at = native.begin(row, column)
        inside = span[0] <= at[0] < span[1] and panel.col_off <= at[1] < panel.col_off + panel.width
        assert begun.owns(Window(column, row, 1, 1)) == inside
        if inside:
            assert rows[0] <= row < rows[1]
            assert around.col_off <= column < around.col_off + around.width


def test_what_no_window_was_on_does_not_count() -> None:
    """Beside it scores are those of what was seen, and where nothing was, there is no data."""
    native = Native((9, 9), (3, 3))
    scores, valid = torch.full((2, 3, 3), 0.7), torch.ones(3, 3, dtype=torch.bool)
    scores[:, 1:], valid[1:] = 0, False
    found, known = _brought(native, Panel(0, 9), (0, 9), scores, valid, 3)
    assert torch.equal(known, (torch.arange(9) < 3)[:, None].expand(9, 9))
    torch.testing.assert_close(found[:, :3], torch.full((2, 3, 9), 0.7))


def test_data_is_where_the_scene_says() -> None:
    holes = np.random.default_rng(0).random((12, 8)) < 0.5

    def mask(window: Window) -> np.ndarray:
        rows, columns = window.toslices()
        return holes[rows, columns]

    scores, valid = torch.ones(1, 5, 3), torch.ones(5, 3, dtype=torch.bool)
    _, known = _brought(Native((12, 8), (5, 3)), Panel(2, 5), (1, 11), scores, valid, 2, mask=mask)
    np.testing.assert_array_equal(known.numpy(), holes[1:11, 2:7])


# Of scenes and of stores.


def _read(path: str | Path) -> np.ndarray:
    with rasterio.open(path) as src:
        return src.read()


@pytest.fixture(scope="module")
def fine(tmp_path_factory: pytest.TempPathFactory) -> str:
    """A scene of three parts and two panels, finer than models are to see it, with holes."""
    data = np.kron(render(1003, 200, 100)[0], np.ones((1, 6, 6), np.uint8))[:, :1100]
    data = np.maximum(data, 1)
    data[:, 100:310, 50:200] = 0
    data[:, 900:, 580:] = 0
    return written(tmp_path_factory.mktemp("fine") / "scene.tif", data, nodata=0, **PLACED)


@pytest.mark.parametrize("upsample", UPSAMPLERS)
@pytest.mark.parametrize(
    "asked",
    [{}, {"aoi": "480005,5459920,480050,5459990"}, {"threshold": 0.5}, {"max_memory": 1}],
    ids=["whole", "area", "threshold", "panels"],
)
def test_features_come_back_to_the_grid_of_their_scene(
    fine: str, tmp_path: Path, upsample: str, asked: dict[str, Any]
) -> None:
    given, own_gsd = {**ASKED, "upsample": upsample, **asked}, 0.12 if "max_memory" in asked else 0.8
    own = segment(fine, output=tmp_path / "a.tif", confidence=tmp_path / "as.tif", model="demo", gsd=own_gsd, **given)
    kept = encode(fine, output=tmp_path / "x.zarr", model="demo", gsd=own_gsd)
    made = segment(kept.features, output=tmp_path / "b.tif", confidence=tmp_path / "bs.tif", **given)
    for one, other in (("a", "b"), ("as", "bs")):
        np.testing.assert_array_equal(_read(tmp_path / f"{one}.tif"), _read(tmp_path / f"{other}.tif"))
    assert (own.panels > 1) == ("max_memory" in asked)
    assert own.skipped_windows == 0
    assert made.megapixels == own.megapixels == 0.66
    with rasterio.open(fine) as src, rasterio.open(made.labels) as dst:
        assert (src.crs, src.transform, src.shape) == (dst.crs, dst.transform, dst.shape)
        if "aoi" not in asked:
            np.testing.assert_array_equal(dst.read(1) == 255, ~src.dataset_mask().astype(bool))


@pytest.mark.parametrize("method", ["segearth", "resclip"])
def test_parts_and_panels_of_the_scenes_grid_are_those_of_the_whole(fine: str, tmp_path: Path, method: str) -> None:
    given = {**FINE, **ASKED, "method": method, "gsd": 0.12}
    whole = segment(fine, output=tmp_path / "a.tif", scores=tmp_path / "as.tif", **given)
    narrow = segment(fine, output=tmp_path / "b.tif", scores=tmp_path / "bs.tif", max_memory=1, **given)
    np.testing.assert_array_equal(_read(tmp_path / "as.tif"), _read(tmp_path / "bs.tif"))
    assert narrow.panels == 2
    for number in (1, 2, 3):
        shard = segment(fine, output=tmp_path / "c.tif", shard=(number, 3), **given)
    merged = merge(str(shard.parts_dir))
    for labels in (narrow.labels, merged.labels):
        np.testing.assert_array_equal(_read(labels), _read(whole.labels))
    assert merged.windows == whole.windows == dry_run(fine, **given).windows
    assert merged.skipped_windows == narrow.skipped_windows == whole.skipped_windows
    assert METHODS[method].gives == ("scores" if method == "resclip" else "features")


def test_features_kept_on_the_way_are_on_the_grid_that_models_saw(fine: str, tmp_path: Path) -> None:
    given = {**FINE, **ASKED}
    own = segment(fine, output=tmp_path / "a.tif", **given)
    made = segment(fine, output=tmp_path / "b.tif", features=tmp_path / "x.zarr", **given)
    np.testing.assert_array_equal(_read(own.labels), _read(made.labels))
    again = segment(tmp_path / "x.zarr", output=tmp_path / "c.tif", **{**ASKED, "grid": "working"})
    with rasterio.open(again.labels) as src:
        assert src.shape == (138, 75)


def test_the_scenes_grid_needs_the_scene(fine: str, tmp_path: Path) -> None:
    """Without --gsd it is the grid of the features."""
    store = encode(fine, output=tmp_path / "x.zarr", **FINE).features
    (tmp_path / "there").mkdir()
    moved = Path(store).rename(tmp_path / "there" / "x.zarr")
    with pytest.raises(UsageError, match="--grid scene looks at where the scene has data of .*x.zarr: leave it away"):
        segment(moved, output=tmp_path / "a.tif", upsample="bilinear", **ASKED)
    plain = encode(fine, output=tmp_path / "y.zarr", model="demo", aoi=None).features
    moved = Path(plain).rename(tmp_path / "there" / "y.zarr")
    assert segment(moved, output=tmp_path / "a.tif", upsample="bilinear", **ASKED).megapixels == 0.66


def test_what_cannot_be_read_has_no_data_on_the_scenes_grid(fine: str, tmp_path: Path) -> None:
    path = written(tmp_path / "broken.tif", _read(fine), nodata=0, **PLACED, **TILED)
    break_block(path, 1, 4)
    found = segment(path, output=tmp_path / "a.tif", on_error="skip", **FINE, **ASKED)
    labels = _read(found.labels)[0]
    assert found.failed_windows > 0
    assert (
        labels[:512] == _read(segment(fine, output=tmp_path / "b.tif", **FINE, **ASKED).labels)[0][:512]
    ).mean() > 0.9
    assert (labels[1024:, 256:512] == 255).all()


@pytest.mark.parametrize("gsd", [0.05, 0.8])
@pytest.mark.parametrize("kind", ["palette", "not a number"])
def test_no_data_is_the_scenes_own_whatever_models_saw(tmp_path: Path, kind: str, gsd: float) -> None:
    """Of a palette one pixel is taken for many, and a mean with one that is no number is none."""
    rng, path = np.random.default_rng(1), tmp_path / "scene.tif"
    if kind == "palette":
        codes = rng.integers(0, 4, (240, 300)).astype(np.uint8)
        written(path, codes[None], nodata=0, **PLACED)
        with rasterio.open(path, "r+") as dst:
            dst.write_colormap(1, {n: (60 * n, 200 - 40 * n, 90, 255) for n in range(4)})
        lacks = codes == 0
    else:
        data = rng.random((3, 240, 300)).astype(np.float32)
        lacks = rng.random((240, 300)) < 0.01
        data[:, lacks] = np.nan
        written(path, data, **PLACED)
    scale = "auto" if kind == "palette" else "0,1"
    found = segment(path, output=tmp_path / "a.tif", model="demo", gsd=gsd, scale=scale, **ASKED)
    np.testing.assert_array_equal(_read(found.labels)[0] == 255, lacks)


def test_an_area_is_not_kept_from_by_damage_beyond_it(tmp_path: Path) -> None:
    data = np.maximum(render(1003, 256, 1024)[0], 1)
    path = written(tmp_path / "scene.tif", data, nodata=0, **PLACED, **TILED)
    break_block(path, 3, 0)
    given = {**ASKED, "model": "demo", "gsd": 0.2, "upsample": "bilinear", "aoi": "480002,5459980,480015,5459995"}
    assert segment(path, output=tmp_path / "a.tif", **given).failed_windows == 0
    with pytest.raises(SceneError, match="cannot read rows"):
        segment(path, output=tmp_path / "b.tif", **{**given, "aoi": None})


@settings(max_examples=40, deadline=None)
@given(st.integers(300, 1200), st.integers(200, 1300), st.sampled_from([8, 48]))
def test_parts_are_given_when_all_that_begins_in_them_was_seen(height: int, rows: int, step: int) -> None:
    """Else windows that begin there would be counted as skipped."""
    native, given_away = Native((height, 2), (rows, 2)), 0
    resampled = Resampled(native, Panel(0, 2), (0, height), _everywhere, "cpu")
    for row in range(0, rows, step):
        end = min(rows, row + step)
        scores = torch.ones(1, end - row, 2)
        for found in resampled.add(Rows(row, scores, torch.ones(end - row, 2, dtype=torch.bool))):
            given_away = found.row_off + len(found.valid)
        assert native.begun_in(Part(Panel(0, 2), 0, given_away)).end <= end
    assert given_away == height
