"""Linear layers whose products are of 8-bit numbers: quicker on CPUs with instructions for them, and approximate.

Every row of a weight, and every token, is brought to whole numbers of -127 to 127 by a factor of its own (LLM.int8,
Dettmers et al. 2022, without its outliers; weights once, tokens as they come). Sums of products are exact, so that a
token's numbers depend on nothing that shares a batch. Everything between layers stays float32.
"""

from __future__ import annotations

import platform
from collections.abc import Callable
from functools import cache
from typing import NamedTuple, cast

import torch
from torch import Tensor, nn

LEVELS, ZERO = 127, 128
"""The largest whole number, and what stands for 0 in the bytes of tokens, which have no sign."""
TINY = torch.finfo(torch.float32).tiny


class Rows(NamedTuple):
    """A weight (D, E) as its kernel wants it."""

    laid: Tensor
    steps: Tensor
    """(D) that a whole number stands for"""
    zeros: Tensor


def rows_of(weight: Tensor) -> Rows:
    """A weight (D, E), each row by its largest number."""
    steps = weight.detach().abs().amax(1).clamp_min(TINY) / LEVELS
    whole = (weight.detach() / steps[:, None]).round().to(torch.int8)
    laid = cast("Tensor", torch.ops.onednn.qlinear_prepack(whole, None))
    return Rows(laid, steps, torch.zeros(len(steps), dtype=torch.int32))


def through(rows: Rows, x: Tensor, bias: Tensor | None) -> Tensor:
    """A layer on tokens x (..., E): (..., D)."""
    return _by_window(lambda tokens: _layer(rows, tokens, bias), x)


def feed_forward(first: Rows, second: Rows, biases: tuple[Tensor, Tensor], between: nn.Module, x: Tensor) -> Tensor:
    """A layer, an activation and another layer on tokens x (..., E)."""
    return _by_window(lambda tokens: _layer(second, between(_layer(first, tokens, biases[0])), biases[1]), x)


def _by_window(see: Callable[[Tensor], Tensor], x: Tensor) -> Tensor:
    """What is seen of the tokens of each window (B, L, E), whose numbers then stay in the cache."""
    if x.ndim == 3 and len(x):
        return torch.stack([see(tokens) for tokens in x])
    found = see(x.reshape(-1, x.shape[-1]))
    return found.view(*x.shape[:-1], found.shape[-1])


def _layer(rows: Rows, tokens: Tensor, bias: Tensor | None) -> Tensor:
    """A layer on tokens (L, E): (L, D)."""
    steps = tokens.abs().amax(1, keepdim=True).clamp_min_(TINY).div_(LEVELS)
    whole = (tokens / steps).add_(ZERO + 0.5).to(torch.uint8)  # rounds, as what is cut off is positive
    found = _products(rows, whole)
    return found.mul_(steps) if bias is None else torch.addcmul(bias, found, steps)


def _products(rows: Rows, whole: Tensor) -> Tensor:
    """Sums of products of bytes (L, E) and rows, times the rows' steps: (L, D)."""
    say = torch.ops.onednn.qlinear_pointwise
    found = say(whole, 1.0, ZERO, rows.laid, rows.steps, rows.zeros, None, 1.0, 0, torch.float32, "none", [], "")
    return cast("Tensor", found)


@cache
def is_exact() -> bool:
    """Whether sums of such products are exact here, as they are not on CPUs that add them up in 16 bits first.

    Those are the ones without instructions for them (VNNI); other kinds of CPU were not tried.
    """
    if platform.machine().lower() not in ("x86_64", "amd64"):
        return False
    signs = torch.tensor([1.0, -1.0]).repeat(64)
    weight = signs[:, None] * signs.repeat(6)  # all numbers are the largest, of either sign
    try:
        found = _products(rows_of(weight), ((weight * LEVELS) + ZERO).to(torch.uint8))
    except (AttributeError, RuntimeError):  # torch has no such kernel here
        return False
    exact = weight.double() @ weight.double().T * LEVELS
    return bool((found - exact).abs().max() < 1)
