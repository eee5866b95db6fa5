"""Other layouts of weights than those we load: programs of TorchScript, and transformers' names of CLIP and DINOv3.

Of a program only the tensors are read, by an unpickler that makes nothing else; its code is never looked at.
"""

from __future__ import annotations

import io
import pickle
import zipfile
from collections import OrderedDict
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

KINDS = {
    "FloatStorage": torch.float32, "HalfStorage": torch.float16, "BFloat16Storage": torch.bfloat16,
    "DoubleStorage": torch.float64, "LongStorage": torch.int64, "IntStorage": torch.int32, "BoolStorage": torch.bool,
}  # fmt: skip
"""Numbers of a storage, by what TorchScript calls it."""


class _Part:
    """A module of a program: its tensors and parts by name."""

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)


def _tensor(storage: Tensor, offset: int, size: tuple[int, ...], stride: tuple[int, ...], *more: Any) -> Tensor:
    """A tensor of a storage."""
    return torch.as_strided(storage, size, stride, offset)


_MADE: dict[tuple[str, str], Any] = {
    ("torch._utils", "_rebuild_tensor_v2"): _tensor,
    ("collections", "OrderedDict"): OrderedDict,
    **{("torch.jit._pickle", f"build_{kind}list"): list for kind in ("int", "double", "bool", "tensor")},
    ("torch.jit._pickle", "restore_type_tag"): lambda value, tag: value,
    **{("torch", name): kind for name, kind in KINDS.items()},
}
"""All that a program may ask for."""


class _Tensors(pickle.Unpickler):
    """Reads a program's tensors. Raises UnpicklingError for whatever else it asks for."""

    def __init__(self, archive: zipfile.ZipFile, name: str) -> None:
        super().__init__(io.BytesIO(archive.read(name)))
        self._archive, self._root = archive, name.removesuffix("data.pkl")
        self._read: dict[str, Tensor] = {}

    def find_class(self, module: str, name: str) -> Any:
        """What a name stands for."""
        if module.startswith("__torch__"):
            return _Part
        if (module, name) in _MADE:
            return _MADE[module, name]
        raise pickle.UnpicklingError(f"it asks for {module}.{name}, which is code or may be")

    def persistent_load(self, pid: Any) -> Tensor:
        """The numbers of a storage."""
        _, kind, key, _, count = pid
        if key not in self._read:
            content = bytearray(self._archive.read(f"{self._root}data/{key}"))
            self._read[key] = (
                torch.frombuffer(content, dtype=kind, count=count) if count else torch.empty(0, dtype=kind)
            )
        return self._read[key]


def is_program(path: Path) -> bool:
    """Whether a file is a program of TorchScript."""
    with zipfile.ZipFile(path) as archive:
        return any(name.endswith("/constants.pkl") for name in archive.namelist())


def program_tensors(path: Path) -> dict[str, Tensor]:
    """Tensors of a program by their names in it. Raises UnpicklingError for one that asks for more than tensors."""
    with zipfile.ZipFile(path) as archive:
        name = next(name for name in archive.namelist() if name.endswith("/data.pkl"))
        return dict(_named(_Tensors(archive, name).load(), ""))


def _named(part: Any, prefix: str) -> Iterator[tuple[str, Tensor]]:
    for name, value in vars(part).items():
        if isinstance(value, Tensor):
            yield prefix + name, value
        elif isinstance(value, _Part):
            yield from _named(value, f"{prefix}{name}.")


TRANSFORMERS = "vision_model.embeddings.patch_embedding.weight"
"""What tells transformers' names."""
_NAMES = {
    "text_model.embeddings.token_embedding": "token_embedding",
    "text_model.embeddings.position_embedding.weight": "positional_embedding",
    "text_model.final_layer_norm": "ln_final",
    "text_model.encoder.layers.": "transformer.resblocks.",
    "vision_model.embeddings.class_embedding": "visual.class_embedding",
    "vision_model.embeddings.patch_embedding": "visual.conv1",
    "vision_model.embeddings.position_embedding.weight": "visual.positional_embedding",
    "vision_model.pre_layrnorm": "visual.ln_pre",
    "vision_model.post_layernorm": "visual.ln_post",
    "vision_model.encoder.layers.": "visual.transformer.resblocks.",
    ".layer_norm1.": ".ln_1.",
    ".layer_norm2.": ".ln_2.",
    ".mlp.fc1.": ".mlp.c_fc.",
    ".mlp.fc2.": ".mlp.c_proj.",
    ".self_attn.out_proj.": ".attn.out_proj.",
}
"""Of transformers, and of open_clip."""
_TURNED = {"text_projection.weight": "text_projection", "visual_projection.weight": "visual.proj"}
"""The same of what is multiplied from the other side."""


LONG, KEPT = "positional_embedding_res", 20
"""The second table of positions of LongCLIP's text side, which holds from the 21st position on."""
POSITIONS = 77
"""Of CLIP's text side."""


def as_open_clip(state: dict[str, Tensor]) -> dict[str, Tensor]:
    """A CLIP of transformers, or with LongCLIP's text side, by open_clip's names; anything else as it is."""
    if TRANSFORMERS not in state:
        return _short(state)
    found = {_TURNED[key]: state[key].T for key in _TURNED if key in state}
    for key, value in state.items():
        if "_proj." not in key or ".out_proj." in key:
            found[_renamed(key)] = value
        elif ".q_proj." in key:
            three = [state[key.replace(".q_proj.", f".{name}_proj.")] for name in "qkv"]
            found[_renamed(key).replace(".self_attn.q_proj.", ".attn.in_proj_")] = torch.cat(three)
    return found


def _short(state: dict[str, Tensor]) -> dict[str, Tensor]:
    """A text side of LongCLIP (248 positions) as CLIP's: causal, so that further positions change no shorter sentence.

    Zhang et al. 2024, Long-CLIP: positions up to the 20th as in CLIP's table, those after it of a stretched one.
    """
    table = state.get("positional_embedding")
    if table is None or len(table) <= POSITIONS:
        return state
    table = torch.cat([table[:KEPT], state.get(LONG, table)[KEPT:]])[:POSITIONS]
    return {key: value for key, value in state.items() if key != LONG} | {"positional_embedding": table}


def _renamed(key: str) -> str:
    for ours in _NAMES:
        key = key.replace(ours, _NAMES[ours])
    return key


DINOV3 = "embeddings.register_tokens"
"""What tells transformers' names of DINOv3."""
_RELEASED = {
    "embeddings.cls_token": "cls_token",
    "embeddings.mask_token": "mask_token",
    "embeddings.register_tokens": "storage_tokens",
    "embeddings.patch_embeddings.": "patch_embed.proj.",
    "layer_scale1.lambda1": "ls1.gamma",
    "layer_scale2.lambda1": "ls2.gamma",
    "attention.o_proj.": "attn.proj.",
}
_MLP = {"up_proj": "fc1", "down_proj": "fc2"}
_GATED = {"gate_proj": "w1", "up_proj": "w2", "down_proj": "w3"}


def as_dinov3(state: dict[str, Tensor]) -> dict[str, Tensor]:
    """A DINOv3 of transformers by the names of its release; anything else as it is."""
    if DINOV3 not in state:
        return state
    names = dict(_RELEASED)
    gated = any(".gate_proj." in key for key in state)
    names |= {f"mlp.{theirs}.": f"mlp.{ours}." for theirs, ours in (_GATED if gated else _MLP).items()}
    found: dict[str, Tensor] = {}
    for key, value in state.items():
        name = key.removeprefix("model.").replace("layer.", "blocks.", 1) if "layer." in key else key
        if ".q_proj." in key:
            keys = (key.replace(".q_proj.", f".{part}_proj.") for part in "qkv")
            three = [state.get(each, torch.zeros_like(value)) for each in keys]  # keys have no bias
            found[name.replace("attention.q_proj.", "attn.qkv.")] = torch.cat(three)
        elif ".k_proj." not in key and ".v_proj." not in key:
            for theirs, ours in names.items():
                name = name.replace(theirs, ours)
            found[name] = value
    return found
