"""`geoovseg info`."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Annotated, Any

import typer

from geoovseg.cli import options as o
from geoovseg.cli.output import data
from geoovseg.errors import some
from geoovseg.network import access

if TYPE_CHECKING:
    from geoovseg.labels.info import Info


def command(
    file: Annotated[
        str,
        typer.Argument(help="Labels, confidence, scores, polygons: what geoovseg wrote, or anybody's.", metavar="FILE"),
    ],
    layer: Annotated[str | None, typer.Option(help="Of a file of polygons with several.")] = None,
    field: Annotated[
        str | None, typer.Option(help="Column of classes of polygons; default class_name or class_id.")
    ] = None,
    offline: Annotated[bool, o.of("offline")] = False,
    json: o.JsonOpt = False,
) -> None:
    """Show what a file holds: its run, its grid, and the classes with pixels and areas.

    Pixels are counted and polygons measured anew, so that the figures are right after edits.

    geoovseg info scene_labels.tif
    """
    from geoovseg.vectors.info import info

    with access(offline=offline):
        found = info(file, layer=layer, field=field)
    data(*((found.to_json(),) if json else _lines(found)))


def _lines(found: Info) -> Iterator[str]:
    yield f"{'file':<11}{found.file}: {found.kind}" + (f" in the layer {found.layer}" if found.layer else "")
    yield f"{'system':<11}{found.crs_name or 'none'}"
    if found.grid:
        yield f"{'grid':<11}{_grid(found.grid)}"
    if found.run:
        yield f"{'run':<11}{_run(found.run)}"
    if found.columns and not any(said["code"] is not None for said in found.classes.values()):
        yield f"{'columns':<11}{some(found.columns, 20)}"
    yield from _classes(found) if found.classes else ()
    yield from _confidence(found.confidence) if found.confidence else ()
    for name, said in found.scores.items():
        yield f"{name:<11}" + ("mean {mean:.3f}, from {least:.3f} to {most:.3f}".format(**said) if said else "no data")
    if found.nodata is not None:
        yield f"{'no data':<11}{found.nodata} pixels"
    for name, both in found.differs.items():
        unit = "pixels" if found.kind == "labels" else "square metres"
        yield f"the table in the file says {both['stored']:.12g} {unit} of {name}; there are {both['counted']:.12g}"


def _grid(grid: dict[str, Any]) -> str:
    size = "" if grid["pixel_m"] is None else " of {:.6g} x {:.6g} m".format(*grid["pixel_m"])
    nodata = "" if grid["nodata"] is None else f", {grid['nodata']:g} is no data"
    return f"{grid['width']} x {grid['height']} pixels{size}, {grid['dtype']}{nodata}"


def _run(run: dict[str, Any]) -> str:
    """The scene, the method and the models, and which version ran."""
    said = [f"{key} {run[key]}" for key in ("scene", "method", "model", "vfm", "sam", "regions") if run.get(key)]
    return ", ".join([*said, f"geoovseg {run.get('versions', {}).get('geoovseg', 'of an unknown version')}"])


def _classes(found: Info) -> Iterator[str]:
    """A table with a row for every class."""
    counted = "pixels" if found.kind == "labels" else "polygons"
    width = max(10, *map(len, found.classes))
    yield f"{'code':>4}  {'class':<{width}}{counted:>14}{'%':>8}{'hectares':>14}"
    for name, said in found.classes.items():
        code = "" if said["code"] is None else said["code"]
        share = "-" if said["share"] is None else f"{said['share'] * 100:.2f}"
        area = "-" if said["hectares"] is None else f"{said['hectares']:.4f}"
        words = ", ".join(said.get("words", ()))
        yield f"{code:>4}  {name:<{width}}{said[counted]:>14}{share:>8}{area:>14}" + (f"  {words}" if words else "")


def _confidence(said: dict[str, Any]) -> Iterator[str]:
    """Mean and extremes, and how many pixels are how sure."""
    if "mean" in said:
        yield f"{'confidence':<11}mean {said['mean']:.3f}, from {said['least']:.3f} to {said['most']:.3f}"
    for n, share in enumerate(said["tenths"]):
        yield f"{n / 10:.1f} to {(n + 1) / 10:.1f}{share * 100:>8.2f} %"
