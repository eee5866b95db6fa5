"""The demo model on drawn scenes it has not seen, under every method; prints a table and writes docs/demo_scenes.json.

python benchmarks/demo_scenes.py [--seeds 1000-1015] [--size 1024]
"""

from __future__ import annotations

import argparse
import json
import platform
import tempfile
from pathlib import Path

import numpy as np

from geoovseg import METHODS
from geoovseg.demo.files import write_scene
from geoovseg.demo.scenes import CLASSES
from geoovseg.evaluation import evaluate
from geoovseg.pipeline import segment

RESULT = Path(__file__).parents[1] / "docs" / "demo_scenes.json"


def measure(method: str, upsample: str, scenes: list[tuple[str, str]], folder: Path) -> dict[str, float | str]:
    confusion = np.zeros((len(CLASSES), len(CLASSES)), np.int64)
    seconds = megapixels = 0.0
    for scene, truth in scenes:
        run = segment(
            scene, vocabulary="demo", model="demo", background="none", method=method, upsample=upsample,
            output=folder / "labels.tif", overwrite=True,
        )  # fmt: skip
        found = evaluate(run.labels, truth)
        at = [CLASSES.index(name) for name in found.order]
        confusion[np.ix_(at, at)] += np.array(found.confusion)[:, :-1]
        seconds += run.seconds["segment"]
        megapixels += run.megapixels
    union = confusion.sum(0) + confusion.sum(1) - np.diag(confusion)
    ious = dict(zip(CLASSES, np.diag(confusion) / union, strict=True))
    mean = {"miou": float(np.mean(list(ious.values()))), "seconds_per_megapixel": seconds / megapixels}
    return {"method": method, "upsample": upsample, **mean, **{k: float(v) for k, v in ious.items()}}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seeds", default="1000-1015")
    parser.add_argument("--size", type=int, default=1024)
    args = parser.parse_args()
    first, last = map(int, args.seeds.split("-"))
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        scenes = [write_scene(folder / str(s), s, args.size, args.size) for s in range(first, last + 1)]
        rows = [measure(m, u, scenes, folder) for u in ("bilinear", "guided") for m in METHODS]
    for row in rows:
        print(row, flush=True)
    RESULT.write_text(
        json.dumps({"seeds": args.seeds, "size": args.size, "machine": platform.machine(), "rows": rows}, indent=1)
        + "\n"
    )


if __name__ == "__main__":
    main()
