"""Names of the label rasters of many scenes, no two alike."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Iterator, Sequence
from itertools import islice
from pathlib import Path, PurePath

from geoovseg.errors import UsageError
from geoovseg.labels.names import output_names


def label_names(scenes: Sequence[str], folder: str | None = None) -> list[Path]:
    """`<stem>_labels.tif` for every scene, in a folder or beside it, and longer where scenes would get the same one.

    Only these then have more in their names, as much as is needed: scenes of one folder their suffix
    (`scene_jp2_labels.tif`), others those of the folders they lie in (`2024_scene_labels.tif`). The order of the scenes
    does not matter.

    Raises UsageError where that does not help, or a name is that of one of the scenes.
    """
    plain = [output_names(scene, None if folder is None else os.path.join(folder, ""), None).labels for scene in scenes]
    stems = Counter(_path(scene).with_suffix("") for scene in scenes)
    ways = [
        _longer(scene, path, stems[_path(scene).with_suffix("")] > 1) for scene, path in zip(scenes, plain, strict=True)
    ]
    names = list(plain)
    while clashing := _clashing(names):
        longer = {n: next(ways[n], None) for n in clashing}
        if not any(longer.values()):
            raise UsageError(
                f"{scenes[clashing[0]]} and {scenes[clashing[1]]} would have the same output, {names[clashing[0]]}; "
                "run them one by one"
            )
        names = [longer.get(n) or name for n, name in enumerate(names)]
    _check(scenes, names)
    return names


def _path(scene: str) -> PurePath:
    """Where a scene is, of which the folders may become part of a name."""
    return PurePath(scene.split("?")[0] if "://" in scene else os.path.abspath(scene))


def _longer(scene: str, plain: Path, with_suffix: bool) -> Iterator[Path]:
    """Longer and longer names: with the suffix, where that tells scenes apart, and with one folder more each."""
    path = _path(scene)
    name = plain.name.removesuffix("_labels.tif")
    if with_suffix:
        name += f"_{path.suffix.lstrip('.')}"
        yield plain.with_name(f"{name}_labels.tif")
    for folder in islice(reversed(path.parts), 1, None):
        name = f"{folder.strip(os.sep).replace(':', '')}_{name}"
        yield plain.with_name(f"{name}_labels.tif")


def _clashing(names: Sequence[Path]) -> list[int]:
    """Numbers of those that lead to one file, together."""
    files: dict[str, list[int]] = {}
    for number, name in enumerate(names):
        files.setdefault(os.path.realpath(name), []).append(number)
    return [number for numbers in files.values() if len(numbers) > 1 for number in numbers]


def _check(scenes: Sequence[str], names: Sequence[Path]) -> None:
    """Refuse to write over a scene that is yet to be read."""
    files = {os.path.realpath(scene) for scene in scenes}
    for scene, name in zip(scenes, names, strict=True):
        if os.path.realpath(name) in files:
            raise UsageError(
                f"the labels of {scene} would replace {name}, which is one of the scenes; choose another -o"
            )
