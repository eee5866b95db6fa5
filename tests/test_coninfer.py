"""ConInfer: the mixture and the whole method equal the release; contexts, samples and what is missing from them."""

from __future__ import annotations

import re
from dataclasses import replace
from typing import Any

import open_clip
import pytest
import torch
from golden_cases import Case, assert_close, assert_labels, build, case_id, each, find, sampled
from rasterio.windows import Window
from safetensors.torch import load_file
from torch.nn import functional as F
from windows import random_batch

from geoovseg.errors import MethodError
from geoovseg.methods import load_method, read_settings
from geoovseg.methods.coninfer import ConInfer, sample_windows
from geoovseg.methods.published import RELEASES, run
from geoovseg.methods.published import predict as predict_published
from geoovseg.models.cards import SAT_MEAN, SAT_STD
from geoovseg.models.vfm import ClipVfm, TimmVfm, build_timm
from geoovseg.models.vit import ClipVit
from geoovseg.ops import attention
from geoovseg.ops.context import Mixture, Rule, fit, log_shares, posterior
from geoovseg.vocabulary import parse_classes
from geoovseg.windows.batch import TileBatch

MIXTURES = each(
    "coninfer_gmm", lambda case: (n.removesuffix(".features") for n in case.inputs if n.endswith(".features"))
)


def _temperature(case: Case, name: str) -> float:
    """Of a fit, which its name states in another way where the case has no hyper-parameters for it."""
    given = case.meta["hyper"].get(name, {}).get("temp")
    found = re.search(r"_t(\d+)", name)
    return float(given if given is not None else found[1] if found else 50)


@pytest.mark.golden
@pytest.mark.parametrize(("case", "name"), MIXTURES)
def test_the_mixture_equals_the_release(case: Case, name: str) -> None:
    features, temperature = case.inputs[f"{name}.features"], _temperature(case, name)
    shares = log_shares(case.inputs[f"{name}.scores"])
    mixture = fit(features, shares, Rule(temperature))
    found = {
        "z": posterior(features, shares, mixture, Rule(temperature)),
        "mu": mixture.means,
        "var_diag": mixture.variance,
    }
    assert {key for key in case.outputs if key.startswith(f"{name}.")} <= {f"{name}.{k}" for k in (*found, "z_trace")}
    for key, value in found.items():
        assert value.isfinite().all(), "also where the release gives none"
        if f"{name}.{key}" in case.outputs:
            assert_close(value.float(), case.outputs[f"{name}.{key}"], case.tolerance(key))
    for step, expected in enumerate(case.outputs.get(f"{name}.z_trace", ())):
        early = fit(features, shares, Rule(temperature), steps=step)
        assert_close(posterior(features, shares, early, Rule(temperature)).float(), expected, case.tolerance("z"))


def test_a_word_that_no_patch_is_like_keeps_its_mean_and_takes_nothing() -> None:
    generator = torch.Generator().manual_seed(0)
    features = F.normalize(torch.randn(60, 8, generator=generator), dim=-1)
    cosines = torch.rand(60, 3, generator=generator) * 0.1
    cosines[:, 2] -= 2
    shares = log_shares(cosines)
    mixture = fit(features, shares, Rule(1e-3))
    z = posterior(features, shares, mixture, Rule(50))
    assert mixture.means.isfinite().all()
    assert z.isfinite().all()
    assert z[:, 2].max() < 1e-30
    torch.testing.assert_close(z.sum(1), torch.ones(60, dtype=torch.double))


@pytest.mark.parametrize("count", [1, 2, 3, 8, 40])
@pytest.mark.parametrize("dims", [5, 1024])
def test_few_patches_make_a_mixture_too(count: int, dims: int) -> None:
    """The release needs eight; distances are those of the plain formula."""
    features = F.normalize(torch.randn(count, dims, generator=torch.Generator().manual_seed(1)), dim=-1)
    shares = log_shares(torch.rand(count, 2, generator=torch.Generator().manual_seed(2)) * 0.1)
    mixture = fit(features, shares, Rule(50))
    distances = ((features.double()[:, None] - mixture.means) ** 2 / mixture.variance).sum(-1)
    expected = (shares - distances / 100).softmax(-1)
    torch.testing.assert_close(posterior(features, shares, mixture, Rule(50)), expected, rtol=1e-6, atol=1e-9)


@pytest.mark.parametrize("count", [1, 784])
def test_patches_that_are_all_alike_are_decided_by_their_words(count: int) -> None:
    """Flat water: the vision model has nothing to say."""
    features = F.normalize(torch.randn(1, 1024, generator=torch.Generator().manual_seed(3)), dim=-1).expand(count, -1)
    shares = log_shares(torch.rand(count, 5, generator=torch.Generator().manual_seed(4)) * 0.1)
    z = posterior(features, shares, fit(features, shares, Rule(50)), Rule(50))
    torch.testing.assert_close(z, shares.exp(), rtol=1e-2, atol=1e-3)


def test_chunks_do_not_change_the_mixture(monkeypatch: pytest.MonkeyPatch) -> None:
    generator = torch.Generator().manual_seed(3)
    features = F.normalize(torch.randn(300, 12, generator=generator), dim=-1)
    shares = log_shares(torch.rand(300, 4, generator=generator) * 0.1)
    whole = posterior(features, shares, fit(features, shares, Rule(5)), Rule(5))
    monkeypatch.setattr("geoovseg.ops.context.CHUNK", 64)
    torch.testing.assert_close(
        posterior(features, shares, fit(features, shares, Rule(5)), Rule(5)), whole, rtol=1e-9, atol=1e-12
    )


def test_likelihood_is_that_of_gaussians_with_one_diagonal_variance() -> None:
    """Against torch.distributions, whose normalisation is the same for all components."""
    generator = torch.Generator().manual_seed(4)
    features = F.normalize(torch.randn(20, 6, generator=generator, dtype=torch.double), dim=-1)
    shares = log_shares(torch.rand(20, 3, generator=generator))
    means = F.normalize(torch.randn(3, 6, generator=generator, dtype=torch.double), dim=-1)
    variance = torch.rand(6, generator=generator, dtype=torch.double) + 0.1
    densities = torch.distributions.Normal(means, variance.sqrt()).log_prob(features[:, None]).sum(-1)
    expected = (shares + densities / 7).softmax(-1)
    found = posterior(
        features, shares, Mixture(means, variance, torch.ones(3, dtype=torch.double), torch.zeros(0)), Rule(7)
    )
    torch.testing.assert_close(found, expected)


def test_a_component_unseen_in_the_sample_is_decided_by_its_word() -> None:
    """A patch unlike all that was seen, and of a word that was not, keeps its word."""
    means = F.normalize(torch.eye(3, 6, dtype=torch.double), dim=-1)
    mixture = Mixture(
        means, torch.full((6,), 0.01, dtype=torch.double), torch.tensor([100.0, 100.0, 0.0]).double(), torch.zeros(0)
    )
    axes = torch.eye(6, dtype=torch.double)
    features = F.normalize(torch.stack([axes[0], axes[5] + 0.5 * axes[0]]), dim=-1)
    shares = log_shares(torch.tensor([[0.3, 0.2, 0.2], [0.25, 0.2, 0.27]]))
    without = posterior(features, shares, mixture, Rule(1))
    with_it = posterior(features, shares, mixture, Rule(1), unseen_below=1)
    assert without.argmax(1).tolist() == [0, 0]
    assert with_it.argmax(1).tolist() == [0, 2]


def _end_to_end(case: Case) -> tuple[ConInfer, dict[str, Any]]:
    hyper = case.meta["hyper"]
    size = {key: hyper["dinov3"][key] for key in ("embed_dim", "depth", "num_heads")}
    state = {k: v.float() for k, v in load_file(case.path / "dinov3_weights.safetensors").items()}
    model = build_timm("vit_large_patch16_dinov3", state, **size, mlp_ratio=hyper["dinov3"]["ffn_ratio"])
    vfm = TimmVfm("dinov3", model, SAT_MEAN, SAT_STD)
    settings = {"attn_lambda": hyper["attn_lambda"], "temperature": hyper["gmm_temp"]}
    return build(case.vit, "coninfer", case.outputs["query_features"], vfm=vfm, **settings), hyper


def _tolerance(case: Case, key: str) -> dict[str, float]:
    return {name: float(value) for name, value in case.meta["tol"][key].items()}


@pytest.mark.golden
@pytest.mark.parametrize("case", find("coninfer_e2e"), ids=case_id)
def test_the_method_equals_the_release_end_to_end(case: Case) -> None:
    method, hyper = _end_to_end(case)
    images, raw = case.pixels("u8_clip"), case.pixels("u8_raw")
    looked_at = F.interpolate(raw, size=(hyper["side"],) * 2, mode="bilinear", antialias=True, align_corners=False)
    words, size = len(case.outputs["query_features"]), (raw.shape[2], raw.shape[3])
    groups = torch.bincount(case.inputs["query_idx"]).tolist()
    scale = hyper["logit_scale"]
    protocol = replace(RELEASES["coninfer"], scale=scale, threshold=hyper["prob_thd"], background=hyper["bg_idx"])

    def labels(count: int) -> tuple[torch.Tensor, torch.Tensor]:
        found = method.together(images[:count], looked_at[:count])
        found = F.interpolate(found, size=size, mode="bilinear", align_corners=False)
        return predict_published(found, groups, protocol)

    def baseline(**changed: float) -> tuple[torch.Tensor, torch.Tensor]:
        plain = replace(protocol, **changed)
        return predict_published(run(images, plain, method.scorer, size=size), groups, plain)

    seen = method.see(images, looked_at).movedim(1, -1).flatten(0, 2)
    whole, alone = labels(len(images)), labels(1)
    mean, std = (torch.tensor(v).view(1, 3, 1, 1) for v in (SAT_MEAN, SAT_STD))
    exact = {
        "dino_input_img0": ((looked_at[:1] - mean) / std, "scores"),
        "clip_scores": (seen[:, :words], "scores"),
        "dino_features": (seen[:, words:], "scores"),
        "z": (method.together(images, looked_at).movedim(1, -1).flatten(0, 2), "z"),
        "probs_img0": (whole[1][0], "scores"),
        "forward_feature_batched.logits": (
            build(case.vit, "segearth", case.outputs["query_features"]).score(
                images[: len(case.outputs["forward_feature_batched.logits"])]
            ),
            "scores",
        ),
    }
    decided = {
        "labels": whole,
        "labels_img0_alone": (alone[0][0], alone[1][0]),
        "baseline_predict1.labels": baseline(threshold=0.0),
        "baseline_scale50.labels": baseline(scale=50.0),
    }
    compared = 0
    for output, expected in case.outputs.items():
        name, step = sampled(output)
        if name in exact:
            found, kind = exact[name]
            assert_close(found[..., ::step, ::step] if step > 1 else found, expected, _tolerance(case, kind))
        elif name in decided:
            assert_labels(decided[name][0], expected, decided[name][1])
        else:
            assert name == "query_features"  # an input here
            continue
        compared += 1
    assert compared == len(case.outputs) - 1


def _method(clip: open_clip.CLIP, **settings: Any) -> ConInfer:
    """Three words, which are classes unless a vocabulary says otherwise."""
    vit = ClipVit(clip.visual)
    text = F.normalize(torch.randn(3, vit.dim, generator=torch.Generator().manual_seed(5)), dim=-1)
    return build(vit, "coninfer", text, vfm=ClipVfm("clip", vit), **settings)


def test_patches_without_data_have_no_part_in_the_mixture(tiny_clip: open_clip.CLIP) -> None:
    method, batch = _method(tiny_clip), random_batch(1, 64, 64)
    batch.valid[:, :, 40:] = False
    other = TileBatch(windows=batch.windows, stored=batch.pixels.copy(), valid=batch.valid)
    assert method.blocks.window == 64
    found, known = method.blocks.mean(batch, method.see)
    assert known[0].sum() == 8 * 5
    shares, features = method._split(found[0].flatten(1).T[known[0].flatten()])
    expected = posterior(features, shares, fit(features, shares, Rule(method.temperature)), Rule(method.temperature))
    scores = method.scores(other)[0].flatten(1).T[known[0].flatten()]
    torch.testing.assert_close(scores.double(), expected, rtol=1e-5, atol=1e-6)


def test_a_block_is_its_windows_side_by_side(tiny_clip: open_clip.CLIP) -> None:
    method, batch = _method(tiny_clip), random_batch(1, 128, 192)
    values, known = method.blocks.mean(batch, method.see)
    assert known.all()
    corner = torch.from_numpy(batch.pixels[:, :, 64:, 128:])
    torch.testing.assert_close(values[:, :, 8:, 16:], method.see(corner), rtol=1e-4, atol=1e-5)


def test_the_sample_is_the_same_for_every_scene_of_a_shape_and_all_over_it(tiny_clip: open_clip.CLIP) -> None:
    blocks = _method(tiny_clip).blocks
    windows = sample_windows((1000, 2000), blocks, 40)
    assert windows == sample_windows((1000, 2000), blocks, 40)
    assert windows != sample_windows((1000, 2001), blocks, 40)
    assert len(set(map(str, windows))) == 40
    assert max(w.row_off for w in windows) > 700
    assert max(w.col_off for w in windows) > 1500


def test_the_scenes_mixture_is_applied_alike_in_every_block(tiny_clip: open_clip.CLIP) -> None:
    """The same pixels in another company get the same posteriors; in their own group they do not."""
    scene, group = (_method(tiny_clip, context=c) for c in ("scene", "group"))
    scene.use(scene.prepare(lambda w: random_batch(1, w.height, w.width, w.col_off + w.row_off), (256, 256)))
    here = random_batch(1, 64, 128)
    there = TileBatch(windows=here.windows, stored=here.pixels.copy(), valid=here.valid)
    there.pixels[..., 64:] = 0.9
    for method, same in ((scene, True), (group, False)):
        one, two = (method.scores(batch)[..., :8] for batch in (here, there))
        assert torch.equal(one, two) is same


def test_a_scene_without_data_prepares_nothing(tiny_clip: open_clip.CLIP) -> None:
    method = _method(tiny_clip, context="scene", sample=2)
    reads: list[Window] = []

    def read(window: Window) -> TileBatch:
        reads.append(window)
        batch = random_batch(1, window.height, window.width)
        batch.valid[:] = False
        return batch

    assert method.prepare(read, (640, 640)) == {}
    assert len(reads) == 100, "all of them"
    batch = random_batch(1, 64, 64)
    values, _ = method.blocks.mean(batch, method.see)
    expected = log_shares(values[0, :3].flatten(1).T).exp().T.unflatten(1, (8, 8))
    torch.testing.assert_close(method.scores(batch)[0].double(), expected, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize(("base", "noted"), [("segearth", False), ("maskclip", False), ("gem", True), ("kk", False)])
def test_bases_without_a_last_block_of_their_own_run_unfused_and_say_so(
    tiny_clip: open_clip.CLIP, base: str, noted: bool
) -> None:
    method = _method(tiny_clip, base=base)
    assert any("attn_lambda 0 instead of 0.6" in note for note in method.notes) is noted
    assert _method(tiny_clip, base=base, attn_lambda=0).notes == ()


def test_blocks_mapped_to_another_tower_are_noted() -> None:
    torch.manual_seed(0)
    vision = {"image_size": 32, "layers": 4, "width": 24, "head_width": 8, "patch_size": 8}
    text = {"context_length": 8, "vocab_size": 16, "width": 16, "heads": 2, "layers": 1}
    short = open_clip.CLIP(embed_dim=16, vision_cfg=vision, text_cfg=text).eval().requires_grad_(False)
    assert "of 4 for (1, 4, 7, 10) of 12" in _method(short).notes[0]
    assert "of 4 for (6, 7, 8, 9)" in _method(short, base="reattnclip", attn_lambda=0).notes[0]


def test_a_temperature_by_length_is_that_of_features_of_1024(tiny_clip: open_clip.CLIP) -> None:
    """Log-likelihoods are sums over the features' length."""
    vit = ClipVit(tiny_clip.visual)
    vfm, pixels = ClipVfm("clip", vit), torch.rand(2, 3, 32, 32, generator=torch.Generator().manual_seed(1))
    text = F.normalize(torch.randn(3, vit.dim, generator=torch.Generator().manual_seed(2)), dim=-1)
    length = vfm.features(pixels, (4, 4)).shape[-1]
    by_length = build(vit, "coninfer", text, vfm=vfm, temperature=50.0, by_length=True).together(pixels, pixels)
    scaled = build(vit, "coninfer", text, vfm=vfm, temperature=50.0 * length / 1024).together(pixels, pixels)
    torch.testing.assert_close(by_length, scaled)
    assert not torch.equal(by_length, build(vit, "coninfer", text, vfm=vfm).together(pixels, pixels))


def _some(seed: int = 1) -> tuple[torch.Tensor, torch.Tensor]:
    """Unit features of patches of three kinds, and log-shares of three words that mostly follow them."""
    generator = torch.Generator().manual_seed(seed)
    kinds = torch.arange(60) % 3
    features = F.normalize(torch.eye(8)[kinds] + 0.3 * torch.randn(60, 8, generator=generator), dim=-1).double()
    return features, log_shares(0.02 * (F.one_hot(kinds, 3) + torch.randn(60, 3, generator=generator)))


def test_the_papers_update_is_the_root_of_the_product() -> None:
    """z ~ root(p q), q = exp(l / t): what KL(z||p) + KL(z||q) asks for."""
    features, shares = _some()
    mixture = fit(features, shares, Rule(2.0, 0.5))
    distance = (features[:, None] - mixture.means).square() / mixture.variance
    likeness = (-distance.sum(-1) / 2 / 2.0).softmax(-1)
    root = (shares.exp() * likeness).sqrt()
    found = posterior(features, shares, mixture, Rule(2.0, 0.5))
    torch.testing.assert_close(found, root / root.sum(-1, keepdim=True))
    assert not torch.equal(fit(features, shares, Rule(2.0)).means, mixture.means)


def test_a_mixture_of_words_alone_has_the_means_of_their_shares() -> None:
    features, shares = _some()
    mixture = fit(features, shares, Rule(2.0, joint=False))
    torch.testing.assert_close(mixture.means, F.normalize(shares.exp().T @ features, dim=-1))


def test_what_steps_make_small_gets_smaller() -> None:
    features, shares = _some()
    told = fit(features, shares, Rule(2.0)).objective
    assert told.shape == (10,)
    assert (told.diff() <= 1e-9).all()
    first = fit(features, shares, Rule(2.0), steps=1)
    start = fit(features, shares, Rule(2.0), steps=0)
    distance = ((features[:, None] - start.means).square() / start.variance).sum(-1) / 2
    density = -distance - start.variance.log().sum() / 2
    torch.testing.assert_close(first.objective[0], -(shares + density / 2.0).logsumexp(-1).mean())


def test_components_can_be_classes(tiny_clip: open_clip.CLIP) -> None:
    """Words of one class share a component and its posterior."""
    words, batch = parse_classes(["a=x+y,b"]), random_batch(1, 64, 64)
    found = _method(tiny_clip, vocabulary=words, components="class").scores(batch)
    assert torch.equal(found[:, 0], found[:, 1])
    torch.testing.assert_close(found[:, 1:].sum(1), torch.ones(1, 8, 8))
    single = parse_classes(["x,y,b"])
    by_word, by_class = (_method(tiny_clip, vocabulary=single, components=c) for c in ("word", "class"))
    assert torch.equal(by_word.scores(batch), by_class.scores(batch))


def test_the_base_can_have_settings_of_its_own(tiny_clip: open_clip.CLIP) -> None:
    settings = {"base": "segearth", "base.class_token_weight": -0.3, "base.residual": True}
    vit, words = ClipVit(tiny_clip.visual), parse_classes(["a,b,c"])
    text = F.normalize(torch.randn(3, vit.dim, generator=torch.Generator().manual_seed(5)), dim=-1)
    found: Any = load_method("coninfer", vit, text, words, vfm=ClipVfm("clip", vit), settings=settings)
    assert (found.scorer.class_token_weight, found.scorer.encoder.residual) == (-0.3, True)
    plain: Any = load_method("coninfer", vit, text, words, vfm=ClipVfm("clip", vit), settings={"base": "segearth"})
    assert (plain.scorer.class_token_weight, plain.scorer.encoder.residual) == (0.0, False)
    assert read_settings("coninfer", {"base": "kk", "base.sigma": "3"})["base.sigma"] == 3.0
    for wrong in ({"base.sigma": 3}, {"base.residual": "maybe"}):
        with pytest.raises(MethodError):
            read_settings("coninfer", wrong)
    with pytest.raises(MethodError, match=r"has no setting 'base\.residual'"):
        read_settings("segearth", {"base.residual": True})


def test_the_fused_blocks_can_be_others(tiny_clip: open_clip.CLIP) -> None:
    """3 ((1 - l) A_policy + l sum A_earlier) v."""
    vit, pixels = ClipVit(tiny_clip.visual), torch.from_numpy(random_batch(1, 32, 32).pixels)
    method = _method(tiny_clip, fused="2+5")
    assert method.scorer.encoder.blocks == (2, 5)
    x, _ = vit.embed(pixels)
    earlier = []
    for i in range(vit.depth - 1):
        q, k, _ = vit.qkv(i, x)
        earlier += [(q @ k.mT / q.shape[-1] ** 0.5).softmax(-1)] if i in (2, 5) else []
        x = vit.block(i, x)
    q, k, v = vit.qkv(vit.depth - 1, x)
    policy = attention.segearth(q, k, v)
    mixed = 3 * (0.4 * policy + 0.6 * sum(earlier) @ v)
    expected = vit.readout(vit.merge(vit.depth - 1, mixed))[:, 1:]
    torch.testing.assert_close(method.scorer.encoder(pixels).patches, expected, rtol=1e-4, atol=1e-5)
