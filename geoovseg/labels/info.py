"""What a raster of labels or of confidence holds: its run, its grid, and its classes, counted from the pixels."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, field
from functools import partial
from typing import Any

import numpy as np

from geoovseg.errors import SceneError
from geoovseg.labels.areas import HECTARE
from geoovseg.labels.contents import Counts, chunks, count, legend_of, named, read_stored, stored_counts
from geoovseg.labels.read import check_codes, names_in
from geoovseg.labels.record import RUN_TAG, RunRecord
from geoovseg.labels.styles import LegendEntry
from geoovseg.network import public
from geoovseg.rasters.ground import Ellipsoid, areas_of, ellipsoid_of, pixel_size, wkt_of

TENTHS = 10


@dataclass(frozen=True, kw_only=True)
class Info:
    """What a file holds; `to_json` is what `geoovseg info --json` prints."""

    file: str
    kind: str
    """labels, confidence, scores or polygons"""
    crs: str | None
    """the coordinate system as WKT 2"""
    crs_name: str | None
    """the same as people know it, such as EPSG:32632"""
    run: dict[str, Any] | None
    """the run record, if geoovseg wrote it"""
    grid: dict[str, Any] | None = None
    """of a raster: height, width, transform, pixel_m (width and height in metres), dtype, nodata"""
    layer: str | None = None
    """of polygons"""
    columns: tuple[str, ...] = ()
    """of polygons, besides their shapes"""
    classes: dict[str, dict[str, Any]] = field(default_factory=dict)
    """by name: code, pixels (or polygons), share and hectares; of rasters also colour, and of our own the words"""
    nodata: int | None = None
    """pixels without data"""
    hectares: float | None = None
    """of all classes together, where there is an ellipsoid"""
    confidence: dict[str, Any] | None = None
    """mean, least and most, and the shares of pixels in ten equal steps from 0 to 1"""
    scores: dict[str, dict[str, float]] = field(default_factory=dict)
    """mean, least and most by class, of scores"""
    differs: dict[str, dict[str, float]] = field(default_factory=dict)
    """by class, where a table in the file says `stored` and there are `counted` pixels, or square metres of polygons"""

    def to_json(self) -> str:
        """One line of JSON."""
        return json.dumps(asdict(self), ensure_ascii=False)


def raster_info(src: Any, name: str) -> Info:
    """What an open raster of labels, confidence or scores holds. Raises SceneError for one of anything else."""
    check_kind(src)
    ellipsoid, record = ellipsoid_of(src.crs), RunRecord.of(src)
    common: dict[str, Any] = {
        "file": public(name),
        "crs": wkt_of(src.crs),
        "crs_name": crs_name(src.crs),
        "run": None if record is None else json.loads(record.to_json()),
        "grid": _grid(src, ellipsoid),
    }
    if are_scores(src):
        return Info(kind="scores", **common, scores=_scores(src))
    if is_measure(src):
        return Info(kind="confidence", **common, **_confidence(src))
    return Info(kind="labels", **common, **_labels(src, record, ellipsoid))


def _labels(src: Any, record: RunRecord | None, ellipsoid: Ellipsoid | None) -> dict[str, Any]:
    """Figures of classes, from all pixels."""
    counts = count(src, None if ellipsoid is None else partial(areas_of, ellipsoid, src.transform))
    legend = named(legend_of(src, counts, names_in(src, counts.pixels)))
    words = {} if record is None else record.words
    return {
        "classes": {key: _of_class(entry, counts, words) for key, entry in legend.items()},
        "nodata": counts.nodata,
        "hectares": None if ellipsoid is None else sum(counts.area_m2.values()) / HECTARE,
        "differs": _differing(legend, stored_counts(src)),
    }


def check_kind(src: Any) -> None:
    """Refuse what is neither of labels nor of confidence or scores. Raises SceneError."""
    if not src.count:
        raise SceneError(f"{src.name} has no bands")
    if not (is_measure(src) or are_scores(src)):
        check_codes(src)


def is_measure(src: Any) -> bool:
    """Whether the one band of an open raster holds measures, not codes."""
    plain = (src.scales[0], src.offsets[0]) == (1, 0)
    return src.count == 1 and (not plain or np.dtype(src.dtypes[0]).kind == "f")


def are_scores(src: Any) -> bool:
    """Whether an open raster has a score of every class, as `segment --scores` writes them."""
    ours = RUN_TAG in src.tags() and 1 not in src.scales and all(src.descriptions)
    return ours and src.descriptions != ("confidence",)


def crs_name(crs: Any) -> str | None:
    """What a coordinate system (rasterio CRS) is called: EPSG:32632, or the name in it. None for none."""
    if crs is None:
        return None
    return ":".join(code) if (code := crs.to_authority()) else str(crs.to_wkt()).partition('"')[2].partition('"')[0]


def _grid(src: Any, ellipsoid: Ellipsoid | None) -> dict[str, Any]:
    metres = None if ellipsoid is None else pixel_size(src.transform, src.shape, ellipsoid)
    return {
        "height": src.height,
        "width": src.width,
        "transform": list(src.transform)[:6],
        "pixel_m": None if metres is None or not np.isfinite(metres).all() else [round(side, 6) for side in metres],
        "dtype": src.dtypes[0],
        "nodata": None if src.nodata is None or not np.isfinite(src.nodata) else src.nodata,
    }


def _of_class(entry: LegendEntry, counts: Counts, words: Mapping[int, Iterable[str]]) -> dict[str, Any]:
    area = counts.area_m2.get(entry.code, 0.0) / HECTARE if counts.area_m2 else None
    said = {"code": entry.code, "pixels": entry.pixels, "share": counts.share(entry.code), "hectares": area}
    return said | {"colour": entry.colour} | ({"words": list(words[entry.code])} if entry.code in words else {})


def _differing(legend: Mapping[str, LegendEntry], stored: Mapping[int, int]) -> dict[str, dict[str, float]]:
    """Where a table counts other pixels than there are."""
    if not any(stored.values()):  # one without counts
        return {}
    return {
        key: {"stored": stored.get(entry.code, 0), "counted": entry.pixels}
        for key, entry in legend.items()
        if stored.get(entry.code, 0) != entry.pixels
    }


def _scores(src: Any) -> dict[str, dict[str, float]]:
    """Figures of the bands of scores by their names, a few blocks at a time."""
    seen, total = 0, np.zeros(src.count)
    least, most = np.full(src.count, np.inf), np.full(src.count, -np.inf)
    for window in chunks(src):
        values = src.read(window=window, masked=True)[:, src.dataset_mask(window=window) > 0].data * src.scales[0]
        if values.size:
            seen, total = seen + values.shape[1], total + values.sum(1)
            least, most = np.minimum(least, values.min(1)), np.maximum(most, values.max(1))
    if not seen:
        return {name: {} for name in src.descriptions}
    figures = zip(src.descriptions, total / seen, least, most, strict=True)
    return {name: {"mean": mean, "least": low, "most": high} for name, mean, low, high in figures}


def _confidence(src: Any) -> dict[str, Any]:
    """Figures of confidence, a few blocks at a time. Raises SceneError where it is none."""
    nodata, total, least, most = 0, 0.0, np.inf, -np.inf
    tenths = np.zeros(TENTHS, np.int64)
    for window in chunks(src):
        found = np.ma.masked_invalid(read_stored(src, window).astype(np.float64) * src.scales[0] + src.offsets[0])
        values = found.compressed()
        nodata += found.size - len(values)
        if len(values):
            total, least, most = total + values.sum(), min(least, values.min()), max(most, values.max())
            tenths += np.bincount((values * TENTHS).clip(0, TENTHS - 1).astype(int), minlength=TENTHS)
    if least < -1e-5 or most > 1 + 1e-5:
        raise SceneError(
            f"{src.name} has values from {least:g} to {most:g}, neither class codes nor confidence in 0..1"
        )
    seen = int(tenths.sum())
    figures = {"mean": total / seen, "least": float(least), "most": float(most)} if seen else {}
    return {"nodata": nodata, "confidence": {**figures, "tenths": [n / max(1, seen) for n in tenths.tolist()]}}
