"""Classes that were hardly meant as they are written: what to ask about them before a run."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from geoovseg.prompts import PLACES, class_lists


def questions(classes: Sequence[str] | None) -> Iterator[str]:
    """What to say about the classes of a command line; what is named with `=` was meant so."""
    texts = (part.strip() for item in classes or () for part in item.split(","))
    for text in texts:
        first, bar, second = (part.strip() for part in text.partition("|"))
        name, colon, word = (part.strip() for part in text.partition(":"))
        if "=" in text or text.startswith("@") or word.startswith(PLACES):
            continue
        if bar:
            yield f"{text!r} is one class, of the words {first} and {second}; for two classes write -c {first},{second}"
        elif colon:
            yield f"{text!r} is looked for as it is written; for the word {word} called {name} write -c {name}={word}"
        elif text in class_lists():
            yield f"{text!r} is looked for as a word; for the list of classes of that name write --vocabulary {text}"
