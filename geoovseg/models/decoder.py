"""Segment Anything's mask decoder, walked for many prompts of one image over the package's unmodified modules.

The package projects the image for each prompt, to 128 numbers a patch and back. A prompt has a few tokens only, so
their side can be projected instead, and the image is compared with them as it is. Exact, in half the products:

    q (W x)^T = (q W) x^T        A (W x) = (A x) W^T        A v W^T = A (v W^T)

Patches come last but one and channels last, so that layers are single products and norms run over what lies together.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F


def decode(decoder: Any, image: Tensor, places: Tensor, prompts: Tensor, masks: slice) -> tuple[Tensor, Tensor]:
    """Logits (B, m, 4h, 4w) and predicted qualities (B, m) of some of the decoder's masks.

    `image` and `places` (C, h, w) are the image's embedding with the mask prompt added, and its position code;
    `prompts` (B, t, C) are what points and boxes became.
    """
    own = torch.cat([decoder.iou_token.weight, decoder.mask_tokens.weight])
    asked = torch.cat([own.expand(len(prompts), -1, -1), prompts], dim=1)  # (B, T, C)
    tokens, x = _both_ways(decoder.transformer, asked, image.flatten(1).T, places.flatten(1).T)
    quality = decoder.iou_prediction_head(tokens[:, 0])[:, masks]
    heads = decoder.output_hypernetworks_mlps
    weights = torch.stack([heads[n](tokens[:, 1 + n]) for n in range(len(heads))[masks]], dim=1)  # (B, m, c)
    grid = (image.shape[1], image.shape[2])
    logits = [_enlarged(decoder.output_upscaling, *each, grid) for each in zip(x, weights, strict=True)]
    return torch.stack(logits), quality


def _both_ways(walk: Any, asked: Tensor, image: Tensor, code: Tensor) -> tuple[Tensor, Tensor]:
    """Tokens (B, T, C) and an image (N, C) with its position code after attending to each other; (B, N, C) then."""
    tokens, x = asked, image[None]
    for layer in walk.layers:
        tokens = _among(layer, tokens, asked)
        placed = x + code
        tokens = layer.norm2(tokens + _from_image(layer.cross_attn_token_to_image, tokens + asked, placed, x))
        tokens = layer.norm3(tokens + layer.mlp(tokens))
        x = layer.norm4(_to_image(layer.cross_attn_image_to_token, x, placed, tokens + asked, tokens))
    found = _from_image(walk.final_attn_token_to_image, tokens + asked, x + code, x)
    return walk.norm_final_attn(tokens + found), x


def _among(layer: Any, tokens: Tensor, asked: Tensor) -> Tensor:
    """Tokens that attend to each other; in the first layer without their position code and what they were."""
    if layer.skip_first_layer_pe:
        return layer.norm1(layer.self_attn(tokens, tokens, tokens))
    placed = tokens + asked
    return layer.norm1(tokens + layer.self_attn(placed, placed, tokens))


def _from_image(attn: Any, tokens: Tensor, placed: Tensor, x: Tensor) -> Tensor:
    """What tokens (B, T, C) take of an image x (B or 1, N, C); biases of keys shift all logits of a row alike."""
    q, keys, values = _apart(attn, attn.q_proj(tokens)), _by_head(attn, attn.k_proj), _by_head(attn, attn.v_proj)
    asked = (q @ keys * q.shape[-1] ** -0.5).flatten(1, 2)  # (B, heads * T, C)
    taken = (asked @ placed.mT).softmax(-1) @ x
    heads = taken.unflatten(1, q.shape[1:3]) @ values.mT + attn.v_proj.bias.unflatten(0, (q.shape[1], 1, -1))
    return attn.out_proj(heads.transpose(1, 2).flatten(2))


def _to_image(attn: Any, x: Tensor, placed: Tensor, keys: Tensor, values: Tensor) -> Tensor:
    """An image x (B or 1, N, C) and what its patches take of tokens (B, T, C)."""
    k, v = _apart(attn, attn.k_proj(keys)), _apart(attn, attn.v_proj(values))  # (B, heads, T, d)
    heads, scale = k.shape[1], k.shape[-1] ** -0.5
    asked, always = k @ _by_head(attn, attn.q_proj), k @ attn.q_proj.bias.unflatten(0, (heads, -1, 1))
    logits = (scale * asked).flatten(1, 2) @ placed.mT + scale * always.flatten(1, 2)  # (B, heads * T, N)
    weights = logits.unflatten(1, (heads, -1)).softmax(2).flatten(1, 2)
    out = attn.out_proj
    given = v @ out.weight.T.unflatten(0, (heads, -1)) + out.bias / heads  # of each head, whose weights add to 1
    return torch.baddbmm(x, weights.mT, given.flatten(1, 2))


def _apart(attn: Any, x: Tensor) -> Tensor:
    """Heads side by side (B, T, heads * d) as (B, heads, T, d)."""
    return x.unflatten(2, (attn.num_heads, -1)).transpose(1, 2)


def _by_head(attn: Any, projection: Any) -> Tensor:
    """A projection's weight as (heads, d, C)."""
    return projection.weight.unflatten(0, (attn.num_heads, -1))


def _enlarged(layers: Any, x: Tensor, weights: Tensor, grid: tuple[int, int]) -> Tensor:
    """Logits (m, 4h, 4w) of patches x (N, C), doubled twice: every patch becomes four, and each of these four again."""
    first, norm, gelu, second, last = layers
    y = gelu(F.layer_norm(_doubled(first, x), norm.weight.shape, norm.weight, norm.bias, norm.eps))
    logits = weights @ last(_doubled(second, y)).flatten(0, 2).T  # (m, N * 16)
    parts = logits.unflatten(1, (*grid, 2, 2, 2, 2))  # (m, h, w, up, side, up, side)
    return parts.permute(0, 1, 3, 5, 2, 4, 6).flatten(4, 6).flatten(1, 3)


def _doubled(layer: Any, x: Tensor) -> Tensor:
    """A transposed convolution of 2 x 2 pixels without overlap on x (..., C): (..., 4, c), row by row."""
    weight = layer.weight.permute(2, 3, 1, 0).flatten(0, 2)  # (4 c, C)
    return F.linear(x, weight, layer.bias.repeat(4)).unflatten(-1, (4, -1))
