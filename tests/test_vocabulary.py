"""How users write classes down."""

from __future__ import annotations

from pathlib import Path

import open_clip
import pytest
import yaml
from conftest import SHARED, shared_file
from hypothesis import given
from hypothesis import strategies as st

from geoovseg.errors import GeoOVSegWarning, VocabularyError
from geoovseg.prompts import class_lists, counter_words, template_lists, templates
from geoovseg.vocabulary import parse_background, parse_classes, read_classes, read_vocabulary

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
    expected = ("forest", "vegetation", "bareland", "water", "vehicle", "agriculture", "parking lot")
    assert vocabulary.background == expected


def test_no_background_gives_every_pixel_a_class() -> None:
    vocabulary, _ = parse_background("none", parse_classes(["a,b"]))
    assert vocabulary.background == ()
    assert vocabulary.first_code == 1


@pytest.mark.parametrize("classes", ["road", "ways=road+street", "road,background=sky"])
def test_a_class_alone_without_a_background_is_told_to_fill_everything(classes: str) -> None:
    with pytest.warns(GeoOVSegWarning, match="is the only class and .* every pixel will be (road|ways)"):
        vocabulary, _ = parse_background("none", parse_classes([classes]))
    assert vocabulary.background == ()


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
        (["road;water"], "class 'road;water': separate classes by commas"),
        (["ways=road;street"], "separate classes by commas"),
    ],
)
def test_unreadable_classes_are_refused_with_their_text(classes: list[str], message: str) -> None:
    with pytest.raises(VocabularyError, match=message):
        parse_classes(classes)


def test_a_class_that_is_the_name_of_a_file_was_meant_as_a_list(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    for name in ("classes.txt", "road"):
        Path(name).write_text("water\n")
    for text in ("classes.txt", "road, classes.txt", str(tmp_path / "road")):
        with pytest.raises(VocabularyError, match=r"is the name of a file; write @.* to read a list"):
            parse_classes([text])
    assert parse_classes(["road,@classes.txt,trees.txt"]).names == ("road", "water", "trees.txt")


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


def test_names_of_lists_are_found_in_any_case() -> None:
    assert read_vocabulary("isaid") == read_vocabulary("iSAID")
    assert templates("OpenAI-80") == templates()


def test_a_word_of_a_listed_background_that_is_a_class_counts_as_the_class() -> None:
    """As the list of COCO-Object has it, where its background would otherwise win every tie."""
    with pytest.warns(GeoOVSegWarning, match="bed is a class, so it is left out of the background"):
        vocabulary = read_vocabulary("coco_object")
    assert "bed" in vocabulary.names
    assert "bed" not in vocabulary.background
    assert "desk" in vocabulary.background


DATASETS = yaml.safe_load(shared_file("methods", "datasets.yaml").read_text()) if SHARED.is_dir() else {}
ABSENT = pytest.mark.skip(reason="needs methods/datasets.yaml of the shared test data, not beside this checkout")
PUBLISHED = [
    pytest.param(name + suffix, entry[source]["classes"], id=name + suffix)
    for name, entry in DATASETS.get("remote_sensing", {}).items()
    for source, suffix in (("segearth", ""), ("coninfer", "-coninfer"))
    if source == "segearth" or entry["coninfer"]["classes"] != entry["segearth"]["classes"]
]


@pytest.mark.parametrize(("name", "classes"), PUBLISHED or [pytest.param("", [], marks=ABSENT)])
def test_lists_hold_the_published_words_in_order(name: str, classes: list[list[str]]) -> None:
    vocabulary = read_vocabulary(name)
    groups = [list(group) for group in vocabulary.groups]
    assert groups == classes


NATURAL = {
    "ade20k": 150, "city_scapes": 19, "coco_object": 81, "coco_object-clearclip": 81, "coco_stuff": 171,
    "context59": 59, "context60": 60, "voc20": 20, "voc20-clearclip": 20, "voc21": 21, "voc21-clearclip": 21,
}  # fmt: skip


@pytest.mark.parametrize(("name", "count"), NATURAL.items())
def test_lists_of_natural_images_have_all_classes(name: str, count: int) -> None:
    assert len(read_vocabulary(name).groups) == count


@pytest.mark.parametrize("name", class_lists())
def test_every_class_of_a_list_has_a_colour_of_its_own_in_the_file(name: str) -> None:
    vocabulary = read_vocabulary(name)
    text = class_lists()[name].read_text()
    assert len({entry.colour for entry in vocabulary.classes}) == len(vocabulary.classes)
    assert all(entry.colour in text for entry in vocabulary.classes)
    assert text.startswith("# ")


def test_templates_are_those_of_clip_in_order() -> None:
    assert [t.replace("{}", "x") for t in templates()] == [t("x") for t in open_clip.OPENAI_IMAGENET_TEMPLATES]
    assert len(templates()) == 80
    assert [t.replace("{}", "x") for t in templates("openai-7")] == [
        t("x") for t in open_clip.SIMPLE_IMAGENET_TEMPLATES
    ]
    assert set(template_lists()) == {"openai-80", "openai-7", "plain", "resegclip", "bare"}


def test_templates_without_a_place_for_the_word_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "mine.txt"
    path.write_text("# mine\na photo of {}\na photo\n")
    with pytest.raises(VocabularyError, match=r"'a photo' has no single \{\}"):
        templates(str(path))
    path.write_text("# mine\naerial view of {}\n")
    assert templates(str(path)) == ("aerial view of {}",)
    with pytest.raises(VocabularyError, match=r"no set of templates named 'openai'.*openai-80"):
        templates("openai")


def test_counter_words_are_the_documented_ones() -> None:
    expected = "forest vegetation bareland water road building vehicle agriculture urban"
    assert counter_words(["solar panel"]) == tuple(expected.split())


@pytest.mark.parametrize(
    ("word", "out", "more"),
    [
        ("building", {"building", "urban"}, {"parking lot"}),
        ("residential Houses", {"building", "urban"}, {"parking lot"}),
        ("dirt roads", {"road"}, set()),
        ("tree", {"forest", "vegetation"}, {"grass"}),
        ("grass", {"vegetation"}, set()),
        ("swimming pool", set(), set()),
        ("car park", set(), set()),
        ("cars", {"vehicle"}, set()),
        ("lawns", {"vegetation"}, set()),
    ],
)
def test_no_counter_word_means_the_same_as_a_class_or_stands_for_it(word: str, out: set[str], more: set[str]) -> None:
    assert set(counter_words([word])) == (set(counter_words(["solar panel"])) - out) | more


@given(st.lists(st.lists(WORD, min_size=1, max_size=3), min_size=1, max_size=6))
def test_classes_survive_a_round_trip(groups: list[list[str]]) -> None:
    words = [w.casefold() for g in groups for w in g]
    if len(set(words)) < len(words) or "background" in words or any(w.startswith("name ") for w in words):
        return
    text = ",".join(f"name {n}={'+'.join(g)}" for n, g in enumerate(groups))
    vocabulary = parse_classes([text])
    assert [list(c.words) for c in vocabulary.classes] == groups
    assert len({c.colour for c in vocabulary.classes}) == len(groups)


@pytest.mark.parametrize("form", ["utf-8-sig", "utf-16", "utf-16-le"])
def test_lists_and_templates_may_come_from_any_system(tmp_path: Path, form: str) -> None:
    words, sentences = tmp_path / "words.txt", tmp_path / "sentences.txt"
    words.write_bytes("building: house, roof\r\nroad\r\n".encode(form))
    sentences.write_bytes("a photo of a {}.\r\n".encode(form))
    for named in (read_classes(None, str(words)), read_classes(f"@{words}")):
        assert [(entry.name, entry.words) for entry in named.classes] == [
            ("building", ("house", "roof")),
            ("road", ("road",)),
        ]
    assert templates(str(sentences)) == ("a photo of a {}.",)
