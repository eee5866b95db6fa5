"""`geoovseg models list|show|fetch|verify|check|compose`."""

from __future__ import annotations

import json as jsonlib
from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import typer

from geoovseg.cli import options as o
from geoovseg.cli.check import check_all
from geoovseg.cli.output import data, talk
from geoovseg.cli.progress import progress_bar
from geoovseg.errors import UsageError
from geoovseg.models.cards import DEFAULT_MODEL, MODELS, ModelCard, model_card
from geoovseg.models.weights import bundle as copy_weights
from geoovseg.models.weights import fetch_weights, local_weights, verify
from geoovseg.network import access
from geoovseg.numerals import number
from geoovseg.settings import Settings
from geoovseg.vocabulary import read_classes

app = typer.Typer(help="See and fetch the models' weights.", no_args_is_help=True, rich_markup_mode=None)
_NAMES = "Models, as `geoovseg models list` names them."
NamesArg = Annotated[list[str], typer.Argument(help=_NAMES, metavar="NAME")]
_WIDTH = max(map(len, MODELS)) + 2
NameArg = Annotated[str, typer.Argument(help="A model, as `geoovseg models list` names it.", metavar="NAME")]


REMARKS = (
    "larger towers are worse for most dense methods (VOC21, published mIoU of B/16 and L/14: SCLIP 59.1 and 44.4, "
    "ClearCLIP 51.8 and 48.7, NACLIP 58.9 and 52.2): begin with a ViT-B-16",
    "--upsample jbu_one and jbu_stack were trained on ViT-B-16/openai and fit ViT-B-16 only: of remote sensing models "
    "FarSLIP's, none of RemoteCLIP, GeoRSCLIP and SkyCLIP",
    "SigLIP 2 and PE-Core are read by -m maskclip alone, TIPSv2 by -m clip alone; SAM 3 is no CLIP, and read by "
    "-m segearth-ov3 and proc-sam3 alone",
)
"""What helps to choose."""


@app.command("list", cls=o.Careful)
def list_models(json: o.JsonOpt = False) -> None:
    """List the models, and which are on this machine."""
    for name, card in MODELS.items():
        here = local_weights(card)
        if json:
            data(_json(card, here))
        else:
            mark = "here" if here else "-"
            default = " (default)" if name == DEFAULT_MODEL else ""
            data(f"{name:<{_WIDTH}}{card.kind:<11}{mark:<6}{card.megabytes or '?':>5} MB  {card.about}{default}")
    for remark in REMARKS:
        talk(f"- {remark}", quiet=json)


@app.command("show", cls=o.Careful)
def show(name: NameArg, json: o.JsonOpt = False) -> None:
    """Show where a model's weights come from, their size and licence."""
    card = _card(name)
    here = local_weights(card)
    if json:
        data(_json(card, here))
        return
    source = f"{card.repo}: {' or '.join(card.files)}" if card.repo else str(card.url or card.path)
    source += f", {card.member} in it" if card.member else ""
    data(f"{card.name}: {card.about}", f"kind          {card.kind}", f"architecture  {card.arch}")
    data(f"source        {source}", f"size          {card.megabytes or '?'} MB", f"licence       {card.licence}")
    data(*([f"terms         {card.terms}"] if card.terms else []), f"on disk       {here or 'no'}")


@app.command("fetch", cls=o.Careful)
def fetch(
    names: Annotated[list[str] | None, typer.Argument(help=_NAMES, metavar="NAME")] = None,
    method: Annotated[
        str | None, typer.Option("-m", "--method", help="Also all that this method needs, unless told otherwise.")
    ] = None,
    bundle: Annotated[
        Path | None, typer.Option(help="Also copy them to this folder, for --model-dir on another machine.")
    ] = None,
    force: Annotated[bool, typer.Option("--force", help="Fetch them again, also where they are here.")] = False,
    offline: Annotated[bool, o.of("offline")] = False,
    json: o.JsonOpt = False,
    quiet: o.QuietOpt = False,
) -> None:
    """Download model weights; an interrupted download continues where it stopped.

    Weights that are here and not as published are fetched again.
    """
    cards = [*map(_card, names or ()), *(Settings(method=method).weights if method else ())]
    if not cards:
        raise UsageError("name models to fetch, as `geoovseg models list` does, or a method: --method trident")
    for card in dict.fromkeys(cards):
        here = local_weights(card)
        anew = here is not None and card.path is None and (force or _differs(card, quiet))
        if here is None or anew:
            with access(offline=offline):
                here = _fetched(card, quiet, anew=anew)
        copies = copy_weights(card, bundle) if bundle else []
        path = str(here)
        data(
            jsonlib.dumps({"name": card.name, "path": path, "bundle": [str(c) for c in copies]}) if json else path,
            names=not json,
        )


@app.command("check", cls=o.Careful)
def check(
    names: Annotated[
        list[str] | None, typer.Argument(help="Models; all that are here if none.", metavar="NAME")
    ] = None,
    every: Annotated[bool, typer.Option("--all", help="All models, also those that are not here.")] = False,
    get: Annotated[bool, typer.Option("--fetch", help="Download what is not here.")] = False,
    method: Annotated[
        list[str] | None, typer.Option("-m", "--method", help="Try only these methods; may be repeated.")
    ] = None,
    json: o.JsonOpt = False,
    quiet: o.QuietOpt = False,
) -> None:
    """Try models: is the file as published, does it load, and what do methods see with it on a real photo of 224 x 224?

    A model that is needed beside the one that is tried must be here. Exit code 1 if one fails, or its numbers differ.

    geoovseg models check --all --fetch --json > check.jsonl
    """
    from geoovseg.evaluation.trial import known_models

    chosen = [*map(_card, names or ())] or ([*MODELS.values()] if every else known_models())
    check_all(chosen, tuple(method or ()), (lambda model: _fetched(model, quiet)) if get else None, json=json)


@app.command("compose", cls=o.Careful)
def compose_models(
    names: NamesArg,
    output: Annotated[Path, typer.Option("-o", "--output", help="File for the weights (.safetensors).")],
    vocabulary: Annotated[str, typer.Option(help="Classes whose words are told apart: a name or a file.")] = "loveda",
    variants: Annotated[int, typer.Option(help="Sentences for each class.")] = 20,
    seed: Annotated[int, typer.Option(help="For the choice of sentences.")] = 0,
    weights: Annotated[
        str | None,
        typer.Option(help="Instead of margins: a weight for each model, as in .37,.63; or equal.", metavar="W,W|equal"),
    ] = None,
    overwrite: Annotated[bool, o.of("overwrite")] = False,
    json: o.JsonOpt = False,
) -> None:
    """Average models into one, weighted by how well each separates the classes (PVSM).

    geoovseg models compose RemoteCLIP-ViT-L-14 GeoRSCLIP-ViT-L-14 -o fused.safetensors
    """
    from geoovseg.models.compose import compose

    words = read_classes(None, vocabulary)
    shares = _weights(weights, len(names))
    members = compose(names, output, words, count=variants, seed=seed, weights=shares, overwrite=overwrite)
    if json:
        data(jsonlib.dumps({"path": str(output), "members": [asdict(member) for member in members]}))
        return
    for member in members:
        data(f"{member.name:<28}margin {member.margin:.4f}  weight {member.weight:.3f}")
    data(str(output), names=True)


def _weights(said: str | None, count: int) -> list[float] | None:
    """`.37,.63` or `equal` as numbers. Raises UsageError."""
    if said is None or said == "equal":
        return None if said is None else [1.0] * count
    try:
        return [number(part) for part in said.split(",")]
    except ValueError as error:
        raise UsageError(f"--weights {said}: {error}; write numbers with commas between, or equal") from error


@app.command("verify", cls=o.Careful)
def verify_models(
    names: Annotated[
        list[str] | None, typer.Argument(help="Models; all that are here if none.", metavar="NAME")
    ] = None,
    json: o.JsonOpt = False,
) -> None:
    """Compare weights on this machine with their known digests; exit code 1 if one differs."""
    wrong = 0
    for name in names or [n for n, card in MODELS.items() if local_weights(card)]:
        digest, good = verify(_card(name))
        wrong += good is False
        said = {
            True: "as known",
            False: "NOT AS KNOWN: models fetch gets it again",
            None: "no digest is known",
        }[good]
        line = f"{name:<{_WIDTH}}{digest}  {said}"
        data(jsonlib.dumps({"name": name, "sha256": digest, "good": good}) if json else line)
    raise typer.Exit(1 if wrong else 0)


def _fetched(card: ModelCard, quiet: bool, *, anew: bool = False) -> Path:
    """Download weights, with a word on their licence before."""
    _announce(card, quiet)
    with progress_bar(quiet, "B") as progress:
        return fetch_weights(card, progress, anew=anew)


def _differs(card: ModelCard, quiet: bool) -> bool:
    """Whether weights that are here are not as published, which is told."""
    if verify(card)[1] is not False:
        return False
    talk(f"{card.name} is here, but is not as published: fetching it again", quiet=quiet)
    return True


def _card(name: str) -> ModelCard:
    """A model of any kind, also as ARCH@FILE."""
    arch = MODELS.get(name.partition("@")[0])
    return model_card(name, arch.kind if arch else "clip")


def _announce(card: ModelCard, quiet: bool) -> None:
    """What a download brings; nobody gets weights with terms without having been told them."""
    talk(f"{card.name}: {card.megabytes or '?'} MB, licence: {card.licence}", quiet=quiet and card.terms is None)
    talk(f"{card.name}: {card.terms}", quiet=card.terms is None)


def _json(card: ModelCard, here: Path | None) -> str:
    return jsonlib.dumps({**asdict(card), "path": str(here) if here else None, "here": here is not None})
