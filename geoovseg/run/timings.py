"""What methods took on this machine, kept between runs, so that a dry run need not load a model to know."""

from __future__ import annotations

import hashlib
import json
import math
import os
import platform
import timeit
from collections.abc import Iterator, Mapping
from contextlib import suppress
from dataclasses import asdict, dataclass, replace
from typing import Any, NamedTuple

import numpy as np

from geoovseg import machine
from geoovseg.methods import card, read_settings
from geoovseg.models.cards import DEMO, DEMO_DIR, OWN, SOURCES, Kind, model_card
from geoovseg.models.kept import keep, kept
from geoovseg.models.weights import find_weights
from geoovseg.run.layout import Needs, TileBytes
from geoovseg.settings import UPSAMPLERS, Settings
from geoovseg.usage import package_version

Size = tuple[int, int]
PACKAGED = DEMO_DIR / "paces.json"
"""What methods took on the demo model when it was packaged; `benchmarks/demo_paces.py` writes it."""
DAMAGED = (OSError, RuntimeError, ValueError, LookupError, TypeError, AttributeError, ArithmeticError)
"""What reading a file raises that is not what was kept."""


class TileTime(NamedTuple):
    """By one tile of a size."""

    method: TileBytes
    """memory that the method takes besides"""
    seconds: float
    process_mb: float
    """memory of the process with the models loaded"""
    words: int
    """that scores were computed of"""

    def is_like(self, words: int) -> bool:
        """Whether so many words would take about as long."""
        fewer, more = sorted((self.words, words))
        return more <= 2 * fewer + 30

    def asked(self, words: int, word_cost: float) -> TileTime:
        """The same with so many words, each of which adds a part of the time without words."""
        return self._replace(seconds=self.seconds * (1 + word_cost * words) / (1 + word_cost * self.words), words=words)


@dataclass(frozen=True, kw_only=True)
class Timings:
    """What a method on its models asks for, and what it took when it was last loaded here."""

    needs: Needs
    tiles: Mapping[Size, TileTime]
    """by height and width of what is seen; smaller than usual in small scenes"""

    def of(self, seen: Size, words: int) -> TileTime | None:
        """What a tile of a size would take with so many words, if that is known."""
        taken = self.tiles.get(seen)
        return taken if taken is not None and taken.is_like(words) else None

    def to_json(self) -> str:
        """As it is kept."""
        tiles = [[*size, *taken.method, *taken[1:]] for size, taken in self.tiles.items()]
        return json.dumps({"needs": asdict(self.needs), "tiles": tiles})

    @classmethod
    def from_json(cls, text: str) -> Timings:
        """As it was kept. Raises one of DAMAGED for anything else."""
        said = json.loads(text)
        needs = {key: type(kind)(said["needs"][key]) for key, kind in asdict(_ANY).items()}
        if min(needs[name] for name in ("tile", "stride", "patch", "micro_batch")) < 1:
            raise ValueError(f"sizes of {needs}")
        return cls(needs=Needs(**needs), tiles=dict(_taken(*row) for row in said["tiles"]))


_ANY = Needs(
    tile=1,
    stride=1,
    patch=1,
    least=0,
    micro_batch=1,
    by_word=False,
    memory=0,
    cell=0,
    depth=0,
    reach=0,
    regions=False,
)


def _taken(
    height: int, width: int, fixed: float, a_word: float, seconds: float, process_mb: float, words: int
) -> tuple[Size, TileTime]:
    """A row of what was kept. Raises ValueError for what cannot be."""
    numbers = [float(number) for number in (fixed, a_word, seconds, process_mb)]
    if not all(0 <= number < math.inf for number in numbers):
        raise ValueError(f"a tile that took {numbers}")
    method = TileBytes(numbers[0], numbers[1])
    return (int(height), int(width)), TileTime(method, numbers[2], numbers[3], int(words))


def known_timings(settings: Settings) -> Timings | None:
    """What is known of these settings on this machine; for the demo model, by what it took on another one."""
    return _kept(settings) or _packaged(settings)


def keep_timings(settings: Settings, timings: Timings) -> Timings:
    """Add to what is known; returns all of it. A folder that cannot be written costs time later, never a run."""
    if (before := _kept(settings)) is not None:
        timings = replace(
            timings, tiles={**before.tiles, **{s: _least(before, s, t) for s, t in timings.tiles.items()}}
        )
    with suppress(OSError, RuntimeError):
        keep("pace", _name(settings), timings.to_json().encode())
    return timings


def _least(before: Timings, size: Size, taken: TileTime) -> TileTime:
    """With the least memory known: a process may hold more than a run of ours."""
    known = before.of(size, taken.words)
    return taken if known is None else taken._replace(process_mb=min(known.process_mb, taken.process_mb))


def product_seconds() -> float:
    """How long this machine takes for a product of matrices: the best of a few tries, by numpy."""
    side = np.ones((512, 512), np.float32)
    return min(timeit.repeat(lambda: side @ side, number=4, repeat=5))


def _kept(settings: Settings) -> Timings | None:
    """None if nothing is, or it cannot be read."""
    with suppress(*DAMAGED):
        return Timings.from_json((kept("pace", _name(settings)) or b"").decode())
    return None


def _packaged(settings: Settings) -> Timings | None:
    """What came with the demo model for methods as they are by default, if it would run on this machine's CPU."""
    usual = Settings(method=settings.method, model=DEMO, device=settings.device)
    if settings.device not in ("auto", "cpu") or machine.gpus() or _what(settings) != _what(usual):
        return None
    said = json.loads(PACKAGED.read_text(encoding="utf-8"))
    if settings.method not in said["methods"]:
        return None
    timings = Timings.from_json(json.dumps(said["methods"][settings.method]))
    slower = product_seconds() / said["product_seconds"]
    tiles = {size: taken._replace(seconds=taken.seconds * slower) for size, taken in timings.tiles.items()}
    return replace(timings, needs=replace(timings.needs, memory=machine.memory()), tiles=tiles)


def _name(settings: Settings) -> str:
    """Named after all that changes how long a tile takes: settings, weights, versions, and the machine."""
    versions = [package_version(name) for name in ("geoovseg", "torch", "open_clip_torch", "timm")]
    what = [_what(settings), list(_weights(settings)), versions, list(_machine())]
    key = hashlib.sha256(json.dumps(what, sort_keys=True).encode()).hexdigest()[:40]
    return f"{key}.json"


def _what(settings: Settings) -> dict[str, Any]:
    """The settings that change how long a tile takes."""
    source = settings.regions_from
    names = ("method", "model", "vfm", "sam", "upsampled_by", "tile", "stride", "speed", "block", "device", "precision")
    return {
        **{name: getattr(settings, name) for name in (*names, "batch_size")},
        "settings": read_settings(settings.method, settings.settings),
        "regions": source if source in (None, *SOURCES) else "a file",
    }


def _weights(settings: Settings) -> Iterator[Any]:
    """The files of all models in use, as they are now."""
    method = card(settings.method)
    names: list[tuple[str | None, Kind]] = [(settings.model, "clip"), (settings.sam_name, "sam")]
    names.append((settings.vfm or method.vfm if "vfm" in method.needs else None, "vfm"))
    names.append((None if settings.upsampled_by in UPSAMPLERS else settings.upsampled_by, "upsampler"))
    for name, kind in names:
        if name is None or (kind == "vfm" and name in OWN):
            yield name
        else:
            path = find_weights(model_card(name, kind))
            at = path.stat()
            yield name, str(path.resolve()), at.st_size, at.st_mtime_ns


def _machine() -> Iterator[Any]:
    """What decides its speed."""
    yield platform.node()
    yield machine.cores()
    yield machine.gpus()
    yield machine.memory()
    for name in ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "CUDA_VISIBLE_DEVICES"):
        yield os.environ.get(name)
