"""From a method's card to the method: its settings, and the models it is given."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from torch import Tensor

from geoovseg.errors import MethodError
from geoovseg.methods import BASE, KK_AS, Method, card, load_method, read_settings
from geoovseg.methods.block_cards import KK
from geoovseg.models.vit import ClipVit
from geoovseg.vocabulary import Vocabulary


def builder(name: str, make: Callable[..., Any]) -> Callable[..., Any]:
    """What the card of `name` points to: `make(clip, text, **settings)` with every setting of the card.

    What the card says that it uses is given besides: `vfm`, `sam`, `regions`, the score model in place of the setting
    `base`, `vocabulary` for blocks and methods of classes, and `cut` for blocks.
    """

    def build(
        clip: ClipVit,
        text: Tensor,
        vocabulary: Vocabulary,
        *,
        vfm: Any = None,
        sam: Any = None,
        regions: Any = None,
        base: Method | str | None = None,
        cut: Any = None,
        **fields: Any,
    ) -> Any:
        entry = card(name)
        if clip.kind not in entry.towers:
            raise MethodError(f"{name} cannot read this image tower ({type(clip).__name__})")
        named = {"base": base} if isinstance(base, str) else {}
        given: dict[str, Any] = read_settings(name, {**fields, **named})
        of_base = {name.removeprefix(BASE): given.pop(name) for name in list(given) if name.startswith(BASE)}
        if "base" in given:
            chosen = given["base"]
            given["base"] = score_model(chosen, clip, text, vocabulary, of_base) if base is None or named else base
        for kind, model in (("vfm", vfm), ("sam", sam), ("regions", regions)):
            if kind in entry.needs:
                given[kind] = _needed(name, kind, model)
        if entry.blocks or entry.of_classes:
            given["vocabulary"] = vocabulary
        if entry.blocks:
            given["cut"] = cut
        return make(clip, text, **given)

    return build


def _needed(name: str, kind: str, model: Any) -> Any:
    """What a method cannot do without. Raises MethodError."""
    if model is None:
        what = {"vfm": "a vision model", "sam": "Segment Anything", "regions": "a region map"}[kind]
        raise MethodError(f"{name} needs {what}; see --{kind}")
    return model


def score_model(
    base: str, clip: ClipVit, text: Tensor, vocabulary: Vocabulary, own: Mapping[str, Any] | None = None
) -> Method:
    """The method whose scores another one starts from, without the class token's bias; `kk` is key-key attention.

    `own` are settings of it that come before these.
    """
    name = KK_AS if base == KK else base
    settings: dict[str, Any] = {"mixing": KK} if base == KK else {}
    if any(f.name == "class_token_weight" for f in card(name).fields):
        settings["class_token_weight"] = 0.0
    return load_method(name, clip, text, vocabulary, settings={**settings, **(own or {})})
