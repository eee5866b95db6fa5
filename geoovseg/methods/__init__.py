"""The registry: what each method is, as data; a method's code is loaded when it is used."""

from __future__ import annotations

import importlib
import re
from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import TYPE_CHECKING, Any, Literal, NamedTuple, Protocol, cast, runtime_checkable

from geoovseg import numerals
from geoovseg.errors import MethodError, did_you_mean
from geoovseg.methods.block_cards import KK
from geoovseg.methods.cards import METHODS as METHODS
from geoovseg.methods.fields import Field, Value
from geoovseg.methods.fields import MethodCard as MethodCard

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray
    from rasterio.windows import Window
    from torch import Tensor

    from geoovseg.methods.blocks import Cut
    from geoovseg.methods.dense import Compare
    from geoovseg.models.vit import ClipVit
    from geoovseg.vocabulary import Vocabulary
    from geoovseg.windows.batch import TileBatch

LARGEST = 1e6
"""Settings are smaller than this; no published one comes near, and float32 holds what is made of them."""


BASE = "base."
"""Before the name of a setting of the method that another one starts from."""
KK_AS = "naclip"
"""The method whose ablation `base=kk` is."""


class Trial(NamedTuple):
    """Something to be timed: so many times as long is what it takes of a tile."""

    size: tuple[int, int]
    """rows and columns of what it sees"""
    together: int
    """how many of them; 0 for as many as go through the model together"""
    times: int
    """in a tile"""
    run: Callable[[TileBatch], Tensor | None]
    """scores, or nothing where it only prepares them"""


class Cost(NamedTuple):
    """What a tile takes in a method, beside its model."""

    fixed: float
    """bytes, whatever the words"""
    a_word: float
    """bytes for every word"""
    trials: tuple[Trial, ...] = ()
    """what tells how long a tile takes"""


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

    @property
    def notes(self) -> tuple[str, ...]:
        """What the run record should say beyond the settings, such as layers mapped to another depth."""

    @property
    def at_once(self) -> int | None:
        """For methods that see to their windows themselves, tiles to hand over together; None for any number."""

    @property
    def windows(self) -> tuple[int, int] | None:
        """(side, step) of the windows in a tile, for methods that see blocks of them."""

    @property
    def at_pixels(self) -> bool:
        """Whether scores are at pixels already, so that nothing is left to upsample."""

    @property
    def cell(self) -> int:
        """The side in pixels of what has one vector of features, where scores are linear in the words; else 0."""

    @property
    def depth(self) -> int:
        """Numbers of such a vector."""

    def cost(self, tile: tuple[int, int]) -> Cost:
        """What a tile (rows, columns) takes, beside the model."""

    def prepare(self, read: Callable[[Window], TileBatch], shape: tuple[int, int]) -> Mapping[str, Tensor]:
        """Look at samples of a scene (height, width), once in a run; returns the numbers it needs of them."""

    def use(self, prepared: Mapping[str, Tensor]) -> None:
        """Take what `prepare` returned, here or in another process of the run."""

    def scores(self, batch: TileBatch) -> Tensor:
        """Query scores (B, Q, h, w), finite float32; (h, w) may be coarser than the tile."""

    def vectors(self, batch: TileBatch) -> Tensor:
        """Of methods with cells: vectors (B, D, h, w), finite float32, whose products with words are the scores."""


@runtime_checkable
class Voting(Protocol):
    """A method with regions that may vote when its features are asked."""

    def region_ids(self, batch: TileBatch) -> NDArray[np.int32]:
        """The regions of tiles (B, H, W), 0 for none, that `vectors` then takes from the batch."""


def card(name: str) -> MethodCard:
    """The card of a method. Raises MethodError with the list of names."""
    if name not in METHODS:
        raise MethodError(f"no method named {name!r}{did_you_mean(name, METHODS)}; choose from {', '.join(METHODS)}")
    return METHODS[name]


def vote(name: str, settings: Mapping[str, str | Value]) -> bool:
    """Whether regions are to vote when features of a method are asked. Raises MethodError."""
    field = card(name).votes
    return field is not None and bool(read_settings(name, settings)[field])


def read_settings(name: str, settings: Mapping[str, str | Value]) -> dict[str, Value]:
    """All fields of a method with the user's values, converted to the type of the default; and what is set of its base.

    Settings of a method that is the base of another are called `base.NAME`; only those that are given are returned.
    Raises MethodError.
    """
    fields = {f.name: f for f in card(name).fields}
    of_base = {s.removeprefix(BASE): v for s, v in settings.items() if s.startswith(BASE) and "base" in fields}
    unknown = [s for s in settings if s not in fields and s.removeprefix(BASE) not in of_base]
    if unknown:
        raise MethodError(f"{name} has no setting {unknown[0]!r}; it has {', '.join(fields) or 'none'}")
    found = {n: _convert(name, f, settings[n]) if n in settings else f.default for n, f in fields.items()}
    if of_base:
        known = read_settings(KK_AS if found["base"] == KK else str(found["base"]), of_base)
        found |= {BASE + each: known[each] for each in of_base}
    return found


def _convert(method: str, field: Field, value: str | Value) -> Value:
    text = str(value).strip().lower()
    try:
        if isinstance(field.default, bool):
            return {"true": True, "1": True, "yes": True, "false": False, "0": False, "no": False}[text]
        if isinstance(field.default, str):
            return text if field.like and re.fullmatch(field.like, text) else {c: c for c in field.choices}[text]
        read = numerals.whole if isinstance(field.default, int) else numerals.number
        number = read(value) if isinstance(value, str) else type(field.default)(value)
        if not field.holds(number) or abs(number) >= LARGEST:
            raise ValueError
        return number
    except (KeyError, ValueError) as error:
        raise MethodError(f"{method}: --set {field.name}={value} is not {field.kind}") from error


def load_method(
    name: str,
    clip: ClipVit,
    text: Tensor,
    vocabulary: Vocabulary,
    *,
    vfm: Any = None,
    sam: Any = None,
    regions: Any = None,
    base: Method | None = None,
    cut: Cut | None = None,
    settings: Mapping[str, str | Value] | None = None,
) -> Method:
    """Build a method on a model: `text` are unit word features (Q, D) in the order of `vocabulary.queries`.

    For methods that use them: `vfm` is a vision model, `sam` Segment Anything, `regions` what makes region maps, `base`
    another method as score model, `cut` the sizes of blocks.

    Raises MethodError for unknown names and settings.
    """
    module, _, attribute = card(name).build.partition(":")
    build = getattr(importlib.import_module(module), attribute)
    fields = dict(settings or {})
    named = fields.pop("base", None)  # a setting by name goes where a method goes
    chosen = named if base is None else base
    method: Method = build(clip, text, vocabulary, vfm=vfm, sam=sam, regions=regions, base=chosen, cut=cut, **fields)
    return method


def upsampled(name: str, method: Method, compare: Compare) -> Method:
    """The same method with its features compared with the words at pixels. Raises MethodError if it has no features."""
    if getattr(method, "compare", None) is None:
        raise MethodError(f"{name} has no features to upsample, only scores; choose --upsample bilinear or guided")
    if getattr(method, "refine", None) is not None:
        raise MethodError(
            f"{name}, as set, refines scores of patches, which features upsampled to pixels do not have; leave its "
            "refinements off, or choose --upsample bilinear or guided"
        )
    return replace(cast("Any", method), compare=compare)
