"""Every method, as data: paper, settings with their published values and sources, and where its code is."""

from __future__ import annotations

from geoovseg.methods.block_cards import BLOCK_METHODS
from geoovseg.methods.fields import MethodCard
from geoovseg.methods.region_cards import REGION_METHODS
from geoovseg.methods.window_cards import WINDOW_METHODS

METHODS: dict[str, MethodCard] = {**WINDOW_METHODS, **BLOCK_METHODS, **REGION_METHODS}
"""By their names on the command line."""
