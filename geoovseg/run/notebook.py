"""Results as a notebook shows them: a picture, classes, and a line on the run. Whatever fails leaves only that out."""

from __future__ import annotations

import os
from collections.abc import Mapping
from contextlib import suppress
from html import escape
from typing import Any

from geoovseg.errors import GeoOVSegError
from geoovseg.features.store import about_of
from geoovseg.files import is_store
from geoovseg.labels.panes import percent
from geoovseg.labels.preview import embedded

SIDE = 360
"""Pixels of a pane of a picture."""
LARGEST = 100_000_000
"""Pixels of a scene of which a picture is made without being asked: it may have to be read as a whole."""


def html_of_labels(result: Any) -> str:
    """Labels of `segment`: scene and labels side by side, classes with pixels and hectares, what ran."""
    took = result.seconds.get("total")
    line = f"{result.method} with {result.model} on {result.device}, {result.windows:,} windows"
    line += "" if took is None else f", {took:.1f} s"
    small = result.megapixels * 1e6 <= LARGEST
    return "".join(
        (
            _title(result.labels),
            _picture(result.scene, result.labels) if small else "",
            _classes(result.classes),
            _said(line),
        )
    )


def html_of_features(name: str, shape: tuple[int, int, int], record: Mapping[str, Any], megabytes: float) -> str:
    """Kept features: how many cells, what saw them, what to type next."""
    rows, columns, depth = shape
    line = f"{rows:,} x {columns:,} cells of {depth} numbers, {megabytes:,.0f} MB"
    seen = f"{record['method']} with {record['model']}"
    return _title(name) + _said(f"{line}; {seen}") + _said(f'segment("{name}", "building,road,water")')


def html_of_classes(names: Mapping[str, tuple[str, ...]], line: str) -> str:
    """A loaded segmenter: its classes with their words, and its model."""
    rows = "".join(
        f"<tr><td>{escape(name)}</td><td>{escape(', '.join(words))}</td></tr>" for name, words in names.items()
    )
    return f"<table><tr><th>class</th><th>words</th></tr>{rows}</table>{_said(line)}"


def _title(path: str) -> str:
    return f"<p><strong>{escape(os.path.basename(path.rstrip('/')))}</strong></p>"


def _said(line: str) -> str:
    return f"<p><code>{escape(line)}</code></p>"


def _picture(scene: str, labels: str) -> str:
    with suppress(GeoOVSegError, OSError):
        seen = about_of(scene).scene_of(scene) if is_store(scene) else scene
        return "" if seen is None else embedded(seen, labels, "png", "the scene, and its labels over it", size=SIDE)
    return ""


def _classes(classes: Mapping[str, Mapping[str, Any]]) -> str:
    whole = max(1, sum(entry["pixels"] for entry in classes.values()))
    rows = []
    for name, entry in classes.items():
        area = "" if entry.get("hectares") is None else f"{entry['hectares']:,.4g}"
        rows.append(
            f"<tr><td>{escape(name)}</td><td>{percent(entry['pixels'] / whole)}</td><td>{entry['pixels']:,}</td>"
            f"<td>{area}</td></tr>"
        )
    head = "<tr><th>class</th><th>share</th><th>pixels</th><th>hectares</th></tr>"
    return f"<table>{head}{''.join(rows)}</table>"
