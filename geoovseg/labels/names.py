"""Where a run writes: names that follow from the scene's, what would be lost by them, and how they come to be."""

from __future__ import annotations

import hashlib
import os
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import islice
from pathlib import Path

from geoovseg.errors import GeoOVSegError, OutputError, SceneError, UsageError, first_line
from geoovseg.files import StrPath, behind_link, is_folder, placed
from geoovseg.labels.folders import stem_of
from geoovseg.labels.parts import PartStore
from geoovseg.labels.record import RUN_TAG
from geoovseg.labels.scene_names import place_of, where_of
from geoovseg.rasters.open import GDAL_ERRORS, opened


@dataclass(frozen=True)
class Outputs:
    """Where a run writes: names that follow from the scene's, checked before anything is computed."""

    labels: Path
    confidence: Path | None = None
    work_dir: Path | None = None
    """where the parts lie instead of beside the labels"""
    scores: Path | None = None

    @property
    def parts(self) -> Path:
        """The folder of a run's parts, there until its outputs are whole.

        In a work_dir it is named also after the folder of the labels: runs of like-named scenes may share one.
        """
        if self.work_dir is None:
            return self.labels.with_name(f"{self.labels.name}.parts")
        place = hashlib.sha256(os.fsencode(self.labels.resolve())).hexdigest()[:8]
        return self.work_dir / f"{self.labels.name}.{place}.parts"

    @property
    def rasters(self) -> tuple[Path, ...]:
        """The rasters, without what lies beside them."""
        return tuple(path for path in (self.labels, self.confidence, self.scores) if path is not None)

    @property
    def are_there(self) -> bool:
        """Whether an earlier run came to its end."""
        return all(raster.is_file() for raster in self.rasters) and not self.parts.exists()

    def check(self, sources: Sequence[str], *, overwrite: bool, resume: bool = False, finished: bool = False) -> None:
        """Refuse what would lose something: an output that exists, is read from, or cannot be written.

        `sources` are the files the scene is made of. With `finished`, outputs of a run that came to its end may be
        there: they are not written again.

        Raises UsageError and OutputError.
        """
        with writing(self.labels):
            self._check_names()
            for raster in self.rasters:
                _check_target(raster, sources)
            self._check_free(overwrite=overwrite or (finished and self.are_there), resume=resume)
            self._check_parts(overwrite=overwrite, resume=resume)

    def _check_names(self) -> None:
        files = [file for raster in self.rasters for file in (raster, *side_files(raster))]
        if len({os.path.realpath(file) for file in files}) < len(files):
            raise UsageError(f"outputs need names of their own, not {' and '.join(map(str, self.rasters))}")

    def _check_free(self, *, overwrite: bool, resume: bool) -> None:
        for raster in self.rasters:
            if raster.parent.stat().st_dev != self.labels.parent.stat().st_dev:
                raise UsageError(f"{raster} must be on the same disk as {self.labels}")
        there = [f for raster in self.rasters for f in (raster, *side_files(raster)[:2]) if f.exists()]
        if there and not overwrite and not (resume and all(map(PartStore(self.parts).named, there))):
            missing = [str(raster) for raster in self.rasters if not raster.exists()]
            lacks = f", and {missing[0]} does not" if missing and self.labels in there else ""
            raise OutputError(
                f"{there[0]} exists{lacks}; add --overwrite to replace it, or choose another name with -o"
            )
        for raster in self.rasters:
            _check_ours(raster)

    def _check_parts(self, *, overwrite: bool, resume: bool) -> None:
        if self.parts.is_symlink():
            raise OutputError(f"{self.parts} is a link, and parts need a folder of their own; remove the link")
        if self.parts.exists() and not (self.parts.is_dir() and (overwrite or resume)):
            raise OutputError(
                f"{self.parts} is left from a run that did not finish; --resume goes on with it, --overwrite removes it"
            )
        if self.work_dir is not None and not (self.work_dir.is_dir() and os.access(self.work_dir, os.W_OK)):
            raise OutputError(f"--work-dir {self.work_dir} is no folder that can be written to")


def side_files(raster: Path) -> tuple[Path, ...]:
    """What GDAL and QGIS read together with a raster: style, side file, outside overviews and mask."""
    return (raster.with_suffix(".qml"), *(raster.with_name(raster.name + end) for end in (".aux.xml", ".ovr", ".msk")))


def is_one_of(path: Path, files: Sequence[str]) -> bool:
    """Whether a path leads to one of these files, by whatever name."""
    return path.exists() and any(os.path.exists(file) and path.samefile(file) for file in files)


def _check_target(raster: Path, sources: Sequence[str]) -> None:
    if raster.suffix.lower() not in (".tif", ".tiff"):
        raise UsageError(f"the output {raster} must end in .tif")
    for file in (raster, *side_files(raster)):
        if is_one_of(file, sources):
            raise OutputError(f"the output {file} is read from, as part of the scene; choose another name with -o")
    for file in (raster, *side_files(raster)):
        if file.is_dir():
            raise OutputError(f"{file} is a folder; choose another name with -o")
    if not raster.parent.is_dir():
        raise OutputError(f"the folder {raster.parent} does not exist; create it or choose another -o")
    if not os.access(raster.parent, os.W_OK):
        raise OutputError(f"the folder {raster.parent} cannot be written to; choose another -o")


def _check_ours(raster: Path) -> None:
    """Refuse to replace an image, which geoovseg never made: an option may have taken it for its value."""
    if not raster.is_file():
        return
    try:
        with opened(str(raster), str(raster)) as src:
            image = src.count > 1 and RUN_TAG not in src.tags()
    except SceneError:
        return
    if image:
        raise OutputError(f"{raster} is an image that geoovseg did not make; choose another name, or remove it first")


def output_names(
    scene: str,
    output: StrPath | None = None,
    confidence: StrPath | None = None,
    work_dir: StrPath | None = None,
    scores: StrPath | None = None,
) -> Outputs:
    """`<stem>_labels.tif` beside the scene or in the folder `output`, or the file `output`.

    `confidence` is a file, or a folder for `<stem>_confidence.tif`, or `beside` the labels; `scores` likewise.
    """
    folder, stem = place_of(scene)
    target = Path(output) if output is not None else folder
    labels = target / f"{stem}_labels.tif" if output is None or is_folder(output) else target
    named = [
        behind_link(placed(each, labels, f"{stem_of(str(labels))}_{name}.tif")) if each else None
        for name, each in (("confidence", confidence), ("scores", scores))
    ]
    return Outputs(behind_link(labels), named[0], Path(work_dir) if work_dir else None, named[1])


def swap(ready: Sequence[tuple[Path, Path]], stale: Sequence[Path], bench: Path) -> None:
    """Give finished files their names in order, in place of the old ones; on failure the old ones are put back."""
    targets = [dst for _, dst in ready]
    old = [path for path in dict.fromkeys([*targets, *stale]) if path.exists()]
    kept = {path: bench / f"old_{n}" for n, path in enumerate(old)}
    try:
        for path, keep in kept.items():
            _keep(path, keep)
        for src, dst in ready:
            os.replace(src, dst)
        for path in set(old) - set(targets):
            path.unlink(missing_ok=True)
    except BaseException:  # an interrupt too must not cost the old outputs
        for path in set(targets) - set(old):
            path.unlink(missing_ok=True)
        for path, keep in kept.items():
            if keep.exists():
                os.replace(keep, path)
        raise


def _keep(path: Path, keep: Path) -> None:
    """Keep an old file under a second name, so that its own never stands empty; where links cannot be, move it."""
    try:
        os.link(path, keep)
    except OSError:
        os.replace(path, keep)


@contextmanager
def writing(path: Path) -> Iterator[None]:
    """Whatever goes wrong in here is an OutputError that names the output; what is told already stays as it is."""
    try:
        yield
    except GeoOVSegError:
        raise
    except (*GDAL_ERRORS, OverflowError, UnicodeError) as error:
        reason = f"{first_line(error)}; check free space and permissions of {path.parent}"
        raise OutputError(f"cannot write {path}: {reason}") from error


def label_names(scenes: Sequence[str], folder: str | None = None) -> list[Path]:
    """`<stem>_labels.tif` for every scene, in a folder or beside it, and longer where scenes would get the same one.

    Only these then have more in their names, as much as is needed: scenes of one folder their suffix
    (`scene_jp2_labels.tif`), others those of the folders they lie in (`2024_scene_labels.tif`). The order of the scenes
    does not matter.

    Raises UsageError where that does not help, or a name is that of one of the scenes.
    """
    plain = [output_names(scene, None if folder is None else os.path.join(folder, "")).labels for scene in scenes]
    stems = Counter(where_of(scene).with_suffix("") for scene in scenes)
    ways = [
        _longer(scene, path, stems[where_of(scene).with_suffix("")] > 1)
        for scene, path in zip(scenes, plain, strict=True)
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


def _longer(scene: str, plain: Path, with_suffix: bool) -> Iterator[Path]:
    """Longer and longer names: with the suffix, where that tells scenes apart, and with one folder more each."""
    path = where_of(scene)
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
