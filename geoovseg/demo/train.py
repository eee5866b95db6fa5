"""Train the demo model from scratch: `python -m geoovseg.demo.train OUT_DIR`, CPU, under an hour on two cores.

Two losses share one tower. Image level: the class token of a crop against captions, contrastive. Patch level: patch
features, read out through the last block under mixings drawn at random per step from the dense family, against the
words of the classes, so that every dense method works on the model.
"""

from __future__ import annotations

import argparse
import json
import math
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import open_clip
import torch
from numpy.typing import NDArray
from open_clip.tokenizer import SimpleTokenizer
from safetensors.torch import save_file
from torch import Tensor, nn
from torch.nn import functional as F

from geoovseg.demo import words
from geoovseg.demo.scenes import CLASSES, render
from geoovseg.methods.dense import last_block
from geoovseg.models.vit import ClipVit
from geoovseg.ops import attention

CONFIG = {
    "embed_dim": 128,
    "vision_cfg": {"image_size": 112, "layers": 12, "width": 128, "head_width": 32, "patch_size": 8},
    "text_cfg": {"context_length": 77, "vocab_size": 0, "width": 96, "heads": 4, "layers": 2},
}
TRAIN_SEEDS = range(64)
"""Scenes to learn from; evaluation uses seeds from 1000 on."""
MIXES: tuple[tuple[attention.Mix, bool], ...] = (
    (attention.maskclip, True),
    (attention.maskclip, False),
    (attention.clearclip, False),
    (lambda q, k, v: attention.clearclip(k, q, v), False),
    (attention.segearth, False),
    (attention.segearth, False),
    (lambda q, k, v: attention.clearclip(q, k, v) + attention.clearclip(k, q, v), True),
)
"""Mixing and residual: MaskCLIP, values alone, q-q (ClearCLIP), k-k (NACLIP), SegEarth-OV twice, SCLIP."""
CLASS_TOKEN_WEIGHT = -0.3
"""SegEarth-OV's global bias, on in half of the steps that draw its mixing."""
MAX_SCALE = 50.0


@dataclass(frozen=True)
class Crops:
    """A batch of crops: pixels (B, 3, S, S) in 0..1 and how much of each patch each class covers (B, N, 8)."""

    pixels: Tensor
    shares: Tensor


class Pool:
    """Random crops from scenes drawn once, half of them centred on a class drawn evenly."""

    def __init__(self, seeds: Sequence[int], side: int, size: int, patch: int, rng: np.random.Generator) -> None:
        self.scenes = [render(seed, side, side) for seed in seeds]
        self.side, self.size, self.patch, self.rng = side, size, patch, rng

    def draw(self, count: int) -> Crops:
        """Crops under random flips, quarter turns, brightness and contrast."""
        pairs = [self._crop() for _ in range(count)]
        pixels = torch.from_numpy(np.stack([p for p, _ in pairs]))
        labels = torch.from_numpy(np.stack([c for _, c in pairs]).astype(np.int64))
        onehot = F.one_hot(labels - 1, len(CLASSES)).permute(0, 3, 1, 2).float()
        return Crops(pixels, F.avg_pool2d(onehot, self.patch).flatten(2).mT)

    def _crop(self) -> tuple[NDArray[np.float32], NDArray[np.uint8]]:
        rgb, label = self.scenes[self.rng.integers(len(self.scenes))]
        row, col = self._corner(label)
        box = (slice(row, row + self.size), slice(col, col + self.size))
        turn, flip = int(self.rng.integers(4)), bool(self.rng.integers(2))
        pixels = np.rot90(rgb[:, *box], turn, (1, 2)).astype(np.float32) / 255
        codes = np.rot90(label[box], turn)
        if flip:
            pixels, codes = pixels[:, :, ::-1], codes[:, ::-1]
        gain, shift = self.rng.uniform(0.85, 1.15), self.rng.uniform(-0.06, 0.06)
        return np.clip(pixels * np.float32(gain) + np.float32(shift), 0, 1), codes

    def _corner(self, label: NDArray[np.uint8]) -> tuple[int, int]:
        room = self.side - self.size
        if self.rng.random() < 0.5:
            where = np.flatnonzero(label[::8, ::8].ravel() == self.rng.integers(1, len(CLASSES) + 1))
            if len(where):
                r, c = divmod(int(self.rng.choice(where)), len(range(0, self.side, 8)))
                half = self.size // 2
                return min(max(r * 8 - half, 0), room), min(max(c * 8 - half, 0), room)
        return int(self.rng.integers(room + 1)), int(self.rng.integers(room + 1))


def columns(rng: np.random.Generator) -> tuple[list[str], NDArray[np.float32]]:
    """The words asked in one step, and which of them is right for which class: (8, words), rows zero where none is.

    Classes are left out at random; an umbrella word is right only for classes whose own word was left out.
    """
    asked: list[str] = []
    right: list[NDArray[np.float32]] = []
    kept = rng.random(len(CLASSES)) < 0.75
    for n, name in enumerate(CLASSES):
        if kept[n]:
            asked.append(str(rng.choice(words.SYNONYMS[name])))
            right.append(np.eye(len(CLASSES), dtype=np.float32)[n])
    for umbrella, members in words.UMBRELLAS.items():
        if rng.random() < 0.6:
            asked.append(umbrella)
            right.append(np.asarray([name in members and not kept[n] for n, name in enumerate(CLASSES)], np.float32))
    for word in rng.choice(words.ABSENT, 3, replace=False):
        asked.append(str(word))
        right.append(np.zeros(len(CLASSES), np.float32))
    return asked, np.stack(right, axis=1)


def caption(share: NDArray[np.float32], rng: np.random.Generator) -> tuple[str, frozenset[str]]:
    """A sentence naming what covers most of a crop, largest first, and the classes it names."""
    order = [n for n in np.argsort(-share) if share[n] > 0.12][:3]
    named = [str(rng.choice(words.SYNONYMS[CLASSES[n]])) for n in order]
    listed = " and ".join(filter(None, [", ".join(named[:-1]), named[-1]]))
    return str(rng.choice(words.PHRASES)).format(listed), frozenset(CLASSES[n] for n in order)


class Trainer:
    """One model, one stream of crops, and the two losses."""

    def __init__(self, model: open_clip.CLIP, tokenizer: SimpleTokenizer, pool: Pool, rng: np.random.Generator) -> None:
        self.model, self.tokenizer, self.pool, self.rng = model, tokenizer, pool, rng
        self.vit = ClipVit(model.visual)
        self.templates = [t("{}") for t in open_clip.OPENAI_IMAGENET_TEMPLATES] + [*words.PHRASES, *words.PHRASES]

    def text(self, texts: list[str]) -> Tensor:
        """Unit text features of sentences."""
        return F.normalize(self.model.encode_text(self.tokenizer(texts)), dim=-1)

    def loss(self, batch: int) -> Tensor:
        """Contrastive loss of the images plus the mean patch loss under two mixings."""
        crops = self.pool.draw(batch)
        asked, right = columns(self.rng)
        named = [caption(s, self.rng) for s in crops.shares.mean(1).numpy()]
        prompts = [str(self.rng.choice(self.templates)).format(w) for w in asked]
        text = self.text([*prompts, *(sentence for sentence, _ in named)])
        x, _ = self.vit.trunk(crops.pixels)
        scale = self.model.logit_scale.exp().clamp(max=MAX_SCALE)
        image = F.normalize(self.vit.readout(self.vit.block(self.vit.depth - 1, x))[:, 0], dim=-1)
        loss = 0.5 * contrastive(scale * image @ text[len(asked) :].T, [classes for _, classes in named])
        target = crops.shares @ torch.from_numpy(right)  # (B, N, words)
        for n in self.rng.choice(len(MIXES), 2, replace=False):
            loss = loss + self.patch_loss(x, int(n), text[: len(asked)], target, scale)
        return loss

    def patch_loss(self, x: Tensor, mixing: int, text: Tensor, target: Tensor, scale: Tensor) -> Tensor:
        """Cross-entropy of every patch against the words, weighted by how much of it has a right word."""
        mix, residual = MIXES[mixing]
        features = F.normalize(last_block(self.vit, x, mix, residual=residual), dim=-1)
        scores = features[:, 1:] @ text.T
        if mix is attention.segearth and self.rng.random() < 0.5:
            scores = scores + CLASS_TOKEN_WEIGHT * (features[:, :1] @ text.T)
        return -(target * F.log_softmax(scale * scores, dim=-1)).sum() / target.sum().clamp(min=1)


def contrastive(logits: Tensor, named: list[frozenset[str]]) -> Tensor:
    """CLIP's symmetric loss, where captions that name the same classes all count as right."""
    same = torch.tensor([[float(a == b) for b in named] for a in named])
    target = same / same.sum(1, keepdim=True)
    image, caption = ((target * F.log_softmax(m, dim=1)).sum(1).mean() for m in (logits, logits.T))
    return -0.5 * (image + caption)


def build(out: Path) -> tuple[open_clip.CLIP, SimpleTokenizer]:
    """Write the vocabulary and the open_clip configuration, and build the model they describe."""
    texts = [t(w) for t in open_clip.OPENAI_IMAGENET_TEMPLATES for w in words.all_words()]
    texts += [p.format(w) for p in words.PHRASES for w in words.all_words()]
    words.write_bpe(words.train_bpe(texts, 600), out / "bpe.txt.gz")
    tokenizer = SimpleTokenizer(bpe_path=str(out / "bpe.txt.gz"))
    config = json.loads(json.dumps(CONFIG))
    config["text_cfg"]["vocab_size"] = tokenizer.vocab_size
    (out / "config.json").write_text(json.dumps(config, indent=2) + "\n")
    model = open_clip.CLIP(**config)
    for block in [*model.visual.transformer.resblocks, *model.transformer.resblocks]:
        nn.init.zeros_(block.attn.out_proj.bias)
    return model, tokenizer


def train(out: Path, *, steps: int, batch: int, seed: int, scenes: int) -> None:
    """Train and write model.safetensors (fp16), config.json and bpe.txt.gz into `out`."""
    torch.manual_seed(seed)
    rng = np.random.default_rng(seed)
    out.mkdir(parents=True, exist_ok=True)
    (out / "words.txt").write_text("\n".join(words.all_words()) + "\n")
    model, tokenizer = build(out)
    pool = Pool(TRAIN_SEEDS[:scenes], 1024, 112, 8, rng)
    trainer = Trainer(model, tokenizer, pool, rng)
    optimizer = torch.optim.AdamW(model.parameters(), lr=1.2e-3, weight_decay=0.05, betas=(0.9, 0.98))
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, 1.2e-3, total_steps=steps, pct_start=0.15)
    start, mean = time.time(), math.nan
    for step in range(steps):
        loss = trainer.loss(batch)
        optimizer.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        schedule.step()
        mean = float(loss.detach()) if math.isnan(mean) else 0.98 * mean + 0.02 * float(loss.detach())
        if step % 25 == 0:
            print(f"step {step} loss {mean:.3f} {time.time() - start:.0f} s", flush=True)
        if step % 500 == 499:
            _save(model, out)
    _save(model, out)


def _save(model: open_clip.CLIP, out: Path) -> None:
    state = {k: v.half().contiguous() for k, v in model.state_dict().items() if k != "attn_mask"}
    save_file(state, out / "model.safetensors")


def main() -> None:
    """Parse the command line and train."""
    parser = argparse.ArgumentParser(description="Train the demo model from scratch.")
    parser.add_argument("out", type=Path)
    parser.add_argument("--steps", type=int, default=3000)
    parser.add_argument("--batch", type=int, default=16)
    parser.add_argument("--seed", type=int, default=7)
    parser.add_argument("--scenes", type=int, default=64)
    args = parser.parse_args()
    train(args.out, steps=args.steps, batch=args.batch, seed=args.seed, scenes=args.scenes)


if __name__ == "__main__":
    main()
