"""`geoovseg models list|show|fetch`."""

from __future__ import annotations

import json as jsonlib
from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import typer

from geoovseg.cli import options as o
from geoovseg.cli.output import data, talk
from geoovseg.models.cards import DEFAULT_MODEL, MODELS, ModelCard, model_card
from geoovseg.models.weights import fetch_weights, local_weights

app = typer.Typer(help="See and fetch the models' weights.", no_args_is_help=True, rich_markup_mode=None)
NameArg = Annotated[str, typer.Argument(help="A model, as `geoovseg models list` names it.", metavar="NAME")]


@app.command("list")
def list_models(json: o.JsonOpt = False) -> None:
    """List the models, and which are on this machine."""
    for name, card in MODELS.items():
        here = local_weights(card)
        if json:
            data(_json(card, here))
        else:
            mark = "here" if here else "-"
            default = " (default)" if name == DEFAULT_MODEL else ""
            data(f"{name:<28}{card.kind:<11}{mark:<6}{card.megabytes or '?':>5} MB  {card.about}{default}")


@app.command("show")
def show(name: NameArg, json: o.JsonOpt = False) -> None:
    """Show where a model's weights come from, their size and licence."""
    card = MODELS.get(name) or model_card(name)
    here = local_weights(card)
    if json:
        data(_json(card, here))
        return
    source = f"{card.repo}: {' or '.join(card.files)}" if card.repo else str(card.url or card.path)
    data(f"{card.name}: {card.about}\nkind          {card.kind}\narchitecture  {card.arch}\nsource        {source}")
    data(f"size          {card.megabytes or '?'} MB\nlicence       {card.licence}\non disk       {here or 'no'}")


@app.command("fetch")
def fetch(name: NameArg, json: o.JsonOpt = False) -> None:
    """Download a model's weights, once."""
    card = MODELS.get(name) or model_card(name)
    talk(f"{card.name}: {card.megabytes or '?'} MB, licence: {card.licence}")
    path = str(fetch_weights(card))
    data(jsonlib.dumps({"name": card.name, "path": path}) if json else path)


def _json(card: ModelCard, here: Path | None) -> str:
    return jsonlib.dumps({**asdict(card), "path": str(here) if here else None, "here": here is not None})
