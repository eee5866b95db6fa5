"""What is kept between runs, and weights: nothing in them can change a result without being noticed."""

from __future__ import annotations

import hashlib
import os
import stat
import sys
import warnings
from collections.abc import Callable
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
import open_clip
import pytest
import torch
from safetensors.torch import load_file, save_file

from geoovseg.errors import GeoOVSegError, GeoOVSegWarning
from geoovseg.files import bytes_of
from geoovseg.models import kept as kept_module
from geoovseg.models.cards import DEMO_DIR
from geoovseg.models.kept import keep, kept
from geoovseg.models.load import load_clip
from geoovseg.models.tensors import check_finite, fill
from geoovseg.models.text import TextEncoder

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="bits do not say who may write")


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("GEOOVSEG_CACHE", str(tmp_path / "cache"))
    kept_module._warn.cache_clear()
    return tmp_path / "cache"


def _encoder(clip: open_clip.CLIP) -> TextEncoder:
    def tokenize(texts: list[str]) -> torch.Tensor:
        ids = torch.zeros(len(texts), 77, dtype=torch.long)
        for row, text in zip(ids, texts, strict=True):
            row[: len(text) + 1] = torch.tensor([*(ord(c) % 60 + 1 for c in text), 63])
        return ids

    return TextEncoder(lambda: (clip, tokenize), ("a {}", "the {}."), width=16)


def _sealed(array: np.ndarray, name: str) -> bytes:
    """As a feature is kept, with a digest that is right."""
    file = BytesIO()
    np.save(file, array)
    return file.getvalue() + hashlib.sha256(name.encode() + file.getvalue()).digest()


UNIT = np.full(16, 0.25, np.float32)
ENTRIES: dict[str, Callable[[Path, Path], Any]] = {
    "nan": lambda path, other: path.write_bytes(_sealed(np.full(16, np.nan, np.float32), path.stem)),
    "infinite": lambda path, other: path.write_bytes(_sealed(np.full(16, np.inf, np.float32), path.stem)),
    "not a unit": lambda path, other: path.write_bytes(_sealed(2 * UNIT, path.stem)),
    "wrong length": lambda path, other: path.write_bytes(_sealed(np.eye(1, 8, dtype=np.float32)[0], path.stem)),
    "wrong shape": lambda path, other: path.write_bytes(_sealed(UNIT[None], path.stem)),
    "wrong type": lambda path, other: path.write_bytes(_sealed(UNIT.astype(float), path.stem)),
    "of objects": lambda path, other: path.write_bytes(_sealed(np.array([{}]), path.stem)),
    "an archive": lambda path, other: path.write_bytes(b"PK\3\4" + bytes(60)),
    "without a digest": lambda path, other: np.save(path, UNIT),
    "of another word": lambda path, other: path.write_bytes(other.read_bytes()),
    "of a changed bit": lambda path, other: path.write_bytes(
        bytes([*path.read_bytes()[:-40], 1, *path.read_bytes()[-39:]])
    ),
    "empty": lambda path, other: path.write_bytes(b""),
    "huge": lambda path, other: os.truncate(path, 1 << 40),
    "a pipe": lambda path, other: (path.unlink(), os.mkfifo(path)),
    "a folder": lambda path, other: (path.unlink(), path.mkdir()),
    "a device": lambda path, other: (path.unlink(), path.symlink_to("/dev/zero")),
    "a link": lambda path, other: (path.unlink(), path.symlink_to(other)),
}


@pytest.mark.parametrize("damage", ENTRIES)
def test_a_kept_feature_that_is_not_as_it_was_is_computed_again(
    tiny_clip: open_clip.CLIP, cache: Path, damage: str
) -> None:
    first = _encoder(tiny_clip).embed(["road", "water"])
    paths = {path.stem: path for path in (cache / "text").iterdir()}
    encoder = _encoder(tiny_clip)
    path, other = (paths[encoder._key(word)] for word in ("road", "water"))
    before = path.read_bytes(), other.read_bytes()
    ENTRIES[damage](path, other)
    assert torch.equal(encoder.embed(["road", "water"]), first)
    assert path.is_file()
    assert not path.is_symlink()
    assert (path.read_bytes(), other.read_bytes()) == before, "it was not replaced"


def test_a_folder_with_content_in_the_place_of_a_feature_is_left_alone(tiny_clip: open_clip.CLIP, cache: Path) -> None:
    first = _encoder(tiny_clip).embed(["road"])
    (path,) = (cache / "text").iterdir()
    path.unlink()
    path.mkdir()
    (path / "mine").touch()
    assert torch.equal(_encoder(tiny_clip).embed(["road"]), first)
    assert (path / "mine").exists()


def test_the_cache_is_made_for_its_user_alone(cache: Path) -> None:
    before = os.umask(0)
    try:
        keep("text", "a", b"1")
    finally:
        os.umask(before)
    assert [stat.S_IMODE(place.stat().st_mode) for place in (cache, cache / "text")] == [0o700, 0o700]
    assert kept("text", "a") == b"1"


@pytest.mark.parametrize("room", ["", "text"])
@pytest.mark.parametrize("mode", [0o777, 0o720, 0o1777])
def test_a_cache_that_others_can_write_is_not_used_and_told_once(cache: Path, room: str, mode: int) -> None:
    keep("text", "a", b"1")
    (cache / room).chmod(mode)
    with pytest.warns(GeoOVSegWarning, match="others can write the folder .*chmod go-w") as told:
        assert kept("text", "a") is None
    assert len(told) == 1
    assert kept("text", "a") is None, "the second time without a warning, which would be an error here"
    keep("text", "b", b"2")
    assert not (cache / "text" / "b").exists()
    (cache / room).chmod(0o755)
    assert kept("text", "a") == b"1"


def test_what_is_in_a_cache_that_others_can_write_changes_no_labels(tiny_clip: open_clip.CLIP, cache: Path) -> None:
    first = _encoder(tiny_clip).embed(["road"])
    (path,) = (cache / "text").iterdir()
    path.write_bytes(_sealed(UNIT, path.stem))
    assert not torch.equal(_encoder(tiny_clip).embed(["road"]), first), "a forged entry of the user's own counts"
    cache.chmod(0o777)
    with pytest.warns(GeoOVSegWarning, match="others can write"):
        assert torch.equal(_encoder(tiny_clip).embed(["road"]), first)


def test_timings_of_a_pipe_or_a_cache_of_others_count_as_none(cache: Path) -> None:
    from test_timings import ODD, _at

    from geoovseg.run.timings import keep_timings, known_timings

    keep_timings(ODD, _at(0.5))
    (path,) = (cache / "pace").iterdir()
    path.unlink()
    os.mkfifo(path)
    assert known_timings(ODD) is None
    assert keep_timings(ODD, _at(0.5)) == known_timings(ODD)
    cache.chmod(0o777)
    with pytest.warns(GeoOVSegWarning, match="others can write"):
        assert known_timings(ODD) is None


@pytest.mark.parametrize("value", [float("nan"), float("inf"), float("-inf")])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16])
def test_weights_that_are_no_numbers_are_refused(value: float, dtype: torch.dtype) -> None:
    model = torch.nn.Linear(3, 2)
    state = {k: v.detach().clone().to(dtype) for k, v in model.state_dict().items()}
    state["bias"][1] = value
    with pytest.raises(ValueError, match="its bias is not finite"):
        fill(model, state)
    with pytest.raises(ValueError, match="its bias is not finite"):
        check_finite(state.items())


def test_what_a_model_has_no_use_for_may_be_infinite() -> None:
    model = torch.nn.Linear(3, 2)
    fill(model, {**model.state_dict(), "attn_mask": torch.full((2, 2), -torch.inf), "none": torch.zeros(0)})


def test_a_file_of_weights_full_of_nan_is_an_error_that_names_it(tmp_path: Path, cache: Path) -> None:
    state = load_file(DEMO_DIR / "model.safetensors")
    save_file({k: v * torch.nan if v.is_floating_point() else v for k, v in state.items()}, tmp_path / "w.safetensors")
    with pytest.raises(GeoOVSegError, match=r"w\.safetensors cannot be loaded as weights of demo: .* is not finite"):
        load_clip(f"demo@{tmp_path / 'w.safetensors'}", torch.device("cpu"), "fp32")


def test_a_pipe_is_read_with_a_bound_and_one_that_nobody_writes_is_not_waited_for(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    assert bytes_of(tmp_path / "pipe", 100) == b""
    with pytest.raises(OSError, match="it is larger than 2 kB, the most that is read of it"):
        bytes_of(Path("/dev/zero"), 2048)
    (tmp_path / "file").write_bytes(bytes(2049))
    with pytest.raises(OSError, match="it is larger than 2 kB"):
        bytes_of(tmp_path / "file", 2048)
    os.truncate(tmp_path / "file", 2048)
    assert bytes_of(tmp_path / "file", 2048) == bytes(2048)


def test_warnings_of_the_cache_are_ours() -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        kept_module._warn.cache_clear()
        with pytest.raises(GeoOVSegWarning):
            kept_module._warn(Path("x"))
