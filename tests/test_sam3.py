"""SAM 3 and the methods on it, on a tiny random model: against transformers' own forward, and formulas written out."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from golden_cases import assert_close
from safetensors.torch import load_file, save_file
from tiny_sam3 import small_sam3
from torch.nn import functional as F
from windows import random_batch

from geoovseg.errors import GeoOVSegError, MethodError, ModelError
from geoovseg.methods import load_method
from geoovseg.methods.concepts import ConceptMethod
from geoovseg.methods.proc_sam3 import topk_mean
from geoovseg.methods.published import RELEASES
from geoovseg.methods.releases import segment_published
from geoovseg.models import sam3
from geoovseg.models.load import ClipModel, load_clip
from geoovseg.models.sam3 import Answers
from geoovseg.vocabulary import Vocabulary, parse_classes

FLOAT = {"atol": 1e-5, "rtol": 1e-5}
CPU = torch.device("cpu")
WORDS = parse_classes(["road=road+a dirt road,water,tree"])
SIZE = (80, 96)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny model as transformers writes it."""
    path = tmp_path_factory.mktemp("sam3")
    small_sam3().save_pretrained(path)
    return path


@pytest.fixture(scope="module")
def theirs() -> Any:
    return small_sam3()


@pytest.fixture
def ours(folder: Path) -> ClipModel:
    load_clip.cache_clear()
    return load_clip(f"sam3@{folder}", CPU, "fp32", "bare")


def _method(model: ClipModel, name: str = "segearth-ov3", words: Vocabulary = WORDS, **settings: Any) -> ConceptMethod:
    method: Any = load_method(name, model.vit, model.text.embed(words.queries), words, settings=settings)
    return method


def _asked(theirs: Any, batch: Any, word: str, boxes: int = 1, place: float = 0.5) -> Any:
    """One word asked of one window the way transformers documents it, with boxes that count as padding."""
    from transformers import CLIPTokenizer
    from transformers.models.sam3.image_processing_sam3 import Sam3ImageProcessor

    image = (torch.from_numpy(batch.pixels[0]) * 255).round().to(torch.uint8)
    seen = Sam3ImageProcessor(size={"height": 112, "width": 112})(images=[image], return_tensors="pt")
    tokens = _clip_tokens(CLIPTokenizer, word)
    given: dict[str, Any] = {}
    if boxes:
        given["input_boxes"] = torch.full((1, boxes, 4), place)
        given["input_boxes_labels"] = torch.full((1, boxes), -10)
    with torch.no_grad():
        return theirs(pixel_values=seen.pixel_values, **tokens, **given)


def _clip_tokens(kind: Any, word: str) -> dict[str, torch.Tensor]:
    """Tokens of a word by transformers' tokenizer on open_clip's vocabulary."""
    from geoovseg.models.light import open_clip

    words = open_clip.tokenizer.SimpleTokenizer(context_length=32)
    ends = {"<start_of_text>": "<|startoftext|>", "<end_of_text>": "<|endoftext|>"}
    vocab = {ends.get(token, token): number for token, number in words.encoder.items()}
    tokenizer = kind(vocab=vocab, merges=list(words.bpe_ranks))
    return dict(tokenizer([word], padding="max_length", max_length=32, truncation=True, return_tensors="pt"))


def _literal(theirs: Any, batch: Any, word: str, *, confidence: float = 0.5, **given: Any) -> torch.Tensor:
    """A query map (H, W), step by step as the specification has it (section 3)."""
    found, size = _asked(theirs, batch, word, **given), batch.pixels.shape[2:]
    p = torch.sigmoid(found.presence_logits[0, 0])
    instance = torch.zeros(size)
    for mask, logit in zip(found.pred_masks[0], found.pred_logits[0], strict=True):
        s = torch.sigmoid(logit) * p
        if s > confidence:
            m = F.interpolate(mask[None, None], size, mode="bilinear", align_corners=False)[0, 0].sigmoid()
            instance = torch.maximum(instance, m * s)
    semantic = F.interpolate(found.semantic_seg, size, mode="bilinear", align_corners=False)[0, 0].sigmoid()
    return torch.maximum(semantic, instance) * p


@pytest.mark.parametrize("size", [SIZE, (112, 112), (230, 250)])
@pytest.mark.parametrize("confidence", [0.3, 0.5])
def test_maps_of_words_are_those_of_the_specification(
    ours: ClipModel, theirs: Any, size: tuple[int, int], confidence: float
) -> None:
    batch = random_batch(1, *size)
    found = _method(ours, confidence_threshold=confidence).scores(batch)
    expected = torch.stack([_literal(theirs, batch, word, confidence=confidence) for word in WORDS.queries])
    assert found.shape == (1, 4, *size)
    assert_close(found[0], expected, FLOAT)


def test_objects_count_and_some_do_not(ours: ClipModel) -> None:
    """What the other tests compare is no map of the word alone."""
    batch = random_batch(1, *SIZE)
    alone = _method(ours, instance=False).scores(batch)
    some, more = (_method(ours, confidence_threshold=t).scores(batch) for t in (0.5, 0.1))
    assert (some > alone).any()
    assert (more > some).any()


def test_the_dummy_box_is_nowhere(ours: ClipModel, theirs: Any) -> None:
    batch = random_batch(1, *SIZE)
    elsewhere = _literal(theirs, batch, "water", place=0.1, boxes=2)
    assert_close(_method(ours, words=parse_classes(["water"])).scores(batch)[0, 0], elsewhere, FLOAT)


def test_the_geometry_token_can_be_left_out_as_transformers_does(ours: ClipModel, theirs: Any) -> None:
    batch = random_batch(1, *SIZE)
    bare = _method(ours, geometry_cls=False).scores(batch)
    assert_close(bare[0, 2], _literal(theirs, batch, "water", boxes=0), FLOAT)
    assert (bare - _method(ours).scores(batch)).abs().max() > 1e-3


def test_what_fills_a_sentence_up_is_not_attended_to(ours: ClipModel) -> None:
    tower: Any = ours.vit
    seen, words = tower.see(torch.from_numpy(random_batch(1, *SIZE).pixels)), ours.text.embed(["water"])
    tokens = words.unflatten(1, (-1, tower.dim + 1)).clone()
    tokens[..., :-1][tokens[..., -1] == 0] = 7.0
    assert_close(tower.answer(seen, tokens.flatten(1)).classes, tower.answer(seen, words).classes, FLOAT)
    tokens[..., -1] = 1
    assert (tower.answer(seen, tokens.flatten(1)).classes - tower.answer(seen, words).classes).abs().max() > 1e-2


def test_words_together_are_words_one_by_one(ours: ClipModel, monkeypatch: pytest.MonkeyPatch) -> None:
    batch, asked = random_batch(2, *SIZE), []
    answer = sam3.Sam3Tower.answer

    def counted(self: Any, seen: Any, words: torch.Tensor, **given: Any) -> Answers:
        asked.append(len(words))
        return answer(self, seen, words, **given)

    monkeypatch.setattr(sam3.Sam3Tower, "answer", counted)
    alone, together = (_method(ours, words_together=n).scores(batch) for n in (1, 3))
    assert asked == [1] * 8 + [3, 1] * 2
    assert_close(together, alone, FLOAT)


def _answers() -> Answers:
    torch.manual_seed(2)
    return Answers(torch.randn(2, 20, 6, 6) * 3, torch.randn(2, 20), torch.tensor([0.5, -1.0]), torch.randn(2, 6, 6))


def _maps(name: str, **settings: Any) -> torch.Tensor:
    """What a method makes of answers given, (2, 9, 12)."""
    from geoovseg.methods import proc_sam3, read_settings, segearth_ov3

    given = read_settings(name, settings)
    for other in ("geometry_cls", "words_together", "aggregate"):
        given.pop(other, None)
    fuse: Any = {"segearth-ov3": segearth_ov3.fuse, "proc-sam3": proc_sam3.fuse}[name]
    found: torch.Tensor = fuse(_answers(), (9, 12), **given)
    return found


def _stretched(logits: torch.Tensor) -> torch.Tensor:
    return F.interpolate(logits, (9, 12), mode="bilinear", align_corners=False).sigmoid()


def test_every_switch_leaves_out_what_it_says() -> None:
    said = _answers()
    p = said.presence.sigmoid()[:, None, None]
    semantic = _stretched(said.semantic[:, None])[:, 0]
    sure = said.classes.sigmoid() * said.presence.sigmoid()[:, None]
    instance = (_stretched(said.masks) * (sure * (sure > 0.2))[:, :, None, None]).amax(1)
    low = {"confidence_threshold": 0.2}
    assert_close(_maps("segearth-ov3", **low), torch.maximum(semantic, instance) * p, FLOAT)
    assert_close(_maps("segearth-ov3", **low, instance=False), semantic * p, FLOAT)
    assert_close(_maps("segearth-ov3", **low, semantic=False), instance * p, FLOAT)
    assert_close(_maps("segearth-ov3", **low, presence=False), torch.maximum(semantic, instance), FLOAT)


def test_without_an_object_that_is_sure_a_word_is_its_own_map() -> None:
    said = _answers()
    semantic = _stretched(said.semantic[:, None])[:, 0] * said.presence.sigmoid()[:, None, None]
    assert_close(_maps("segearth-ov3", confidence_threshold=1), semantic, FLOAT)
    assert not _maps("segearth-ov3", confidence_threshold=1, semantic=False).any()


def test_presence_is_at_least_its_floor() -> None:
    low, high = _maps("segearth-ov3", presence_floor=0.0), _maps("segearth-ov3", presence_floor=0.6)
    assert torch.equal(low[0], high[0])  # sigmoid(0.5) is above it
    assert_close(high[1], _stretched(_answers().semantic[:, None])[1, 0] * 0.6, FLOAT)


def test_proc_sam3_raises_maps_as_far_as_its_gate_is_open() -> None:
    said = _answers()
    p = said.presence.sigmoid()
    sure = said.classes.sigmoid() * p[:, None]
    semantic = _stretched(said.semantic[:, None])[:, 0]
    instance = (_stretched(said.masks) * (sure * (sure > 0.4))[:, :, None, None]).amax(1)
    raised = torch.maximum(semantic, instance)
    gate = p[:, None, None] * sure.amax(1)[:, None, None] * (1 - (semantic - raised).abs())
    expected = (semantic + gate * (raised - semantic)).clamp(1e-4, 1 - 1e-4) * p[:, None, None]
    assert (raised > semantic).any()
    assert_close(_maps("proc-sam3"), expected, FLOAT)


def test_topk_mean_is_of_the_two_words_that_are_surest_anywhere(ours: ClipModel) -> None:
    words, batch = parse_classes(["a=road+water+tree,b=house"]), random_batch(2, *SIZE)
    best = _method(ours, "proc-sam3", words).scores(batch)
    mean = _method(ours, "proc-sam3", words, aggregate="topk_mean").scores(batch)
    for maps, found in zip(best, mean, strict=True):
        first, second = maps[:3].amax((1, 2)).argsort(descending=True)[:2]
        for word in range(3):
            assert_close(found[word], (maps[first] + maps[second]) / 2, FLOAT)
        assert torch.equal(found[3], maps[3])


def test_looking_at_nothing_is_refused(ours: ClipModel) -> None:
    with pytest.raises(MethodError, match="leaves nothing to look at"):
        _method(ours, instance=False, semantic=False)


def test_other_methods_cannot_read_sam3(ours: ClipModel) -> None:
    for name in ("clip", "maskclip", "segearth"):
        with pytest.raises(MethodError, match=f"{name} cannot read this image tower"):
            _method(ours, name)


@pytest.mark.parametrize("word", ["water", "An  Old ROAD", "a " * 40 + "road", "café"])
def test_tokens_are_those_of_transformers_cut_at_their_end(ours: ClipModel, theirs: Any, word: str) -> None:
    from transformers import CLIPTokenizer

    given = _clip_tokens(CLIPTokenizer, word)
    known = given["attention_mask"][0].bool()
    with torch.no_grad():
        expected = theirs.get_text_features(**given).pooler_output[0]
    found = ours.text.embed([word])[0].unflatten(0, (32, -1))
    assert torch.equal(found[:, -1].bool(), known)
    assert_close(found[known, :-1], expected[known], FLOAT)


def test_the_text_encoder_is_let_go_of_and_not_read_for_words_that_are_kept(
    folder: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("GEOOVSEG_CACHE", str(tmp_path))
    load_clip.cache_clear()
    model = load_clip(f"sam3@{folder}", CPU, "fp32", "bare")
    whole = model.text._load()[0]
    first = model.text.embed(["a road", "water"])
    assert whole._words is None
    assert model.vit.visual.text_encoder is None
    monkeypatch.setattr(whole, "_text_side", lambda: pytest.fail("the text encoder was read"))
    assert torch.equal(model.text.embed(["water", "a road"]), first.flip(0))


def test_several_sentences_and_cosines_of_words_are_refused(folder: Path) -> None:
    load_clip.cache_clear()
    model = load_clip(f"sam3@{folder}", CPU, "fp32")
    with pytest.raises(ModelError, match="one sentence a word, and there are 80 around it: --templates bare"):
        model.text.embed(["a word that is not kept"])
    with pytest.raises(ModelError, match="words cannot be compared"):
        model.text.similarity(["road"], ["water"])


def test_the_hubs_file_with_a_tracker_beside_the_detector_is_read(folder: Path, tmp_path: Path) -> None:
    state = {f"detector_model.{key}": value for key, value in load_file(folder / "model.safetensors").items()}
    save_file({**state, "tracker_model.x": torch.full((2,), torch.nan)}, tmp_path / "model.safetensors")
    config = json.loads((folder / "config.json").read_text())
    (tmp_path / "config.json").write_text(json.dumps({"model_type": "sam3_video", "detector_config": config}))
    batch, found = random_batch(1, *SIZE), []
    for path in (folder, tmp_path / "model.safetensors"):
        load_clip.cache_clear()
        model = load_clip(f"sam3@{path}", CPU, "fp32", "bare")
        found.append(_method(model).scores(batch))
    assert torch.equal(*found)


def test_files_that_are_no_sam3_of_transformers_are_refused_with_the_reason(folder: Path, tmp_path: Path) -> None:
    def refused(path: Path) -> str:
        load_clip.cache_clear()
        with pytest.raises(GeoOVSegError) as caught:
            load_clip(f"sam3@{path}", CPU, "fp32", "bare")
        return str(caught.value)

    (tmp_path / "sam3.pt").write_bytes(b"x")
    assert "give model.safetensors" in refused(tmp_path / "sam3.pt")
    weights = tmp_path / "model.safetensors"
    weights.write_bytes((folder / "model.safetensors").read_bytes())
    assert "config.json is no configuration of SAM 3" in refused(weights)
    (tmp_path / "config.json").write_text("[1]")
    assert "config.json is no configuration of SAM 3" in refused(weights)
    (tmp_path / "config.json").write_text((folder / "config.json").read_text())
    state = load_file(folder / "model.safetensors")
    save_file({k: v for k, v in state.items() if "mask_decoder" not in k}, weights)
    assert "it lacks" in refused(weights)
    save_file({k: v * torch.nan if k == "text_projection.weight" else v for k, v in state.items()}, weights)
    assert "its text_projection.weight is not finite" in refused(weights)


def test_windows_of_the_models_own_size_are_not_stretched(ours: ClipModel) -> None:
    tower: Any = ours.vit
    pixels = torch.from_numpy(random_batch(1, 112, 112).pixels)
    levels = (pixels * 255).round() / 255
    own = tower._model.get_vision_features(pixel_values=(levels - 0.5) / 0.5).fpn_hidden_states
    for found, expected in zip(tower.see(pixels).levels, own, strict=True):
        assert_close(found, expected, FLOAT)
    assert np.isclose(float(tower.mean.mean()), 0.5)


def test_a_release_averages_words_over_windows_before_the_best_one_speaks(ours: ClipModel) -> None:
    image = np.random.default_rng(1).integers(0, 255, (100, 140, 3), np.uint8)
    groups, method = [2, 1, 1], _method(ours)
    pixels = torch.from_numpy(image).permute(2, 0, 1)[None].float() / 255
    total, count = torch.zeros(4, 100, 140), torch.zeros(100, 140)
    for row, col in [(0, 0), (0, 40), (0, 60), (20, 0), (20, 40), (20, 60)]:  # the last ones are shifted inwards
        box = (..., slice(row, row + 80), slice(col, col + 80))
        total[box] += method.maps(pixels[box].contiguous())[0]
        count[box] += 1
    means = total / count
    expected = torch.stack([means[:2].amax(0), means[2], means[3]])
    sliding = replace(RELEASES["segearth-ov3"], crop=80, stride=40, threshold=0.55, background=2)
    labels, shares = segment_published(method, image, groups, sliding)
    assert_close(shares, expected, FLOAT)
    best = expected.max(0)
    assert torch.equal(labels, torch.where(best.values < 0.55, 2, best.indices))


def test_a_release_sees_images_whole_and_proc_sam3_small_ones_where_it_says_so(ours: ClipModel) -> None:
    image = np.random.default_rng(1).integers(0, 255, (100, 140, 3), np.uint8)
    pixels = torch.from_numpy(image).permute(2, 0, 1)[None].float() / 255
    method = _method(ours, "proc-sam3", aggregate="topk_mean")
    _, shares = segment_published(method, image, [3, 1], RELEASES["proc-sam3"])
    maps = topk_mean(method.maps(pixels)[0], [2, 1, 1])
    assert_close(shares, torch.stack([maps[:3].amax(0), maps[3]]), FLOAT)
    small = replace(RELEASES["proc-sam3"], resize=(70, 70))
    seen: list[tuple[int, ...]] = []
    spied = replace(method, fuse=lambda answers, size: seen.append(size) or method.fuse(answers, size))
    _, shares = segment_published(spied, image, [3, 1], small)
    assert (set(seen), shares.shape) == ({(50, 70)}, (2, 100, 140))
