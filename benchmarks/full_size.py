"""Published sizes with random weights: what methods with Segment Anything and SAM 3 take; prints Markdown.

    python benchmarks/full_size.py [--only trident,corrclip-sam]

ViT-B/16 as CLIP, DINO ViT-B/16, SAM ViT-B, SAM 3 (3.4 GB on the disk), all random: labels mean nothing, seconds and
memory do. Every row is one `geoovseg segment`, loading included, in a process of its own.
"""

from __future__ import annotations

import argparse
import json
import platform
import subprocess
import sys
import tempfile
from pathlib import Path

import open_clip
import timm
import torch
import transformers
from safetensors.torch import save_file

from geoovseg.demo.files import write_scene
from geoovseg.models.sam import build_sam

LARGE, SMALL, WINDOW = (1536, 2048), (448, 448), (1008, 1008)
VFM = ["--vfm", "dino_vitb16@{folder}/dino.safetensors"]
SAM = ["--sam", "sam_vit_b@{folder}/sam.pth"]
ALL = ["--set", "iou=0", "--set", "stability=0"]
"""Random masks are no good; these thresholds keep them."""
SAM3 = ["--model", "sam3@{folder}/sam3", "--precision"]
REFINED = ["--set", "sam_iou_thresh=-10", "--set", "coarse_thresh=0"]
RUNS: dict[str, tuple[tuple[int, int], list[str]]] = {
    "clip": (LARGE, ["-m", "clip"]),
    "proxyclip": (LARGE, ["-m", "proxyclip", *VFM]),
    "trident": (LARGE, ["-m", "trident", *VFM, *SAM]),
    "trident-refined": (LARGE, ["-m", "trident", *VFM, *SAM, *REFINED]),
    "resegclip-sam": (SMALL, ["-m", "resegclip", *SAM, *ALL]),
    "resegclip-felzenszwalb": (LARGE, ["-m", "resegclip", "--regions", "felzenszwalb"]),
    "corrclip-sam": (SMALL, ["-m", "corrclip", *VFM, *SAM, *ALL]),
    "corrclip-felzenszwalb": (LARGE, ["-m", "corrclip", *VFM, "--regions", "felzenszwalb"]),
    "segearth-ov3": (WINDOW, ["-m", "segearth-ov3", *SAM3, "fp32"]),
    "segearth-ov3-bf16": (WINDOW, ["-m", "segearth-ov3", *SAM3, "bf16"]),
}


def write_weights(folder: Path) -> None:
    """The models as they are initialised."""
    torch.manual_seed(0)
    config = open_clip.get_model_config("ViT-B-16-quickgelu")
    _save(open_clip.CLIP(**config), folder / "clip.safetensors")
    _save(timm.create_model("vit_base_patch16_224.dino", num_classes=0), folder / "dino.safetensors")
    torch.save(build_sam("vit_b").state_dict(), folder / "sam.pth")
    transformers.Sam3Model(transformers.Sam3Config()).save_pretrained(folder / "sam3")


def _save(model: torch.nn.Module, path: Path) -> None:
    save_file({k: v.contiguous().clone() for k, v in model.state_dict().items()}, path)


def run(name: str, folder: Path) -> str:
    shape, arguments = RUNS[name]
    scene = folder / f"{shape[0]}" / "scene.tif"
    fixed = ["-c", "building=house+roof,road,water,tree", "--model", f"ViT-B-16-quickgelu@{folder}/clip.safetensors"]
    given = [argument.format(folder=folder) for argument in arguments]
    command = [sys.executable, "-m", "geoovseg", "segment", str(scene), *fixed, *given, "--overwrite", "--json"]
    done = subprocess.run([*command, "--quiet", "-o", str(folder / "labels.tif")], capture_output=True, text=True)
    if done.returncode:
        return f"| {name} | failed: {done.stderr.strip().splitlines()[-1]} |"
    said = json.loads(done.stdout)
    size = f"{shape[1]} x {shape[0]}"
    seconds, peak = said["seconds"], said["peak_rss_mb"]
    return f"| {name} | {size} | {said['windows']} | {seconds['load']:.0f} + {seconds['segment']:.0f} | {peak:.0f} |"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--only", default=",".join(RUNS))
    args = parser.parse_args()
    print(f"{platform.machine()}, {torch.get_num_threads()} threads\n")
    print(
        "| run | scene | blocks or windows | seconds, loading + segmenting | peak memory, MB |\n|---|---|---|---|---|",
        flush=True,
    )
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        write_weights(folder)
        for shape in (LARGE, SMALL, WINDOW):
            write_scene(folder / str(shape[0]), 1000, *shape)
        for run_name in args.only.split(","):
            print(run(run_name, folder), flush=True)


if __name__ == "__main__":
    main()
