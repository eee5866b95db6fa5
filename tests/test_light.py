"""open_clip and timm come without torch's compiler, and in our own process open_clip without what it can do without."""

from __future__ import annotations

import subprocess
import sys

import pytest


def _run(code: str) -> str:
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert found.returncode == 0, found.stderr
    return found.stdout.strip()


def test_in_our_own_process_neither_is_loaded_and_all_can_be() -> None:
    said = _run(
        "import sys, geoovseg.machine\n"
        "geoovseg.machine.make_ours()\n"
        "import geoovseg.models.light\n"
        "unused = ('torch._dynamo', 'torch._inductor', 'transformers', 'timm')\n"
        "heavy = [name for name in sys.modules if name.startswith(unused)]\n"
        "import torch, transformers\n"
        "double = torch.compile(lambda x: 2 * x, backend='eager')\n"
        "import open_clip, timm, torchvision\n"
        "boxes = torch.tensor([[0.0, 0, 2, 2], [0, 0, 2, 2.1]])\n"
        "kept = torchvision.ops.nms(boxes, torch.tensor([0.5, 0.9]), 0.5).tolist()\n"
        "print(heavy, double(torch.ones(1)).item(), open_clip is geoovseg.models.light.open_clip, kept)"
    )
    assert said == "[] 2.0 True [1]"


@pytest.mark.trial
def test_a_compiler_that_is_there_is_left_there() -> None:
    said = _run(
        "import sys, torch._dynamo as before, geoovseg.models.light\nprint(sys.modules['torch._dynamo'] is before)"
    )
    assert said == "True"


@pytest.mark.trial
def test_libraries_that_ask_for_more_are_imported_in_the_usual_way() -> None:
    said = _run(
        "import importlib, sys\n"
        "whole = importlib.import_module\n"
        "def once(name, package=None):\n"
        "    if name == 'timm' and 'fake' not in sys.modules:\n"
        "        sys.modules['fake'] = True\n"
        "        raise AttributeError('torch._dynamo has no attribute that another version asks for')\n"
        "    return whole(name, package)\n"
        "importlib.import_module = once\n"
        "import geoovseg.models.light as light\n"
        "print(light.timm().__name__, light.open_clip.__name__)"
    )
    assert said == "timm open_clip"


@pytest.mark.trial
def test_open_clip_is_whole_for_other_code_of_the_process() -> None:
    said = _run(
        "import sys, geoovseg.models.light, open_clip.timm_model as towers, open_clip.hf_model as texts\n"
        "print(towers.timm.__name__, texts.transformers.__name__, 'torch._dynamo' in sys.modules)"
    )
    assert said == "timm transformers False"


@pytest.mark.trial
def test_in_our_own_process_towers_of_timm_are_made_when_they_are_asked_for() -> None:
    said = _run(
        "import geoovseg.machine\n"
        "geoovseg.machine.make_ours()\n"
        "from geoovseg.models import light\n"
        "before = light.open_clip.timm_model.timm\n"
        "light.timm()\n"
        "tower = light.open_clip.model.TimmModel('vit_tiny_patch16_224', 8)\n"
        "print(before, type(tower.trunk).__name__)"
    )
    assert said == "None VisionTransformer"


def test_what_only_some_runs_use_is_not_loaded_by_others() -> None:
    assert (
        _run(
            "import sys, geoovseg.models.light, geoovseg.models.load\n"
            "print([name for name in ('skimage', 'scipy', 'segment_anything') if name in sys.modules])"
        )
        == "[]"
    )
