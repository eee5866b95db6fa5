"""`geoovseg evaluate`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from geoovseg.cli import options as o
from geoovseg.cli.output import data, talk
from geoovseg.errors import some
from geoovseg.settings.choice import read_pairs

if TYPE_CHECKING:
    from geoovseg.evaluation import EvaluationResult


def command(
    labels: o.LabelsArg,
    truth: Annotated[str, typer.Argument(help="Ground truth: a raster of classes or a vector file.", metavar="TRUTH")],
    map_: Annotated[
        list[str] | None,
        typer.Option(
            "--map",
            help="Count a truth class (or code) as a label class; '*=background' covers all classes without a match.",
            metavar="TRUTH=LABEL",
        ),
    ] = None,
    field: Annotated[
        str | None, typer.Option(help="Column of class names, for vector truth; default class_name.")
    ] = None,
    json: o.JsonOpt = False,
) -> None:
    """Compare labels with ground truth.

    Prints IoU, precision, recall and F1 by class. Classes are matched by name.

    geoovseg evaluate labels.tif truth.tif
    """
    from geoovseg.evaluation import evaluate

    parts = [part for item in map_ or [] for part in item.split(",")]
    result = evaluate(labels, truth, mapping=read_pairs(parts, "--map", "truth=label"), field=field)
    if json:
        data(result.to_json())
        return
    data(table(result))
    if result.ignored:
        listed = some(f"{name} {pixels}" for name, pixels in result.ignored.items())
        rest = sum(result.ignored.values())
        share = rest / (rest + sum(map(sum, result.confusion)))
        talk(f"not compared: {share:.0%} of the pixels ({listed}); labels there count neither as right nor as wrong.")
        talk("To count classes you did not ask for as background: --map '*=background'")


def table(result: EvaluationResult) -> str:
    """The figures as aligned text."""
    lines = [f"{'class':<16}{'IoU':>8}{'precision':>11}{'recall':>8}{'F1':>8}{'pixels':>12}"]
    for name, s in result.classes.items():
        figures = [" -" if v is None else f"{v:.3f}" for v in (s.iou, s.precision, s.recall, s.f1)]
        lines.append(f"{name:<16}{figures[0]:>8}{figures[1]:>11}{figures[2]:>8}{figures[3]:>8}{s.pixels:>12}")
    return "\n".join([*lines, f"mIoU {result.miou:.4f}   accuracy {result.accuracy:.4f}"])
