"""Methods over their floor: the models each must run, on the inputs it runs them on, as the libraries run them.

    python benchmarks/floors.py [--only resclip,trident] [--rounds 3]

Ours and the floor alternate in one process, after one run of each that is not counted. ViT-B/16, DINO ViT-B/16,
DINOv2 ViT-B/14 and SAM ViT-B with random weights; pictures are drawn. Prints a Markdown table.
"""

from __future__ import annotations

import argparse
import platform
from collections.abc import Callable, Collection
from functools import partial
from typing import Any

import numpy as np
import open_clip
import timm
import torch
from rasterio.windows import Window
from segment_anything import SamAutomaticMaskGenerator
from skimage.segmentation import felzenszwalb
from speed import WORDS, pair, windows
from torch import Tensor, nn

from geoovseg.demo.scenes import render
from geoovseg.methods import load_method
from geoovseg.methods.blocks import Cut
from geoovseg.models.load import load_clip
from geoovseg.models.masks import Masks, MaskSet
from geoovseg.models.regions import LEAST, SMOOTH, by_colour
from geoovseg.models.sam import PROMPTS, Sam, as_image, build_sam
from geoovseg.models.vfm import ClipVfm, TimmVfm
from geoovseg.models.vit import ClipVit
from geoovseg.vocabulary import parse_classes
from geoovseg.windows.batch import TileBatch

EIGHT = parse_classes(["building=house+roof,road,water,tree,grass,soil,field"])
"""Eight words."""
COLOURS = {"mean": (0.485, 0.456, 0.406), "std": (0.229, 0.224, 0.225)}
REFINED = {"sam_iou_thresh": -10.0, "coarse_thresh": 0.0}
"""Random masks are no good; these thresholds keep them, as do those of `regions-all`."""
POINTS = 16
"""On a side of a picture: a quarter of the prompts of the default."""

Runs = tuple[Callable[[], object], Callable[[], object]]
"""Ours and the floor."""


def clip_at(side: int) -> nn.Module:
    """A tower whose own forward sees images of this side."""
    torch.manual_seed(0)
    model = open_clip.create_model("ViT-B-16-quickgelu", force_image_size=side)
    return model.visual.eval().requires_grad_(False)  # type: ignore[no-any-return]


def timm_at(arch: str, side: int) -> nn.Module:
    torch.manual_seed(0)
    model = timm.create_model(arch, num_classes=0, dynamic_img_size=True, img_size=side)
    return model.eval().requires_grad_(False)


def sam_vit_b() -> Sam:
    torch.manual_seed(0)
    return Counting(build_sam("vit_b"))


class Counting(Sam):
    """Counts prompts."""

    prompts = 0

    def prompted(self, seen: Any, points: Tensor, *more: Any) -> Any:
        self.prompts += len(points)
        return super().prompted(seen, points, *more)


def drawn(count: int, side: int) -> TileBatch:
    pixels = np.stack([render(1000 + n, side, side)[0] for n in range(count)]).astype(np.float32) / 255
    return TileBatch(
        windows=(Window(0, 0, side, side),) * count, stored=pixels, valid=np.ones((count, side, side), bool)
    )


def method(name: str, tower: nn.Module, words: Any = WORDS, **given: Any) -> Any:
    torch.manual_seed(1)
    vit = ClipVit(tower)
    text = torch.nn.functional.normalize(torch.randn(len(words.queries), vit.dim), dim=-1)
    return load_method(name, vit, text, words, **given)


@torch.inference_mode()
def forward(*seen: tuple[nn.Module, Tensor]) -> None:
    """Library forwards, eight images at a time."""
    for model, images in seen:
        for part in images.split(8):
            model(part)


@torch.inference_mode()
def decoded(sam: Sam, count: int, together: int) -> None:
    """Segment Anything's encoder on one image, its decoder on points."""
    model, embedding = sam.model, sam.encoder(torch.rand(1, 3, sam.side, sam.side))
    for part in torch.rand(count, 1, 2).mul(sam.side).split(together):
        sparse, dense = model.prompt_encoder((part, torch.ones(len(part), 1, dtype=torch.int)), None, None)
        model.mask_decoder(embedding, model.prompt_encoder.get_dense_pe(), sparse, dense, multimask_output=True)


def small(name: str, looks: int) -> Runs:
    """A window method, and as many times its tower."""
    tower = clip_at(224)
    ours, eight = method(name, tower), windows(ClipVit(tower), 8)
    return lambda: ours.scores(eight), partial(forward, *[(tower, torch.from_numpy(eight.pixels))] * looks)


def resclip_demo() -> Runs:
    tower = load_clip("demo", torch.device("cpu"), "fp32").vit.visual
    ours, eight = method("resclip", tower, EIGHT), windows(ClipVit(tower), 8)
    return lambda: ours.scores(eight), partial(forward, (tower, torch.from_numpy(eight.pixels)))


def corrclip() -> Runs:
    """A block of four by four windows."""
    side, block = 336, drawn(1, 672)
    clip, dino = clip_at(side), timm_at("vit_base_patch16_224.dino", side)
    vfm = TimmVfm("dino", dino, **COLOURS, rule="offset")
    ours = method("corrclip", clip_at(224), cut=Cut(block=672), vfm=vfm, regions=by_colour)
    seen = torch.rand(16, 3, side, side)

    def floor() -> None:
        forward((clip, seen), (dino, seen))
        felzenszwalb(block.pixels[0], scale=LEAST, sigma=SMOOTH, min_size=LEAST, channel_axis=0)

    return lambda: ours.scores(block), floor


def direct(name: str) -> Runs:
    """Windows of 224 that the tower itself looks at again, with 32 x 32 patches."""
    tower, eight = clip_at(224), drawn(8, 224)
    ours = method(name, tower, cut=Cut(window=224), vfm=ClipVfm("clip", ClipVit(tower)))
    seen = ((tower, torch.from_numpy(eight.pixels)), (clip_at(512), torch.rand(8, 3, 512, 512)))
    return lambda: ours.scores(eight), partial(forward, *seen)


def direct_dino() -> Runs:
    """Blocks and vision model as the card has them."""
    dino, eight = timm_at("vit_base_patch14_reg4_dinov2", 448), drawn(8, 448)
    ours = method("direct-op", clip_at(224), vfm=TimmVfm("dino", dino, **COLOURS))
    seen = torch.from_numpy(eight.pixels)
    return lambda: ours.scores(eight), partial(forward, (clip_at(448), seen), (dino, seen))


def trident(settings: dict[str, Any]) -> Runs:
    """A block of one frame, 3 x 3 windows."""
    sam, block, side = sam_vit_b(), drawn(1, 1024), 336
    clip, dino = clip_at(side), timm_at("vit_base_patch16_224.dino", side)
    vfm = TimmVfm("dino", dino, **COLOURS, rule="offset")
    ours = method("trident", clip_at(224), vfm=vfm, sam=sam, settings=settings)
    seen = torch.rand(9, 3, side, side)
    ours.scores(block)
    prompts = sam.prompts  # type: ignore[attr-defined]

    def floor() -> None:
        forward((clip, seen), (dino, seen))
        decoded(sam, prompts, PROMPTS)

    return lambda: ours.scores(block), floor


def regions(quality: float, stability: float) -> Runs:
    """Masks of everything in a picture; the floor is the encoder, and the decoder on every point."""
    sam, image = sam_vit_b(), as_image(drawn(1, 448).pixels[0])
    wanted = MaskSet(POINTS, quality, stability)
    return lambda: list(Masks(sam).find(image, wanted)), partial(decoded, sam, POINTS**2, 64)


def generator() -> Runs:
    """The same beside the package's own generator, which gives the same masks."""
    ours, _ = regions(0.88, 0.95)
    package = SamAutomaticMaskGenerator(build_sam("vit_b"), POINTS)
    image = as_image(drawn(1, 448).pixels[0])
    return ours, lambda: package.generate(image)


ROWS: dict[str, Callable[[], Runs]] = {
    "resclip": partial(small, "resclip", 1),
    "resclip-demo": resclip_demo,
    "reattnclip": partial(small, "reattnclip", 4),
    "corrclip": corrclip,
    "direct-op": partial(direct, "direct-op"),
    "direct-mv": partial(direct, "direct-mv"),
    "direct-op-dinov2": direct_dino,
    "trident": partial(trident, {}),
    "trident-refined": partial(trident, REFINED),
    "regions": partial(regions, 0.88, 0.95),
    "regions-all": partial(regions, 0.0, 0.0),
    "regions-generator": generator,
}


def main(only: Collection[str], rounds: int) -> None:
    print(f"{platform.machine()}, {torch.get_num_threads()} threads, torch {torch.__version__}, medians of {rounds}\n")
    print("| method | ours, ms | floor, ms | ratio |\n|---|---|---|---|", flush=True)
    for name in only:
        ours, floor = ROWS[name]()
        pair(name, ours, floor, rounds)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--only", default=",".join(ROWS))
    parser.add_argument("--rounds", type=int, default=3)
    args = parser.parse_args()
    main(args.only.split(","), args.rounds)
