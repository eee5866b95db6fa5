"""What a method's run of a data set chooses: the user's choices, then the release's, then the defaults."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from geoovseg.errors import UsageError
from geoovseg.evaluation.datasets import DataSet, Release
from geoovseg.methods import card
from geoovseg.models.cards import SOURCES
from geoovseg.run.checks import check_models, check_settings
from geoovseg.settings import Settings
from geoovseg.vocabulary import Vocabulary, read_vocabulary

PROTOCOLS = ("paper", "tool")


def chosen(data: DataSet, settings: Settings, protocol: str) -> tuple[Release, Settings]:
    """What the release does, and the settings of the run: the user's, then the release's, then the defaults."""
    if protocol not in PROTOCOLS:
        raise UsageError(f"--protocol {protocol}: choose {' or '.join(PROTOCOLS)}")
    words = None if settings.vocabulary is None else os.fspath(settings.vocabulary)
    settings = _own_models(settings)
    if protocol == "tool":
        known = data.runs.get("default") or next(iter(data.runs.values()))
        release = Release(classes=words or known["classes"])
        own = card(settings.method).own.get("threshold")
        if own is not None and settings.threshold == own and not read_vocabulary(release.classes).background:
            settings = replace(settings, threshold=0.0)  # there is no class for what is unsure
        return release, settings
    release = data.release(settings.method)
    own = replace(
        settings,
        settings={**_fitting(release, settings), **settings.settings},
        upsample=release.upsample if settings.upsample == "auto" else settings.upsample,
        templates=release.templates if settings.templates == Settings().templates else settings.templates,
        vfm=settings.vfm or (release.vfm if "vfm" in card(settings.method).needs else None),
        sam=settings.sam or (release.sam if settings.sam_name else None),
    )
    return replace(release, classes=words or release.classes), own


def _own_models(settings: Settings) -> Settings:
    """Settings without models that are for others of the methods that are compared."""
    if settings.regions not in (None, *SOURCES):
        raise UsageError(f"--regions {settings.regions}: of data sets they come from {' or '.join(SOURCES)}")
    needs = card(settings.method).needs
    by_sam = "regions" in needs and settings.regions in (None, SOURCES[0])
    return replace(
        settings,
        vfm=settings.vfm if "vfm" in needs else None,
        regions=settings.regions if "regions" in needs else None,
        sam=settings.sam if "sam" in needs or by_sam else None,
    )


def _fitting(release: Release, settings: Settings) -> Mapping[str, Any]:
    """Settings of a release, less those of Segment Anything's regions where regions come from elsewhere."""
    if settings.regions in (None, SOURCES[0]):
        return release.settings
    of_sam = {field.name for field in card(settings.method).fields if field.of_sam}
    return {name: value for name, value in release.settings.items() if name not in of_sam}


def check(data: DataSet, settings: Settings, protocol: str) -> None:
    """Refuse what can be refused before anything is read. Raises UsageError, WeightsMissingError."""
    release, own = chosen(data, settings, protocol)
    if protocol == "paper":
        from geoovseg.run.published import check_able

        check_able(own.method)
    own = replace(own, background="none")
    with own.access():
        check_settings(own)
        check_models(own)
    words_of(data, release)


def words_of(data: DataSet, release: Release) -> Vocabulary:
    """The words of a data set. Raises UsageError for classes that are not its own."""
    words = read_vocabulary(release.classes)
    if len(words.channels) != len(data.labels):
        classes = f"{len(words.channels)} classes, {data.title} {len(data.labels)}"
        raise UsageError(f"the list {release.classes} has {classes}")
    if words.offsets:
        raise UsageError(f"the list {release.classes} has offsets of classes, which no paper has; leave them out")
    return words
