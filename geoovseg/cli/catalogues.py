"""Items of STAC as scenes of `geoovseg segment`, and labels as items."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from geoovseg.cli.scenes import Asked, Task, is_raster, ready_folder
from geoovseg.cli.together import one_of
from geoovseg.errors import OutputError, UsageError, first_line, some
from geoovseg.labels.scene_names import place_of
from geoovseg.scene.items import Item, holds_items, items_of

if TYPE_CHECKING:
    from geoovseg.pipeline import SegmentResult


@contextmanager
def item_tasks(arguments: Sequence[str], asked: Asked) -> Iterator[list[Task]]:
    """Tasks of the items in files, each with labels named after its id; three assets of an item are its bands.

    Raises UsageError, SceneError.
    """
    if other := [argument for argument in arguments if not holds_items(argument)]:
        raise UsageError(f"{some(other)}: scenes and files of STAC items cannot be mixed; run them one by one")
    found = [(file, item) for file in arguments for item in items_of(file, asked.assets)]
    if asked.output is not None and is_raster(asked.output) and len(found) > 1:
        raise UsageError(f"-o {asked.output}: with several items the output is a folder")
    folder, fresh = (None, False) if is_raster(asked.output) else ready_folder(asked.output, asked.dry_run)
    overwrite = asked.settings.overwrite or fresh
    with ExitStack() as stack:
        yield [
            replace(
                stack.enter_context(_one(item, _labels(file, item, asked, folder), asked, overwrite)), item=item.said
            )
            for file, item in found
        ]


def _labels(file: str, item: Item, asked: Asked, folder: str | None) -> Path:
    if asked.output is not None and is_raster(asked.output):
        return Path(asked.output)
    return Path(folder) / f"{item.name}_labels.tif" if folder else place_of(file)[0] / f"{item.name}_labels.tif"


@contextmanager
def _one(item: Item, labels: Path, asked: Asked, overwrite: bool) -> Iterator[Task]:
    if len(item.assets) == 1:
        yield Task(scene=item.assets[0], output=str(labels), overwrite=overwrite)
        return
    with one_of(item.assets, labels, asked) as task:
        yield task


def write_items(folder: str, result: SegmentResult, source: Mapping[str, Any] | None) -> None:
    """Write the item of labels, and of what was made with them. Raises OutputError."""
    from geoovseg.labels.items import write_item

    labels = Path(result.labels)
    name = labels.stem.removesuffix("_labels")
    others = {key: getattr(result, key) for key in ("confidence", "scores", "vectors")}
    try:
        write_item(Path(folder), name, labels, {k: Path(v) for k, v in others.items() if v}, source)
    except OSError as error:
        raise OutputError(f"cannot write the item of {labels} to {folder}: {first_line(error)}") from error


def write_catalogue(folder: str) -> None:
    """Write the catalogue of all items in a folder. Raises OutputError."""
    from geoovseg.labels import items

    try:
        items.write_catalogue(Path(folder))
    except OSError as error:
        raise OutputError(f"cannot write the catalogue of {folder}: {first_line(error)}") from error
