"""Cases of numbers from the authors' own code: found in folders, read by what their case.json lists."""

from __future__ import annotations

import json
import os
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import open_clip
import torch
from safetensors.torch import load_file

HERE = Path(__file__).parent
MEAN = torch.tensor((0.48145466, 0.4578275, 0.40821073)).view(1, 3, 1, 1)
STD = torch.tensor((0.26862954, 0.26130258, 0.27577711)).view(1, 3, 1, 1)


@dataclass(frozen=True)
class Case:
    """One case folder."""

    path: Path

    @cached_property
    def meta(self) -> dict[str, Any]:
        return json.loads((self.path / "case.json").read_text())

    @cached_property
    def inputs(self) -> dict[str, torch.Tensor]:
        return load_file(self.path / "inputs.safetensors")

    @cached_property
    def outputs(self) -> dict[str, torch.Tensor]:
        return load_file(self.path / "outputs.safetensors")

    @cached_property
    def clip(self) -> open_clip.CLIP:
        """The case's model; attn_mask is a buffer, and some cases hold one tower only."""
        model = open_clip.CLIP(**json.loads((self.path / "config.json").read_text()))
        state = {k: v.float() for k, v in load_file(self.path / "weights.safetensors").items()}
        model.load_state_dict(state, strict=False)
        return model.eval().requires_grad_(False)

    def tolerance(self, output: str) -> dict[str, float]:
        """atol and rtol of an output, from the entry that lists it or from the case."""
        for entry in self.meta.get("entries", ()):
            if output in entry["outputs"]:
                found = entry.get("tol") or entry.get("tolerance")
                break
        else:
            found = self.meta.get("tol") or self.meta.get("tolerance")
        found = found.get("logits", found) if isinstance(found, dict) else {}
        return {"atol": float(found.get("atol", 2e-5)), "rtol": float(found.get("rtol", 1e-4))}


def folders() -> list[Path]:
    """Case folders: of $GEOOVSEG_GOLDEN, else those in this tree and in the shared data; the first of a name wins."""
    given = os.environ.get("GEOOVSEG_GOLDEN")
    default = [HERE / "golden", HERE.parents[1] / "shared" / "golden"]
    roots = [Path(p) for p in given.split(os.pathsep)] if given else default
    cases = [p.parent for root in roots if root.is_dir() for p in sorted(root.glob("*/case.json"))]
    return cases if given else list({p.name: p for p in reversed(cases)}.values())[::-1]


def find(kind: str) -> list[Case]:
    """Cases of a kind, told by what their case.json lists and not by their folder's name."""
    kinds = {
        "dense": lambda meta: any(o.count("/") == 2 for e in meta.get("entries", ()) for o in e["outputs"]),
        "segearth": lambda meta: meta.get("method") == "SegEarth-OV" and "cls_token_lambda" in meta.get("hyper", ()),
        "text": lambda meta: "words" in meta and "prompt_token_ids_raw" in meta.get("inputs", ()),
    }
    return [case for case in map(Case, folders()) if kinds[kind](case.meta)]


def assert_close(actual: torch.Tensor, expected: torch.Tensor, tolerance: dict[str, float]) -> None:
    np.testing.assert_allclose(actual.detach().numpy(), expected.numpy(), **tolerance)
