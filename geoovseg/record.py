"""What a run says of itself: the settings that decide its labels, how long its stages took, what it used."""

from __future__ import annotations

import json
import resource
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from importlib.metadata import PackageNotFoundError, version

RUN_TAG = "GEOOVSEG_RUN"
"""Tag of label and confidence rasters that holds the run record as JSON."""


def package_version(name: str) -> str:
    """The installed version of a package, or `not installed`."""
    try:
        return version(name)
    except PackageNotFoundError:
        return "not installed"


@dataclass(frozen=True, kw_only=True)
class RunRecord:
    """What decides the labels of a run, and how many windows that took; no times, no paths but the scene's name."""

    scene: str
    method: str
    settings: Mapping[str, bool | int | float | str]
    model: str
    weights_sha256: str
    vfm: str | None = None
    """the vision model besides, and its weights"""
    vfm_sha256: str | None = None
    sam: str | None = None
    """Segment Anything, and its weights"""
    sam_sha256: str | None = None
    regions: str | None = None
    """where region maps come from: `sam`, `felzenszwalb`, or a file"""
    classes: tuple[tuple[str, tuple[str, ...], str], ...]
    """name, words, colour of codes 1..N"""
    templates: str
    background: tuple[str, ...]
    threshold: float | None
    upsample: str
    upsample_sha256: str | None = None
    """of the weights of a learned upsampler"""
    bands: tuple[int, int, int]
    scale: tuple[float, float] | None = None
    """values that were seen as black and white"""
    nodata: float | None = None
    """value that was taken for no data instead of what the file says"""
    gsd: float | None = None
    """metres a pixel at which the scene was seen, where that is not its own"""
    grid: str = "working"
    tile: tuple[int, int]
    stride: int
    windows_of_blocks: tuple[int, int] | None = None
    """(side, step) of the windows in a tile, for methods that see blocks"""
    device: str
    precision: str
    windows: int
    skipped_windows: int
    notes: tuple[str, ...] = ()
    """what the method changed to fit the model"""
    versions: Mapping[str, str] = field(
        default_factory=lambda: {n: package_version(n) for n in ("geoovseg", "torch", "open_clip_torch", "rasterio")}
    )

    def to_json(self) -> str:
        """One line of JSON, as the tag holds it."""
        return json.dumps(asdict(self), ensure_ascii=False)


class Stopwatch:
    """Seconds by stage, with `total` since it was made."""

    def __init__(self) -> None:
        self._start = time.perf_counter()
        self._stages: dict[str, float] = {}

    @contextmanager
    def stage(self, name: str) -> Iterator[None]:
        """Add the time of a block to a stage."""
        start = time.perf_counter()
        try:
            yield
        finally:
            self._stages[name] = self._stages.get(name, 0.0) + time.perf_counter() - start

    def seconds(self) -> dict[str, float]:
        """All stages and `total`, rounded to milliseconds."""
        return {k: round(v, 3) for k, v in {**self._stages, "total": time.perf_counter() - self._start}.items()}


def duration(seconds: float) -> str:
    """A time for a person, rounded: `45 s`, `12 min`, `3.5 h`, `2 days`."""
    if seconds < 90:
        return f"{max(1, round(seconds))} s"
    if seconds < 90 * 60:
        return f"{seconds / 60:.0f} min"
    hours = seconds / 3600
    return f"{_rounded(hours)} h" if hours < 36 else f"{_rounded(hours / 24)} days"


def _rounded(number: float) -> str:
    return f"{number:.2g}" if number < 9.95 else f"{number:.0f}"


def peak_rss_mb() -> float:
    """The most memory this process has held so far, in MB."""
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return round(peak / (1e6 if sys.platform == "darwin" else 1024), 1)
