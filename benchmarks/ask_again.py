"""Seconds and memory of segmenting, of keeping features, and of asking them again: `python benchmarks/ask_again.py`.

A drawn scene of 4000 x 3000 pixels and ViT-B/16 with random weights, which take as long as others. `--before FOLDER`
also segments with another checkout, in turn. Prints a table in Markdown.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

MODEL = "ViT-B-16-quickgelu"
THREE = "building,road,water"
WAYS = ("guided", "bilinear")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--before", type=Path, help="a checkout to compare with")
    parser.add_argument("--size", default="4000x3000", help="pixels of the scene")
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as place:
        _measured(Path(place), given.size, given.before)


def _measured(folder: Path, size: str, before: Path | None) -> None:
    model = ["--model", f"{MODEL}@{_weights(folder)}"]
    _run(folder, "demo", str(folder), "--size", size, "--scene-only")
    scene, store = str(folder / "scene.tif"), str(folder / "x.zarr")
    labels = ["-o", str(folder / "a.tif"), "--overwrite"]
    _run(
        folder, "segment", scene, "-c", THREE, "--aoi", "480000,5459990,480010,5460000", *model, *labels
    )  # reads words
    rows = []
    if before is not None:
        rows.append(("segment, before", _run(folder, "segment", scene, "-c", THREE, *model, *labels, package=before)))
    for way in WAYS:
        rows.append(
            (f"segment, {way}", _run(folder, "segment", scene, "-c", THREE, *model, *labels, "--upsample", way))
        )
    rows.append(("encode", _run(folder, "encode", scene, *model, "-o", store)))
    _run(folder, "segment", store, "-c", _words(300), *labels)  # reads words
    for way in WAYS:
        for count in (3, 30, 40, 300):
            words = THREE if count == 3 else _words(count)
            asked = ["segment", store, "-c", words, *labels, "--upsample", way]
            rows.append((f"ask {count} words, {way}", _run(folder, *asked)))
        rows.append(
            (f"ask 3 words with confidence, {way}", _run(folder, *asked[:3], THREE, *asked[4:], "--confidence"))
        )
    print("| command | load s | work s | all s | peak MB |\n|---|---|---|---|---|")
    for name, said in rows:
        spent = said["seconds"]
        work = sum(value for stage, value in spent.items() if stage not in ("load", "total"))
        print(f"| {name} | {spent['load']:.1f} | {work:.2f} | {spent['total']:.1f} | {said['peak_rss_mb']:.0f} |")


def _words(count: int) -> str:
    return ",".join(f"thing {n}" for n in range(count))


def _weights(folder: Path) -> Path:
    """Random weights of the model, always the same."""
    code = (
        "import torch, open_clip, sys; from safetensors.torch import save_file; torch.manual_seed(0); "
        f"model = open_clip.create_model({MODEL!r}); "
        "save_file({k: v.contiguous() for k, v in model.state_dict().items()}, sys.argv[1])"
    )
    subprocess.run([sys.executable, "-c", code, folder / "w.safetensors"], check=True, capture_output=True)
    return folder / "w.safetensors"


def _run(folder: Path, *words: str, package: Path | None = None) -> dict[str, Any]:
    """What a command says with --json."""
    own = {"GEOOVSEG_CACHE": str(folder / "cache"), **({"PYTHONPATH": str(package)} if package else {})}
    command = [sys.executable, "-m", "geoovseg", *words, *([] if words[0] == "demo" else ["--json", "--quiet"])]
    where = package or Path(__file__).parents[1]
    done = subprocess.run(command, cwd=where, env={**os.environ, **own}, capture_output=True, text=True, check=False)
    if done.returncode:
        raise SystemExit(done.stderr)
    if words[0] == "encode" and shutil.disk_usage(folder).free < 1 << 30:
        raise SystemExit("the disk is nearly full")
    return json.loads(done.stdout.splitlines()[-1]) if words[0] != "demo" else {}


if __name__ == "__main__":
    main()
