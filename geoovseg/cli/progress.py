"""How far work is, on standard error: a bar on a terminal, elsewhere a line now and then."""

from __future__ import annotations

import json
import os
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from pathlib import PurePath
from threading import Lock
from typing import Any

from geoovseg.cli.output import BARS, talk
from geoovseg.errors import UsageError, printable
from geoovseg.files import is_store
from geoovseg.network import public
from geoovseg.usage import duration

SECONDS_BETWEEN_LINES = 10.0
SECONDS_BETWEEN_OBJECTS = 0.2
LETTERS = 24
"""Of a scene's name before a bar."""
Update = Callable[[int, int], None]
"""Called with (done, in all)."""
OVERALL = "{desc} {percentage:3.0f}%|{bar}| {elapsed}<{remaining}"
"""The bar of many scenes, which are of different sizes."""


FORM = ["auto"]
"""How progress is told in this process: `auto`, or `json`, an object a line."""


def set_form(value: str) -> str:
    """Take the form that `--progress` says. Raises UsageError."""
    if value not in ("auto", "json"):
        raise UsageError(f"--progress {value}: choose auto or json")
    FORM[0] = value
    return value


def objects(unit: str, scene: str, whole: Callable[[float], float] = lambda part: part) -> Update:
    """An object a line now and then, and at the end: done and total of a unit, and the part of all that is done."""
    last = -1.0

    def update(done: int, total: int) -> None:
        nonlocal last
        now = time.monotonic()
        if done < total and now - last < SECONDS_BETWEEN_OBJECTS:
            return
        last = now
        part = whole(done / max(total, 1))
        talk(json.dumps({"progress": round(part, 4), "done": done, "total": total, "unit": unit, "scene": scene}))

    return update


class Progress:
    """Progress through the scenes of a command: of several also how far all are, by the sizes of their files."""

    def __init__(self, scenes: Sequence[str], *, quiet: bool) -> None:
        self._sizes = {scene: _size(scene) for scene in scenes}
        self._quiet = quiet
        self._finished: set[str] = set()
        self._start = time.monotonic()
        self._bar: Any = None
        self._under_way: dict[str, float] = {}
        self._line: Update | None = None
        self._lock = Lock()

    @contextmanager
    def of(self, scene: str, *, shared: bool = False) -> Iterator[Update]:
        """What to tell of a scene; when the block ends, it is done with, well or not.

        With `shared`, several scenes are under way at once, and only how far all are is shown.
        """
        if FORM[0] == "json":
            yield objects(_unit(scene), _short(scene), partial(self._share, scene))
            self._finished.add(scene)
            return
        if shared and not self._quiet:
            yield lambda done, total: self._overall_of(scene, done / max(total, 1))
            self._overall_of(scene, 1.0)
            return
        if len(self._sizes) == 1:
            with progress_bar(self._quiet, _unit(scene), name=_short(scene)) as update:
                yield update
            return
        if self._quiet:
            yield lambda done, total: None
        elif sys.stderr.isatty():
            yield self._on_bar(scene)
        else:
            yield lines(_unit(scene), self._overall(scene))
        self._finished.add(scene)

    def _overall_of(self, scene: str, part: float) -> None:
        """Show how far all scenes are, of which one is so far."""
        with self._lock:
            self._under_way[scene] = part
            whole = sum(self._sizes.values())
            share = sum(self._sizes[each] * done for each, done in self._under_way.items()) / whole
            ended = sum(done == 1 for done in self._under_way.values())
            if sys.stderr.isatty():
                self._on_bar(scene, ended)
                self._bar.update(share - self._bar.n)
            elif part == 1:
                self._line = self._line or lines("scene")
                self._line(ended, len(self._sizes))

    def _share(self, scene: str, part: float) -> float:
        """What part of everything is done, with a part of a scene."""
        before = sum(self._sizes[other] for other in self._finished)
        return (before + part * self._sizes[scene]) / sum(self._sizes.values())

    def _overall(self, scene: str) -> Callable[[float], str]:
        def said(part: float) -> str:
            share = self._share(scene, part)
            left = (time.monotonic() - self._start) * (1 - share) / max(share, 1e-9)
            return f"; all scenes {share:.0%}, {duration(left)} left" if share < 1 else ""

        return said

    def _on_bar(self, scene: str, ended: int | None = None) -> Update:
        from tqdm import tqdm

        number = len(self._finished) + 1 if ended is None else ended

        if self._bar is None:
            self._bar = tqdm(total=1.0, file=sys.stderr, mininterval=0.2, bar_format=OVERALL)
            BARS.append(self._bar)
        self._bar.set_description_str(f"{number}/{len(self._sizes)} {_short(scene)}", refresh=False)

        def update(done: int, total: int) -> None:
            self._bar.update(self._share(scene, done / max(total, 1)) - self._bar.n)

        return update

    def close(self) -> None:
        """Take the bar away."""
        if self._bar is not None:
            BARS.remove(self._bar)
            self._bar.close()
            self._bar = None


def _size(scene: str) -> int:
    """Bytes of a file, which stand for the time it takes; 1 where that is not known."""
    return max(1, os.path.getsize(scene)) if os.path.isfile(scene) else 1


def _unit(scene: str) -> str:
    """What is counted of a scene: of kept features no window is seen."""
    return "part" if is_store(scene) else "window"


def _short(scene: str) -> str:
    name = printable(PurePath(public(scene)).name).encode(errors="replace").decode()
    return name if len(name) <= LETTERS else f"{name[: LETTERS - 3]}..."


@contextmanager
def progress_bar(quiet: bool, unit: str = "window", name: str = "") -> Iterator[Update]:
    """Progress of one thing, called `name`, with rate and remaining time."""
    if FORM[0] == "json":
        yield objects(unit, name)
    elif quiet:
        yield lambda done, total: None
    elif not sys.stderr.isatty():
        yield lines(unit)
    else:
        with _bar(unit, name) as update:
            yield update


@contextmanager
def _bar(unit: str, name: str) -> Iterator[Update]:
    """A bar that appears with the first batch, so that errors before it stand alone."""
    from tqdm import tqdm

    mine: list[Any] = []

    def update(done: int, total: int) -> None:
        if not mine:
            mine.append(tqdm(desc=name or None, total=total, unit=unit, unit_scale=unit == "B", mininterval=0.2))
            BARS.append(mine[0])
        mine[0].update(done - mine[0].n)

    try:
        yield update
    finally:
        for bar in mine:
            BARS.remove(bar)
            bar.close()


def lines(unit: str, more: Callable[[float], str] = lambda part: "") -> Update:
    """A line every ten seconds, and one at the end; `more` adds to those what it makes of the part that is done."""
    start = last = time.monotonic()
    shown = 0
    size, name = (1e6, "MB") if unit == "B" else (1, f"{unit}s")

    def update(done: int, total: int) -> None:
        nonlocal last, shown
        now = time.monotonic()
        if done <= shown or not (done == total or now - last >= SECONDS_BETWEEN_LINES):
            return
        last, shown = now, done
        rate = done / max(now - start, 1e-9)
        rest = f"{duration((total - done) / max(rate, 1e-9))} left" if done < total else f"in {duration(now - start)}"
        talk(f"{done / size:.0f} of {total / size:.0f} {name}, {rate / size:.1f} {name}/s, {rest}{more(done / total)}")

    return update
