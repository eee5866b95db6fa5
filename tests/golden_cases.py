"""Cases of numbers from the authors' own code: found in folders, read by what their case.json lists."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property, partial
from pathlib import Path
from typing import Any

import numpy as np
import open_clip
import pytest
import torch
from safetensors.torch import load_file
from segment_anything.modeling import ImageEncoderViT, MaskDecoder, PromptEncoder, TwoWayTransformer
from segment_anything.modeling import Sam as SegmentAnything
from timm.models.vision_transformer import VisionTransformer
from torch import nn

from geoovseg.methods import load_method
from geoovseg.models.cards import IMAGENET_MEAN, IMAGENET_STD
from geoovseg.models.sam import Sam
from geoovseg.models.vfm import TimmVfm
from geoovseg.models.vit import ClipVit
from geoovseg.vocabulary import parse_classes

NO_TEXT = {"context_length": 4, "vocab_size": 8, "width": 8, "heads": 1, "layers": 1}
"""For cases whose model is an image tower alone."""
TINY_SAM: dict[str, Any] = {
    "image_encoder": {
        "depth": 2, "embed_dim": 12, "img_size": 128, "mlp_ratio": 2, "num_heads": 2, "patch_size": 16,
        "qkv_bias": True, "use_rel_pos": True, "global_attn_indexes": [1], "window_size": 6, "out_chans": 16,
        "norm_eps": 1e-6,
    },
    "prompt_encoder": {
        "embed_dim": 16, "image_embedding_size": [8, 8], "input_image_size": [128, 128], "mask_in_chans": 4,
    },
    "mask_decoder": {
        "num_multimask_outputs": 3,
        "transformer": {"depth": 2, "embedding_dim": 16, "mlp_dim": 32, "num_heads": 4},
        "transformer_dim": 16, "iou_head_depth": 3, "iou_head_hidden_dim": 16,
    },
    "pixel_mean": [123.675, 116.28, 103.53],
    "pixel_std": [58.395, 57.12, 57.375],
}  # fmt: skip
"""Segment Anything of two tiny blocks, for images of 128 pixels."""
HERE = Path(__file__).parent


@dataclass(frozen=True)
class Case:
    """One case folder."""

    path: Path

    @cached_property
    def meta(self) -> dict[str, Any]:
        return json.loads((self.path / "case.json").read_text())

    @cached_property
    def inputs(self) -> dict[str, torch.Tensor]:
        return load_file(self.path / "inputs.safetensors")

    @cached_property
    def outputs(self) -> dict[str, torch.Tensor]:
        return load_file(self.path / "outputs.safetensors")

    @cached_property
    def clip(self) -> open_clip.CLIP:
        """The case's model; attn_mask is a buffer, and some cases hold one tower only."""
        return self.tower()

    @cached_property
    def vit(self) -> ClipVit:
        return ClipVit(self.clip.visual)

    def tower(self, **changed: Any) -> open_clip.CLIP:
        """The model with arguments of its constructor changed."""
        given = json.loads((self.path / "config.json").read_text())
        given.pop("note", None)
        model = open_clip.CLIP(**{"text_cfg": NO_TEXT, **given, **changed})
        state = {k: v.float() for k, v in load_file(self.path / "weights.safetensors").items()}
        model.load_state_dict(state, strict=False)
        return model.eval().requires_grad_(False)

    def pixels(self, name: str) -> torch.Tensor:
        """An image (B, 3, H, W) in 0..1; the case's normalisation is CLIP's, which towers apply themselves."""
        return self.inputs[name].float() / 255

    def entries(self) -> Iterator[tuple[dict[str, Any], str]]:
        """Outputs with the entry that lists them."""
        for entry in self.meta.get("entries", ()):
            for output in entry["outputs"]:
                yield entry, output

    def tolerance(self, output: str) -> dict[str, float]:
        """atol and rtol of an output, from the entry that lists it or from the case."""
        for entry in self.meta.get("entries", ()):
            if output in entry["outputs"]:
                found = entry.get("tol") or entry.get("tolerance")
                break
        else:
            found = self.meta.get("tol") or self.meta.get("tolerance")
        found = found.get("logits", found) if isinstance(found, dict) else {}
        return {"atol": float(found.get("atol", 2e-5)), "rtol": float(found.get("rtol", 1e-4))}


def folders() -> list[Path]:
    """Case folders: of $GEOOVSEG_GOLDEN, else those in this tree and in the shared data; the first of a name wins."""
    given = os.environ.get("GEOOVSEG_GOLDEN")
    default = [HERE / "golden", HERE.parents[1] / "shared" / "golden"]
    roots = [Path(p) for p in given.split(os.pathsep)] if given else default
    cases = [p.parent for root in roots if root.is_dir() for p in sorted(root.glob("*/case.json"))]
    return cases if given else list({p.name: p for p in reversed(cases)}.values())[::-1]


def _outputs(meta: Mapping[str, Any]) -> list[str]:
    listed = meta.get("outputs") or meta.get("what") or ()
    return [*listed, *(o for e in meta.get("entries", ()) for o in e["outputs"])]


def _reseg(meta: Mapping[str, Any], output: str) -> bool:
    return meta.get("method") == "reseg_clip" and output in meta["tensors"]["outputs"]


KINDS = {
    "dense": lambda meta: any(o.count("/") == 2 for e in meta.get("entries", ()) for o in e["outputs"]),
    "segearth": lambda meta: meta.get("method") == "SegEarth-OV" and "cls_token_lambda" in meta.get("hyper", ()),
    "text": lambda meta: "words" in meta and "prompt_token_ids_raw" in meta.get("inputs", ()),
    "jbu": lambda meta: any(o in ("jbu_one.out", "adaptive_conv.out") for o in _outputs(meta)),
    "pamr": lambda meta: any(re.search(r"iter\d+\.dil[\d_]+\.out", o) for o in _outputs(meta)),
    "slide": lambda meta: any("/slide.logits" in o for o in _outputs(meta)),
    "direct_op": lambda meta: meta.get("method") == "direct_op",
    "direct_mv": lambda meta: meta.get("method") == "direct_mv",
    "direct_jbu": lambda meta: meta.get("method") == "direct_jbu",
    "pvsm": lambda meta: {"intra", "inter", "margin"} <= set(meta.get("tensors", {}).get("outputs", ())),
    "proxyclip": lambda meta: meta.get("method") == "proxyclip",
    "trident_affinity": lambda meta: meta.get("method") == "trident" and not meta.get("weights"),
    "trident_splice": lambda meta: meta.get("method") == "trident" and meta.get("weights") == ["clip"],
    "trident_refine": lambda meta: meta.get("method") == "trident" and meta.get("weights") == ["sam"],
    "trident_e2e": lambda meta: meta.get("method") == "trident" and len(meta.get("weights", ())) == 3,
    "corrclip": lambda meta: meta.get("method") == "corrclip",
    "reseg_masks": lambda meta: _reseg(meta, "patch_ids.s0"),
    "reseg_dense": lambda meta: _reseg(meta, "cos_up"),
    "reseg_infer": lambda meta: _reseg(meta, "final_probs"),
    "reattnclip": lambda meta: meta.get("method") == "reattnclip",
    "dinov3": lambda meta: any(o.endswith(".patch") for o in _outputs(meta)),
    "coninfer_gmm": lambda meta: any(o.endswith(".z_trace") for o in _outputs(meta)),
    "coninfer_e2e": lambda meta: {"dino_features", "z"} <= set(_outputs(meta)),
}


def kinds(case: Case) -> list[str]:
    """What a case is, told by what its case.json lists and not by its folder's name."""
    return [kind for kind, fits in KINDS.items() if fits(case.meta)]


def find(kind: str) -> list[Case]:
    """Cases of a kind. Raises LookupError where there is none, unless $GEOOVSEG_GOLDEN names folders of some kinds."""
    found = [case for case in map(Case, folders()) if kind in kinds(case)]
    if not found and not os.environ.get("GEOOVSEG_GOLDEN"):
        raise LookupError(f"no golden case of the kind {kind}: a test of none would pass")
    return found


def each(kind: str, names: Callable[[Case], Iterable[Any]]) -> list[Any]:
    """Parameters (case, name), or (case, *name), for all that is to be compared of every case of a kind.

    Raises LookupError for a case in which there is nothing.
    """
    found = []
    for case in find(kind):
        rows = [name if isinstance(name, tuple) else (name,) for name in names(case)]
        if not rows:
            raise LookupError(f"nothing is compared of {case.path}, a case of the kind {kind}")
        found += [pytest.param(case, *row, id=f"{case.path.name}-{row[-1]}") for row in rows]
    return found


def compared(case: Case, parameters: Iterable[Any]) -> set[str]:
    """Outputs of a case that parameters of `each` are for."""
    return {str(one.values[-1]) for one in parameters if one.values[0].path == case.path}


def build(
    vit: ClipVit,
    name: str,
    text: torch.Tensor | None = None,
    *,
    vfm: Any = None,
    sam: Any = None,
    regions: Any = None,
    cut: Any = None,
    vocabulary: Any = None,
    **settings: Any,
) -> Any:
    """A method as the tool builds it, with its published settings unless given."""
    words = torch.eye(1, vit.dim) if text is None else text
    named = vocabulary or parse_classes([",".join(f"word{n}" for n in range(len(words)))])
    return load_method(name, vit, words, named, vfm=vfm, sam=sam, regions=regions, cut=cut, settings=settings)


def loaded(model: nn.Module, case: Case, name: str) -> Any:
    """A model with the case's weights of that name."""
    state = {k: v.float() for k, v in load_file(case.path / f"weights-{name}.safetensors").items()}
    model.load_state_dict(state, strict=False)
    return model.eval().requires_grad_(False)


def config(case: Case, name: str) -> dict[str, Any]:
    """Constructor arguments of a case's model."""
    return json.loads((case.path / f"config-{name}.json").read_text())


def clip_model(case: Case) -> ClipVit:
    """The case's CLIP, where it is one of several models."""
    return ClipVit(loaded(open_clip.CLIP(**config(case, "clip")), case, "clip").visual)


def vision_model(case: Case, name: str) -> TimmVfm:
    """The case's vision model."""
    given = config(case, name)
    family, eps = given.pop("family"), given.pop("norm_eps")
    model = VisionTransformer(**given, norm_layer=partial(nn.LayerNorm, eps=eps), dynamic_img_size=True)
    rule = "offset" if family == "dino" else "timm"
    return TimmVfm(family, loaded(model, case, name), IMAGENET_MEAN, IMAGENET_STD, rule)


def sam_model(case: Case) -> Sam:
    """The case's Segment Anything."""
    return Sam(loaded(small_sam(config(case, "sam")), case, "sam"))


def small_sam(given: Mapping[str, Any]) -> Any:
    """Segment Anything by constructor arguments, not initialised in any particular way."""
    encoder, decoder = dict(given["image_encoder"]), dict(given["mask_decoder"])
    norm = partial(nn.LayerNorm, eps=encoder.pop("norm_eps"))
    transformer = TwoWayTransformer(**decoder.pop("transformer"))
    return SegmentAnything(
        ImageEncoderViT(**encoder, norm_layer=norm),
        PromptEncoder(**given["prompt_encoder"]),
        MaskDecoder(transformer=transformer, **decoder),
        given["pixel_mean"],
        given["pixel_std"],
    )


def named_tolerance(case: Case, output: str) -> dict[str, float]:
    """atol and rtol of an output whose tolerance is a text."""
    found = dict(re.findall(r"(atol|rtol|mean|max|agreement >=) ([\d.e-]+)", case.meta["tolerance"][output]))
    return {key.removesuffix(" >="): float(value) for key, value in found.items()}


def check(found: torch.Tensor, expected: torch.Tensor, case: Case, name: str) -> None:
    """Within the tolerances a case names: per value, on average, or as a share of equal labels."""
    limits = named_tolerance(case, name) if name in case.meta["tolerance"] else {}
    off = (found.double() - expected.double()).abs()
    if "agreement" in limits:
        assert (off == 0).double().mean() >= limits["agreement"], name
    elif "max" in limits or "mean" in limits:
        assert off.mean() <= limits.get("mean", np.inf), name
        assert off.max() <= limits.get("max", np.inf), name
    else:
        np.testing.assert_array_less(off, limits.get("atol", 0) + limits.get("rtol", 0) * expected.abs() + 1e-12, name)


def case_id(value: object) -> str:
    return value.path.name if isinstance(value, Case) else str(value)


def sampled(name: str) -> tuple[str, int]:
    """`logits_s2` to (logits, 2): every second pixel of it was kept."""
    found = re.fullmatch(r"(.*)_s(\d+)", name)
    return (found[1], int(found[2])) if found else (name, 1)


def assert_close(actual: torch.Tensor, expected: torch.Tensor, tolerance: dict[str, float]) -> None:
    np.testing.assert_allclose(actual.detach().numpy(), expected.numpy(), **tolerance)


def assert_labels(actual: torch.Tensor, expected: torch.Tensor, scores: torch.Tensor) -> None:
    """Labels (..., H, W) are equal but where the two best of scores (..., C, H, W) differ by less than 1e-5.

    Of the others at most 0.1 % may differ, as the cases say.
    """
    top = scores.topk(2, dim=-3).values
    sure = (top[..., 0, :, :] - top[..., 1, :, :]) >= 1e-5
    wrong = (actual.long() != expected.long()) & sure
    assert wrong.float().mean() <= 1e-3
