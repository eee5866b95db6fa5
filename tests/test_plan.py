"""Window geometry: integers only."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from geoovseg.errors import UsageError
from geoovseg.windows.plan import BLOCK, Panel, TilePlan, origins, panels_of, parts_of, plan_tiles

LENGTHS = st.integers(1, 4000)


@st.composite
def _plans(draw: st.DrawFn) -> TilePlan:
    patch = draw(st.sampled_from([8, 14, 16]))
    tile = patch * draw(st.integers(1, 12))
    return plan_tiles(draw(LENGTHS), draw(LENGTHS), tile=tile, stride=draw(st.integers(1, tile)), patch=patch)


@given(LENGTHS, st.integers(1, 300), st.data())
def test_windows_cover_every_pixel_and_stay_inside(length: int, tile: int, data: st.DataObject) -> None:
    stride = data.draw(st.integers(1, tile))
    found = origins(length, tile, stride)
    assert found[0] == 0
    assert all(0 < b - a <= stride for a, b in zip(found, found[1:], strict=False))
    assert found[-1] + tile >= length
    assert length < tile or found[-1] + tile == length


@given(LENGTHS, LENGTHS, st.sampled_from([8, 14, 16]), st.integers(1, 12))
def test_a_tile_is_an_upper_bound_and_whole_patches(height: int, width: int, patch: int, patches: int) -> None:
    asked = patch * patches
    plan = plan_tiles(height, width, tile=asked, stride=1, patch=patch)
    for side, tile in ((plan.height, plan.tile[0]), (plan.width, plan.tile[1])):
        assert tile % patch == 0
        assert tile == min(asked, -(-side // patch) * patch)


@given(_plans(), st.integers(1, 5000))
def test_panels_partition_the_columns_at_whole_blocks(plan: TilePlan, width: int) -> None:
    panels = panels_of(plan.width, width)
    assert panels[0].col_off == 0
    assert sum(p.width for p in panels) == plan.width
    assert all(p.col_off % BLOCK == 0 for p in panels)
    assert all(a.col_off + a.width == b.col_off for a, b in zip(panels, panels[1:], strict=False))


@given(_plans(), st.integers(1, 2000))
def test_panels_use_the_windows_of_the_whole_scene(plan: TilePlan, width: int) -> None:
    whole = set(plan.columns(Panel(0, plan.width)))
    for panel in panels_of(plan.width, width):
        touching = {c for c in whole if c < panel.col_off + panel.width and c + plan.tile[1] > panel.col_off}
        assert set(plan.columns(panel)) == touching


def test_windows_come_row_by_row() -> None:
    plan = plan_tiles(100, 70, tile=32, stride=16, patch=8)
    windows = list(plan.windows(Panel(0, 70)))
    places = [(w.row_off, w.col_off) for w in windows]
    assert places == sorted(places)
    assert len(windows) == plan.count(Panel(0, 70)) == len(plan.row_offs) * len(plan.col_offs)
    assert {(w.height, w.width) for w in windows} == {(32, 32)}


def test_a_small_scene_gets_one_window_of_whole_patches() -> None:
    plan = plan_tiles(51, 20, tile=224, stride=112, patch=16)
    assert plan.tile == (64, 32)
    assert plan.row_offs == plan.col_offs == (0,)


@pytest.mark.parametrize(
    ("tile", "stride", "message"),
    [(30, 8, "--tile 30 is no multiple.*try --tile 32"), (4, 4, "try --tile 8"), (32, 0, "--stride 0"), (32, 33, "33")],
)
def test_impossible_windows_are_refused(tile: int, stride: int, message: str) -> None:
    with pytest.raises(UsageError, match=message):
        plan_tiles(100, 100, tile=tile, stride=stride, patch=8)


@settings(max_examples=40, deadline=None)
@given(st.integers(1, 1300), st.integers(1, 1300), st.integers(1, 80), st.integers(1, 80))
def test_every_window_is_counted_in_one_part(height: int, width: int, steps: int, stride: int) -> None:
    plan = plan_tiles(height, width, tile=8 * steps, stride=min(stride, 8 * steps), patch=8)
    panels = panels_of(plan.width, 512)
    for part in parts_of(plan.height, panels):
        windows = plan.windows(part.panel, (part.row_off, part.end))
        assert plan.owned(part) == sum(part.owns(window) for window in windows)
    assert sum(plan.owned(part) for part in parts_of(plan.height, panels)) == len(plan.row_offs) * len(plan.col_offs)
