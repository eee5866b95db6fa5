"""From a model's name to its verbs: weights found on this machine, checked, loaded without executing code."""

from __future__ import annotations

import errno
import json
import pickle
import re
import zipfile
from argparse import Namespace
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.torch import load_file
from torch import Tensor, nn

from geoovseg.errors import GeoOVSegError, ModelError, UsageError, first_line, hushed
from geoovseg.models.card import Tower
from geoovseg.models.cards import DEFAULT_MODEL, DEMO_DIR, ModelCard, model_card
from geoovseg.models.download import file_sha256
from geoovseg.models.layouts import as_open_clip, is_program, program_tensors
from geoovseg.models.light import open_clip
from geoovseg.models.pooled import PooledVit, pooled
from geoovseg.models.precision import PRECISIONS
from geoovseg.models.text import TextEncoder
from geoovseg.models.tips import Tips, TipsVit, load_tips
from geoovseg.models.vit import ClipVit
from geoovseg.models.weights import find_weights
from geoovseg.ops.linear import packed
from geoovseg.prompts import DEFAULT_TEMPLATES, templates
from geoovseg.trace import stretch

TOWERS: dict[Tower, type[ClipVit]] = {"clip": ClipVit, "pooled": PooledVit, "tips": TipsVit}


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
    tower = packed(whole[0].visual.to(device=device, dtype=PRECISIONS[precision]))
    return ClipModel(
        card=replace(card, path=path),
        vit=TOWERS[card.tower](tower, mean=card.mean, std=card.std),
        text=TextEncoder(
            lambda: whole,
            templates(sentences),
            weights=f"{card.arch} {sha256}",
            width=_width(whole[0]),
        ),
        sha256=sha256,
    )


def _width(model: Any) -> int | None:
    """The length of a feature, where the model says it."""
    if isinstance(model, Tips):
        return model.width
    projection = getattr(getattr(model, "text", model), "text_projection", None)
    if isinstance(projection, nn.Linear):
        return projection.out_features
    return int(projection.shape[-1]) if isinstance(projection, Tensor) else None


def load_whole(card: ModelCard) -> tuple[Any, Any]:
    """Both towers in float32 on the CPU, and the tokenizer. Raises what `load_clip` raises."""
    path = find_weights(card)
    if card.tower == "tips":
        return load_tips(path.parent)
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


@contextmanager
def as_weights(path: Path, card: ModelCard) -> Iterator[None]:
    """Whatever goes wrong while a file is read as weights is one error, which says what to do: GeoOVSegError."""
    try:
        yield
    except Exception as error:  # what a damaged or foreign file makes torch raise has no common base
        again = f"`geoovseg models fetch {card.name} --force` fetches it again"
        own = "check that it is whole, and that the architecture is right"
        arch = f"SAM {card.arch}" if card.kind == "sam" else card.arch
        raise GeoOVSegError(
            f"{path} cannot be loaded as weights of {arch}: {first_line(error)}; {own if card.path else again}"
        ) from error


def fill(model: nn.Module, state: dict[str, Tensor]) -> None:
    """Put the tensors of a file into a model; others that the file holds are left out.

    Raises ValueError where one is missing, has another shape, or holds what is no number.
    """
    wanted = model.state_dict()
    if missing := [k for k in wanted if k not in state]:
        raise ValueError(f"it lacks {len(missing)} tensors, first {missing[0]}")
    for key, value in wanted.items():
        if state[key].shape != value.shape:
            raise ValueError(f"its {key} has shape {tuple(state[key].shape)}, not {tuple(value.shape)}")
    check_finite((key, state[key]) for key in wanted)
    model.load_state_dict(state, strict=False)


def check_finite(tensors: Iterable[tuple[str, Tensor]]) -> None:
    """Refuse weights with which every score would be no number. Raises ValueError, which names the first."""
    for key, value in tensors:
        if value.is_floating_point() and value.numel() and not torch.stack(value.aminmax()).isfinite().all():
            raise ValueError(f"its {key} is not finite")


def read_state(path: Path) -> dict[str, Tensor]:
    """Tensors of a safetensors file, a torch checkpoint or a program; no code is run, and prefixes of training go.

    Of a checkpoint that holds more (an optimizer, a student and its teacher) only the weights, the teacher's.
    Raises ValueError or TypeError for what is damaged, asks for code, or is no table; others from deeper down.
    """
    if path.suffix == ".safetensors":
        return {k: _full(v) for k, v in load_file(path).items()}
    state = _checkpoint(path)
    state = state.get("state_dict", state.get("teacher", state)) if isinstance(state, dict) else state
    if not isinstance(state, dict):
        raise TypeError("it does not hold named tensors")
    return {k.removeprefix("module."): _full(v) for k, v in state.items() if isinstance(v, Tensor)}


def _checkpoint(path: Path) -> Any:
    """What a torch file holds."""
    zipped = zipfile.is_zipfile(path)
    if zipped:
        _check_sums(path)
        if is_program(path):
            return program_tensors(path)
    with hushed(), torch.serialization.safe_globals(_plain()):  # of old formats; what cannot be read is an error
        try:
            return torch.load(path, map_location="cpu", weights_only=True, mmap=zipped)
        except (pickle.UnpicklingError, RuntimeError, EOFError, OSError) as error:
            raise ValueError(_why_unread(error)) from error


def _plain() -> list[Any]:
    """What holds values only: namespaces, in which DINO keeps its arguments, and single numbers of numpy.

    SkyScript's checkpoints have such numbers in their optimizers; numpy has had two names for what makes them.
    """
    number: Any = np.float64(0).__reduce__()[0]
    names = [f"numpy.{core}.multiarray.scalar" for core in ("core", "_core")]
    return [Namespace, np.dtype, type(np.dtype(np.float64)), *((number, name) for name in names)]


def _check_sums(path: Path) -> None:
    """Compare the tensors with the sums beside them, which torch leaves out. Raises ValueError."""
    with zipfile.ZipFile(path) as file:
        if not any(name.endswith("data.pkl") for name in file.namelist()):
            raise ValueError("it is a ZIP of other files; if a checkpoint is among them, take it out and give that")
        if broken := file.testzip():
            raise ValueError(f"it is damaged, at {broken}")


def _why_unread(error: Exception) -> str:
    """What torch says in paragraphs, which recommend to run the code."""
    if isinstance(error, OSError):
        return "it is damaged, or was cut off" if error.errno == errno.EINVAL else first_line(error)
    said = str(error)
    trust = "which is never run; if you trust the file, save its tensors alone as .safetensors"
    if asked := re.search(r"GLOBAL (\S+)", said):
        return f"it asks for {asked[1]}, which is code or may be, {trust}"
    if not said or "Weights only load failed" in said:
        return "it is damaged, or no file of tensors"
    return f"it is damaged: {first_line(error)}"


def under(prefix: str, state: dict[str, Tensor]) -> dict[str, Tensor]:
    """The tensors whose keys begin with a prefix, without it; all where none does."""
    found = {k.removeprefix(prefix): v for k, v in state.items() if k.startswith(prefix)}
    return found or state


def _full(tensor: Tensor) -> Tensor:
    return tensor.float() if tensor.is_floating_point() else tensor
