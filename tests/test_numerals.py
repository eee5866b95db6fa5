"""Numbers as people write them, wherever they are taken."""

from __future__ import annotations

import pytest

from geoovseg import numerals
from geoovseg.errors import MethodError, UsageError
from geoovseg.methods import read_settings
from geoovseg.settings import Settings


@pytest.mark.parametrize(("text", "value"), [("12", 12), ("-3", -3), ("+0", 0), (" 7 ", 7)])
def test_whole_numbers_are_decimal(text: str, value: int) -> None:
    assert numerals.whole(text) == value


@pytest.mark.parametrize(("text", "value"), [("0.5", 0.5), ("-1e-3", -0.001), (".5", 0.5), ("5.", 5), ("0", 0)])
def test_numbers_are_decimal(text: str, value: float) -> None:
    assert numerals.number(text) == value


@pytest.mark.parametrize("text", ["５０", "1_000", "0x10", "", "nan", "inf", "1e400", "1e-320", "1,5", "one", "1 0"])
def test_nothing_else_is_a_number(text: str) -> None:
    for read in (numerals.whole, numerals.number):
        with pytest.raises(ValueError, match="number"):
            read(text)


@pytest.mark.parametrize("text", ["５０", "1_000", "1e-320", "nan"])
def test_settings_of_methods_take_numbers_only(text: str) -> None:
    with pytest.raises(MethodError, match="is not a number"):
        read_settings("segearth", {"class_token_weight": text})


@pytest.mark.parametrize("text", ["１/2", "1_0/20", "1.0/2"])
def test_shards_are_whole_numbers(text: str) -> None:
    with pytest.raises(UsageError, match="write I/N"):
        Settings(shard=text)


@pytest.mark.parametrize(
    "given", [{"workers": 10**20}, {"max_memory": 1e308}, {"gsd": 1e-300}, {"tile": 10**12}, {"batch_size": 10**12}]
)
def test_numbers_beyond_all_sense_are_refused(given: dict[str, float]) -> None:
    with pytest.raises(UsageError, match="must be"):
        Settings(**given)


@pytest.mark.parametrize("name", ["templates", "output", "aoi", "model", "work_dir", "regions", "vocabulary"])
def test_texts_hold_no_null_bytes(name: str) -> None:
    with pytest.raises(UsageError, match="must be text"):
        Settings(**{name: "a\0b"})
