"""Facts about models: where their weights come from, under which licence, how large they are. Data only."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from geoovseg.errors import ModelError, did_you_mean

DEFAULT_MODEL = "ViT-B-16/openai"
CLIP_MEAN = (0.48145466, 0.4578275, 0.40821073)
CLIP_STD = (0.26862954, 0.26130258, 0.27577711)
"""What CLIP's image towers subtract and divide by, RGB in 0..1."""
DEMO_DIR = Path(__file__).parent / "demo"
FILES = ("open_clip_model.safetensors", "open_clip_pytorch_model.bin")
"""What open_clip calls weights on the hub, the preferred name first."""


@dataclass(frozen=True, kw_only=True)
class ModelCard:
    """A CLIP model by name: architecture, source of its weights, licence."""

    name: str
    arch: str
    """open_clip's configuration; OpenAI's weights need one with quickgelu"""
    repo: str | None = None
    """repository on the model hub"""
    files: tuple[str, ...] = FILES
    """names the weights go by there, the preferred one first"""
    path: Path | None = None
    """a local file instead of the hub"""
    mean: tuple[float, float, float] = CLIP_MEAN
    std: tuple[float, float, float] = CLIP_STD
    megabytes: int | None = None
    licence: str = "not stated"
    about: str = ""


_CARDS = (
    ModelCard(
        name="demo",
        arch="demo",
        path=DEMO_DIR / "model.safetensors",
        megabytes=6,
        licence="MIT, part of this package",
        about="small CLIP trained on drawn scenes; knows eight classes; for trying the tool, not for real imagery",
    ),
    ModelCard(
        name="ViT-B-16/openai",
        arch="ViT-B-16-quickgelu",
        repo="timm/vit_base_patch16_clip_224.openai",
        megabytes=599,
        licence="MIT (openai/CLIP)",
        about="the default, and the model of most published tables",
    ),
    ModelCard(
        name="ViT-B-32/openai",
        arch="ViT-B-32-quickgelu",
        repo="timm/vit_base_patch32_clip_224.openai",
        megabytes=605,
        licence="MIT (openai/CLIP)",
        about="coarser and faster",
    ),
    ModelCard(
        name="ViT-L-14/openai",
        arch="ViT-L-14-quickgelu",
        repo="timm/vit_large_patch14_clip_224.openai",
        megabytes=1710,
        licence="MIT (openai/CLIP)",
        about="larger and slower",
    ),
    ModelCard(
        name="ViT-H-14/laion2b_s32b_b79k",
        arch="ViT-H-14",
        repo="laion/CLIP-ViT-H-14-laion2B-s32B-b79K",
        megabytes=3944,
        licence="MIT",
        about="the largest",
    ),
    ModelCard(
        name="RemoteCLIP-ViT-B-32",
        arch="ViT-B-32-quickgelu",
        repo="chendelong/RemoteCLIP",
        files=("RemoteCLIP-ViT-B-32.pt",),
        megabytes=605,
        licence="code Apache-2.0; weights not stated",
        about="trained on remote sensing captions",
    ),
    ModelCard(
        name="RemoteCLIP-ViT-L-14",
        arch="ViT-L-14-quickgelu",
        repo="chendelong/RemoteCLIP",
        files=("RemoteCLIP-ViT-L-14.pt",),
        megabytes=1710,
        licence="code Apache-2.0; weights not stated",
        about="trained on remote sensing captions",
    ),
    ModelCard(
        name="GeoRSCLIP-ViT-B-32",
        arch="ViT-B-32-quickgelu",
        repo="Zilun/GeoRSCLIP",
        files=("ckpt/RS5M_ViT-B-32.pt",),
        megabytes=605,
        licence="CC (hub tag; CC-BY-4.0 in an earlier card)",
        about="trained on five million remote sensing pairs",
    ),
    ModelCard(
        name="GeoRSCLIP-ViT-L-14",
        arch="ViT-L-14-quickgelu",
        repo="Zilun/GeoRSCLIP",
        files=("ckpt/RS5M_ViT-L-14.pt",),
        megabytes=1710,
        licence="CC (hub tag; CC-BY-4.0 in an earlier card)",
        about="trained on five million remote sensing pairs; QuickGELU is assumed",
    ),
)
MODELS: dict[str, ModelCard] = {c.name: c for c in _CARDS}
"""The models known by name; `ARCH@FILE` names one on disk, and every ARCH/TAG of open_clip works too."""


def model_card(name: str) -> ModelCard:
    """The card of a model by name, of a file given as ARCH@FILE, or of open_clip's ARCH/TAG. Raises ModelError."""
    if name in MODELS:
        return MODELS[name]
    arch, at, file = name.partition("@")
    if at and arch and file:
        return ModelCard(name=name, arch=arch, path=Path(file), about="a local file")
    if found := _from_open_clip(name):
        return found
    raise ModelError(
        f"no model named {name!r}{did_you_mean(name, MODELS)}. The models are {', '.join(MODELS)}; ARCH@FILE uses "
        "weights on disk, for example ViT-B-16-quickgelu@weights.safetensors"
    )


def _from_open_clip(name: str) -> ModelCard | None:
    """The card of a pretrained model that open_clip knows and the hub has."""
    arch, _, tag = name.partition("/")
    if not tag:
        return None
    import open_clip  # slow to import, and needed for names outside MODELS only

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
        mean=tuple(config["mean"]),
        std=tuple(config["std"]),
        about="from open_clip's list",
    )
