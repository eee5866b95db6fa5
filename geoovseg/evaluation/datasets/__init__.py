"""The papers' data sets, a YAML file each: how they are laid out and coded, and what releases do on them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any, Literal

import yaml

from geoovseg.errors import UsageError, did_you_mean, first_line
from geoovseg.files import LARGEST_TEXT, bytes_of, text_of
from geoovseg.prompts import find_colours

FOLDER = Path(__file__).parent
Code = Literal["index", "reduce_zero", "binary", "shapes"]
"""How truth says classes: by index; by index + 1, 0 being unknown; by dark and light (or 0 and 1); by shapes drawn."""
UNKNOWN = 255
"""In truth: what is not compared."""
ALONE = ("trident", "corrclip", "resegclip", "direct-op", "direct-mv", "segearth-ov3", "proc-sam3")
"""Methods that are run in ways of their own, never as a data set's first release ran baselines."""
CODES = ("index", "reduce_zero", "binary", "shapes")
RANGES: dict[str, tuple[type, float, float]] = {
    "threshold": (float, 0, 1), "background": (int, 0, 254), "scale": (float, 1e-6, 1e6), "crop": (int, 0, 100_000),
    "stride": (int, 1, 100_000), "area": (float, 0, 1), "pamr_steps": (int, 0, 1000), "context": (int, 1, 10_000),
}  # fmt: skip
"""Of what a release chooses: whole numbers or others, and within what."""


@dataclass(frozen=True, kw_only=True)
class Release:
    """What a method's release does on a data set."""

    classes: str
    """class list, by name or file"""
    threshold: float = 0.0
    """least probability; below it a pixel is `background`"""
    background: int = 0
    """index of the class that unsure pixels get"""
    scale: float = 50.0
    crop: int = 224
    stride: int = 112
    resize: tuple[int, int] | None = (448, 448)
    """bounds on the long and the short side; nothing leaves images as they are"""
    keep_ratio: bool = True
    area: float | None = None
    pamr_steps: int = 0
    settings: Mapping[str, Any] = field(default_factory=dict)
    """of the method"""
    templates: str = "openai-80"
    upsample: str = "bilinear"
    vfm: str | None = None
    sam: str | None = None
    context: int = 1
    """images that are corrected together"""


@dataclass(frozen=True, kw_only=True)
class DataSet:
    """One data set: where its files are, how its truth is to be read, what releases did and found."""

    name: str
    title: str
    labels: tuple[str, ...]
    """classes by index"""
    image_suffix: str
    truth_suffix: str
    runs: Mapping[str, Mapping[str, Any]]
    """by method, what its release chooses; `default` is for all"""
    code: Code = "index"
    colours: str | None = None
    """table for truth that is in colours all the same"""
    column: str = ""
    """of shapes: their column of class names; without one all are of the second class"""
    buffer: float = 0.0
    """of shapes: metres that they are made wider by, as lines of roads are"""
    foreground: tuple[str, ...] = ()
    """where classes are extracted from a background: those whose IoU is the figure"""
    expect: Mapping[str, int] = field(default_factory=dict)
    """`images`: how many there are; `classes`: how many occur in the truth, by default all"""
    published: Mapping[str, float] = field(default_factory=dict)
    """percent, by method"""
    source: str = ""
    licence: str = ""
    layout: str = ""

    @property
    def known(self) -> tuple[str, ...]:
        """Methods whose releases are known to have run it, or that are run as its first release ran baselines."""
        return tuple(name if name != "default" else "segearth and the baselines" for name in self.runs)

    def index_of(self, name: str) -> int | None:
        """The index of a class by its name in any case, `_` being a space; none where there is no such class."""
        folded = [label.casefold().replace("_", " ") for label in self.labels]
        said = name.casefold().replace("_", " ")
        return folded.index(said) if said in folded else None

    def release(self, method: str) -> Release:
        """What a method's release does. Raises UsageError where that is not known."""
        if method not in self.runs and ("default" not in self.runs or method in ALONE):
            raise UsageError(
                f"what the release of {method} does on {self.name} is not known here; it is for "
                f"{', '.join(self.known)}: choose one of these, or --protocol tool"
            )
        given = {**self.runs.get("default", {}), **self.runs.get(method, {})}
        if unknown := set(given) - {each.name for each in fields(Release)}:
            raise UsageError(f"data set {self.name}: {method} has {sorted(unknown)[0]}, which means nothing here")
        resize = given.get("resize", (448, 448))
        if "classes" not in given or not isinstance(resize, list | tuple | None):
            raise UsageError(f"data set {self.name}: {method} needs classes, and resize as [height, width] or null")
        return Release(**{**given, "resize": None if resize is None else tuple(resize)})


def names() -> list[str]:
    """The data sets that are known."""
    return sorted((path.stem for path in FOLDER.glob("*.yaml")), key=str.casefold)


def file_of(name_or_file: str) -> Path:
    """The file of a data set, by its name in any case or as a file. Raises UsageError."""
    if Path(name_or_file).is_file():
        return Path(name_or_file)
    by_fold = {name.casefold(): name for name in names()}
    if name_or_file.casefold() not in by_fold:
        hint = did_you_mean(name_or_file, by_fold)
        raise UsageError(
            f"no data set named {name_or_file!r} and no such file{hint}; the names are {', '.join(names())}"
        )
    return FOLDER / f"{by_fold[name_or_file.casefold()]}.yaml"


def read_data_set(name_or_file: str) -> DataSet:
    """A data set by name or file. Raises UsageError for a file that says none."""
    path = file_of(name_or_file)
    try:
        said = yaml.safe_load(text_of(bytes_of(path, LARGEST_TEXT)))
        return _data_set(path.stem, said)
    except (OSError, UnicodeDecodeError, yaml.YAMLError, TypeError, ValueError, RecursionError) as error:
        raise UsageError(f"{path} does not describe a data set: {first_line(error)}") from error


def _data_set(name: str, said: Any) -> DataSet:
    """Raises TypeError and ValueError for what is not as it should be."""
    if not isinstance(said, dict):
        raise ValueError("it holds no names with values")
    for key, kind in (("labels", list), ("runs", dict), ("image_suffix", str), ("truth_suffix", str)):
        if not isinstance(said.get(key), kind):
            raise ValueError(f"{key} is missing, or is no {kind.__name__}")
    if not all(isinstance(method, str) for method in said["runs"]):
        raise ValueError("runs have names of methods, or default")
    if said.get("code", "index") not in CODES:
        raise ValueError(f"code {said['code']}: choose {', '.join(CODES)}")
    lists = {key: tuple(map(str, said.get(key, ()))) for key in ("labels", "foreground")}
    if strange := set(lists["foreground"]) - set(lists["labels"]):
        raise ValueError(f"foreground {sorted(strange)[0]} is none of the labels")
    data = DataSet(**{"title": name, **said, **lists, "name": name})
    _check(data)
    return data


def _check(data: DataSet) -> None:
    """Raises ValueError for values that nothing could be done with."""
    if not data.labels or len(set(data.labels)) < len(data.labels):
        raise ValueError("labels must be classes, each of them once")
    tables: tuple[tuple[str, Any, type], ...] = (("expect", data.expect, int), ("published", data.published, float))
    for name, table, kind in tables:
        if not isinstance(table, Mapping) or not all(_is(value, kind) for value in table.values()):
            raise ValueError(f"{name} must be names with numbers")
    if not isinstance(data.column, str) or not (_is(data.buffer, float) and 0 <= data.buffer <= 10_000):
        raise ValueError("column is a name, buffer metres from 0 to 10000")
    if len(data.labels) < 2 and (data.code == "binary" or (data.code == "shapes" and not data.column)):
        raise ValueError(f"code {data.code} has two labels or more: what is not drawn, and what is")
    if data.colours is not None:
        find_colours(data.colours)
    if not data.runs or not all(isinstance(run, Mapping) for run in data.runs.values()):
        raise ValueError("runs must be methods, or default, with what is chosen for each")
    for method in data.runs:
        _check_release(data, method)


def _check_release(data: DataSet, method: str) -> None:
    """Raises ValueError for a choice that is none."""
    release = data.release(method)
    for each, (kind, low, high) in RANGES.items():
        value = getattr(release, each)
        if (value is not None or each not in ("area",)) and not (_is(value, kind) and low <= value <= high):
            raise ValueError(f"{method}: {each} {value!r} is no number from {low:g} to {high:g}")
    resize = release.resize
    if resize is not None and (len(resize) != 2 or not all(_is(side, int) and side > 0 for side in resize)):
        raise ValueError(f"{method}: resize {list(resize)} is no height and width")
    texts = (release.classes, release.templates, release.upsample, *filter(None, (release.vfm, release.sam)))
    if not all(isinstance(text, str) for text in texts) or not isinstance(release.settings, Mapping):
        raise ValueError(
            f"{method}: classes, templates, upsample, vfm and sam are names, settings are names with values"
        )
    if release.background >= len(data.labels):
        raise ValueError(f"{method}: background {release.background}: there are {len(data.labels)} classes, from 0")


def _is(value: Any, kind: type) -> bool:
    return isinstance(value, int if kind is int else int | float) and not isinstance(value, bool)
