"""A set of tiles, or of files of bands, as one scene; labels cut back to each tile."""

from geoovseg.tiles.cut import per_tile as per_tile
from geoovseg.tiles.join import as_one as as_one
from geoovseg.tiles.stack import as_stack as as_stack
