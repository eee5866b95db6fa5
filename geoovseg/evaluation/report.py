"""One page about a map: picture, areas, what decided it, how sure it is, how to cite; one file."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass
from functools import partial
from html import escape
from typing import Any

import numpy as np

from geoovseg.errors import GeoOVSegError, OutputError, SceneError, UsageError, first_line
from geoovseg.features.store import about_of
from geoovseg.files import as_path, is_store, write_whole
from geoovseg.labels.areas import HECTARE
from geoovseg.labels.contents import Counts, chunks, classes_of, read_stored
from geoovseg.labels.names import is_one_of
from geoovseg.labels.panes import percent
from geoovseg.labels.preview import embedded
from geoovseg.labels.read import check_confidence, open_labels
from geoovseg.labels.record import RunRecord
from geoovseg.labels.styles import LegendEntry
from geoovseg.methods import METHODS
from geoovseg.models.cards import MODELS
from geoovseg.rasters.ground import areas_of, ellipsoid_of
from geoovseg.rasters.open import opened
from geoovseg.usage import package_version

BINS = 20
"""Of the histogram of confidence."""
STYLE = """
body { font: 15px/1.5 system-ui, sans-serif; max-width: 60rem; margin: 2rem auto; padding: 0 1rem; color: #222; }
h1 { font-size: 1.5rem; overflow-wrap: anywhere; } h2 { font-size: 1.15rem; margin-top: 2rem; }
img { max-width: 100%; } table { border-collapse: collapse; }
td, th { padding: .15rem .8rem .15rem 0; text-align: left; vertical-align: top; overflow-wrap: anywhere; }
td.number, th.number { text-align: right; font-variant-numeric: tabular-nums; }
.swatch { display: inline-block; width: 1rem; height: 1rem; border: 1px solid #999; vertical-align: -.15rem; }
.bar { display: inline-block; height: .7rem; background: #4a7fb5; }
code { font-size: .9em; }
@media print { body { margin: 0; } h2 { break-after: avoid; } }
"""


@dataclass(frozen=True)
class ReportResult:
    """The page; a path, too."""

    report: str

    def __fspath__(self) -> str:
        return self.report


def report(
    labels: str | os.PathLike[str],
    output: str | os.PathLike[str],
    *,
    scene: str | os.PathLike[str] | None = None,
    confidence: str | os.PathLike[str] | None = None,
    title: str | None = None,
    overwrite: bool = False,
) -> ReportResult:
    """Write a page (HTML) about labels, in a single file that loads nothing from elsewhere.

    Scene and confidence are looked for beside the labels, by the name in their record and as `segment` names them,
    unless they are given. Areas are geodesic.

    Raises SceneError for what cannot be read, UsageError for a name that does not end in .html, OutputError.
    """
    target, source = as_path(output, "the report"), os.fspath(labels)
    if target.suffix.lower() not in (".html", ".htm"):
        raise UsageError(f"the report {target} must end in .html")
    if target.exists() and not overwrite:
        raise OutputError(f"{target} exists already; add --overwrite to replace it")
    with open_labels(source) as src:
        if is_one_of(target, (source,)):
            raise OutputError(f"the report {target} is the labels; choose another name")
        record = RunRecord.of(src)
        ellipsoid = ellipsoid_of(src.crs)
        entries, counts = classes_of(src, None if ellipsoid is None else partial(areas_of, ellipsoid, src.transform))
        facts = _facts(src)
    parts = [
        *_pictured(source, record, scene),
        *_areas(entries, counts),
        *_confidence(_confidence_of(source, confidence)),
        *(_record(record) if record else []),
        *_table("The raster", facts),
        *(_citing(record) if record else []),
    ]
    text = _page(title or os.path.basename(source), parts)
    try:
        write_whole(target, text)
    except OSError as error:
        raise OutputError(f"cannot write the report {target}: {first_line(error)}") from error
    return ReportResult(str(target))


def _page(title: str, parts: Sequence[str]) -> str:
    head = f'<meta charset="utf-8"><title>{escape(title)}</title><style>{STYLE}</style>'
    return f'<!doctype html>\n<html lang="en">\n<head>{head}</head>\n<body>\n<h1>{escape(title)}</h1>\n' + (
        "\n".join(parts) + "\n</body>\n</html>\n"
    )


def _beside(labels: str, record: RunRecord | None, given: str | os.PathLike[str] | None) -> str | None:
    """The scene: as given, or where the record's name is found beside the labels."""
    if given is not None:
        return os.fspath(given)
    path = os.path.join(os.path.dirname(labels), record.scene) if record and record.scene else ""
    if is_store(path):
        with suppress(GeoOVSegError):
            path = about_of(path).scene_of(path) or ""
    return path if os.path.isfile(path) else None


def _confidence_of(labels: str, given: str | os.PathLike[str] | None) -> str | None:
    if given is not None:
        return os.fspath(given)
    path = labels.removesuffix("_labels.tif") + "_confidence.tif"
    return path if labels.endswith("_labels.tif") and os.path.isfile(path) else None


def _pictured(labels: str, record: RunRecord | None, given: str | os.PathLike[str] | None) -> Iterator[str]:
    """Scene and labels side by side, or why there is no picture. Raises what `preview` raises for a scene as given."""
    scene = _beside(labels, record, given)
    if scene is None:
        yield "<p>The image is not beside the labels, so there is no picture; <code>--scene</code> names it.</p>"
        return
    try:
        yield _picture(labels, scene, record)
    except GeoOVSegError as error:
        if given is not None:
            raise
        yield f"<p>There is no picture: {escape(first_line(error))}; <code>--scene</code> names another image.</p>"


def _picture(labels: str, scene: str, record: RunRecord | None) -> str:
    """The scene as the run saw it, and its labels. Raises what `preview` raises."""
    bands = record.bands if record and record.bands else None
    scale = f"{record.scale[0]},{record.scale[1]}" if record and record.scale else "auto"
    return embedded(scene, labels, "jpeg", "The image, and its labels over it", bands=bands, scale=scale, size=900)


def _areas(entries: Sequence[LegendEntry], counts: Counts) -> Iterator[str]:
    """What classes cover, the largest first."""
    yield "<h2>Areas</h2>\n<table>"
    measured = bool(counts.area_m2)
    unit = '<th class="number">hectares</th>' if measured else ""
    yield f'<tr><th>class</th><th class="number">share</th>{unit}<th class="number">pixels</th></tr>'
    for entry in sorted(entries, key=lambda entry: -entry.pixels):
        area = f'<td class="number">{counts.area_m2[entry.code] / HECTARE:,.4g}</td>' if measured else ""
        swatch = f'<span class="swatch" style="background:{entry.colour}"></span> ' if entry.code else ""
        share = f'<td class="number">{percent(counts.share(entry.code))}</td>'
        pixels = f'<td class="number">{entry.pixels:,}</td>'
        yield f"<tr><td>{swatch}{escape(entry.name)}</td>{share}{area}{pixels}</tr>"
    yield "</table>"
    none = f"{counts.nodata:,} pixels have no data. " if counts.nodata else ""
    yield (
        f"<p>{none}Counted areas hold the map's errors; areas with intervals come from a sample of points "
        "(<code>geoovseg sample</code>, <code>geoovseg evaluate --points</code>).</p>"
    )


def _confidence(path: str | None) -> Iterator[str]:
    """How the confidence of pixels is spread. Raises SceneError."""
    if path is None:
        return
    totals = np.zeros(BINS, np.int64)
    with opened(path, path) as src:
        check_confidence(src, path)
        for window in chunks(src):
            stored = read_stored(src, window).compressed().astype(np.float64) * src.scales[0] + src.offsets[0]
            totals += np.histogram(stored, BINS, (0, 1))[0]
    yield "<h2>Confidence</h2>\n<table>"
    most, whole_count = max(1, int(totals.max())), max(1, int(totals.sum()))
    for n, pixels in enumerate(totals.tolist()):
        bar = f'<span class="bar" style="width:{20 * pixels / most:.2f}rem"></span>'
        yield f'<tr><td class="number">{n / BINS:.2f}</td><td>{bar} {percent(pixels / whole_count)}</td></tr>'
    yield "</table>\n<p>Of the best class at each pixel. It is no probability: it has not been calibrated.</p>"


def _record(record: RunRecord) -> Iterator[str]:
    said = {key: value for key, value in asdict(record).items() if value not in (None, "", (), {}, [])}
    classes = "; ".join(
        name if tuple(words) in ((name,), ()) else f"{name} ({', '.join(words)})" for name, words, _ in record.classes
    )
    yield from _table("What decided the labels", {**{k: _text(v) for k, v in said.items()}, "classes": classes})


def _text(value: Any) -> str:
    if isinstance(value, dict):
        return ", ".join(f"{key} {_text(each)}" for key, each in value.items())
    return ", ".join(map(_text, value)) if isinstance(value, list | tuple) else str(value)


def _facts(src: Any) -> dict[str, str]:
    a, b, c, d, e, f = tuple(src.transform)[:6]
    found = {"size": f"{src.width} x {src.height} pixels"}
    if src.crs is not None:
        found["coordinate system"] = src.crs.to_string()
    return {**found, "transform": f"{a:.10g}, {b:.10g}, {c:.10g}, {d:.10g}, {e:.10g}, {f:.10g}"}


def _table(title: str, rows: dict[str, str]) -> Iterator[str]:
    yield f"<h2>{escape(title)}</h2>\n<table>"
    yield from (
        f"<tr><td>{escape(key.replace('_', ' '))}</td><td>{escape(value)}</td></tr>" for key, value in rows.items()
    )
    yield "</table>"


def _citing(record: RunRecord) -> Iterator[str]:
    """The papers and licences of what was used."""
    yield "<h2>To cite</h2>\n<ul>"
    if record.method in METHODS:
        yield f"<li>{escape(METHODS[record.method].title)}: {escape(METHODS[record.method].paper)}</li>"
    for name in filter(None, (record.model, record.vfm, record.sam)):
        with suppress(GeoOVSegError, SceneError):
            if (card := MODELS.get(name)) is not None:
                yield f"<li>model {escape(name)}, {escape(card.about)}; licence: {escape(card.licence)}</li>"
    version = record.versions.get("geoovseg", package_version("geoovseg"))
    yield f"<li>geoovseg {escape(str(version))}: open-vocabulary segmentation of geospatial rasters</li>\n</ul>"
