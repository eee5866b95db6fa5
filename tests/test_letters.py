"""Letters in pictures: never a box, whatever fonts a machine has."""

from __future__ import annotations

import numpy as np
import pytest
from PIL import Image, features

from geoovseg.errors import GeoOVSegWarning
from geoovseg.labels import letters
from geoovseg.labels.page import Entry, compose

NAMES = ["Straße", "Żółta ścieżka", "дорога", "道路", "建筑物", "Κτίριο"]


def _ink(text: str) -> np.ndarray:
    return np.asarray(letters.line(text)[0])


@pytest.fixture
def bare(monkeypatch: pytest.MonkeyPatch) -> None:
    """A machine with nothing but Pillow's own font."""
    monkeypatch.setattr(letters, "FONTS", ())
    monkeypatch.setattr(letters, "_of_opencv", lambda: None)


@pytest.mark.parametrize("name", NAMES)
def test_every_letter_has_a_shape_of_its_own(name: str) -> None:
    shapes = {letter: _ink(letter).tobytes() for letter in set(name) - {" "}}
    assert len(set(shapes.values())) == len(shapes)


@pytest.mark.usefixtures("bare")
def test_letters_that_no_font_has_are_code_points() -> None:
    assert (_ink("道路 2") == _ink("U+9053 U+8DEF 2")).all()
    assert letters.line("道路 2")[1] == "道路"
    assert letters.line("road") == (letters.line("road")[0], "")


@pytest.mark.usefixtures("bare")
def test_letters_with_accents_are_shown_without_them_rather_than_as_code_points() -> None:
    assert (_ink("école") == _ink("ecole")).all()
    assert letters.line("école")[1] == ""


@pytest.mark.usefixtures("bare")
def test_a_legend_of_letters_that_no_font_has_warns_once() -> None:
    pane = Image.new("RGB", (100, 100))
    with pytest.warns(GeoOVSegWarning, match="no font here has the letters 道路, so") as told:
        compose([pane], [Entry(text="道", colour=(1, 2, 3)), Entry(text="路", colour=(1, 2, 3))], 0)
    assert len(told) == 1


def test_letters_from_right_to_left_are_in_order_or_code_points(monkeypatch: pytest.MonkeyPatch) -> None:
    """Without the library that puts them in order, they would be read backwards."""
    monkeypatch.setattr(features, "check", lambda name: False)
    letters._has.cache_clear()
    assert letters.line("شارع")[1] == "شارع"
    letters._has.cache_clear()


@pytest.mark.parametrize("name", ["a b c " * 60, "x" * 400, "道" * 90, " ", ""])
def test_names_of_any_length_fit_the_page(name: str) -> None:
    page = compose([Image.new("RGB", (300, 200))] * 2, [Entry(text=name, share="5.2 %", colour=(1, 2, 3))], 0.5)
    assert page.width == 2 * 300 + 3 * 14
    edge = np.asarray(page)[:, -13:]
    assert (edge == 255).all()


def test_nothing_of_a_long_name_is_lost() -> None:
    """Its ink is that of its words."""
    words = ["alpha", "beta", "gamma", "delta"] * 12
    page = compose([Image.new("RGB", (400, 50))], [Entry(text=" ".join(words), colour=None, faint=False)], 0)
    whole = (np.asarray(letters.line(" ".join(words))[0]) / 255).sum()
    below = 1 - np.asarray(page.convert("L"))[80:, 14 + 16 + 2 :] / 255
    assert below.sum() == pytest.approx(whole, rel=0.03)
