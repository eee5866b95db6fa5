"""The words: classes, their synonyms and colours, the background, and how a user writes them down."""

from __future__ import annotations

import os
import re
import warnings
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path, PurePath

from geoovseg.errors import GeoOVSegWarning, VocabularyError, some
from geoovseg.prompts import (
    PLACES,
    Entry,
    class_lines,
    counter_words,
    customary_colour,
    find_list,
    fold,
    read_text,
    split_colour,
    words_of,
)

BACKGROUND = "background"
SHOWN = 12
"""Classes that are told one by one."""


@dataclass(frozen=True)
class ClassEntry:
    """One class of the output."""

    name: str
    """what the legend calls it"""
    words: tuple[str, ...]
    """the words asked of the model; the best of them speaks for the class"""
    colour: str
    """#rrggbb"""
    offset: float = 0.0
    """what is added to the class's scores, cosines, before they are compared"""


@dataclass(frozen=True)
class Vocabulary:
    """What is asked of a scene: classes 1..N in order and the words that together are code 0.

    Raises VocabularyError for no classes at all, repeated names, and a word that stands for two classes.
    """

    classes: tuple[ClassEntry, ...]
    background: tuple[str, ...] = ()
    """words of code 0; empty: every pixel gets a class"""
    own_background: bool = False
    """the user named the background, so nothing is added to it"""
    background_offset: float = 0.0
    """what is added to the background's scores"""

    def __post_init__(self) -> None:
        if not self.classes:
            raise VocabularyError("no classes given; write for example -c building,road,water")
        owner = {fold(word): BACKGROUND for word in self.background}
        names: set[str] = set()
        for entry in self.classes:
            if fold(entry.name) in names:
                raise VocabularyError(f"class {entry.name!r} is given twice; join its words: {entry.name}=word+word")
            if not entry.name.isprintable():
                raise VocabularyError(f"class {entry.name!r} has characters that cannot be printed; is the text UTF-8?")
            names.add(fold(entry.name))
            for word in entry.words:
                if fold(word) in owner:
                    raise VocabularyError(
                        f"word {word!r} stands for both {owner[fold(word)]!r} and {entry.name!r}; keep it in one class"
                    )
                owner[fold(word)] = entry.name
        if len(self.classes) > 65534:
            raise VocabularyError(f"{len(self.classes)} classes; a label raster holds at most 65534")

    def __str__(self) -> str:
        """Codes, names and words of the classes, as a person reads them: `1 building (house, roof), 2 road`."""
        shown = self.classes[:SHOWN]
        words = ("" if entry.words == (entry.name,) else f" ({', '.join(entry.words)})" for entry in shown)
        said = [f"{code} {c.name}{more}" for code, (c, more) in enumerate(zip(shown, words, strict=True), start=1)]
        more = len(self.classes) - SHOWN
        return ", ".join(said) + (f" and {more} more" if more > 0 else "")

    @property
    def names(self) -> tuple[str, ...]:
        """Names of the classes 1..N."""
        return tuple(entry.name for entry in self.classes)

    @property
    def groups(self) -> tuple[tuple[str, ...], ...]:
        """The words of every score channel: background first if there is one, then the classes."""
        first = (self.background,) if self.background else ()
        return (*first, *(entry.words for entry in self.classes))

    @property
    def offsets(self) -> tuple[float, ...]:
        """What is added to each score channel; empty where that is nothing."""
        first = (self.background_offset,) if self.background else ()
        found = (*first, *(entry.offset for entry in self.classes))
        return found if any(found) else ()

    @property
    def channels(self) -> tuple[str, ...]:
        """Names of the score channels."""
        return (BACKGROUND, *self.names) if self.background else self.names

    @property
    def queries(self) -> tuple[str, ...]:
        """All words in the order of the query scores (Q)."""
        return tuple(word for group in self.groups for word in group)

    @property
    def places(self) -> tuple[str, ...]:
        """Words that are files of places."""
        return tuple(word for word in self.queries if word.startswith(PLACES))

    def renamed(self, names: Mapping[str, str]) -> Vocabulary:
        """The same with other names for some words."""
        classes = (replace(e, words=tuple(names.get(w, w) for w in e.words)) for e in self.classes)
        return replace(self, classes=tuple(classes), background=tuple(names.get(w, w) for w in self.background))

    @property
    def first_code(self) -> int:
        """Code of the first score channel: 0 with a background, 1 without."""
        return 0 if self.background else 1

    def with_background(self, words: Iterable[str]) -> Vocabulary:
        """The same classes with these words as code 0, less those that already stand for a class."""
        taken = {fold(w) for entry in self.classes for w in (*entry.words, entry.name)}
        return replace(self, background=tuple(w for w in words if fold(w) not in taken))


Words = str | Sequence[str] | None
"""Of a class: several, one, or the class's own name."""
Classes = str | Sequence[str] | Mapping[str, Words] | Vocabulary
"""What may be asked for: texts as on the command line, or names with their words."""


def read_classes(classes: Classes | None, vocabulary: str | os.PathLike[str] | None = None) -> Vocabulary:
    """The user's classes, from exactly one of `classes` and the name or file of a list (`vocabulary`).

    Classes are texts of the command line's grammar (`"building=house+roof,road"`), or a dictionary from names to words
    (`{"building": ["house", "roof"], "road": "road"}`). Raises VocabularyError.
    """
    if classes is None and vocabulary is None:
        raise VocabularyError(
            "no classes given; write for example -c building,road,water or --vocabulary loveda (`geoovseg vocabulary` "
            "lists the lists)"
        )
    if classes is not None and vocabulary is not None:
        raise VocabularyError("give the classes either with -c/--classes or with --vocabulary, not with both")
    if vocabulary is not None:
        return read_vocabulary(os.fspath(vocabulary))
    if isinstance(classes, Vocabulary):
        return classes
    if isinstance(classes, Mapping):
        return _vocabulary([_named(name, words) for name, words in classes.items()])
    items = [classes] if isinstance(classes, str) else classes
    if not isinstance(items, Sequence) or not all(isinstance(item, str) for item in items):
        raise VocabularyError(f"classes {classes!r}: give text, a list of texts, or a dictionary from names to words")
    return parse_classes(items)


def parse_classes(items: Sequence[str]) -> Vocabulary:
    """Read the command line's grammar: commas separate classes, `a=b+c` gives a the words b and c, `@FILE` is a list.

    `a=@FILE` is what kept features are at the places in a file. `|` is accepted for `+`. A class named background
    becomes code 0. Raises VocabularyError.
    """
    entries: list[Entry] = []
    for item in items:
        for part in [item] if item.startswith("@") else item.split(","):
            file = part.strip().removeprefix("@")
            entries += [_parse_item(part)] if file == part.strip() else class_lines(read_text(Path(file)), file)
    return _vocabulary(entries)


def read_vocabulary(name_or_file: str) -> Vocabulary:
    """Read a class list by name (`loveda`) or from a file: one class a line, `name: word,word` or `word,word`.

    A word of a class that stands among the background's too, as in one published list, counts as the class's; warns.
    """
    path = find_list(name_or_file)
    entries = class_lines(read_text(path), str(path))
    taken = {fold(word) for name, words, *_ in entries if fold(name) != BACKGROUND for word in words}
    for n, entry in enumerate(entries):
        name, words = entry.name, entry.words
        twice = [word for word in words if fold(word) in taken]
        if fold(name) == BACKGROUND and twice:
            message = f"{path}: {some(twice)} is a class, so it is left out of the background"
            warnings.warn(message, GeoOVSegWarning, 3)
            entries[n] = entry._replace(words=tuple(word for word in words if word not in twice))
    return _vocabulary(entries)


def parse_background(text: str, vocabulary: Vocabulary, *, counter: bool = True) -> tuple[Vocabulary, bool]:
    """Apply `--background auto|none|word+word`; also tells whether words were chosen for the user (auto).

    Without `counter`, auto adds no words.
    """
    if text.strip() == "none":
        _warn_alone(vocabulary)
        return replace(vocabulary, background=()), False
    if vocabulary.own_background:
        if text.strip() != "auto":
            raise VocabularyError("give the background either as a class named background or as --background, not both")
        return vocabulary, False
    if text.strip() == "auto":
        if not counter:
            return vocabulary, False
        own = (word for entry in vocabulary.classes for word in (*entry.words, entry.name))
        return vocabulary.with_background(counter_words(own)), True
    if "," in text:
        raise VocabularyError(f"--background {text}: join words with +, as in sea+sky")
    words = words_of(re.split(r"[+|]", text), f"--background {text}")
    return replace(vocabulary, background=words, own_background=True), False


def _warn_alone(vocabulary: Vocabulary) -> None:
    """Warn where a class would be alone, so that there is nothing to choose."""
    if len(vocabulary.classes) == 1:
        message = (
            f"{vocabulary.names[0]} is the only class and --background is none, so every pixel will be "
            f"{vocabulary.names[0]}, unless --threshold leaves some out; name more classes, or leave out --background"
        )
        warnings.warn(message, GeoOVSegWarning, 4)


def _check_item(item: str) -> None:
    """Refuse what was hardly meant as a word. Raises VocabularyError."""
    if ";" in item:
        raise VocabularyError(f"class {item!r}: separate classes by commas, as in building,road,water")
    named = PurePath(item).suffix or os.sep in item  # `road` is a word, even where a file is called so
    if named and os.path.isfile(item):
        raise VocabularyError(f"class {item!r} is the name of a file; write @{item} to read a list")


def _parse_item(item: str) -> Entry:
    _check_item(item.strip())
    text, colour = split_colour(item.strip())
    name, equals, right = text.partition("=")
    if not equals and f": {PLACES}" in text:  # as in files
        name, equals, right = text.partition(":")
    if "=" in right:
        raise VocabularyError(f"class {item.strip()!r} has two '='; write name=word+word")
    words = words_of(re.split(r"[+|]", right if equals else text), f"class {item.strip()!r}")
    name = name.strip() if equals else words[0]
    if not name:
        raise VocabularyError(f"class {item.strip()!r} has no name before '='")
    return Entry(name, words, colour)


def _named(name: object, words: object) -> Entry:
    """A class of a dictionary. Raises VocabularyError."""
    found = [name] if words is None or words == [] or words == () else [words] if isinstance(words, str) else words
    if not isinstance(name, str) or not isinstance(found, Iterable) or not all(isinstance(w, str) for w in found):
        raise VocabularyError(f"class {name!r}: give its words as text or a list of texts, not {words!r}")
    if not name.strip():
        raise VocabularyError(f"class {name!r} has no name")
    return Entry(name.strip(), words_of(found, f"class {name!r}"))


def _vocabulary(entries: Sequence[Entry]) -> Vocabulary:
    named = [e for e in entries if fold(e.name) == BACKGROUND]
    if len(named) > 1:
        raise VocabularyError("class 'background' is given twice")
    others = [e for e in entries if fold(e.name) != BACKGROUND]
    taken = {e.colour for e in others if e.colour}
    classes: list[ClassEntry] = []
    for index, (name, words, colour, offset) in enumerate(others):
        chosen = colour or customary_colour(fold(name), index, taken)
        taken.add(chosen)
        classes.append(ClassEntry(name, words, chosen, offset))
    own = named[0] if named else Entry("", ())
    return Vocabulary(tuple(classes), own.words, own_background=bool(named), background_offset=own.offset)
