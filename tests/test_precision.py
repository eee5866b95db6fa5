"""Which numbers a model computes with where that is left to the machine."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from geoovseg.errors import UsageError
from geoovseg.models import precision
from geoovseg.models.cards import model_card
from geoovseg.models.precision import bf16_gain, resolve_precision

CPU = torch.device("cpu")


@pytest.fixture
def cpu(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> pytest.MonkeyPatch:
    """A CPU with instructions for bfloat16, of which nothing is kept."""
    info = tmp_path / "cpuinfo"
    info.write_text("model name : one\nflags : fpu avx512_bf16\n")
    monkeypatch.setattr(precision, "CPU_INFO", info)
    monkeypatch.setenv("GEOOVSEG_CACHE", str(tmp_path / "cache"))
    return monkeypatch


@pytest.mark.parametrize(("gain", "chosen"), [(1.49, "fp32"), (1.5, "bf16")])
def test_a_large_tower_takes_bfloat16_where_it_was_measured_to_be_faster(
    cpu: pytest.MonkeyPatch, gain: float, chosen: str
) -> None:
    cpu.setattr(precision, "_measured", lambda: gain)
    assert resolve_precision("auto", CPU, model_card("ViT-B-16/openai"), alone=True) == chosen
    assert resolve_precision("fp32", CPU, model_card("ViT-B-16/openai"), alone=True) == "fp32"


def test_a_small_tower_and_a_cpu_without_instructions_are_not_measured(cpu: pytest.MonkeyPatch) -> None:
    def never() -> float:
        raise AssertionError

    cpu.setattr(precision, "_measured", never)
    assert resolve_precision("auto", CPU, model_card("demo"), alone=True) == "fp32"
    precision.CPU_INFO.write_text("flags : fpu avx2\n")
    assert resolve_precision("auto", CPU, model_card("ViT-B-16/openai"), alone=True) == "fp32"


def test_what_several_processes_share_is_in_float32(cpu: pytest.MonkeyPatch) -> None:
    cpu.setattr(precision, "_measured", lambda: 9.0)
    assert resolve_precision("auto", CPU, model_card("ViT-B-16/openai"), alone=False) == "fp32"


def test_a_machine_is_measured_once(cpu: pytest.MonkeyPatch) -> None:
    times = iter([1.7, 3.0])
    cpu.setattr(precision, "_measured", lambda: next(times))
    assert [bf16_gain(), bf16_gain()] == [1.7, 1.7]
    precision.CPU_INFO.write_text("model name : another\n")
    assert bf16_gain() == 3.0


def test_what_was_kept_and_is_no_gain_is_measured_again(cpu: pytest.MonkeyPatch) -> None:
    cpu.setattr(precision, "_measured", lambda: 1.7)
    cpu.setattr(precision, "kept", lambda room, name: b"nan")
    assert bf16_gain() == 1.7


def test_a_measurement_leaves_random_numbers_as_they_were(cpu: pytest.MonkeyPatch) -> None:
    torch.manual_seed(3)
    expected = torch.rand(2)
    torch.manual_seed(3)
    assert 0 < precision._measured() < 100
    assert torch.equal(torch.rand(2), expected)


def test_eight_bits_are_for_cpus_that_have_them(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(precision.eight_bits, "is_exact", lambda: True)
    assert resolve_precision("int8", CPU, model_card("demo"), alone=False) == "int8"
    with pytest.raises(UsageError, match="int8 is for CPUs, and this run is on cuda:0"):
        resolve_precision("int8", torch.device("cuda:0"), model_card("demo"), alone=False)
    with pytest.raises(UsageError, match="int8 is not for sam3"):
        resolve_precision("int8", CPU, model_card("sam3"), alone=False)
    monkeypatch.setattr(precision.eight_bits, "is_exact", lambda: False)
    with pytest.raises(UsageError, match="this CPU lacks instructions"):
        resolve_precision("int8", CPU, model_card("demo"), alone=False)


def test_unknown_names_are_refused() -> None:
    with pytest.raises(UsageError, match="choose from auto, fp32, bf16, fp16, int8"):
        resolve_precision("half", CPU, model_card("demo"), alone=True)
