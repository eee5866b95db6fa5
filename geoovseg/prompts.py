"""The text files of `prompts/`: class lists, sentences around a word, words of the automatic background, colours."""

from __future__ import annotations

import colorsys
import hashlib
import os
import re
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import NamedTuple

from geoovseg.errors import VocabularyError, did_you_mean, first_line
from geoovseg.files import LARGEST_TEXT, bytes_of, text_of

DEFAULT_TEMPLATES = "openai-80"
PLACES = "@"
"""Begins the word that names a file of places, whose own features are what is looked for."""
_COLOUR = re.compile(r"#[0-9a-fA-F]{6}$")
_OFFSET = re.compile(r"\[([+-][0-9]*\.?[0-9]+)\]$")
MOST_SENTENCES = 1000
"""Of a set of templates: those of a word go through the text tower together."""
KNOWN_COLOURS = {
    "building": "#c0392b", "house": "#c0392b", "roof": "#c0392b", "road": "#7f8c8d", "street": "#7f8c8d",
    "water": "#2e86de", "river": "#2e86de", "lake": "#2e86de", "tree": "#1e6b34", "forest": "#1e6b34",
    "grass": "#9ccc65", "vegetation": "#4caf50", "cropland": "#f1c40f", "agricultural": "#f1c40f",
    "agriculture": "#f1c40f", "bare soil": "#b08b5a", "bareland": "#b08b5a", "barren": "#b08b5a",
    "parking lot": "#8e44ad", "pavement": "#95a5a6", "car": "#e67e22", "vehicle": "#e67e22",
}  # fmt: skip


def prompts_dir() -> Path:
    """Where the files are: inside an installed package, or beside an editable one."""
    packaged = Path(__file__).parent / "_prompts"
    return packaged if packaged.is_dir() else Path(__file__).parent.parent / "prompts"


def class_lists() -> dict[str, Path]:
    """The class lists that ship with the package, by name."""
    return _named("classes")


def template_lists() -> dict[str, Path]:
    """The sets of sentences that ship with the package, by name."""
    return _named("templates")


def colour_tables() -> dict[str, Path]:
    """The colours of published ground truth, by name."""
    return _named("colours")


def find_colours(name_or_file: str) -> Path:
    """The file of a table of colours, by name in any case or as a file. Raises VocabularyError."""
    return _find(name_or_file, colour_tables(), "table of colours")


def find_list(name_or_file: str) -> Path:
    """The file of a class list, by name in any case or as a file. Raises VocabularyError with the names there are."""
    return _find(name_or_file, class_lists(), "class list")


def title(path: Path) -> str:
    """What a file says of itself in its first line, if that is a comment."""
    first = read_text(path).partition("\n")[0]
    return first[1:].strip() if first.startswith("#") else ""


def templates(name_or_file: str = DEFAULT_TEMPLATES) -> tuple[str, ...]:
    """Sentences with one {} each, to be put around a word; by default the 80 of CLIP's authors.

    Raises VocabularyError for unknown names, and for lines that have no place for the word.
    """
    path = _find(name_or_file, template_lists(), "set of templates")
    found = _listed(path, "set of templates")
    wrong = [line for line in found if line.count("{}") != 1]
    if wrong:
        raise VocabularyError(f"{path}: {wrong[0]!r} has no single {{}}, which is where a word goes")
    if not found:
        raise VocabularyError(f"{path} has no sentences; write one a line, as in: an aerial photo of a {{}}.")
    if len(found) > MOST_SENTENCES:
        raise VocabularyError(f"{path} has {len(found)} sentences; a set of templates holds at most {MOST_SENTENCES}")
    return found


def digest(name_or_file: str) -> str:
    """SHA-256 of the sentences of templates, one a line. Raises VocabularyError."""
    return hashlib.sha256("\n".join(templates(name_or_file)).encode()).hexdigest()


def named(name_or_file: str) -> str:
    """Templates as they are called: by their name, or of a file its name without its folder."""
    path = Path(name_or_file)
    return path.name if path.is_file() else name_or_file


def variants() -> tuple[tuple[str, ...], tuple[str, ...]]:
    """What stands before and after a word in the sentences by which models are weighed."""
    folder = prompts_dir() / "variants"
    before, after = (_listed(folder / f"{name}.txt", "variants of sentences") for name in ("prefixes", "suffixes"))
    return before, after


def counter_words(words: Iterable[str]) -> tuple[str, ...]:
    """The words that `--background auto` sets against a user's: none that means the same, or stands for them too."""
    asked = [word.casefold().removesuffix("s") for word in words]
    lines = (line.partition(":") for line in _listed(prompts_dir() / "background.txt", "words of the background"))
    return tuple(word for word, _, rule in lines if _is_set_against(asked, word, *rule.strip().partition(" ")[::2]))


def _is_set_against(asked: Sequence[str], own: str, rule: str, classes: str) -> bool:
    """Whether a counter-word is for these words: `only` with some classes, or `not` with others and its own."""
    names = classes.split(",") if rule == "only" else [own, *filter(None, classes.split(","))]
    ends = [f" {name.strip().removesuffix('s')}" for name in names]
    return any(f" {word}".endswith(end) for word in asked for end in ends) == (rule == "only")


def read_text(path: Path, what: str = "class list") -> str:
    """A text file in UTF-8 or UTF-16, of 4 MB at most. Raises VocabularyError."""
    try:
        return text_of(bytes_of(path, LARGEST_TEXT))
    except (OSError, UnicodeDecodeError) as error:
        raise VocabularyError(f"cannot read the {what} {path}: {first_line(error)}") from error


def _named(folder: str) -> dict[str, Path]:
    paths = (prompts_dir() / folder).glob("*.txt")
    return {path.stem: path for path in sorted(paths, key=lambda path: path.stem.casefold())}


def _find(name_or_file: str, known: dict[str, Path], what: str) -> Path:
    path = Path(name_or_file)
    if path.is_file():
        return path
    by_fold = {name.casefold(): path for name, path in known.items()}
    if name_or_file.casefold() in by_fold:
        return by_fold[name_or_file.casefold()]
    names = ", ".join(known) if len(known) < 10 else "listed by `geoovseg vocabulary`"
    hint = did_you_mean(name_or_file, known)
    raise VocabularyError(f"no {what} named {name_or_file!r} and no such file{hint}; the names are {names}")


def _listed(path: Path, what: str) -> tuple[str, ...]:
    return tuple(line for line in read_text(path, what).splitlines() if line.strip() and not line.startswith("#"))


def customary_colour(name: str, index: int, taken: set[str]) -> str:
    """A customary colour where a name, in lower case, has one that is free, else hues a golden angle apart."""
    known = KNOWN_COLOURS.get(name)
    if known is not None and known not in taken:
        return known
    rgb = colorsys.hsv_to_rgb((0.11 + index * 0.618034) % 1, 0.55 + 0.2 * (index % 3), 0.9 - 0.15 * (index % 2))
    return "#" + "".join(f"{round(c * 255):02x}" for c in rgb)


class Entry(NamedTuple):
    """A class as it was written."""

    name: str
    words: tuple[str, ...]
    colour: str | None = None
    offset: float = 0.0


def class_lines(text: str, source: str) -> list[Entry]:
    """The classes of a class file, a line each. Raises VocabularyError, which names the line."""
    entries = []
    folder = os.path.dirname(source)
    for number, raw in enumerate(text.splitlines(), start=1):
        line, colour = split_colour(raw.strip())
        if not line or line.startswith("#"):
            continue
        where = f"{source}, line {number}"
        line, offset = _split_offset(line)
        name, colon, right = line.partition(":")
        words = words_of((_from(folder, word) for word in (right if colon else line).split(",")), where)
        if "=" in line or "+" in line:
            raise VocabularyError(f"{where}: write 'name: word,word' in files; '=' and '+' belong to the command line")
        if colon and not name.strip():
            raise VocabularyError(f"{where}: no name before ':'")
        entries.append(Entry(name.strip() if colon else words[0], words, colour, offset))
    return entries


def _from(folder: str, word: str) -> str:
    """A word of a list; files of places are named as seen from it."""
    name = word.strip()
    return PLACES + os.path.join(folder, name[1:]) if name.startswith(PLACES) else word


def split_colour(text: str) -> tuple[str, str | None]:
    """A text without the colour that it ends in, and that."""
    match = _COLOUR.search(text)
    if match is None or match.start() == 0:
        return text, None
    return text[: match.start()].strip(), match.group().lower()


def _split_offset(text: str) -> tuple[str, float]:
    """`road, street [+0.02]`: what is added to a class's scores, as `geoovseg tune` writes it."""
    match = _OFFSET.search(text)
    return (text, 0.0) if match is None else (text[: match.start()].strip(), float(match[1]))


def words_of(parts: Iterable[str], where: str) -> tuple[str, ...]:
    """Words of a class, each once. Raises VocabularyError for empty ones and unprintable ones."""
    words = [" ".join(p.split()) for p in parts]
    if not all(words):
        raise VocabularyError(f"{where}: empty word; check for a doubled or trailing separator")
    if not all(word.isprintable() for word in words):
        raise VocabularyError(f"{where}: a word with characters that cannot be printed; is the text UTF-8?")
    return tuple({fold(word): word for word in reversed(words)}.values())[::-1]


def fold(word: str) -> str:
    """A word or name as it is compared: in any case, `_` being a space."""
    return " ".join(word.replace("_", " ").casefold().split())
