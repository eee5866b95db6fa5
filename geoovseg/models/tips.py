"""TIPSv2 (Cao et al. 2026, arXiv 2604.12012) through transformers: patches that were trained to agree with words.

Its patch tokens after the last norm are compared with text features as they are, so nothing of its last block is
changed, and of the methods only `clip` has a use for it. Its text side is bidirectional and pools over all words.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, ClassVar, cast

import torch
from torch import Tensor, nn

from geoovseg.errors import GeoOVSegError, ModelError, first_line, silent
from geoovseg.models.card import Tower
from geoovseg.models.patches import Grid
from geoovseg.models.vit import ClipVit, Positions
from geoovseg.ops.attention import Mix


class TipsVit(ClipVit):
    """The image tower: all of it is the trunk, and the last block of the verbs leaves tokens as they are.

    Position tables are resized as transformers does. Raises ModelError for what would change its last block.
    """

    kind: ClassVar[Tower] = "tips"

    def __init__(self, visual: nn.Module, *, mean: Sequence[float], std: Sequence[float]) -> None:
        self.visual = visual
        self._model = cast("Any", visual)
        config = self._model.config
        self.blocks = cast("Any", (*self._model.encoder.layer, nn.Identity()))
        self.heads, self.patch = int(config.num_attention_heads), int(config.patch_size)
        side = int(config.image_size) // self.patch
        self.native_grid: Grid = (side, side)
        self.width = self.dim = int(config.hidden_size)
        self._keep_colours(mean, std)

    @property
    def dtype(self) -> torch.dtype:
        """The dtype the tower computes in."""
        return cast("torch.dtype", self._model.layernorm.weight.dtype)

    @property
    def device(self) -> torch.device:
        """Where the tower's weights are."""
        return cast("torch.device", self._model.layernorm.weight.device)

    def trunk(self, pixels: Tensor, positions: Positions = "offset") -> tuple[Tensor, Grid]:
        """Tokens (B, 1 + N, E) after the last norm, the first class token before the patches, and the grid."""
        whole, grid = self._patches_of(pixels)
        x = self._model(pixel_values=whole).last_hidden_state
        return torch.cat([x[:, :1], x[:, 1 + self._model.config.num_register_tokens :]], dim=1), grid

    def block(self, i: int, x: Tensor, mix: Mix | None = None, bias: Tensor | None = None) -> Tensor:
        """The tokens as they are."""
        return x

    def qkv(self, i: int, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Nothing that may be changed. Raises ModelError."""
        raise ModelError("TIPSv2's patches are read as they are: use -m clip, without --set residual=false")

    def readout(self, x: Tensor) -> Tensor:
        """The tokens as they are: they lie in the joint space."""
        return x


class Tips(nn.Module):
    """A whole model with the verbs of a CLIP: `visual`, and `encode_text`."""

    def __init__(self, model: Any) -> None:
        super().__init__()
        self.visual, self.text, self._pad = model.vision_model, model.text_model, model.config.text_config.pad_token_id

    @property
    def width(self) -> int:
        """The length of a feature."""
        return int(self.text.config.hidden_size)

    def encode_text(self, tokens: Tensor) -> Tensor:
        """Features (S, D) of sentences (S, L), which are filled up at their ends; what fills them does not count."""
        known = tokens != self._pad
        length = max(1, int(known.sum(1).max()))
        found = self.text(input_ids=tokens[:, :length], attention_mask=known[:, :length].long())
        return cast("Tensor", found.pooler_output)


def load_tips(folder: Path) -> tuple[Tips, Any]:
    """A model in float32 on the CPU, and its tokenizer, from a folder as the hub has it.

    Raises ModelError without transformers 5, and GeoOVSegError for what cannot be loaded.
    """
    try:
        from transformers import Tipsv2Model, Tipsv2Tokenizer
    except ImportError as error:
        raise ModelError(f"TIPSv2 needs more packages: pip install 'geoovseg[tips]' ({error})") from error
    try:
        with silent("transformers"):
            model: Any = Tipsv2Model.from_pretrained(folder, local_files_only=True, use_safetensors=True)
            words = Tipsv2Tokenizer.from_pretrained(folder, local_files_only=True)
    except Exception as error:  # of many kinds
        raise GeoOVSegError(f"{folder} cannot be loaded as TIPSv2: {first_line(error)}") from error
    length = model.config.text_config.max_position_embeddings

    def tokenize(sentences: list[str]) -> Tensor:
        given: dict[str, Any] = {"padding": "max_length", "truncation": True, "max_length": length}
        return cast("Tensor", words(sentences, return_tensors="pt", **given).input_ids)

    return Tips(model).eval().requires_grad_(False), tokenize
