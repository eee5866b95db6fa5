"""Direct segmentation: the reference numbers, and what must hold of transport and flow."""

from __future__ import annotations

from typing import Any

import numpy as np
import open_clip
import pytest
import torch
from golden_cases import Case, assert_close, build, case_id, find
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.nn import functional as F
from windows import random_batch

from geoovseg.methods import load_method
from geoovseg.methods.direct import (
    Seeds,
    attention_grid,
    crossing_steps,
    maximum_velocity,
    optimal_path,
    seeds,
    stochastic,
)
from geoovseg.models.vfm import ClipVfm
from geoovseg.models.vit import ClipVit
from geoovseg.ops.upsample import bilateral, bilinear
from geoovseg.vocabulary import parse_classes


def _seeds(case: Case) -> tuple[Seeds, dict[str, Any]]:
    hyper = case.meta["hyperparameters"]
    return seeds(case.inputs["logits"], hyper["nms_threshold"], hyper["softmax_scale"]), hyper


ELSEWHERE = {"nms_alive", "steps_integer", "steps_literal", "velocity"}
"""What a case holds besides: readings that were not chosen, and velocities, which have their own comparison."""


def _check(case: Case, found: dict[str, torch.Tensor]) -> None:
    """Values, and labels exactly, of all that the case has."""
    assert set(case.outputs) <= set(found) | ELSEWHERE
    given = case.meta["tolerance"]
    tolerance = {"atol": float(given["atol"]), "rtol": float(given["rtol"])}
    for name, value in found.items():
        expected = case.outputs[name]
        if name.startswith(("label", "alive")):
            assert torch.equal(value.long(), expected.long()), name
        else:
            assert_close(value, expected, tolerance)


@pytest.mark.golden
@pytest.mark.parametrize("case", find("direct_op"), ids=case_id)
def test_optimal_paths_equal_the_reference(case: Case) -> None:
    found, hyper = _seeds(case)
    paths = {
        name: optimal_path(
            case.inputs["attn"], found, epsilon=hyper["epsilon"], iterations=hyper["iterations"], mass_power=power
        )
        for name, power in (("op", 0), ("op_mass", 1))
    }
    labels = {f"label_{name}": path.argmax(0) for name, path in paths.items()}
    _check(case, {"p": found.shares, "alive": found.alive, "class_mass": found.mass, **paths, **labels})


@pytest.mark.golden
@pytest.mark.parametrize("case", find("direct_mv"), ids=case_id)
def test_velocities_equal_the_reference(case: Case) -> None:
    found, hyper = _seeds(case)
    attention, sweeps = case.inputs["attn"], hyper["ipf_iterations"]
    reach = {"reach": hyper["tau"], "max_steps": hyper["max_steps"]}
    flow = stochastic(attention, sweeps)
    steps = crossing_steps(flow, found, **reach)
    velocity = maximum_velocity(attention, found, **reach, sweeps=sweeps, mass_power=0)
    alive = found.alive
    _check(
        case,
        {"transition": flow, "steps": steps, "p": found.shares, "alive": alive, "label_mv": velocity.argmax(0)},
    )
    expected = case.outputs["velocity"] * alive[:, None]  # the reference leaves 1 / (1 + max_steps) to rejected classes
    torch.testing.assert_close(velocity, expected, rtol=1e-8, atol=1e-13)


@pytest.mark.golden
@pytest.mark.parametrize("case", find("direct_jbu"), ids=case_id)
def test_the_way_to_pixels_equals_the_reference(case: Case) -> None:
    found: dict[str, torch.Tensor] = {}
    alive = case.inputs["alive"].bool()[:, None, None]
    for name, source in (("mv", "velocity"), ("op", "op_mass")):
        image = bilateral(case.inputs[source][None], case.inputs["image"][None])[0]
        found |= {f"jbu_{name}": image, f"label_{name}": torch.where(alive, image, -torch.inf).argmax(0)}
    _check(case, found)


def _attention(patches: int, seed: int) -> torch.Tensor:
    return torch.rand(patches, patches, generator=torch.Generator().manual_seed(seed), dtype=torch.double).softmax(1)


def _made_up(classes: int, patches: int, seed: int) -> Seeds:
    cosines = torch.rand(classes, patches, generator=torch.Generator().manual_seed(seed), dtype=torch.double)
    return seeds(cosines, 0.5, 30)


@settings(max_examples=40, deadline=None)
@given(classes=st.integers(1, 5), patches=st.integers(2, 40), seed=st.integers(0, 1000), eps=st.floats(0.05, 2))
def test_transport_has_the_marginals_it_promises(classes: int, patches: int, seed: int, eps: float) -> None:
    """The plan is formed here: rows add to the seeds, columns to 1 / N, and costs are what the method says."""
    attention, found = _attention(patches, seed), _made_up(classes, patches, seed)
    received = optimal_path(attention, found, epsilon=eps, iterations=200, mass_power=0)
    kernel = torch.exp(-attention / eps)
    for c in range(classes):
        if not found.alive[c]:
            assert received[c].abs().max() == 0
            continue
        nu = torch.ones(patches, dtype=torch.double)
        for _ in range(200):
            mu = found.shares[c] / (kernel @ nu)
            nu = 1 / (patches * (kernel.T @ mu))
        plan = mu[:, None] * kernel * nu
        torch.testing.assert_close(plan.sum(0), torch.full((patches,), 1 / patches, dtype=torch.double))
        torch.testing.assert_close(plan.sum(1), found.shares[c], rtol=0, atol=1e-6)
        torch.testing.assert_close(received[c], (attention * plan).sum(0))


@settings(max_examples=40, deadline=None)
@given(patches=st.integers(2, 40), seed=st.integers(0, 1000))
def test_the_flow_is_doubly_stochastic(patches: int, seed: int) -> None:
    flow = stochastic(_attention(patches, seed), 15)
    one = torch.ones(patches, dtype=torch.double)
    torch.testing.assert_close(flow.sum(1), one)
    torch.testing.assert_close(flow.sum(0), one, rtol=0, atol=1e-3)
    assert (flow >= 0).all()


def test_seeds_add_to_one_over_patches_and_rejected_classes_have_none() -> None:
    cosines = torch.tensor([[0.30, 0.30, 0.20, 0.10], [0.10, 0.20, 0.30, 0.30], [0.05, 0.05, 0.05, 0.05]])
    found = seeds(cosines.double(), 0.5, 30)
    assert found.alive.tolist() == [True, True, False]
    torch.testing.assert_close(found.shares.sum(1), torch.tensor([1.0, 1.0, 0.0]).double())
    assert found.mass[2] == 0
    assert found.mass[:2].sum() == pytest.approx(1, abs=0.01)


def test_a_class_crosses_where_it_is_at_once_and_elsewhere_later() -> None:
    """On a chain, a step at a time."""
    patches = 6
    near = (torch.arange(patches)[:, None] - torch.arange(patches)).abs() <= 1
    flow = stochastic(near.double(), 50)
    shares = torch.zeros(1, patches, dtype=torch.double)
    shares[0, 0] = 1
    found = Seeds(shares, torch.tensor([True]), torch.ones(1, dtype=torch.double))
    steps = crossing_steps(flow, found, reach=0.3, max_steps=40)[0]
    assert (steps.diff() >= 0).all()
    assert 0 <= steps[0] < 1
    assert steps[-1] > 3
    assert crossing_steps(flow, found, reach=0.3, max_steps=2)[0, -1] == 2


def _direct(clip: open_clip.CLIP, name: str, words: str = "a=x+y,b,c", **changed: Any) -> Any:
    vit, vocabulary = ClipVit(clip.visual), parse_classes([words])
    count = len(vocabulary.queries)
    text = F.normalize(torch.randn(count, vit.dim, generator=torch.Generator().manual_seed(5)), dim=-1)
    return load_method(name, vit, text, vocabulary, vfm=ClipVfm("clip", vit), settings=changed)


@pytest.mark.parametrize("name", ["direct-op", "direct-mv"])
@pytest.mark.parametrize("changed", [{}, {"threshold": 1}, {"jbu": False}, {"mass_power": 2}])
def test_scores_are_shares_of_classes(tiny_clip: open_clip.CLIP, name: str, changed: dict[str, Any]) -> None:
    """Also where no patch is sure of anything; words of a class have its share."""
    scores = _direct(tiny_clip, name, **changed).scores(random_batch(2, 64, 48))
    assert (scores >= 0).all()
    assert torch.equal(scores[:, 0], scores[:, 1])
    torch.testing.assert_close(scores[:, 1:].sum(1), torch.ones_like(scores[:, 0]))
    assert scores.shape[2:] == ((64, 48) if changed.get("jbu", True) else attention_grid(torch.zeros(1, 3, 64, 48), 8))


@pytest.mark.parametrize("name", ["direct-op", "direct-mv"])
def test_patches_without_data_have_no_part_in_anything(tiny_clip: open_clip.CLIP, name: str) -> None:
    """Seeds, and answers, are those of the patches with data alone: what is in the others changes nothing of theirs."""
    method, batch = _direct(tiny_clip, name, threshold=0, jbu=False), random_batch(1, 64, 64)
    batch.valid[:, :32] = False
    asked: list[torch.Tensor] = []
    answer = method.answer
    method.answer = lambda attention, found: asked.append(attention) or answer(attention, found)
    scores = method.scores(batch)
    (attention,) = asked
    assert attention.shape == (512, 512), "half of 32 x 32"
    torch.testing.assert_close(attention.sum(1), torch.ones(512, dtype=torch.double))
    assert (scores[:, :, :16] == 0).all()
    torch.testing.assert_close(scores[:, 1:, 16:].sum(1), torch.ones(1, 16, 32))


@pytest.mark.parametrize("name", ["direct-op", "direct-mv"])
def test_a_single_class_takes_the_whole_tile(tiny_clip: open_clip.CLIP, name: str) -> None:
    scores = _direct(tiny_clip, name, words="a").scores(random_batch(1, 64, 64))
    assert torch.equal(scores, torch.ones_like(scores))


def test_without_sure_patches_the_plain_scores_decide(tiny_clip: open_clip.CLIP) -> None:
    method, batch = _direct(tiny_clip, "direct-op", threshold=1, jbu=False), random_batch(1, 64, 64)
    plain = method.scorer.score(torch.from_numpy(batch.pixels))
    grid = attention_grid(torch.from_numpy(batch.pixels), 8)
    classes = torch.stack([plain[:, :2].amax(1), plain[:, 2], plain[:, 3]], 1)
    expected = F.interpolate(classes, size=grid, mode="bilinear", align_corners=False).argmax(1)
    assert torch.equal(method.scores(batch)[:, 1:].argmax(1), expected)


def test_the_grid_of_attention_has_at_least_32_patches_on_its_longer_side() -> None:
    assert attention_grid(torch.zeros(1, 3, 448, 448), 14) == (32, 32)
    assert attention_grid(torch.zeros(1, 3, 224, 224), 14) == (32, 32)
    assert attention_grid(torch.zeros(1, 3, 112, 224), 14) == (16, 32)
    assert attention_grid(torch.zeros(1, 3, 896, 896), 14) == (64, 64)
    assert attention_grid(torch.zeros(1, 3, 8, 896), 14) == (1, 64)


def test_pixels_unlike_every_cell_are_bilinear() -> None:
    scores = torch.rand(1, 2, 4, 4, generator=torch.Generator().manual_seed(0))
    pixels = torch.zeros(1, 3, 32, 32)
    pixels[..., 5, 5] = 100.0
    found, plain = bilateral(scores, pixels), bilinear(scores, pixels)
    torch.testing.assert_close(found[..., 5, 5], plain[..., 5, 5])
    assert not torch.allclose(found[..., 20, 20], plain[..., 20, 20])


def test_one_tile_scores_the_same_alone_and_in_company(tiny_clip: open_clip.CLIP) -> None:
    method, batch = _direct(tiny_clip, "direct-op"), random_batch(9, 64, 64)
    together = method.scores(batch)
    for n in (0, 8):
        assert torch.equal(method.scores(batch.take(np.array([n])))[0], together[n])


def test_methods_that_look_at_a_vision_model_need_one(tiny_clip: open_clip.CLIP) -> None:
    for name in ("direct-op", "direct-mv", "coninfer"):
        with pytest.raises(Exception, match=f"{name} needs a vision model; see --vfm"):
            build(ClipVit(tiny_clip.visual), name)
