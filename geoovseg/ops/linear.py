"""Linear layers of frozen towers on a CPU, whose weights are laid out once as its matrix kernels (oneDNN) want them.

torch lays them out anew in every call. Of a ViT-B/16 that is a tenth of the time, and its activation another one, which
the kernel applies while it has the numbers at hand.
"""

from __future__ import annotations

from functools import cache
from typing import Any, NamedTuple, TypeVar, cast
from weakref import WeakKeyDictionary

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.weak import WeakTensorKeyDictionary

MOST = 2 * 2**30
"""Bytes of weights up to which they are held twice, as they are and laid out."""
SLOPE = 1.702
"""Of CLIP's activation x sigmoid(1.702 x), which is swish(1.702 x) / 1.702."""
Model = TypeVar("Model", bound=nn.Module)
Stamp = tuple[int, int]
"""Where a weight lies, and how often it was changed there."""


class _Fused(NamedTuple):
    """Two layers and what is between them."""

    stamps: tuple[Stamp, ...]
    first: Tensor
    bias: Tensor
    activation: tuple[str, str]
    """as oneDNN calls it"""
    second: Tensor
    last: Tensor


_PACKED: Any = WeakTensorKeyDictionary()
_FUSED: WeakKeyDictionary[nn.Module, _Fused] = WeakKeyDictionary()


class Linear(nn.Linear):
    """A linear layer with packed weights."""

    def forward(self, input: Tensor) -> Tensor:
        """As torch's."""
        return linear(input, self.weight, self.bias)


def packed(model: Model) -> Model:
    """The same model, whose linear layers are ready for the CPU it is on; results differ by rounding.

    Left as it is: a model elsewhere, one too large to be held twice, and all where torch has no oneDNN.
    """
    weights = [layer.weight for layer in model.modules() if isinstance(layer, nn.Linear)]
    weights += [layer.in_proj_weight for layer in model.modules() if isinstance(layer, nn.MultiheadAttention)]
    if not _can(weights):
        return model
    held: set[int] = set()  # with their activation, and not once more alone
    for layers in model.modules():
        if (fused := _fused(layers)) is not None:
            _FUSED[layers] = fused
            held |= {id(parameter) for parameter in layers.parameters()}
    for weight in weights:
        if id(weight) not in held:
            _PACKED[weight] = _stamp(weight), _laid_out(weight)
    for layer in model.modules():
        if type(layer) is nn.Linear:
            layer.__class__ = Linear
    return model


def linear(x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    """A layer (D, E) on x (..., E): (..., D)."""
    stamp, laid = _PACKED.get(weight, (None, None))
    if laid is None or not _fits(x, laid) or stamp != _stamp(weight):
        return F.linear(x, weight, bias)
    return _through(x, laid, bias)


def feed_forward(layers: nn.Module, x: Tensor) -> Tensor:
    """A layer, an activation and another layer on x."""
    fused = _FUSED.get(layers)
    if fused is None or not _fits(x, fused.bias) or fused.stamps != _stamps(layers):
        return cast("Tensor", layers(x))
    return _through(_through(x, fused.first, fused.bias, *fused.activation), fused.second, fused.last)


def _through(x: Tensor, laid: Tensor, bias: Tensor | None, activation: str = "none", kind: str = "") -> Tensor:
    return cast("Tensor", torch.ops.mkldnn._linear_pointwise(x, laid, bias, activation, [], kind))


def _fits(x: Tensor, laid: Tensor) -> bool:
    """Whether numbers are of the kind that a layer was packed for, and none asks for gradients."""
    return not torch.is_grad_enabled() and (x.dtype, x.device) == (laid.dtype, laid.device)


def _stamp(weight: Tensor) -> Stamp:
    """What differs once a weight has been changed; in inference mode torch counts no changes."""
    return weight.data_ptr(), 0 if weight.is_inference() else weight._version


def _stamps(layers: nn.Module) -> tuple[Stamp, ...]:
    return tuple(_stamp(parameter) for parameter in layers.parameters())


def _laid_out(weight: Tensor) -> Tensor:
    return cast("Tensor", torch.ops.mkldnn._reorder_linear_weight(weight.detach()))


def _can(weights: list[Tensor]) -> bool:
    """Whether weights can be laid out, and there is room for it."""
    plain = all(w.device.type == "cpu" and w.dtype in (torch.float32, torch.bfloat16) for w in weights)
    room = sum(w.numel() * w.element_size() for w in weights) <= MOST
    return plain and room and all(lays_out(dtype) for dtype in {w.dtype for w in weights})


@cache
def lays_out(dtype: torch.dtype) -> bool:
    """Whether weights of a kind can be laid out here: torch refuses bfloat16 on CPUs without AVX-512 or its like."""
    if not (torch.backends.mkldnn.is_available() and hasattr(torch.ops.mkldnn, "_reorder_linear_weight")):
        return False
    try:
        _laid_out(torch.zeros(1, 1, dtype=dtype))
    except RuntimeError:
        return False
    return True


def _fused(layers: nn.Module) -> _Fused | None:
    """Two layers as one, if their activation is one that oneDNN has."""
    parts = list(layers.children()) if isinstance(layers, nn.Sequential) else []
    if [isinstance(part, nn.Linear) for part in parts] != [True, False, True]:
        return None
    first, between, second = cast("Any", parts)
    if first.bias is None or second.bias is None:
        return None
    if isinstance(between, nn.GELU) and between.approximate == "none":
        weights, factor, activation = (first.weight, second.weight), 1.0, ("gelu", "none")
    elif type(between).__name__ == "QuickGELU" and first.weight.dtype == torch.float32:  # scaled, bfloat16 would round
        weights, factor, activation = (first.weight * SLOPE, second.weight / SLOPE), SLOPE, ("swish", "")
    else:
        return None
    bias = (first.bias * factor).detach()
    return _Fused(_stamps(layers), _laid_out(weights[0]), bias, activation, _laid_out(weights[1]), second.bias.detach())
