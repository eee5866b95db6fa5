"""What a run says of itself: the settings that decide its labels, how long its stages took, what it used."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field

from geoovseg.usage import package_version

RUN_TAG = "GEOOVSEG_RUN"
"""Tag of label and confidence rasters that holds the run record as JSON."""


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
