"""Models by name: those of the catalogue, files on disk, composed ones, and what open_clip knows."""

from __future__ import annotations

import json
import warnings
from pathlib import Path

from geoovseg.errors import GeoOVSegWarning, ModelError, did_you_mean, first_line, some
from geoovseg.files import LARGEST_TEXT, bytes_of
from geoovseg.models.card import CLIP_MEAN as CLIP_MEAN
from geoovseg.models.card import CLIP_STD as CLIP_STD
from geoovseg.models.card import DEMO_DIR as DEMO_DIR
from geoovseg.models.card import FILES
from geoovseg.models.card import IMAGENET_MEAN as IMAGENET_MEAN
from geoovseg.models.card import IMAGENET_STD as IMAGENET_STD
from geoovseg.models.card import SAT_MEAN as SAT_MEAN
from geoovseg.models.card import SAT_STD as SAT_STD
from geoovseg.models.card import Kind as Kind
from geoovseg.models.card import ModelCard as ModelCard
from geoovseg.models.catalogue import CARDS, REFUSED
from geoovseg.prompts import PLACES
from geoovseg.vocabulary import Vocabulary

DEFAULT_MODEL = "ViT-B-16/openai"
DEMO = "demo"
OWN = ("clip", DEMO)
"""What `--vfm` takes besides: the run's own CLIP, and the demo model."""
SOURCES = ("sam", "felzenszwalb")
"""What `--regions` takes besides a file."""
MODELS: dict[str, ModelCard] = {c.name: c for c in CARDS}
"""The weights known by name; `ARCH@FILE` names some on disk, and every ARCH/TAG of open_clip works too."""
_EXAMPLES: dict[Kind, str] = {
    "clip": "ViT-B-16-quickgelu@weights.safetensors",
    "sam": "sam_vit_b@sam_vit_b_01ec64.pth",
    "upsampler": "jbu_one@weights.ckpt",
    "vfm": "dinov2_vitb14_reg4@weights.safetensors",
}


def model_card(name: str, kind: Kind = "clip") -> ModelCard:
    """The card of weights of a kind: by name, of a file given as ARCH@FILE, or of open_clip's ARCH/TAG.

    Raises ModelError with the names there are.
    """
    known = {n: c for n, c in MODELS.items() if c.kind == kind}
    if name in known:
        return known[name]
    arch, at, file = name.partition("@")
    if at and arch and file and (kind == "clip" or arch in known):
        _warn_activation(arch, file)
        other = next((c for c in known.values() if c.arch == arch and c.tower != "clip"), None)
        return _of_file(known.get(arch, other or ModelCard(name=name, arch=arch)), name, Path(file))
    if (kind, name) in REFUSED:
        raise ModelError(f"{name} {REFUSED[kind, name]}")
    if kind == "clip" and (found := _composed(name) or _from_open_clip(name)):
        return found
    names = [*known, *(OWN if kind == "vfm" else ())]
    raise ModelError(
        f"no {'model' if kind == 'clip' else kind} named {name!r}{did_you_mean(name, names)}. There are "
        f"{', '.join(names)}; ARCH@FILE uses weights on disk, for example {_EXAMPLES[kind]}"
    )


def warn_unknown(card: ModelCard, vocabulary: Vocabulary) -> None:
    """Warn of words that a model cannot know: of the few it was trained on, if it is the demo model."""
    if card.name != DEMO:
        return
    known = set((DEMO_DIR / "words.txt").read_text().split("\n"))
    asked = (word for entry in vocabulary.classes for word in entry.words if not word.startswith(PLACES))
    if unknown := [word for word in asked if word.casefold() not in known]:
        message = f"the {card.name} model was never told of: {some(unknown)}"
        warnings.warn(message, GeoOVSegWarning, 4)


def _warn_activation(arch: str, file: str) -> None:
    """Warn of a file that says it is OpenAI's, built with another activation than theirs: scores would be wrong."""
    if "openai" in Path(file).name.lower() and arch.startswith(("ViT-B-", "ViT-L-14")) and "quickgelu" not in arch:
        message = (
            f"{file} looks like OpenAI's weights, which need {arch}-quickgelu@{file}; {arch} has another activation"
        )
        warnings.warn(message, GeoOVSegWarning, 4)


def other_activation(arch: str) -> str | None:
    """The same architecture with GELU for QuickGELU, or the other way round, if open_clip has it."""
    from geoovseg.models.light import open_clip  # slow to import

    other = arch.removesuffix("-quickgelu") if arch.endswith("-quickgelu") else f"{arch}-quickgelu"
    return other if other in open_clip.list_models() else None


def _of_file(card: ModelCard, name: str, path: Path) -> ModelCard:
    """The card of a user's file: built as that card's model, but its digest, size and licence are its own."""
    return ModelCard(
        name=name,
        kind=card.kind,
        arch=card.arch,
        path=path,
        files=card.files,
        also=card.also,
        maybe=card.maybe,
        tower=card.tower,
        attention_only=card.attention_only,
        mean=card.mean,
        std=card.std,
        about="a local file",
    )


def _composed(name: str) -> ModelCard | None:
    """The card of weights made by `geoovseg models compose`, which says beside the file what they are."""
    path = Path(name)
    beside = path.with_suffix(".json")
    if path.suffix != ".safetensors" or not beside.is_file():
        return None
    try:
        said = json.loads(bytes_of(beside, LARGEST_TEXT))
        members = ", ".join(f"{m['weight']:.2f} {m['name']}" for m in said["members"])
        return ModelCard(
            name=name,
            arch=said["arch"],
            path=path,
            mean=tuple(said["mean"]),
            std=tuple(said["std"]),
            sha256=said["sha256"],
            licence="that of its members",
            about=f"composed of {members}",
        )
    except (OSError, ValueError, LookupError, TypeError, AttributeError, RecursionError) as error:
        raise ModelError(f"{beside} is no card of composed weights: {first_line(error)}") from error


def _from_open_clip(name: str) -> ModelCard | None:
    """The card of a pretrained model that open_clip knows and the hub has."""
    arch, _, tag = name.partition("/")
    if not tag:
        return None
    from geoovseg.models.light import open_clip  # slow to import, and needed for names outside MODELS only

    config = open_clip.get_pretrained_cfg(arch, tag)
    if not config or not config.get("hf_hub"):
        return None
    repo, file = config["hf_hub"].rsplit("/", 1)
    quick = f"{arch}-quickgelu"
    return ModelCard(
        name=name,
        arch=quick if config.get("quick_gelu") and quick in open_clip.list_models() else arch,
        repo=repo,
        files=(file,) if file else FILES,
        tower="pooled" if open_clip.get_model_config(arch)["vision_cfg"].get("timm_pool") == "map" else "clip",
        mean=tuple(config["mean"]),
        std=tuple(config["std"]),
        terms=f"what its licence asks for is not known here: see {config['hf_hub'].strip('/')} on the model hub",
        about="from open_clip's list",
    )
