"""SAM 3 (Carion et al. 2025, arXiv 2511.16719) through transformers: an image is seen once, and asked word by word.

It is no CLIP. A word is all of its tokens, which meet the image in a detector, and what comes of it are masks: nothing
of that is linear in the words. Only arguments that transformers documents are used; specification: sam3.md, section 6.
"""

from __future__ import annotations

import copy
import json
import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, cast

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from geoovseg.errors import GeoOVSegError, GeoOVSegWarning, ModelError, first_line
from geoovseg.files import LARGEST_TEXT, bytes_of
from geoovseg.models.card import ModelCard, Tower
from geoovseg.models.light import open_clip
from geoovseg.models.patches import Grid
from geoovseg.models.tensors import as_weights, fill_from
from geoovseg.models.text import TextEncoder, Tokenize
from geoovseg.models.vit import ClipVit

PREFIX = "detector_model."
"""Before the names of the detector's tensors, in a file that holds a tracker as well."""
PADDING = -10
"""The label of a box that counts as none."""


@dataclass(frozen=True)
class Seen:
    """A window as the image encoder left it, for all words."""

    levels: tuple[Tensor, ...]
    """features (1, d, h, w) of four resolutions"""
    positions: tuple[Tensor, ...]
    """their position encodings (1, d, h, w)"""


@dataclass(frozen=True)
class Answers:
    """What SAM 3 says of Q words in a window, all of it logits."""

    masks: Tensor
    """(Q, n, h, w) where each of n objects is, in the dtype of the model"""
    classes: Tensor
    """(Q, n) float32: whether it is what the word says, if there is any in the window"""
    presence: Tensor
    """(Q,) float32: whether there is any in the window"""
    semantic: Tensor
    """(Q, h, w) float32: where the word holds, whatever the objects"""


class Sam3Tower(ClipVit):
    """SAM 3 without its text encoder. Of the verbs of a CLIP it has colours only; its own are `see` and `answer`."""

    kind: ClassVar[Tower] = "sam3"

    def __init__(self, visual: nn.Module, *, mean: Sequence[float], std: Sequence[float]) -> None:
        self.visual, self._model = visual, cast("Any", visual)
        eye = self._model.config.vision_config.backbone_config
        self.side, self.patch, self.width = int(eye.image_size), int(eye.patch_size), int(eye.hidden_size)
        self.native_grid: Grid = (self.side // self.patch, self.side // self.patch)
        self.dim = int(self._model.config.detr_encoder_config.hidden_size)
        self._keep_colours(mean, std)

    @property
    def dtype(self) -> torch.dtype:
        """The dtype the model computes in."""
        return cast("torch.dtype", self._model.text_projection.weight.dtype)

    @property
    def device(self) -> torch.device:
        """Where the weights are."""
        return cast("torch.device", self._model.text_projection.weight.device)

    def see(self, pixels: Tensor) -> Seen:
        """Features of a window (1, 3, H, W), RGB in 0..1, stretched to the model's square whatever its shape.

        As SAM 3's own processing does it: 8 bits, bilinear, antialiased.
        """
        levels = (pixels.cpu() * 255).round().to(torch.uint8)
        if levels.shape[-2:] != (self.side, self.side):
            levels = F.interpolate(levels, (self.side, self.side), mode="bilinear", antialias=True)
        seen = self.normalise(levels.to(self.device).float() / 255)
        found = self._model.get_vision_features(pixel_values=seen.to(self.dtype))
        return Seen(found.fpn_hidden_states, found.fpn_position_encoding)

    def answer(self, seen: Seen, words: Tensor, *, geometry_cls: bool = True) -> Answers:
        """What is found of words (Q, D), as `TokenEncoder` gives them, in a window.

        With `geometry_cls` the geometry encoder's CLS token joins the words' tokens, as in SAM 3's own code, which
        encodes an empty prompt of boxes always; transformers leaves it out unless it is given a box. The one given here
        counts as padding, so that its place does not matter (section 6a).
        """
        from transformers.modeling_outputs import BaseModelOutputWithPooling
        from transformers.models.sam3.modeling_sam3 import Sam3VisionEncoderOutput

        count, each = len(words), words.unflatten(1, (-1, self.dim + 1))
        levels, positions = (
            tuple(level.expand(count, -1, -1, -1) for level in given) for given in (seen.levels, seen.positions)
        )
        boxes: dict[str, Tensor] = {}
        if geometry_cls:
            boxes["input_boxes"] = torch.full((count, 1, 4), 0.5, dtype=self.dtype, device=self.device)
            boxes["input_boxes_labels"] = torch.full((count, 1), PADDING, device=self.device)
        found = self._model(
            vision_embeds=Sam3VisionEncoderOutput(fpn_hidden_states=levels, fpn_position_encoding=positions),
            text_embeds=BaseModelOutputWithPooling(pooler_output=each[..., :-1].to(self.dtype)),
            attention_mask=each[..., -1] > 0,  # never without: what fills a sentence up would be attended to
            **boxes,
        )
        return Answers(
            masks=found.pred_masks,
            classes=found.pred_logits.float(),
            presence=found.presence_logits[:, 0].float(),
            semantic=found.semantic_seg[:, 0].float(),
        )


class Sam3:
    """A whole model: `visual`, and words by a text encoder that is read from its file when a word is not known."""

    def __init__(self, visual: nn.Module, config: Any, path: Path) -> None:
        self.visual, self._config, self._path = visual, config, path
        self._words: Any = None

    @property
    def width(self) -> int:
        """The length of a word's feature."""
        length, each = self._config.text_config.max_position_embeddings, self._config.detr_encoder_config.hidden_size
        return int(length * (each + 1))

    def encode_text(self, tokens: Tensor) -> Tensor:
        """Features (S, D) of sentences (S, L): for each token its d numbers, then 1 for it, 0 for what fills it up."""
        self._words = self._words or self._text_side()
        known = torch.arange(tokens.shape[1]) <= tokens.argmax(1, keepdim=True)  # the end's is the largest number
        found = self._words.text_encoder(input_ids=tokens, attention_mask=known.long()).last_hidden_state
        return torch.cat([self._words.text_projection(found), known[..., None]], dim=2).flatten(1)

    def forget(self) -> None:
        """Let go of the text encoder, which is two fifths of the model."""
        self._words = None

    def _text_side(self) -> Any:
        from transformers import CLIPTextModelWithProjection

        config = self._config.text_config
        words: Any = nn.Module()
        words.text_encoder = CLIPTextModelWithProjection(config)
        words.text_projection = nn.Linear(config.hidden_size, self._config.detr_encoder_config.hidden_size)
        fill_from(words, self._path, PREFIX)
        return words.eval().requires_grad_(False)


class TokenEncoder(TextEncoder):
    """The text side of SAM 3: a word's feature is all of its tokens, from one sentence, which is the word alone."""

    unit: ClassVar[bool] = False

    def embed(self, words: Sequence[str]) -> Tensor:
        """Features (Q, D) in float32; what read new words is let go of. Raises ModelError for several sentences."""
        try:
            return super().embed(words)
        finally:
            self._whole[0].forget()

    def encode(self, word: str) -> Tensor:
        """The feature (D,) of a word, computed. Raises ModelError for several sentences."""
        if len(self.templates) > 1:
            raise ModelError(
                f"SAM 3 reads one sentence a word, and there are {len(self.templates)} around it: --templates bare"
            )
        model, tokenize = self._whole
        tokens = tokenize([self.templates[0].replace("{}", word)])
        if int(tokens.argmax()) == tokens.shape[1] - 1:
            text = (
                f"SAM 3 reads {tokens.shape[1] - 2} tokens of a word, and {word!r} has as many or more: say it shorter"
            )
            warnings.warn(text, GeoOVSegWarning, 4)
        return model.encode_text(tokens)[0]

    def similarity(self, words: Sequence[str], others: Sequence[str]) -> Tensor:
        """Nothing to compare. Raises ModelError."""
        raise ModelError("SAM 3 has no vector of a word, so that words cannot be compared; choose a CLIP model")

    @property
    def _whole(self) -> tuple[Sam3, Tokenize]:
        return cast("tuple[Sam3, Tokenize]", self._load())


def load_sam3(card: ModelCard, path: Path) -> tuple[Sam3, Any]:
    """A model in float32 on the CPU, and its tokenizer, from the hub's file with config.json beside it.

    Raises ModelError without transformers 5 and for files of another layout, GeoOVSegError for what cannot be loaded.
    """
    if path.suffix != ".safetensors":
        raise ModelError(
            f"{path.name} is not in the layout that is read here: give model.safetensors of facebook/sam3, with its "
            "config.json beside it, not sam3.pt of SAM 3's own code"
        )
    try:
        from transformers import Sam3Model
    except ImportError as error:
        raise ModelError(f"SAM 3 needs another package: pip install 'geoovseg[sam3]' ({error})") from error
    config = _config(path.with_name("config.json"))
    alone = copy.deepcopy(config)
    alone.text_config.num_hidden_layers, alone.text_config.vocab_size = 0, 1  # is taken out at once
    with as_weights(path, card):
        visual: Any = Sam3Model(alone)
        visual.text_encoder = None
        fill_from(visual, path, PREFIX)
    length = config.text_config.max_position_embeddings
    tokenize = open_clip.tokenizer.SimpleTokenizer(context_length=length)
    return Sam3(visual.eval().requires_grad_(False), config, path), tokenize


def _config(path: Path) -> Any:
    """The configuration of the detector, alone or beside a tracker's. Raises GeoOVSegError."""
    from transformers import Sam3Config

    try:
        said = json.loads(bytes_of(path, LARGEST_TEXT))
        if not isinstance(said, dict) or not str(said.get("model_type")).startswith("sam3"):
            raise ValueError("its model_type is not sam3")
        return Sam3Config.from_dict(said.get("detector_config", said))
    except Exception as error:  # of many kinds
        raise GeoOVSegError(f"{path} is no configuration of SAM 3: {first_line(error)}") from error
