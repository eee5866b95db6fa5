"""`geoovseg sample`."""

from __future__ import annotations

from typing import Annotated

import typer

from geoovseg.cli import options as o
from geoovseg.cli.output import data, talk
from geoovseg.errors import UsageError
from geoovseg.network import access
from geoovseg.numerals import number
from geoovseg.settings.choice import read_pairs


def command(
    labels: o.LabelsArg,
    output: Annotated[str, typer.Argument(help="A .gpkg, .fgb, .parquet or .geojson file.", metavar="OUT")],
    n: Annotated[int, typer.Option("-n", help="How many points.", min=1, metavar="INTEGER")],
    by: Annotated[
        str,
        typer.Option(
            help="How classes share the points: neyman (by area and expected errors), proportional (by area), "
            "equal; or none: from all pixels alike.",
            metavar="NAME",
        ),
    ] = "neyman",
    expect: Annotated[
        list[str] | None,
        typer.Option(
            help="For neyman: what share of a class is expected to be right, 0 to 1; default 0.8. May be repeated.",
            metavar="CLASS=SHARE",
        ),
    ] = None,
    least: Annotated[int, typer.Option(help="Points of each class at least, where -n allows it.", min=0)] = 50,
    seed: Annotated[int, typer.Option(help="The same seed draws the same points.", min=0)] = 0,
    offline: Annotated[bool, o.of("offline")] = False,
    overwrite: Annotated[bool, o.of("overwrite")] = False,
    json: o.JsonOpt = False,
) -> None:
    """Draw a random sample of a label raster, to look at what is really there.

    Points in a file with an empty column truth; filled in, `geoovseg evaluate --points` makes areas with 95 % intervals
    of them.

    geoovseg sample scene_labels.tif sample.gpkg -n 300
    """
    from geoovseg.evaluation.sample import sample

    expected = _expected(expect or [])
    with access(offline=offline):
        result = sample(labels, output, n=n, by=by, expected=expected, least=least, seed=seed, overwrite=overwrite)
    data(result.to_json() if json else result.sample, names=not json)
    talk(", ".join(f"{count} points in {name}" for name, count in result.points.items()))


def _expected(items: list[str]) -> dict[str, float]:
    """Shares by class. Raises UsageError."""
    try:
        return {name: number(value) for name, value in read_pairs(items, "--expect", "class=share").items()}
    except ValueError as error:
        raise UsageError(f"--expect: {error}; write class=share, as in road=0.7") from error
