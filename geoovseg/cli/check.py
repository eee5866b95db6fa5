"""`geoovseg models check`."""

from __future__ import annotations

import json as jsonlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict

import typer

from geoovseg.cli.output import data
from geoovseg.errors import GeoOVSegError, first_line
from geoovseg.models.cards import ModelCard
from geoovseg.models.weights import local_weights, verify

FILES = {True: "as published", False: "NOT AS PUBLISHED", None: "no digest is known"}
BAD = ("failed", "differs")
Fetch = Callable[[ModelCard], object]


def check_all(models: Sequence[ModelCard], methods: tuple[str, ...], fetch: Fetch | None, *, json: bool) -> None:
    """Check models one by one, each with its methods; ends with exit code 1 if something is wrong."""
    wrong = 0
    for model in models:
        file, fault = _file(model, fetch)
        wrong += bool(fault) or file == FILES[False]
        if fault:
            _tell({"model": model.name, "file": file, "result": "failed", "why": fault}, json=json)
        else:
            wrong += sum(_tried(model, file, methods, json=json))
    raise typer.Exit(1 if wrong else 0)


def _file(model: ModelCard, fetch: Fetch | None) -> tuple[str, str]:
    """What is to be said of a model's file, and what is wrong."""
    try:
        if local_weights(model) is None and fetch is not None:
            fetch(model)
        return FILES[verify(model)[1]], ""
    except GeoOVSegError as error:
        return "", first_line(error)


def _tried(model: ModelCard, file: str, methods: tuple[str, ...], *, json: bool) -> Iterator[bool]:
    """One line for each method, and of a CLIP model what else was seen; whether each is wrong."""
    from geoovseg.evaluation.remarks import remarks
    from geoovseg.evaluation.trial import settings_for, tried

    settings = [*settings_for(model, methods)]
    for each in settings:
        found = tried(model, each)
        _tell({**asdict(found), "file": file}, json=json)
        yield found.result in BAD
    if settings and found.result not in (*BAD, "needs others"):
        for remark in remarks(model, settings[-1]):
            if json:
                data(jsonlib.dumps({"model": model.name, "remark": remark.text, "doubt": remark.doubt}))
            else:
                data(f"{'':<4}{remark.text}{'  <- look at this' if remark.doubt else ''}")


def _tell(found: dict[str, object], *, json: bool) -> None:
    if json:
        data(jsonlib.dumps(found))
        return
    miou, seconds = found.get("miou"), found.get("seconds")
    numbers = f"mIoU {miou:.3f}  {seconds:6.2f} s" if miou is not None else ""
    line = f"{found['model']:<36}{found['file']:<20}{found.get('method', ''):<13}{found['result']:<14}{numbers}"
    data(f"{line}  {found['why']}".rstrip())
