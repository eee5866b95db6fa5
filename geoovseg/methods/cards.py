"""What each method is, as data: paper, settings with their published values and sources, and where its code is."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

Value = bool | int | float | str


@dataclass(frozen=True)
class Field:
    """A setting of a method, for `--set name=value`."""

    name: str
    default: Value
    about: str
    """what it does, and the equation, section or file its value comes from"""
    above: float | None = None
    """the value must be larger than this"""
    at_least: float | None = None
    """the value must not be smaller than this"""
    at_most: float | None = None
    """the value must not be larger than this"""
    choices: tuple[str, ...] = ()
    """for texts: what it can be"""

    @property
    def kind(self) -> str:
        """What a value must be, for a message."""
        if isinstance(self.default, bool):
            return "true or false"
        if isinstance(self.default, str):
            return " or ".join(self.choices)
        bound = f" above {self.above:g}" if self.above is not None else ""
        bound += f" of {self.at_least:g} or more" if self.at_least is not None and self.at_most is None else ""
        bound += f" from {self.at_least:g} to {self.at_most:g}" if self.at_most is not None else ""
        return f"a {'whole number' if isinstance(self.default, int) else 'number'}{bound}"

    def holds(self, number: float) -> bool:
        """Whether a number lies within the bounds; not-a-number never does."""
        if self.above is not None and not number > self.above:
            return False
        if self.at_least is not None and not number >= self.at_least:
            return False
        if self.at_most is not None and not number <= self.at_most:
            return False
        return number == number


@dataclass(frozen=True, kw_only=True)
class MethodCard:
    """What a method is, without loading it."""

    title: str
    paper: str
    about: str
    """one sentence for a user"""
    unit: Literal["cosine", "probability", "posterior"]
    needs: tuple[str, ...] = ("clip",)
    """kinds of models it uses"""
    cost: float = 1.0
    """time per window relative to clip"""
    confidence: bool = True
    """whether its scores map to 0..1, which --threshold and --confidence need"""
    fields: tuple[Field, ...] = ()
    build: str
    """module:callable"""


def residual(default: bool, source: str) -> Field:
    """The setting most methods have."""
    return Field("residual", default, f"keep the last block's skip connections and feed-forward part ({source})")


def scale(default: float, source: str) -> Field:
    """The sharpness of a softmax over cosines."""
    return Field("scale", float(default), f"factor on cosines before the softmax ({source})", above=0)


def sigma(source: str) -> Field:
    """The reach of NACLIP's neighbourhood."""
    about = f"reach of the neighbourhood, in patches (NACLIP release, {source})"
    return Field("sigma", 5.0, about, at_least=0.01, at_most=1000)


METHODS: dict[str, MethodCard] = {
    "clip": MethodCard(
        title="CLIP",
        paper="Radford et al. 2021, Learning Transferable Visual Models From Natural Language Supervision",
        about="CLIP's patch tokens read out as they are: the baseline.",
        unit="cosine",
        fields=(residual(True, "as trained"), scale(50, "SegEarth-OV and ClearCLIP releases")),
        build="geoovseg.methods.last_block:clip",
    ),
    "maskclip": MethodCard(
        title="MaskCLIP",
        paper="Zhou et al. 2022, Extract Free Dense Labels from CLIP",
        about="Every patch keeps its own value in the last block.",
        unit="cosine",
        fields=(
            residual(True, "as the release and all later papers run it"),
            scale(50, "SegEarth-OV and ClearCLIP releases; MaskCLIP itself takes the best word without one"),
            Field(
                "original", False, "resize position tables and pad windows as the mmseg release, not as later papers"
            ),
            Field(
                "denoise",
                0.0,
                "words that no patch of a window is surer of than this score -100; 0 is off (release, pd_thresh, "
                "suggested 0.5)",
                at_least=0,
                at_most=1,
            ),
            Field(
                "smooth",
                0.0,
                "patches less sure than this take scores from patches with like keys; 0 is off (release, ks_thresh, "
                "suggested 1.0); scores are then no cosines, so leave confidence aside",
                at_least=0,
                at_most=1,
            ),
        ),
        build="geoovseg.methods.maskclip:build",
    ),
    "sclip": MethodCard(
        title="SCLIP",
        paper="Wang et al. 2023, SCLIP: Rethinking Self-Attention for Dense Vision-Language Inference",
        about="Sum of query-query and key-key attention in the last block.",
        unit="cosine",
        fields=(residual(True, "SCLIP release"), scale(40, "SCLIP release; 50 and 65 on three of its data sets")),
        build="geoovseg.methods.last_block:sclip",
    ),
    "clearclip": MethodCard(
        title="ClearCLIP",
        paper="Lan et al. 2024, ClearCLIP: Decomposing CLIP Representations for Dense Vision-Language Inference",
        about="Patches attend to patches that ask alike; no skip connection, no feed-forward part.",
        unit="cosine",
        fields=(residual(False, "the paper's main point"), scale(50, "ClearCLIP release")),
        build="geoovseg.methods.last_block:clearclip",
    ),
    "naclip": MethodCard(
        title="NACLIP",
        paper="Hajimiri et al. 2024, Pay Attention to Your Neighbours: Training-Free Open-Vocabulary Semantic "
        "Segmentation",
        about="Key-key attention that prefers near patches; no skip connection, no feed-forward part.",
        unit="cosine",
        fields=(
            residual(False, "NACLIP release, arch=reduced; its arch=vanilla is true"),
            scale(40, "NACLIP release"),
            sigma("gaussian_std; SegEarth-OV's copy takes 1"),
            Field(
                "mixing",
                "naclip",
                "kk drops the neighbourhood, csa is SCLIP's, vanilla CLIP's own, nonly the neighbourhood alone (NACLIP "
                "release, attn_strategy)",
                choices=("naclip", "kk", "csa", "vanilla", "nonly"),
            ),
        ),
        build="geoovseg.methods.last_block:naclip",
    ),
    "gem": MethodCard(
        title="GEM",
        paper="Bousselham et al. 2024, Grounding Everything: Emerging Localization Properties in Vision-Language "
        "Transformers",
        about="A second stream through the last six blocks, of values averaged over self-similar tokens.",
        unit="cosine",
        cost=1.4,
        fields=(
            scale(50, "as SegEarth-OV and ClearCLIP run it; GEM's own text 100 in batches, else 1"),
            Field(
                "depth",
                7,
                "one more than the blocks it replaces, counted from the last (GEM release)",
                at_least=2,
                at_most=1000,
            ),
            Field(
                "iterations",
                1,
                "rounds that pull like tokens together (GEM release, ss_attn_iter)",
                at_least=1,
                at_most=100,
            ),
            Field(
                "temperature",
                0.0,
                "sharpness of its attentions; 0 takes it from the tokens' lengths (GEM release, ss_attn_temp)",
                at_least=0,
                at_most=10_000,
            ),
            Field(
                "accumulate",
                True,
                "add up the blocks' outputs; false keeps the last one's only, as ClearCLIP and SegEarth-OV do with "
                "ignore_residual",
            ),
        ),
        build="geoovseg.methods.gem:build",
    ),
    "resclip": MethodCard(
        title="ResCLIP",
        paper="Yang et al. 2025, ResCLIP: Residual Attention for Training-free Dense Vision-language Inference",
        about="Attention of middle blocks added to the last, corrected by a first segmentation.",
        unit="cosine",
        cost=1.3,
        fields=(
            scale(40, "ResCLIP release; also sharpens the first segmentation"),
            Field(
                "mixing",
                "naclip",
                "the attention it corrects (ResCLIP release, attn_strategy, where naclip is called resclip)",
                choices=("naclip", "clearclip", "sclip", "vanilla"),
            ),
            Field(
                "residual",
                "auto",
                "keep the last block's skip connections and feed-forward part; auto: with sclip and vanilla (ResCLIP "
                "release, arch)",
                choices=("auto", "true", "false"),
            ),
            sigma("gaussian_std, of the neighbourhood and of the smoothing"),
            Field("rcs", True, "add the attention of the middle blocks (residual cross-correlation self-attention)"),
            Field("rcs_gain", 2.0, "factor on the sum (ResCLIP release, attn_rcs_weights)", at_least=0, at_most=100),
            Field("rcs_share", 0.3, "share of the middle blocks (ADE20K; 0.2 to 0.6 on others)", at_least=0, at_most=1),
            Field("sfr", True, "correct by a first segmentation (semantic feedback refinement)"),
            Field(
                "sfr_gain",
                2.1,
                "factor on the corrected logits (ADE20K; 1.8 to 2.2 on others, attn_sfr_weights)",
                at_least=0,
                at_most=100,
            ),
            Field("sfr_share", 0.7, "share of the feedback (ADE20K; 0.6 to 0.7 on others)", at_least=0, at_most=1),
            Field(
                "sure",
                0.25,
                "pixels of the first segmentation below this take the first word (ADE20K; 0.1 to 0.5 on others, "
                "temp_thd)",
                at_least=0,
                at_most=1,
            ),
            Field(
                "path_check",
                True,
                "count patches of one word less when another lies between (ResCLIP release, delete_same_entity)",
            ),
            Field("half", False, "round the feedback to float16, as the release does (changes scores by 4e-4 at most)"),
        ),
        build="geoovseg.methods.resclip:build",
    ),
    "segearth": MethodCard(
        title="SegEarth-OV",
        paper="Li et al. 2024, SegEarth-OV: Towards Training-Free Open-Vocabulary Segmentation for Remote Sensing",
        about="Sum of three self-attentions, less the class token's global bias.",
        unit="cosine",
        fields=(
            residual(False, "SegEarth-OV release, ignore_residual"),
            scale(50, "SegEarth-OV release, logit_scale"),
            Field(
                "class_token_weight",
                -0.3,
                "how much of the whole window's own score patches are given; negative takes it off, 0 ignores it "
                "(SegEarth-OV release, cls_token_lambda)",
            ),
        ),
        build="geoovseg.methods.last_block:segearth",
    ),
}
"""Every method by its name on the command line."""
