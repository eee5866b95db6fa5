"""Every choice is listed once: keywords, options and the signature follow from it."""

from __future__ import annotations

import inspect
import os
from collections.abc import Callable
from dataclasses import fields
from pathlib import Path
from typing import Any

import pytest

from geoovseg import Segmenter, segment
from geoovseg.cli.options import of
from geoovseg.errors import GeoOVSegError, UsageError
from geoovseg.methods import METHODS, card, read_settings
from geoovseg.network import access, is_offline, model_dir
from geoovseg.run.estimate import dry_run
from geoovseg.settings import Settings, choices
from geoovseg.settings.choice import GROUPS, option_of

ROOT = Path(__file__).parents[1]
Run = Callable[..., tuple[int, str, str]]


def test_every_field_is_a_choice_with_a_group_and_a_word_on_it() -> None:
    assert [field.name for field in fields(Settings)] == list(choices())
    for name, choice in choices().items():
        assert choice.group in GROUPS, name
        assert choice.about.endswith("."), name


@pytest.mark.parametrize("name", list(choices()))
def test_a_choice_is_a_keyword_of_everything_that_takes_settings(name: str) -> None:
    for callee in (segment, Segmenter, dry_run):
        parameter = inspect.signature(callee).parameters[name]
        assert parameter.kind is parameter.KEYWORD_ONLY


def test_what_is_not_said_is_as_the_method_was_published() -> None:
    assert Settings(method="segearth", as_published=True).upsampled_by == "jbu_one"
    found = Settings(method="proxyclip", as_published=True, stride=64)
    assert (found.tile, found.stride, found.upsample, found.templates) == (336, 64, "bilinear", "openai-80")
    found = Settings(method="resegclip", as_published=True, settings={"output": "paper"})
    assert (found.sam_name, found.stride, found.settings) == ("sam_vit_h", 50, {"exact": True, "output": "paper"})
    assert Settings(method="resegclip").sam_name == "sam_vit_b"
    by_colour = Settings(method="resegclip", as_published=True, regions="felzenszwalb")
    assert (by_colour.sam, by_colour.settings, by_colour.stride) == (None, {}, 50)
    with pytest.raises(UsageError, match="direct-op has no release that is known here; these have: clip, maskclip"):
        Settings(method="direct-op", as_published=True)


@pytest.mark.parametrize("method", METHODS)
def test_what_a_release_chooses_are_choices(method: str) -> None:
    for name, value in card(method).published.items():
        choices()[name].check(option_of(name), value)
    read_settings(method, card(method).published.get("settings", {}))


def test_the_help_of_segment_lists_every_choice_under_its_group(geoovseg: Run) -> None:
    code, out, _ = geoovseg("segment", "-h")
    assert code == 0
    places = [out.index(f"\n{group}:") for group in GROUPS]
    assert places == sorted(places)
    for name, choice in choices().items():
        after = out[out.index(f"\n{choice.group}:") :]
        following = [g for g in GROUPS if f"\n{g}:" in after[1:]]
        own = after[: min((after.index(f"\n{g}:") for g in following), default=len(after))]
        assert option_of(name) in own, name


def test_names_are_written_once_in_the_package() -> None:
    """A field of Settings, and the places that use it: nowhere else an option or keyword list of them."""
    for name in ("max_memory", "aoi_crs", "work_dir", "on_error", "batch_size"):
        listed = [
            path.relative_to(ROOT)
            for path in (ROOT / "geoovseg").rglob("*.py")
            if any(line.strip().startswith(f"{name}:") for line in path.read_text().splitlines())
            and path.name not in ("names.py", "job.py", "result.py", "pipeline.py")  # where parts lie, what came of it
        ]
        assert listed == [Path("geoovseg/settings/__init__.py")], name


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"tlie": 3}, r"no setting 'tlie' \(did you mean tile\?\)"),
        ({"tile": -1}, "--tile -1 must be a positive number"),
        ({"tile": 7.5}, "--tile 7.5 must be a positive number"),
        ({"tile": True}, "--tile True must be a positive number"),
        ({"gsd": float("nan")}, "--gsd nan must be a number of metres"),
        ({"method": 3}, "--method 3 must be text"),
        ({"settings": 5}, "--set 5: write name=value"),
        ({"settings": ["scale"]}, "--set scale: write name=value"),
        ({"grid": "both"}, "--grid both: choose working or scene"),
        ({"shard": "3/2"}, "--shard 3/2: the first number runs from 1 to the second"),
        ({"shard": (1, 2, 3)}, "write I/N"),
        ({"workers": 0}, "--workers 0 must be at least 1"),
        ({"overwrite": "yes"}, "--overwrite 'yes' must be true or false"),
        ({"bands": 321}, "name three bands"),
        ({"threshold": 1.5}, "--threshold 1.5 must lie between 0 and 1"),
    ],
)
def test_what_a_choice_cannot_be_is_refused_everywhere(given: dict[str, Any], message: str) -> None:
    for make in (Settings, lambda **more: Segmenter("road", model="demo", **more)):
        with pytest.raises(UsageError, match=message):
            make(**given)


def test_values_by_position_are_refused() -> None:
    with pytest.raises(UsageError, match="one value too many"):
        Settings("segearth")  # type: ignore[call-arg]


def test_texts_of_the_command_line_and_values_of_python_are_the_same() -> None:
    texts = Settings(bands="3,nir,1", settings=["scale=9"], shard="2/3", output=Path("x.tif"))  # type: ignore[arg-type]
    values = Settings(bands=(3, "nir", 1), settings={"scale": "9"}, shard=(2, 3), output="x.tif")
    assert texts == values


def test_slurm_says_which_share(monkeypatch: pytest.MonkeyPatch) -> None:
    for end, value in (("ID", "7"), ("MIN", "5"), ("COUNT", "4")):
        monkeypatch.setenv(f"SLURM_ARRAY_TASK_{end}", value)
    assert Settings(shard="slurm").shard == (3, 4)  # type: ignore[arg-type]
    monkeypatch.delenv("SLURM_ARRAY_TASK_ID")
    with pytest.raises(UsageError, match="works in a job array"):
        Settings(shard="slurm")  # type: ignore[arg-type]


def test_mistakes_of_callers_are_errors_of_ours(tmp_path: Path) -> None:
    for classes in (5, [1], {"a": 5}, {"a": ["b", 3]}, {3: "x"}, {}, "", {" ": "x"}, {"a": ["b"], "c": ["b"]}):
        with pytest.raises(GeoOVSegError):
            Segmenter(classes, model="demo")  # type: ignore[arg-type]
    for scene in (None, 7, b"scene.tif", tmp_path / "none.tif"):
        with pytest.raises(GeoOVSegError):
            segment(scene, "road", model="demo")  # type: ignore[arg-type]


def test_shells_complete_names_of_methods_models_and_lists() -> None:
    for name, start, found in (("method", "seg", "segearth"), ("model", "de", "demo"), ("vocabulary", "lov", "loveda")):
        assert found in of(name).autocompletion(start)
        assert of(name).autocompletion("nothing like it") == []


def test_settings_forbid_the_network_without_touching_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("GEOOVSEG_MODEL_DIR", raising=False)
    before = dict(os.environ)
    with Settings(offline=True, model_dir="carried").access():
        assert is_offline()
        assert model_dir() == Path("carried")
        with access():
            assert is_offline(), "what is forbidden stays forbidden inside"
    assert not is_offline()
    assert model_dir() is None
    assert dict(os.environ) == before


def test_a_command_leaves_the_environment_as_it_was(geoovseg: Run, tmp_path: Path) -> None:
    before = dict(os.environ)
    code, _, err = geoovseg(
        "segment", tmp_path / "no.tif", "-c", "road", "--model", "demo", "--offline", "--model-dir", "x"
    )
    assert (code, dict(os.environ) == before) == (4, True), err
