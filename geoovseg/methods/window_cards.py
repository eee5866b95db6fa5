"""Cards of the methods that see one window at a time."""

from __future__ import annotations

from geoovseg.methods.fields import AS_PAPERS, Field, MethodCard, likeness, residual, scale, sigma

WINDOW_METHODS: dict[str, MethodCard] = {
    "clip": MethodCard(
        title="CLIP",
        paper="Radford et al. 2021, Learning Transferable Visual Models From Natural Language Supervision",
        about="CLIP's patch tokens read out as they are: the baseline.",
        towers=("clip", "tips"),
        published=AS_PAPERS,
        unit="cosine",
        gives="features",
        fields=(residual(True, "as trained"), scale(50, "SegEarth-OV and ClearCLIP releases")),
        build="geoovseg.methods.last_block:clip",
    ),
    "maskclip": MethodCard(
        title="MaskCLIP",
        paper="Zhou et al. 2022, Extract Free Dense Labels from CLIP",
        about="Every patch keeps its own value in the last block.",
        towers=("clip", "pooled"),
        published=AS_PAPERS,
        unit="cosine",
        gives="features",
        fields=(
            residual(True, "as the release and all later papers run it"),
            scale(50, "SegEarth-OV and ClearCLIP releases; MaskCLIP itself takes the best word without one"),
            Field(
                "original", False, "resize position tables and pad windows as the mmseg release, not as later papers"
            ),
            Field(
                "denoise",
                0.0,
                "words whose best share in a window stays below this score -100; 0 is off (release, pd_thresh, "
                "suggested 0.5)",
                at_least=0,
                at_most=1,
            ),
            Field(
                "smooth",
                0.0,
                "patches less sure than this take scores of patches with similar keys; 0 is off (release, ks_thresh, "
                "suggested 1.0); scores are then not cosines, so confidence means little",
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
        published=AS_PAPERS,
        unit="cosine",
        gives="features",
        fields=(residual(True, "SCLIP release"), scale(40, "SCLIP release; 50 and 65 on three of its data sets")),
        build="geoovseg.methods.last_block:sclip",
    ),
    "clearclip": MethodCard(
        title="ClearCLIP",
        paper="Lan et al. 2024, ClearCLIP: Decomposing CLIP Representations for Dense Vision-Language Inference",
        about="Patches attend to patches with similar queries; no skip connection, no feed-forward part.",
        published=AS_PAPERS,
        unit="cosine",
        gives="features",
        fields=(residual(False, "the paper's main point"), scale(50, "ClearCLIP release")),
        build="geoovseg.methods.last_block:clearclip",
    ),
    "naclip": MethodCard(
        title="NACLIP",
        paper="Hajimiri et al. 2024, Pay Attention to Your Neighbours: Training-Free Open-Vocabulary Semantic "
        "Segmentation",
        about="Key-key attention that prefers near patches; no skip connection, no feed-forward part.",
        published=AS_PAPERS,
        unit="cosine",
        gives="features",
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
        published=AS_PAPERS,
        unit="cosine",
        gives="features",
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
                "rounds that pull similar tokens together (GEM release, ss_attn_iter)",
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
    "segearth": MethodCard(
        title="SegEarth-OV",
        paper="Li et al. 2024, SegEarth-OV: Towards Training-Free Open-Vocabulary Segmentation for Remote Sensing "
        "Images",
        about="Sum of three self-attentions, less the class token's global bias.",
        published={**AS_PAPERS, "upsample": "jbu_one"},
        unit="cosine",
        gives="features",
        fields=(
            residual(False, "SegEarth-OV release, ignore_residual"),
            scale(50, "SegEarth-OV release, logit_scale"),
            Field(
                "class_token_weight",
                -0.3,
                "weight of the whole window's score added to every patch; negative subtracts it, 0 ignores it "
                "(SegEarth-OV release, cls_token_lambda)",
            ),
        ),
        build="geoovseg.methods.last_block:segearth",
    ),
    "proxyclip": MethodCard(
        title="ProxyCLIP",
        paper="Lan et al. 2024, ProxyCLIP: Proxy Attention Improves CLIP for Open-Vocabulary Segmentation",
        about="CLIP's values, averaged over patches that a vision model finds similar.",
        published={**AS_PAPERS, "tile": 336, "stride": 112},
        unit="cosine",
        gives="features",
        needs=("clip", "vfm"),
        vfm="dino_vitb8",
        cost=1.9,
        fields=(
            scale(40, "ProxyCLIP release"),
            *likeness("(ProxyCLIP release; 1.0 to 1.6)", "(ProxyCLIP release; 2 to 5)"),
        ),
        build="geoovseg.methods.proxyclip:build",
    ),
}
