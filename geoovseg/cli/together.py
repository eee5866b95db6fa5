"""Tiles or bands as one scene of `geoovseg segment`: a VRT, which stays while a run needs it."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import replace
from pathlib import Path

from geoovseg.cli.scenes import Asked, Task, is_raster, ready_folder
from geoovseg.errors import UsageError

BUILD = {"mosaic": "gdalbuildvrt ALL.vrt TILES", "stack": "gdalbuildvrt -separate ALL.vrt BANDS"}
"""How an image that stays is made of files."""


def together(scenes: Sequence[str], asked: Asked) -> AbstractContextManager[Task]:
    """The task of tiles, or bands, as one scene. Raises what `as_one` or `as_stack` raise."""
    return _stack(scenes, asked) if asked.stack else _mosaic(scenes, asked)


@contextmanager
def _mosaic(scenes: Sequence[str], asked: Asked) -> Iterator[Task]:
    """The tiles as one scene."""
    from geoovseg.labels.scene_names import place_of
    from geoovseg.tiles.cut import check_per_tile
    from geoovseg.tiles.join import as_one

    def check(rasters: Sequence[Path]) -> None:
        if asked.per_tile is not None and not ready_folder(asked.per_tile, asked.dry_run, "--per-tile")[1]:
            overwrite = asked.settings.overwrite or asked.settings.goes_on
            check_per_tile(scenes, asked.per_tile, rasters, overwrite=overwrite)

    labels = place_of(scenes[0])[0] / "mosaic_labels.tif"
    with _together("mosaic", scenes, labels, asked, lambda vrt: as_one(scenes, vrt), check) as task:
        yield replace(task, tiles=tuple(scenes))


@contextmanager
def _stack(scenes: Sequence[str], asked: Asked) -> Iterator[Task]:
    """The bands as one scene."""
    from geoovseg.tiles.bands import band_files
    from geoovseg.tiles.stack import as_stack, stack_name

    files, bands = band_files(scenes), asked.settings.bands
    with _together("stack", files, stack_name(scenes), asked, lambda vrt: as_stack(files, vrt, bands=bands)) as task:
        yield replace(task, bands=tuple(files))


@contextmanager
def one_of(files: Sequence[str], labels: Path, asked: Asked) -> Iterator[Task]:
    """Three files, in the order red, green, blue, as one scene with labels of that name."""
    from geoovseg.tiles.stack import as_stack

    mine = replace(asked, settings=replace(asked.settings, output=str(labels)))
    with _together("stack", files, labels, mine, lambda vrt: as_stack(files, vrt, bands=None)) as task:
        yield replace(task, bands=tuple(files))


@contextmanager
def _together(
    kind: str,
    files: Sequence[str],
    usual: Path,
    asked: Asked,
    make: Callable[[Path], str],
    check: Callable[[Sequence[Path]], None] = lambda rasters: None,
) -> Iterator[Task]:
    """Files as one scene, a VRT, which stays while parts of a run that did not finish need it.

    `usual` is where labels go if nothing is said.
    """
    from geoovseg.labels.names import output_names
    from geoovseg.tiles.join import vrt_of

    if asked.settings.features is not None:
        raise UsageError(
            f"--features keeps the features of an image that stays, and a {kind} is made for one run; make one with "
            f"{BUILD[kind]}, and give that"
        )
    labels, fresh = _labels(usual, asked)
    vrt = vrt_of(labels, kind)
    outputs = output_names(str(vrt), **{**asked.settings.rasters, "output": labels})
    overwrite = asked.settings.overwrite or fresh
    outputs.check(files, overwrite=overwrite, resume=True, finished=asked.settings.goes_on)
    check(outputs.rasters)
    final = Path(asked.output or "", labels.name) if fresh else labels
    with tempfile.TemporaryDirectory() as passing:
        if asked.dry_run:
            vrt = Path(passing, vrt.name)
        mine = not vrt.exists()  # else another run may be reading it
        try:
            yield Task(
                scene=make(vrt),
                output=str(labels),
                overwrite=overwrite,
                labels=str(final) if fresh else None,
                named=str(vrt_of(final, kind)),
            )
            mine = True
        finally:
            if mine and not (asked.settings.shard or outputs.parts.exists()):
                vrt.unlink(missing_ok=True)


def _labels(usual: Path, asked: Asked) -> tuple[Path, bool]:
    """Where the labels of files as one scene go, and whether that folder is yet to be made."""
    if asked.output is not None and is_raster(asked.output):
        return Path(asked.output), False
    folder, fresh = ready_folder(asked.output, asked.dry_run)
    return Path(folder or usual.parent) / usual.name, fresh
