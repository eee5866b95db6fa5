"""Every method, as data: paper, settings with their published values and sources, and where its code is."""

from __future__ import annotations

import warnings
from collections.abc import Iterator, MutableMapping
from functools import cached_property
from importlib.metadata import entry_points

from geoovseg.errors import GeoOVSegWarning, first_line
from geoovseg.methods.block_cards import BLOCK_METHODS
from geoovseg.methods.concept_cards import CONCEPT_METHODS
from geoovseg.methods.fields import MethodCard
from geoovseg.methods.layer_cards import LAYER_METHODS
from geoovseg.methods.region_cards import REGION_METHODS
from geoovseg.methods.window_cards import WINDOW_METHODS

GROUP = "geoovseg.methods"
"""Entry points of other packages: `name = "module:CARD"`."""
OWN: dict[str, MethodCard] = {
    **WINDOW_METHODS, **LAYER_METHODS, **BLOCK_METHODS, **REGION_METHODS, **CONCEPT_METHODS,
}  # fmt: skip
"""Those of this package."""


def others() -> dict[str, MethodCard]:
    """Methods that other installed packages bring; what cannot be used is left out with a warning."""
    found: dict[str, MethodCard] = {}
    for point in entry_points(group=GROUP):
        try:
            card = point.load()
            if not isinstance(card, MethodCard):
                raise TypeError(f"it is a {type(card).__name__}, no MethodCard")
            if point.name in OWN:
                raise ValueError("geoovseg has a method of that name")
            found[point.name] = card
        except Exception as error:  # whatever another package does must not keep anybody from the rest
            message = f"the method {point.name} of {point.value} cannot be used: {first_line(error)}"
            warnings.warn(message, GeoOVSegWarning, 2)
    return found


class Methods(MutableMapping[str, MethodCard]):
    """Methods by name: our own, and those of other packages once somebody asks, since they may import us."""

    @cached_property
    def _cards(self) -> dict[str, MethodCard]:
        return {**OWN, **others()}

    def __getitem__(self, name: str) -> MethodCard:
        return self._cards[name]

    def __setitem__(self, name: str, card: MethodCard) -> None:
        self._cards[name] = card

    def __delitem__(self, name: str) -> None:
        del self._cards[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._cards)

    def __len__(self) -> int:
        return len(self._cards)


METHODS = Methods()
"""By their names on the command line."""
