"""A scene that is read again and again: after an error its file is opened anew."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from types import TracebackType
from typing import TYPE_CHECKING, Any, TypeVar

import numpy as np
from numpy.typing import NDArray
from rasterio.windows import Window

from geoovseg.errors import SceneError
from geoovseg.network import is_remote

if TYPE_CHECKING:
    from geoovseg.scene.scene import Scene

Found = TypeVar("Found")
RETRY_AFTER = 0.2
"""Seconds after which what could not be read is tried once more."""
LEAST = 64
"""Side of pieces that are tried before single blocks where pixels cannot be read."""


class Renewed:
    """Reads of a scene; what GDAL failed to read once it may give as anything from the same open file."""

    def __init__(self, scene: Scene) -> None:
        self._given = scene
        self._now: Scene | None = scene
        self._opened = ExitStack()

    def read(self, how: Callable[[Scene], Found]) -> Found:
        """What is read of the scene. Raises SceneError, also where it cannot be opened any more."""
        try:
            if self._now is None:
                self._now = self._opened.enter_context(self._given.afresh())
            return how(self._now)
        except SceneError:
            self._now = None
            self._opened.close()
            raise

    def read_again(self, how: Callable[[Scene], Found]) -> Found:
        """The same, tried once more after a moment."""
        try:
            return self.read(how)
        except SceneError:
            time.sleep(RETRY_AFTER)
            return self.read(how)

    def in_pieces(self, window: Window) -> tuple[NDArray[np.float32], NDArray[np.bool_]]:
        """A window as `Scene.read` gives it, in pieces, down to blocks as they are stored; what fails lacks data.

        Of a scene elsewhere all of the window does: every piece might wait for a server that is gone.
        """
        found = np.zeros((4, window.height, window.width), np.float32)
        block = self._given.src.block_shapes[0]
        larger = tuple(-(-LEAST // side) * side for side in block)
        if not is_remote(self._given.path):
            self._read_into(found, window, window, list(dict.fromkeys((larger, block))))
        return found[:3], found[3] > 0

    def _read_into(self, found: NDArray[Any], whole: Window, part: Window, sides: Sequence[tuple[int, ...]]) -> None:
        """Put light and validity of a part where they belong in the whole, or of its own parts, of these sides."""
        down, right = part.row_off - whole.row_off, part.col_off - whole.col_off
        here = slice(down, down + part.height), slice(right, right + part.width)
        try:
            found[:3, *here], found[3, *here] = self.read(lambda now: now.read(part))
        except SceneError:
            if not sides:
                return
            for rows in _cut(part.row_off, part.height, sides[0][0]):
                for cols in _cut(part.col_off, part.width, sides[0][1]):
                    piece = Window(cols.start, rows.start, cols.stop - cols.start, rows.stop - rows.start)
                    self._read_into(found, whole, piece, sides[1:])

    def __enter__(self) -> Renewed:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self._opened.close()


def _cut(first: int, length: int, side: int) -> Iterator[slice]:
    """A line, cut where blocks end."""
    for start in range(first // side * side, first + length, side):
        yield slice(max(first, start), min(first + length, start + side))
