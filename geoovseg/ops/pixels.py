"""Pixels on the device that looks at them."""

from __future__ import annotations

from typing import Any

import torch
from numpy.typing import NDArray
from torch import Tensor

FULL = 255.0
"""The byte that is full light."""


def on_device(stored: NDArray[Any], device: torch.device) -> Tensor:
    """Pixels as RGB in 0..1, float32, on a device, to which bytes go as bytes: a quarter of what they become."""
    there = torch.from_numpy(stored).to(device, non_blocking=device.type == "cuda")
    if there.dtype != torch.uint8:
        return there
    return there.float().div_(torch.full((), FULL, device=device))  # by a plain number, CUDA multiplies
