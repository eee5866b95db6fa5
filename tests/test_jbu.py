"""Learned upsampling of features: equal to its plain form whatever makes it fast; refused where it cannot be."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import open_clip
import pytest
import rasterio
import torch
from torch import Tensor
from torch.nn import functional as F

from geoovseg.demo.scenes import render
from geoovseg.errors import GeoOVSegError, MethodError, ModelError, UsageError, WeightsMissingError
from geoovseg.methods import load_method, upsampled
from geoovseg.models.load import load_clip
from geoovseg.models.upsamplers import build_jbu, check_fit, load_upsampler
from geoovseg.models.vit import ClipVit
from geoovseg.ops.jbu import Jbu, doubled_with_margin
from geoovseg.run import predictor
from geoovseg.run.worker import Worker
from geoovseg.scene.scene import DEMO_TAG
from geoovseg.segmenter import segment
from geoovseg.settings import Settings
from geoovseg.vocabulary import parse_classes, read_classes

CPU = torch.device("cpu")


def random_state(arch: str, dim: int, seed: int = 0) -> dict[str, Tensor]:
    """Weights with the keys and shapes of a published checkpoint, without its prefix."""
    generator = torch.Generator().manual_seed(seed)

    def draw(*shape: int) -> Tensor:
        return 0.3 * torch.randn(*shape, generator=generator)

    state = {"fixup_proj.1.weight": draw(dim, dim, 1, 1), "fixup_proj.1.bias": draw(dim)}
    names, taps = (("up",), 121) if arch == "jbu_one" else (("up1", "up2", "up3", "up4"), 49)
    for name in names:
        state |= {f"{name}.range_temp": draw(1)[0] + 1, f"{name}.sigma_spatial": torch.tensor(1.0)}
        for part, (a, b) in {"range_proj": (3, 32), "fixup_proj": (taps + 3, taps)}.items():
            state |= {f"{name}.{part}.0.weight": draw(b, a, 1, 1), f"{name}.{part}.0.bias": draw(b)}
            state |= {f"{name}.{part}.3.weight": draw(b, b, 1, 1), f"{name}.{part}.3.bias": draw(b)}
    return state


def plain(
    state: dict[str, Tensor], names: tuple[str, ...], source: Tensor, image: Tensor, *, at_once: int = 64
) -> Tensor:
    """The formulas of the papers on unfolded tensors: (1, C, h, w) and (1, 3, 16h, 16w) to (1, C, 16h, 16w).

    `at_once` channels are unfolded together: 512 of them on a window of 224 pixels would take 12.4 GB.
    """

    def project(x: Tensor, name: str) -> Tensor:
        hidden = F.gelu(F.conv2d(x, state[f"{name}.0.weight"], state[f"{name}.0.bias"]))
        return F.conv2d(hidden, state[f"{name}.3.weight"], state[f"{name}.3.bias"])

    for name in names:
        side = round(len(state[f"{name}.fixup_proj.3.bias"]) ** 0.5)
        height, width = 2 * source.shape[2], 2 * source.shape[3]
        guide = F.adaptive_avg_pool2d(image, (height, width))
        seen = project(guide, f"{name}.range_proj")
        near = F.unfold(F.pad(seen, [side // 2] * 4, mode="reflect"), side).view(32, -1, height, width)
        temperature = state[f"{name}.range_temp"].exp().clamp(1e-4, 1e4)
        place = torch.linspace(-1, 1, side) ** 2
        space = torch.exp(-(place[:, None] + place[None]).flatten() / (2 * state[f"{name}.sigma_spatial"] ** 2))
        kernels = (temperature * (near * seen[0][:, None]).sum(0)).softmax(0) * space[:, None, None]
        kernels = (kernels / kernels.sum(0).clamp(min=1e-7))[None]
        kernels = kernels + 0.1 * project(torch.cat([kernels, guide], 1), f"{name}.fixup_proj")
        source = F.interpolate(source, size=(height, width), mode="bicubic", align_corners=False)
        padded = F.pad(source, [side // 2] * 4, mode="reflect")
        source = torch.cat([_convolved(part, kernels, side) for part in padded.split(at_once, dim=1)], 1)
    return source + 0.1 * F.conv2d(source, state["fixup_proj.1.weight"], state["fixup_proj.1.bias"])


def _convolved(padded: Tensor, kernels: Tensor, side: int) -> Tensor:
    near = F.unfold(padded, side).unflatten(1, (-1, side * side)).unflatten(3, kernels.shape[-2:])
    return torch.einsum("bcnyx,bnyx->bcyx", near, kernels)


NAMES = {"jbu_one": ("up",) * 4, "jbu_stack": ("up1", "up2", "up3", "up4")}


@pytest.mark.parametrize("arch", NAMES)
@pytest.mark.parametrize("dim", [12, 48], ids=["fewer dimensions than patches", "more dimensions than patches"])
def test_cosines_equal_those_of_the_plain_form(arch: str, dim: int) -> None:
    """With more dimensions than patches, features are reduced to a basis first."""
    torch.manual_seed(0)
    state, grid = random_state(arch, dim), (4, 5)
    patches, image = torch.randn(2, 20, dim), torch.randn(2, 3, 64, 80)
    text = F.normalize(torch.randn(6, dim), dim=-1)
    found = build_jbu(state, arch, CPU).cosines(patches, grid, image, text)
    for window in range(2):
        source = patches[window].T.view(1, dim, *grid)
        features = plain(state, NAMES[arch], source, image[window : window + 1])
        expected = torch.einsum("cyx,qc->qyx", F.normalize(features[0], dim=0), text)
        length = features[0].norm(dim=0)  # a cosine is as uncertain as its feature is short
        torch.testing.assert_close(found[window] * length, expected * length, rtol=0, atol=1e-5 * float(length.mean()))


def test_doubling_is_bicubic_interpolation_mirrored_at_the_edges() -> None:
    source = torch.randn(3, 7, 5, dtype=torch.float64)
    doubled = F.interpolate(source.permute(2, 0, 1)[None], scale_factor=2, mode="bicubic", align_corners=False)
    expected = F.pad(doubled, [5] * 4, mode="reflect")[0].permute(1, 2, 0)
    torch.testing.assert_close(doubled_with_margin(source, 5), expected, rtol=0, atol=1e-6)


def test_a_window_is_upsampled_the_same_alone_and_in_company() -> None:
    jbu = build_jbu(random_state("jbu_one", 24), "jbu_one", CPU)
    patches, image = torch.randn(3, 12, 24), torch.randn(3, 3, 48, 64)
    text = F.normalize(torch.randn(2, 24), dim=-1)
    together = jbu.cosines(patches, (3, 4), image, text)
    assert torch.equal(jbu.cosines(patches[1:2], (3, 4), image[1:2], text)[0], together[1])


@pytest.mark.parametrize("prefix", ["upsampler.", ""])
def test_published_checkpoints_are_read_by_their_keys(prefix: str, tmp_path: Path) -> None:
    """A Lightning file: a table under state_dict, other modules beside the upsampler, a prefix on every key."""
    state = random_state("jbu_one", 8)
    other = {"downsampler.kernel": torch.ones(3), "global_step": torch.tensor(3)} if prefix else {}
    torch.save({"epoch": 1, "state_dict": {**{prefix + k: v for k, v in state.items()}, **other}}, tmp_path / "w.ckpt")
    loaded = load_upsampler(f"jbu_one@{tmp_path / 'w.ckpt'}", CPU)
    assert len(loaded.sha256) == 64
    torch.testing.assert_close(loaded.jbu.weight, state["fixup_proj.1.weight"][:, :, 0, 0])
    assert loaded.jbu.steps[0].side == 11


def test_files_that_are_no_upsampler_are_refused_with_what_they_lack(tmp_path: Path) -> None:
    state = random_state("jbu_one", 8)
    del state["up.range_proj.3.bias"]
    torch.save({"state_dict": state}, tmp_path / "w.ckpt")
    with pytest.raises(GeoOVSegError, match=r"as weights of jbu_one: it has no up.range_proj.3.bias"):
        load_upsampler(f"jbu_one@{tmp_path / 'w.ckpt'}", CPU)
    (tmp_path / "x.ckpt").write_bytes(b"not weights")
    with pytest.raises(GeoOVSegError, match="cannot be loaded"):
        load_upsampler(f"jbu_stack@{tmp_path / 'x.ckpt'}", CPU)
    with pytest.raises(ModelError, match="no upsampler named 'jbu_two@w'"):
        load_upsampler("jbu_two@w", CPU)


WRONG = {
    "up.fixup_proj.3.weight": torch.ones(120, 121, 1, 1),
    "fixup_proj.1.weight": torch.ones(8, 8, 3, 3),
    "up.range_proj.0.weight": torch.ones(32, 4, 1, 1),
    "up.range_temp": torch.tensor(float("nan")),
}


@pytest.mark.parametrize("key", WRONG)
def test_tensors_of_another_shape_and_broken_ones_are_refused_by_name(key: str) -> None:
    with pytest.raises(ValueError, match=f"its {key} (has shape|is not finite)"):
        build_jbu({**random_state("jbu_one", 8), key: WRONG[key]}, "jbu_one", CPU)


def test_one_upsamplers_weights_are_not_taken_for_the_others() -> None:
    stack = {k.replace("up1.", "up."): v for k, v in random_state("jbu_stack", 8).items()}
    with pytest.raises(ValueError, match="has shape"):
        build_jbu(stack, "jbu_one", CPU)


def _vit(patch: int, dim: int) -> ClipVit:
    torch.manual_seed(1)
    vision = {"image_size": 4 * patch, "layers": 2, "width": 24, "head_width": 8, "patch_size": patch}
    text = {"context_length": 8, "vocab_size": 16, "width": 8, "heads": 1, "layers": 1}
    return ClipVit(open_clip.CLIP(dim, vision, text).eval().requires_grad_(False).visual)


@pytest.mark.parametrize(
    ("patch", "dim", "message"),
    [(8, 24, "16 pixels of a patch, but this model's patches are 8"), (16, 20, "length 24, but this model's have 20")],
)
def test_towers_it_was_not_made_for_are_refused(patch: int, dim: int, message: str) -> None:
    jbu = build_jbu(random_state("jbu_one", 24), "jbu_one", CPU)
    with pytest.raises(ModelError, match=message):
        check_fit(jbu, _vit(patch, dim), "jbu_one")


def test_methods_that_refine_scores_have_no_features_to_upsample() -> None:
    text, words = F.normalize(torch.randn(2, 24), dim=-1), parse_classes(["a,b"])
    method = load_method("maskclip", _vit(16, 24), text, words, settings={"smooth": 1})
    with pytest.raises(MethodError, match="maskclip, as set, refines scores of patches"):
        upsampled("maskclip", method, build_jbu(random_state("jbu_one", 24), "jbu_one", CPU).cosines)


@pytest.fixture
def patch_16(monkeypatch: pytest.MonkeyPatch) -> ClipVit:
    """The demo model's text with an untrained tower of patch 16 instead of its own."""
    demo = load_clip("demo", CPU, "fp32")
    vit = _vit(16, demo.vit.dim)
    monkeypatch.setattr(predictor, "load_clip", lambda *a: replace(demo, vit=vit))
    return vit


@pytest.fixture
def weights(patch_16: ClipVit, tmp_path: Path) -> str:
    torch.save(random_state("jbu_one", patch_16.dim), tmp_path / "jbu.ckpt")
    return f"jbu_one@{tmp_path / 'jbu.ckpt'}"


def _run(scene: str, folder: Path, name: str, **changes: Any) -> tuple[np.ndarray, int]:
    given = {"classes": "building=house+roof,road,water", "model": "demo", **changes}
    result = segment(scene, output=folder / name, **given)
    with rasterio.open(result.labels) as src:
        return src.read(1), result.panels


def test_labels_do_not_depend_on_batches_or_panels(
    write_raster: Callable[..., str], weights: str, tmp_path: Path
) -> None:
    """More than a block wide, so that a small budget makes two panels and other batches."""
    scene = write_raster(render(1004, 64, 600)[0], tags={DEMO_TAG: "1004"})
    given = {"tile": 64, "stride": 64, "upsample": weights}
    first, panels = _run(scene, tmp_path, "a.tif", **given, batch_size=16)
    assert len(np.unique(first)) > 1
    assert panels == 1
    for n, changes in enumerate(({"batch_size": 1}, {"max_memory": 0.001})):
        other, panels = _run(scene, tmp_path, f"b{n}.tif", **given, **changes)
        np.testing.assert_array_equal(other, first)
        assert panels == (2 if "max_memory" in changes else 1)
    assert (_run(scene, tmp_path, "c.tif", **{**given, "upsample": "bilinear"})[0] != first).any()


def test_words_that_are_not_merged_before_are_in_the_estimate(demo_scene: str, weights: str) -> None:
    """Three classes of four words: a batch of 8 windows holds a channel more at pixel resolution, three times."""
    words = read_classes("building=house+roof,road,water", None)
    settings = Settings(model="demo", background="none", upsample=weights)
    layout = Worker(words, settings).job(demo_scene, settings).layout
    tile, merged = layout.plan.tile, replace(layout, load=replace(layout.load, at_once=len(words.groups)))
    assert layout.memory_mb - merged.memory_mb == pytest.approx(3 * 4 * 8 * tile[0] * tile[1] / 1e6)


def test_windows_too_small_to_mirror_are_refused(
    write_raster: Callable[..., str], weights: str, tmp_path: Path
) -> None:
    scene = write_raster(np.zeros((3, 40, 30), np.uint8))
    with pytest.raises(UsageError, match="needs windows of at least 48 x 48 pixels, and these have 32 x 48"):
        _run(scene, tmp_path, "labels.tif", upsample=weights)


def test_missing_weights_and_unknown_names_are_told_before_anything_is_read(demo_scene: str, tmp_path: Path) -> None:
    with pytest.raises(WeightsMissingError, match="geoovseg models fetch jbu_one"):
        _run(demo_scene, tmp_path, "labels.tif", upsample="jbu_one")
    with pytest.raises(UsageError, match="choose from auto, bilinear, guided, jbu_one, jbu_stack"):
        _run(demo_scene, tmp_path, "labels.tif", upsample="cubic")
    with pytest.raises(WeightsMissingError, match="no weights at nowhere.ckpt, given by --upsample"):
        _run(demo_scene, tmp_path, "labels.tif", upsample="jbu_one@nowhere.ckpt")


def test_the_demo_model_is_refused_for_its_patch(demo_scene: str, tmp_path: Path) -> None:
    torch.save(random_state("jbu_one", 8), tmp_path / "w.ckpt")
    with pytest.raises(ModelError, match=r"patches are 8 pixels wide; choose --upsample guided"):
        _run(demo_scene, tmp_path, "labels.tif", upsample=f"jbu_one@{tmp_path / 'w.ckpt'}")


def test_features_at_pixels_are_never_held_as_a_whole() -> None:
    """The last doubling yields strips of a few rows, and cosines are taken of each."""
    jbu: Jbu = build_jbu(random_state("jbu_one", 24), "jbu_one", CPU)
    rows = [len(s) for s in jbu.steps[-1].strips(torch.randn(32, 32, 24), torch.randn(64, 64, 3))]
    assert rows == [8] * 8
