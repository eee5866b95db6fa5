"""Functions that take every choice as a keyword, typed as in `Settings`, where alone they are listed."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from functools import wraps
from typing import Any, Concatenate, ParamSpec, Protocol, TypeVar

from geoovseg.settings import Settings, StrPath
from geoovseg.vocabulary import Classes

P = ParamSpec("P")
S = TypeVar("S", bound=Settings)
Self = TypeVar("Self")
R = TypeVar("R")
R_co = TypeVar("R_co", covariant=True)


class OnScene(Protocol[P, R_co]):
    """Called with a scene, classes, and choices as keywords."""

    def __call__(self, scene: StrPath, classes: Classes | None = None, *args: P.args, **kwargs: P.kwargs) -> R_co:
        """Do it."""


def on_scene(of: Callable[P, S]) -> Callable[[Callable[[StrPath, Classes | None, S], R]], OnScene[P, R]]:
    """Let a function of (scene, classes, settings) be called with choices as keywords."""

    def decorate(body: Callable[[StrPath, Classes | None, S], R]) -> OnScene[P, R]:
        @wraps(body)
        def call(scene: StrPath, classes: Classes | None = None, *args: P.args, **kwargs: P.kwargs) -> R:
            return body(scene, classes, of(*args, **kwargs))

        return _signed(call, of)

    return decorate


def on_init(
    of: Callable[P, S],
) -> Callable[[Callable[[Self, Classes | None, S], None]], Callable[Concatenate[Self, Classes | None, P], None]]:
    """Let an `__init__` of (self, classes, settings) be called with choices as keywords."""

    def decorate(
        body: Callable[[Self, Classes | None, S], None],
    ) -> Callable[Concatenate[Self, Classes | None, P], None]:
        @wraps(body)
        def call(self: Self, classes: Classes | None = None, *args: P.args, **kwargs: P.kwargs) -> None:
            body(self, classes, of(*args, **kwargs))

        return _signed(call, of)

    return decorate


def _signed(call: Any, of: Callable[..., Any]) -> Any:
    """With every choice in the signature, for help() and editors."""
    own = [
        p
        for p in inspect.signature(call, follow_wrapped=False).parameters.values()
        if p.kind is p.POSITIONAL_OR_KEYWORD
    ]
    call.__signature__ = inspect.Signature([*own, *inspect.signature(of).parameters.values()])
    return call
