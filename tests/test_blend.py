"""The blend: streaming rows give what a whole-scene sum gives, up to the last pixel."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from geoovseg.windows.blend import Rows, ScoreBlend, sum_dtype, taper
from geoovseg.windows.plan import Panel, TilePlan, panels_of, plan_tiles


def _blend(plan: TilePlan, panel: Panel, scores: dict[tuple[int, int], torch.Tensor]) -> list[Rows]:
    blend = ScoreBlend(plan, panel, 2, "cpu")
    rows: list[Rows] = []
    for window in plan.windows(panel):
        place = (window.row_off, window.col_off)
        if place in scores:
            valid = torch.ones(1, *plan.tile, dtype=torch.bool)
            rows += blend.add([window], scores[place][None], valid)
    return [*rows, *blend.finish()]


def _random(plan: TilePlan, seed: int) -> dict[tuple[int, int], torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    windows = plan.windows(Panel(0, plan.width))
    return {(w.row_off, w.col_off): torch.rand(2, *plan.tile, generator=generator) for w in windows}


@st.composite
def _plans(draw: st.DrawFn) -> TilePlan:
    tile = 8 * draw(st.integers(1, 5))
    height, width = draw(st.integers(1, 90)), draw(st.integers(1, 90))
    return plan_tiles(height, width, tile=tile, stride=draw(st.integers(1, tile)), patch=8)


@settings(max_examples=60, deadline=None)
@given(_plans(), st.integers(0, 99))
def test_streaming_equals_the_whole_scene_sum_bit_for_bit(plan: TilePlan, seed: int) -> None:
    scores = _random(plan, seed)
    total, weight = torch.zeros(3, 200, 200, dtype=sum_dtype(plan)).split([2, 1])
    weight = weight[0]
    w = taper(plan.tile[0])[:, None] * taper(plan.tile[1])[None]
    for (r, c), score in scores.items():
        box = (slice(r, r + plan.tile[0]), slice(c, c + plan.tile[1]))
        total[:, *box] += score * w
        weight[box] += w
    expected = (total / weight)[:, : plan.height, : plan.width].float()
    rows = _blend(plan, Panel(0, plan.width), scores)
    assert torch.equal(torch.cat([r.scores for r in rows], dim=1), expected)
    assert [r.row_off for r in rows] == np.cumsum([0, *[r.scores.shape[1] for r in rows[:-1]]]).tolist()


@settings(max_examples=80, deadline=None)
@given(_plans(), st.floats(-1, 1, width=32))
def test_blend_keeps_a_constant_field(plan: TilePlan, value: float) -> None:
    scores = {k: torch.full_like(v, value) for k, v in _random(plan, 0).items()}
    for rows in _blend(plan, Panel(0, plan.width), scores):
        assert (rows.scores - value).abs().max() <= 1e-6
        assert rows.valid.all()


def test_panels_change_no_bit() -> None:
    plan = plan_tiles(70, 1300, tile=40, stride=16, patch=8)
    scores = _random(plan, 4)
    whole = torch.cat([r.scores for r in _blend(plan, Panel(0, 1300), scores)], dim=1)
    panels = panels_of(plan.width, 512)
    assert len(panels) == 3
    for panel in panels:
        part = torch.cat([r.scores for r in _blend(plan, panel, scores)], dim=1)
        assert torch.equal(part, whole[:, :, panel.col_off : panel.col_off + panel.width])


def test_missing_windows_leave_rows_without_data() -> None:
    plan = plan_tiles(100, 20, tile=24, stride=24, patch=8)
    scores = {k: v for k, v in _random(plan, 1).items() if k[0] in (0, 76)}
    rows = _blend(plan, Panel(0, 20), scores)
    valid = torch.cat([r.valid for r in rows])
    assert valid.all(dim=1).tolist() == [True] * 24 + [False] * 52 + [True] * 24
    assert torch.isfinite(torch.cat([r.scores for r in rows if r.scores is not None], dim=1)).all()
    assert [r.row_off for r in rows] == np.cumsum([0, *[len(r.valid) for r in rows[:-1]]]).tolist()
    assert any(r.scores is None for r in rows)


@pytest.mark.parametrize("length", [1, 7, 8, 224])
def test_taper_is_positive_symmetric_and_highest_in_the_middle(length: int) -> None:
    weights = taper(length)
    assert weights.min() >= 0.99 / length
    assert torch.allclose(weights, weights.flip(0))
    assert weights.argmax() in (length // 2, (length - 1) // 2)


def test_the_strip_does_not_grow_with_the_scenes_height() -> None:
    short, tall = (plan_tiles(h, 1000, tile=112, stride=56, patch=8) for h in (1000, 1_000_000))
    assert short.strip_bytes(9, 1000) == tall.strip_bytes(9, 1000) == 112 * 1000 * 41
