"""Published layouts of weights become the models' tensors; files that are something else are refused, never run."""

from __future__ import annotations

import copy
import io
import os
import pickle
import re
import warnings
import zipfile
from argparse import Namespace
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import open_clip
import pytest
import torch
from safetensors.torch import load_file, save_file
from test_jbu import random_state
from torch import Tensor

from geoovseg.errors import GeoOVSegError
from geoovseg.models import load, vfm
from geoovseg.models.cards import DEMO_DIR, MODELS
from geoovseg.models.layouts import as_open_clip
from geoovseg.models.load import load_clip
from geoovseg.models.tensors import fill, read_state
from geoovseg.models.upsamplers import load_upsampler
from geoovseg.models.vfm import build_timm, load_vfm
from geoovseg.models.weights import fetch_weights

CPU = torch.device("cpu")
WIDTH, DEPTH = 24, 2
SMALL = {"embed_dim": WIDTH, "depth": DEPTH, "num_heads": 2}
State = dict[str, Tensor]
TENSORS = {"w": torch.arange(5000.0), "n": torch.tensor(3)}


def _released(patch: int, rows: int, *, scales: bool = False, prefix: str = "", seed: int = 0) -> State:
    """The keys and shapes of DINO's release; `scales` are DINOv2's."""
    generator = torch.Generator().manual_seed(seed)
    shapes: dict[str, tuple[int, ...]] = {
        "cls_token": (1, 1, WIDTH),
        "pos_embed": (1, rows, WIDTH),
        "patch_embed.proj.weight": (WIDTH, 3, patch, patch),
        "patch_embed.proj.bias": (WIDTH,),
    }
    wide = {"attn.qkv": (3 * WIDTH, WIDTH), "attn.proj": (WIDTH, WIDTH)}
    wide |= {"mlp.fc1": (4 * WIDTH, WIDTH), "mlp.fc2": (WIDTH, 4 * WIDTH)}
    for n in range(DEPTH):
        for name, shape in wide.items():
            shapes |= {f"blocks.{n}.{name}.weight": shape, f"blocks.{n}.{name}.bias": shape[:1]}
        for name in ("norm1", "norm2"):
            shapes |= {f"blocks.{n}.{name}.weight": (WIDTH,), f"blocks.{n}.{name}.bias": (WIDTH,)}
        shapes |= {f"blocks.{n}.ls{i}.gamma": (WIDTH,) for i in (1, 2) if scales}
    shapes |= {"norm.weight": (WIDTH,), "norm.bias": (WIDTH,)}
    return {prefix + key: torch.randn(*shape, generator=generator) for key, shape in shapes.items()}


def _assert_holds(model: torch.nn.Module, expected: State) -> None:
    found = model.state_dict()
    assert found.keys() == expected.keys()
    for key, value in expected.items():
        assert torch.equal(found[key], value), key


def _layouts_of_dino() -> dict[str, Any]:
    """Weights alone, as a checkpoint of student and teacher, and as what was wrapped for several devices."""
    other = {"module.head.mlp.0.weight": torch.ones(2, 2)}
    student = _released(16, 197, prefix="module.backbone.", seed=1) | other
    teacher = _released(16, 197, prefix="backbone.") | {"head.mlp.0.weight": torch.ones(2, 2)}
    arguments = Namespace(arch="vit_base", lr=0.1, local_crops_scale=(0.05, 0.4))
    return {
        "published": _released(16, 197),
        "wrapped": _released(16, 197, prefix="module.backbone.") | other,
        "training": {"student": student, "teacher": teacher, "optimizer": {"state": {}}, "epoch": 3, "args": arguments},
    }


@pytest.mark.parametrize("layout", _layouts_of_dino())
def test_dinos_files_become_timms_model(layout: str, tmp_path: Path) -> None:
    torch.save(_layouts_of_dino()[layout], tmp_path / "dino_vitbase16_pretrain.pth")
    state = read_state(tmp_path / "dino_vitbase16_pretrain.pth")
    _assert_holds(build_timm("vit_base_patch16_224.dino", state, **SMALL), _released(16, 197))


def _dinov2() -> State:
    """DINOv2's release with registers, for windows of 518."""
    more = {"register_tokens": torch.randn(1, 4, WIDTH), "mask_token": torch.randn(1, WIDTH)}
    return _released(14, 1 + 37 * 37, scales=True) | more


def test_dinov2s_files_become_timms_model(tmp_path: Path) -> None:
    """The class token's position is added to it, as the release does in each pass."""
    given = _dinov2()
    torch.save(given, tmp_path / "dinov2_vitb14_reg4_pretrain.pth")
    state = read_state(tmp_path / "dinov2_vitb14_reg4_pretrain.pth")
    model = build_timm("vit_base_patch14_reg4_dinov2.lvd142m", state, **SMALL)
    expected = {k: v for k, v in given.items() if k not in ("mask_token", "register_tokens")}
    expected["reg_token"] = given["register_tokens"]
    expected["cls_token"] = given["cls_token"] + given["pos_embed"][:, :1]
    expected["pos_embed"] = given["pos_embed"][:, 1:]
    _assert_holds(model, expected)
    assert "mask_token" in state, "the given table is left as it was"


WRONG: dict[str, tuple[Callable[[], State], str]] = {
    "patches of 16": (
        lambda: _dinov2() | {"patch_embed.proj.weight": torch.ones(WIDTH, 3, 16, 16)},
        r"\(24, 3, 16, 16\)",
    ),
    "another window": (lambda: _dinov2() | {"pos_embed": torch.ones(1, 257, WIDTH)}, "its pos_embed has shape"),
    "no registers": (
        lambda: {k: v for k, v in _dinov2().items() if k != "register_tokens"},
        "it has no register_tokens",
    ),
    "no second block": (lambda: {k: v for k, v in _dinov2().items() if "blocks.1" not in k}, "lacks 14 tensors"),
}


@pytest.mark.parametrize(("state", "said"), WRONG.values(), ids=WRONG)
def test_releases_of_another_size_are_refused_not_resampled(state: Callable[[], State], said: str) -> None:
    with pytest.raises(ValueError, match=said):
        build_timm("vit_base_patch14_reg4_dinov2.lvd142m", state(), **SMALL)


@pytest.fixture
def tiny_arch(monkeypatch: pytest.MonkeyPatch, tiny_clip: open_clip.CLIP) -> State:
    """Make every architecture the tiny one; its tensors, each plus one."""
    monkeypatch.setattr(load, "_architecture", lambda card: (copy.deepcopy(tiny_clip).requires_grad_(True), None))
    load_clip.cache_clear()
    return {k: v + 1 for k, v in tiny_clip.state_dict().items()}


@pytest.mark.parametrize("name", ["RemoteCLIP-ViT-L-14", "GeoRSCLIP-ViT-B-32_RET-2", "GeoRSCLIP-ViT-H-14"])
def test_clips_with_open_clips_keys_are_loaded(
    name: str, tiny_arch: State, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / name / MODELS[name].files[0]
    path.parent.mkdir(parents=True)
    torch.save(tiny_arch, path)
    monkeypatch.setenv("GEOOVSEG_MODEL_DIR", str(tmp_path))
    model = load_clip(name, CPU, "fp32")
    assert model.card.path == path
    _assert_holds(model.vit.visual, _visual(tiny_arch))


def _visual(state: State) -> State:
    return {k.removeprefix("visual."): v for k, v in state.items() if k.startswith("visual.")}


def _spelled(checkpoint: Path, core: str) -> bytes:
    """A checkpoint that names numpy's numbers as numpy did before version 2, or has done since."""
    content = io.BytesIO()
    with zipfile.ZipFile(checkpoint) as old, zipfile.ZipFile(content, "w") as new:
        for name in old.namelist():
            said = old.read(name)
            new.writestr(name, re.sub(rb"numpy\._?core\.multiarray", f"numpy.{core}.multiarray".encode(), said))
    assert f"numpy.{core}.multiarray".encode() in content.getvalue()
    return content.getvalue()


@pytest.mark.parametrize("spelling", ["core", "_core"])
def test_skyclips_training_checkpoint_is_loaded_from_its_zip(
    tiny_arch: State, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, spelling: str
) -> None:
    """Fetched, taken out, `module.` taken off its keys, the optimizer left out, which has a number of numpy."""
    rate = [{"lr": np.float64(1e-9)}]
    optimizer = {"state": {0: {"step": torch.tensor(3.0), "exp_avg": torch.ones(9)}}, "param_groups": rate}
    wrapped = {f"module.{k}": v for k, v in tiny_arch.items()}
    torch.save({"epoch": 20, "name": "x", "state_dict": wrapped, "optimizer": optimizer}, tmp_path / "epoch_20.pt")
    with zipfile.ZipFile(tmp_path / "Sky.zip", "w", zipfile.ZIP_DEFLATED) as file:
        file.writestr("Sky/epoch_20.pt", _spelled(tmp_path / "epoch_20.pt", spelling))
    card = replace(MODELS["SkyCLIP-ViT-L-14-top50pct"], url=(tmp_path / "Sky.zip").as_uri())
    monkeypatch.setitem(MODELS, card.name, card)
    monkeypatch.setenv("GEOOVSEG_CACHE", str(tmp_path / "cache"))
    fetch_weights(card)
    _assert_holds(load_clip(card.name, CPU, "fp32").vit.visual, _visual(tiny_arch))


@pytest.mark.parametrize("name", ["jbu_one", "jbu_stack"])
def test_simfeatups_and_featups_checkpoints_are_loaded(name: str, tmp_path: Path) -> None:
    """A table under state_dict, every key behind `upsampler.`, beside what only training needed."""
    state = random_state(name, 8)
    table = {f"upsampler.{k}": v for k, v in state.items()} | {"downsampler.kernel": torch.ones(3)}
    torch.save({"epoch": 1, "state_dict": table}, tmp_path / "w.ckpt")
    jbu = load_upsampler(f"{name}@{tmp_path / 'w.ckpt'}", CPU).jbu
    for step, key in zip(jbu.steps, ["up"] * 4 if name == "jbu_one" else ["up1", "up2", "up3", "up4"], strict=True):
        assert torch.equal(step.range_temp, state[f"{key}.range_temp"])
        assert torch.equal(step.range_proj[0], state[f"{key}.range_proj.0.weight"].flatten(1))
        assert torch.equal(step.fixup_proj[2], state[f"{key}.fixup_proj.3.weight"].flatten(1))
    assert torch.equal(jbu.bias, state["fixup_proj.1.bias"])


Load = Callable[[Path], object]


@pytest.fixture(params=["clip", "vfm", "upsampler"])
def load_file_as(request: pytest.FixtureRequest, tiny_arch: State, monkeypatch: pytest.MonkeyPatch) -> Load:
    """Load a file as weights of a kind, of a small architecture."""
    monkeypatch.setattr(vfm, "build_timm", lambda arch, state: build_timm(arch, state, **SMALL))
    clip: Any = Namespace(card=Namespace(name="demo"))
    loads: dict[str, Load] = {
        "clip": lambda path: load_clip(f"tiny@{path}", CPU, "fp32"),
        "vfm": lambda path: load_vfm(f"dino_vitb16@{path}", clip, CPU, "fp32"),
        "upsampler": lambda path: load_upsampler(f"jbu_one@{path}", CPU),
    }
    return loads[request.param]


def _refused(load: Load, path: Path, said: str) -> None:
    with pytest.raises(GeoOVSegError) as caught:
        load(path)
    message = str(caught.value)
    assert message.startswith(f"{path} cannot be loaded as weights of ")
    assert message.endswith(("check that it is whole, and that the architecture is right", "--force` fetches it again"))
    assert said in message
    assert "weights_only" not in message, "torch recommends to run the code"
    assert "\n" not in message


class _Code:
    """Unpickling it makes a folder."""

    def __init__(self, marker: Path) -> None:
        self.marker = marker

    def __reduce__(self) -> tuple[object, tuple[str]]:
        return os.mkdir, (str(self.marker),)


def _pickled(content: object, path: Path, how: str) -> None:
    if how.startswith("protocol"):
        path.write_bytes(pickle.dumps(content, protocol=int(how[-1])))
    else:
        torch.save(content, path, _use_new_zipfile_serialization=how == "zip")


@pytest.mark.parametrize("how", ["zip", "legacy", "protocol 2", "protocol 4"])
@pytest.mark.parametrize("where", ["itself", "state_dict", "tensor", "teacher"])
def test_pickled_code_is_refused_and_not_run(load_file_as: Load, how: str, where: str, tmp_path: Path) -> None:
    code = _Code(tmp_path / "ran")
    content = {"itself": code, "state_dict": {"state_dict": code}, "tensor": {"w": code}, "teacher": {"teacher": code}}
    _pickled(content[where], tmp_path / "w.pt", how)
    _refused(
        load_file_as, tmp_path / "w.pt", "it is damaged, or no" if how == "protocol 4" else "posix.mkdir, which is code"
    )
    assert not (tmp_path / "ran").exists()


def test_the_code_of_these_tests_would_have_run(tmp_path: Path) -> None:
    _pickled({"w": _Code(tmp_path / "ran")}, tmp_path / "w.pt", "zip")
    torch.load(tmp_path / "w.pt", weights_only=False)
    assert (tmp_path / "ran").exists()


def test_a_pickle_under_another_name_is_refused(load_file_as: Load, tmp_path: Path) -> None:
    _pickled({"w": _Code(tmp_path / "ran")}, tmp_path / "w.safetensors", "protocol 2")
    _refused(load_file_as, tmp_path / "w.safetensors", "header")
    assert not (tmp_path / "ran").exists()


def test_of_a_program_only_the_tensors_are_read(tiny_arch: State, tiny_clip: open_clip.CLIP, tmp_path: Path) -> None:
    """The form in which OpenAI published CLIP, in half precision."""
    model = copy.deepcopy(tiny_clip).requires_grad_(False)
    model.load_state_dict(tiny_arch)
    given = torch.zeros(1, 3, *model.visual.image_size), torch.zeros(1, model.context_length, dtype=torch.long)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.jit.save(torch.jit.trace(model, given, check_trace=False).half(), tmp_path / "ViT-B-16.pt")
    halves = {k: v.half().float() if v.is_floating_point() else v for k, v in tiny_arch.items()}
    found = load_clip(f"ViT-B-16-quickgelu@{tmp_path / 'ViT-B-16.pt'}", CPU, "fp32")
    _assert_holds(found.vit.visual, _visual(halves))


@pytest.mark.parametrize("asked", ["posix.system", "torch.jit._pickle.build_anything", "builtins.eval"])
def test_a_program_that_asks_for_more_is_refused_and_not_run(load_file_as: Load, asked: str, tmp_path: Path) -> None:
    module, _, name = asked.rpartition(".")
    code = b"c" + f"{module}\n{name}\n".encode() + b"(V" + f"mkdir {tmp_path / 'ran'}\n".encode() + b"tR."
    with zipfile.ZipFile(tmp_path / "w.pt", "w") as file:
        file.writestr("w/data.pkl", code)
        file.writestr("w/constants.pkl", b"")
    _refused(load_file_as, tmp_path / "w.pt", f"it asks for {asked}, which is code or may be")
    assert not (tmp_path / "ran").exists()


def _saved(path: Path, how: str) -> bytes:
    if how == "safetensors":
        save_file(TENSORS, path)
    else:
        torch.save({"state_dict": TENSORS}, path, _use_new_zipfile_serialization=how == "zip")
    return path.read_bytes()


@pytest.mark.parametrize("how", ["safetensors", "zip", "legacy"])
@pytest.mark.parametrize("left", [0.0, 0.001, 0.5, 0.999])
def test_truncated_files_are_refused(load_file_as: Load, how: str, left: float, tmp_path: Path) -> None:
    path = tmp_path / ("w.safetensors" if how == "safetensors" else "w.pt")
    content = _saved(path, how)
    path.write_bytes(content[: int(left * len(content))])
    _refused(load_file_as, path, "rror" if how == "safetensors" else "it is damaged")


def test_flipped_bits_of_a_checkpoint_are_seen(load_file_as: Load, tmp_path: Path) -> None:
    content = _saved(tmp_path / "w.pt", "zip")
    at = len(content) // 2
    (tmp_path / "w.pt").write_bytes(content[:at] + bytes([content[at] ^ 4]) + content[at + 1 :])
    _refused(load_file_as, tmp_path / "w.pt", "it is damaged, at ")


def test_a_zip_with_a_checkpoint_in_it_is_no_checkpoint(load_file_as: Load, tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "Sky.zip", "w") as file:
        file.writestr("Sky/epoch_20.pt", _saved(tmp_path / "w.pt", "zip"))
    _refused(load_file_as, tmp_path / "Sky.zip", "it is a ZIP of other files; if a checkpoint is among")


@pytest.mark.parametrize("name", ["w.pt", "w.safetensors"])
@pytest.mark.parametrize("content", [b"<!DOCTYPE html>", b"not weights", b"PK\x03\x04", bytes(100)])
def test_files_of_something_else_are_refused(load_file_as: Load, name: str, content: bytes, tmp_path: Path) -> None:
    (tmp_path / name).write_bytes(content)
    _refused(load_file_as, tmp_path / name, "")


@pytest.mark.parametrize("how", ["safetensors", "zip", "legacy"])
def test_weights_of_another_architecture_are_refused_with_what_is_lacking(
    load_file_as: Load, how: str, tmp_path: Path
) -> None:
    path = tmp_path / ("w.safetensors" if how == "safetensors" else "w.pt")
    _saved(path, how)
    with pytest.raises(
        GeoOVSegError,
        match=r": it (lacks \d+ tensors, first \S+|has no \S+); (check|`geoovseg models fetch)",
    ):
        load_file_as(path)


def test_tensors_of_another_shape_are_named() -> None:
    model = torch.nn.Linear(2, 3)
    with pytest.raises(ValueError, match=r"its weight has shape \(3, 4\), not \(3, 2\)"):
        fill(model, {"weight": torch.ones(3, 4), "bias": torch.ones(3)})


def test_a_refused_file_ends_a_run_with_one_line(demo_scene: str, tmp_path: Path, geoovseg: Callable[..., Any]) -> None:
    state = load_file(DEMO_DIR / "model.safetensors")
    save_file({k: v for k, v in state.items() if k != "visual.proj"}, tmp_path / "w.safetensors")
    code, _, err = geoovseg("segment", demo_scene, "--model", f"demo@{tmp_path / 'w.safetensors'}", "-c", "road")
    assert code == 1
    assert "it lacks 1 tensors, first visual.proj; check that it is whole, and that the architecture is right" in err


def test_a_clip_of_transformers_gives_transformers_features(tiny_clip: open_clip.CLIP) -> None:
    """Weights under its own names, and the unit features that transformers 5 makes of them (tests/layouts)."""
    state = read_state(Path(__file__).with_name("layouts") / "transformers_clip.safetensors")
    model = copy.deepcopy(tiny_clip)
    fill(model, as_open_clip(state))
    with torch.no_grad():
        image = model.encode_image(state["given.image"], normalize=True)
        text = model.encode_text(state["given.tokens"].long(), normalize=True)
    torch.testing.assert_close(image, state["given.image_features"], rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(text, state["given.text_features"], rtol=1e-4, atol=1e-4)
