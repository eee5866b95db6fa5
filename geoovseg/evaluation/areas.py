"""Areas one can sign: how much ground classes truly cover, from a random sample of points that somebody looked at.

A map's own areas are biased by its errors. Olofsson et al. 2014, "Good practices for estimating area and assessing
accuracy of land change" (Remote Sensing of Environment 148, doi 10.1016/j.rse.2014.02.015), correct them; equations are
theirs. The sample is stratified by the classes of the map, or simple random and stratified afterwards.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

from geoovseg.errors import UsageError, some

Floats = NDArray[np.float64]
Key = TypeVar("Key", int, str)
"""A class, by its code or name."""
Z = 1.96
"""Standard errors to either side of an estimate within which the truth lies in 95 of 100 samples."""
LEAST = 2
"""Points of a class of the map, without which nothing is known of how they vary."""
HALVINGS = 200


@dataclass(frozen=True, kw_only=True)
class Estimate:
    """A figure and its 95 % interval."""

    value: float
    standard_error: float

    @property
    def margin(self) -> float:
        """Half of the interval."""
        return Z * self.standard_error


@dataclass(frozen=True, kw_only=True)
class ClassArea:
    """One class; None where nothing was found of it in the map or in the sample."""

    mapped: float
    """area in the map, as its pixels count"""
    area: Estimate
    """of the truth, corrected for the map's errors"""
    users_accuracy: Estimate | None
    """share of what the map calls so that is so"""
    producers_accuracy: Estimate | None
    """share of what is so that the map calls so"""
    points: int
    """of the sample that the map calls so"""


@dataclass(frozen=True, kw_only=True)
class AreaResult:
    """Areas and accuracies; `to_json` is what `geoovseg evaluate --points --json` prints."""

    unit: str
    """of areas: ha, or pixels where the labels lie nowhere"""
    total: float
    accuracy: Estimate
    classes: dict[str, ClassArea]
    confusion: list[list[int]]
    """points: rows the map, columns the truth, in `order`"""
    order: list[str]
    points: int
    unlabelled: int = 0
    """points without a truth yet"""
    outside: int = 0
    """points where the labels have no data"""
    remarks: tuple[str, ...] = ()

    def to_json(self) -> str:
        """One line of JSON."""
        return json.dumps(asdict(self), ensure_ascii=False)


def estimate(order: Sequence[str], counts: NDArray[np.int64], mapped: Sequence[float], *, unit: str) -> AreaResult:
    """Areas and accuracies from points (q, q), rows the map and columns the truth, and the map's areas (q,).

    A class that only the truth knows has a mapped area of 0 and no points in its row. Raises UsageError where a class
    of the map has too few points.
    """
    n, areas = counts.sum(1), np.asarray(mapped, np.float64)
    _check(order, n, areas)
    inside = areas > 0
    weights = areas / areas.sum()
    shares = np.where(inside[:, None], counts / np.maximum(n, 1)[:, None], 0.0)
    found = _areas(weights, shares, n)
    users = _users(shares, n)
    producers = _producers(areas, shares, n, users)
    right = weights @ np.diag(shares)
    error = np.sqrt((weights**2 * _variance(np.diag(shares), n)).sum())
    total = float(areas.sum())
    classes = {
        name: ClassArea(
            mapped=float(areas[k]),
            area=Estimate(value=float(found[0][k] * total), standard_error=float(found[1][k] * total)),
            users_accuracy=_maybe(users, k) if n[k] else None,
            producers_accuracy=_maybe(producers, k) if counts[:, k].any() else None,
            points=int(n[k]),
        )
        for k, name in enumerate(order)
    }
    return AreaResult(
        unit=unit,
        total=total,
        accuracy=Estimate(value=float(right), standard_error=float(error)),
        classes=classes,
        confusion=counts.tolist(),
        order=list(order),
        points=int(counts.sum()),
    )


def _check(order: Sequence[str], n: NDArray[np.int64], areas: Floats) -> None:
    few = [f"{order[k]} ({n[k]})" for k in range(len(order)) if areas[k] > 0 and n[k] < LEAST]
    if few:
        raise UsageError(
            f"too few points with a truth in {some(few)}: each class of the map needs at least {LEAST}, better 50; "
            "fill in their truth, or draw more with `geoovseg sample`"
        )
    if not areas.sum() > 0:
        raise UsageError("the labels have no pixel with data")


def _variance(shares: Floats, n: NDArray[np.int64]) -> Floats:
    """Of a share among n points; 0 where there are none."""
    return np.where(n > 1, shares * (1 - shares) / np.maximum(n - 1, 1), 0.0)


def _areas(weights: Floats, shares: Floats, n: NDArray[np.int64]) -> tuple[Floats, Floats]:
    """Shares of the whole that classes truly have, and their standard errors (eq. 9 and 10)."""
    return weights @ shares, np.sqrt((weights[:, None] ** 2 * _variance(shares, n[:, None])).sum(0))


def _users(shares: Floats, n: NDArray[np.int64]) -> tuple[Floats, Floats]:
    """User's accuracies and their standard errors (eq. 2 and 6)."""
    right = np.diag(shares)
    return right, np.sqrt(_variance(right, n))


def _producers(
    areas: Floats, shares: Floats, n: NDArray[np.int64], users: tuple[Floats, Floats]
) -> tuple[Floats, Floats]:
    """Producer's accuracies and their standard errors (eq. 3 and 7)."""
    truly = areas @ shares
    right = np.divide(areas * np.diag(shares), truly, out=np.zeros_like(truly), where=truly > 0)
    missed = areas[:, None] ** 2 * _variance(shares, n[:, None])
    np.fill_diagonal(missed, 0)
    variance = areas**2 * (1 - right) ** 2 * users[1] ** 2 + right**2 * missed.sum(0)
    return right, np.sqrt(np.divide(variance, truly**2, out=np.zeros_like(truly), where=truly > 0))


def _maybe(figures: tuple[Floats, Floats], k: int) -> Estimate:
    return Estimate(value=float(figures[0][k]), standard_error=float(figures[1][k]))


def allocation(
    pixels: Mapping[Key, int], n: int, way: str, expected: Mapping[Key, float], least: int
) -> dict[Key, int]:
    """How many of n points each class of a map gets (Olofsson et al. 2014, sec. 5.1).

    `equal` shares them alike, `proportional` by area, `neyman` by area times how much being right varies, the square
    root of U (1 - U), where U is the user's accuracy that is `expected`. Each class gets at least `least` points,
    for which at most half of n is used, and never more than it has pixels.
    """
    total = sum(pixels.values())
    spread = {name: float(np.sqrt(u * (1 - u))) for name, u in expected.items()}
    weights = {
        "equal": dict.fromkeys(pixels, 1.0),
        "proportional": {name: count / total for name, count in pixels.items()},
        "neyman": {name: count / total * spread.get(name, 1.0) for name, count in pixels.items()},
    }[way]
    floor = min(least, n // (2 * len(pixels)))
    lower = {name: min(floor, count) for name, count in pixels.items()}
    return _rounded(_shared({name: max(w, 1e-12) for name, w in weights.items()}, lower, pixels, n), pixels, n)


def _shared(
    weights: Mapping[Key, float], lower: Mapping[Key, int], upper: Mapping[Key, int], n: int
) -> dict[Key, float]:
    """Points in proportion to weights, but within bounds: the factor is found by halving."""
    names, wanted = list(weights), min(n, sum(upper.values()))
    w, least, most = (np.array([each[name] for name in names], np.float64) for each in (weights, lower, upper))
    low, high = 0.0, float((most / w).max())
    for _ in range(HALVINGS):
        middle = (low + high) / 2
        low, high = (middle, high) if np.clip(middle * w, least, most).sum() < wanted else (low, middle)
    return dict(zip(names, np.clip(high * w, least, most).tolist(), strict=True))


def _rounded(shares: Mapping[Key, float], upper: Mapping[Key, int], n: int) -> dict[Key, int]:
    """Whole numbers that add up to n, if there are so many pixels, by the largest remainders."""
    found = {name: int(share + 1e-9) for name, share in shares.items()}
    left = min(n, sum(upper.values())) - sum(found.values())
    by_rest = sorted((name for name in found if found[name] < upper[name]), key=lambda k: found[k] - shares[k])
    for name in by_rest[:left]:
        found[name] += 1
    return found
