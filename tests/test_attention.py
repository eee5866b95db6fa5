"""Attention policies against their formulas, written out in float64."""

from __future__ import annotations

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
