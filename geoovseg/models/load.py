"""From a model's name to its verbs: weights found on this machine, checked, loaded without executing code."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import lru_cache
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from geoovseg.errors import GeoOVSegError, ModelError, UsageError, first_line
from geoovseg.models.card import Tower
from geoovseg.models.cards import DEFAULT_MODEL, DEMO_DIR, ModelCard, model_card
from geoovseg.models.download import file_sha256
from geoovseg.models.layouts import as_open_clip
from geoovseg.models.light import open_clip
from geoovseg.models.pooled import PooledVit, pooled
from geoovseg.models.precision import ready
from geoovseg.models.sam3 import Sam3, Sam3Tower, TokenEncoder, load_sam3
from geoovseg.models.tensors import as_weights, fill, read_state
from geoovseg.models.text import TextEncoder
from geoovseg.models.tips import Tips, TipsVit, load_tips
from geoovseg.models.vit import ClipVit
from geoovseg.models.weights import find_weights
from geoovseg.prompts import DEFAULT_TEMPLATES, templates
from geoovseg.trace import stretch

TOWERS: dict[Tower, type[ClipVit]] = {"clip": ClipVit, "pooled": PooledVit, "tips": TipsVit, "sam3": Sam3Tower}
ENCODERS: dict[Tower, type[TextEncoder]] = {"sam3": TokenEncoder}
"""Text sides that give more than a vector a word."""
WHOLE: dict[Tower, Callable[[ModelCard, Path], tuple[Any, Any]]] = {
    "tips": lambda card, path: load_tips(path.parent),
    "sam3": load_sam3,
}
"""Models of other libraries than open_clip."""


@dataclass(frozen=True, kw_only=True)
class ClipModel:
    """A loaded model: the image side's verbs, the text side, and what the run record says of it."""

    card: ModelCard
    vit: ClipVit
    text: TextEncoder
    sha256: str


def resolve_device(name: str) -> torch.device:
    """`auto` is the first CUDA device if there is one, else the CPU. Raises UsageError for what is not there."""
    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        device = torch.device(name)
        if device.type not in ("cpu", "cuda", "mps"):
            raise RuntimeError("only cpu, cuda and mps are supported")
        torch.empty(0, device=device)
    except (RuntimeError, AssertionError) as error:
        raise UsageError(f"--device {name} cannot be used here: {first_line(error)}; try --device cpu") from error
    return device


@lru_cache(maxsize=1)
def load_clip(name: str, device: torch.device, precision: str, sentences: str = DEFAULT_TEMPLATES) -> ClipModel:
    """Load a model by name. The image tower runs in `precision`, the text tower in float32, on a set of templates.

    Raises ModelError, WeightsMissingError, and GeoOVSegError for files that are not weights of this architecture.
    """
    card = model_card(name)
    path = find_weights(card)
    with stretch("weights"):
        whole, sha256 = load_whole(card), file_sha256(path)
    tower = ready(whole[0].visual, device, precision)
    return ClipModel(
        card=replace(card, path=path),
        vit=TOWERS[card.tower](tower, mean=card.mean, std=card.std),
        text=ENCODERS.get(card.tower, TextEncoder)(
            lambda: whole,
            templates(sentences),
            weights=f"{card.arch} {sha256}",
            width=_width(whole[0]),
        ),
        sha256=sha256,
    )


def _width(model: Any) -> int | None:
    """The length of a feature, where the model says it."""
    if isinstance(model, Tips | Sam3):
        return model.width
    projection = getattr(getattr(model, "text", model), "text_projection", None)
    if isinstance(projection, nn.Linear):
        return projection.out_features
    return int(projection.shape[-1]) if isinstance(projection, Tensor) else None


def load_whole(card: ModelCard) -> tuple[Any, Any]:
    """Both towers in float32 on the CPU, and the tokenizer. Raises what `load_clip` raises."""
    path = find_weights(card)
    if card.tower in WHOLE:
        return WHOLE[card.tower](card, path)
    model, tokenizer = _architecture(card)
    with as_weights(path, card):
        fill(model, as_open_clip(read_state(path)))
    return model.eval().requires_grad_(False), tokenizer


def _architecture(card: ModelCard) -> tuple[Any, Any]:
    """The empty model and its tokenizer, from a configuration on this machine. Raises ModelError."""
    if card.arch == "demo":
        config = json.loads((DEMO_DIR / "config.json").read_text())
        return open_clip.CLIP(**config), open_clip.tokenizer.SimpleTokenizer(bpe_path=str(DEMO_DIR / "bpe.txt.gz"))
    if card.arch not in open_clip.list_models():
        raise ModelError(f"open_clip has no architecture {card.arch!r}; `geoovseg models list` shows examples")
    config = open_clip.get_model_config(card.arch)
    vision, text = config["vision_cfg"], config["text_cfg"]
    if card.tower == "pooled":
        return pooled(config), _tokenizer(text, card)
    if config.get("custom_text") or "timm_model_name" in vision or not isinstance(vision["layers"], int):
        raise ModelError(f"{card.arch} is not a plain CLIP with transformers; choose one such as {DEFAULT_MODEL}")
    if "hf_model_name" in text or "hf_tokenizer_name" in text:
        raise ModelError(f"{card.arch} needs a text model from the hub, which is not supported")
    return open_clip.CLIP(**config), open_clip.get_tokenizer(card.arch)


def _tokenizer(text: dict[str, Any], card: ModelCard) -> Any:
    """The tokenizer of a model that pools by attention: CLIP's, or one whose files lie beside the weights.

    Raises ModelError without transformers, and GeoOVSegError for files that cannot be read.
    """
    length, given = text["context_length"], text.get("tokenizer_kwargs", {})
    if "hf_tokenizer_name" not in text:
        return open_clip.tokenizer.SimpleTokenizer(context_length=length, **given)
    folder = find_weights(card).parent
    try:
        return open_clip.tokenizer.HFTokenizer(str(folder), context_length=length, local_files_only=True, **given)
    except ImportError as error:
        raise ModelError(f"its words need another package: pip install 'geoovseg[siglip]' ({error})") from error
    except Exception as error:  # of many kinds
        raise GeoOVSegError(f"{folder} has no tokenizer that can be read: {first_line(error)}") from error
