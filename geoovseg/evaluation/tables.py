"""Tables of what methods found on a data set: for reading, for spreadsheets, for papers; with intervals."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from geoovseg.evaluation.datasets import DataSet
from geoovseg.evaluation.results import Counts, Found, fingerprint
from geoovseg.files import write_whole
from geoovseg.methods import read_settings
from geoovseg.models.cards import DEFAULT_MODEL
from geoovseg.settings import Settings

DRAWS = 1000
"""Samples of images, with repetition, that an interval is made of."""
TEX = str.maketrans({**{c: f"\\{c}" for c in "%_&#{}$"}, "\\": r"\textbackslash{}", "^": r"\^{}", "~": r"\~{}"})
"""What LaTeX reads as something else."""
Floats = NDArray[np.float64]


class Figure(NamedTuple):
    """Percent, and its 95 % interval over images."""

    value: float
    low: float
    high: float


class Row(NamedTuple):
    """A method's line of the table."""

    found: Found
    miou: Figure
    foreground: float | None
    """mean IoU of the classes that are extracted"""
    ious: Floats
    """percent by class; nan where a class is neither there nor found"""
    accuracy: float
    published: float | None

    def to_json(self, data: DataSet) -> str:
        """One line of JSON; percent, none where a class is neither there nor found."""
        said = {
            "data_set": data.name,
            "method": self.found.method,
            "protocol": self.found.protocol,
            "miou": self.miou.value,
            "interval": [self.miou.low, self.miou.high],
            "foreground_iou": self.foreground,
            "published": self.published,
            "accuracy": self.accuracy,
            "classes": {name: _or_none(iou) for name, iou in zip(data.labels, self.ious.tolist(), strict=True)},
            "confusion": self.found.confusions.sum(0).tolist(),
            "sweep": {f"{t:g}": float(np.nanmean(ious(c))) for t, c in self.found.sweep.items()},
            "images": len(self.found.confusions),
            "seconds": round(self.found.seconds, 3),
            "made_of": self.found.header,
        }
        return json.dumps(said, ensure_ascii=False)

    @property
    def headline(self) -> float:
        """What papers print of such a data set."""
        return self.miou.value if self.foreground is None else self.foreground


def _or_none(number: float) -> float | None:
    return None if np.isnan(number) else number


def ious(counts: Counts) -> Floats:
    """Percent (..., C) of confusions (..., C, C + 1): hit / (truth + labels - hit), nan for 0 / 0 (mmsegmentation)."""
    hit = np.diagonal(counts, axis1=-2, axis2=-1)
    union = counts.sum(-1) + counts[..., :-1].sum(-2) - hit
    return 100 * np.divide(hit, union, out=np.full(hit.shape, np.nan), where=union > 0)


def interval(confusions: Counts, seed: int = 0) -> tuple[float, float]:
    """The 95 % interval of the pooled mIoU, by drawing the images again with repetition (bootstrap, percentiles)."""
    confusions = confusions[confusions.sum((1, 2)) > 0]  # images of which nothing is known say nothing
    images, classes = confusions.shape[:2]
    hit = np.diagonal(confusions, axis1=1, axis2=2)
    union = confusions.sum(2) + confusions[:, :, :-1].sum(1) - hit
    drawn = np.random.default_rng(seed).multinomial(images, np.full(images, 1 / images), DRAWS)
    hits, unions = drawn @ hit, drawn @ union
    shares = np.divide(hits, unions, out=np.full((DRAWS, classes), np.nan), where=unions > 0)
    low, high = np.nanpercentile(100 * np.nanmean(shares, axis=1), [2.5, 97.5])
    return float(low), float(high)


def row(data: DataSet, found: Found) -> Row:
    """A method's figures."""
    pooled = found.confusions.sum(0)
    each = ious(pooled)
    front = [each[data.labels.index(name)] for name in data.foreground]
    return Row(
        found=found,
        miou=Figure(float(np.nanmean(each)), *interval(found.confusions)),
        foreground=float(np.nanmean(front)) if front else None,
        ious=each,
        accuracy=float(100 * np.trace(pooled[:, :-1]) / pooled.sum()),
        published=data.published.get(found.method) if found.protocol == "paper" else None,
    )


def write_tables(folder: str, data: DataSet, several: Sequence[Found]) -> str:
    """Write `<data set>.md`, `.csv` and `.tex` into a folder; the first is returned as text."""
    rows = sorted((row(data, found) for found in several), key=lambda r: r.headline)
    text = markdown(data, rows)
    for suffix, content in ((".md", text), (".csv", _csv(data, rows)), (".tex", latex(data, rows))):
        write_whole(Path(folder, f"{data.name}{suffix}"), content)
    return text


def _number(value: float | None) -> str:
    return "" if value is None or np.isnan(value) else f"{value:.2f}"


def _cells(data: DataSet, r: Row) -> list[str]:
    """The cells that all tables have."""
    difference = r.headline - r.published if r.published is not None and _comparable(data, r.found) else None
    return [
        f"{r.found.method}{'' if r.found.protocol == 'paper' else ' (tool)'}",
        _number(r.miou.value),
        f"{r.miou.low:.2f} to {r.miou.high:.2f}",
        *([_number(r.foreground)] if data.foreground else []),
        _number(r.published),
        "" if difference is None else f"{difference:+.2f}",
        _number(r.accuracy),
        f"{r.found.seconds / (r.found.pixels / 1e6):.2f}",
        *map(_number, r.ious),
    ]


def _comparable(data: DataSet, found: Found) -> bool:
    """Whether a published figure is of the same model, images, words and settings, as far as that is known."""
    said, usual = found.header, Settings(method=found.method)
    release = json.loads(json.dumps(asdict(data.release(found.method))))
    own = read_settings(found.method, release["settings"])
    same = said["release"] == release and said["settings"] == own and said["upsample"] == release["upsample"]
    whole = said["limit"] is None and data.expect.get("images") in (None, len(found.confusions))
    models = {"model": usual.model, "vfm": release["vfm"], "sam": release["sam"] or usual.sam_name}
    choices = {**models, "templates": release["templates"], "regions": usual.regions_from}
    part = said["split"] and data.expect.get("images") is None
    return same and whole and not part and all(said.get(name) == value for name, value in choices.items())


def _titles(data: DataSet) -> list[str]:
    front = [f"IoU of {', '.join(data.foreground)}"] if data.foreground else []
    fixed = ["method", "mIoU", "95 % interval", *front, "published", "difference", "accuracy", "s / megapixel"]
    return [*fixed, *data.labels]


def markdown(data: DataSet, rows: Sequence[Row]) -> str:
    """For reading: the table, thresholds if they were tried, and what the numbers are of."""
    titles = [title.replace("|", r"\|") for title in _titles(data)]
    lines = [f"# {data.title}", "", f"| {' | '.join(titles)} |", "|" + "---|" * len(titles)]
    lines += [f"| {' | '.join(_cells(data, r))} |" for r in rows]
    lines += [
        "",
        "Percent, of the pixels of all images together; intervals by drawing images again. Published figures are of",
        f"{DEFAULT_MODEL}; without a difference where images, model, words or settings are others.",
        "",
    ]
    for r in rows:
        if r.found.sweep:
            best = {t: float(np.nanmean(ious(counts))) for t, counts in r.found.sweep.items()}
            lines += [f"{r.found.method}, mIoU by threshold: " + ", ".join(f"{t:g} {m:.2f}" for t, m in best.items())]
    lines += ["", *(_made_of(r.found) for r in rows)]
    return "\n".join(lines) + "\n"


def _made_of(found: Found) -> str:
    """One line with what could change a number."""
    said: dict[str, Any] = found.header
    words = sum(map(len, said["words"]))
    versions = ", ".join(f"{name} {version}" for name, version in said["versions"].items())
    return (
        f"- {found.method} ({found.protocol}) {fingerprint(found)}: {len(found.confusions)} images, files "
        f"{found.files[:12]}; {said['model']}{' with ' + said['vfm'] if said['vfm'] else ''}, "
        f"{said['upsample']}, {words} words, {said['templates']} {said['templates_sha256'][:8]}, weights "
        f"{_weights(said)}; {versions}"
    )


def _weights(said: dict[str, Any]) -> str:
    """Digests of all weights, short."""
    return ", ".join(str(d)[:12] for name, d in (said["weights"] or {}).items() if name.endswith("sha256") and d)


def _csv(data: DataSet, rows: Sequence[Row]) -> str:
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(_titles(data))
    writer.writerows(_cells(data, r) for r in rows)
    return text.getvalue()


def latex(data: DataSet, rows: Sequence[Row]) -> str:
    """For papers (booktabs)."""

    def line(cells: Sequence[str]) -> str:
        return " & ".join(cell.translate(TEX) for cell in cells) + r" \\"

    body = [line(_cells(data, r)) for r in rows]
    columns = "l" + "r" * (len(_titles(data)) - 1)
    head = [rf"\begin{{tabular}}{{{columns}}}", r"\toprule", line(_titles(data)), r"\midrule"]
    return "\n".join([*head, *body, r"\bottomrule", r"\end{tabular}"]) + "\n"
