"""The numbers a model computes with: as asked for, or as this machine is fast with."""

from __future__ import annotations

import hashlib
import math
import time
from pathlib import Path

import torch
from torch import Tensor

from geoovseg.errors import UsageError
from geoovseg.models.card import ModelCard
from geoovseg.models.kept import keep, kept
from geoovseg.models.light import open_clip
from geoovseg.models.vit import ClipVit
from geoovseg.ops import eight_bits
from geoovseg.ops.linear import Model, packed

PRECISIONS = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16, "int8": torch.float32}
"""What towers compute in; with int8 the products of their linear layers are of 8-bit numbers."""
LARGE = 512
"""The narrowest tower for which bfloat16 is thought of on a CPU; small ones keep a CPU busy with other things."""
GAIN = 1.5
"""How much faster bfloat16 must be on a CPU for `auto` to choose it."""
FLAGS = ("avx512_bf16", "amx_bf16")
"""What Linux calls the instructions without which it never is."""
CPU_INFO = Path("/proc/cpuinfo")
ROUNDS = 3


def resolve_precision(name: str, device: torch.device, card: ModelCard, *, alone: bool) -> str:
    """`auto` is bf16 on CUDA devices that have it, and on CPUs that were measured to be faster with it, else fp32.

    On a CPU that is for large towers only, of which 99.5 % of the labels and more are those of fp32
    (docs/benchmarks.md), and for runs that are `alone`: processes and machines that share one could differ. Raises
    UsageError for unknown names, and for int8 where it cannot be computed.
    """
    if name != "auto":
        if name not in PRECISIONS:
            raise UsageError(f"--precision {name}: choose from auto, {', '.join(PRECISIONS)}")
        if name == "int8":
            _check_eight_bits(device, card)
        return name
    if device.type == "cuda":
        return "bf16" if torch.cuda.is_bf16_supported() else "fp32"
    pays = alone and device.type == "cpu" and _is_large(card) and _computes_bf16() and bf16_gain() >= GAIN
    return "bf16" if pays else "fp32"


def _check_eight_bits(device: torch.device, card: ModelCard) -> None:
    """Refuse 8-bit products where they are not to be had. Raises UsageError."""
    if card.tower == "sam3":
        raise UsageError(
            f"--precision int8 is not for {card.name}, which also finds boxes with its layers; choose bf16"
        )
    if device.type != "cpu":
        raise UsageError(f"--precision int8 is for CPUs, and this run is on {device}; choose bf16, or add --device cpu")
    if not eight_bits.is_exact():
        raise UsageError("--precision int8: this CPU lacks instructions for it (VNNI); choose fp32 or bf16")


def ready(model: Model, device: torch.device, precision: str) -> Model:
    """A tower on its device, in a precision, with its linear layers laid out."""
    return packed(model.to(device=device, dtype=PRECISIONS[precision]), eight=precision == "int8")


def _is_large(card: ModelCard) -> bool:
    """Whether a tower is, of those of which open_clip says it; others were not measured."""
    config = (open_clip.get_model_config(card.arch) or {}) if card.arch in open_clip.list_models() else {}
    return card.arch != "demo" and config.get("vision_cfg", {}).get("width", 0) >= LARGE


def _computes_bf16() -> bool:
    """Whether this CPU has instructions for bfloat16, as far as the system tells."""
    return CPU_INFO.is_file() and any(flag in CPU_INFO.read_text() for flag in FLAGS)


def bf16_gain() -> float:
    """How many times as fast as in fp32 a block of ViT-B/16 is in bf16 on this CPU, measured once for a machine."""
    machine = (_model(), torch.__version__, torch.get_num_threads())
    name = hashlib.sha256(repr(machine).encode()).hexdigest()[:40]
    try:
        found = float((kept("precision", name) or b"").decode())
    except ValueError:
        found = math.nan
    if not 0 < found < math.inf:
        found = _measured()
        keep("precision", name, f"{found:.3f}".encode())
    return found


def _model() -> str:
    """What the system calls this CPU."""
    lines = CPU_INFO.read_text().splitlines() if CPU_INFO.is_file() else []
    return next((line for line in lines if line.startswith("model name")), "")


@torch.inference_mode()
def _measured() -> float:
    """The quickest of a few rounds each, in turn, for eight windows of 224 pixels."""
    ways = [_block(dtype) for dtype in (torch.float32, torch.bfloat16)]
    times: list[list[float]] = [[], []]
    for _ in range(ROUNDS + 1):
        for (vit, tokens), found in zip(ways, times, strict=True):
            start = time.perf_counter()
            vit.block(0, tokens)
            found.append(time.perf_counter() - start)
    full, half = (min(found[1:]) for found in times)  # the first of each warms up
    return full / half


def _block(dtype: torch.dtype) -> tuple[ClipVit, Tensor]:
    """A tower of one block of ViT-B/16, and tokens of eight windows."""
    with torch.random.fork_rng(devices=[]):
        vision = {"image_size": 224, "patch_size": 16, "layers": 1, "width": 768}
        text = {"context_length": 8, "vocab_size": 8, "width": 64, "heads": 1, "layers": 1}
        tower = open_clip.CLIP(512, vision, text).visual.eval().requires_grad_(False).to(dtype)
        return ClipVit(packed(tower)), torch.randn(8, 197, 768).to(dtype)
