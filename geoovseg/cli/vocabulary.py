"""`geoovseg vocabulary`."""

from __future__ import annotations

import json as jsonlib
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from geoovseg.cli import options as o
from geoovseg.cli.output import data
from geoovseg.errors import UsageError, hushed
from geoovseg.models.cards import model_card, warn_unknown
from geoovseg.prompts import DEFAULT_TEMPLATES, class_lists, find_list, title
from geoovseg.vocabulary import BACKGROUND, ClassEntry, Vocabulary, read_classes

if TYPE_CHECKING:
    from geoovseg.models.text import Alike

SHOWN = 10
"""Pairs printed when more are close."""


def command(
    name: Annotated[str | None, typer.Argument(help="A class list by name, or a file.", metavar="NAME")] = None,
    classes: o.ClassesOpt = None,
    model: Annotated[
        str | None, typer.Option(help="Also list the classes that this model's text encoder can hardly tell apart.")
    ] = None,
    close: Annotated[
        float,
        typer.Option(help="Cosine similarity above which two classes count as hard to tell apart.", min=-1, max=1),
    ] = 0.92,
    templates: Annotated[str, o.of("templates")] = DEFAULT_TEMPLATES,
    json: o.JsonOpt = False,
) -> None:
    """List the class lists, or show one: codes, names, words, colours.

    geoovseg vocabulary loveda --model ViT-B-16/openai
    """
    if name is None and classes is None:
        if model is not None:
            raise UsageError("--model needs a class list, as in geoovseg vocabulary loveda --model ViT-B-16/openai")
        _list(json)
        return
    words = read_classes(classes, name)
    about = _about(find_list(name)) if name else ""
    pairs = _alike(words, model, templates) if model else []
    near = [pair for pair in pairs if pair.cosine >= close]
    data(*((_json(name, about, words, pairs, near),) if json else _lines(about, words)))
    if model and not json:
        data(*_confusable(model, pairs, near, close))


def _list(json: bool) -> None:
    rows = [(name, _count(path), _about(path)) for name, path in class_lists().items()]
    if json:
        lines = [jsonlib.dumps({"name": name, "classes": count, "about": about}) for name, count, about in rows]
    else:
        lines = [f"{name:<28}{count:>4}  {about}" for name, count, about in rows]
    data(*lines)


def _count(path: Path) -> int:
    with hushed():  # of words left out of a background: they are told when the list is used
        return len(read_classes(None, str(path)).classes)


def _about(path: Path) -> str:
    return title(path).removesuffix("In files a comma separates synonyms of one class.").strip()


def _alike(words: Vocabulary, model: str, templates: str) -> list[Alike]:
    """Loads the model; its image tower is not used."""
    from geoovseg.models.load import load_clip, resolve_device
    from geoovseg.models.text import alike

    model_card(model)
    loaded = load_clip(model, resolve_device("cpu"), "fp32", templates)
    warn_unknown(loaded.card, words)
    groups: dict[str, Sequence[str]] = {entry.name: entry.words for entry in words.classes}
    return alike(loaded.text, {BACKGROUND: words.background, **groups} if words.background else groups)


def _lines(about: str, words: Vocabulary) -> list[str]:
    lines = [about] if about else []
    if words.background:
        lines.append(f"{0:>4}  {BACKGROUND}  {', '.join(words.background)}")
    width = max(len(entry.name) for entry in words.classes)
    for code, entry in enumerate(words.classes, start=1):
        listed = ", ".join(entry.words) if entry.words != (entry.name,) else ""
        lines.append(f"{code:>4}  {entry.colour}  {entry.name:<{width}}  {listed}".rstrip())
    if not words.background:
        lines.append("no class is named background; with --background none every pixel gets one of these classes")
    return lines


def _confusable(model: str, pairs: list[Alike], near: list[Alike], close: float) -> list[str]:
    if not pairs:
        return ["one class only: nothing to tell apart"]
    head = f"{len(near)} of {len(pairs)} pairs that {model} can hardly tell apart (cosine {close:g} or more)"
    shown = near[:SHOWN] or pairs[:1]
    lines = [head + (":" if near else "; the closest:")]
    lines += [f"  {p.cosine:.3f}  {p.first} / {p.second}  ({p.words[0]} - {p.words[1]})" for p in shown]
    return lines


def _json(name: str | None, about: str, words: Vocabulary, pairs: list[Alike], near: list[Alike]) -> str:
    found: dict[str, Any] = {
        "name": name,
        "about": about,
        "background": words.background,
        "classes": [{"code": code, **_said(entry)} for code, entry in enumerate(words.classes, start=1)],
        "close": [asdict(pair) for pair in near],
        "closest": asdict(pairs[0]) if pairs else None,
    }
    return jsonlib.dumps(found, ensure_ascii=False)


def _said(entry: ClassEntry) -> dict[str, Any]:
    """What a class file says of a class: an offset of 0 is none."""
    return {key: value for key, value in asdict(entry).items() if key != "offset" or value}
