"""Linear layers of frozen towers on a CPU, whose weights are laid out once as its matrix kernels (oneDNN) want them.

torch lays them out anew in every call. Of a ViT-B/16 that is a tenth of the time, and its activation another one, which
the kernel applies while it has the numbers at hand.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import cache, partial
from typing import Any, NamedTuple, TypeVar, cast
from weakref import WeakKeyDictionary

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.weak import WeakTensorKeyDictionary

from geoovseg.ops import eight_bits

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
    run: Callable[[Tensor], Tensor]


_PACKED: Any = WeakTensorKeyDictionary()
_FUSED: WeakKeyDictionary[nn.Module, _Fused] = WeakKeyDictionary()


class Linear(nn.Linear):
    """A linear layer with packed weights."""

    def forward(self, input: Tensor) -> Tensor:
        """As torch's."""
        return linear(input, self.weight, self.bias)


def packed(model: Model, *, eight: bool = False) -> Model:
    """The same model, whose linear layers are ready for the CPU it is on; results differ by rounding.

    With `eight` they multiply 8-bit numbers (`geoovseg.ops.eight_bits`), a quarter of the weights' room besides. Left
    as it is: a model elsewhere, and without `eight` one too large to be held twice, and all where torch has no oneDNN.
    """
    layers = [layer for layer in model.modules() if isinstance(layer, nn.Linear)]
    weights = [layer.weight for layer in layers]
    weights += [layer.in_proj_weight for layer in model.modules() if isinstance(layer, nn.MultiheadAttention)]
    if _can(weights, eight):
        _pack(model, weights, eight)
        for layer in layers:
            if type(layer) is nn.Linear:
                layer.__class__ = Linear
    return model


def _pack(model: nn.Module, weights: list[Tensor], eight: bool) -> None:
    """Hold kernels of pairs of layers, and of all other weights."""
    held: set[int] = set()  # with their activation, and not once more alone
    for layers in model.modules():
        if (run := (_fused_in_eight if eight else _fused)(layers)) is not None:
            _FUSED[layers] = _Fused(_stamps(layers), run)
            held |= {id(parameter) for parameter in layers.parameters()}
    for weight in weights:
        if id(weight) not in held:
            kernel = partial(eight_bits.through, eight_bits.rows_of(weight)) if eight else _kernel(weight)
            _PACKED[weight] = _stamp(weight), kernel


def linear(x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    """A layer (D, E) on x (..., E): (..., D)."""
    stamp, kernel = _PACKED.get(weight, (None, None))
    if kernel is None or not _fits(x, weight) or stamp != _stamp(weight):
        return F.linear(x, weight, bias)
    return cast("Tensor", kernel(x, bias))


def feed_forward(layers: nn.Module, x: Tensor) -> Tensor:
    """A layer, an activation and another layer on x."""
    fused = _FUSED.get(layers)
    if fused is None or not _fits(x, next(layers.parameters())) or fused.stamps != _stamps(layers):
        return cast("Tensor", layers(x))
    return fused.run(x)


def _kernel(weight: Tensor, activation: str = "none", kind: str = "") -> Callable[[Tensor, Tensor | None], Tensor]:
    """What a layer with this weight makes of x and its bias, through an activation as oneDNN calls it."""
    laid = _laid_out(weight)
    return lambda x, bias: cast("Tensor", torch.ops.mkldnn._linear_pointwise(x, laid, bias, activation, [], kind))


def _fits(x: Tensor, weight: Tensor) -> bool:
    """Whether numbers are of the kind that a layer is packed for, and none asks for gradients."""
    return not torch.is_grad_enabled() and (x.dtype, x.device) == (weight.dtype, weight.device)


def _stamp(weight: Tensor) -> Stamp:
    """What differs once a weight has been changed; in inference mode torch counts no changes."""
    return weight.data_ptr(), 0 if weight.is_inference() else weight._version


def _stamps(layers: nn.Module) -> tuple[Stamp, ...]:
    return tuple(_stamp(parameter) for parameter in layers.parameters())


def _laid_out(weight: Tensor) -> Tensor:
    return cast("Tensor", torch.ops.mkldnn._reorder_linear_weight(weight.detach()))


def _can(weights: list[Tensor], eight: bool) -> bool:
    """Whether weights can be laid out, and there is room for it."""
    if eight:
        return all((w.device.type, w.dtype) == ("cpu", torch.float32) for w in weights)
    plain = all(w.device.type == "cpu" and w.dtype in (torch.float32, torch.bfloat16) for w in weights)
    room = sum(w.numel() * w.element_size() for w in weights) <= MOST
    return plain and room and all(_lays_out(dtype) for dtype in {w.dtype for w in weights})


@cache
def _lays_out(dtype: torch.dtype) -> bool:
    """Whether weights of a kind can be laid out here: torch refuses bfloat16 on CPUs without AVX-512 or its like."""
    if not (torch.backends.mkldnn.is_available() and hasattr(torch.ops.mkldnn, "_reorder_linear_weight")):
        return False
    try:
        _laid_out(torch.zeros(1, 1, dtype=dtype))
    except RuntimeError:
        return False
    return True


def _parts(layers: nn.Module) -> tuple[Any, Any, Any] | None:
    """A layer, an activation and another layer, with biases, if that is what these layers are."""
    parts = list(layers.children()) if isinstance(layers, nn.Sequential) else []
    if [isinstance(part, nn.Linear) for part in parts] != [True, False, True]:
        return None
    first, between, second = cast("Any", parts)
    known = isinstance(between, nn.GELU) or type(between).__name__ == "QuickGELU"
    return (first, between, second) if known and first.bias is not None and second.bias is not None else None


def _fused_in_eight(layers: nn.Module) -> Callable[[Tensor], Tensor] | None:
    """Two layers of 8-bit products, and their activation."""
    if (parts := _parts(layers)) is None:
        return None
    first, between, second = parts
    into, out = (eight_bits.rows_of(layer.weight) for layer in (first, second))
    return partial(eight_bits.feed_forward, into, out, (first.bias.detach(), second.bias.detach()), between)


def _fused(layers: nn.Module) -> Callable[[Tensor], Tensor] | None:
    """Two layers as one, if their activation is one that oneDNN has."""
    if (parts := _parts(layers)) is None:
        return None
    first, between, second = parts
    if isinstance(between, nn.GELU) and between.approximate == "none":
        weights, factor, activation = (first.weight, second.weight), 1.0, ("gelu", "none")
    elif not isinstance(between, nn.GELU) and first.weight.dtype == torch.float32:  # scaled, bfloat16 would round
        weights, factor, activation = (first.weight * SLOPE, second.weight / SLOPE), SLOPE, ("swish", "")
    else:
        return None
    into, out = _kernel(weights[0], *activation), _kernel(weights[1])
    biases = (first.bias * factor).detach(), second.bias.detach()
    return lambda x: out(into(x, biases[0]), biases[1])
