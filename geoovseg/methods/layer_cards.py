"""Cards of the methods that also use attention of earlier blocks: ResCLIP, ReAttnCLIP."""

from __future__ import annotations

from geoovseg.methods.fields import AS_PAPERS, Field, MethodCard, scale, sigma

LAYER_METHODS: dict[str, MethodCard] = {
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
    "reattnclip": MethodCard(
        title="ReAttnCLIP",
        paper="Niu et al. 2026, ReAttnCLIP: Training-Free Open-Vocabulary Remote Sensing Image Segmentation via "
        "Re-defined Attention in CLIP (code not released)",
        about="Patches attend to patches that stay alike when the image is turned.",
        unit="cosine",
        gives="features",
        cost=3.9,
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
                "betas",
                "",
                "shares of the middle blocks one by one instead, as in 0.1+0.2+0.2+0.3 (paper's beta of a layer)",
                like=r"(\d{1,3}(\.\d+)?(\+\d{1,3}(\.\d+)?)*)?",
            ),
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
            Field(
                "literal",
                False,
                "similarity x x / root d as the paper prints it, whose values drown the middle blocks; else a softmax "
                "of cosines (ours)",
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
            Field(
                "own",
                "clip",
                "the last block's attention, where it stands for a part that is off: CLIP's, or the mean of "
                "SegEarth-OV's three",
                choices=("clip", "segearth"),
            ),
        ),
        build="geoovseg.methods.reattnclip:build",
    ),
}
