"""`geoovseg segment`."""

from __future__ import annotations

import os
import shlex
from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import typer

from geoovseg.cli import options as o
from geoovseg.cli.output import data, progress_bar, talk
from geoovseg.cli.plans import dry_runs
from geoovseg.cli.scenes import PARTLY, Asked, Task, each, tasks
from geoovseg.errors import GeoOVSegError, InterruptedRunError, UsageError
from geoovseg.methods import read_settings
from geoovseg.models.cards import DEFAULT_MODEL, model_card
from geoovseg.prompts import DEFAULT_TEMPLATES
from geoovseg.signals import Stop
from geoovseg.vocabulary import read_classes

if TYPE_CHECKING:
    from geoovseg.pipeline import SegmentResult


def command(
    scenes: o.ScenesArg,
    classes: o.ClassesOpt = None,
    vocabulary: o.VocabularyOpt = None,
    method: o.MethodOpt = "segearth",
    model: o.ModelOpt = DEFAULT_MODEL,
    model_dir: o.ModelDirOpt = None,
    offline: o.OfflineOpt = False,
    output: o.OutputOpt = None,
    vectors: o.VectorsOpt = None,
    confidence: o.ConfidenceOpt = None,
    templates: o.TemplatesOpt = DEFAULT_TEMPLATES,
    background: o.BackgroundOpt = "auto",
    threshold: o.ThresholdOpt = None,
    upsample: o.UpsampleOpt = "bilinear",
    set_: o.SetOpt = None,
    tile: o.TileOpt = None,
    stride: o.StrideOpt = None,
    block: o.BlockOpt = None,
    vfm: o.VfmOpt = None,
    sam: o.SamOpt = None,
    regions: o.RegionsOpt = None,
    bands: o.BandsOpt = None,
    scale: o.ScaleOpt = "auto",
    nodata: o.NodataOpt = None,
    gsd: o.GsdOpt = None,
    grid: o.GridOpt = "working",
    device: o.DeviceOpt = "auto",
    precision: o.PrecisionOpt = "auto",
    batch_size: o.BatchSizeOpt = None,
    max_memory: o.MaxMemoryOpt = None,
    overwrite: o.OverwriteOpt = False,
    resume: o.ResumeOpt = False,
    shard: o.ShardOpt = None,
    aoi: o.AoiOpt = None,
    aoi_crs: o.AoiCrsOpt = None,
    on_error: o.OnErrorOpt = "stop",
    workers: o.WorkersOpt = 1,
    work_dir: o.WorkDirOpt = None,
    mosaic: o.MosaicOpt = False,
    per_tile: o.PerTileOpt = None,
    dry_run: o.DryRunOpt = False,
    json: o.JsonOpt = False,
    quiet: o.QuietOpt = False,
) -> None:
    """Segment images by words into label rasters.

    geoovseg segment scene.tif -c building=house+roof,road,water

    Many scenes: several names, folders of rasters, or - for a list on standard input.
    """
    common: dict[str, Any] = {
        "classes": classes,
        "vocabulary": vocabulary,
        "method": method,
        "model": model,
        "templates": templates,
        "background": background,
        "threshold": threshold,
        "upsample": upsample,
        "settings": o.read_pairs(set_ or [], "--set", "name=value"),
        "tile": tile,
        "stride": stride,
        "block": block,
        "vfm": vfm,
        "sam": sam,
        "regions": regions,
        "bands": o.read_bands(bands),
        "scale": scale,
        "nodata": nodata,
        "gsd": gsd,
        "grid": grid,
        "device": device,
        "precision": precision,
        "batch_size": batch_size,
        "max_memory": max_memory,
        "aoi": aoi,
        "aoi_crs": aoi_crs,
        "on_error": on_error,
        "work_dir": work_dir,
        "shard": o.read_shard(shard, os.environ),
        "workers": workers,
    }
    o.set_offline(offline)
    if model_dir is not None:
        os.environ["GEOOVSEG_MODEL_DIR"] = os.fspath(model_dir)
    read_classes(classes, vocabulary)  # before the heavy libraries are loaded: mistakes should be cheap
    read_settings(method, common["settings"])
    model_card(model)
    _check_vectors(vectors, shard, overwrite)
    common |= {"confidence": confidence, "resume": resume}
    asked = Asked(
        output=output,
        confidence=confidence,
        vectors=vectors,
        per_tile=per_tile,
        mosaic=mosaic,
        overwrite=overwrite,
        dry_run=dry_run,
        shard=common["shard"],
        work_dir=work_dir,
        resampled=gsd is not None and grid == "working",
    )
    with tasks(scenes, asked, quiet=quiet) as todo:
        if dry_run:
            partial = bool(shard or resume or workers > 1)
            code = dry_runs(todo, lambda task: _arguments(task, common), partial=partial, json=json, quiet=quiet)
            raise typer.Exit(code)
        with Stop(lambda text: talk(text, quiet=quiet)) as stop:
            code = each(todo, lambda task: _run(task, common, asked, json, quiet, stop), json=json, quiet=quiet)
    raise typer.Exit(code)


def _run(task: Task, common: Mapping[str, Any], asked: Asked, json: bool, quiet: bool, stop: Stop) -> int:
    arguments = _arguments(task, common)
    run = _runner(arguments)
    with progress_bar(quiet) as progress:
        result = run(task.scene, progress=progress, stop=stop, **arguments)
    for line in _remarks(result):
        talk(line, quiet=quiet)
    try:
        result = _with_more(result, task, asked)
    except GeoOVSegError:
        talk(f"the labels are finished: {result.labels}")
        raise
    outputs = (result.parts_dir,) if result.parts_dir else (result.labels, result.vectors, result.confidence)
    data(result.to_json() if json else "\n".join(filter(None, (*outputs, *result.per_tile))))
    for line in _hints(result, task, common):
        talk(line, quiet=quiet or json)
    if not any(entry["pixels"] for entry in result.classes.values()):
        talk("no pixel has a label", quiet=quiet)
    if result.failed_windows:
        talk(f"{result.failed_windows} windows could not be read; where no other covers them there is no data")
    if stop.signal:
        raise InterruptedRunError(f"{task.scene} was finished first", stop.signal)
    return PARTLY if result.failed_windows else 0


def _arguments(task: Task, common: Mapping[str, Any]) -> dict[str, Any]:
    return {**common, "output": task.output, "overwrite": task.overwrite}


def _runner(arguments: dict[str, Any]) -> Callable[..., SegmentResult]:
    """What segments a scene: this process, or several."""
    from geoovseg.distributed import segment_with
    from geoovseg.pipeline import segment

    if arguments["workers"] > 1:
        return segment_with
    del arguments["workers"]
    return segment


def _hints(result: SegmentResult, task: Task, common: Mapping[str, Any]) -> Iterator[str]:
    """What to do next."""
    if result.parts_dir:
        yield f"when all shards are done: geoovseg merge {shlex.quote(result.parts_dir)}"
    elif not task.tiles:
        yield f"see it: geoovseg preview {shlex.join(_pictured(task.scene, result.labels, common))}"


def _pictured(scene: str, labels: str, common: Mapping[str, Any]) -> Iterator[str]:
    """Arguments of `preview` for a scene as this run saw it, with a picture beside the labels and named after them."""
    picture = Path(labels).with_suffix(".png")
    if os.path.abspath(picture) == os.path.abspath(scene):
        picture = picture.with_name(f"{picture.stem}_preview.png")
    yield from (scene, labels, str(picture))
    if common["bands"] is not None:
        yield from ("--bands", ",".join(map(str, common["bands"])))
    if common["scale"] != "auto":
        yield from ("--scale", common["scale"])


def _with_more(result: SegmentResult, task: Task, asked: Asked) -> SegmentResult:
    """What is made of the labels: polygons, and labels of every tile."""
    if asked.vectors is not None:
        result = _with_vectors(result, asked.vectors, task.overwrite)
    if asked.per_tile is not None:
        from geoovseg.tiles import per_tile

        cut = per_tile(result.labels, task.tiles, asked.per_tile, overwrite=task.overwrite)
        result = replace(result, per_tile=tuple(cut))
    return replace(result, tiles=task.tiles)


def _with_vectors(result: SegmentResult, vectors: str, overwrite: bool) -> SegmentResult:
    """Polygons of the labels, and how long they took."""
    from geoovseg.vectors import vectorize

    made = vectorize(result.labels, vectors, confidence=result.confidence, overwrite=overwrite)
    spent = made.seconds["total"]
    seconds = {**result.seconds, "vectorize": spent, "total": round(result.seconds["total"] + spent, 3)}
    return replace(result, vectors=made.vectors, seconds=seconds, peak_rss_mb=max(result.peak_rss_mb, made.peak_rss_mb))


def _check_vectors(vectors: str | None, shard: str | None, overwrite: bool) -> None:
    """Refuse what would fail only when the labels are done."""
    if vectors is None:
        return
    if shard is not None:
        raise UsageError("--vectors needs whole labels: run `geoovseg vectorize` after `geoovseg merge`")
    from geoovseg.vectors import check_target

    check_target(Path(vectors), overwrite)


def _remarks(result: SegmentResult) -> Iterator[str]:
    """What a person should know about a run."""
    yield from _seen(result)
    if result.background:
        yield f"code 0 (background): {', '.join(result.background)}"
    if result.dropped_background:
        yield f"too close to your words, so not background: {', '.join(result.dropped_background)}"
    if result.skipped_windows:
        yield f"{result.skipped_windows} of {result.windows} windows have no data and were skipped"
    if result.outside_windows:
        yield f"{result.outside_windows} of {result.windows} windows lie outside the area of interest"
    if result.parts_kept:
        yield (
            f"{result.parts_kept} of {result.parts} parts were finished before; {result.redone_windows} windows at "
            "their borders were computed again"
        )


def _seen(result: SegmentResult) -> Iterator[str]:
    """How pixels became light, where that is no matter of course."""
    bands = ", ".join(map(str, result.bands))
    what = f"bands {bands} seen as red, green, blue" if len(set(result.bands)) > 1 else f"band {result.bands[0]} seen"
    if result.scale is not None and result.scale != (0, 255):
        yield f"{what}; {result.scale[0]:.6g} as black, {result.scale[1]:.6g} as white"
    elif len(set(result.bands)) > 1 and result.bands != (1, 2, 3):
        yield what
