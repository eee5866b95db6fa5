"""A scene that is read again and again: after an error its file is opened anew."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import ExitStack
from types import TracebackType
from typing import TYPE_CHECKING, TypeVar

from geoovseg.errors import SceneError

if TYPE_CHECKING:
    from geoovseg.scene.scene import Scene

Found = TypeVar("Found")


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

    def __enter__(self) -> Renewed:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self._opened.close()
