"""The registry: what each method is, as data; a method's code is loaded when it is used."""

from __future__ import annotations

import importlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal, Protocol

from geoovseg.errors import MethodError, did_you_mean

if TYPE_CHECKING:
    from rasterio.windows import Window
    from torch import Tensor

    from geoovseg.models.vit import ClipVit
    from geoovseg.scene import TileBatch
    from geoovseg.vocabulary import Vocabulary

Value = bool | int | float | str
LARGEST = 1e6
"""Settings are smaller than this; no published one comes near, and float32 holds what is made of them."""


class Method(Protocol):
    """A configured method: it sees windows and says how much each is like each word."""

    @property
    def tile(self) -> int:
        """Side of the square the method sees, in working-grid pixels."""

    @property
    def stride(self) -> int:
        """Step between windows."""

    @property
    def patch(self) -> int:
        """What tile must be a multiple of."""

    @property
    def unit(self) -> Literal["cosine", "probability", "posterior"]:
        """What the scores are."""

    @property
    def scale(self) -> float:
        """Factor on cosines before the softmax over classes."""

    def prepare(self, read: Callable[[Window], TileBatch]) -> None:
        """Look at samples of the scene, once before the stream."""

    def scores(self, batch: TileBatch) -> Tensor:
        """Query scores (B, Q, h, w), finite float32; (h, w) may be coarser than the tile."""


@dataclass(frozen=True)
class Field:
    """A setting of a method, for `--set name=value`."""

    name: str
    default: Value
    about: str
    """what it does, and the equation, section or file its value comes from"""
    above: float | None = None
    """the value must be larger than this"""


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


def _last_block(name: str) -> str:
    return f"geoovseg.methods.last_block:{name}"


def _fields(residual: bool, source: str) -> tuple[Field, ...]:
    return (
        Field("residual", residual, f"keep the last block's skip connections and feed-forward part ({source})"),
        Field("scale", 50.0, "factor on cosines before the softmax (SegEarth-OV release, logit_scale)", above=0),
    )


METHODS: dict[str, MethodCard] = {
    "clip": MethodCard(
        title="CLIP",
        paper="Radford et al. 2021, Learning Transferable Visual Models From Natural Language Supervision",
        about="CLIP's patch tokens read out as they are: the baseline.",
        unit="cosine",
        fields=_fields(True, "as trained"),
        build=_last_block("clip"),
    ),
    "maskclip": MethodCard(
        title="MaskCLIP",
        paper="Zhou et al. 2022, Extract Free Dense Labels from CLIP",
        about="Every patch keeps its own value in the last block.",
        unit="cosine",
        fields=_fields(True, "as all later papers run it"),
        build=_last_block("maskclip"),
    ),
    "clearclip": MethodCard(
        title="ClearCLIP",
        paper="Lan et al. 2024, ClearCLIP: Decomposing CLIP Representations for Dense Vision-Language Inference",
        about="Patches attend to patches that ask alike; no skip connection, no feed-forward part.",
        unit="cosine",
        fields=_fields(False, "section 3.3"),
        build=_last_block("clearclip"),
    ),
    "segearth": MethodCard(
        title="SegEarth-OV",
        paper="Li et al. 2024, SegEarth-OV: Towards Training-Free Open-Vocabulary Segmentation for Remote Sensing",
        about="Sum of three self-attentions, less the class token's global bias.",
        unit="cosine",
        fields=(
            *_fields(False, "section 3.4"),
            Field(
                "class_token_weight",
                -0.3,
                "how much of the whole window's own score patches are given; negative takes it off, 0 ignores it "
                "(SegEarth-OV release, cls_token_lambda)",
            ),
        ),
        build=_last_block("segearth"),
    ),
}
"""Every method by its name on the command line."""


def card(name: str) -> MethodCard:
    """The card of a method. Raises MethodError with the list of names."""
    if name not in METHODS:
        raise MethodError(f"no method named {name!r}{did_you_mean(name, METHODS)}; choose from {', '.join(METHODS)}")
    return METHODS[name]


def read_settings(name: str, settings: Mapping[str, str | Value]) -> dict[str, Value]:
    """All fields of a method with the user's values, converted to the type of the default. Raises MethodError."""
    fields = {f.name: f for f in card(name).fields}
    unknown = [s for s in settings if s not in fields]
    if unknown:
        raise MethodError(f"{name} has no setting {unknown[0]!r}; it has {', '.join(fields) or 'none'}")
    return {n: _convert(name, f, settings[n]) if n in settings else f.default for n, f in fields.items()}


def _convert(method: str, field: Field, value: str | Value) -> Value:
    text = str(value).strip().lower()
    try:
        if isinstance(field.default, bool):
            return {"true": True, "1": True, "yes": True, "false": False, "0": False, "no": False}[text]
        number = type(field.default)(value)
        if isinstance(number, float) and not (abs(number) < LARGEST and (field.above is None or number > field.above)):
            raise ValueError
        return number
    except (KeyError, ValueError) as error:
        kind = "true or false" if isinstance(field.default, bool) else f"a {type(field.default).__name__}"
        kind += f" above {field.above:g}" if field.above is not None else ""
        raise MethodError(f"{method}: --set {field.name}={value} is not {kind}") from error


def load_method(
    name: str,
    clip: ClipVit,
    text: Tensor,
    vocabulary: Vocabulary,
    *,
    vfm: Any = None,
    sam: Any = None,
    base: Method | None = None,
    settings: Mapping[str, str | Value] | None = None,
) -> Method:
    """Build a method on a model: `text` are unit word features (Q, D) in the order of `vocabulary.queries`.

    Raises MethodError for unknown names and settings.
    """
    module, _, attribute = card(name).build.partition(":")
    build = getattr(importlib.import_module(module), attribute)
    method: Method = build(clip, text, vocabulary, vfm=vfm, sam=sam, base=base, **(settings or {}))
    return method
