"""Models composed by their margins: the reference numbers, and what is refused."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from golden_cases import Case, case_id, find
from safetensors.torch import load_file, save_file
from torch.nn import functional as F

from geoovseg.errors import GeoOVSegError, ModelError, OutputError, UsageError
from geoovseg.models.cards import DEMO_DIR, model_card
from geoovseg.models.compose import average, compose, margins, prompt_variants, weigh
from geoovseg.models.load import load_whole
from geoovseg.vocabulary import Vocabulary, read_classes

DEMO = DEMO_DIR / "model.safetensors"


@pytest.mark.golden
@pytest.mark.parametrize("case", find("pvsm"), ids=case_id)
def test_margins_and_averages_equal_the_reference(case: Case) -> None:
    given = {key: float(case.meta["tolerance"][key]) for key in ("atol", "rtol")}
    found = [margins(e) for e in case.inputs["embeddings"]]
    weights = weigh([f.margin for f in found])
    for name, value in {
        "intra": torch.stack([f.intra for f in found]),
        "inter": torch.stack([f.inter for f in found]),
        "margin": torch.tensor([f.margin for f in found], dtype=torch.double),
        "weights": torch.tensor(weights, dtype=torch.double),
    }.items():
        torch.testing.assert_close(value, case.outputs[name], **given)
    states = [
        {k.split(".", 2)[2]: v for k, v in case.inputs.items() if k.startswith(f"params.m{n}.")}
        for n in range(len(found))
    ]
    for key, value in average(states, weights).items():
        torch.testing.assert_close(value, case.outputs[f"fused.{key}"], rtol=0, atol=1e-6)


def test_a_margin_is_likeness_within_less_likeness_between() -> None:
    """Written out with loops over pairs."""
    embeddings = torch.randn(3, 4, 6, generator=torch.Generator().manual_seed(0)).double()
    unit = F.normalize(embeddings, dim=-1)
    found = margins(embeddings)
    for c in range(3):
        own = [float(unit[c, a] @ unit[c, b]) for a in range(4) for b in range(a)]
        others = [float(unit[c, a] @ unit[d, b]) for a in range(4) for d in range(3) if d != c for b in range(4)]
        assert float(found.intra[c]) == pytest.approx(sum(own) / len(own))
        assert float(found.inter[c]) == pytest.approx(sum(others) / len(others))


def test_negative_margins_count_nothing_and_none_at_all_is_refused() -> None:
    assert weigh([0.3, -0.1, 0.1]) == pytest.approx([0.75, 0, 0.25])
    with pytest.raises(ModelError, match="no model keeps these classes apart"):
        weigh([-0.1, 0.0])


@pytest.mark.parametrize(
    ("other", "message"),
    [
        ({"a": torch.ones(2)}, "only one of them has b"),
        ({"a": torch.ones(3), "b": torch.ones(1)}, r"a has shapes \(2,\) and \(3,\)"),
        ({"a": torch.tensor([1.0, torch.nan]), "b": torch.ones(1)}, "a is not finite"),
    ],
)
def test_what_cannot_be_averaged_is_refused(other: dict[str, torch.Tensor], message: str) -> None:
    with pytest.raises(ModelError, match=message):
        average([{"a": torch.ones(2), "b": torch.ones(1)}, other], [0.5, 0.5])


def _other(folder: Path) -> str:
    """The demo model with other weights of its image tower, as a file; its words are those of the demo model."""
    state = load_file(DEMO)
    state = {k: v.float() * 1.5 if k == "visual.proj" else v for k, v in state.items()}
    save_file(state, folder / "other.safetensors")
    return f"demo@{folder / 'other.safetensors'}"


@pytest.fixture
def words() -> Vocabulary:
    return read_classes(None, "demo")


def test_a_composed_model_can_be_used(
    tmp_path: Path, words: Vocabulary, demo_scene: str, geoovseg: Callable[..., Any]
) -> None:
    out = tmp_path / "fused.safetensors"
    members = compose(["demo", _other(tmp_path)], out, words, count=4)
    assert [m.weight for m in members] == pytest.approx([0.5, 0.5])
    said = json.loads((tmp_path / "fused.json").read_text())
    assert [m["name"] for m in said["members"]] == [m.name for m in members]
    card = model_card(str(out))
    assert (card.path, card.arch) == (out, "demo")
    fused, _ = load_whole(card)
    demo, _ = load_whole(model_card("demo"))
    torch.testing.assert_close(fused.visual.proj, 1.25 * demo.visual.proj)
    torch.testing.assert_close(fused.text_projection, demo.text_projection)
    code, _, err = geoovseg("segment", demo_scene, "-c", "road,water", "--model", out, "-o", tmp_path / "l.tif")
    assert code == 0, err
    with pytest.raises(OutputError, match="--overwrite"):
        compose(["demo", _other(tmp_path)], out, words)


@pytest.mark.parametrize(
    ("names", "output", "message"),
    [
        (["demo"], "f.safetensors", "two models or more"),
        (["demo", "demo"], "f.pt", "must end in .safetensors"),
        (["demo", "ViT-B-16/openai"], "f.safetensors", "not on this machine"),
        (["demo", "nothing"], "f.safetensors", "no model named"),
    ],
)
def test_what_cannot_be_composed_is_refused(
    tmp_path: Path, words: Vocabulary, names: list[str], output: str, message: str
) -> None:
    with pytest.raises(GeoOVSegError, match=message):
        compose(names, tmp_path / output, words)
    assert list(tmp_path.iterdir()) == []


def test_another_activation_is_refused(tmp_path: Path, words: Vocabulary) -> None:
    (tmp_path / "w.pt").write_bytes(b"")
    names = [f"{arch}@{tmp_path / 'w.pt'}" for arch in ("ViT-L-14", "ViT-L-14-quickgelu")]
    with pytest.raises(ModelError, match="quickgelu is an activation"):
        compose(names, tmp_path / "f.safetensors", words)


def test_a_card_that_is_none_is_refused(tmp_path: Path) -> None:
    (tmp_path / "x.safetensors").write_bytes(b"")
    (tmp_path / "x.json").write_text("{}")
    with pytest.raises(ModelError, match="no card of composed weights"):
        model_card(str(tmp_path / "x.safetensors"))


def test_sentences_are_of_the_class_and_the_same_for_a_seed(words: Vocabulary) -> None:
    found = prompt_variants(words, 5, 3)
    assert found == prompt_variants(words, 5, 3)
    assert found != prompt_variants(words, 5, 4)
    for entry, sentences in zip(words.classes, found, strict=True):
        assert len(sentences) == 5
        assert all(any(word in sentence for word in entry.words) for sentence in sentences)
        assert all(sentence.endswith(".") and " ." not in sentence for sentence in sentences)


def test_the_command_prints_margins_and_weights(tmp_path: Path, geoovseg: Callable[..., Any]) -> None:
    out = tmp_path / "fused.safetensors"
    arguments = ["models", "compose", "demo", _other(tmp_path), "-o", out, "--vocabulary", "demo", "--variants", 3]
    code, text, err = geoovseg(*arguments)
    assert code == 0, err
    assert text.count("weight 0.500") == 2
    with pytest.raises(UsageError, match="margins need two classes or more, and two prompts"):
        compose(["demo", "demo"], out, read_classes(None, "demo"), count=1)


def test_weights_may_be_given(tmp_path: Path, geoovseg: Callable[..., Any]) -> None:
    """The other model's projection is one and a half times the demo's."""
    demo, _ = load_whole(model_card("demo"))
    for said, share in ((".3,.1", 0.25), ("equal", 0.5), ("0,1", 1.0)):
        out = tmp_path / f"{said}.safetensors"
        code, _, err = geoovseg("models", "compose", "demo", _other(tmp_path), "-o", out, "--weights", said)
        assert code == 0, err
        fused, _ = load_whole(model_card(str(out)))
        torch.testing.assert_close(fused.visual.proj, (1 + share / 2) * demo.visual.proj)


@pytest.mark.parametrize("weights", [[1.0], [1.0, -1.0], [0.0, 0.0]])
def test_weights_that_cannot_be_are_refused(tmp_path: Path, words: Vocabulary, weights: list[float]) -> None:
    with pytest.raises(UsageError, match="give 2 numbers of at least 0"):
        compose(["demo", "demo"], tmp_path / "x.safetensors", words, weights=weights)
