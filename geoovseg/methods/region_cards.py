"""Cards of the methods that see blocks with Segment Anything or with regions."""

from __future__ import annotations

from geoovseg.methods.fields import AS_PAPERS, Field, MethodCard, likeness, scale

MASK_ORDER = Field(
    "mask_order",
    "generator",
    "which of SAM's masks lie over others: those its generator ranks last (the releases), or the smallest (area)",
    choices=("generator", "area"),
    of_sam=True,
)


def _masks(name: str, default: float, about: str, *, at_least: float) -> Field:
    """A threshold of SAM's mask generator."""
    return Field(name, default, about, at_least=at_least, at_most=1, of_sam=True)


REGION_METHODS: dict[str, MethodCard] = {
    "trident": MethodCard(
        title="Trident",
        paper="Shi et al. 2025, Harnessing Vision Foundation Models for High-Performance, Training-Free Open "
        "Vocabulary Segmentation",
        about="Windows of CLIP put together, then aggregated and outlined by Segment Anything.",
        unit="probability",
        published={**AS_PAPERS, "tile": 336, "stride": 224},
        needs=("clip", "vfm", "sam"),
        vfm="dino_vitb16",
        sam="sam_vit_b",
        blocks=True,
        at_pixels=True,
        cost=3.2,
        fields=(
            scale(40, "Trident release"),
            *likeness("of all windows of a block (Trident release)", "(Trident release)"),
            Field(
                "mixing",
                "proxyclip",
                "how patches of a window are mixed: by likeness (proxyclip), or each keeps its own value (maskclip; "
                "Trident paper, table 3)",
                choices=("proxyclip", "maskclip"),
            ),
            Field(
                "cos_fac",
                1.2,
                "likeness of SAM's values that counts, by their mean likeness (Trident release; 0 for VOC20, 3 for "
                "Cityscapes)",
                at_least=0,
                at_most=100,
            ),
            Field(
                "refine_neg_cos",
                True,
                "leave thresholds of likeness below 0 as they are; false makes them 0.6 (Trident release; false for "
                "ADE20K and Cityscapes)",
            ),
            Field(
                "matrices",
                "both",
                "what patches of SAM are averaged by: attention where values are alike (both), their likeness there "
                "(cosine), all attention, or nothing (none; Trident paper, table 3)",
                choices=("both", "cosine", "attention", "none"),
            ),
            Field("halves", False, "SAM sees the left and the right half apart (Trident release, for Cityscapes)"),
            Field(
                "zoom",
                0.67,
                "pixels that CLIP sees for one of SAM's (ours; 0.6 to 0.67 in the release)",
                at_least=0.01,
                at_most=4,
            ),
            Field("refine", True, "outline regions by masks of SAM"),
            Field(
                "coarse_thresh",
                0.2,
                "least share for a pixel to belong to a region (Trident release; 0.05 to 0.25)",
                at_least=0,
                at_most=1,
            ),
            Field(
                "minimal_area",
                225.0,
                "least pixels of a region, at half the resolution of a block of 1024 (Trident release)",
                at_least=0,
                at_most=100_000,
            ),
            Field(
                "sam_iou_thresh",
                0.8,
                "least predicted quality of a mask (Trident release's configurations; 0.9 in its class)",
                at_least=-10,
                at_most=10,
            ),
            Field(
                "sam_mask_coff",
                0.005,
                "factor on shares in the mask prompt (Trident release)",
                at_least=0,
                at_most=1000,
            ),
            Field(
                "mask_prompt_layout",
                "official",
                "shape of the mask prompt: official is the release's, which SAM normalises over rows; sam is SAM's own",
                choices=("official", "sam"),
            ),
            Field(
                "prompts",
                "point+box+mask",
                "prompts that SAM is given of a region (Trident paper, table 5)",
                choices=("point+box+mask", "point", "box", "mask", "point+box", "point+mask", "box+mask"),
            ),
            Field(
                "pamr_steps",
                0,
                "steps of refinement by colour (PAMR; what the paper compares masks of SAM with)",
                at_least=0,
                at_most=1000,
            ),
        ),
        build="geoovseg.methods.trident:build",
    ),
    "corrclip": MethodCard(
        title="CorrCLIP",
        paper="Zhang et al. 2024, CorrCLIP: Reconstructing Patch Correlations in CLIP for Open-Vocabulary Semantic "
        "Segmentation",
        about="Patches attend within regions, weighted by how similar a vision model finds them.",
        unit="cosine",
        gives="features",
        votes="correct",
        published={**AS_PAPERS, "tile": 336, "stride": 112},
        needs=("clip", "vfm", "regions"),
        vfm="dino_vitb8",
        sam="sam_vit_b",
        blocks=True,
        at_pixels=True,
        cost=2.2,
        sam_seconds=361,
        fields=(
            scale(40, "CorrCLIP release"),
            Field("tau", 4.0, "sharpness of the likeness (CorrCLIP release)", at_least=0.001, at_most=10_000),
            Field(
                "distance",
                0.2,
                "merge regions whose similarity is this close to the highest (CorrCLIP release, DBSCAN eps)",
                at_least=0,
                at_most=2,
            ),
            Field("alpha", 1.0, "share of the middle blocks (CorrCLIP release)", at_least=0, at_most=100),
            Field("beta", 0.5, "share of the regions' own tokens (CorrCLIP release)", at_least=0, at_most=100),
            Field("correct", True, "each region takes the class of most of its pixels (CorrCLIP release)"),
            Field(
                "points",
                32,
                "point prompts on a side of a block, for regions by SAM (SAM's default; 8 costs 0.6 mIoU in the "
                "release's table)",
                at_least=1,
                at_most=128,
                of_sam=True,
            ),
            Field(
                "iou",
                0.88,
                "least predicted quality of SAM's masks (SAM's default)",
                at_least=0,
                at_most=1,
                of_sam=True,
            ),
            Field(
                "stability", 0.95, "least stability of SAM's masks (SAM's default)", at_least=0, at_most=1, of_sam=True
            ),
            MASK_ORDER,
        ),
        build="geoovseg.methods.corrclip:build",
    ),
    "resegclip": MethodCard(
        title="ReSeg-CLIP",
        paper="Heidarianbaei et al. 2026, Open-Vocabulary Semantic Segmentation in Remote Sensing via Hierarchical "
        "Attention Masking and Model Composition",
        about="In the last blocks patches attend only within regions of Segment Anything.",
        unit="cosine",
        gives="features",
        published={**AS_PAPERS, "sam": "sam_vit_h", "stride": 50, "settings": {"exact": True, "output": "code"}},
        needs=("clip", "regions"),
        sam="sam_vit_b",
        blocks=True,
        at_pixels=True,
        cost=1.0,
        sam_seconds=231,
        fields=(
            scale(50, "as SegEarth-OV; the release takes the bare cosine"),
            Field(
                "order",
                "code",
                "regions of the last blocks from fine to coarse (code: the release) or from coarse to fine (paper)",
                choices=("code", "paper"),
            ),
            Field(
                "layers",
                6,
                "how many of the last blocks of 24 have masks, in other towers as large a part; a third of them leave "
                "each patch to itself (paper: 6 is best of 0, 1, 3, 6, 12, 18)",
                at_least=0,
                at_most=24,
            ),
            Field(
                "output",
                "paper",
                "paper: cosines of patches brought to pixels; code: features brought to pixels, then shares of bare "
                "cosines, which are all close to 1 / words and useless for --threshold",
                choices=("paper", "code"),
            ),
            Field(
                "average",
                "cosines",
                "what is averaged over windows: cosines (ours), or shares of the words (paper), whose sharpness is "
                "`scale`; with output=code always shares",
                choices=("cosines", "shares"),
            ),
            Field(
                "sets",
                "4/0.5/0.5/500+2/0.6/0.6/500+2/0.5/0.5/1000+2/0.5/0.5/2000",
                "what SAM is asked for the blocks with regions, one set after the other: points on a side, least "
                "quality, least stability, least pixels (ReSeg-CLIP release, config.yml)",
                like=r"\d{1,3}/[01](\.\d+)?/[01](\.\d+)?/\d{1,6}(\+\d{1,3}/[01](\.\d+)?/[01](\.\d+)?/\d{1,6}){0,23}",
                of_sam=True,
            ),
            Field(
                "exact",
                False,
                "find regions for every window as the paper does, not once for squares that do not overlap (ours)",
                of_sam=True,
            ),
            Field(
                "iou",
                -1.0,
                "least predicted quality of SAM's masks; below 0 that of each set",
                at_least=-1,
                at_most=1,
                of_sam=True,
            ),
            Field(
                "stability",
                -1.0,
                "least stability of SAM's masks; below 0 that of each set",
                at_least=-1,
                at_most=1,
                of_sam=True,
            ),
            MASK_ORDER,
        ),
        build="geoovseg.methods.resegclip:build",
    ),
}
