"""Options and their values: none is taken for the other, and what was hardly meant is asked about."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from geoovseg.cli.questions import questions

Run = Callable[..., tuple[int, str, str]]


@pytest.mark.parametrize(
    ("command", "flag", "next_one"),
    [
        (["segment", "x.tif", "-c", "--model", "demo"], "-c", "--model"),
        (["segment", "x.tif", "-c", "road", "--model", "-o", "y.tif"], "--model", "-o"),
        (["segment", "x.tif", "-c", "road", "--aoi", "--unknown"], "--aoi", "--unknown"),
        (["vectorize", "x.tif", "y.gpkg", "--simplify", "--json"], "--simplify", "--json"),
        (["evaluate", "x.tif", "y.tif", "--map", "--json"], "--map", "--json"),
        (["preview", "x.tif", "y.tif", "z.png", "--bands", "--scale", "auto"], "--bands", "--scale"),
        (["models", "fetch", "demo", "--bundle", "--json"], "--bundle", "--json"),
        (["demo", "--seed", "--json"], "--seed", "--json"),
    ],
)
def test_an_option_is_no_value_of_another(geoovseg: Run, command: list[str], flag: str, next_one: str) -> None:
    code, _, err = geoovseg(*command)
    assert code == 2
    assert f"Invalid value for {flag}: it needs a value, and {next_one} is another option" in err


@pytest.mark.parametrize("command", [["segment", "x.tif", "-c"], ["vectorize", "x.tif", "y.gpkg", "--names"]])
def test_a_value_that_is_missing_at_the_end_is_told(geoovseg: Run, command: list[str]) -> None:
    code, _, err = geoovseg(*command)
    assert code == 2
    assert f"Invalid value for {command[-1]}: it needs a value" in err


@pytest.mark.parametrize("options", [["--nodata", "-9999"], ["--aoi=--x"], ["--scale", "-5,5"], ["--aoi", "-1,-2,3,4"]])
def test_numbers_below_zero_are_values(geoovseg: Run, options: list[str]) -> None:
    code, _, err = geoovseg("segment", "nowhere.tif", "-c", "road", "--model", "demo", *options)
    assert code == 4, err


def test_what_follows_two_dashes_is_no_option(geoovseg: Run) -> None:
    code, _, err = geoovseg("segment", "-c", "road", "--model", "demo", "--", "--json")
    assert code == 4
    assert "'--json'" in err


@pytest.mark.parametrize(
    ("classes", "said"),
    [
        ("building|road", "is one class, of the words building and road; for two classes write -c building,road"),
        ("water,road:street", "'road:street' is looked for as it is written; for the word street called road"),
        ("loveda", "for the list of classes of that name write --vocabulary loveda"),
    ],
)
def test_classes_that_were_hardly_meant_so_are_questioned(classes: str, said: str) -> None:
    assert any(said in text for text in questions([classes]))


@pytest.mark.parametrize("classes", ["building=house|roof", "house+roof", "road=a:b", "@list.txt", "road"])
def test_other_classes_are_not_questioned(classes: str) -> None:
    assert not list(questions([classes]))
