"""How users write classes down."""

from __future__ import annotations

from pathlib import Path

import open_clip
import pytest
from hypothesis import given
from hypothesis import strategies as st

from geoovseg.errors import VocabularyError
from geoovseg.vocabulary import (
    class_lists,
    counter_words,
    parse_background,
    parse_classes,
    read_vocabulary,
    templates,
)

WORD = st.text("abcdefghij klmno", min_size=1, max_size=12).map(lambda s: " ".join(s.split())).filter(bool)


def test_commas_separate_classes_on_the_command_line() -> None:
    assert parse_classes(["building,road", "water"]).names == ("building", "road", "water")


def test_equals_gives_exactly_the_words_on_its_right() -> None:
    entry = parse_classes(["building=house+roof"]).classes[0]
    assert (entry.name, entry.words) == ("building", ("house", "roof"))


def test_bars_are_accepted_for_plus() -> None:
    assert parse_classes(["b=house|roof"]) == parse_classes(["b=house+roof"])


def test_commas_mean_synonyms_in_files(tmp_path: Path) -> None:
    path = tmp_path / "list.txt"
    path.write_text("# a comment\nbuilding: house, roof #C0392B\n\nroad,street\nbare soil\n", encoding="utf-8-sig")
    for vocabulary in (read_vocabulary(str(path)), parse_classes([f"@{path}"])):
        assert vocabulary.names == ("building", "road", "bare soil")
        assert [c.words for c in vocabulary.classes] == [("house", "roof"), ("road", "street"), ("bare soil",)]
        assert vocabulary.classes[0].colour == "#c0392b"


def test_a_file_can_stand_among_classes(tmp_path: Path) -> None:
    path = tmp_path / "list.txt"
    path.write_text("road\r\nwater\r\n")
    assert parse_classes(["tree", f"@{path}"]).names == ("tree", "road", "water")
    assert parse_classes([f"tree,@{path}"]).names == ("tree", "road", "water")


def test_words_given_twice_count_once() -> None:
    assert parse_classes(["a=Road+road+street"]).classes[0].words == ("Road", "street")


def test_classes_never_share_a_colour() -> None:
    names = ["house", "roof", "tree", "forest", "river", "lake", *(f"thing {n}" for n in range(60))]
    assert len({c.colour for c in parse_classes(names).classes}) == len(names)


def test_a_background_word_cannot_be_a_class_too() -> None:
    with pytest.raises(VocabularyError, match="'water' stands for both 'background' and 'water'"):
        parse_background("water+sea", parse_classes(["water,road"]))
    with pytest.raises(VocabularyError, match=r"join words with \+"):
        parse_background("sea,sky", parse_classes(["road"]))


def test_none_drops_a_background_of_the_list() -> None:
    assert parse_background("none", read_vocabulary("loveda"))[0].background == ()


def test_a_class_named_background_is_code_0_and_takes_no_number() -> None:
    vocabulary = parse_classes(["road,background=sky+other,water"])
    assert vocabulary.names == ("road", "water")
    assert vocabulary.background == ("sky", "other")
    assert vocabulary.first_code == 0
    assert vocabulary.queries == ("sky", "other", "road", "water")
    assert parse_background("auto", vocabulary) == (vocabulary, False)


def test_automatic_background_leaves_out_the_users_words() -> None:
    vocabulary, automatic = parse_background("auto", parse_classes(["Building=house,Road"]))
    assert automatic
    assert vocabulary.background == ("forest", "vegetation", "bareland", "water", "vehicle", "agriculture", "urban")


def test_no_background_gives_every_pixel_a_class() -> None:
    vocabulary, _ = parse_background("none", parse_classes(["a,b"]))
    assert vocabulary.background == ()
    assert vocabulary.first_code == 1


def test_background_words_can_be_given() -> None:
    assert parse_background("sea+sky", parse_classes(["a"]))[0].background == ("sea", "sky")


@pytest.mark.parametrize(
    ("classes", "message"),
    [
        ([""], "empty word"),
        (["a,,b"], "empty word"),
        (["a,b,"], "empty word"),
        (["a=+b"], "empty word"),
        (["=b"], "no name before '='"),
        (["road,Road"], "given twice"),
        (["a=x+y,b=y+z"], "'y' stands for both 'a' and 'b'"),
        (["a=b=c"], "has two '='"),
        (["b\udcff"], "cannot be printed"),
        (["ro\x01ad=road"], "cannot be printed"),
        (["road,background=road+sky"], "'road' stands for both 'background' and 'road'"),
        (["road,@no/such/file"], "cannot read the class list no/such/file"),
        (["@no/such/file"], "cannot read the class list no/such/file"),
        (["background"], "no classes given"),
    ],
)
def test_unreadable_classes_are_refused_with_their_text(classes: list[str], message: str) -> None:
    with pytest.raises(VocabularyError, match=message):
        parse_classes(classes)


@pytest.mark.parametrize("line", ["a=b", "a: b+c", "a: b,,c", ": b"])
def test_unreadable_lines_are_refused_with_their_number(tmp_path: Path, line: str) -> None:
    path = tmp_path / "list.txt"
    path.write_text(f"ok\n{line}\n")
    with pytest.raises(VocabularyError, match="line 2"):
        read_vocabulary(str(path))


def test_an_unknown_list_names_those_there_are() -> None:
    with pytest.raises(VocabularyError, match="no class list named 'lovda'.*loveda"):
        read_vocabulary("lovda")


def test_both_kinds_of_background_at_once_are_refused() -> None:
    with pytest.raises(VocabularyError, match="not both"):
        parse_background("sea", parse_classes(["a,background"]))


def test_lists_of_the_package_can_be_read() -> None:
    assert {"loveda", "demo"} <= set(class_lists())
    for name in class_lists():
        assert read_vocabulary(name).classes
    loveda = read_vocabulary("loveda")
    assert loveda.names == ("building", "road", "water", "barren", "forest", "agricultural")
    assert loveda.classes[0].words == ("building", "roof", "house")
    assert loveda.background == ("background",)


def test_templates_are_those_of_clip_in_order() -> None:
    assert [t.replace("{}", "x") for t in templates()] == [t("x") for t in open_clip.OPENAI_IMAGENET_TEMPLATES]
    assert len(templates()) == 80


def test_counter_words_are_the_documented_ones() -> None:
    expected = "forest vegetation bareland water road building vehicle agriculture urban"
    assert counter_words() == tuple(expected.split())


@given(st.lists(st.lists(WORD, min_size=1, max_size=3), min_size=1, max_size=6))
def test_classes_survive_a_round_trip(groups: list[list[str]]) -> None:
    words = [w.casefold() for g in groups for w in g]
    if len(set(words)) < len(words) or "background" in words or any(w.startswith("name ") for w in words):
        return
    text = ",".join(f"name {n}={'+'.join(g)}" for n, g in enumerate(groups))
    vocabulary = parse_classes([text])
    assert [list(c.words) for c in vocabulary.classes] == groups
    assert len({c.colour for c in vocabulary.classes}) == len(groups)
