"""The options that commands share, as types, and how pairs in them are read; defaults stand in the signatures."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated

import typer

from geoovseg.errors import UsageError

SceneArg = Annotated[
    str, typer.Argument(help="A georeferenced image: GeoTIFF or anything GDAL opens.", metavar="SCENE")
]
ScenesArg = Annotated[
    list[str],
    typer.Argument(help="Georeferenced images, anything GDAL opens; folders of them; - for a list.", metavar="SCENE"),
]
ClassesOpt = Annotated[
    list[str] | None,
    typer.Option(
        "-c",
        "--classes",
        help="Classes: commas separate them, a=b+c gives a the words b and c, @FILE is a list.",
        metavar="CLASSES",
    ),
]
VocabularyOpt = Annotated[
    str | None, typer.Option(help="A class list, instead of -c: a name of `geoovseg vocabulary`, or a file.")
]
TemplatesOpt = Annotated[str, typer.Option(help="Sentences around each word: openai-80, openai-7, plain, or a file.")]
MethodOpt = Annotated[str, typer.Option("-m", "--method", help="See `geoovseg methods`.")]
ModelOpt = Annotated[str, typer.Option(help="See `geoovseg models list`; demo needs no download.")]
OfflineOpt = Annotated[bool, typer.Option("--offline", help="Never open a connection, as with GEOOVSEG_OFFLINE=1.")]
ModelDirOpt = Annotated[
    Path | None,
    typer.Option(help="Folder of weights made by `models fetch --bundle`.", envvar="GEOOVSEG_MODEL_DIR"),
]
OutputOpt = Annotated[
    str | None, typer.Option("-o", "--output", help="Label raster (.tif) or folder; default <scene>_labels.tif.")
]
VectorsOpt = Annotated[
    str | None,
    typer.Option(help="Also make polygons, as vectorize does: a .gpkg, .fgb, .parquet or .geojsonl."),
]
ConfidenceOpt = Annotated[str | None, typer.Option(help="Also write confidence (0..1) to this .tif.")]
BackgroundOpt = Annotated[str, typer.Option(help="What is code 0: auto, none or word+word.")]
ThresholdOpt = Annotated[float | None, typer.Option(help="Confidence (0..1) below which a pixel is code 0.")]
UpsampleOpt = Annotated[
    str,
    typer.Option(help="From patches to pixels: bilinear, guided, jbu_one, jbu_stack or jbu_one@FILE (patch 16 only)."),
]
SetOpt = Annotated[
    list[str] | None, typer.Option("--set", help="A setting of the method; repeatable.", metavar="NAME=VALUE")
]
TileOpt = Annotated[int | None, typer.Option(help="Side of a window in pixels; default what the model was trained on.")]
StrideOpt = Annotated[int | None, typer.Option(help="Step between windows; default half a tile.")]
BlockOpt = Annotated[
    int | None, typer.Option(help="Side of a block in pixels, for methods that see many windows at once.")
]
VfmOpt = Annotated[
    str | None,
    typer.Option(
        help="Vision model of methods that use one besides CLIP: a name, clip (the model itself) or demo.",
        metavar="NAME",
    ),
]
SamOpt = Annotated[
    str | None,
    typer.Option(help="Segment Anything of methods that use it: sam_vit_b, sam_vit_l, sam_vit_h, or ARCH@FILE."),
]
RegionsOpt = Annotated[
    str | None,
    typer.Option(
        help="Where methods that use regions have them from: sam, felzenszwalb (colours), or a raster of ids.",
        metavar="SOURCE",
    ),
]
BandsOpt = Annotated[
    str | None,
    typer.Option(help="Bands for red, green, blue by number or name, as in 3,2,1 or nir,red,green.", metavar="R,G,B"),
]
ScaleOpt = Annotated[
    str,
    typer.Option(
        help="What is black and white: auto (8-bit as it is, else percentiles of the scene), dtype, or MIN,MAX.",
        metavar="auto|dtype|MIN,MAX",
    ),
]
NodataOpt = Annotated[
    float | None, typer.Option(help="Pixels of this value in all three bands have no data, whatever the file says.")
]
GsdOpt = Annotated[
    float | None, typer.Option(help="Metres a pixel at which to see the scene; default its own.", metavar="METRES")
]
GridOpt = Annotated[
    str, typer.Option(help="With --gsd, where outputs lie: working (there) or scene (the image's own pixels).")
]
DeviceOpt = Annotated[str, typer.Option(help="auto, cpu, cuda or cuda:N.")]
PrecisionOpt = Annotated[str, typer.Option(help="auto, fp32, bf16 or fp16.")]
BatchSizeOpt = Annotated[int | None, typer.Option(help="Windows in flight; on a CPU no result depends on it.")]
MaxMemoryOpt = Annotated[float | None, typer.Option(help="MB for the blend; default a quarter of the memory.")]
OverwriteOpt = Annotated[
    bool, typer.Option("--overwrite", help="Replace existing outputs, and the parts of a run that did not finish.")
]
ResumeOpt = Annotated[bool, typer.Option("--resume", help="Go on with the parts of a run that did not finish.")]
ShardOpt = Annotated[
    str | None,
    typer.Option(help="Compute share I of N of the parts only, or slurm; then `geoovseg merge`.", metavar="I/N"),
]
AoiOpt = Annotated[
    str | None, typer.Option(help="Label only inside: a polygon file, or W,S,E,N.", metavar="FILE|W,S,E,N")
]
AoiCrsOpt = Annotated[str | None, typer.Option(help="Coordinate system of --aoi; default the file's or the scene's.")]
OnErrorOpt = Annotated[str, typer.Option(help="Windows that cannot be read: stop, or skip them (exit 3).")]
WorkersOpt = Annotated[
    int, typer.Option(help="Processes on this machine that share the parts: one a GPU, or sharing the cores.", min=1)
]
WorkDirOpt = Annotated[str | None, typer.Option(help="Folder for the parts; default beside the labels.")]
MosaicOpt = Annotated[
    bool, typer.Option("--mosaic", help="The scenes are tiles of one scene: no seams, one scaling, one label raster.")
]
PerTileOpt = Annotated[
    str | None, typer.Option(help="Of a mosaic, also give each tile its labels, in this folder.", metavar="DIR")
]
DryRunOpt = Annotated[
    bool, typer.Option("--dry-run", help="Say what the whole run would do, and for how long; read no pixels.")
]
JsonOpt = Annotated[bool, typer.Option("--json", help="One JSON object per line on stdout.")]
QuietOpt = Annotated[bool, typer.Option("--quiet", help="Nothing on stderr but warnings and errors.")]
LabelsArg = Annotated[Path, typer.Argument(help="A label raster.", metavar="LABELS")]


def read_bands(text: str | None) -> tuple[int | str, ...] | None:
    """`3,2,1` or `nir,red,green` as numbers and names."""
    if text is None:
        return None
    parts = [part.strip() for part in text.split(",")]
    return tuple(int(part) if part.isascii() and part.isdigit() else part for part in parts)


def read_pairs(items: list[str], option: str, form: str) -> dict[str, str]:
    """`a=b` texts to a table. Raises UsageError that names the option and the form it wants."""
    pairs = [item.partition("=") for item in items]
    wrong = [name for name, equals, _ in pairs if not equals]
    if wrong:
        raise UsageError(f"{option} {wrong[0]}: write {form}")
    return {name.strip(): value.strip() for name, _, value in pairs}


def set_offline(offline: bool) -> None:
    """Let all libraries know, here and in processes started from here, that the network is forbidden."""
    if offline:
        os.environ["GEOOVSEG_OFFLINE"] = os.environ["HF_HUB_OFFLINE"] = "1"


def read_shard(text: str | None, environment: Mapping[str, str]) -> tuple[int, int] | None:
    """`I/N`, or `slurm`: this task of a job array. Raises UsageError."""
    if text is None:
        return None
    if text == "slurm":
        try:
            task, least, count = (int(environment[f"SLURM_ARRAY_TASK_{end}"]) for end in ("ID", "MIN", "COUNT"))
        except (KeyError, ValueError) as error:
            raise UsageError(
                "--shard slurm works in a job array, where SLURM_ARRAY_TASK_ID, _MIN and _COUNT are set"
            ) from error
        return task - least + 1, count
    try:
        number, count = (int(part) for part in text.split("/"))
    except ValueError as error:
        raise UsageError(f"--shard {text}: write I/N, as in 2/5, or slurm") from error
    return number, count
