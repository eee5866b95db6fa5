"""Stable Diffusion 2 as a vision model: how the patches of its latent image attend to each other (M2N2's reading)."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from geoovseg.errors import GeoOVSegError, ModelError, first_line, silent
from geoovseg.models.patches import Grid, fit_to
from geoovseg.models.tensors import check_finite

TIMESTEP = 1
"""Of the one pass; the paper says that fewer is better, M2N2 takes 100."""
WEIGHTS = (0.5, 0.5, 0.0)
"""Of the self-attentions of the last up block in their average (M2N2's up_0 and up_1)."""
ROWS = 1024
"""Rows of an attention map made at once."""


@dataclass(frozen=True)
class DiffusionVfm:
    """An autoencoder and a U-net: one unconditional pass over the clean latent image."""

    name: str
    vae: Any
    unet: Any
    empty: Tensor
    """features (1, L, D) of the empty prompt"""
    sha256: str | None = None
    attention_blocks: int = 2
    timestep: int = TIMESTEP
    weights: tuple[float, ...] = WEIGHTS

    @property
    def patch(self) -> int:
        """Pixels on a side of a latent one."""
        return int(2 ** (len(self.vae.config.block_out_channels) - 1))

    def features(self, pixels: Tensor, grid: Grid) -> Tensor:
        """None that methods compare. Raises ModelError."""
        raise ModelError(f"--vfm {self.name} has attention but no features; choose a DINO model, or clip")

    def queries_keys(self, pixels: Tensor, grid: Grid) -> Tensor:
        """None that methods compare. Raises ModelError."""
        raise ModelError(f"--vfm {self.name} has attention but no features; choose a DINO model, or clip")

    def attention(self, pixels: Tensor, grid: Grid, blocks: int) -> Tensor:
        """Attention (B, N, N) of the latent image: mean over heads, and over layers by their weights.

        Of the layers with a weight only the last `blocks`.
        """
        x = 2 * fit_to(pixels, grid, self.patch).to(self.vae.dtype) - 1
        latent = self.vae.encode(x).latent_dist.mode() * self.vae.config.scaling_factor
        known = self.unet.up_blocks[-1].attentions
        chosen = [(n, weight) for n, weight in enumerate(self.weights[: len(known)]) if weight][-blocks:]
        layers = [known[n].transformer_blocks[0].attn1 for n, _ in chosen]
        empty = self.empty.expand(len(x), -1, -1).to(latent)
        with _captured(layers) as kept:
            self.unet(latent, self.timestep, encoder_hidden_states=empty)
        maps = torch.stack([_weights(layer, *kept[n]) for n, layer in enumerate(layers)])
        shares = maps.new_tensor([weight for _, weight in chosen])
        return (maps * (shares / shares.sum())[:, None, None, None]).sum(0)


@contextmanager
def _captured(layers: Sequence[Any]) -> Iterator[dict[int, list[Tensor]]]:
    """Projected queries and keys (B, N, E) of layers by their number, while this is open."""
    kept: dict[int, list[Tensor]] = {n: [] for n in range(len(layers))}

    def keep(number: int) -> Any:
        return lambda module, given, out: kept[number].append(out)

    parts = [(n, part) for n, layer in enumerate(layers) for part in (layer.to_q, layer.to_k)]
    hooks = [part.register_forward_hook(keep(n)) for n, part in parts]
    try:
        yield kept
    finally:
        for hook in hooks:
            hook.remove()


def _weights(layer: Any, queries: Tensor, keys: Tensor) -> Tensor:
    """softmax(q k^T scale), mean over heads (B, N, N), some rows at a time."""
    q, k = (t.float().unflatten(-1, (layer.heads, -1)).transpose(1, 2) for t in (queries, keys))
    rows = [(piece @ k.mT * layer.scale).softmax(-1).mean(1) for piece in q.split(ROWS, dim=2)]
    return torch.cat(rows, dim=1)


def load_diffusion(
    name: str, folder: Path, device: torch.device, dtype: torch.dtype, sha256: str | None = None
) -> DiffusionVfm:
    """Load a folder as diffusers writes it: unet, vae, text_encoder, tokenizer, in safetensors.

    Raises ModelError without the packages of the extra `sd`, and GeoOVSegError for what cannot be loaded.
    """
    try:
        from diffusers import AutoencoderKL, UNet2DConditionModel
        from transformers import CLIPTextModel, CLIPTokenizer
    except ImportError as error:
        raise ModelError(f"--vfm {name} needs more packages: pip install 'geoovseg[sd]' ({error})") from error
    given: dict[str, Any] = {"use_safetensors": True, "local_files_only": True}
    with silent("diffusers"), silent("transformers"):
        try:
            unet = UNet2DConditionModel.from_pretrained(folder, subfolder="unet", **given)
            vae = AutoencoderKL.from_pretrained(folder, subfolder="vae", **given)
            text = CLIPTextModel.from_pretrained(folder, subfolder="text_encoder", **given)
            tokens = CLIPTokenizer.from_pretrained(folder, subfolder="tokenizer", local_files_only=True)
            check_finite(item for model in (unet, vae, text) for item in model.state_dict().items())
        except Exception as error:  # of many kinds
            raise GeoOVSegError(f"{folder} cannot be loaded as Stable Diffusion: {first_line(error)}") from error
        ids = tokens("", padding="max_length", max_length=tokens.model_max_length, return_tensors="pt").input_ids
        with torch.no_grad():
            empty = text(ids)[0]
        vae, unet = (m.to(device=device, dtype=dtype).eval().requires_grad_(False) for m in (vae, unet))
    return DiffusionVfm(name, vae, unet, empty.to(device=device, dtype=dtype), sha256)
