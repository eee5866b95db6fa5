"""Attention policies against their formulas, written out in float64."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from geoovseg.ops import attention


def _attend(a: Tensor, b: Tensor, v: Tensor) -> Tensor:
    weights = torch.softmax(a @ b.mT * a.shape[-1] ** -0.5, dim=-1)
    return weights @ v


FORMULAS = {
    attention.clip: lambda q, k, v: _attend(q, k, v),
    attention.maskclip: lambda q, k, v: v,
    attention.sclip: lambda q, k, v: _attend(q, q, v) + _attend(k, k, v),
    attention.kk: lambda q, k, v: _attend(k, k, v),
    attention.clearclip: lambda q, k, v: _attend(q, q, v),
    attention.segearth: lambda q, k, v: _attend(q, q, v) + _attend(k, k, v) + _attend(v, v, v),
}


@pytest.mark.parametrize("policy", FORMULAS, ids=lambda p: p.__name__)
@pytest.mark.parametrize("batch", [1, 3])
def test_policy_equals_its_formula(policy: attention.Mix, batch: int) -> None:
    q, k, v = torch.randn(3, batch, 2, 13, 8, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    torch.testing.assert_close(policy(q, k, v), FORMULAS[policy](q, k, v), rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("policy", FORMULAS, ids=lambda p: p.__name__)
def test_policy_keeps_dtype_and_arguments(policy: attention.Mix) -> None:
    q, k, v = torch.randn(3, 2, 2, 5, 8, dtype=torch.bfloat16)
    before = [t.clone() for t in (q, k, v)]
    assert policy(q, k, v).dtype == torch.bfloat16
    assert all(torch.equal(a, b) for a, b in zip((q, k, v), before, strict=True))


def _neighbourhood(grid: tuple[int, int], sigma: float) -> Tensor:
    """Pair by pair; the class token comes first."""
    bias = torch.zeros(1 + grid[0] * grid[1], 1 + grid[0] * grid[1], dtype=torch.float64)
    for i in range(grid[0] * grid[1]):
        for j in range(grid[0] * grid[1]):
            (a, b), (c, d) = divmod(i, grid[1]), divmod(j, grid[1])
            bias[1 + i, 1 + j] = math.exp(-((a - c) ** 2 + (b - d) ** 2) / (2 * sigma**2))
    return bias


@pytest.mark.parametrize("sigma", [1.0, 5.0])
def test_naclip_prefers_near_patches_and_leaves_the_class_token_alone(sigma: float) -> None:
    q, k, v = torch.randn(3, 2, 2, 13, 8, dtype=torch.float64)
    logits = k @ k.mT * 8**-0.5 + _neighbourhood((3, 4), sigma)
    expected = logits.softmax(-1) @ v
    torch.testing.assert_close(attention.naclip(sigma)((3, 4))(q, k, v), expected, rtol=0, atol=1e-6)


def test_neighbours_only_is_scaled_by_the_lengths_of_each_image_alone() -> None:
    q, k, v = torch.randn(3, 2, 3, 13, 8, dtype=torch.float64)
    found = attention.neighbours_only(2.0)((3, 4))(q, k, v)
    for n in range(2):
        lengths = [(q[n, h, i].norm() * k[n, h, j].norm()) for h in range(3) for i in range(13) for j in range(13)]
        c = sum(lengths) / len(lengths) * 8**-0.5
        expected = (c * _neighbourhood((3, 4), 2.0)).softmax(-1) @ v[n]
        torch.testing.assert_close(found[n], expected, rtol=0, atol=1e-6)
