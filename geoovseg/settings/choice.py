"""What a single choice may be, and how the command line writes it; what choices mean together is not known here."""

from __future__ import annotations

import math
import os
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, fields
from functools import wraps
from numbers import Real
from typing import Any, TypeVar

from geoovseg import numerals
from geoovseg.errors import UsageError, did_you_mean

Kind = TypeVar("Kind")
GROUPS = ("What", "Method", "Image", "Place", "Speed and memory", "Run", "Output")
"""What choices are about, in the order of help."""
_DEVICE = re.compile(r"auto|cpu|mps|cuda(:[0-9]{1,3})?")
Check = Callable[[str, Any], Any]
"""Given the option and a value, returns the value as it is kept, or raises UsageError."""


@dataclass(frozen=True)
class Choice:
    """What is said of a choice besides its name, type and default."""

    about: str
    group: str
    default: Any
    check: Check
    flags: tuple[str, ...] = ()
    """on the command line, if not the name"""
    metavar: str | None = None
    bare: str | None = None
    """its value where the option stands alone on the command line"""
    names: Callable[[], Sequence[str]] | None = None
    """what a shell completes"""


def option_of(name: str) -> str:
    """How the command line calls a choice."""
    return "--set" if name == "settings" else f"--{name.replace('_', '-')}"


def text(option: str, value: Any) -> str:
    """Some text, or a path."""
    text = os.fspath(value) if isinstance(value, str | os.PathLike) else b""
    if not text or isinstance(text, bytes) or "\0" in text:
        raise UsageError(f"{option} {value!r} must be text")
    return text


def one_of(*names: str) -> Check:
    """One of these words."""

    def check(option: str, value: Any) -> str:
        if value not in names:
            raise UsageError(f"{option} {value}: choose {' or '.join(names)}")
        return str(value)

    return check


def number(wanted: str, holds: Callable[[float], bool], whole: bool = False) -> Check:
    """A finite number for which `holds` is true; `wanted` says that in a message, after `must`."""

    def check(option: str, value: Any) -> float:
        number = isinstance(value, Real) and not isinstance(value, bool) and math.isfinite(value)
        if not number or not holds(value) or (whole and value != int(value)):
            raise UsageError(f"{option} {value} must {wanted}")
        return int(value) if whole else float(value)

    return check


PIXELS = number("be a positive number, at most 1e9", lambda n: 0 < n <= 1e9, whole=True)
PROCESSES = number("be at least 1, at most 1024", lambda n: 1 <= n <= 1024, whole=True)
AMOUNT = number("be a positive number, at most 1e15", lambda n: 0 < n <= 1e15)


def flag(option: str, value: Any) -> bool:
    """True or false."""
    if not isinstance(value, bool):
        raise UsageError(f"{option} {value!r} must be true or false")
    return value


def device(option: str, value: Any) -> str:
    """What PyTorch computes on, as it calls it."""
    if not isinstance(value, str) or not _DEVICE.fullmatch(value):
        raise UsageError(f"{option} {value}: choose auto, cpu, cuda, cuda:N or mps")
    return value


def bands(option: str, value: Any) -> tuple[int | str, ...]:
    """`3,2,1` or `nir,red,green` as numbers and names."""
    parts = [part.strip() for part in value.split(",")] if isinstance(value, str) else value
    if not isinstance(parts, Sequence) or not all(isinstance(part, str | int) for part in parts):
        raise UsageError(f"{option} {value!r}: name three bands, as in 3,2,1 or nir,red,green")
    return tuple(int(part) if isinstance(part, str) and part.isascii() and part.isdigit() else part for part in parts)


def read_pairs(items: Sequence[str], option: str, form: str) -> dict[str, str]:
    """`a=b` texts to a table. Raises UsageError that names the option and the form it wants."""
    pairs = [item.partition("=") for item in items]
    wrong = [name for name, equals, _ in pairs if not equals]
    if wrong:
        raise UsageError(f"{option} {wrong[0]}: write {form}")
    return {name.strip(): value.strip() for name, _, value in pairs}


def table(option: str, value: Any) -> dict[str, Any]:
    """Names and values; of the command line as texts `name=value`."""
    if isinstance(value, Mapping) and all(isinstance(name, str) for name in value):
        return dict(value)
    if isinstance(value, list | tuple) and all(isinstance(item, str) for item in value):
        return dict(read_pairs(value, option, "name=value"))
    raise UsageError(f"{option} {value!r}: write name=value, or in Python a dictionary")


def shard(option: str, value: Any) -> tuple[int, int]:
    """`I/N`, `slurm` for this task of a job array, or two numbers."""
    try:
        if value == "slurm":
            names = (f"SLURM_ARRAY_TASK_{end}" for end in ("ID", "MIN", "COUNT"))
            task, least, count = (numerals.whole(os.environ[name]) for name in names)
            value = task - least + 1, count
        number, count = map(numerals.whole, value.split("/")) if isinstance(value, str) else map(int, value)
    except KeyError as error:
        raise UsageError(
            f"{option} slurm works in a job array, where SLURM_ARRAY_TASK_ID, _MIN and _COUNT are set"
        ) from error
    except (ValueError, TypeError) as error:
        raise UsageError(f"{option} {value}: write I/N, as in 2/5, or slurm") from error
    if not 1 <= number <= count:
        raise UsageError(f"{option} {number}/{count}: the first number runs from 1 to the second")
    return number, count


def by_name(kind: type[Kind]) -> type[Kind]:
    """Let a dataclass be made by names alone, and refuse others with the nearest. Raises UsageError."""
    make, known = kind.__init__, [each.name for each in fields(kind)]  # type: ignore[arg-type]

    @wraps(make)
    def checked(self: Any, *args: Any, **given: Any) -> None:
        if args:
            raise UsageError(f"{args[0]!r} is one value too many: give settings by name, as in tile=224")
        if unknown := [name for name in given if name not in known]:
            raise UsageError(f"there is no setting {unknown[0]!r}{did_you_mean(unknown[0], known)}")
        make(self, **given)

    kind.__init__ = checked  # type: ignore[method-assign]
    return kind


def choice(default: Any, group: str, about: str, check: Check = text, *flags: str, **more: Any) -> Any:
    """A field of a frozen dataclass with what is said of it; `flags`, `metavar` and `names` as in Choice."""
    found = Choice(about, group, default, check, flags, **more)
    mutable = {"default_factory": type(default)} if isinstance(default, dict) else {"default": default}
    return field(**mutable, metadata={"choice": found})
