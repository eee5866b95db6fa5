"""`geoovseg benchmark`."""

from __future__ import annotations

import math
from typing import Annotated

import typer

from geoovseg.cli import options as o
from geoovseg.cli.output import data, talk
from geoovseg.cli.progress import progress_bar
from geoovseg.errors import UsageError
from geoovseg.network import access
from geoovseg.numerals import number
from geoovseg.settings import Settings
from geoovseg.settings.choice import read_pairs

MOST = 1000
"""Thresholds that are tried at once."""


def command(
    name: Annotated[
        str | None, typer.Argument(help="A data set by name, or a YAML file; none lists them.", metavar="NAME")
    ] = None,
    images: Annotated[str | None, typer.Option(help="Folder of the images.", metavar="DIR")] = None,
    truth: Annotated[str | None, typer.Option(help="Folder of the ground truth.", metavar="DIR")] = None,
    output: Annotated[
        str | None, typer.Option("-o", "--output", help="Folder for results and tables.", metavar="DIR")
    ] = None,
    method: Annotated[
        str, typer.Option("-m", "--method", help="Methods, separated by commas.", metavar="NAME,NAME")
    ] = "segearth",
    protocol: Annotated[
        str, typer.Option(help="paper: as the release runs it; tool: as `geoovseg segment` does.", metavar="paper|tool")
    ] = "paper",
    split: Annotated[str | None, typer.Option(help="Use only images that this file names.", metavar="FILE")] = None,
    limit: Annotated[int | None, typer.Option(help="Use only so many images, the first.", min=1)] = None,
    sweep: Annotated[
        str | None, typer.Option(help="Count at other thresholds too.", metavar="threshold=FROM:TO:STEP")
    ] = None,
    model: Annotated[str, o.of("model")] = Settings().model,
    vfm: Annotated[str | None, o.of("vfm")] = None,
    sam: Annotated[str | None, o.of("sam")] = None,
    regions: Annotated[str | None, o.of("regions")] = None,
    set_: Annotated[list[str] | None, o.of("settings")] = None,
    upsample: Annotated[str, o.of("upsample")] = "auto",
    templates: Annotated[str, o.of("templates")] = Settings().templates,
    vocabulary: Annotated[str | None, o.of("vocabulary")] = None,
    device: Annotated[str, o.of("device")] = "auto",
    workers: Annotated[int, o.of("workers")] = 1,
    ray: Annotated[str | None, o.of("ray")] = None,
    worker_cpus: Annotated[int | None, o.of("worker_cpus")] = None,
    model_dir: Annotated[str | None, o.of("model_dir")] = None,
    offline: Annotated[bool, o.of("offline")] = False,
    overwrite: Annotated[bool, o.of("overwrite")] = False,
    show: Annotated[bool, typer.Option("--show", help="Print the YAML file of the data set.")] = False,
    json: o.JsonOpt = False,
    quiet: o.QuietOpt = False,
    told: o.ProgressOpt = "auto",
) -> None:
    """Run methods over a data set of the papers, and write tables with the published figures beside.

    geoovseg benchmark loveda --images img_dir/val --truth ann_dir/val -m segearth,clearclip -o results

    What is there of an earlier run is gone on with.
    """
    from geoovseg.evaluation.datasets import file_of, names, read_data_set

    if name is None:
        data(*(f"{each:20}{read_data_set(each).title}" for each in names()))
        return
    if show:
        data(*file_of(name).read_text(encoding="utf-8").splitlines())
        return
    if images is None or truth is None or output is None:
        raise UsageError("say where images and truth are, and where results go: --images DIR --truth DIR -o DIR")
    from geoovseg.evaluation.benchmark import benchmark
    from geoovseg.evaluation.chosen import check
    from geoovseg.evaluation.results import results
    from geoovseg.evaluation.tables import row, write_tables

    thresholds, own_settings = _thresholds(sweep), read_pairs(set_ or [], "--set", "name=value")
    known = read_data_set(name)
    with access(offline=offline):
        runs = [
            Settings(
                method=each, model=model, vfm=vfm, sam=sam, regions=regions, settings=own_settings, upsample=upsample,
                templates=templates, vocabulary=vocabulary, device=device, model_dir=model_dir,
                offline=offline, overwrite=overwrite, workers=workers, ray=ray, worker_cpus=worker_cpus,
            )
            for each in dict.fromkeys(part.strip() for part in method.split(","))
        ]  # fmt: skip
        for own in runs:
            check(known, own, protocol)
        for own in runs:
            with progress_bar(quiet, "image", own.method) as progress:
                benchmark(
                    name, images, truth, output, own, protocol=protocol, split=split, limit=limit, sweep=thresholds,
                    progress=progress,
                )  # fmt: skip
    found = results(output, known)
    text = write_tables(output, known, found)
    data(*((row(known, each).to_json(known) for each in found) if json else text.splitlines()))
    talk(f"wrote {output}/{known.name}.md, .csv, .tex", quiet=quiet)


def _thresholds(said: str | None) -> list[float]:
    """`threshold=0:.9:.05` as numbers, both ends included. Raises UsageError."""
    if said is None:
        return []
    wrong = f"--sweep {said}: write threshold=FROM:TO:STEP, as in threshold=0:0.9:0.05"
    ((key, value),) = read_pairs([said], "--sweep", "threshold=FROM:TO:STEP").items()
    try:
        start, end, step = (number(part) for part in value.split(":"))
    except ValueError as error:
        raise UsageError(wrong) from error
    if key != "threshold" or not (0 <= start <= end <= 1 and step > 0) or (end - start) / step > MOST:
        raise UsageError(wrong)
    return [round(start + step * k, 10) for k in range(math.floor((end - start) / step + 1e-9) + 1)]
