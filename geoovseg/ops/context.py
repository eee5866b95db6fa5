"""Context: patches that look alike correct each other's words, by a mixture fitted to many of them (ConInfer, sec. 3).

All in float64, in chunks of a fixed size: nothing of size patches x words x dimensions exists, and sums do not depend
on how many threads there are beyond the last digits.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn import functional as F

CHUNK = 4096
"""Patches handled together."""
FIRST = 8
"""Patches a component starts from: those surest of its word (release, gmm.py)."""
LEAST = 1e-10
"""Variance that patches exactly alike are given, times the number of dimensions."""
STEPS = 10
"""Updates of the means; the release has no test for convergence."""
SHARPEN = 100.0
"""Factor on cosines before their softmax over words (release)."""


class Mixture(NamedTuple):
    """One Gaussian for every word, all of one diagonal variance; float64."""

    means: Tensor
    """(Q, D), unit"""
    variance: Tensor
    """(D,)"""
    masses: Tensor
    """(Q,) how many patches each stands for"""
    objective: Tensor
    """(steps,) what the steps make small, up to a constant: mean over patches of -log sum_c p_c exp(l_c / temperature),
    the normal densities' l_c with the variance's determinant"""


def precise(x: Tensor) -> Tensor:
    """Numbers in float64, on the CPU where a device has none."""
    return x.cpu().double() if x.device.type == "mps" else x.double()


def log_shares(cosines: Tensor) -> Tensor:
    """Cosines (N, Q) to logarithms of the words' shares p."""
    return (precise(cosines) * SHARPEN).log_softmax(-1)


class Rule(NamedTuple):
    """How words and likeness go together."""

    temperature: float
    """how little likeness counts"""
    power: float = 1.0
    """z ~ (p exp(l / temperature))^power: 1 as released; 1/2 minimises KL(z||p) + KL(z||q), as the paper prints it"""
    joint: bool = True
    """means are those of z, which they decide in turn; false: of p alone (decoupled, as we read the paper)"""


def fit(features: Tensor, shares: Tensor, rule: Rule, steps: int = STEPS) -> Mixture:
    """The mixture of unit features (N, D), N at least 1, whose words have log-shares (N, Q).

    Means are unit and start from the patches surest of each word, the variance from 1 / D. Weights of the first
    patches are taken relative to the best, and a component that nothing belongs to keeps its mean, so that words far
    from everything give finite numbers, where the release gives none (at shares below 1e-22).
    """
    words, dims = shares.shape[1], features.shape[1]
    top, first = shares.topk(min(FIRST, len(shares)), dim=0)
    weights = top.softmax(0).T[:, None]  # (Q, 1, 8)
    means = F.normalize((weights @ precise(features[first.T.to(features.device)]))[:, 0], dim=-1)
    mixture = Mixture(means, weights.new_full((dims,), 1 / dims), weights.new_ones(words), weights.new_zeros(0))
    for _ in range(steps):
        mixture = _update(features, shares, mixture, rule)
    return mixture


def _update(features: Tensor, shares: Tensor, old: Mixture, rule: Rule) -> Mixture:
    """Means, then the variance around the new, normalised means."""
    sums = torch.zeros_like(old.means)
    squares = torch.zeros_like(old.variance)
    masses = torch.zeros_like(old.masses)
    objective = old.masses.new_zeros(1)
    for f, p in _chunks(features, shares):
        corrected, best = _corrected(f, p, old, rule, unseen_below=0)
        objective -= (corrected.logsumexp(-1) + best / rule.temperature).sum()
        z = (rule.power * corrected if rule.joint else p).softmax(-1)
        sums += z.T @ f
        squares += f.square().sum(0)  # rows of z add to 1
        masses += z.sum(0)
    means = torch.where(masses[:, None] > 0, F.normalize(sums, dim=-1), old.means)
    around = squares - 2 * (means * sums).sum(0) + (masses[:, None] * means.square()).sum(0)
    spread = old.variance.log().sum() / 2 / rule.temperature
    told = torch.cat([old.objective, objective / len(features) + spread])
    return Mixture(means, (around / masses.sum()).clamp_min(LEAST / len(squares)), masses, told)


def posterior(features: Tensor, shares: Tensor, mixture: Mixture, rule: Rule, *, unseen_below: float = 0.0) -> Tensor:
    """Shares (N, Q) corrected by the mixture: z ~ p exp((l - max l) / temperature), l without mixing weights.

    Components of less mass than `unseen_below` patches have no likelihood of their own; they are given that of the
    likeliest, so that what a sample missed is decided by its word alone.
    """
    found = (_corrected(f, p, mixture, rule, unseen_below=unseen_below)[0] for f, p in _chunks(features, shares))
    return torch.cat([(rule.power * corrected).softmax(-1) for corrected in found])


def _corrected(
    f: Tensor, shares: Tensor, mixture: Mixture, rule: Rule, *, unseen_below: float
) -> tuple[Tensor, Tensor]:
    """Logarithms (n, Q) of p exp((l - max l) / temperature), and the max l (n,), without the determinant."""
    means, variance, masses, _ = mixture
    centre = means.mean(0)  # nothing large to cancel where all patches are much alike
    f, means = f - centre, means - centre
    scaled = means / variance
    distance = f.square() @ (1 / variance)[:, None] - 2 * f @ scaled.T + (scaled * means).sum(-1)
    unseen = masses < unseen_below
    likelihood = (-distance / 2).masked_fill(unseen, -torch.inf)
    best = likelihood.amax(-1, keepdim=True).nan_to_num(neginf=0.0)  # if none was seen
    return shares + torch.where(unseen, 0.0, likelihood - best) / rule.temperature, best[:, 0]


def _chunks(features: Tensor, shares: Tensor) -> Iterator[tuple[Tensor, Tensor]]:
    for f, p in zip(features.split(CHUNK), shares.split(CHUNK), strict=True):
        yield precise(f), p
