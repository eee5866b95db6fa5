"""What a run would do and take, without reading a pixel: `geoovseg segment --dry-run`."""

from __future__ import annotations

import json
import os
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

from geoovseg.layout import area_of, caution, lay_out, lay_windows
from geoovseg.outputs import output_names
from geoovseg.pace import Pace, Taken, keep_pace, known_pace
from geoovseg.scene import Scene, open_scene
from geoovseg.settings import Settings, check_settings, check_shares
from geoovseg.vocabulary import Vocabulary, parse_background, read_classes


@dataclass(frozen=True, kw_only=True)
class Estimate:
    """A run in figures, before it starts."""

    windows: int
    batches: int
    parts: int
    """bands of rows of the output"""
    panels: int
    memory_mb: float
    """expected peak: what the process holds with the model loaded, and the blend"""
    working_grid: dict[str, Any]
    estimated_seconds: float
    """as fast as windows went in the last run of these models and sizes here; the first time, a batch is timed"""
    background: tuple[str, ...]
    """counter-words, from which a run leaves out those too close to the classes"""

    def to_json(self) -> str:
        """One line of JSON."""
        return json.dumps(asdict(self), ensure_ascii=False)

    def to_text(self) -> str:
        """For a person."""
        grid = self.working_grid
        return (
            f"{grid['width']} x {grid['height']} pixels, {self.windows} windows in {self.batches} batches, "
            f"{self.panels} panel(s), about {self.memory_mb:.0f} MB and {self.estimated_seconds:.0f} s"
        )


def dry_run(
    scene: str | os.PathLike[str],
    classes: str | Sequence[str] | Vocabulary | None = None,
    *,
    vocabulary: str | None = None,
    output: str | os.PathLike[str] | None = None,
    confidence: str | None = None,
    overwrite: bool = False,
    resume: bool = False,
    shard: tuple[int, int] | None = None,
    workers: int = 1,
    work_dir: str | None = None,
    **settings: Any,
) -> Estimate:
    """Estimate a run, with all its shards, by the arguments of `segment`.

    Raises what `segment` would raise before it reads pixels.
    """
    check_shares(shard, workers)
    outputs = output_names(os.fspath(scene), output, confidence, work_dir)
    words, asked = read_classes(classes, vocabulary), Settings(**settings)
    check_settings(asked)
    with open_scene(scene, **asked.view) as src:
        outputs.check(src.files, overwrite=overwrite, resume=resume or shard is not None)
        words, _ = parse_background(asked.background, words)
        pace, taken = _pace(src, words, asked)
        caution(src, asked, words, pace.needs)
        layout = lay_out(src, asked, words, pace.needs, taken.beside, area_of(src, asked))
        height, width = src.shape
        windows = [layout.count(panel) for panel in layout.panels]
        return Estimate(
            windows=layout.windows,
            batches=sum(-(-count // layout.micro_batch) for count in windows),
            parts=len(layout.plan.parts(layout.panels)),
            panels=len(layout.panels),
            memory_mb=round(pace.process_mb + layout.memory_mb, 1),
            working_grid={
                "height": height,
                "width": width,
                "crs": src.crs.to_wkt() if src.crs else None,
                "transform": list(src.transform)[:6],
            },
            estimated_seconds=round(taken.seconds * sum(windows), 1),
            background=words.background,
        )


def _pace(scene: Scene, words: Vocabulary, settings: Settings) -> tuple[Pace, Taken]:
    """What a run would take for a tile as large as this scene's: as known on this machine, or tried now."""
    pace = known_pace(settings)
    if pace is not None:
        _, seen = lay_windows(scene, settings, pace.needs)
        if seen in pace.tiles:
            return pace, pace.tiles[seen]
    from geoovseg.rehearsal import rehearse  # loads torch and the models, which takes many times as long as the rest

    new = rehearse(scene, words, settings)
    (taken,) = new.tiles.values()
    return keep_pace(settings, new), taken
