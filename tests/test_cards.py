"""Every model there is a card of: fetched as it is published, held against its digest, loaded, and used once."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import transformers
from hub import Hub, connected
from huggingface_hub import constants
from packaging.version import Version
from tiny_weights import make_small, publish

from geoovseg import METHODS
from geoovseg.cli.check import FILES
from geoovseg.evaluation.trial import kept_numbers
from geoovseg.models import load, sam, upsamplers, vfm
from geoovseg.models.cards import DEFAULT_MODEL, DEMO, ModelCard
from geoovseg.models.catalogue import CARDS

Run = Callable[..., tuple[int, str, str]]
LOADED = (load.load_clip, vfm._load, sam._load, upsamplers.load_upsampler)
BESIDE = ("dino_vitb8", "dino_vitb16", "sam_vit_b")
"""What methods need beside the model that is tried."""
NEW = Version(transformers.__version__) >= Version("5.14")
"""Whether transformers has TIPSv2 and SAM 3, which are not on the hub otherwise."""
OF_VFM = {name for name, card in METHODS.items() if "vfm" in card.needs}
EXPECTED = {
    "clip": {"segearth"},
    "pooled": {"maskclip"},
    "tips": {"clip"},
    "sam3": {"segearth-ov3"},
    "upsampler": {"segearth"},
    "vfm": OF_VFM,
    "sam": {name for name, card in METHODS.items() if card.sam},
    DEMO: {name for name, card in METHODS.items() if "clip" in card.needs and "sam" not in card.needs},
}
NOT_BY = {"sd2": OF_VFM - {"direct-op", "direct-mv"}}
"""Methods that cannot use a model of their kind."""


def _can_be_made(card: ModelCard) -> bool:
    return NEW or card.tower not in ("tips", "sam3")


@pytest.fixture(scope="module")
def hub(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Hub]:
    """A hub with all models, small ones under the names of the large."""
    folder = tmp_path_factory.mktemp("cards")
    with pytest.MonkeyPatch.context() as patch, connected(folder / "hub", patch) as found:
        make_small(patch)
        for card in CARDS:
            if card.path is None and _can_be_made(card):
                publish(found, card, patch)
        for kept in LOADED:
            kept.cache_clear()
        yield found
        for kept in LOADED:
            kept.cache_clear()


@pytest.fixture(autouse=True)
def _own_cache(hub: Hub, _own_caches: None, monkeypatch: pytest.MonkeyPatch) -> None:
    """What is fetched here is seen by no other test."""
    monkeypatch.setenv("GEOOVSEG_CACHE", str(hub.folder.parent / "cache"))
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(hub.folder))


OFTEN = (
    "SkyCLIP-ViT-B-32-top50pct", "FarSLIP1-ViT-B-32", "ViT-B-16-SigLIP2/webli", "tipsv2-b14", "sam3", "sd2",
    "sam_vit_b",
)  # fmt: skip
"""One of each layout; all of them with `make trials`."""
TRIED = [
    pytest.param(card, id=card.name, marks=() if card.name in OFTEN else pytest.mark.trial)
    for card in CARDS
    if card.name != DEFAULT_MODEL
]


@pytest.mark.parametrize("card", TRIED)
def test_a_model_is_fetched_verified_loaded_and_used(hub: Hub, geoovseg: Run, card: ModelCard) -> None:
    if not _can_be_made(card):
        pytest.skip(f"no {card.name} in transformers {transformers.__version__}")
    assert geoovseg("models", "fetch", DEFAULT_MODEL, *BESIDE, "--quiet")[0] == 0
    code, out, err = geoovseg("models", "check", card.name, "--fetch", "--json")
    found = [json.loads(line) for line in out.splitlines()]
    tried = {line["method"]: line["result"] for line in found if "method" in line}
    assert code == 0, (out, err)
    kind = DEMO if card.name == DEMO else card.kind if card.tower == "clip" else card.tower
    assert set(tried) == EXPECTED[kind] - NOT_BY.get(card.name, set())
    assert set(tried.values()) == {"as kept" if card.name == DEMO else "ran"}
    unknown = card.name.startswith(("SkyCLIP", "CLIP-LAION"))  # of which no digest is published
    assert {line["file"] for line in found if "file" in line} == {FILES[None if unknown else True]}
    assert "Loading" not in err


def test_every_method_runs_with_what_is_fetched_by_its_name(hub: Hub, geoovseg: Run) -> None:
    for method in (name for name, card in METHODS.items() if NEW or "sam3" not in card.towers):
        assert geoovseg("models", "fetch", "--method", method, "--quiet")[0] == 0
    code, out, err = geoovseg("models", "check", DEFAULT_MODEL)
    assert code == 0, (out, err)
    tried = [line.split() for line in out.splitlines() if line.startswith(DEFAULT_MODEL)]
    reading = [name for name, card in METHODS.items() if "clip" in card.towers]
    assert [(words[3], words[4]) for words in tried] == [(method, "ran") for method in reading]
    assert "activation: ViT-B-16-quickgelu tells the classes apart by" in out
    assert "counter-words" in out


def test_a_model_that_fails_or_differs_is_told_and_ends_with_1(
    hub: Hub, geoovseg: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "x.safetensors"
    path.write_bytes(b"nothing")
    code, out, _ = geoovseg("models", "check", f"ViT-B-32@{path}")
    assert (code, "failed" in out, "cannot be loaded as weights of ViT-B-32" in out) == (1, True, True), out
    monkeypatch.setitem(kept_numbers(), f"{DEMO} clip", [0.5, 0.5, 0.5, 0.5])
    code, out, _ = geoovseg("models", "check", DEMO, "-m", "clip")
    assert (code, "differs" in out, "from those that were kept" in out) == (1, True, True), out
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path))
    code, out, _ = geoovseg("models", "check", "GeoRSCLIP-ViT-H-14", "--json")
    assert code == 1
    assert "`geoovseg models fetch GeoRSCLIP-ViT-H-14`" in json.loads(out)["why"]
