"""`geoovseg evaluate`."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Annotated

import typer

from geoovseg.cli import options as o
from geoovseg.cli.listing import named
from geoovseg.cli.output import data, talk
from geoovseg.network import access
from geoovseg.prompts import colour_tables

if TYPE_CHECKING:
    from geoovseg.evaluation import EvaluationResult

NAMED = 8
"""How many classes that are not compared are named."""


def command(
    labels: o.ManyLabelsArg,
    truth: Annotated[
        str,
        typer.Argument(
            help="Ground truth: a raster of classes or colours, or a vector file; of several labels also a folder.",
            metavar="TRUTH",
        ),
    ],
    map_: Annotated[
        list[str] | None,
        typer.Option(
            "--map",
            help="Count a truth class (or code, or colour as '#rrggbb') as a label class; '*=background' covers all "
            "classes without a match. May be repeated.",
            metavar="TRUTH=LABEL",
        ),
    ] = None,
    outside: Annotated[
        str | None,
        typer.Option(help="Count what the truth does not cover (no shape, no data) as this class.", metavar="NAME"),
    ] = None,
    truth_nodata: Annotated[
        str | None,
        typer.Option(
            help="none: the nodata value of the truth is a class as others. Or a code or colour to take instead of it.",
            metavar="none|CODE",
        ),
    ] = None,
    colours: Annotated[
        str | None,
        typer.Option(
            help="Truth in colours: what they mean, as in potsdam, or a file with name #rrggbb in each line.",
            metavar="NAME|FILE",
            autocompletion=lambda incomplete: [name for name in colour_tables() if name.startswith(incomplete)],
        ),
    ] = None,
    field: Annotated[
        str | None, typer.Option(help="Column of class names, for vector truth; default class_name.")
    ] = None,
    layer: Annotated[
        str | None, typer.Option(help="Layer of vector truth; default: its first.", metavar="NAME")
    ] = None,
    offline: Annotated[bool, o.of("offline")] = False,
    json: o.JsonOpt = False,
) -> None:
    """Compare labels with ground truth.

    Prints IoU, precision, recall and F1 by class. Classes are matched by name.

    geoovseg evaluate labels.tif truth.tif

    Of folders, files of the same name belong together: geoovseg evaluate labels/ truth/
    """
    from geoovseg.evaluation import evaluate

    given = [path for argument in labels for path in named(argument)]
    true = named(truth)
    with access(offline=offline):
        result = evaluate(
            given if len(given) > 1 or truth.startswith("@") else given[0],
            true if truth.startswith("@") else true[0],
            mapping=map_,
            field=field,
            layer=layer,
            outside=outside,
            truth_nodata=truth_nodata,
            colours=colours,
        )
    data(*((result.to_json(),) if json else (*_of_files(result), *table(result))))
    for line in _remarks(result):
        talk(line)


def table(result: EvaluationResult) -> list[str]:
    """The figures as lines of aligned text."""
    width = max(16, *(len(name) + 1 for name in result.classes))
    lines = [f"{'class':<{width}}{'IoU':>8}{'precision':>11}{'recall':>8}{'F1':>8}{'pixels':>12}"]
    for name, s in result.classes.items():
        figures = [_figure(value) for value in (s.iou, s.precision, s.recall, s.f1)]
        lines.append(f"{name:<{width}}{figures[0]:>8}{figures[1]:>11}{figures[2]:>8}{figures[3]:>8}{s.pixels:>12}")
    return [*lines, f"mIoU {result.miou:.4f}   accuracy {result.accuracy:.4f}"]


def _figure(value: float | None) -> str:
    return " -" if value is None else f"{value:.3f}"


def _of_files(result: EvaluationResult) -> Iterator[str]:
    """A line for each of several files, before the figures of all pixels together."""
    if result.files:
        width = max(len(each["labels"]) for each in result.files)
        yield f"{'labels':<{width}}{'mIoU':>8}{'accuracy':>10}"
        for each in result.files:
            yield f"{each['labels']:<{width}}{_figure(each['miou']):>8}{_figure(each['accuracy']):>10}"
        yield ""
        yield f"all pixels of {len(result.files)} file{'s' * (len(result.files) > 1)} together:"


def _remarks(result: EvaluationResult) -> Iterator[str]:
    """What a person should know about the figures."""
    yield from (f"warning: {remark}" for remark in result.remarks)
    if not result.ignored:
        return
    rest = sum(result.ignored.values())
    share = rest / (rest + sum(map(sum, result.confusion)))
    yield (
        f"not compared: {share:.0%} of the pixels ({_listed(result.ignored)}); labels there count neither as right nor "
        "as wrong."
    )
    if any(name != "nodata" for name in result.ignored):
        yield "To count classes you did not ask for as background: --map '*=background'"
    if result.uncovered:
        yield f"To count what the truth does not cover ({result.uncovered} pixels) as background: --outside background"


def _listed(ignored: dict[str, int]) -> str:
    """What is not compared, most first."""
    most = sorted(ignored.items(), key=lambda item: -item[1])
    more = f", and {len(most) - NAMED} classes more" if len(most) > NAMED else ""
    return ", ".join(f"{name} {pixels}" for name, pixels in most[:NAMED]) + more
