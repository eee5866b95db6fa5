"""Settings of methods, and what every method's card says; no code of any method."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

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
    like: str = ""
    """for texts that are no choice: the regular expression that the whole of it fits"""
    of_sam: bool = False
    """it says how Segment Anything finds regions, so that regions from elsewhere have no use for it"""

    @property
    def kind(self) -> str:
        """What a value must be, for a message."""
        if isinstance(self.default, bool):
            return "true or false"
        if isinstance(self.default, str):
            return " or ".join(self.choices) or f"as in {self.default or self.about}"
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
    gives: Literal["features", "scores"] = "scores"
    """features, linear in the words, which can be kept and asked others; or scores of the words"""
    votes: str | None = None
    """the field that says whether each region takes one class when its features are asked, if there is one"""
    needs: tuple[str, ...] = ("clip",)
    """kinds of models it uses"""
    vfm: str = ""
    """the vision model it uses unless told otherwise"""
    sam: str = ""
    """the Segment Anything it uses, or makes region maps with, unless told otherwise"""
    attention: bool = False
    """whether it looks at that model's attention, not at its features"""
    blocks: bool = False
    """whether it sees blocks of windows at once"""
    jbu: bool = False
    """whether it brings its answer to pixels itself, unless its setting `jbu` is off"""
    at_pixels: bool = False
    """whether its scores are at pixels already, so that nothing is left to upsample"""
    cost: float = 1.0
    """time per window relative to clip, with a vision model as large as the CLIP where one is used"""
    sam_seconds: int = 0
    """that the smallest Segment Anything takes for regions of 448 x 448 pixels on two cores, beside `cost`"""
    towers: tuple[str, ...] = ("clip",)
    """image towers that it can read: plain ones of CLIP, and others"""
    confidence: bool = True
    """whether its scores map to 0..1, which --threshold and --confidence need"""
    published: Mapping[str, Any] = field(default_factory=dict)
    """choices of a run by name, as its release makes them where ours are others; empty if there is no release"""
    own: Mapping[str, Any] = field(default_factory=dict)
    """choices of a run by name that are not as usual, since the method's model and scores are others"""
    counter_words: bool = True
    """whether `--background auto` adds some; not where scores say by themselves whether a word is there"""
    word_cost: float = 0.0
    """time that each word adds, by what a window takes without words"""
    of_classes: bool = False
    """whether it is told which words make a class"""
    not_kept: str = ""
    """why there are no features to keep, where that needs a word"""
    fields: tuple[Field, ...] = ()
    build: str
    """module:callable"""


AS_PAPERS: Mapping[str, Any] = {"upsample": "bilinear", "templates": "openai-80"}
"""What all releases of dense methods do."""


def residual(default: bool, source: str) -> Field:
    """The setting most methods have."""
    return Field(
        "residual", default, f"keep the skip connections and the feed-forward part of the last block ({source})"
    )


def scale(default: float, source: str) -> Field:
    """The sharpness of a softmax over cosines."""
    return Field("scale", float(default), f"factor on cosines before the softmax ({source})", above=0)


def likeness(beta: str, gamma: str) -> tuple[Field, Field]:
    """ProxyCLIP's two settings of attention by likeness; `beta` and `gamma` say where their values come from."""
    return (
        Field("beta", 1.2, f"likeness that counts, by the mean likeness {beta}", at_least=0, at_most=100),
        Field("gamma", 3.0, f"sharpness of the likeness {gamma}", at_least=0.001, at_most=10_000),
    )


def sigma(source: str) -> Field:
    """The reach of NACLIP's neighbourhood."""
    about = f"reach of the neighbourhood, in patches (NACLIP release, {source})"
    return Field("sigma", 5.0, about, at_least=0.01, at_most=1000)
