"""Learned upsamplers of features, by name or file: SimFeatUp's and FeatUp's checkpoints."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

import torch
from torch import Tensor

from geoovseg.errors import ModelError
from geoovseg.models.cards import model_card
from geoovseg.models.download import file_sha256
from geoovseg.models.tensors import as_weights, check_finite, read_state, under
from geoovseg.models.vit import ClipVit
from geoovseg.models.weights import find_weights
from geoovseg.ops.jbu import Jbu, JbuStep, Projection

PREFIX = "upsampler."
"""Of the published checkpoints' keys, which also hold what was needed in training."""
PATCH = 16
STEPS = {"jbu_one": ("up",) * 4, "jbu_stack": ("up1", "up2", "up3", "up4")}
"""The weights each doubling uses."""
TAPS = {"jbu_one": 121, "jbu_stack": 49}
GUIDE = 32
"""Channels pixels are compared by."""


@dataclass(frozen=True)
class Upsampler:
    """A loaded upsampler and the digest of its file."""

    jbu: Jbu
    sha256: str


@lru_cache(maxsize=1)
def load_upsampler(name: str, device: torch.device) -> Upsampler:
    """Load `jbu_one`, `jbu_stack` or one of them from a file, as `jbu_one@FILE`, without executing code.

    Raises ModelError, WeightsMissingError, and GeoOVSegError for files that are something else.
    """
    card = model_card(name, "upsampler")
    path = find_weights(card)
    with as_weights(path, card):
        jbu = build_jbu(read_state(path), card.arch, device)
    return Upsampler(jbu, file_sha256(path))


def build_jbu(state: dict[str, Tensor], arch: str, device: torch.device) -> Jbu:
    """An upsampler from a checkpoint's tensors, with or without the published prefix.

    Raises ValueError for tensors that are missing, have another shape than the published ones, or are not finite.
    """
    state = under(PREFIX, state)
    _check(state, arch)
    state = {k: v.float().to(device) for k, v in state.items()}
    first, second, third, fourth = (_step(state, name) for name in STEPS[arch])
    weight = state["fixup_proj.1.weight"]
    return Jbu((first, second, third, fourth), weight.flatten(1), state["fixup_proj.1.bias"])


def _check(state: dict[str, Tensor], arch: str) -> None:
    for key, shape in _shapes(len(state.get("fixup_proj.1.bias", ())), arch).items():
        if key not in state:
            raise ValueError(f"it has no {key}")
        if tuple(state[key].shape) != shape:
            raise ValueError(f"its {key} has shape {tuple(state[key].shape)}, not {shape}")
        check_finite([(key, state[key])])


def _shapes(dim: int, arch: str) -> dict[str, tuple[int, ...]]:
    """Of the tensors of a published checkpoint for features of length `dim`."""
    taps = TAPS[arch]
    shapes: dict[str, tuple[int, ...]] = {"fixup_proj.1.bias": (dim,), "fixup_proj.1.weight": (dim, dim, 1, 1)}
    for step in set(STEPS[arch]):
        shapes |= {f"{step}.range_temp": (), f"{step}.sigma_spatial": ()}
        for part, (wide, narrow) in {"range_proj": (3, GUIDE), "fixup_proj": (taps + 3, taps)}.items():
            shapes |= {f"{step}.{part}.0.weight": (narrow, wide, 1, 1), f"{step}.{part}.0.bias": (narrow,)}
            shapes |= {f"{step}.{part}.3.weight": (narrow, narrow, 1, 1), f"{step}.{part}.3.bias": (narrow,)}
    return shapes


def check_fit(jbu: Jbu, clip: ClipVit, name: str) -> None:
    """Refuse an upsampler that was made for other features than this tower's. Raises ModelError."""
    if clip.patch != PATCH:
        raise ModelError(
            f"--upsample {name} makes 16 pixels of a patch, but this model's patches are {clip.patch} pixels wide; "
            "choose --upsample guided, or a model with patch 16 such as ViT-B-16/openai"
        )
    if clip.dim != jbu.dim:
        raise ModelError(
            f"--upsample {name} was trained on features of length {jbu.dim}, but this model's have {clip.dim}; choose "
            "--upsample guided, or a model such as ViT-B-16/openai"
        )


def _step(state: dict[str, Tensor], name: str) -> JbuStep:
    return JbuStep(
        state[f"{name}.range_temp"],
        state[f"{name}.sigma_spatial"],
        _projection(state, f"{name}.range_proj"),
        _projection(state, f"{name}.fixup_proj"),
    )


def _projection(state: dict[str, Tensor], name: str) -> Projection:
    """The two 1 x 1 convolutions as matrices; between them is a GELU, and a dropout that training used."""
    first, second = state[f"{name}.0.weight"], state[f"{name}.3.weight"]
    return first.flatten(1), state[f"{name}.0.bias"], second.flatten(1), state[f"{name}.3.bias"]
