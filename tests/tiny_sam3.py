"""A SAM 3 of random weights, small enough for tests."""

from __future__ import annotations

from typing import Any

import pytest
import torch


def small_sam3(side: int = 112) -> Any:
    """A random SAM 3 of few and narrow blocks, for windows of `side` pixels, that finds some objects and not others."""
    transformers = pytest.importorskip("transformers", minversion="5.14", reason="no SAM 3 in transformers")
    width = 16
    eye = {
        "model_type": "sam3_vit_model", "hidden_size": 32, "intermediate_size": 32, "num_hidden_layers": 2,
        "num_attention_heads": 2, "image_size": side, "pretrain_image_size": 56, "window_size": 4,
        "global_attn_indexes": [1],
    }  # fmt: skip
    text = {
        "model_type": "clip_text_model", "hidden_size": 8, "intermediate_size": 16, "projection_dim": 8,
        "num_hidden_layers": 1, "num_attention_heads": 2, "vocab_size": 49408, "max_position_embeddings": 32,
    }  # fmt: skip
    part = {"hidden_size": width, "num_attention_heads": 2, "intermediate_size": width, "num_layers": 1}
    config = transformers.Sam3Config(
        vision_config={"backbone_config": eye, "fpn_hidden_size": width},
        text_config=text,
        geometry_encoder_config=part,
        detr_encoder_config=part,
        detr_decoder_config={**part, "num_queries": 10},
        mask_decoder_config={"hidden_size": width, "num_attention_heads": 2},
    )
    torch.manual_seed(3)
    model = transformers.Sam3Model(config).eval().requires_grad_(False)
    for value in model.parameters():
        if value.dim() > 1:
            torch.nn.init.normal_(value, std=1.5 * (value.numel() / len(value)) ** -0.5)
    model.detr_decoder.presence_head.layer3.weight.mul_(0.2)
    model.detr_decoder.presence_head.layer3.bias.fill_(1.5)
    model.mask_decoder.prompt_cross_attn.o_proj.weight.mul_(20)
    model.mask_decoder.instance_projection.weight.mul_(0.2)
    return model
