"""What is said of a model: where its weights come from, under which licence, how large they are."""

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
Tower = Literal["clip", "pooled", "tips", "sam3"]
"""A plain CLIP; one that ends in attention pooling (SigLIP 2, PE-Core); TIPSv2; SAM 3, which is no CLIP."""
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
    revision: str | None = None
    """commit of the repository that is fetched; its newest if there is none, or if the hub no longer has it"""
    files: tuple[str, ...] = FILES
    """names the weights go by there, the preferred one first"""
    tower: Tower = "clip"
    """what its image tower is, by which methods can read it"""
    attention_only: bool = False
    """for a vfm: it has no features"""
    also: tuple[str, ...] = ()
    """other files of the repository that belong to them"""
    maybe: tuple[str, ...] = ()
    """more such files, if they are there"""
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
