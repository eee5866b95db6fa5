"""Weights of every model as they are published, file by file and name by name, but of few and narrow blocks."""

from __future__ import annotations

import io
import json
import tempfile
import zipfile
from collections.abc import Iterator, Mapping
from dataclasses import replace
from hashlib import sha256
from pathlib import Path
from typing import Any

import diffusers
import numpy as np
import open_clip
import pytest
import timm
import tokenizers
import torch
import transformers
from golden_cases import TINY_SAM, small_sam
from hub import Hub
from safetensors.torch import save
from test_jbu import random_state
from tiny_sam3 import small_sam3

from geoovseg.models.cards import MODELS, ModelCard
from geoovseg.models.pooled import pooled

WIDTH = 32
_config, _timm = open_clip.get_model_config, timm.create_model


def _small_config(name: str) -> dict[str, Any]:
    """The configuration of open_clip with a narrow tower; features, patches and activation stay."""
    config = json.loads(json.dumps(_config(name)))
    layers = 12 if name.startswith("ViT-B-16") else 2
    if "timm_model_name" not in config["vision_cfg"]:
        config["vision_cfg"] |= {"layers": layers, "width": WIDTH, "head_width": 16}
    elif config["vision_cfg"]["timm_proj"] == "none":
        config["embed_dim"] = WIDTH
    config["text_cfg"] |= {"width": 16, "heads": 1, "layers": 1}
    return config


def _small_timm(arch: str, **given: Any) -> Any:
    return _timm(arch, **{"depth": 4, "embed_dim": WIDTH, "num_heads": 2, **given})


def _small_sam(arch: str) -> Any:
    torch.manual_seed(3)
    return small_sam(TINY_SAM).eval().requires_grad_(False)


def make_small(monkeypatch: pytest.MonkeyPatch) -> None:
    """Have all architectures small."""
    monkeypatch.setattr(open_clip, "get_model_config", _small_config)
    monkeypatch.setattr(timm, "create_model", _small_timm)
    monkeypatch.setattr("geoovseg.models.sam.build_sam", _small_sam)


def publish(hub: Hub, card: ModelCard, monkeypatch: pytest.MonkeyPatch) -> None:
    """Have the files of a model where its card says that they are, and their digest on it where it has one."""
    torch.manual_seed(len(card.name))
    files = dict(_files(card))
    if card.repo:
        for name, content in files.items():
            hub.put(card.repo, name, content)
        return
    (name, content), *_ = files.items()
    hub.files[f"plain/{name}"] = content
    known = {"sha256": sha256(content).hexdigest() if card.digest else None, "git_blob": None}
    monkeypatch.setitem(MODELS, card.name, replace(card, url=f"{hub.url}/plain/{name}", **known))


def _files(card: ModelCard) -> Iterator[tuple[str, bytes]]:
    """The files of a model by their names."""
    if card.arch == "diffusion":
        yield from _diffusion()
        return
    if card.tower == "tips":
        yield from _tips()
        return
    if card.tower == "sam3":
        yield from _saved_by_transformers(small_sam3())
        return
    if "tokenizer.json" in card.also:
        yield from tokenizer()
    state = _state(card)
    name = card.files[0] if card.repo else str(card.url).rpartition("/")[2]
    if name.endswith(".safetensors"):
        yield name, save({key: value.contiguous() for key, value in state.items()})
    elif card.member:
        yield name, _zipped(f"{Path(name).stem}/{card.member}", _saved(_training(state)))
    elif card.name.startswith("FarSLIP"):
        yield name, _saved({"epoch": 1, "state_dict": {f"module.{key}": value for key, value in _long(state).items()}})
    else:
        yield name, _saved({"state_dict": state, "epoch": 1} if card.kind == "upsampler" else state)


def _state(card: ModelCard) -> dict[str, torch.Tensor]:
    if card.kind == "sam":
        return dict(_small_sam(card.arch).state_dict())
    if card.kind == "upsampler":
        return {f"upsampler.{key}": value for key, value in random_state(card.arch, 512).items()}
    if card.tower == "pooled":
        return dict(pooled(_small_config(card.arch)).state_dict())
    if card.kind == "vfm":
        return dict(_small_timm(card.arch, pretrained=False, num_classes=0).state_dict())
    return dict(open_clip.CLIP(**_small_config(card.arch)).state_dict())


def _long(state: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """With the two tables of LongCLIP's text side."""
    table = torch.randn(248, state["positional_embedding"].shape[1]) * 0.01
    return {**state, "positional_embedding": table, "positional_embedding_res": table.flip(0)}


def tokenizer() -> Iterator[tuple[str, bytes]]:
    """Files of a tokenizer that knows a few words."""
    words = {
        "<pad>": 0,
        "<eos>": 1,
        "<unk>": 2,
        **{w: n for n, w in enumerate(["forest", "water", "road", "building"], 3)},
    }
    made = tokenizers.Tokenizer(tokenizers.models.WordLevel(words, unk_token="<unk>"))
    made.pre_tokenizer = tokenizers.pre_tokenizers.Whitespace()
    yield "tokenizer.json", made.to_str().encode()
    named = {"pad_token": "<pad>", "eos_token": "<eos>", "unk_token": "<unk>"}
    config = {"tokenizer_class": "PreTrainedTokenizerFast", **named}
    yield "tokenizer_config.json", json.dumps(config).encode()


def _tips() -> Iterator[tuple[str, bytes]]:
    """TIPSv2 as the hub has it, under the names of its release."""
    size = {"hidden_size": WIDTH, "num_hidden_layers": 2, "num_attention_heads": 2}
    config = transformers.Tipsv2Config(
        vision_config={**size, "image_size": 56}, text_config={**size, "intermediate_size": 64, "vocab_size": 8}
    )
    yield from _saved_by_transformers(transformers.Tipsv2Model(config))
    yield from tokenizer()


def _saved_by_transformers(model: Any) -> Iterator[tuple[str, bytes]]:
    with tempfile.TemporaryDirectory() as folder:
        model.save_pretrained(folder)
        yield from ((path.name, path.read_bytes()) for path in Path(folder).iterdir())


def _training(state: Mapping[str, torch.Tensor]) -> dict[str, Any]:
    """A checkpoint of open_clip's training, with what its optimizer keeps."""
    rate = {"lr": np.float64(1e-5), "betas": (0.9, 0.98)}
    optimizer = {"state": {0: {"step": torch.tensor(1.0)}}, "param_groups": [{**rate, "params": [0]}]}
    named = {f"module.{key}": value for key, value in state.items()}
    return {"epoch": 20, "name": "SkyScript", "state_dict": named, "optimizer": optimizer}


def _saved(content: Any) -> bytes:
    file = io.BytesIO()
    torch.save(content, file)
    return file.getvalue()


def _zipped(name: str, content: bytes) -> bytes:
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w") as archive:
        archive.writestr(name, content)
    return file.getvalue()


def _diffusion() -> Iterator[tuple[str, bytes]]:
    """Stable Diffusion 2 as diffusers writes it."""
    widths, down = (8, 8, 16, 16), ("CrossAttnDownBlock2D",) * 3 + ("DownBlock2D",)
    unet = diffusers.UNet2DConditionModel(
        block_out_channels=widths, layers_per_block=2, cross_attention_dim=16, attention_head_dim=2, norm_num_groups=4,
        down_block_types=down, up_block_types=("UpBlock2D",) + ("CrossAttnUpBlock2D",) * 3, sample_size=8,
    )  # fmt: skip
    vae = diffusers.AutoencoderKL(
        block_out_channels=widths, norm_num_groups=4, latent_channels=4,
        down_block_types=("DownEncoderBlock2D",) * 4, up_block_types=("UpDecoderBlock2D",) * 4,
    )  # fmt: skip
    size = {"hidden_size": 16, "intermediate_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2}
    text = transformers.CLIPTextModel(transformers.CLIPTextConfig(vocab_size=8, **size))
    yield "unet/diffusion_pytorch_model.safetensors", save(_own(unet))
    yield "unet/config.json", json.dumps(dict(unet.config)).encode()
    yield "vae/config.json", json.dumps(dict(vae.config)).encode()
    yield "vae/diffusion_pytorch_model.safetensors", save(_own(vae))
    yield "text_encoder/config.json", text.config.to_json_string().encode()
    yield "text_encoder/model.safetensors", save(_own(text), metadata={"format": "pt"})
    words = ["<|startoftext|>", "<|endoftext|>", "a", "b", "a</w>", "b</w>", "ab", "ab</w>"]
    yield "tokenizer/merges.txt", b"#version: 0.2\na b</w>\n"
    yield "tokenizer/vocab.json", json.dumps({word: n for n, word in enumerate(words)}).encode()
    named = {"bos_token": words[0], "eos_token": words[1], "unk_token": words[1], "pad_token": words[1]}
    yield "tokenizer/special_tokens_map.json", json.dumps(named).encode()
    yield "tokenizer/tokenizer_config.json", json.dumps({**named, "model_max_length": 77}).encode()


def _own(model: torch.nn.Module) -> dict[str, torch.Tensor]:
    return {key: value.clone().contiguous() for key, value in model.state_dict().items()}
