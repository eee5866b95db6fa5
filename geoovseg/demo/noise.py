"""Random numbers that belong to places: the same (seed, coordinates) always give the same value, in any window."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

Field = NDArray[np.float32]
Index = NDArray[np.int64]

_PRIMES = (np.uint32(0x9E3779B1), np.uint32(0x85EBCA77), np.uint32(0xC2B2AE3D), np.uint32(0x27D4EB2F))


def chance(seed: int, *keys: Index | int) -> Field:
    """Uniform numbers in [0, 1), one per place, from integer keys such as (block row, block column, what is asked).

    An integer hash (multiply, xor-shift), so a scene can be drawn window by window, in any order.
    """
    h = np.asarray(np.uint32(seed & 0xFFFFFFFF))
    with np.errstate(over="ignore"):
        for n, key in enumerate(keys):
            h = (h ^ (np.asarray(key).astype(np.uint32) * _PRIMES[n % 4])) * np.uint32(0x2C1B3C6D)
            h = (h ^ (h >> np.uint32(15))) * np.uint32(0x297A2D39)
            h = h ^ (h >> np.uint32(13))
    return np.asarray((h >> np.uint32(8)).astype(np.float32) / np.float32(1 << 24))


def smooth(seed: int, rows: Index, cols: Index, period: int) -> Field:
    """A smooth field (len(rows), len(cols)) in [0, 1): random values on a lattice of `period` pixels, interpolated.

    `rows` and `cols` are consecutive pixel indices of the scene.
    """
    r, c = rows / period, cols / period
    r0, c0 = np.floor(r).astype(np.int64), np.floor(c).astype(np.int64)
    nodes_r, nodes_c = np.arange(r0[0], r0[-1] + 2), np.arange(c0[0], c0[-1] + 2)
    lattice = chance(seed, nodes_r[:, None], nodes_c[None, :])
    fr, fc = _ease((r - r0).astype(np.float32))[:, None], _ease((c - c0).astype(np.float32))[None, :]
    ir, ic = r0 - r0[0], c0 - c0[0]
    across = lattice[:, ic] * (1 - fc) + lattice[:, ic + 1] * fc
    return np.asarray(across[ir] * (1 - fr) + across[ir + 1] * fr, dtype=np.float32)


def _ease(t: Field) -> Field:
    return t * t * (3 - 2 * t)
