"""What every registered method promises, whatever it does inside."""

from __future__ import annotations

import copy
import inspect
import re
from collections.abc import Sequence
from functools import cache
from typing import Any

import numpy as np
import open_clip
import pytest
import torch
from golden_cases import TINY_SAM, small_sam
from tiny_sam3 import small_sam3
from torch.nn import functional as F
from windows import random_batch

from geoovseg.errors import MethodError
from geoovseg.methods import METHODS, Method, direct, load_method, read_settings
from geoovseg.methods.fields import Field
from geoovseg.models.masks import MaskSet
from geoovseg.models.sam import Sam
from geoovseg.models.sam3 import Sam3Tower
from geoovseg.models.vfm import ClipVfm
from geoovseg.models.vit import ClipVit
from geoovseg.ops import attention
from geoovseg.vocabulary import parse_classes
from geoovseg.windows.batch import TileBatch

VOCABULARY = parse_classes(["a=x+y,b,c"])
TEXT = F.normalize(torch.randn(4, 16, generator=torch.Generator().manual_seed(5)), dim=-1)


OUTLINED = {"sam_iou_thresh": -10, "minimal_area": 1, "coarse_thresh": 0.1}
BESIDE: dict[str, dict[str, object]] = {"sample": {"context": "scene"}, "max_steps": {"reach": 0.999}}
BESIDE |= dict.fromkeys(("refine", "coarse_thresh", "minimal_area", "sam_mask_coff", "mask_prompt_layout"), OUTLINED)
BESIDE["sam_iou_thresh"] = {"minimal_area": 1, "coarse_thresh": 0.1}
BESIDE["iou"] = {"stability": 0.0}
BESIDE["prompts"] = OUTLINED
BESIDE["own"] = {"patches": False}
BESIDE |= {name: {"confidence_threshold": 0.0} for name in ("instance", "aggregate")}
"""Settings that another setting needs beside it to matter."""


@pytest.fixture(autouse=True)
def _coarse_attention(monkeypatch: pytest.MonkeyPatch) -> None:
    """What is promised does not depend on how finely attention is looked at; the golden cases look at 32 patches."""
    monkeypatch.setattr(direct, "LEAST_GRID", 8)


@cache
def _tiny_sam() -> Sam:
    """A random Segment Anything of two tiny blocks, for images of 128 pixels."""
    torch.manual_seed(1)
    return Sam(small_sam(TINY_SAM).eval().requires_grad_(False))


@cache
def _tiny_sam3() -> Any:
    """A random SAM 3 of few and narrow blocks, without its text encoder."""
    model = small_sam3()
    model.text_encoder = None
    return model


def _tower(name: str, clip: open_clip.CLIP, dtype: torch.dtype = torch.float32) -> ClipVit:
    """What a method reads: the tiny CLIP, or SAM 3."""
    if "clip" in METHODS[name].towers:
        return ClipVit(copy.deepcopy(clip.visual).to(dtype))
    return Sam3Tower(copy.deepcopy(_tiny_sam3()).to(dtype), mean=(0.5,) * 3, std=(0.5,) * 3)


def _text(vit: ClipVit) -> torch.Tensor:
    """Words as the tower knows them: unit vectors, or tokens with what says how many they are."""
    if not isinstance(vit, Sam3Tower):
        return TEXT
    tokens = torch.randn(4, 6, vit.dim + 1, generator=torch.Generator().manual_seed(6))
    tokens[..., -1] = torch.arange(6) < torch.tensor([[3], [4], [5], [6]])
    return tokens.flatten(1)


def _beside(vit: ClipVit) -> dict[str, Any]:
    """What methods use beside CLIP: the tower itself as vision model, a tiny Segment Anything, regions by colour."""
    return {"vfm": ClipVfm("clip", vit), "sam": _tiny_sam(), "regions": _Stripes()}


class _Stripes:
    """Regions that depend on what is asked of them: diagonal stripes, with as much of none between them."""

    def __call__(self, batch: TileBatch, sets: Sequence[MaskSet], tile: int = 0) -> np.ndarray:
        height, width = batch.pixels.shape[2:]
        step = np.add.outer(np.arange(height), np.arange(width))
        wide = [3 + len(repr(s)) % 7 + 20 * s.quality + 9 * s.stability + s.points / 5 + s.area / 100 for s in sets]
        maps = [3 * step // width for width in wide]
        stripes = np.stack([(m.astype(np.int32) + tile) % 5 for m in maps])
        return np.broadcast_to(stripes, (len(batch), *stripes.shape)).copy()


def _load(name: str, vit: ClipVit, text: torch.Tensor | None = None, **settings: object) -> Method:
    """A method with the tower itself as its vision model, which has seen a scene."""
    text = _text(vit) if text is None else text
    method = load_method(name, vit, text, VOCABULARY, **_beside(vit), settings=settings)  # type: ignore[arg-type]
    method.use(method.prepare(lambda window: random_batch(1, window.height, window.width, window.col_off), (64, 192)))
    return method


def _method(name: str, clip: open_clip.CLIP, dtype: torch.dtype = torch.float32) -> Method:
    return _load(name, _tower(name, clip, dtype))


@pytest.mark.parametrize("name", METHODS)
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=["float32", "bfloat16"])
@pytest.mark.parametrize(("height", "width"), [(32, 32), (64, 96), (40, 32)])
@pytest.mark.parametrize("count", [1, 3])
def test_scores_are_finite_float32_of_the_promised_shape(
    name: str, tiny_clip: open_clip.CLIP, dtype: torch.dtype, height: int, width: int, count: int
) -> None:
    scores = _method(name, tiny_clip, dtype).scores(random_batch(count, height, width))
    assert scores.dtype == torch.float32
    assert scores.shape[:2] == (count, 4)
    assert height % scores.shape[2] == 0
    assert width % scores.shape[3] == 0
    assert torch.isfinite(scores).all()


@pytest.mark.parametrize("name", METHODS)
def test_a_window_scores_the_same_alone_and_in_company(name: str, tiny_clip: open_clip.CLIP) -> None:
    method, batch = _method(name, tiny_clip), random_batch(3, 32, 48)
    together = method.scores(batch)
    for n in range(3):
        one = TileBatch(windows=batch.windows[n : n + 1], stored=batch.pixels[n : n + 1], valid=batch.valid[n : n + 1])
        torch.testing.assert_close(method.scores(one)[0], together[n], rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("name", METHODS)
def test_scores_do_not_change_the_batch(name: str, tiny_clip: open_clip.CLIP) -> None:
    batch = random_batch(2, 32, 32)
    before = batch.pixels.copy()
    _method(name, tiny_clip).scores(batch)
    np.testing.assert_array_equal(batch.pixels, before)


@pytest.mark.parametrize("name", METHODS)
def test_bfloat16_scores_stay_near_float32(name: str, tiny_clip: open_clip.CLIP) -> None:
    batch = random_batch(2, 32, 32)
    full, half = (_method(name, tiny_clip, d).scores(batch) for d in (torch.float32, torch.bfloat16))
    assert (full - half).abs().max() < (0.05 if METHODS[name].unit == "cosine" else 0.5)


@pytest.mark.parametrize("name", METHODS)
def test_a_method_says_what_it_wants_and_what_its_scores_are(name: str, tiny_clip: open_clip.CLIP) -> None:
    method, card = _method(name, tiny_clip), METHODS[name]
    assert method.tile > 0
    assert method.tile % method.patch == 0
    assert 0 < method.stride <= method.tile
    assert method.unit == card.unit
    assert card.paper
    assert card.about.endswith(".")


FIELDS = [
    pytest.param(name, field, id=f"{name}-{field.name}") for name, card in METHODS.items() for field in card.fields
]


TEXTS = {"sets": "16/0.9/0.9/1500+3/0.2/0.2/100", "fused": "2+5", "betas": "0.5+0.1+0.1+0.1"}
"""Other texts for settings that are no choice."""


def _others(field: Field) -> list[bool | float | str]:
    """Values of a setting other than its default, one of which should matter."""
    if isinstance(field.default, bool):
        return [not field.default]
    if field.like:
        return [TEXTS[field.name]]
    if isinstance(field.default, str):
        return [choice for choice in field.choices if choice != field.default]
    if field.name == "sample":
        return [1]
    if field.name == "distance":
        return [0, 2]
    if field.name == "sam_iou_thresh":
        return [-10]
    if field.at_most is not None:
        return (
            [(field.default + field.at_most) / 2, field.at_most]
            if isinstance(field.default, float)
            else [field.default + 1, field.at_least]
        )
    return [field.default + 1.5]


@pytest.mark.parametrize(("name", "field"), FIELDS)
def test_every_setting_reaches_the_method(name: str, field: Field, tiny_clip: open_clip.CLIP) -> None:
    """On windows off the native grid, with words four of which are patches of theirs, so that everything matters."""
    if field.name.startswith("sd_"):
        pytest.skip("only Stable Diffusion has it: tests/test_diffusion.py")
    if field.name == "words_together":
        pytest.skip("it changes time and memory alone: tests/test_sam3.py")
    if field.name == METHODS[name].votes:
        pytest.skip("regions vote when features are asked: tests/test_votes.py")
    blocks = METHODS[name].blocks
    vit, batch = _tower(name, tiny_clip), random_batch(2, 40, 48) if blocks else random_batch(2, 36, 44)
    text = _text(vit)
    if text is TEXT:
        dense: Any = load_method("segearth" if blocks else name, vit, TEXT, VOCABULARY, **_beside(vit))
        own = dense.features(torch.from_numpy(batch.pixels))
        text = F.normalize(torch.cat([own.patches[0, [3, 8, 12] if blocks else [3, 8, 12, 17]], TEXT[:1]]), dim=-1)
    beside = BESIDE.get(field.name, {})
    plain = _load(name, vit, text, **beside)
    changed = [_load(name, vit, text, **{**beside, field.name: other}) for other in _others(field)]
    assert field.about
    assert any(m.scale != plain.scale or not torch.equal(m.scores(batch), plain.scores(batch)) for m in changed)


NUMBERS = [p for p in FIELDS if type(p.values[1].default) in (int, float) and p.values[1].name != "depth"]


@pytest.mark.parametrize(("name", "field"), NUMBERS)
@pytest.mark.parametrize(
    "dtype", [torch.float32, torch.bfloat16, torch.float16], ids=["float32", "bfloat16", "float16"]
)
def test_scores_are_finite_at_the_ends_of_what_a_setting_may_be(
    name: str, field: Field, dtype: torch.dtype, tiny_clip: open_clip.CLIP
) -> None:
    vit = _tower(name, tiny_clip, dtype)
    low = field.at_least if field.at_least is not None else (-999_999.0 if field.above is None else 1e-30)
    high = field.at_most if field.at_most is not None else 999_999.0
    for value in (low, high):
        method = load_method(name, vit, _text(vit), VOCABULARY, **_beside(vit), settings={field.name: value})
        assert torch.isfinite(method.scores(random_batch(1, 40, 48))).all(), value


@pytest.mark.parametrize(("name", "field"), FIELDS)
def test_settings_outside_their_bounds_are_refused(name: str, field: Field) -> None:
    wrong: list[object] = ["nonsense"]
    wrong += [field.above] if field.above is not None else []
    wrong += [field.at_least - 1] if field.at_least is not None else []
    wrong += [field.at_most + 1] if field.at_most is not None else []
    for value in wrong:
        with pytest.raises(MethodError, match=f"{name}: --set {field.name}={value} is not {re.escape(field.kind)}"):
            read_settings(name, {field.name: str(value)})


@pytest.mark.parametrize("name", METHODS)
def test_builders_have_one_signature(name: str) -> None:
    import importlib

    module, _, attribute = METHODS[name].build.partition(":")
    parameters = inspect.signature(getattr(importlib.import_module(module), attribute)).parameters
    assert list(parameters)[:3] == ["clip", "text", "vocabulary"]
    assert {"vfm", "sam", "base", "fields"} <= set(parameters)


def test_settings_are_read_as_their_type() -> None:
    assert read_settings("segearth", {"residual": "true", "class_token_weight": "0"}) == {
        "residual": True,
        "scale": 50.0,
        "class_token_weight": 0.0,
    }


@pytest.mark.parametrize(
    ("name", "settings", "message"),
    [
        ("nothing", {}, "no method named 'nothing'; choose from clip"),
        ("segearht", {}, "did you mean segearth"),
        ("clip", {"depth": "7"}, "clip has no setting 'depth'; it has residual, scale"),
        ("clip", {"residual": "maybe"}, "is not true or false"),
        ("naclip", {"mixing": "qq"}, "is not naclip or kk or csa or vanilla or nonly"),
        ("gem", {"iterations": "1.5"}, "is not a whole number from 1 to 100"),
        ("resclip", {"sure": "nan"}, "is not a number from 0 to 1"),
        ("clip", {"scale": "much"}, "is not a number above 0"),
        ("clip", {"scale": "nan"}, "is not a number above 0"),
        ("clip", {"scale": "-50"}, "is not a number above 0"),
        ("segearth", {"class_token_weight": "inf"}, "is not a number"),
        ("segearth", {"class_token_weight": "-1e39"}, "is not a number"),
    ],
)
def test_wrong_names_and_values_are_refused(name: str, settings: dict[str, str], message: str) -> None:
    with pytest.raises(MethodError, match=message):
        read_settings(name, settings)


def test_a_base_is_refused_where_there_is_none_to_choose(tiny_clip: open_clip.CLIP) -> None:
    with pytest.raises(MethodError, match="segearth has no setting 'base'"):
        load_method("segearth", ClipVit(tiny_clip.visual), TEXT, VOCABULARY, settings={"base": "kk"})


def test_the_class_token_bias_is_added_as_a_score(tiny_clip: open_clip.CLIP) -> None:
    vit, batch = ClipVit(tiny_clip.visual), random_batch(2, 32, 32)
    with_bias = load_method("segearth", vit, TEXT, VOCABULARY).scores(batch)
    without = load_method("segearth", vit, TEXT, VOCABULARY, settings={"class_token_weight": 0}).scores(batch)
    x, _ = vit.trunk(torch.from_numpy(batch.pixels))
    heads = attention.segearth(*vit.qkv(vit.depth - 1, x))
    cls = F.normalize(vit.readout(vit.merge(vit.depth - 1, heads))[:, 0], dim=-1)
    expected = -0.3 * (cls @ TEXT.T)[:, :, None, None]
    torch.testing.assert_close(with_bias - without, expected.expand_as(without), rtol=0, atol=1e-6)
