"""Cards of the methods that see blocks of windows."""

from __future__ import annotations

from geoovseg.methods.fields import AS_PAPERS, Field, MethodCard

KK = "kk"
"""The plainest score model for `base`: key-key attention."""
BASES = ("segearth", KK, "clip", "maskclip", "sclip", "clearclip", "naclip", "gem", "resclip", "reattnclip")


def base(default: str, source: str) -> Field:
    """Another method as the score model."""
    about = (
        "the method whose scores it starts from, without class token; kk is key-key; its own settings are called "
        f"base.NAME, as in base.residual=false ({source})"
    )
    return Field("base", default, about, choices=BASES)


def _direct(
    title: str, about: str, cost: float, fields: tuple[Field, ...], build: str, *, mass_power: float
) -> MethodCard:
    """One of Direct's two answers; `fields` are those that the other has not."""
    common = (
        base(KK, "paper"),
        Field(
            "threshold",
            0.5,
            "confidence a patch needs to speak for a class (open; the paper's drop is below 0.5)",
            at_least=0,
            at_most=1,
        ),
        Field(
            "sharpness",
            30.0,
            "factor on cosines before the softmax over patches (open)",
            at_least=0.001,
            at_most=10_000,
        ),
        Field(
            "mass_power",
            mass_power,
            "how much the mass of a class's sure patches counts; 0 is the paper's (ours)",
            at_least=0,
            at_most=10,
        ),
        Field(
            "attention_blocks",
            0,
            "blocks of the vision model, from the last, whose attention is averaged; 0 is 4, and all of a CLIP, whose "
            "last blocks attend to few patches (open; the paper averages layers)",
            at_least=0,
            at_most=1000,
        ),
        Field("sd_step", 1, "time step of Stable Diffusion's one pass (open; M2N2: 100)", at_least=0, at_most=999),
        Field(
            "sd_layers",
            "0.5+0.5+0",
            "weights of the self-attentions of Stable Diffusion's last block (M2N2)",
            like=r"(?=.*[1-9])\d(\.\d{1,3})?(\+\d(\.\d{1,3})?){0,2}",
        ),
        Field("jbu", True, "bring the answer to pixels by joint bilateral upsampling (paper, eq. 23)"),
    )
    return MethodCard(
        title=title,
        paper="Li et al. 2026, Direct Segmentation without Logits Optimization for Training-Free Open-Vocabulary "
        "Semantic Segmentation, arXiv 2604.07723 (code not available to us)",
        about=about,
        unit="probability",
        needs=("clip", "vfm"),
        vfm="dinov2_vitb14_reg4",
        attention=True,
        blocks=True,
        jbu=True,
        cost=cost,
        fields=(*common, *fields),
        build=build,
    )


BLOCK_METHODS: dict[str, MethodCard] = {
    "coninfer": MethodCard(
        title="ConInfer",
        paper="Chen et al. 2026, ConInfer: Context-Aware Inference for Training-Free Open-Vocabulary Remote Sensing "
        "Segmentation",
        about="Patches of 49 windows that a vision model finds similar correct each other's labels.",
        unit="posterior",
        published=AS_PAPERS,
        needs=("clip", "vfm"),
        vfm="dinov3_vitl16_sat",
        blocks=True,
        cost=2.0,
        fields=(
            base("segearth", "ConInfer release, model_type"),
            Field(
                "attn_lambda",
                0.6,
                "share of earlier blocks' attention in the last, for bases that only change the last block (ConInfer "
                "release; 0.1 on UAVid, Vaihingen, xBD)",
                at_least=0,
                at_most=1,
            ),
            Field(
                "fused",
                "1+4+7+10",
                "the earlier blocks of 12, from 0, whose attention is added (ConInfer release)",
                like=r"(\d|10)(\+(\d|10)){0,10}",
            ),
            Field(
                "temperature",
                50.0,
                "how little similarity counts beside words (ConInfer release, gmm_temp; 150 on iSAID)",
                at_least=0.1,
                at_most=100_000,
            ),
            Field(
                "by_length",
                False,
                "the temperature follows the vision model's features: times their length / 1024, for which it was set "
                "(ours)",
            ),
            Field(
                "update",
                "code",
                "labels z of words p and likeness q: p q as released (code), or root(p q), which is what the paper's "
                "objective asks for (paper)",
                choices=("code", "paper"),
            ),
            Field(
                "components",
                "word",
                "a component of the mixture for every word as released, or for every class as the paper says",
                choices=("word", "class"),
            ),
            Field(
                "joint",
                True,
                "labels and mixture decide each other; false: the mixture follows the words alone (the paper's "
                "decoupled ablation as we read it)",
            ),
            Field(
                "context",
                "group",
                "group: a mixture for every block, as the release for 50 images; scene: one for the whole scene, so "
                "that neighbouring blocks never disagree (ours)",
                choices=("group", "scene"),
            ),
            Field(
                "sample",
                50,
                "windows of the scene its mixture is fitted to, with context=scene (ours)",
                at_least=1,
                at_most=500,
            ),
        ),
        build="geoovseg.methods.coninfer:build",
    ),
    "direct-op": _direct(
        title="Direct, optimal path",
        about="A patch takes the class that reaches it most over a vision model's attention.",
        cost=9.6,
        mass_power=0.5,
        fields=(
            Field("epsilon", 0.1, "entropy of the transport (paper)", at_least=0.01, at_most=1000),
            Field("iterations", 50, "Sinkhorn iterations (paper)", at_least=1, at_most=1000),
        ),
        build="geoovseg.methods.direct:optimal_path_method",
    ),
    "direct-mv": _direct(
        title="Direct, maximum velocity",
        about="A patch takes the class that reaches it first over a vision model's attention.",
        cost=9.2,
        mass_power=0.0,
        fields=(
            Field(
                "reach",
                0.3,
                "share of its maximum at which a class counts as arrived (paper's tau; criterion of M2N2)",
                at_least=0.001,
                at_most=0.999,
            ),
            Field(
                "max_steps",
                40,
                "steps after which a class never arrives (open; 10 is faster)",
                at_least=1,
                at_most=10_000,
            ),
            Field(
                "sweeps", 15, "rounds of normalising columns and rows to a sum of 1 (paper)", at_least=0, at_most=1000
            ),
        ),
        build="geoovseg.methods.direct:maximum_velocity_method",
    ),
}
