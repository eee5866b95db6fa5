"""`geoovseg segment`."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import typer

from geoovseg.cli import options as o
from geoovseg.cli.output import data, progress_bar, talk
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
    dry_run: o.DryRunOpt = False,
    json: o.JsonOpt = False,
    quiet: o.QuietOpt = False,
) -> None:
    """Segment images by words into label rasters.

    geoovseg segment scene.tif -c building=house+roof,road,water
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
    if len(scenes) > 1:
        _check_several(scenes, output, confidence, vectors)
        if output is not None and not dry_run:
            _make_folder(output)
        if output is not None and not os.path.isdir(output):  # a dry run: judge by where the folder would be made
            output, overwrite = os.path.dirname(os.path.abspath(output)), True
    common |= {"output": output, "confidence": confidence, "overwrite": overwrite, "resume": resume}
    if dry_run:
        raise typer.Exit(_each(scenes, lambda scene: _plan(scene, common, json)))
    with Stop(lambda text: talk(text, quiet=quiet)) as stop:
        code = _each(scenes, lambda scene: _run(scene, {**common, "stop": stop}, vectors, json, quiet, stop))
    raise typer.Exit(code)


def _each(scenes: list[str], run: Callable[[str], int]) -> int:
    """Run on every scene; an error of one does not keep the others from it. Returns the first code that is not 0."""
    first = 0
    for scene in scenes:
        try:
            code = run(scene)
        except InterruptedRunError:
            raise
        except GeoOVSegError as error:
            if len(scenes) == 1:
                raise
            talk(f"error: {error}")
            code = error.exit_code
        first = first or code
    return first


def _run(scene: str, arguments: dict[str, Any], vectors: str | None, json: bool, quiet: bool, stop: Stop) -> int:
    from geoovseg.distributed import segment_with
    from geoovseg.pipeline import segment

    run = segment if arguments["workers"] == 1 else segment_with
    if run is segment:
        arguments.pop("workers")
    with progress_bar(quiet) as progress:
        result = run(scene, progress=progress, **arguments)
    for line in _remarks(result):
        talk(line, quiet=quiet)
    if vectors is not None:
        result = _with_vectors(result, vectors, arguments["overwrite"])
    outputs = (result.parts_dir,) if result.parts_dir else (result.labels, result.vectors, result.confidence)
    data(result.to_json() if json else "\n".join(filter(None, outputs)))
    if result.parts_dir:
        talk(f"when all shards are done: geoovseg merge {result.parts_dir}", quiet=quiet or json)
    else:
        talk(f"see it: geoovseg preview {scene} {result.labels} preview.png", quiet=quiet or json)
    if not any(entry["pixels"] for entry in result.classes.values()):
        talk("no pixel has a label", quiet=quiet)
    if result.failed_windows:
        talk(f"{result.failed_windows} windows could not be read; where no other covers them there is no data")
    if stop.signal:
        raise InterruptedRunError(f"{scene} was finished first", stop.signal)
    return 3 if result.failed_windows else 0


def _with_vectors(result: SegmentResult, vectors: str, overwrite: bool) -> SegmentResult:
    """Polygons of the labels, and how long they took."""
    from geoovseg.vectorize import vectorize

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
    from geoovseg.vectorize import check_target

    check_target(Path(vectors), overwrite)


def _remarks(result: SegmentResult) -> Iterator[str]:
    """What a person should know about a run."""
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


def _plan(scene: str, arguments: dict[str, Any], json: bool) -> int:
    from geoovseg.estimate import dry_run

    result = dry_run(scene, **arguments)
    data(result.to_json() if json else result.to_text())
    return 0


def _check_several(scenes: list[str], output: str | None, confidence: str | None, vectors: str | None) -> None:
    """Refuse names that would make one scene's result replace another's."""
    if confidence is not None:
        raise UsageError("--confidence names one file; with several scenes run them one by one")
    if vectors is not None:
        raise UsageError("--vectors names one file; with several scenes run them one by one, or `geoovseg vectorize`")
    if output is not None and output.lower().endswith((".tif", ".tiff")):
        raise UsageError(f"-o {output}: with several scenes the output is a folder")
    from geoovseg.outputs import output_names

    folder = None if output is None else os.path.join(output, "")
    names = [output_names(scene, folder, None).labels.resolve() for scene in scenes]
    twice = [scene for scene, name in zip(scenes, names, strict=True) if names.count(name) > 1]
    if twice:
        raise UsageError(f"{twice[0]} and {twice[1]} would have the same output; run them one by one")


def _make_folder(output: str) -> None:
    try:
        os.makedirs(output, exist_ok=True)
    except OSError as error:
        raise UsageError(f"-o {output}: cannot make this folder: {error}") from error
