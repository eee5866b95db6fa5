"""The CLIP models there are cards of. Data only."""

from __future__ import annotations

from geoovseg.models.card import DEMO_DIR, UNSTATED, ModelCard

_SKYSCRIPT = "https://opendatasharing.s3.us-west-2.amazonaws.com/SkyScript/ckpt"


def _openai(name: str, repo: str, revision: str, megabytes: int, about: str) -> ModelCard:
    """OpenAI's CLIP, from timm's copies on the hub."""
    return ModelCard(
        name=name,
        arch=f"{name.partition('/')[0]}-quickgelu",
        repo=repo,
        revision=revision,
        megabytes=megabytes,
        licence="MIT (openai/CLIP)",
        about=about,
    )


def _remoteclip(size: str, megabytes: int) -> ModelCard:
    return ModelCard(
        name=f"RemoteCLIP-{size}",
        arch=f"{size}-quickgelu",
        repo="chendelong/RemoteCLIP",
        revision="bf1d8a3ccf2ddbf7c875705e46373bfe542bce38",
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


def _farslip(stage: int, size: str, megabytes: int, about: str) -> ModelCard:
    """FarSLIP; its text side may have the 248 positions of LongCLIP."""
    return ModelCard(
        name=f"FarSLIP{stage}-{size}",
        arch=f"{size}-quickgelu",
        repo="ZhenShiL/FarSLIP",
        files=(f"FarSLIP{stage}_{size}.pt",),
        megabytes=megabytes,
        licence="MIT",
        about=f"trained on remote sensing pairs and their objects; {about}",
    )


def _pooled(name: str, megabytes: int, about: str) -> ModelCard:
    """A tower that ends in attention pooling, from timm's copies on the hub: with the method maskclip only."""
    arch = name.partition("/")[0]
    return ModelCard(
        name=name,
        arch=arch,
        repo=f"timm/{arch}",
        tower="pooled",
        also=("tokenizer.json",) if "SigLIP" in arch else (),
        maybe=("tokenizer_config.json", "special_tokens_map.json") if "SigLIP" in arch else (),
        mean=(0.5, 0.5, 0.5),
        std=(0.5, 0.5, 0.5),
        megabytes=megabytes,
        licence="Apache-2.0",
        about=f"{about}; with -m maskclip only" + ("; needs geoovseg[siglip]" if "SigLIP" in arch else ""),
    )


def _tips(size: str, megabytes: int, about: str) -> ModelCard:
    """TIPSv2, whose patches are trained to agree with words."""
    return ModelCard(
        name=f"tipsv2-{size}",
        arch="tipsv2",
        tower="tips",
        repo=f"google/tipsv2-{size}",
        files=("model.safetensors",),
        also=("config.json",),
        maybe=("tokenizer.json", "tokenizer.model", "tokenizer_config.json", "special_tokens_map.json"),
        mean=(0.0, 0.0, 0.0),
        std=(1.0, 1.0, 1.0),
        megabytes=megabytes,
        licence="Apache-2.0",
        about=f"{about}; with -m clip only; needs geoovseg[tips]",
    )


CLIP = (
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
        "977e3dd0ec55ab8da155f2fbeb6b5f54948b6e3d",
        599,
        "the default, and the model of most published tables",
    ),
    _openai(
        "ViT-B-32/openai",
        "timm/vit_base_patch32_clip_224.openai",
        "a6f597a30f7b82c51704746581f9a4e41421e878",
        605,
        "coarser and faster",
    ),
    _openai(
        "ViT-L-14/openai",
        "timm/vit_large_patch14_clip_224.openai",
        "18d0535469bb561bf468d76c1d73aa35156c922b",
        1710,
        "larger and slower",
    ),
    ModelCard(
        name="ViT-H-14/laion2b_s32b_b79k",
        arch="ViT-H-14",
        repo="laion/CLIP-ViT-H-14-laion2B-s32B-b79K",
        revision="1c2b8495b28150b8a4922ee1c8edee224c284c0c",
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
    _farslip(1, "ViT-B-16", 599, "mIoU 35.4 in the mean of eight sets by its authors, CLIP 32.3"),
    _farslip(2, "ViT-B-16", 599, "the second stage, mIoU 35.4"),
    _farslip(1, "ViT-B-32", 605, "mIoU 29.9"),
    _farslip(2, "ViT-B-32", 605, "the second stage, mIoU 30.5"),
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
OTHERS = (
    _pooled("ViT-B-16-SigLIP2/webli", 1501, "SigLIP 2"),
    _pooled("PE-Core-B-16/meta", 1791, "Perception Encoder"),
    _pooled("PE-Core-L-14-336/meta", 2685, "Perception Encoder, windows of 336"),
    _tips("b14", 784, "TIPSv2"),
    _tips("l14", 1948, "TIPSv2, larger"),
    ModelCard(
        name="sam3",
        arch="sam3",
        tower="sam3",
        repo="facebook/sam3",
        files=("model.safetensors",),
        also=("config.json",),
        mean=(0.5, 0.5, 0.5),
        std=(0.5, 0.5, 0.5),
        megabytes=3440,
        licence="SAM License (19 November 2025)",
        terms="Meta's SAM License must be accepted on the model hub, where access is asked for and granted. It allows "
        "use and changes, passing on under the same licence only, and asks for a word of thanks in publications; "
        "military, nuclear and espionage uses, weapons, and what trade controls forbid are not allowed, nor is reverse "
        "engineering",
        about="SAM 3, which is asked words; with -m segearth-ov3 and proc-sam3 only; needs geoovseg[sam3]",
    ),
)
