"""Weights: found, refused, loaded without running code; words kept by content."""

from __future__ import annotations

import copy
import hashlib
import pickle
from dataclasses import replace
from pathlib import Path

import numpy as np
import open_clip
import pytest
import torch
from safetensors.torch import save_file

from geoovseg.errors import GeoOVSegError, ModelError, WeightsMissingError
from geoovseg.models import load
from geoovseg.models.cards import DEFAULT_MODEL, MODELS, ModelCard, model_card
from geoovseg.models.load import load_clip
from geoovseg.models.tensors import read_state
from geoovseg.models.text import MANY, TextEncoder, alike, as_short
from geoovseg.models.weights import cache_dir, fetch_weights, find_weights, local_weights, verify
from geoovseg.usage import told

CPU = torch.device("cpu")


def test_openai_weights_always_use_quickgelu_architectures() -> None:
    cards = [card for card in MODELS.values() if "openai" in card.name or "RemoteCLIP" in card.name]
    assert cards
    for card in cards:
        assert card.arch.endswith("-quickgelu")
        assert open_clip.get_model_config(card.arch)["quick_gelu"]


def test_cards_agree_with_open_clip_on_where_weights_are() -> None:
    tagged = [card for card in MODELS.values() if "/" in card.name]
    assert tagged
    for card in tagged:
        arch, _, tag = card.name.partition("/")
        config = open_clip.get_pretrained_cfg(card.arch, tag) or open_clip.get_pretrained_cfg(arch, tag)
        assert config["hf_hub"].strip("/") == card.repo


def test_checkpoints_are_built_with_the_activation_they_were_trained_with() -> None:
    """Training went on from OpenAI's weights (QuickGELU), except where it went on from LAION's."""
    remote = [c for c in MODELS.values() if c.name.startswith(("RemoteCLIP", "GeoRSCLIP", "SkyCLIP", "CLIP-LAION"))]
    assert len(remote) == 14
    plain = {c.name for c in remote if not c.arch.endswith("-quickgelu")}
    assert plain == {"GeoRSCLIP-ViT-H-14", "SkyCLIP-ViT-B-32-top50pct"}
    assert {c.arch for c in remote} <= set(open_clip.list_models())


def test_licences_that_restrict_or_are_not_stated_come_with_terms() -> None:
    for card in MODELS.values():
        open_to_all = card.licence.startswith(("MIT", "Apache-2.0"))
        assert (card.terms is None) == open_to_all, card.name
    assert model_card("ViT-B-16/metaclip_400m").terms
    assert model_card("ViT-B-16@w.safetensors").terms is None


@pytest.mark.parametrize(("size", "kept"), [("b", "01ec64"), ("l", "0b3195"), ("h", "4b8939")])
def test_segment_anything_has_cards_of_its_own_kind(size: str, kept: str) -> None:
    card = model_card(f"sam_vit_{size}", "sam")
    assert (card.arch, card.licence) == (f"vit_{size}", "Apache-2.0")
    assert str(card.url).endswith(f"/sam_vit_{size}_{kept}.pth")
    assert len(str(card.sha256)) == 64
    with pytest.raises(ModelError, match="no model named"):
        model_card(f"sam_vit_{size}")
    with pytest.raises(ModelError, match="no sam named 'sam_vit_x'.*for example sam_vit_b@sam_vit_b_01ec64.pth"):
        model_card("sam_vit_x", "sam")


@pytest.mark.parametrize("card", MODELS.values(), ids=lambda card: card.name)
def test_a_file_of_the_users_is_built_like_the_known_one_and_has_nothing_else_of_it(card: ModelCard) -> None:
    found = model_card(f"{card.name}@mine.pt", card.kind)
    assert (found.kind, found.arch, found.path) == (card.kind, card.arch, Path("mine.pt"))
    assert (found.mean, found.std, found.attention_only) == (card.mean, card.std, card.attention_only)
    assert (found.sha256, found.url, found.repo, found.member, found.terms) == (None,) * 5


def test_a_file_of_the_users_is_not_held_against_the_published_digest(tmp_path: Path) -> None:
    (tmp_path / "mine.pth").write_bytes(b"mine")
    digest, good = verify(model_card(f"sam_vit_b@{tmp_path / 'mine.pth'}", "sam"))
    assert (digest, good) == (hashlib.sha256(b"mine").hexdigest(), None)


def test_a_folder_of_the_users_is_one_with_the_weights_in_it(tmp_path: Path) -> None:
    card = model_card(f"sd2@{tmp_path}", "vfm")
    assert local_weights(card) is None
    (tmp_path / "unet").mkdir()
    (tmp_path / card.files[0]).write_bytes(b"mine")
    assert find_weights(card) == tmp_path
    assert verify(card) == (hashlib.sha256(b"mine").hexdigest(), None)


def test_a_published_model_that_methods_cannot_use_is_refused_with_the_reason() -> None:
    with pytest.raises(ModelError, match="RemoteCLIP-RN50 is a ResNet.*choose RemoteCLIP-ViT-B-32"):
        model_card("RemoteCLIP-RN50")


def test_missing_weights_are_named_with_the_way_to_get_them() -> None:
    with pytest.raises(WeightsMissingError, match=f"geoovseg models fetch {DEFAULT_MODEL}") as caught:
        find_weights(model_card(DEFAULT_MODEL))
    assert caught.value.exit_code == 5


def _fetched(url: str) -> ModelCard:
    return replace(MODELS["jbu_one"], url=url, git_blob=None)


def test_files_from_elsewhere_are_kept_in_our_cache_whole_or_not_at_all(tmp_path: Path) -> None:
    (tmp_path / "w.ckpt").write_bytes(b"weights")
    card = _fetched((tmp_path / "w.ckpt").as_uri())
    assert local_weights(card) is None
    path = fetch_weights(card)
    assert path.read_bytes() == b"weights"
    assert path == local_weights(card) == find_weights(card)
    assert path.is_relative_to(cache_dir())
    gone = _fetched((tmp_path / "gone.ckpt").as_uri())
    with pytest.raises(GeoOVSegError, match="cannot download"):
        fetch_weights(gone)
    assert [p.name for p in path.parent.iterdir()] == ["w.ckpt"]


def test_upsamplers_are_no_models_and_models_no_upsamplers() -> None:
    assert model_card("jbu_one", "upsampler").arch == "jbu_one"
    with pytest.raises(ModelError, match="no model named 'jbu_one'"):
        model_card("jbu_one")
    with pytest.raises(ModelError, match="no upsampler named 'ViT-B-16/openai'. There are jbu_one, jbu_stack"):
        model_card("ViT-B-16/openai", "upsampler")


def test_unknown_models_are_refused_with_a_guess() -> None:
    with pytest.raises(ModelError, match="did you mean ViT-B-16/openai"):
        model_card("vit-b-16/openai")
    with pytest.raises(ModelError, match="no architecture 'Nothing'"):
        load._architecture(model_card("Nothing@x.safetensors"))
    with pytest.raises(WeightsMissingError, match="no weights at nowhere"):
        find_weights(model_card("ViT-B-16@nowhere"))


@pytest.fixture
def tiny_arch(monkeypatch: pytest.MonkeyPatch, tiny_clip: open_clip.CLIP) -> open_clip.CLIP:
    """Make `tiny` an architecture."""
    import copy

    monkeypatch.setattr(load, "_architecture", lambda card: (copy.deepcopy(tiny_clip), None))
    load_clip.cache_clear()
    return tiny_clip


@pytest.mark.parametrize("kind", ["safetensors", "state dict", "training checkpoint"])
def test_local_files_are_loaded(tiny_arch: open_clip.CLIP, tmp_path: Path, kind: str) -> None:
    state = {k: v + 1 for k, v in tiny_arch.state_dict().items() if k != "attn_mask"}
    path = tmp_path / ("w.safetensors" if kind == "safetensors" else "w.pt")
    if kind == "safetensors":
        save_file(state, path)
    elif kind == "state dict":
        torch.save(state, path)
    else:
        torch.save({"epoch": 3, "state_dict": {f"module.{k}": v for k, v in state.items()}}, path)
    model = load_clip(f"tiny@{path}", CPU, "fp32")
    torch.testing.assert_close(model.vit.visual.proj, tiny_arch.visual.proj + 1)
    assert len(model.sha256) == 64


class _Malicious:
    def __reduce__(self) -> tuple[object, tuple[str]]:
        return eval, ("__import__('os').environ.__setitem__('GEOOVSEG_PWNED', '1')",)


def test_weights_are_loaded_without_executing_code(
    tiny_arch: open_clip.CLIP, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("GEOOVSEG_PWNED", raising=False)
    path = tmp_path / "w.pt"
    with path.open("wb") as file:
        pickle.dump({"state_dict": _Malicious()}, file)
    with pytest.raises(GeoOVSegError, match="cannot be loaded"):
        load_clip(f"tiny@{path}", CPU, "fp32")
    import os

    assert "GEOOVSEG_PWNED" not in os.environ


@pytest.mark.parametrize("content", [b"", b"not weights", b"\x80\x00\x00", b"hello world\n", b"abc\n1\n"])
@pytest.mark.parametrize("name", ["w.safetensors", "w.pt"])
def test_damaged_files_are_refused(tiny_arch: open_clip.CLIP, tmp_path: Path, name: str, content: bytes) -> None:
    path = tmp_path / name
    path.write_bytes(content)
    with pytest.raises(GeoOVSegError, match="cannot be loaded as weights"):
        load_clip(f"tiny@{path}", CPU, "fp32")


def test_weights_of_another_architecture_are_refused(tiny_arch: open_clip.CLIP, tmp_path: Path) -> None:
    state = {k: v for k, v in tiny_arch.state_dict().items() if "resblocks.3" not in k}
    save_file(state, tmp_path / "w.safetensors")
    with pytest.raises(GeoOVSegError, match="lacks 12 tensors"):
        load_clip(f"tiny@{tmp_path / 'w.safetensors'}", CPU, "fp32")


def test_half_precision_files_become_full_precision(tmp_path: Path) -> None:
    save_file(
        {"w": torch.ones(2, dtype=torch.float16), "n": torch.ones(2, dtype=torch.int64)}, tmp_path / "w.safetensors"
    )
    state = read_state(tmp_path / "w.safetensors")
    assert (state["w"].dtype, state["n"].dtype) == (torch.float32, torch.int64)


def _tokens(texts: list[str]) -> torch.Tensor:
    ids = torch.zeros(len(texts), 77, dtype=torch.long)
    for row, text in zip(ids, texts, strict=True):
        row[: len(text) + 1] = torch.tensor([*(ord(c) % 60 + 1 for c in text), 63])
    return ids


def _encoder(clip: open_clip.CLIP, templates: tuple[str, ...] = ("a {}", "the {}.")) -> TextEncoder:
    return TextEncoder(lambda: (clip, _tokens), templates)


def test_word_features_are_normalised_means_of_normalised_sentences(tiny_clip: open_clip.CLIP) -> None:
    encoder = _encoder(tiny_clip)
    sentences = tiny_clip.encode_text(_tokens(["a road", "the road."])).double()
    mean = (sentences / sentences.norm(dim=-1, keepdim=True)).mean(0)
    found = encoder.embed(["road"])[0]
    torch.testing.assert_close(found.double(), mean / mean.norm(), rtol=1e-5, atol=1e-6)


def test_a_causal_tower_sees_sentences_up_to_their_end_and_says_the_same(tiny_clip: open_clip.CLIP) -> None:
    tokens = _tokens(["a road", "the long road."])
    short, cut = as_short(tiny_clip, tokens)
    assert cut.shape == (2, 15)
    assert short.positional_embedding.shape[0] == 15
    assert tiny_clip.positional_embedding.shape[0] == 77
    torch.testing.assert_close(short.encode_text(cut), tiny_clip.encode_text(tokens), rtol=1e-5, atol=2e-7)


@pytest.mark.parametrize("change", ["not causal", "read elsewhere"])
def test_other_towers_keep_their_length(tiny_clip: open_clip.CLIP, change: str) -> None:
    model, tokens = copy.copy(tiny_clip), _tokens(["a road"])
    model._buffers = {**tiny_clip._buffers}
    if change == "not causal":
        model._buffers["attn_mask"] = None
    else:
        model.text_pool_type = "last"
    same, all_of_them = as_short(model, tokens)
    assert same is model
    assert all_of_them is tokens


def test_words_that_are_kept_load_no_model(tiny_clip: open_clip.CLIP) -> None:
    known = TextEncoder(lambda: (tiny_clip, _tokens), ("a {}",), weights="digest")
    first = known.embed(["road", "water"])
    again = TextEncoder(lambda: pytest.fail("a model was loaded"), ("a {}",), weights="digest")
    assert torch.equal(again.embed(["water", "road"]), first.flip(0))


def test_many_words_are_told_of_before_they_are_read(tiny_clip: open_clip.CLIP) -> None:
    said: list[str] = []
    for _ in range(2):
        with told(said.append):
            _encoder(tiny_clip).embed([f"word {n}" for n in range(MANY)])
    assert said == ["reading 8 words, once for this model and these sentences"]


def test_words_are_encoded_once_and_kept_by_content(
    tiny_clip: open_clip.CLIP, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("GEOOVSEG_CACHE", str(tmp_path))
    first = _encoder(tiny_clip).embed(["road", "water"])
    assert len(list((tmp_path / "text").iterdir())) == 2
    again = _encoder(tiny_clip)
    monkeypatch.setattr(again, "encode", lambda word: pytest.fail(f"{word} was encoded again"))
    assert torch.equal(again.embed(["water", "road"]), first.flip(0))
    other = _encoder(tiny_clip, ("one {}",))
    assert not torch.equal(other.embed(["road"]), first[:1])


def test_a_damaged_or_readonly_cache_costs_time_only(
    tiny_clip: open_clip.CLIP, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("GEOOVSEG_CACHE", str(tmp_path))
    first = _encoder(tiny_clip).embed(["road"])
    for path in (tmp_path / "text").iterdir():
        path.write_bytes(b"\x93NUMPY")
    assert torch.equal(_encoder(tiny_clip).embed(["road"]), first)
    (tmp_path / "file").touch()
    monkeypatch.setenv("GEOOVSEG_CACHE", str(tmp_path / "file"))
    assert torch.equal(_encoder(tiny_clip).embed(["road"]), first)
    assert np.isfinite(first.numpy()).all()


@pytest.mark.parametrize("content", [torch.ones(3), [torch.ones(3)], {"state_dict": 3}])
def test_checkpoints_of_other_things_are_refused(tiny_arch: open_clip.CLIP, tmp_path: Path, content: object) -> None:
    torch.save(content, tmp_path / "w.pt")
    with pytest.raises(GeoOVSegError, match="cannot be loaded as weights"):
        load_clip(f"tiny@{tmp_path / 'w.pt'}", CPU, "fp32")


@pytest.mark.parametrize(
    "arch", ["hf-hub:foo/bar", "ViT-B-16-SigLIP", "xlm-roberta-base-ViT-B-32", "RN50", "coca_ViT-B-32"]
)
def test_architectures_that_are_no_plain_clip_are_refused_without_a_download(arch: str) -> None:
    with pytest.raises(ModelError, match=arch):
        load._architecture(model_card(f"{arch}@x.safetensors"))


def test_every_listed_model_can_be_built_from_its_architecture() -> None:
    for arch in {card.arch for card in MODELS.values() if "B-32" in card.arch}:
        model, tokenizer = load._architecture(model_card(f"{arch}@x"))
        activation = "QuickGELU" if arch.endswith("-quickgelu") else "GELU"
        assert model.visual.transformer.resblocks[0].mlp.gelu.__class__.__name__ == activation
        assert tokenizer(["a road"]).shape == (1, 77)


def test_models_of_open_clip_work_by_their_name() -> None:
    card = model_card("ViT-B-16/metaclip_400m")
    assert (card.arch, card.repo) == ("ViT-B-16-quickgelu", "timm/vit_base_patch16_clip_224.metaclip_400m")


def test_pairs_of_classes_are_as_alike_as_their_most_alike_words(tiny_clip: open_clip.CLIP) -> None:
    encoder = _encoder(tiny_clip)
    classes = {"a": ["road", "street"], "b": ["water"], "c": ["tree", "street lamp"]}
    pairs = alike(encoder, classes)
    assert [p.cosine for p in pairs] == sorted((p.cosine for p in pairs), reverse=True)
    assert {(p.first, p.second) for p in pairs} == {("a", "b"), ("a", "c"), ("b", "c")}
    best = next(p for p in pairs if (p.first, p.second) == ("a", "c"))
    cosines = {(x, y): float(encoder.encode(x) @ encoder.encode(y)) for x in classes["a"] for y in classes["c"]}
    assert best.words == max(cosines, key=lambda pair: cosines[pair])
    assert best.cosine == pytest.approx(max(cosines.values()), abs=1e-4)
