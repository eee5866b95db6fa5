"""Drawn scenes: a function of seed and pixel, with exact ground truth."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import rasterio
from hypothesis import given, settings
from hypothesis import strategies as st

from geoovseg.demo.files import write_scene
from geoovseg.demo.noise import chance, smooth
from geoovseg.demo.scenes import CLASSES, COLOURS, PARKING, ROAD, render
from geoovseg.errors import OutputError
from geoovseg.labels.read import category_names
from geoovseg.scene.scene import open_scene


@settings(max_examples=12, deadline=None)
@given(st.integers(0, 10_000), st.integers(0, 300), st.integers(0, 300), st.integers(1, 90), st.integers(1, 90))
def test_windows_of_a_seed_fit_together(seed: int, row: int, col: int, height: int, width: int) -> None:
    whole = render(seed, 100, 100, row_off=row, col_off=col)
    part = render(seed, height, width, row_off=row + 3, col_off=col + 5)
    rows, cols = slice(3, min(3 + height, 100)), slice(5, min(5 + width, 100))
    for a, b in zip(whole, part, strict=True):
        size = (rows.stop - 3, cols.stop - 5)
        np.testing.assert_array_equal(a[..., rows, cols], b[..., : size[0], : size[1]])


def test_seeds_differ_and_repeat() -> None:
    first, again, other = (render(seed, 64, 64)[0] for seed in (5, 5, 6))
    np.testing.assert_array_equal(first, again)
    assert (first != other).mean() > 0.5


def test_every_pixel_has_one_of_eight_classes_and_scenes_show_them_all() -> None:
    labels = [render(seed, 700, 700)[1] for seed in (1000, 1001, 1002)]
    counts = sum(np.bincount(label.ravel(), minlength=9) for label in labels)
    assert len(CLASSES) == len(COLOURS) == 8
    assert counts[0] == 0
    assert (counts[1:] / counts.sum() > 0.01).all()


def test_cars_are_painted_but_labelled_as_what_they_stand_on() -> None:
    rgb, label = render(1001, 700, 700)
    red_cars = (rgb[0] > 130) & (rgb[1] < 60) & (rgb[2] < 70)
    assert red_cars.sum() > 50
    assert np.isin(label[red_cars], (ROAD, PARKING)).mean() > 0.9


def test_chance_is_uniform_and_independent_of_its_neighbours() -> None:
    n = np.arange(200)
    values = chance(1, n[:, None], n[None, :], 3)
    assert values.min() >= 0
    assert values.max() < 1
    assert abs(values.mean() - 0.5) < 0.01
    assert abs(values.var() - 1 / 12) < 0.003
    assert abs(np.corrcoef(values[:, :-1].ravel(), values[:, 1:].ravel())[0, 1]) < 0.02


def test_smooth_fields_meet_at_window_borders() -> None:
    rows, cols = np.arange(50), np.arange(-20, 60)
    whole = smooth(2, rows, cols, 14)
    np.testing.assert_array_equal(smooth(2, rows[30:], cols[7:], 14), whole[30:, 7:])
    assert np.abs(np.diff(whole, axis=0)).max() < 0.2


def test_files_carry_tag_names_and_colours(tmp_path: Path) -> None:
    scene, truth = write_scene(tmp_path / "new", 1000, 530, 540)
    with open_scene(scene) as src:
        assert src.is_demo
        assert src.src.tags()["GEOOVSEG_DEMO"] == "1000"
        assert src.transform.a == 0.5
    rgb, label = render(1000, 530, 540)
    with rasterio.open(scene) as a, rasterio.open(truth) as b:
        np.testing.assert_array_equal(a.read(), rgb)
        np.testing.assert_array_equal(b.read(1), label)
        assert list(category_names(b).values()) == list(CLASSES)
        assert b.colormap(1)[1][:3] == (192, 57, 43)
    assert not list(tmp_path.rglob("*.part.tif"))


def test_a_folder_that_cannot_be_made_is_refused(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(OutputError, match="cannot write a scene into"):
        write_scene(tmp_path / "file" / "x", 1, 8, 8)
