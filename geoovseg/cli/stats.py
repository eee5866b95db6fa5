"""`geoovseg stats`."""

from __future__ import annotations

from typing import Annotated

import typer

from geoovseg.cli import options as o
from geoovseg.cli.output import data, talk
from geoovseg.network import access


def command(
    labels: o.LabelsArg,
    zones: Annotated[str, typer.Argument(help="Polygons in a vector file, in any coordinates.", metavar="ZONES")],
    output: Annotated[str, typer.Argument(help="A .gpkg, .fgb, .parquet, .geojson or .csv file.", metavar="OUT")],
    layer: Annotated[str | None, typer.Option(help="Layer of ZONES; default: its first.", metavar="NAME")] = None,
    where: Annotated[
        str | None, typer.Option(help="Only zones for which this holds, as in \"county = 'Elk'\".", metavar="CONDITION")
    ] = None,
    offline: Annotated[bool, o.of("offline")] = False,
    overwrite: Annotated[bool, o.of("overwrite")] = False,
    json: o.JsonOpt = False,
) -> None:
    """Measure classes by zone: hectares and shares in each of them.

    Areas are those on the ellipsoid; pixels on a zone's border count by the part that is inside.

    geoovseg stats scene_labels.tif districts.gpkg shares.gpkg
    """
    from geoovseg.vectors.zones import stats

    with access(offline=offline):
        result = stats(labels, zones, output, layer=layer, where=where, overwrite=overwrite)
    data(result.to_json() if json else result.zones, names=not json)
    if result.mended:
        talk(
            f"{result.mended} of {result.count} zones are no valid polygons and were mended; what overlaps counts once"
        )
    if result.empty:
        talk(f"{result.empty} of {result.count} zones have no pixel with data; their shares are empty")
