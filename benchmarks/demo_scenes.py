"""The demo model on drawn scenes it has not seen, under every method; writes docs/demo_scenes.json for `make docs`.

    python benchmarks/demo_scenes.py [--seeds 1000-1015] [--size 1024] [--only accuracy|speed] [--methods clip,gem]
        [--upsample guided]

Accuracy is over all scenes together; speed is the best of three runs on the first, of the way from pixels to rows of
labels, without loading the model.
"""

from __future__ import annotations

import argparse
import json
import platform
import tempfile
from collections.abc import Iterable
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from geoovseg import METHODS
from geoovseg.demo.files import write_scene
from geoovseg.demo.scenes import CLASSES
from geoovseg.evaluation import evaluate
from geoovseg.ops.upsample import UPSAMPLERS
from geoovseg.pipeline import SegmentResult
from geoovseg.segmenter import segment

RESULT = Path(__file__).parents[1] / "docs" / "demo_scenes.json"
RUNNABLE = [name for name, card in METHODS.items() if "clip" in card.needs and "sam" not in card.needs]
"""There is no demo Segment Anything."""
Row = dict[str, float | str]


def run(scene: str, method: str, upsample: str, folder: Path) -> SegmentResult:
    return segment(
        scene, vocabulary="demo", model="demo", background="none", method=method, upsample=upsample,
        vfm="demo" if METHODS[method].vfm else None,
        regions="felzenszwalb" if "regions" in METHODS[method].needs else None,
        output=folder / "labels.tif",
        overwrite=True,
    )  # fmt: skip


def ious_of(pairs: Iterable[tuple[str, str]]) -> NDArray[np.float64]:
    """IoU of each class over all labels and their truth together."""
    confusion = np.zeros((len(CLASSES), len(CLASSES)), np.int64)
    for labels, truth in pairs:
        found = evaluate(labels, truth)
        at = [CLASSES.index(name) for name in found.order]
        confusion[np.ix_(at, at)] += np.array(found.confusion)[:, :-1]
    return np.diag(confusion) / (confusion.sum(0) + confusion.sum(1) - np.diag(confusion))


def accuracy(method: str, upsample: str, scenes: list[tuple[str, str]], folder: Path) -> Row:
    ious = ious_of((run(scene, method, upsample, folder).labels, truth) for scene, truth in scenes)
    return {"miou": round(float(ious.mean()), 4), **{c: round(float(v), 4) for c, v in zip(CLASSES, ious, strict=True)}}


def speed(method: str, upsample: str, scenes: list[tuple[str, str]], folder: Path) -> Row:
    runs = [run(scenes[0][0], method, upsample, folder) for _ in range(3)]
    return {"seconds_per_megapixel": round(min(r.seconds["segment"] / r.megapixels for r in runs), 2)}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seeds", default="1000-1015")
    parser.add_argument("--size", type=int, default=1024)
    parser.add_argument("--only", choices=("accuracy", "speed"))
    parser.add_argument("--methods", default=",".join(RUNNABLE), help="the others' rows stay")
    parser.add_argument("--upsample", default=",".join(UPSAMPLERS), help="likewise")
    args = parser.parse_args()
    first, last = map(int, args.seeds.split("-"))
    if args.only == "speed":
        last = first
    old = json.loads(RESULT.read_text())["rows"] if RESULT.exists() else []
    rows: dict[tuple[str, str], Row] = {(r["method"], r["upsample"]): r for r in old}
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        scenes = [write_scene(folder / str(s), s, args.size, args.size) for s in range(first, last + 1)]
        for upsample in args.upsample.split(","):
            for method in args.methods.split(","):
                entry = METHODS[method]
                if (entry.jbu or entry.at_pixels) and upsample != "bilinear":
                    continue
                row = rows.setdefault((method, upsample), {"method": method, "upsample": upsample})
                for measure in (accuracy, speed):
                    if args.only in (None, measure.__name__):
                        row.update(measure(method, upsample, scenes, folder))
                print(row, flush=True)
    machine = f"{platform.machine()}, {torch.get_num_threads()} threads"
    ordered = [rows[m, u] for u in UPSAMPLERS for m in METHODS if (m, u) in rows]
    RESULT.write_text(json.dumps({"machine": machine, "rows": ordered}, indent=1) + "\n")


if __name__ == "__main__":
    main()
