"""Which classes of the truth are which of the labels."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

from geoovseg.errors import UsageError, some
from geoovseg.evaluation.colours import colour_code
from geoovseg.evaluation.truth import Truth
from geoovseg.labels.categories import split_pairs

REST = "*"
"""In --map, every truth class whose name the labels do not have."""


@dataclass(frozen=True, kw_only=True)
class Match:
    """What the codes of the truth count as."""

    classes: dict[int, str]
    """names of label classes by truth code"""
    rest: str | None = None
    """for all other codes"""
    outside: str | None = None
    """for pixels of which the truth says nothing"""
    remarks: tuple[str, ...] = ()
    """what a person should know"""
    missing: Mapping[str, UsageError] = field(default_factory=dict)
    """what to say of names in --map that this truth has not"""

    def of(self, code: int) -> str | None:
        """The label class that a truth code counts as, -1 being no data; none if it is not compared."""
        return self.outside if code < 0 else self.classes.get(code, self.rest)

    @property
    def wanted(self) -> set[str]:
        """The label classes that are compared."""
        return {*self.classes.values(), *filter(None, (self.rest, self.outside))}


def match(
    labels: Mapping[int, str],
    truth: Truth,
    mapping: Mapping[str, str] | Sequence[str],
    outside: str | None,
    source: str,
    *,
    alone: bool = True,
) -> Match:
    """The classes to compare.

    Raises UsageError for names that there are none of, and where no class is in both; for what the truth lacks only if
    it is `alone`, since of several files one may well be without a class.
    """
    by_fold = {name.casefold(): name for name in labels.values()}
    given = _read(mapping, truth, by_fold)
    unknown = [name for name in given.values() if name.casefold() not in by_fold]
    if unknown:
        raise UsageError(f"--map ...={unknown[0]}: the labels have {some(labels.values())}")
    rest, missing = given.pop(REST, None), _missing(given, truth)
    if missing and alone:
        raise next(iter(missing.values()))
    given = {name: target for name, target in given.items() if name not in missing}
    wanted = {code: by_fold.get(name.casefold(), rest) for code, name in truth.names.items()}
    for name, target in given.items():
        wanted |= dict.fromkeys(_codes(name, truth), target)
    classes = {code: by_fold[name.casefold()] for code, name in wanted.items() if name is not None}
    found = Match(classes=classes, rest=None if rest is None else by_fold[rest.casefold()], missing=missing)
    if alone and not classes and rest is None and (outside is None or truth.names):
        raise _nothing_in_common(labels, truth, source)
    return _with_outside(_without_nodata(found, truth, given, by_fold), outside, given, by_fold)


def _read(mapping: Mapping[str, str] | Sequence[str], truth: Truth, by_fold: Mapping[str, str]) -> dict[str, str]:
    """--map as names of the truth and of the labels."""
    if isinstance(mapping, Mapping):
        return dict(mapping)

    def known(name: str) -> bool:
        return name == REST or bool(truth.codes(name)) or name in truth.spoken.values()

    return dict(split_pairs(mapping, "--map", "truth=label", known, lambda name: name.casefold() in by_fold))


def _codes(name: str, truth: Truth) -> list[int]:
    """The codes of a truth class that --map names."""
    return truth.codes(name) or [code for code, said in truth.spoken.items() if said == name]


def _missing(given: Mapping[str, str], truth: Truth) -> dict[str, UsageError]:
    """What to say of names in --map that the truth has not."""
    there = some(truth.names.values()) or "codes, no names"
    return {
        name: UsageError(
            f"--map {name}=...: the truth has no such colour, neither in bands nor in a palette"
            if colour_code(name) is not None
            else f"--map {name}=...: the truth has {there}"
        )
        for name in given
        if not _codes(name, truth)
    }


def _nothing_in_common(labels: Mapping[int, str], truth: Truth, source: str) -> UsageError:
    listed = some(truth.names.values()) or "no class names"
    return UsageError(
        f"no class of {source} ({listed}) has the name of one of the labels ({some(labels.values())}); say which "
        "is which with --map truth=label, for example --map 3=road"
    )


def _without_nodata(found: Match, truth: Truth, given: Mapping[str, str], by_fold: Mapping[str, str]) -> Match:
    """Leave out, and say so, a class that cannot be counted since its code is no data in the truth."""
    asked = [(name, code) for name in given for code in _codes(name, truth) if code == truth.nodata]
    if not asked and not any(name.casefold() in by_fold for name in truth.spoken.values()):
        return found
    name, code = asked[0] if asked else next(iter((n, c) for c, n in truth.spoken.items() if n.casefold() in by_fold))
    what = f"--map {name}={given[name]} does nothing" if asked else f"{name} is not compared"
    remark = (
        f"{what}: the truth says that its code {truth.text(code)} is no data, so these pixels are left out; to count "
        "them add --truth-nodata none"
    )
    classes = {each: label for each, label in found.classes.items() if each != truth.nodata}
    return replace(found, classes=classes, remarks=(*found.remarks, remark))


def _with_outside(found: Match, outside: str | None, given: Mapping[str, str], by_fold: Mapping[str, str]) -> Match:
    """Count what the truth does not cover as a class of the labels, or of the truth. Raises UsageError."""
    if outside is None:
        return found
    target = given.get(outside, outside).casefold()
    if target not in by_fold:
        raise UsageError(f"--outside {outside}: the labels have {some(by_fold.values())}")
    return replace(found, outside=by_fold[target])
