"""`geoovseg evaluate`."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Annotated

import typer

from geoovseg.cli import options as o
from geoovseg.cli.listing import named
from geoovseg.cli.output import data, talk
from geoovseg.errors import UsageError, some
from geoovseg.network import access
from geoovseg.prompts import colour_tables

if TYPE_CHECKING:
    from geoovseg.evaluation import EvaluationResult
    from geoovseg.evaluation.areas import AreaResult, Estimate

NAMED = 8
"""How many classes that are not compared are named."""


def command(
    files: Annotated[
        list[str],
        typer.Argument(
            help="Label rasters, folders of them, or @FILE with a path in each line; last the ground truth: a raster "
            "of classes or colours, or a vector file, of several labels also a folder.",
            metavar="LABELS TRUTH",
        ),
    ],
    points: Annotated[
        str | None,
        typer.Option(
            help="Instead of TRUTH: points of `geoovseg sample` with their column truth filled in; prints areas and "
            "accuracies with 95 % intervals.",
            metavar="FILE",
        ),
    ] = None,
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
        str | None, typer.Option(help="Column of class names, for vector truth; default class_name, of --points truth.")
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

    Areas from a sample: geoovseg evaluate labels.tif --points sample.gpkg
    """
    from geoovseg.evaluation import evaluate

    if points is not None:
        others = {"map": map_, "outside": outside, "truth-nodata": truth_nodata, "colours": colours}
        if said := [name for name, value in others.items() if value]:
            raise UsageError(f"--{said[0]} is for TRUTH, not for --points")
        _of_points(files, points, field, layer, offline=offline, json=json)
        return
    if len(files) < 2:
        raise UsageError(f"{files[0]} alone: give LABELS and TRUTH, or LABELS and --points FILE")
    *labels, truth = files
    given, true = [path for argument in labels for path in named(argument)], named(truth)
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


def _of_points(
    files: list[str], points: str, field: str | None, layer: str | None, *, offline: bool, json: bool
) -> None:
    """Print areas and accuracies that follow from a sample. Raises UsageError."""
    from geoovseg.evaluation.points import evaluate_points

    if len(files) > 1:
        raise UsageError(f"--points {points} takes the place of TRUTH: give one label raster, not {some(files)}")
    with access(offline=offline):
        result = evaluate_points(files[0], points, field=field, layer=layer)
    data(*((result.to_json(),) if json else of_areas(result)))
    for line in result.remarks:
        talk(f"warning: {line}")
    for count, what in (
        (result.unlabelled, "have no truth yet"),
        (result.outside, "lie where the labels have no data"),
    ):
        if count:
            talk(f"not used: {count} points that {what}")


def of_areas(result: AreaResult) -> list[str]:
    """Areas and accuracies as lines of aligned text."""
    width = max(16, *(len(name) + 1 for name in result.classes))
    titles = (f"mapped, {result.unit}", f"area, {result.unit}", "user's", "producer's")
    lines = [f"{'class':<{width}}{titles[0]:>16}{titles[1]:>26}{titles[2]:>16}{titles[3]:>16}{'points':>8}"]
    for name, c in result.classes.items():
        area = f"{c.area.value:,.2f} ± {c.area.margin:,.2f}"
        accuracies = [_margin(each) for each in (c.users_accuracy, c.producers_accuracy)]
        lines.append(f"{name:<{width}}{c.mapped:>16,.2f}{area:>26}{accuracies[0]:>16}{accuracies[1]:>16}{c.points:>8}")
    return [*lines, f"accuracy {_margin(result.accuracy)}   points {result.points}   ± is a 95 % interval"]


def _margin(found: Estimate | None) -> str:
    return "-" if found is None else f"{found.value:.3f} ± {found.margin:.3f}"


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
