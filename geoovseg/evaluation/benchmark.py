"""Data sets of papers, image by image: what methods find on them, kept as it comes, and the tables that follow."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, replace
from functools import partial
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from geoovseg.errors import UsageError
from geoovseg.evaluation.chosen import chosen, words_of
from geoovseg.evaluation.colours import read_colours
from geoovseg.evaluation.datasets import DataSet, Release, read_data_set
from geoovseg.evaluation.prepared import Pair, check_classes, digest_of, hash_of, image_of, pairs, truth_of
from geoovseg.evaluation.results import Counted, Found, Kept, confusion
from geoovseg.methods import read_settings
from geoovseg.prompts import digest
from geoovseg.run.executors.pool import in_processes
from geoovseg.run.executors.spread import on_cluster
from geoovseg.settings import Settings
from geoovseg.usage import package_version
from geoovseg.vocabulary import read_vocabulary

VERSIONS = ("geoovseg", "torch", "open_clip_torch", "timm", "numpy")


_LOADED: list[Looks] = []
"""In a process that does nothing else: its models."""


class Decides(Protocol):
    """What an image was found to be."""

    def decided(self, threshold: float, background: int) -> NDArray[np.uint8]:
        """Classes (H, W) by index, those of too low a probability being the background."""


class Looks(Protocol):
    """What sees images: a release's protocol, or the tool's own pipeline."""

    @property
    def weights(self) -> dict[str, str | None]:
        """Names and SHA-256 of the models."""

    def see(self, images: Sequence[NDArray[np.uint8]]) -> Sequence[Decides]:
        """What some images were found to be."""


def benchmark(
    name: str,
    images: str,
    truth: str,
    output: str,
    settings: Settings,
    *,
    protocol: str = "paper",
    split: str | None = None,
    limit: int | None = None,
    sweep: Sequence[float] = (),
    progress: Callable[[int, int], None] = lambda done, total: None,
) -> Found:
    """Run a method over a data set; what is there already of the same run is gone on with.

    Args:
        name: a data set by name, or a YAML file that describes one.
        images: the folder of its images.
        truth: the folder of its truth.
        output: a folder, for `<data set>_<method>_<protocol>.jsonl` with the confusion of every image.
        settings: method, model, `--set`, workers and the like; what the release chooses comes before defaults.
        protocol: `paper` as the release runs it, `tool` as `geoovseg segment` does.
        split: a file with the names of the images to use, one a line.
        limit: only so many images, the first.
        sweep: thresholds to count with as well.
        progress: called with images done and images in all.

    Raises:
        UsageError: a data set that is not prepared as it should be, a method whose release is not known. SceneError.
    """
    data = read_data_set(name)
    release, own = chosen(data, settings, protocol)
    both = pairs(data, images, truth, split)[:limit]
    check_classes(data, both, all_of_it=limit is None)
    header = _header(data, release, own, protocol, hash_of(both, (images, truth)), sweep)
    header |= {"limit": limit, "split": split is not None}
    kept = Kept(Path(output), data, own.method, protocol, header, overwrite=settings.overwrite)
    left = _left(kept, list(_groups(both, release.context)))
    if left:
        done = len(both) - sum(map(len, left))
        for group, (weights, counted) in zip(left, _seen(left, data, release, own, protocol, sweep), strict=True):
            kept.weigh(weights)
            kept.add([pair.name for pair in group], counted)
            done += len(group)
            progress(done, len(both))
    return kept.found(data)


def _left(kept: Kept, groups: Sequence[Sequence[Pair]]) -> list[Sequence[Pair]]:
    """Groups that have not been seen. Raises OutputError for one that was, and has changed since."""
    left = []
    for group in groups:
        names = [pair.name for pair in group]
        if kept.has(names):
            kept.check(names, [digest_of(pair) for pair in group])
        else:
            left.append(group)
    return left


def _seen(
    groups: Sequence[Sequence[Pair]],
    data: DataSet,
    release: Release,
    settings: Settings,
    protocol: str,
    sweep: Sequence[float],
) -> Iterator[tuple[dict[str, str | None], Counted]]:
    """What groups of images were found to be, in their order, with the digests of the weights."""
    count = min(settings.workers, len(groups))
    if count <= 1 and settings.ray is None:
        looks = opened(data, release, settings, protocol)
        yield from ((looks.weights, _counted(data, release, looks, group, sweep)) for group in groups)
        return
    work = partial(_in_process, data, release, settings, protocol, sweep)
    begun = in_processes(work, groups, count) if settings.ray is None else on_cluster(work, groups, settings)
    with begun as found:
        yield from found


def _in_process(
    data: DataSet,
    release: Release,
    settings: Settings,
    protocol: str,
    sweep: Sequence[float],
    group: Sequence[Pair],
) -> tuple[dict[str, str | None], Counted]:
    """A group in a process of its own, which loads its models once."""
    if not _LOADED:
        _LOADED.append(opened(data, release, settings, protocol))
    return _LOADED[0].weights, _counted(data, release, _LOADED[0], group, sweep)


def opened(data: DataSet, release: Release, settings: Settings, protocol: str) -> Looks:
    """Loaded models. Raises UsageError for classes that are not those of the data set."""
    words = words_of(data, release)
    # classes of a data set are complete: none is added to them
    settings = replace(settings, background="auto" if words.own_background else "none", vocabulary=None)
    if protocol == "tool":
        return _Tool(words, settings)
    from geoovseg.run.published import open_published

    return open_published(words, settings, _way(data, release, settings.method))


def _way(data: DataSet, release: Release, method: str) -> Any:
    """The protocol of a release on a data set; baselines are run as the data set's own release ran them."""
    from geoovseg.methods.published import RELEASES
    from geoovseg.methods.published import Protocol as Way

    way = RELEASES.get(method, Way()) if method in data.runs else Way()
    same = ("resize", "keep_ratio", "crop", "stride", "scale", "area", "pamr_steps", "background")
    return replace(way, **{name: getattr(release, name) for name in same})


class _Tool:
    """The tool's own pipeline on arrays."""

    @property
    def weights(self) -> dict[str, str | None]:
        """Names and SHA-256 of the models."""
        return dict(self._worker.predictor.facts.digests)

    def __init__(self, words: Any, settings: Settings) -> None:
        from geoovseg.run.worker import Worker

        self._worker, self._settings, self._first = Worker(words, settings), settings, 0 if words.background else 1

    def see(self, images: Sequence[NDArray[np.uint8]]) -> Sequence[Decides]:
        """Classes and confidence of images."""
        from geoovseg.run.arrays import predict
        from geoovseg.run.published import Seen

        both = [predict(self._worker, self._settings, image, None) for image in images]
        return [Seen((codes - self._first).astype(np.uint8), sure) for codes, sure in both]


def _groups(both: Sequence[Pair], context: int) -> Iterator[Sequence[Pair]]:
    return (both[start : start + context] for start in range(0, len(both), context))


def _counted(data: DataSet, release: Release, looks: Looks, group: Sequence[Pair], sweep: Sequence[float]) -> Counted:
    """Confusions of some images: at the release's threshold each, at the others together."""
    images = [image_of(pair.image) for pair in group]
    digests = [digest_of(pair) for pair in group]
    began = time.monotonic()
    seen = looks.see(images)
    seconds = time.monotonic() - began
    each, swept = [], [np.zeros((len(data.labels), len(data.labels) + 1), np.int64) for _ in sweep]
    for pair, found in zip(group, seen, strict=True):
        truth, labels = truth_of(data, pair), found.decided(release.threshold, release.background)
        if truth.shape != labels.shape:
            raise UsageError(f"{pair.image} has {labels.shape} pixels, and its truth {pair.truth} {truth.shape}")
        each.append(confusion(truth, labels, len(data.labels)))
        for total, threshold in zip(swept, sweep, strict=True):
            total += confusion(truth, found.decided(threshold, release.background), len(data.labels))
    return Counted(each, swept, seconds, sum(image.shape[0] * image.shape[1] for image in images), digests)


def _header(
    data: DataSet, release: Release, settings: Settings, protocol: str, files: str, sweep: Sequence[float]
) -> dict[str, Any]:
    """Everything that could change a number; digests of weights are added when these are loaded."""
    words = read_vocabulary(release.classes)
    return {
        "data_set": data.name,
        "labels": list(data.labels),
        "truth": {
            "code": data.code,
            "colours": None if data.colours is None else {f"{k:06x}": v for k, v in read_colours(data.colours).items()},
            "column": data.column,
            "buffer": data.buffer,
        },
        "method": settings.method,
        "protocol": protocol,
        "release": json.loads(json.dumps(asdict(release))) if protocol == "paper" else None,
        "windows": None if protocol == "paper" else [settings.tile, settings.stride, settings.threshold],
        "settings": read_settings(settings.method, settings.settings),
        "model": settings.model,
        "vfm": settings.vfm,
        "sam": settings.sam_name,
        "regions": settings.regions_from,
        "upsample": settings.upsampled_by,
        "words": [list(group) for group in words.groups],
        "templates": settings.templates,
        "templates_sha256": digest(settings.templates),
        "files_sha256": files,
        "precision": settings.precision,
        "sweep": list(sweep),
        "versions": {name: package_version(name) for name in VERSIONS},
        "weights": None,
    }
