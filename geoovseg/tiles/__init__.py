"""A set of tiles as one scene, and labels cut back to each of them."""

from geoovseg.tiles.cut import per_tile as per_tile
from geoovseg.tiles.join import as_one as as_one
