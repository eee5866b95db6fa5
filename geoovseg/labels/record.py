"""The run record: what decides the labels of a run. It is written and read here, and described in docs/outputs.md."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields
from typing import Any

from geoovseg.errors import SceneError, first_line
from geoovseg.usage import package_version

RUN_TAG = "GEOOVSEG_RUN"
"""Tag of label and confidence rasters that holds the run record as JSON."""
VERSION = 2
"""Of the record's form: 2 says its version; 1, without it, had the same names."""


@dataclass(frozen=True, kw_only=True)
class RunRecord:
    """What decides the labels of a run, and how many windows that took; no times, no paths but the scene's name."""

    version: int = VERSION
    """of the form of this record"""
    scene: str = ""
    """file name of the image"""
    scene_checked_by: str = ""
    """what would have shown a change of it meanwhile: its `file`, its `server`, a `sample` of pixels, or `none`"""
    scene_identity: str = ""
    """digest of the sizes and times of its files, or of what else is known of it, by which finished labels are known"""
    method: str = ""
    """a name of `geoovseg methods`"""
    settings: Mapping[str, bool | int | float | str] = field(default_factory=dict)
    """every setting of the method"""
    model: str = ""
    """the CLIP model"""
    weights_sha256: str = ""
    """of its weights"""
    vfm: str | None = None
    """the vision model besides, for methods that use one"""
    vfm_sha256: str | None = None
    """of its weights"""
    sam: str | None = None
    """Segment Anything, if it was used"""
    sam_sha256: str | None = None
    """of its weights"""
    regions: str | None = None
    """where region maps come from: `sam`, `felzenszwalb`, or a file"""
    classes: tuple[tuple[str, tuple[str, ...], str], ...]
    """name, words, colour of codes 1..N"""
    offsets: tuple[float, ...] = ()
    """what was added to the scores of the background, if there is one, and of each class (`geoovseg tune`)"""
    templates: str = ""
    """the sentences around each word, by name, or the name of a file"""
    templates_sha256: str = ""
    """of these sentences, one a line"""
    background: tuple[str, ...]
    """the words of code 0"""
    threshold: float | None
    """confidence below which pixels are code 0"""
    upsample: str = ""
    """how scores came from patches to pixels"""
    upsample_sha256: str | None = None
    """of the weights of a learned upsampler"""
    bands: tuple[int, ...] = ()
    """that were seen as red, green, blue"""
    scale: tuple[float, float] | None = None
    """values that were seen as black and white"""
    nodata: float | None = None
    """value that was taken for no data instead of what the file says"""
    aoi: str | None = None
    """digest of the area outside which nothing was labelled, on the scene's grid"""
    crop: bool = False
    """whether only the box around that area was written"""
    gsd: float | None = None
    """metres a pixel at which the scene was seen, where that is not its own"""
    grid: str = "working"
    """where outputs lie, with a resolution of their own: there, or on the image's pixels (`scene`)"""
    tile: tuple[int, ...] = ()
    """height and width of a window, or of a block, in pixels of the outputs"""
    stride: int = 0
    """step between them"""
    windows_of_blocks: tuple[int, int] | None = None
    """(side, step) of the windows in a tile, for methods that see blocks"""
    device: str = ""
    """cpu or cuda"""
    precision: str = ""
    """of the image tower"""
    threads: tuple[int, ...] = ()
    """how many threads torch had; on a CPU, labels are equal bit for bit only for equal numbers"""
    windows: int = 0
    """of the whole image"""
    skipped_windows: int = 0
    """those without any data"""
    notes: tuple[str, ...] = ()
    """what the method changed to fit the model"""
    edits: tuple[Mapping[str, Any], ...] = ()
    """polygons that were put in by `geoovseg apply`: their file, its digest, how many, and what lay outside"""
    versions: Mapping[str, str] = field(
        default_factory=lambda: {n: package_version(n) for n in ("geoovseg", "torch", "open_clip_torch", "rasterio")}
    )
    """of what ran"""

    @property
    def names(self) -> dict[int, str]:
        """Class names by code; of code 0 only if something could become it."""
        first = {0: "background"} if self.background or self.threshold is not None else {}
        return first | {code: name for code, (name, _, _) in enumerate(self.classes, start=1)}

    @property
    def words(self) -> dict[int, tuple[str, ...]]:
        """Words by code; of code 0 those of the background."""
        first = {0: self.background} if self.background else {}
        return first | {code: words for code, (_, words, _) in enumerate(self.classes, start=1)}

    @property
    def colours(self) -> tuple[tuple[str, str], ...]:
        """(name, colour) of codes 1..N."""
        return tuple((name, colour) for name, _, colour in self.classes)

    def to_json(self) -> str:
        """One line of JSON, as the tag holds it."""
        return json.dumps(asdict(self), ensure_ascii=False)

    @classmethod
    def from_json(cls, text: str, source: str) -> RunRecord:
        """A record as it was written, by this version or another. Raises SceneError, which names the source."""
        try:
            said: dict[str, Any] = json.loads(text)
            known = {f.name: said[f.name] for f in fields(cls) if f.name in said}
            classes = tuple((str(name), tuple(words), str(colour)) for name, words, colour in said["classes"])
            plain = {"version": said.get("version", 1), "classes": classes, "background": tuple(said["background"])}
            return cls(**{**known, **plain})
        except (ValueError, LookupError, TypeError, AttributeError, RecursionError) as error:
            raise SceneError(f"the run record in {source} is damaged: {first_line(error)}") from error

    @classmethod
    def of(cls, src: Any) -> RunRecord | None:
        """The record in an open raster, if geoovseg segment wrote it. Raises SceneError for a damaged one."""
        text = src.tags().get(RUN_TAG)
        return None if text is None else cls.from_json(text, src.name)
