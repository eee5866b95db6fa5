"""Labels of a scene made of tiles, cut back to its tiles."""

from __future__ import annotations

import os
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from rasterio.windows import Window

from geoovseg.errors import OutputError, SceneError, UsageError
from geoovseg.files import as_path, bench
from geoovseg.labels.names import Outputs, label_names, side_files, swap, writing
from geoovseg.labels.profile import LabelProfile, crs_for_side_file, legend_with
from geoovseg.labels.read import counted
from geoovseg.labels.record import RunRecord
from geoovseg.labels.styles import label_aux_xml, label_qml
from geoovseg.labels.write import LABELS, empty_raster, sidecars
from geoovseg.rasters.cog import piece, write_cog
from geoovseg.rasters.ground import RasterGrid
from geoovseg.rasters.open import opened, raster_env
from geoovseg.tiles.grid import look, place
from geoovseg.windows.plan import BLOCK


def per_tile(
    labels: str | os.PathLike[str],
    paths: Sequence[str],
    folder: str | os.PathLike[str],
    *,
    overwrite: bool = False,
    keep: bool = False,
) -> list[str]:
    """Cut the labels of a scene made of tiles back to its tiles: one label raster for each, on exactly its grid.

    They are like the whole one: COG, colours, names and run record, with counts of their own; `<stem>_labels.tif` in
    the folder, or what `label_names` makes of equal stems. With `keep`, those that are there stay. Returns their names.

    Raises SceneError for what is no label raster of `segment`, UsageError for tiles that do not lie in it, OutputError.
    """
    as_path(folder, "the folder")
    check_per_tile(paths, folder, [Path(labels)], overwrite=overwrite or keep)
    names = label_names(paths, os.fspath(folder))
    with raster_env(), opened(os.fspath(labels), f"{os.fspath(labels)!r} as labels") as src:
        record = _record(src)
        profiles, windows = [], []
        for path in paths:
            tile = look(path).grid
            profiles.append(LabelProfile(tile, record.colours))
            windows.append(_window(src, tile, path))
        for name, profile, window in zip(names, profiles, windows, strict=True):
            if not (keep and name.exists()):
                _cut(src, window, profile, record.to_json(), name)
    return [str(name) for name in names]


def check_per_tile(
    paths: Sequence[str], folder: str | os.PathLike[str], others: Sequence[Path], *, overwrite: bool
) -> None:
    """Refuse a folder in which labels of tiles would replace something, or one of the `others`.

    Raises UsageError and OutputError.
    """
    for name in label_names(paths, os.fspath(folder)):
        if any(os.path.realpath(name) == os.path.realpath(other) for other in others):
            raise UsageError(f"{name} would be the labels of a tile and of the mosaic; choose another folder or -o")
        try:
            Outputs(name).check(paths, overwrite=overwrite, resume=True)
        except OutputError as error:  # which advises another -o
            advice = re.sub(r"another (name with )?-o\b", "another folder with --per-tile", str(error))
            raise OutputError(advice) from error


def _record(src: Any) -> RunRecord:
    """The run record of a label raster. Raises SceneError."""
    record = RunRecord.of(src)
    if record is None:
        raise SceneError(f"{src.name} is no label raster of geoovseg segment: it has no run record")
    return record


def _window(src: Any, tile: RasterGrid, path: str) -> Window:
    """Where a tile lies in the labels. Raises UsageError."""
    whole = RasterGrid(height=src.height, width=src.width, crs=src.crs, transform=src.transform)
    row, col = place(tile, path, whole, src.name)
    if min(row, col) < 0 or row + tile.height > whole.height or col + tile.width > whole.width:
        raise UsageError(f"{path} does not lie in {src.name}, so there are no labels to cut out for it")
    return Window(col, row, tile.width, tile.height)


def _cut(src: Any, window: Window, profile: LabelProfile, record: str, target: Path) -> None:
    """Copy a window of labels as a finished label raster."""
    legend = legend_with(profile, counted(src, window, profile))
    with writing(target), bench(target) as work:
        copy, empty = work / f"cog{LABELS}", empty_raster(work / f"all{LABELS}", profile, LABELS, record)
        write_cog(copy, empty, [piece(Path(src.name).absolute(), window, 0, 0)], overviews="MODE", block=BLOCK)
        aux = label_aux_xml(legend, crs_for_side_file(copy, profile.grid))
        ready = [(copy, target), *sidecars(target, label_qml(legend), aux, work)]
        swap(ready[::-1], side_files(target), work)
