"""What a run made and what it took."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

from geoovseg.features.store import About
from geoovseg.labels.areas import Piece, hectares
from geoovseg.labels.names import Outputs
from geoovseg.labels.profile import LabelProfile, legend_with
from geoovseg.run.job import Job
from geoovseg.run.state import Run
from geoovseg.scene.scene import Scene
from geoovseg.usage import Usage, peak_rss_mb


@dataclass(frozen=True, kw_only=True)
class SegmentResult:
    """What a run made and what it took; `to_json` is what `geoovseg segment --json` prints."""

    scene: str
    labels: str
    """when this was a shard, the name that `geoovseg merge` will give them"""
    vectors: str | None
    confidence: str | None
    scores: str | None
    method: str
    model: str
    device: str
    precision: str
    batch_size: int
    windows: int
    skipped_windows: int
    """windows without any valid pixel"""
    failed_windows: int
    """windows that could not be read and were skipped, with on_error `skip`"""
    outside_windows: int
    """windows that do not meet the area of interest"""
    parts: int
    parts_kept: int
    """parts that an earlier run had finished"""
    redone_windows: int
    """windows computed now although they also lie in kept parts"""
    megapixels: float
    bands: tuple[int, int, int]
    """that were seen as red, green, blue"""
    scale: tuple[float, float] | None
    """values that were seen as black and white"""
    seconds: dict[str, float]
    peak_rss_mb: float
    background: tuple[str, ...]
    """the words that were code 0"""
    background_won: dict[str, float]
    """of the patches that the background won, the share of each of its words, where there are several"""
    dropped_background: tuple[str, ...]
    """automatic counter-words left out as too close to the classes"""
    panels: int
    parts_dir: str | None
    """where a shard's parts are"""
    classes: dict[str, dict[str, Any]]
    """code, pixels and hectares of every class by name; hectares are none where the ground is not known"""
    was_there: bool = False
    """whether an earlier run had made all of it, so that nothing was computed"""
    tiles: tuple[str, ...] = ()
    """what the scene was made of, as a mosaic"""
    per_tile: tuple[str, ...] = ()
    """labels of each of them"""
    stack: tuple[str, ...] = ()
    """the files of bands that the scene was made of"""
    features: str | None = None
    """the store that was kept on the way"""

    def to_json(self) -> str:
        """One line of JSON."""
        return json.dumps(asdict(self), ensure_ascii=False)

    def _repr_html_(self) -> str:
        """As a notebook shows it."""
        from geoovseg.run.notebook import html_of_labels

        return html_of_labels(self)


def of_run(job: Job, scene: Scene, run: Run, again: int, together: int) -> SegmentResult:
    """What there is to say before the parts are put together; a shard stops here."""
    made = of_outputs(job, scene, run.outputs, run.totals(), run.pieces())
    return replace(
        made,
        parts_dir=str(run.store.folder) if run.shared else None,
        batch_size=min(made.batch_size, together) if together < job.facts.planned else made.batch_size,
        redone_windows=again,
        background_won=_won(job.facts.vocabulary.background, run),
        parts=len(run.mine),
        parts_kept=len(run.kept),
        panels=len({part.panel for part in run.parts}),
    )


def _won(words: Sequence[str], run: Run) -> dict[str, float]:
    """Words that won something, as far as parts say, the most frequent first, with their shares."""
    said = (run.store.summary(part).get("won") for part in run.finished)
    counts = [sum(each) for each in zip(*filter(None, said), strict=False)]
    total = sum(counts)
    each = sorted(zip(words, counts, strict=False), key=lambda found: -found[1])
    return {word: round(count / total, 4) for word, count in each if count}


def of_outputs(
    job: Job, scene: Scene, outputs: Outputs, counts: Mapping[str, int], pieces: Sequence[Piece]
) -> SegmentResult:
    """What can be said of outputs, however they came to be."""
    return SegmentResult(
        scene=scene.path,
        labels=str(outputs.labels),
        vectors=None,
        confidence=str(outputs.confidence) if outputs.confidence else None,
        scores=str(outputs.scores) if outputs.scores else None,
        parts_dir=None,
        method=job.settings.method,
        model=str(job.facts.digests["model"]),
        device=job.facts.device,
        precision=job.facts.precision,
        batch_size=job.facts.batch_size,
        windows=counts["windows"],
        skipped_windows=counts["skipped"],
        failed_windows=counts["failed"],
        outside_windows=counts["outside"],
        redone_windows=0,
        parts=0,
        parts_kept=0,
        megapixels=round(scene.outputs.shape[0] * scene.outputs.shape[1] / 1e6, 3),
        bands=scene.bands,
        scale=job.intensity.ends,
        seconds={},
        peak_rss_mb=0.0,
        background=job.facts.vocabulary.background,
        background_won={},
        dropped_background=job.facts.dropped,
        panels=len(job.layout.panels),
        classes=_classes(job.profile(scene), pieces),
    )


def _classes(profile: LabelProfile, pieces: Sequence[Piece]) -> dict[str, dict[str, Any]]:
    """Code, pixels and hectares of classes by name."""
    areas = hectares(profile.grid, pieces)
    return {
        entry.name: {
            "code": entry.code,
            "pixels": entry.pixels,
            "hectares": None if areas is None else areas.get(entry.code, 0.0),
        }
        for entry in legend_with(profile, pieces)
    }


@dataclass(frozen=True, kw_only=True)
class EncodeResult:
    """What was kept and what it took; `to_json` is what `geoovseg encode --json` prints."""

    scene: str
    features: str
    """the store; when this was a shard, the name that `geoovseg merge` will give it"""
    method: str
    model: str
    device: str
    precision: str
    windows: int
    skipped_windows: int
    """windows without any valid pixel"""
    failed_windows: int
    """windows that could not be read and were skipped, with on_error `skip`"""
    rows: int
    columns: int
    depth: int
    """cells, and numbers of a vector"""
    cell: int
    """pixels on a side of a cell"""
    megabytes: float
    """that the features take"""
    megapixels: float
    seconds: dict[str, float]
    peak_rss_mb: float
    parts_dir: str | None
    """where a shard's parts are"""
    was_there: bool = False
    """whether an earlier run had made all of it"""

    def to_json(self) -> str:
        """One line of JSON."""
        return json.dumps(asdict(self), ensure_ascii=False)

    def _repr_html_(self) -> str:
        """As a notebook shows it."""
        from geoovseg.run.notebook import html_of_features

        said = {"method": self.method, "model": self.model}
        return html_of_features(self.features, (self.rows, self.columns, self.depth), said, self.megabytes)


def encoded(
    job: Job,
    scene: Scene,
    outputs: Outputs,
    about: About,
    totals: Mapping[str, int],
    usage: Usage,
    parts_dir: str | None = None,
) -> EncodeResult:
    """What there is to say of features; without totals they were there before."""
    return EncodeResult(
        scene=scene.path,
        features=str(outputs.labels),
        method=job.settings.method,
        model=str(job.facts.digests["model"]),
        device=job.facts.device,
        precision=job.facts.precision,
        windows=totals.get("windows", 0),
        skipped_windows=totals.get("skipped", 0),
        failed_windows=totals.get("failed", 0),
        rows=about.rows,
        columns=about.columns,
        depth=about.depth,
        cell=about.cell,
        megabytes=about.megabytes,
        megapixels=round(about.height * about.width / 1e6, 3),
        seconds=usage.seconds(),
        peak_rss_mb=peak_rss_mb(),
        parts_dir=parts_dir,
        was_there=not totals,
    )
