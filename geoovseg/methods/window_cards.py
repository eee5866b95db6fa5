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
    "resclip": MethodCard(
        title="ResCLIP",
        paper="Yang et al. 2025, ResCLIP: Residual Attention for Training-free Dense Vision-language Inference",
        about="Attention of middle blocks added to the last, corrected by a first segmentation.",
        published=AS_PAPERS,
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
    "reattnclip": MethodCard(
        title="ReAttnCLIP",
        paper="Niu et al. 2026, ReAttnCLIP: Training-Free Open-Vocabulary Remote Sensing Image Segmentation via "
        "Re-defined Attention in CLIP (code not released)",
        about="Patches attend to patches that stay alike when the image is turned.",
        unit="cosine",
        gives="features",
        cost=4.4,
        fields=(
            scale(50, "as SegEarth-OV, whose tail it keeps"),
            Field(
                "class_token_weight",
                -0.3,
                "weight of the whole window's score added to every patch; negative subtracts it (not in the paper; "
                "SegEarth-OV's)",
            ),
            Field("alpha", 0.2, "share of the turned images' similarity (paper)", at_least=0.001, at_most=1000),
            Field("beta", 0.8, "share of the middle blocks' attention (open; 1 - alpha)", at_least=0, at_most=1000),
            Field(
                "turned",
                0.4,
                "weight of each of the three turned images beside the upright one's 1 (paper)",
                at_least=0,
                at_most=100,
            ),
            Field(
                "middle_first", 6, "first of the middle blocks, from 0 (open; inside 6 to 9)", at_least=0, at_most=10
            ),
            Field(
                "middle_count",
                4,
                "how many middle blocks, those before the last (open; 6 to 9)",
                at_least=1,
                at_most=10,
            ),
            Field(
                "temperature",
                0.0,
                "sharpness of the similarity; 0 is the root of the tower's width (open; the paper's x x / root d gives "
                "rows that drown the middle blocks)",
                at_least=0,
                at_most=10_000,
            ),
            Field("exclude_self", False, "leave out the similarity of a patch with itself (ours)"),
            Field(
                "compared_first",
                9,
                "first of the blocks that are compared in rotations, from 0 (paper)",
                at_least=0,
                at_most=11,
            ),
            Field(
                "compared_count",
                3,
                "how many blocks are compared, up to the last (paper: 9 to 11)",
                at_least=1,
                at_most=12,
            ),
            Field("patches", True, "patches attend as told; false: as in the last block (ablation)"),
            Field(
                "class_row", True, "the class token attends as in the middle blocks; false: as in the last (ablation)"
            ),
            Field(
                "zero_column",
                True,
                "patches see nothing of the class token; false: as much as in the last block (ablation)",
            ),
        ),
        build="geoovseg.methods.reattnclip:build",
    ),
}
