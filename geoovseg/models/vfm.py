"""Vision foundation models beside CLIP: dense features of patches, and how patches attend to each other."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, Literal, Protocol, cast

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from geoovseg.models.cards import ModelCard, model_card
from geoovseg.models.diffusion import load_diffusion
from geoovseg.models.download import file_sha256
from geoovseg.models.layouts import as_dinov3
from geoovseg.models.light import timm
from geoovseg.models.load import ClipModel, load_clip
from geoovseg.models.patches import Grid, between_patches, fit_to
from geoovseg.models.precision import PRECISIONS, ready
from geoovseg.models.tensors import as_weights, fill, read_state, under
from geoovseg.models.vit import ClipVit, resize_positions
from geoovseg.models.weights import find_weights
from geoovseg.ops.attention import summing

Rule = Literal["timm", "offset"]
"""How a position table is brought to another grid: as timm does, or as DINO's release (see ClipVit.positions)."""


class Vfm(Protocol):
    """A model that sees pixels (B, 3, H, W), RGB in 0..1, as a grid of patches that is asked for."""

    @property
    def name(self) -> str:
        """What `--vfm` calls it."""

    @property
    def sha256(self) -> str | None:
        """The digest of its file, for the run record."""

    @property
    def patch(self) -> int:
        """Side of a patch in pixels."""

    @property
    def attention_blocks(self) -> int:
        """How many blocks, from the last, have attention that follows what is in the image."""

    def features(self, pixels: Tensor, grid: Grid) -> Tensor:
        """Patch tokens (B, h * w, D) after the last norm, row by row; not normalised."""

    def queries_keys(self, pixels: Tensor, grid: Grid) -> Tensor:
        """Queries plus keys of the last block's patches (B, h * w, E), heads side by side; not normalised."""

    def attention(self, pixels: Tensor, grid: Grid, blocks: int) -> Tensor:
        """Attention between patches (B, N, N): mean over the heads of the last `blocks` blocks, rows adding to 1."""


@dataclass(frozen=True)
class TimmVfm:
    """A vision transformer of timm: DINO, DINOv2, DINOv3."""

    name: str
    model: nn.Module
    mean: Sequence[float]
    std: Sequence[float]
    rule: Rule = "timm"
    sha256: str | None = None
    attention_blocks: int = 4

    @property
    def patch(self) -> int:
        """Side of a patch in pixels."""
        return int(self._parts.patch_embed.patch_size[0])

    @property
    def prefix(self) -> int:
        """Class token and registers."""
        return int(self._parts.num_prefix_tokens)

    @property
    def _parts(self) -> Any:
        return cast("Any", self.model)

    def features(self, pixels: Tensor, grid: Grid) -> Tensor:
        """Patch tokens after the last norm, class token and registers left out."""
        return self._tokens(fit_to(pixels, grid, self.patch))[:, self.prefix :]

    def queries_keys(self, pixels: Tensor, grid: Grid) -> Tensor:
        """Queries plus keys of the last block, as its projection gives them, before any position code."""
        attn = self._parts.blocks[-1].attn
        with _given(attn) as kept:
            self._tokens(fit_to(pixels, grid, self.patch))
        bias = attn.qkv.bias
        if bias is None and getattr(attn, "q_bias", None) is not None:  # kept apart by timm
            bias = torch.cat([attn.q_bias, attn.k_bias, attn.v_bias])
        q, k, _ = F.linear(kept[0][:, self.prefix :], attn.qkv.weight, bias).chunk(3, dim=-1)
        return q + k

    def attention(self, pixels: Tensor, grid: Grid, blocks: int) -> Tensor:
        """Attention between patches, read where timm drops it out; that sees softmaxed weights of any position code."""
        with _captured([block.attn for block in self._parts.blocks[-blocks:]]) as kept:
            self._tokens(fit_to(pixels, grid, self.patch))
        return between_patches(kept[0], self.prefix)

    def _tokens(self, pixels: Tensor) -> Tensor:
        """All tokens after the last norm."""
        weight = self._parts.patch_embed.proj.weight
        mean, std = (torch.tensor(v, device=pixels.device).view(1, 3, 1, 1) for v in (self.mean, self.std))
        x = ((pixels.float() - mean) / std).to(weight.dtype)
        return self._offset(x) if self.rule == "offset" else self._parts.forward_features(x)

    def _offset(self, x: Tensor) -> Tensor:
        """The walk of DINO's release, whose position tables are resized by another rule than timm's."""
        model = self._parts
        x = model.patch_embed(x)  # (B, h, w, E)
        grid = (x.shape[1], x.shape[2])
        table = model.pos_embed[0]
        if grid != tuple(model.patch_embed.grid_size):
            table = resize_positions(table, model.patch_embed.grid_size, grid, "offset")
        x = torch.cat([model.cls_token.expand(len(x), -1, -1), x.flatten(1, 2)], dim=1) + table
        return cast("Tensor", model.norm(model.blocks(model.norm_pre(x))))


@contextmanager
def _given(layer: nn.Module) -> Iterator[list[Tensor]]:
    """What a layer was given last, while this is open; leaves it as it was."""
    kept: list[Tensor] = []
    hook = layer.register_forward_pre_hook(lambda module, given: kept.__setitem__(slice(None), [given[0]]))
    try:
        yield kept
    finally:
        hook.remove()


@contextmanager
def _captured(layers: Sequence[nn.Module]) -> Iterator[list[Tensor]]:
    """Mean attention of layers and heads (B, L, L), while this is open; leaves the layers as they were."""
    kept: list[Tensor] = []

    def add(module: nn.Module, given: tuple[Tensor, ...]) -> None:
        mean = given[0].float().mean(1) / len(layers)
        kept[:] = [kept[0] + mean if kept else mean]

    fused = [layer.fused_attn for layer in layers]
    hooks = [cast("Any", layer).attn_drop.register_forward_pre_hook(add) for layer in layers]
    try:
        for layer in layers:
            layer.fused_attn = False  # type: ignore[assignment]
        yield kept
    finally:
        for hook in hooks:
            hook.remove()
        for layer, before in zip(layers, fused, strict=True):
            layer.fused_attn = before


@dataclass(frozen=True)
class ClipVfm:
    """A CLIP image tower used as one: its own patch tokens before the projection, and its own attention."""

    name: str
    clip: ClipVit
    sha256: str | None = None

    @property
    def patch(self) -> int:
        """Side of a patch in pixels."""
        return self.clip.patch

    @property
    def attention_blocks(self) -> int:
        """All: those of CLIP's last blocks gather on few patches (demo scenes: mIoU 0.90 with all, 0.62 with four)."""
        return self.clip.depth

    def features(self, pixels: Tensor, grid: Grid) -> Tensor:
        """Patch tokens after the last norm, as trained."""
        x, _ = self.clip.trunk(fit_to(pixels, grid, self.patch))
        return self.clip.final_norm(self.clip.block(self.clip.depth - 1, x))[:, 1:]

    def queries_keys(self, pixels: Tensor, grid: Grid) -> Tensor:
        """Queries plus keys of the last block."""
        x, _ = self.clip.trunk(fit_to(pixels, grid, self.patch))
        q, k, _ = self.clip.qkv(self.clip.depth - 1, x)
        return (q + k)[:, :, 1:].transpose(1, 2).flatten(2)

    def attention(self, pixels: Tensor, grid: Grid, blocks: int) -> Tensor:
        """Query-key attention between patches."""
        total: list[Tensor] = []
        x, _ = self.clip.embed(fit_to(pixels, grid, self.patch))
        for i in range(self.clip.depth):
            wanted = i >= self.clip.depth - blocks
            x = self.clip.block(i, x, summing(total, heads=False) if wanted else None)
        return between_patches(total[0] / min(blocks, self.clip.depth), 1)


def load_vfm(name: str, clip: ClipModel, device: torch.device, precision: str) -> Vfm:
    """A model by name; `clip` is the run's own CLIP, `demo` the demo model.

    Raises ModelError, WeightsMissingError, and GeoOVSegError for files that are something else.
    """
    if name == "clip" or name == clip.card.name:
        return ClipVfm(name, clip.vit, clip.sha256)
    if name == "demo":
        demo = load_clip.__wrapped__("demo", device, precision)
        return ClipVfm(name, demo.vit, demo.sha256)
    return _load(name, device, precision)


@lru_cache(maxsize=1)
def _load(name: str, device: torch.device, precision: str) -> Vfm:
    card = model_card(name, "vfm")
    path = find_weights(card)
    if card.arch == "diffusion":
        folder = path if path.is_dir() else path.parents[1]
        return load_diffusion(name, folder, device, PRECISIONS[precision], file_sha256(folder / card.files[0]))
    with as_weights(path, card):
        model = build_timm(card.arch, read_state(path))
    ready(model, device, precision)
    return TimmVfm(name, model, card.mean, card.std, _rule(card), file_sha256(path))


def _rule(card: ModelCard) -> Rule:
    """DINOv2 with registers resizes as timm does, without them as DINO (its release, interpolate_offset 0.1)."""
    return "offset" if card.arch.endswith((".dino", "14_dinov2.lvd142m")) else "timm"


def build_timm(arch: str, state: dict[str, Tensor], **changed: Any) -> nn.Module:
    """A model with the weights of timm, or of a release: of DINO (also with its head), DINOv2 or DINOv3.

    Of DINOv3 also as transformers names them.

    timm's DINOv3 leaves out the biases of queries, keys and values, which are zero in all released weights; files in
    which they are not get its variant with biases. Raises ValueError for tensors that are missing or of another shape.
    """
    state = as_dinov3(under("backbone.", state))
    released = "storage_tokens" in state
    biases = {k for k in state if k.endswith("attn.qkv.bias")} if released else set()
    if any(bool(state[k].any()) for k in biases):
        arch = arch.replace("_dinov3", "_dinov3_qkvb")
    else:
        state = {k: v for k, v in state.items() if k not in biases}
    model = timm().create_model(arch, pretrained=False, num_classes=0, dynamic_img_size=True, **changed)
    fill(model, _timm_keys(state, model))
    return model.eval().requires_grad_(False)


def _timm_keys(state: dict[str, Tensor], model: nn.Module) -> dict[str, Tensor]:
    """The keys of DINOv2's and DINOv3's releases as timm's; DINO's are the same. Raises ValueError for other sizes."""
    if "storage_tokens" not in state and "mask_token" not in state:
        return state
    _check_sizes(state, cast("Any", model))
    released = timm().models.eva if "storage_tokens" in state else timm().models.vision_transformer
    return released.checkpoint_filter_fn(state, model)


def _check_sizes(state: dict[str, Tensor], model: Any) -> None:
    """What timm would resample, so that weights of another architecture seemed to fit."""
    ours = {"patch_embed.proj.weight": model.patch_embed.proj.weight.shape}
    if (table := model.pos_embed) is not None:
        rows = table.shape[1] + bool(model.no_embed_class)  # a release's table has a row for the class token
        ours["pos_embed"] = torch.Size((1, rows, table.shape[2]))
        ours |= {} if model.reg_token is None else {"register_tokens": model.reg_token.shape}
    for key, shape in ours.items():
        if key not in state:
            raise ValueError(f"it has no {key}")
        if state[key].shape != shape:
            raise ValueError(f"its {key} has shape {tuple(state[key].shape)}, not {tuple(shape)}")
